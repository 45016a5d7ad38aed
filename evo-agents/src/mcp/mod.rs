//! The client of MCP servers: programs that speak over their standard streams, and servers that
//! speak streamable HTTP.
//!
//! A server is named in the operator's `sources.toml`, never by a package. One connection for each
//! source is made with the first call, kept, made again when it breaks, and closed when nobody has
//! used it for a while. What breaks costs the calls that were on their way, nothing else.

mod answer;
mod connection;
mod process;

#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, PoisonError, Weak},
    time::Duration,
};

use evo_common::{
    config::{SourceConfig, SourceKind},
    runtime::{OnError, TaskGroup},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::time::Instant;

use self::connection::{Broken, Connection};
pub(crate) use self::{
    connection::{Call, Start, Web},
    process::Program,
};

/// Most tools of one server.
pub const MAX_TOOLS: usize = 500;
/// How long a connection is kept that nobody uses.
const IDLE: Duration = Duration::from_secs(300);
/// Longest time that a server which does not start is left alone.
const MAX_REST: Duration = Duration::from_secs(30);
/// How long it is left alone after its first failure.
const FIRST_REST: Duration = Duration::from_millis(100);

/// Where a source's MCP server is, as the operator says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct McpServer {
    /// Name of the source.
    pub source: String,
    /// How it is reached.
    pub address: McpAddress,
}

/// How an MCP server is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum McpAddress {
    /// A program that speaks over its standard streams.
    Command {
        /// Program and arguments; no shell sees them.
        command: Vec<String>,
        /// Where it is started; [`None`] for the runner's own folder.
        folder: Option<PathBuf>,
        /// Environment variables of the runner that it gets.
        env: Vec<String>,
    },
    /// A server that speaks streamable HTTP.
    Url {
        /// Its URL.
        url: String,
        /// The environment variable that holds its bearer token.
        auth_ref: Option<String>,
    },
}

impl McpServer {
    /// The server of a source; [`None`] for a source of another kind.
    pub fn of(source: &SourceConfig) -> Option<Self> {
        if source.kind != SourceKind::Mcp {
            return None;
        }
        let address = if source.command.is_empty() {
            McpAddress::Url { url: source.location.clone(), auth_ref: source.auth_ref.clone() }
        } else {
            McpAddress::Command {
                command: source.command.clone(),
                folder: (!source.location.is_empty()).then(|| PathBuf::from(&source.location)),
                env: source.allow_env.clone(),
            }
        };
        Some(Self { source: source.name.clone(), address })
    }
}

/// A tool, as a server lists it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// What it is called in front of people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// What it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// JSON Schema of its arguments.
    #[serde(default)]
    pub input_schema: Map<String, Value>,
    /// JSON Schema of its structured answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_schema: Option<Map<String, Value>>,
    /// What its server says that it does to the world.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<Annotations>,
}

/// What a server says that a tool does to the world. A tool that does not say that it only reads is
/// taken for one that changes something.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Annotations {
    /// It changes nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_only_hint: Option<bool>,
    /// It may destroy something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destructive_hint: Option<bool>,
    /// Calling it again changes nothing more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotent_hint: Option<bool>,
    /// It deals with the world outside of its server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_world_hint: Option<bool>,
}

impl Tool {
    /// Whether its server says that it only reads.
    pub fn reads(&self) -> bool {
        self.annotations.as_ref().is_some_and(|hints| hints.read_only_hint == Some(true))
    }
}

/// What a server says of itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Listing {
    /// `mcp-time 1.2.0`.
    pub server: String,
    /// Its tools.
    pub tools: Vec<Tool>,
}

/// Why a server gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It can't be started or reached, or it ended.
    #[error("{0}")]
    Unreachable(String),
    /// No answer in time.
    #[error("no answer within {ms} ms")]
    Timeout {
        /// The limit.
        ms: u64,
    },
    /// The answer is larger than allowed.
    #[error("the answer is larger than {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: u64,
    },
    /// It does not speak the protocol as it should.
    #[error("{0}")]
    Protocol(String),
}

/// What a call of a tool came to.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolAnswer {
    /// Whether the tool did what it was asked for; else the body says why not.
    pub ended: Ended,
    /// Its structured answer, else its text, parsed when it is a JSON object or list.
    pub body: Value,
    /// Whether the body is more than a text.
    pub is_json: bool,
    /// Size of the body.
    pub bytes: u64,
    /// From the request to the answer; no connection is made in it.
    pub latency: Duration,
}

/// How a call of a tool ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Well.
    Well,
    /// The tool reports an error, or refuses its arguments.
    Refused,
    /// The server reports an error of its own.
    ServerError,
}

/// The connections of a runner, one for each source.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    slots: std::sync::Mutex<HashMap<String, Arc<Slot>>>,
}

/// The place of one source's connection.
#[derive(Debug)]
struct Slot {
    start: Start,
    state: tokio::sync::Mutex<State>,
    /// Who reads what a program says, and who closes what nobody uses.
    tasks: TaskGroup,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.tasks.token().cancel();
    }
}

