//! Responses over a WebSocket: one message asks, and each event of the answer is a message.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures_util::{SinkExt as _, StreamExt as _};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header,
};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        handshake::derive_accept_key,
        protocol::{Role, WebSocketConfig},
    },
};

use super::events::Event;
use crate::upstream::{Body, Client, Deadlines, Failure, SendBody};

/// Largest message.
const MESSAGE: usize = 64 * 1024 * 1024;
const BETA: (HeaderName, HeaderValue) = (
    HeaderName::from_static("openai-beta"),
    HeaderValue::from_static("responses_websockets=2026-02-06"),
);

/// An open WebSocket. Dropping it closes the connection.
pub(super) struct Socket(WebSocketStream<TokioIo<Upgraded>>);

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Socket")
    }
}

/// What came of opening one.
pub(super) enum Opened {
    /// It is open.
    Socket(Box<Socket>),
    /// The server speaks HTTP only.
    Answer(Response<Body>),
}

impl Socket {
    /// Opens one where requests go, with the headers of a request.
    pub(super) async fn open(
        client: &Client,
        uri: &Uri,
        headers: &HeaderMap,
        deadlines: Deadlines,
    ) -> Result<Opened, (Failure, String)> {
        let nonce: [u8; 16] = rand::random();
        let key = STANDARD.encode(nonce);
        let mut request = Request::new(SendBody::default());
        *request.method_mut() = Method::GET;
        *request.uri_mut() = uri.clone();
        let ours = request.headers_mut();
        ours.clone_from(headers);
        for name in [header::CONTENT_TYPE, header::CONTENT_LENGTH, header::ACCEPT] {
            ours.remove(name);
        }
        ours.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        ours.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        ours.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        if let Ok(key) = HeaderValue::try_from(&key) {
            ours.insert(header::SEC_WEBSOCKET_KEY, key);
        }
        ours.insert(BETA.0, BETA.1);
        let response = client.send(request, deadlines.first_byte).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Ok(Opened::Answer(response));
        }
        let expected = derive_accept_key(key.as_bytes());
        let accepted = response.headers().get(header::SEC_WEBSOCKET_ACCEPT);
        let dropped = |why: String| (Failure::Dropped, why);
        if accepted.is_none_or(|accepted| accepted.as_bytes() != expected.as_bytes()) {
            return Err(dropped("it switched to something that is no WebSocket".to_owned()));
        }
        let upgraded = hyper::upgrade::on(response).await;
        let upgraded = upgraded.map_err(|error| dropped(error.to_string()))?;
        let config = WebSocketConfig::default()
            .max_message_size(Some(MESSAGE))
            .max_frame_size(Some(MESSAGE));
        let io = TokioIo::new(upgraded);
        let stream = WebSocketStream::from_raw_socket(io, Role::Client, Some(config)).await;
        Ok(Opened::Socket(Box::new(Self(stream))))
    }

    /// Sends a text.
    pub(super) async fn send(&mut self, text: String) -> Result<(), String> {
        self.0.send(Message::text(text)).await.map_err(|error| error.to_string())
    }

    /// The next message, if it is an event.
    pub(super) async fn next(&mut self) -> Result<Option<Event>, String> {
        match self.0.next().await {
            None => Err("the WebSocket was closed too early".to_owned()),
            Some(Err(error)) => Err(error.to_string()),
            Some(Ok(Message::Text(text))) => Ok(Event::read(text.as_bytes())),
            Some(Ok(Message::Binary(bytes))) => Ok(Event::read(&bytes)),
            Some(Ok(Message::Close(_))) => Err("the WebSocket was closed too early".to_owned()),
            Some(Ok(_)) => Ok(None),
        }
    }
}
