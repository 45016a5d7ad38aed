//! A gateway on loopback that answers as a script says, and remembers what it was asked.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Json, Router,
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use evo_common::runtime::{OnError, TaskGroup};
use futures_util::StreamExt as _;
use serde_json::{Value, json};

use crate::{config::ModelSettings, gateway::GatewayClient};

/// The token that this gateway wants.
pub(crate) const TOKEN: &str = "evo_gw_test";
/// Its first chat model.
pub(crate) const MODEL: &str = "fake:chat-1";

/// One answer to a chat.
pub(crate) enum Reply {
    /// The model says this.
    Says(String),
    /// An HTTP error with `Retry-After`, if given.
    Error(u16, Option<&'static str>),
    /// A stream of these bytes, chunk by chunk.
    Chunks(Vec<Vec<u8>>),
    /// A stream of these bytes that then breaks off.
    Broken(Vec<Vec<u8>>),
    /// These bytes as a whole answer.
    Raw(&'static str),
    /// Nothing, for a minute.
    Hangs,
}

/// The model says this.
pub(crate) fn says(text: impl Into<String>) -> Reply {
    Reply::Says(text.into())
}

type Script = dyn Fn(usize, &Value) -> Reply + Send + Sync;

/// A request that came in.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

struct Shared {
    script: Box<Script>,
    models: Value,
    seen: Mutex<Vec<Seen>>,
}

/// The server; it ends when this is dropped.
pub(crate) struct FakeGateway {
    address: SocketAddr,
    shared: Arc<Shared>,
    tasks: TaskGroup,
}

impl Drop for FakeGateway {
    fn drop(&mut self) {
        self.tasks.token().cancel();
    }
}

impl FakeGateway {
    /// Lists an embedding model and [`MODEL`], which costs 1 USD in and 2 USD out per million
    /// tokens.
    pub(crate) async fn start(
        script: impl Fn(usize, &Value) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let models = json!([
            {"id": "fake:text-embedding-1", "object": "model"},
            {"id": 7},
            {"id": MODEL, "object": "model", "context_window": 8_000, "cost": {"input": 1.0, "output": 2.0}},
        ]);
        Self::listing(models, script).await
    }

    pub(crate) async fn listing(
        models: Value,
        script: impl Fn(usize, &Value) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let shared = Arc::new(Shared { script: Box::new(script), models, seen: Mutex::default() });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new()
            .route("/v1/models", get(models_list))
            .route("/v1/chat/completions", post(chat))
            .with_state(shared.clone());
        let tasks = TaskGroup::default();
        let cancel = tasks.token().clone();
        tasks.spawn("fake gateway", OnError::Log, async move {
            let stop = async move { cancel.cancelled().await };
            Ok(axum::serve(listener, router).with_graceful_shutdown(stop).await?)
        });
        Self { address, shared, tasks }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn client(&self) -> GatewayClient {
        GatewayClient::new(&self.url(), Some(TOKEN.into()), ModelSettings::default())
    }

    /// The chats so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }
}

fn refuses(headers: &HeaderMap) -> Option<Response> {
    let expected = format!("Bearer {TOKEN}");
    let given = headers.get("authorization").and_then(|value| value.to_str().ok());
    (given != Some(&expected)).then(|| error(401, "wrong token"))
}

fn error(status: u16, message: &str) -> Response {
    let body = json!({"error": {"message": message, "type": "fake_error", "code": null}});
    (StatusCode::from_u16(status).unwrap(), Json(body)).into_response()
}

async fn models_list(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    refuses(&headers)
        .unwrap_or_else(|| Json(json!({"object": "list", "data": shared.models})).into_response())
}

async fn chat(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> Response {
    if let Some(refusal) = refuses(&headers) {
        return refusal;
    }
    let number = {
        let mut seen = shared.seen.lock().unwrap();
        seen.push(Seen { headers, body: body.clone() });
        seen.len()
    };
    match (shared.script)(number, &body) {
        Reply::Says(text) => Json(completion(&text)).into_response(),
        Reply::Error(status, retry_after) => {
            let mut response = error(status, &format!("fake error {status}"));
            if let Some(value) = retry_after {
                response.headers_mut().insert("retry-after", value.parse().unwrap());
            }
            response
        }
        Reply::Chunks(chunks) => events(chunks, false),
        Reply::Broken(chunks) => events(chunks, true),
        Reply::Raw(text) => text.into_response(),
        Reply::Hangs => {
            tokio::time::sleep(Duration::from_secs(60)).await;
            StatusCode::NO_CONTENT.into_response()
        }
    }
}

fn completion(text: &str) -> Value {
    json!({
        "id": "c-1", "object": "chat.completion", "model": "chat-1-2026",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1_000, "completion_tokens": 500, "total_tokens": 1_500},
    })
}

fn events(chunks: Vec<Vec<u8>>, broken: bool) -> Response {
    let end = broken.then(|| Err(std::io::Error::other("cut")));
    let parts = chunks.into_iter().map(Ok).chain(end);
    let stream = futures_util::stream::iter(parts).then(|part| async {
        // So that each part is a write of its own.
        tokio::time::sleep(Duration::from_millis(5)).await;
        part
    });
    ([("content-type", "text/event-stream")], Body::from_stream(stream)).into_response()
}

/// The bytes of a stream that says these pieces.
pub(crate) fn stream_of(pieces: &[&str]) -> Vec<u8> {
    stream_with(pieces, &[])
}

/// The bytes of a stream that says these pieces and then calls tools, each with a name and
/// arguments that come one character at a time.
pub(crate) fn stream_with(pieces: &[&str], calls: &[(&str, &str)]) -> Vec<u8> {
    let mut text = String::from(": hello\n\n");
    for piece in pieces {
        let chunk =
            json!({"choices": [{"index": 0, "delta": {"content": piece}, "finish_reason": null}]});
        text.push_str(&format!("data: {chunk}\n\n"));
    }
    let mut part = |index: usize, call: Value| {
        let mut call = call;
        call["index"] = json!(index);
        let chunk = json!({"choices": [{"index": 0, "delta": {"tool_calls": [call]}}]});
        text.push_str(&format!("data: {chunk}\n\n"));
    };
    for (index, (name, arguments)) in calls.iter().enumerate() {
        let id = format!("call-{index}-{name}");
        part(index, json!({"id": id, "type": "function", "function": {"name": name}}));
        for character in arguments.chars() {
            part(index, json!({"function": {"arguments": character.to_string()}}));
        }
    }
    let reason = if calls.is_empty() { "stop" } else { "tool_calls" };
    let end = json!({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]});
    let usage = json!({"choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": 4}});
    text.push_str(&format!("data: {end}\n\ndata: {usage}\n\ndata: [DONE]\n\n"));
    text.into_bytes()
}
