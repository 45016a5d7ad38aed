//! Requests of the Responses API to Codex: over HTTP, or over a WebSocket where the model prefers one.
//! Each takes the place of the other when it does not work.
//!
//! ChatGPT's backend answers in streams only, keeps nothing, wants instructions and knows no settings of
//! the model's dice. What a request says beyond that is refused where the answer would be another one,
//! unless its caller is lenient; else it is left out and named in `x-evo-dropped`.

use std::{
    collections::HashSet,
    sync::{
        PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header,
};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, Limited, StreamBody};
use serde_json::{Map, Value, json};
use tokio::time::{Instant, timeout_at};

use super::{
    ACCOUNT,
    events::{Event, Events, failure},
    socket::{Opened, Socket},
};
use crate::{
    config::CodexTransport,
    upstream::{
        Body, BoxError, BoxFuture, Client, Deadlines, Failure, Lenient, Reached, SendBody,
        Transport,
    },
};

/// What ChatGPT's backend does not take and an answer is right without. Some protocols demand a limit.
const HINTS: [&str; 5] =
    ["max_output_tokens", "max_tool_calls", "metadata", "safety_identifier", "user"];

/// What it does not take either and makes another answer, unless the value is the usual one.
fn is_usual(name: &str, value: &Value) -> bool {
    match name {
        "temperature" | "top_p" => value.as_f64() == Some(1.0),
        "top_logprobs" => value.as_u64() == Some(0),
        "truncation" => value == "disabled",
        _ => false,
    }
}

/// The fields that [`is_usual`] knows.
const REFUSED: [&str; 4] = ["temperature", "top_logprobs", "top_p", "truncation"];
/// Instructions of a request that has none.
const INSTRUCTIONS: &str = "You are a helpful assistant.";
/// Largest list of models.
const LIST: usize = 8 * 1024 * 1024;
const DROPPED: HeaderName = HeaderName::from_static("x-evo-dropped");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const EVENTS: HeaderValue = HeaderValue::from_static("text/event-stream; charset=utf-8");

/// The stream ended before its last event.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Broken(String);

/// Reaches Codex.
#[derive(Debug)]
pub(in crate::provider) struct Codex {
    choice: CodexTransport,
    /// Models that prefer a WebSocket, as their list says.
    preferring: RwLock<HashSet<String>>,
    /// WebSockets were tried and are not there.
    without_sockets: AtomicBool,
    /// How hard a model thinks that is told nothing.
    effort: Option<String>,
}

/// A request that is ready to go.
struct Ready {
    uri: Uri,
    headers: HeaderMap,
    body: Map<String, Value>,
    /// Whether the caller wants a stream.
    streams: bool,
    dropped: Vec<&'static str>,
}

impl Codex {
    /// Reaches it in this way.
    pub(in crate::provider) fn new(choice: CodexTransport, effort: Option<String>) -> Self {
        Self {
            choice,
            preferring: RwLock::default(),
            without_sockets: AtomicBool::new(false),
            effort,
        }
    }

    async fn go(
        &self,
        client: &Client,
        request: Request<SendBody>,
        deadlines: Deadlines,
    ) -> Reached {
        if request.method() == Method::GET {
            return self.models(client, request, deadlines).await;
        }
        let ready = match self.prepare(request).await {
            Ok(ready) => ready,
            Err((why, field)) => {
                let error = json!({
                    "message": why, "type": "invalid_request_error", "param": field, "code": null,
                });
                return Ok(answer(StatusCode::BAD_REQUEST, &json!({ "error": error })));
            }
        };
        let mut response = if self.prefers_socket(&ready) {
            match self.over_socket(client, &ready, deadlines).await {
                Ok(response) => response,
                Err(why) if self.choice == CodexTransport::WebSocket => return Err(why),
                Err((_, why)) => {
                    tracing::info!("Codex is asked over HTTP, because a WebSocket failed: {why}");
                    self.without_sockets.store(true, Ordering::Relaxed);
                    self.over_http(client, &ready, deadlines).await?
                }
            }
        } else {
            let response = self.over_http(client, &ready, deadlines).await?;
            if response.status() == StatusCode::UPGRADE_REQUIRED {
                self.over_socket(client, &ready, deadlines).await?
            } else {
                response
            }
        };
        if !ready.dropped.is_empty()
            && let Ok(dropped) = HeaderValue::try_from(ready.dropped.join(", "))
        {
            response.headers_mut().insert(DROPPED, dropped);
        }
        Ok(response)
    }

