//! The Socket.IO side of king. Handlers decode, call the pipeline and answer; they know no SQL and
//! decide nothing.
//!
//! Facts that shape it: one socket's messages are handled concurrently and may be seen out of
//! order, so every message carries what it speaks of; an emit fails when the connection's buffer
//! is full, so that whatever must arrive is in the outbox; events that find no handler are lost, so
//! that the handlers are there before the client hears that it is connected.

mod agent;
mod allowance;
mod command;
mod debug;
mod memory;
mod observer;
mod recovery;
mod relay;
mod request;
mod rooms;
mod task;

use std::{sync::Arc, time::Duration};

use evo_common::messages::{KingWelcome, PROTOCOL_VERSION, events};
use serde_json::Value;
use socketioxide::{
    SendError, SocketError, SocketIo, SocketIoBuilder,
    extract::{SocketRef, State, TryData},
    handler::ConnectHandler as _,
    layer::SocketIoLayer,
};

use crate::{access::Identity, message_log::MessageLog, registry::Outlet, state::King};
use allowance::Allowance;
use evo_common::tokens::Scope;

/// Packets that may wait for one connection.
const BUFFER: usize = 4_096;
/// Largest message.
const MAX_PAYLOAD: u64 = 16 * 1024 * 1024;

/// How often connections with expired tokens are looked for.
const EXPIRY_CHECK: Duration = Duration::from_secs(30);

/// Every connection.
pub(crate) struct Sockets {
    king: King,
    io: SocketIo,
}

impl Sockets {
    /// Relays the event log to rooms until shutdown.
    pub(crate) fn relay(
        &self,
    ) -> impl Future<Output = Result<(), crate::store::Error>> + Send + 'static {
        relay::run(self.king.clone(), self.io.clone())
    }

    /// Closes connections whose token is not valid any more, until shutdown.
    pub(crate) fn watch_tokens(&self) -> impl Future<Output = ()> + Send + 'static {
        let (king, io) = (self.king.clone(), self.io.clone());
        async move {
            let mut revocations = king.keyring.revocations();
            loop {
                tokio::select! {
                    () = king.shutdown.cancelled() => return,
                    changed = revocations.changed() => if changed.is_err() { return },
                    () = tokio::time::sleep(EXPIRY_CHECK) => {}
                }
                for socket in io.sockets() {
                    let access: Option<Access> = socket.extensions.get();
                    let valid = access.is_none_or(|Access(id)| king.keyring.is_valid(&id.token_id));
                    if !valid {
                        tracing::info!(socket.id = %socket.id, "A connection is closed: its token is not valid any more");
                        // Fails when the client is gone already.
                        socket.disconnect().unwrap_or_default();
                    }
                }
            }
        }
    }

    /// Shows what comes of prompts and commands until shutdown.
    pub(crate) fn show_debug(&self) -> impl Future<Output = ()> + Send + 'static {
        debug::show(self.king.clone(), self.io.clone())
    }

    /// Closes every connection, so that runners look for the next king at once.
    pub(crate) async fn close(&self) {
        self.io.close().await;
    }
}

/// Builds the Socket.IO layer.
pub(crate) fn attach(king: King) -> (SocketIoLayer, Sockets) {
    let builder: SocketIoBuilder = SocketIo::builder()
        .with_state(king.clone())
        .max_buffer_size(BUFFER)
        .max_payload(MAX_PAYLOAD)
        .ping_interval(Duration::from_millis(king.config.ping_interval_ms))
        .ping_timeout(Duration::from_millis(king.config.ping_timeout_ms))
        .ws_read_buffer_size(16 * 1024);
    let (layer, io) = builder.build_layer();
    io.ns("/", on_connect.with(authenticate));
    (layer, Sockets { king, io })
}

/// The place of this connection among all.
#[derive(Debug, Clone, Copy)]
struct Opened(u64);

/// Whose token opened the connection.
#[derive(Debug, Clone)]
struct Access(Arc<Identity>);

/// Why a connection is refused; the client sees the text as `connect_error`.
#[derive(Debug)]
struct Refused(&'static str);

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

async fn authenticate(
    socket: SocketRef,
    auth: TryData<Value>,
    State(king): State<King>,
) -> Result<(), Refused> {
    let TryData(auth) = auth;
    let token = auth.ok().and_then(|auth| {
        let auth = match auth {
            Value::String(text) => serde_json::from_str(&text).unwrap_or(Value::Null),
            other => other,
        };
        auth.get("token").and_then(Value::as_str).map(str::to_owned)
    });
    let refused = if token.is_none() {
        "unauthorized: no token; send `auth: {token}` with the runner token of tokens.toml in king's data folder"
    } else {
        "unauthorized: the token is not one of king's, or not valid any more; see tokens.toml in its data folder"
    };
    let identity = king
        .keyring
        .identify(token.as_deref())
        .filter(|identity| identity.scope.allows(Scope::Viewer))
        .ok_or(Refused(refused))?;
    socket.extensions.insert(Allowance::new(&king.config.limits, identity.scope));
    socket.extensions.insert(Access(Arc::new(identity)));
    socket.extensions.insert(king.messages.clone());
    socket.extensions.insert(rooms::Followed::default());
    socket.extensions.insert(Opened(king.registry.next_connection()));
    // Before the client is told that it is connected: runners of the original register at once, and
    // what finds no handler is lost.
    agent::register_handlers(&socket);
    observer::register_handlers(&socket);
    task::register_handlers(&socket);
    memory::register_handlers(&socket);
    command::register_handlers(&socket);
    recovery::register_handlers(&socket);
    debug::register_handlers(&socket);
    Ok(())
}

async fn on_connect(socket: SocketRef, State(king): State<King>) {
    let welcome = KingWelcome {
        king_version: crate::VERSION.to_owned(),
        protocol: PROTOCOL_VERSION,
        heartbeat_ms: king.config.heartbeat_ms,
        servers: king.servers(),
    };
    emit(&socket, events::KING_WELCOME, &welcome);
}

/// Sends to one connection; says whether it was handed over.
fn emit(socket: &SocketRef, event: &'static str, payload: &impl serde::Serialize) -> bool {
    match socket.emit(event, payload) {
        Ok(()) => {
            if let Some(log) = socket.extensions.get::<MessageLog>() {
                log.outbound(event, payload, agent_of(socket), socket.id.as_str());
            }
            true
        }
        // Whoever is gone asks again when it is back.
        Err(SendError::Socket(SocketError::Closed)) => {
            tracing::debug!(socket.id = %socket.id, event, "{event} came too late: the connection is closed");
            false
        }
        Err(error) => {
            tracing::warn!(socket.id = %socket.id, event, error = %error, "{event} could not be sent: {error}");
            false
        }
    }
}

/// A connection as the registry sees it.
struct SocketOutlet(SocketRef);

impl Outlet for SocketOutlet {
    fn send(&self, event: &'static str, payload: &Value) -> bool {
        emit(&self.0, event, payload)
    }
}

fn outlet(socket: &SocketRef) -> Arc<dyn Outlet> {
    Arc::new(SocketOutlet(socket.clone()))
}

/// The agent that registered on this connection.
fn agent_of(socket: &socketioxide::socket::Socket) -> Option<String> {
    socket.extensions.get::<agent::Identity>().map(|agent::Identity(agent_id)| agent_id)
}
