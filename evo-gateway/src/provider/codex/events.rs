//! The events of a Responses stream, over HTTP or a WebSocket, and the whole answer that they make.

use std::{collections::VecDeque, time::Duration};

use http::StatusCode;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::socket::Socket;
use crate::{
    stream::sse::{self, Decoder},
    upstream::Body,
};

/// Largest answer that is collected.
const LARGEST: usize = 64 * 1024 * 1024;

/// One event: what it is, and its JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    /// Its `type`.
    pub(super) kind: String,
    /// The whole of it.
    pub(super) data: String,
}

impl Event {
    /// An event out of its JSON; what is none is passed over.
    pub(super) fn read(data: &[u8]) -> Option<Self> {
        #[derive(serde::Deserialize)]
        struct Kind {
            r#type: String,
        }
        let kind: Kind = serde_json::from_slice(data).ok()?;
        Some(Self { kind: kind.r#type, data: String::from_utf8(data.to_vec()).ok()? })
    }

    /// Whether it belongs to an answer: backends tell other things as well.
    pub(super) fn is_of_answer(&self) -> bool {
        self.kind == "error" || self.kind.starts_with("response.")
    }

    /// Whether nothing comes after it.
    pub(super) fn is_last(&self) -> bool {
        let last = ["response.completed", "response.incomplete", "response.failed", "error"];
        last.contains(&self.kind.as_str())
    }
}

/// Where events come from.
#[derive(Debug)]
pub(super) enum Events {
    /// A stream over HTTP.
    Http { body: Body, decoder: Decoder, ready: VecDeque<sse::Event> },
    /// A WebSocket.
    Socket(Socket),
}

impl Events {
    /// Those of an answer over HTTP.
    pub(super) fn of_body(body: Body) -> Self {
        Self::Http { body, decoder: Decoder::default(), ready: VecDeque::new() }
    }

    /// The next event, or why there is none. Before the last one there is always another.
    pub(super) async fn next(&mut self) -> Result<Event, String> {
        loop {
            let event = match self {
                Self::Socket(socket) => socket.next().await?,
                Self::Http { body, decoder, ready } => {
                    if let Some(event) = ready.pop_front() {
                        Event::read(&event.data)
                    } else {
                        let frame = body.frame().await.ok_or("the stream ended too early")?;
                        let frame = frame.map_err(|error| error.to_string())?;
                        let data = frame.into_data().unwrap_or_default();
                        let mut events = Vec::new();
                        decoder.push(&data, &mut events).map_err(|error| error.to_string())?;
                        ready.extend(events);
                        None
                    }
                }
            };
            if let Some(event) = event.filter(Event::is_of_answer) {
                return Ok(event);
            }
        }
    }

    /// The whole answer: its status and its body. Between two events may be as much silence as `silence`.
    pub(super) async fn collect(
        mut self,
        first: Option<Event>,
        silence: Duration,
    ) -> Result<(StatusCode, Value), String> {
        let mut items = Vec::new();
        let mut size = 0;
        let mut next = first;
        loop {
            let event = match next.take() {
                Some(event) => event,
                None => timeout(silence, self.next()).await.unwrap_or_else(|_| {
                    Err(format!("it fell silent for {} ms", silence.as_millis()))
                })?,
            };
            size += event.data.len();
            if size > LARGEST {
                return Err("the answer is larger than 64 MiB".to_owned());
            }
            let is_item = event.kind == "response.output_item.done";
            if !is_item && !event.is_last() {
                continue;
            }
            let mut data: Value = serde_json::from_str(&event.data).map_err(|e| e.to_string())?;
            match event.kind.as_str() {
                "response.output_item.done" => items.push(data["item"].take()),
                "error" => return Ok(failure(&data)),
                "response.failed" => return Ok(failure(&data["response"])),
                _ => {
                    let mut response = data["response"].take();
                    // ChatGPT's backend leaves its items out of the end.
                    if response["output"].as_array().is_none_or(Vec::is_empty) {
                        response["output"] = items.into();
                    }
                    return Ok((StatusCode::OK, response));
                }
            }
        }
    }
}

/// What an error inside a stream would have been as an answer.
pub(super) fn failure(data: &Value) -> (StatusCode, Value) {
    let error = match data.get("error") {
        Some(error) if error.is_object() => error.clone(),
        _ => json!({ "message": data.get("message"), "code": data.get("code") }),
    };
    let told = data.get("status").or_else(|| data.get("status_code")).and_then(Value::as_u64);
    let told = told.and_then(|status| StatusCode::from_u16(status.try_into().ok()?).ok());
    let code = error.get("code").or_else(|| error.get("type")).and_then(Value::as_str);
    let guessed = match code.unwrap_or_default() {
        "rate_limit_exceeded" | "usage_limit_reached" | "insufficient_quota" => 429,
        "context_length_exceeded" | "invalid_prompt" | "invalid_request_error" => 400,
        "server_is_overloaded" | "slow_down" => 503,
        "authentication_error" | "invalid_api_key" => 401,
        _ => 502,
    };
    let status = told.filter(|it| it.is_client_error() || it.is_server_error());
    let status = status.or(StatusCode::from_u16(guessed).ok()).unwrap_or(StatusCode::BAD_GATEWAY);
    (status, json!({ "error": error }))
}