    /// The error is for the caller, with the field that it is about.
    async fn prepare(
        &self,
        request: Request<SendBody>,
    ) -> Result<Ready, (String, Option<&'static str>)> {
        let (parts, body) = request.into_parts();
        let body = match body.collect().await {
            Ok(body) => body.to_bytes(),
            Err(never) => match never {},
        };
        let mut body: Map<String, Value> = serde_json::from_slice(&body)
            .map_err(|error| (format!("this is no request of the Responses API: {error}"), None))?;
        let streams = body.get("stream").and_then(Value::as_bool).unwrap_or_default();
        let mut dropped = Vec::new();
        if parts.headers.contains_key(ACCOUNT) {
            body.insert("stream".to_owned(), true.into());
            body.insert("store".to_owned(), false.into());
            let instructions = body.entry("instructions").or_insert(Value::Null);
            if instructions.as_str().is_none_or(str::is_empty) {
                *instructions = INSTRUCTIONS.into();
            }
            let is_lenient = parts.extensions.get::<Lenient>().is_some();
            for name in HINTS.into_iter().chain(REFUSED) {
                let Some(value) = body.remove(name) else { continue };
                if value.is_null() || is_usual(name, &value) {
                    continue;
                }
                if REFUSED.contains(&name) && !is_lenient {
                    let why = format!(
                        "`{name}` is not something that a ChatGPT subscription can set; leave it out, \
                         or send `x-evo-lenient: true` for an answer without it"
                    );
                    return Err((why, Some(name)));
                }
                dropped.push(name);
            }
        }
        if let Some(effort) = &self.effort {
            let reasoning = body.entry("reasoning").or_insert_with(|| json!({}));
            if reasoning.is_object() && reasoning.get("effort").is_none_or(Value::is_null) {
                reasoning["effort"] = effort.as_str().into();
            }
        }
        Ok(Ready { uri: parts.uri, headers: parts.headers, body, streams, dropped })
    }

    fn prefers_socket(&self, ready: &Ready) -> bool {
        match self.choice {
            CodexTransport::Sse => false,
            CodexTransport::WebSocket => true,
            CodexTransport::Auto => {
                let model = ready.body.get("model").and_then(Value::as_str).unwrap_or_default();
                let preferring = self.preferring.read().unwrap_or_else(PoisonError::into_inner);
                preferring.contains(model) && !self.without_sockets.load(Ordering::Relaxed)
            }
        }
    }