#[derive(Debug, Default)]
struct State {
    connection: Option<Arc<Connection>>,
    failure: Option<Failure>,
}

/// A server that did not start.
#[derive(Debug)]
struct Failure {
    error: Error,
    count: u32,
    at: Instant,
}

impl Failure {
    /// How long the server is left alone from now on.
    fn rest(&self) -> Duration {
        let rest = FIRST_REST.saturating_mul(1 << self.count.min(16).saturating_sub(1));
        rest.min(MAX_REST).saturating_sub(self.at.elapsed())
    }
}

impl Connections {
    /// The tools of a server.
    pub(crate) async fn list(&self, source: &str, start: Start) -> Result<Listing, Error> {
        let slot = self.slot(source, start);
        let connection = slot.get().await?;
        let listed = connection.list().await;
        slot.settle(&connection, listed).await
    }

    /// Calls a tool.
    pub(crate) async fn call(
        &self,
        source: &str,
        start: Start,
        call: Call<'_>,
    ) -> Result<ToolAnswer, Error> {
        let slot = self.slot(source, start);
        let connection = slot.get().await?;
        let answer = connection.call(call).await;
        slot.settle(&connection, answer).await
    }

    /// Closes every connection: programs are asked to end, and then made to.
    pub(crate) async fn close(&self) {
        let slots: Vec<Arc<Slot>> = {
            let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            slots.drain().map(|(_, slot)| slot).collect()
        };
        let ends = slots.iter().map(|slot| async {
            let connection = slot.state.lock().await.connection.take();
            if let Some(connection) = connection {
                connection.end().await;
            }
        });
        futures_util::future::join_all(ends).await;
    }

    /// The slot of a source. A source that is configured differently from before starts anew.
    fn slot(&self, source: &str, start: Start) -> Arc<Slot> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        match slots.get(source) {
            Some(slot) if slot.start == start => Arc::clone(slot),
            _ => {
                let (state, tasks) = (tokio::sync::Mutex::default(), TaskGroup::default());
                let slot = Arc::new(Slot { start, state, tasks });
                slots.insert(source.to_owned(), Arc::clone(&slot));
                slot
            }
        }
    }
}

impl Slot {
    /// The connection, made when there is none. A server that does not start is left alone for a
    /// while, so that nothing starts it in a circle.
    async fn get(self: &Arc<Self>) -> Result<Arc<Connection>, Error> {
        let mut state = self.state.lock().await;
        if let Some(connection) = state.connection.as_ref().filter(|known| known.is_open()) {
            return Ok(Arc::clone(connection));
        }
        state.connection = None;
        if let Some(failure) = &state.failure
            && !failure.rest().is_zero()
        {
            return Err(failure.error.clone());
        }
        match Connection::open(&self.start, &self.tasks).await {
            Ok(connection) => {
                let connection = Arc::new(connection);
                state.connection = Some(Arc::clone(&connection));
                state.failure = None;
                let watch = (Arc::downgrade(self), Arc::downgrade(&connection));
                let cancel = self.tasks.token().clone();
                self.tasks.spawn("mcp-idle", OnError::Log, async move {
                    tokio::select! {
                        () = cancel.cancelled() => {}
                        () = close_when_idle(watch.0, watch.1) => {}
                    }
                    Ok(())
                });
                Ok(connection)
            }
            Err(error) => {
                let count = state.failure.as_ref().map_or(0, |failure| failure.count);
                let count = count.saturating_add(1);
                state.failure = Some(Failure { error: error.clone(), count, at: Instant::now() });
                Err(error)
            }
        }
    }

    /// Lets go of a connection that broke or hangs: the next call makes a new one. Whoever else
    /// waits for an answer over this one still has it.
    async fn settle<T>(
        &self,
        connection: &Arc<Connection>,
        result: Result<T, Broken>,
    ) -> Result<T, Error> {
        let broken = match result {
            Ok(value) => return Ok(value),
            Err(broken) => broken,
        };
        if broken.lets_go {
            let mut state = self.state.lock().await;
            if state.connection.as_ref().is_some_and(|known| Arc::ptr_eq(known, connection)) {
                state.connection = None;
            }
        }
        Err(broken.error)
    }
}

async fn close_when_idle(slot: Weak<Slot>, connection: Weak<Connection>) {
    loop {
        tokio::time::sleep(IDLE / 5).await;
        let (Some(slot), Some(connection)) = (slot.upgrade(), connection.upgrade()) else { return };
        let mut state = slot.state.lock().await;
        let is_current =
            state.connection.as_ref().is_some_and(|known| Arc::ptr_eq(known, &connection));
        if !is_current {
            return;
        }
        // Held by the slot and by this task: no call is on its way.
        if connection.idle() >= IDLE && Arc::strong_count(&connection) == 2 {
            state.connection = None;
            drop(state);
            connection.end().await;
            return;
        }
    }
}
