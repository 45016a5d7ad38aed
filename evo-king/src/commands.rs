//! Commands to runners, and their answers.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use evo_common::{
    api::{CommandAgent, CommandDone, SkillStep},
    messages::{CommandResult, KingCommand, ModelPreference, events},
};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::{
    config::TelemetryConfig,
    registry::Registry,
    sources::Sources,
    store::{self, Store},
};

mod call;

pub(crate) use call::{Call, CallEvent};

/// How long a command may take when nobody says, and at most: the HTTP API waits little longer.
const DEFAULT_TIMEOUT_MS: u64 = 30_000;
const MAX_TIMEOUT_MS: u64 = 80_000;
/// Longest name of a command.
const MAX_NAME: usize = 64;
/// The command that tells an agent what to think with.
const SET_MODEL: &str = "set_model";

/// Why a skill did not answer.
#[derive(Debug, thiserror::Error)]
pub enum InvokeError {
    /// There is no such skill.
    #[error("there is no skill {0:?}; GET /skills lists them")]
    NotFound(String),
    /// It has no version in use.
    #[error("skill {name:?} is {status}, not active: {reason}")]
    NotActive {
        /// The skill.
        name: String,
        /// Its state.
        status: String,
        /// Why.
        reason: String,
    },
    /// Nobody is there to run it.
    #[error("no runner is connected that could run a skill; start one with `evo runner`")]
    NoRunner,
    /// There is no room for the call now.
    #[error("{0}; try again in a moment")]
    Busy(String),
    /// The runner did not answer in time.
    #[error("the runner did not answer within {0} s")]
    Timeout(u64),
    /// The skill refused its input.
    #[error("{0}")]
    InvalidInput(String),
    /// The skill ran and failed.
    #[error("{message}")]
    Failed {
        /// Stable code.
        code: String,
        /// What went wrong.
        message: String,
    },
    /// The database failed.
    #[error("the database failed")]
    Store(#[from] store::Error),
}

/// Why a command was not answered.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// King knows no such agent.
    #[error("there is no agent {0}; GET /agents lists them")]
    UnknownAgent(String),
    /// It can't be reached.
    #[error("agent {0} is not connected; it can be commanded once it is")]
    NotConnected(String),
    /// It did not answer in time.
    #[error("agent {agent_id} did not answer within {timeout_ms} ms; what it does goes on")]
    Timeout {
        /// The agent.
        agent_id: String,
        /// How long it was waited for.
        timeout_ms: u64,
    },
    /// A part of the command is not what it should be.
    #[error("field `{field}`: {message}")]
    Invalid {
        /// Which.
        field: &'static str,
        /// What is wrong with it.
        message: String,
    },
    /// The agent answered that it failed.
    #[error("{message}")]
    Failed {
        /// Stable code.
        code: String,
        /// What went wrong.
        message: String,
    },
    /// The database failed.
    #[error("the database failed")]
    Store(#[from] store::Error),
}

/// Sends commands and matches their answers. Cheap to clone.
#[derive(Clone)]
pub struct Commands {
    store: Store,
    registry: Registry,
    sources: Sources,
    telemetry: TelemetryConfig,
    waiting: Arc<Mutex<HashMap<String, Asked>>>,
    /// Room for calls of skills.
    places: Arc<Semaphore>,
}

/// A command that was sent.
struct Asked {
    agent_id: String,
    answer: oneshot::Sender<CommandResult>,
    /// Where its steps are told, if somebody follows them.
    steps: Option<mpsc::Sender<SkillStep>>,
}

/// Forgets a command when nobody waits for its answer any more.
struct Forget<'c> {
    commands: &'c Commands,
    req_id: &'c str,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.commands.waiting().remove(self.req_id);
    }
}

