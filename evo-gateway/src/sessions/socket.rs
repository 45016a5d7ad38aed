//! The Socket.IO face of sessions, with the events and shapes of the first gateway.

use std::{
    convert::Infallible,
    fmt,
    future::{Ready, ready},
    sync::Arc,
};

use bytes::Bytes;
use evo_common::runtime::Shutdown;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use serde_json::{Value, json};
use socketioxide::{
    SocketIo,
    extract::{AckSender, SocketRef, State, TryData},
    handler::ConnectHandler as _,
    service::SocketIoService,
};
use tokio::sync::broadcast::error::RecvError;
use tower::Layer as _;

use super::{Refused, Sessions, Wanted};
use crate::{auth::Gate, upstream::BoxError};

/// Largest message.
const MAX_PAYLOAD: u64 = 128 * 1024;
/// Packets that may wait for one connection.
const BUFFER: usize = 1_024;

/// The face. There is one of it for all threads that serve connections: the requests of one client may
/// come to any of them.
pub(crate) struct Face {
    service: SocketIoService<Nowhere>,
    io: SocketIo,
    sessions: Arc<Sessions>,
}

impl fmt::Debug for Face {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Face").field("sessions", &self.sessions).finish_non_exhaustive()
    }
}

/// What answers a request that is none of Socket.IO's.
#[derive(Debug, Clone, Copy)]
struct Nowhere;

impl hyper::service::Service<Request<Incoming>> for Nowhere {
    type Response = Response<Empty<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn call(&self, _: Request<Incoming>) -> Self::Future {
        let mut response = Response::new(Empty::new());
        *response.status_mut() = StatusCode::NOT_FOUND;
        ready(Ok(response))
    }
}

/// What handlers work with.
#[derive(Clone)]
struct Desk {
    sessions: Arc<Sessions>,
    gate: Arc<Gate>,
}

/// Why a connection is refused; the client sees the text as `connect_error`.
#[derive(Debug)]
struct KeptOut;

impl fmt::Display for KeptOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("unauthorized: send `auth: {token}` with the operator token of tokens.toml")
    }
}

impl Face {
    /// The face of these sessions, for those whom the gate knows as operators.
    pub(crate) fn new(sessions: Arc<Sessions>, gate: Arc<Gate>) -> Self {
        let (layer, io) = SocketIo::builder()
            .with_state(Desk { sessions: sessions.clone(), gate })
            .max_buffer_size(BUFFER)
            .max_payload(MAX_PAYLOAD)
            .build_layer();
        io.ns("/", on_connect.with(authenticate));
        Self { service: layer.layer(Nowhere), io, sessions }
    }

    /// Answers a request below `/socket.io/`.
    pub(crate) async fn answer(
        &self,
        request: Request<Incoming>,
    ) -> Response<UnsyncBoxBody<Bytes, BoxError>> {
        let Ok(response) = hyper::service::Service::call(&self.service, request).await;
        response.map(|body| UnsyncBoxBody::new(body.map_err(Into::into)))
    }

    /// Tells followers what happens, until the shutdown.
    pub(crate) async fn relay(&self, shutdown: &Shutdown) {
        let mut told = self.sessions.follow();
        loop {
            let next = tokio::select! {
                () = shutdown.cancelled() => break,
                next = told.recv() => next,
            };
            match next {
                Ok(told) => {
                    let room = room(&told.session);
                    if let Err(error) = self.io.to(room).emit(told.event, &told.payload).await {
                        tracing::debug!(%error, "Not all followers of a session were told: {error}");
                    }
                }
                Err(RecvError::Lagged(count)) => {
                    tracing::debug!(count, "Followers of sessions miss {count} lines");
                }
                Err(RecvError::Closed) => break,
            }
        }
        self.io.close().await;
    }
}

fn room(session: &str) -> String {
    format!("session:{session}")
}

async fn authenticate(auth: TryData<Value>, State(desk): State<Desk>) -> Result<(), KeptOut> {
    let TryData(auth) = auth;
    let auth = auth.map_err(|_| KeptOut)?;
    let token = auth.get("token").and_then(Value::as_str).ok_or(KeptOut)?;
    if desk.gate.is_operator(token.trim().as_bytes()) { Ok(()) } else { Err(KeptOut) }
}

