//! What operators try by hand: prompts through an agent, and configured commands.
//!
//! Each is a task, so that its output, its end and its log are where those of every other task are.
//! Nothing of it is durable while it goes on: what king was asked before it ended is failed when it
//! starts again.

mod book;
mod command;
mod pieces;
mod prompt;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use evo_common::{
    config::load,
    messages::{AgentRole, DebugResponse, TaskOutput},
    runtime::{Shutdown, TaskGroup},
};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::{Notify, Semaphore, broadcast};

use crate::{child::Launcher, registry::Registry, tasks};
pub(crate) use book::Book;
pub(crate) use prompt::Asked;
use prompt::Prompt;

/// Commands at the same time.
const COMMANDS: usize = 4;
/// Prompts at the same time.
const PROMPTS: usize = 256;
/// Pieces that may wait to be relayed.
const RELAY: usize = 4_096;

/// `[debug]` of `king.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DebugConfig {
    /// Name → program (an absolute path) and its arguments. Without any, `POST /debug/bash` is off.
    pub commands: BTreeMap<String, Vec<String>>,
    /// How long a command may take.
    pub timeout_ms: u64,
}

impl Default for DebugConfig {
    fn default() -> Self {
        Self { commands: BTreeMap::new(), timeout_ms: 60_000 }
    }
}

impl DebugConfig {
    /// Notes what can't be.
    pub(crate) fn check(&self, faults: &mut Vec<load::Fault>) {
        for (name, argv) in &self.commands {
            let key = format!("debug.commands.{name}");
            let legal = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
            if name.is_empty() || name.len() > 64 || !name.chars().all(legal) {
                let message = "the name must have 1 to 64 of a-z, A-Z, 0-9, - and _".to_owned();
                faults.push(load::Fault::new(key.clone(), message));
            }
            if !argv.first().is_some_and(|program| Path::new(program).is_absolute()) {
                let message = format!(
                    "it is {argv:?}; write the program's absolute path, then its arguments: [\"/usr/bin/uptime\", \"-p\"]"
                );
                faults.push(load::Fault::new(key, message));
            }
        }
        if !(100..=3_600_000).contains(&self.timeout_ms) {
            let message = format!("it is {}; it must be from 100 to 3600000", self.timeout_ms);
            faults.push(load::Fault::new("debug.timeout_ms", message));
        }
    }
}

/// Why something was not begun.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Nobody of this role is connected.
    #[error("no runner of the role {0} is connected; GET /agents lists those that are")]
    NoRunner(AgentRole),
    /// Too much goes on already.
    #[error("{0} go on already, which is the most; try again when one has ended")]
    Busy(String),
    /// Commands are off.
    #[error(
        "commands are off: name some under [debug] in king.toml, such as commands = {{ uptime = [\"/usr/bin/uptime\"] }}"
    )]
    NotEnabled,
    /// There is no such command.
    #[error("there is no command {name:?}; king.toml names {known}")]
    UnknownCommand {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// Its task could not be made.
    #[error(transparent)]
    Task(#[from] tasks::Error),
}

/// What is to be shown to those who watch.
#[derive(Debug, Clone)]
pub(crate) enum Shown {
    /// A piece of an answer, in order.
    Piece(Arc<TaskOutput>),
    /// A prompt has its answer.
    Answered(Arc<DebugResponse>),
}

/// Prompts and commands. Cheap to clone.
#[derive(Clone)]
pub struct Debug {
    parts: Arc<Parts>,
}

struct Parts {
    registry: Registry,
    book: Book,
    config: DebugConfig,
    prompts: Mutex<HashMap<String, Prompt>>,
    /// A prompt was asked: its deadline may be the next one.
    asked: Notify,
    shown: broadcast::Sender<Shown>,
    places: Arc<Semaphore>,
    commands: TaskGroup,
    launcher: Launcher,
}

/// What was begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Begun {
    pub(crate) request_id: String,
    pub(crate) task_id: String,
}

impl Debug {
    pub(crate) fn new(
        registry: Registry,
        book: Book,
        config: DebugConfig,
        launcher: Launcher,
        shutdown: Shutdown,
    ) -> Self {
        let parts = Parts {
            registry,
            book,
            config,
            prompts: Mutex::default(),
            asked: Notify::new(),
            shown: broadcast::Sender::new(RELAY),
            places: Arc::new(Semaphore::new(COMMANDS)),
            commands: TaskGroup::new(shutdown),
            launcher,
        };
        Self { parts: Arc::new(parts) }
    }

    /// Ends what an earlier king left open.
    pub(crate) async fn recover(&self) -> Result<(), tasks::Error> {
        self.parts.book.fail_left_over().await
    }

    /// Follows what is to be shown.
    pub(crate) fn follow(&self) -> broadcast::Receiver<Shown> {
        self.parts.shown.subscribe()
    }

    fn prompts(&self) -> MutexGuard<'_, HashMap<String, Prompt>> {
        // A panic while holding the lock can't leave a map half-written.
        self.parts.prompts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn show(&self, shown: Shown) {
        // Fails when nobody watches.
        self.parts.shown.send(shown).map_or_else(drop, drop);
    }

    /// Ends a task; that it could not be stored is all that can be said about it.
    async fn end(&self, task_id: &str, failed: bool, payload: Value) {
        if let Err(error) = self.parts.book.end(task_id, failed, payload).await {
            tracing::error!(task.id = %task_id, %error, "The end of task {task_id} could not be stored: {error}");
        }
    }
}