    async fn over_http(&self, client: &Client, ready: &Ready, deadlines: Deadlines) -> Reached {
        let body = Bytes::from(Value::Object(ready.body.clone()).to_string());
        let mut request = Request::new(SendBody::from(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = ready.uri.clone();
        request.headers_mut().clone_from(&ready.headers);
        let mut response = client.send(request, deadlines.first_byte).await?;
        let forced = ready.body.get("stream").and_then(Value::as_bool).unwrap_or_default();
        if !response.status().is_success() || !forced {
            return Ok(response);
        }
        if ready.streams {
            // ChatGPT's backend does not always say what it sends.
            response.headers_mut().entry(header::CONTENT_TYPE).or_insert(EVENTS);
            return Ok(response);
        }
        let (parts, body) = response.into_parts();
        let whole = Events::of_body(body).collect(None, deadlines.first_byte).await;
        let (status, body) = whole.map_err(|why| (Failure::Dropped, why))?;
        let mut response = answer(status, &body);
        for (name, value) in &parts.headers {
            if name != header::CONTENT_TYPE && name != header::CONTENT_LENGTH {
                response.headers_mut().append(name, value.clone());
            }
        }
        Ok(response)
    }

    async fn over_socket(&self, client: &Client, ready: &Ready, deadlines: Deadlines) -> Reached {
        let until = Instant::now() + deadlines.first_byte;
        let opened = Socket::open(client, &ready.uri, &ready.headers, deadlines).await?;
        let mut socket = match opened {
            Opened::Socket(socket) => socket,
            Opened::Answer(response) => {
                // Who may not come in may not come in over HTTP either.
                if matches!(response.status().as_u16(), 401 | 403 | 429) {
                    return Ok(response);
                }
                let status = response.status().as_u16();
                return Err((Failure::Dropped, format!("no WebSocket there (status {status})")));
            }
        };
        let mut body = ready.body.clone();
        for transports in ["stream", "background"] {
            body.remove(transports);
        }
        body.insert("type".to_owned(), "response.create".into());
        let text = Value::Object(body).to_string();
        let begun = timeout_at(until, async {
            socket.send(text).await?;
            let mut events = Events::Socket(*socket);
            let first = events.next().await?;
            Ok::<_, String>((events, first))
        });
        let begun = begun.await.map_err(|_| {
            let limit = deadlines.first_byte.as_millis();
            (Failure::FirstByteTimeout, format!("no answer within {limit} ms"))
        })?;
        let (events, first) = begun.map_err(|why| (Failure::Dropped, why))?;
        if first.kind == "error" {
            let data: Value = serde_json::from_str(&first.data).unwrap_or_default();
            let (status, body) = failure(&data);
            return Ok(answer(status, &body));
        }
        if ready.streams {
            return Ok(relay(events, first));
        }
        let whole = events.collect(Some(first), deadlines.first_byte).await;
        let (status, body) = whole.map_err(|why| (Failure::Dropped, why))?;
        Ok(answer(status, &body))
    }

    /// The list of models, in the form that OpenAI's API has.
    async fn models(
        &self,
        client: &Client,
        request: Request<SendBody>,
        deadlines: Deadlines,
    ) -> Reached {
        let response = client.send(request, deadlines.first_byte).await?;
        if !response.status().is_success() {
            return Ok(response);
        }
        let body = Limited::new(response.into_body(), LIST).collect().await;
        let body = body.map_err(|error| (Failure::Dropped, error.to_string()))?.to_bytes();
        let mut list: Value = serde_json::from_slice(&body).unwrap_or_default();
        let Some(Value::Array(models)) = list.get_mut("models").map(Value::take) else {
            return Ok(answer(StatusCode::OK, &list));
        };
        let name = |model: &Value| model["slug"].as_str().map(str::to_owned);
        let prefers = |model: &&Value| model["prefer_websockets"] == true;
        *self.preferring.write().unwrap_or_else(PoisonError::into_inner) =
            models.iter().filter(prefers).filter_map(name).collect();
        let shown = models.iter().filter(|model| model["visibility"] != "hide");
        let data: Vec<Value> = shown
            .filter_map(|model| {
                Some(json!({
                    "id": name(model)?, "object": "model", "owned_by": "openai",
                    "display_name": model["display_name"],
                    "context_length": model["context_window"],
                }))
            })
            .collect();
        Ok(answer(StatusCode::OK, &json!({ "object": "list", "data": data })))
    }
}

impl Transport for Codex {
    fn send<'a>(
        &'a self,
        client: &'a Client,
        request: Request<SendBody>,
        deadlines: Deadlines,
    ) -> BoxFuture<'a, Reached> {
        Box::pin(self.go(client, request, deadlines))
    }
}

fn answer(status: StatusCode, body: &Value) -> Response<Body> {
    let body = Full::new(Bytes::from(body.to_string())).map_err(|never| match never {});
    let mut response = Response::new(Body::from(body.boxed_unsync()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, JSON);
    response
}

/// The events of a WebSocket as the stream that HTTP would have given.
fn relay(events: Events, first: Event) -> Response<Body> {
    let pieces = stream::unfold(Some((events, Some(first))), |state| async {
        let (mut events, first) = state?;
        let event = match first {
            Some(first) => Ok(first),
            None => events.next().await,
        };
        match event {
            Ok(event) => {
                let text = format!("event: {}\ndata: {}\n\n", event.kind, event.data);
                let rest = (!event.is_last()).then_some((events, None));
                Some((Ok(Frame::data(Bytes::from(text))), rest))
            }
            Err(why) => Some((Err(BoxError::from(Broken(why))), None)),
        }
    });
    let body = StreamBody::new(pieces.boxed());
    let mut response = Response::new(Body::from(body.boxed_unsync()));
    response.headers_mut().insert(header::CONTENT_TYPE, EVENTS);
    response
}