async fn on_connect(socket: SocketRef) {
    socket.on("session:create", on_create);
    socket.on("session:input", on_input);
    socket.on("session:keys", on_keys);
    socket.on("session:capture", on_capture);
    socket.on("session:kill", on_kill);
    socket.on("session:list", on_list);
    socket.on("session:subscribe", on_subscribe);
    socket.on_disconnect(async |socket: SocketRef, State(desk): State<Desk>| {
        desk.sessions.left(socket.id.as_str());
    });
}

async fn on_create(
    socket: SocketRef,
    data: TryData<Value>,
    State(desk): State<Desk>,
    ack: AckSender,
) {
    let done = || {
        let data = object(data)?;
        let command = text(&data, "command").or_else(|_| text(&data, "provider"))?;
        let unset = |name: &str| {
            data.get(name).is_none_or(|value| {
                value.is_null() || value.as_object().is_some_and(serde_json::Map::is_empty)
            })
        };
        if !unset("env") {
            let message = "`env`: variables stand in sessions.toml, with the command";
            return Err(Refused::new("invalid_request", message));
        }
        let owner = match data.get("mode").and_then(Value::as_str) {
            None | Some("ephemeral") => Some(socket.id.to_string()),
            Some("persistent") => None,
            Some(_) => {
                let message = "`mode`: use ephemeral or persistent";
                return Err(Refused::new("invalid_request", message));
            }
        };
        let wanted =
            Wanted { command, rows: size(&data, "rows")?, columns: size(&data, "cols")?, owner };
        let id = desk.sessions.create(wanted, |id| socket.join(room(id)))?;
        Ok(json!({ "session_id": id, "status": "running" }))
    };
    answer(ack, done());
}

async fn on_input(data: TryData<Value>, State(desk): State<Desk>, ack: AckSender) {
    let done = || {
        let data = object(data)?;
        desk.sessions.input(&text(&data, "session_id")?, &text(&data, "input")?)?;
        Ok(json!({}))
    };
    answer(ack, done());
}

async fn on_keys(data: TryData<Value>, State(desk): State<Desk>, ack: AckSender) {
    let done = || {
        let data = object(data)?;
        let keys = match data.get("keys") {
            Some(Value::Array(keys)) => {
                keys.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ")
            }
            _ => text(&data, "keys")?,
        };
        desk.sessions.keys(&text(&data, "session_id")?, &keys)?;
        Ok(json!({}))
    };
    answer(ack, done());
}

async fn on_capture(data: TryData<Value>, State(desk): State<Desk>, ack: AckSender) {
    let done = || {
        let content = desk.sessions.capture(&text(&object(data)?, "session_id")?)?;
        Ok(json!({ "content": content }))
    };
    answer(ack, done());
}

async fn on_kill(data: TryData<Value>, State(desk): State<Desk>, ack: AckSender) {
    let done = || {
        desk.sessions.kill(&text(&object(data)?, "session_id")?)?;
        Ok(json!({}))
    };
    answer(ack, done());
}

async fn on_list(State(desk): State<Desk>, ack: AckSender) {
    answer(ack, Ok(json!({ "sessions": desk.sessions.list() })));
}

async fn on_subscribe(
    socket: SocketRef,
    data: TryData<Value>,
    State(desk): State<Desk>,
    ack: AckSender,
) {
    let done = || {
        let id = text(&object(data)?, "session_id")?;
        desk.sessions.knows(&id)?;
        socket.join(room(&id));
        Ok(json!({}))
    };
    answer(ack, done());
}

fn object(data: TryData<Value>) -> Result<Value, Refused> {
    let TryData(data) = data;
    let wrong = || Refused::new("invalid_request", "send one JSON object");
    data.ok().filter(Value::is_object).ok_or_else(wrong)
}

fn text(data: &Value, field: &str) -> Result<String, Refused> {
    let text = data.get(field).and_then(Value::as_str).map(str::to_owned);
    text.ok_or_else(|| Refused::new("invalid_request", format!("`{field}`: send a text")))
}

fn size(data: &Value, field: &str) -> Result<Option<u16>, Refused> {
    match data.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => {
            let size = value.as_u64().and_then(|size| u16::try_from(size).ok());
            let wrong = || Refused::new("invalid_size", format!("`{field}`: send a small number"));
            size.map(Some).ok_or_else(wrong)
        }
    }
}

fn answer(ack: AckSender, done: Result<Value, Refused>) {
    let answer = match done {
        Ok(mut answer) => {
            answer["success"] = true.into();
            answer
        }
        Err(refused) => {
            json!({ "success": false, "error": refused.message, "code": refused.code })
        }
    };
    // Fails when the client is gone, or wants no answer.
    ack.send(&answer).unwrap_or_default();
}
