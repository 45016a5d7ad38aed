//! The Socket.IO client. This is the only module that names `rust_socketio`, and these rules avoid
//! its defects:
//!
//! - Websocket transport only: the others build a TLS client per connection.
//! - A connection counts only after `Event::Connect`: what is emitted earlier is lost.
//! - No acknowledgements in either direction: their ids collide.
//! - Callbacks never wait: they run inside the loop that answers king's pings. They push into a
//!   bounded queue; when that is full the connection is given up, never the message.
//! - No reconnecting by the library: it can end in a loop without a pause.
//! - The library does not tell when its reading task ends, so a silent connection is given up by
//!   the caller.

use futures_util::FutureExt as _;
// rust_socketio speaks TLS through native-tls; naming openssl here keeps its `vendored` feature,
// so that the build needs no OpenSSL on the machine.
use openssl as _;
use rust_socketio::{
    Event, Payload, TransportType,
    asynchronous::{Client, ClientBuilder},
};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::{redact::redact, tokens::Secret};

const QUEUE: usize = 1_024;
/// How the library's error text begins when the server refused the connection.
const CONNECT_ERROR: &str = "Received an ConnectError frame:";

/// Something that came over the connection.
#[derive(Debug, Clone, PartialEq)]
pub enum Incoming {
    /// The namespace is connected: emitting is safe from now on.
    Connected,
    /// An event with its first argument; null when it had none.
    Event(String, Value),
    /// The server refused the connection.
    Rejected(String),
    /// The connection is of no more use.
    Broken(String),
}

/// One connection to king. It is never repaired: a new one is made instead.
pub struct Socket {
    client: Client,
    incoming: mpsc::Receiver<Incoming>,
    overflow: CancellationToken,
}

/// What the callbacks push into.
#[derive(Clone)]
struct Inbox {
    sender: mpsc::Sender<Incoming>,
    overflow: CancellationToken,
}

impl Inbox {
    fn push(&self, incoming: Incoming) {
        if self.sender.try_send(incoming).is_err() {
            self.overflow.cancel();
        }
    }
}

impl Socket {
    /// Opens a connection. The caller limits how long this may take.
    pub async fn connect(address: &str, token: Option<&Secret>) -> Result<Self, String> {
        let url = socket_url(address)?;
        let (sender, incoming) = mpsc::channel(QUEUE);
        let overflow = CancellationToken::new();
        let inbox = Inbox { sender, overflow: overflow.clone() };
        let (connected, closed, failed) = (inbox.clone(), inbox.clone(), inbox.clone());
        let mut builder = ClientBuilder::new(url)
            .transport_type(TransportType::Websocket)
            .reconnect(false)
            .reconnect_on_disconnect(false)
            .on(Event::Connect, move |_, _| {
                connected.push(Incoming::Connected);
                std::future::ready(()).boxed()
            })
            .on(Event::Close, move |_, _| {
                closed.push(Incoming::Broken("it closed the connection".to_owned()));
                std::future::ready(()).boxed()
            })
            .on(Event::Error, move |payload, _| {
                failed.push(read_error(&first(payload)));
                std::future::ready(()).boxed()
            })
            .on_any(move |event, payload, _| {
                if let Event::Custom(name) = event {
                    inbox.push(Incoming::Event(name, first(payload)));
                }
                std::future::ready(()).boxed()
            });
        if let Some(token) = token {
            builder = builder.auth(json!({ "token": token.expose() }));
        }
        let client = builder.connect().await.map_err(|error| describe(&error))?;
        Ok(Self { client, incoming, overflow })
    }

    /// What comes next. Can be cancelled without losing anything.
    pub async fn next(&mut self) -> Incoming {
        tokio::select! {
            biased;
            () = self.overflow.cancelled() => {
                Incoming::Broken("it sent more than could be taken in".to_owned())
            }
            incoming = self.incoming.recv() => {
                incoming.unwrap_or_else(|| Incoming::Broken("the connection has ended".to_owned()))
            }
        }
    }

    /// Sends an event. Only to be called after [`Incoming::Connected`].
    pub async fn emit(&self, event: &str, payload: Value) -> Result<(), String> {
        self.client.emit(event, payload).await.map_err(|error| describe(&error))
    }

    /// Says goodbye; without it the server would wait for a ping that never comes.
    pub async fn close(&self) {
        if let Err(error) = self.client.disconnect().await {
            tracing::debug!(%error, "The connection had ended before it was closed");
        }
    }
}

/// What went wrong, with its causes.
fn describe(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let part = error.to_string();
        if !text.ends_with(&part) {
            text = format!("{text}: {part}");
        }
        cause = error.source();
    }
    redact(&text).into_owned()
}

/// The Socket.IO address of an HTTP address; a path in front of it stays.
fn socket_url(address: &str) -> Result<String, String> {
    let mut url = Url::parse(address).map_err(|error| format!("{address:?}: {error}"))?;
    let path = format!("{}/socket.io/", url.path().trim_end_matches('/'));
    url.set_path(&path);
    Ok(url.into())
}

fn first(payload: Payload) -> Value {
    match payload {
        Payload::Text(values) => values.into_iter().next().unwrap_or(Value::Null),
        // No event of this protocol carries bytes.
        _ => Value::Null,
    }
}

fn read_error(error: &Value) -> Incoming {
    let text = error.as_str().map_or_else(|| error.to_string(), str::to_owned);
    let Some(refusal) = text.strip_prefix(CONNECT_ERROR) else {
        return Incoming::Broken(format!("the connection broke ({text})"));
    };
    let refusal = refusal.trim();
    let message = serde_json::from_str::<Value>(refusal)
        .ok()
        .and_then(|body| body.get("message").and_then(Value::as_str).map(str::to_owned));
    Incoming::Rejected(message.unwrap_or_else(|| refusal.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_in_front_of_the_socket_stays() {
        assert_eq!(socket_url("http://k:3000").unwrap(), "http://k:3000/socket.io/");
        assert_eq!(socket_url("https://h/evo/").unwrap(), "https://h/evo/socket.io/");
        assert!(socket_url("nonsense").is_err());
    }

    #[test]
    fn refusals_and_failures_are_told_apart() {
        let refused = json!("Received an ConnectError frame: {\"message\":\"invalid token\"}");
        assert_eq!(read_error(&refused), Incoming::Rejected("invalid token".to_owned()));
        let bare = json!("Received an ConnectError frame: \"No error message provided\"");
        assert_eq!(
            read_error(&bare),
            Incoming::Rejected("\"No error message provided\"".to_owned())
        );
        assert_eq!(
            read_error(&json!("EngineIO Error")),
            Incoming::Broken("the connection broke (EngineIO Error)".to_owned())
        );
    }

    #[tokio::test]
    async fn a_full_inbox_breaks_the_connection_instead_of_blocking() {
        let (sender, mut receiver) = mpsc::channel(1);
        let inbox = Inbox { sender, overflow: CancellationToken::new() };
        inbox.push(Incoming::Connected);
        assert!(!inbox.overflow.is_cancelled());
        inbox.push(Incoming::Connected);
        assert!(inbox.overflow.is_cancelled());
        assert_eq!(receiver.recv().await, Some(Incoming::Connected));
    }
}