impl Commands {
    /// Commands to the agents of this registry, and at most `calls` calls of skills at the same time.
    /// `telemetry` says when calls of a skill that there is not ask for it.
    pub fn new(
        store: Store,
        registry: Registry,
        sources: Sources,
        calls: u32,
        telemetry: TelemetryConfig,
    ) -> Self {
        let places = Arc::new(Semaphore::new(calls as usize));
        Self { store, registry, sources, telemetry, waiting: Arc::default(), places }
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<String, Asked>> {
        // A panic while holding the lock can't leave a map half-written.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A runner answered. Says whether somebody waited for this runner's answer.
    pub fn answered(&self, result: CommandResult) -> bool {
        let asked = {
            let mut waiting = self.waiting();
            match waiting.get(&result.req_id) {
                Some(asked) if asked.agent_id == result.agent_id => waiting.remove(&result.req_id),
                _ => None,
            }
        };
        asked.is_some_and(|asked| asked.answer.send(result).is_ok())
    }

    /// Has an agent do something and waits for its answer. An agent of the published protocol is
    /// told and never answers.
    pub async fn command(
        &self,
        agent_id: &str,
        command: CommandAgent,
    ) -> Result<CommandDone, CommandError> {
        let invalid = |field, message| CommandError::Invalid { field, message };
        if command.command.trim().is_empty() || command.command.len() > MAX_NAME {
            let message = format!("it has between 1 and {MAX_NAME} characters");
            return Err(invalid("command", message));
        }
        let timeout_ms = command.timeout_ms.unwrap_or(DEFAULT_TIMEOUT_MS);
        if !(1..=MAX_TIMEOUT_MS).contains(&timeout_ms) {
            let message = format!("{timeout_ms} is not between 1 and {MAX_TIMEOUT_MS}");
            return Err(invalid("timeout_ms", message));
        }
        if !self.store.agents_exist(agent_id).await? {
            return Err(CommandError::UnknownAgent(agent_id.to_owned()));
        }
        let name = command.command.as_str();
        tracing::info!(agent.id = %agent_id, command = name, "{agent_id} is commanded: {name}");
        let params = command.params.into_iter().collect();
        if self.registry.is_legacy(agent_id) {
            let payload =
                KingCommand { command: command.command, target_agent: agent_id.to_owned(), params };
            if !self.send(&payload) {
                return Err(CommandError::NotConnected(agent_id.to_owned()));
            }
            return Ok(CommandDone {
                success: true,
                agent_id: agent_id.to_owned(),
                answered: false,
                output: Value::Null,
                latency_ms: 0,
            });
        }
        let timeout = Duration::from_millis(timeout_ms);
        let asked = self.ask(agent_id, name, params, timeout).await;
        let result = asked.map_err(|silence| match silence {
            Silence::NotConnected => CommandError::NotConnected(agent_id.to_owned()),
            Silence::Timeout => CommandError::Timeout { agent_id: agent_id.to_owned(), timeout_ms },
        })?;
        if result.code.is_some() || result.error.is_some() {
            return Err(CommandError::Failed {
                code: result.code.unwrap_or_else(|| "command_failed".to_owned()),
                message: result.error.unwrap_or_else(|| "the agent gave no reason".to_owned()),
            });
        }
        Ok(CommandDone {
            success: true,
            agent_id: agent_id.to_owned(),
            answered: true,
            output: result.output.unwrap_or_default(),
            latency_ms: result.latency_ms,
        })
    }

    /// Tells an agent what to think with. Says whether it could be told now.
    pub fn tell_model(&self, agent_id: &str, preference: Option<&ModelPreference>) -> bool {
        let model = preference.map(|preference| &preference.model);
        let effort = preference.and_then(|preference| preference.reasoning_effort.as_ref());
        self.send(&KingCommand {
            command: SET_MODEL.to_owned(),
            target_agent: agent_id.to_owned(),
            params: HashMap::from([
                ("model".to_owned(), json!(model)),
                ("reasoning_effort".to_owned(), json!(effort)),
            ]),
        })
    }

    fn send(&self, command: &KingCommand) -> bool {
        let payload = serde_json::to_value(command).expect("a command is plain data");
        self.registry.send(&command.target_agent, events::KING_COMMAND, &payload)
    }

    /// Sends a command and waits for the answer.
    async fn ask(
        &self,
        agent_id: &str,
        command: &str,
        mut params: HashMap<String, Value>,
        timeout: Duration,
    ) -> Result<CommandResult, Silence> {
        let req_id = new_request_id();
        params.insert("req_id".to_owned(), json!(req_id));
        let (answer, answered) = oneshot::channel();
        let asked = Asked { agent_id: agent_id.to_owned(), answer, steps: None };
        self.waiting().insert(req_id.clone(), asked);
        let _forget = Forget { commands: self, req_id: &req_id };
        let command =
            KingCommand { command: command.to_owned(), target_agent: agent_id.to_owned(), params };
        if !self.send(&command) {
            return Err(Silence::NotConnected);
        }
        tokio::time::timeout(timeout, answered)
            .await
            .map_err(|_| Silence::Timeout)?
            .map_err(|_| Silence::NotConnected)
    }
}

fn new_request_id() -> String {
    uuid::Uuid::now_v7().simple().to_string()
}

/// Why no answer came.
enum Silence {
    NotConnected,
    Timeout,
}
