//! Commands to runners, and their answers.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use evo_common::{
    api::SkillAnswer,
    clock::Timestamp,
    config::SourceConfig,
    messages::{CommandResult, KingCommand, events},
};
use serde_json::{Map, Value, json};
use tokio::sync::oneshot;

use crate::{
    registry::Registry,
    sources::Sources,
    store::{self, Store},
};

/// How long a skill may take.
const TIMEOUT: Duration = Duration::from_secs(60);

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

/// Sends commands and matches their answers. Cheap to clone.
#[derive(Clone)]
pub struct Commands {
    store: Store,
    registry: Registry,
    sources: Sources,
    waiting: Arc<Mutex<HashMap<String, Asked>>>,
}

/// A command that was sent.
struct Asked {
    agent_id: String,
    answer: oneshot::Sender<CommandResult>,
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
    /// Commands to the agents of this registry.
    pub fn new(store: Store, registry: Registry, sources: Sources) -> Self {
        Self { store, registry, sources, waiting: Arc::default() }
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

    /// Runs a skill's version in use on a runner.
    pub async fn run_skill(
        &self,
        name: &str,
        input: Map<String, Value>,
    ) -> Result<SkillAnswer, InvokeError> {
        let skill = self
            .store
            .skills_get(name)
            .await?
            .ok_or_else(|| InvokeError::NotFound(name.to_owned()))?;
        let Some(version) = skill.versions.iter().find(|version| version.active) else {
            return Err(InvokeError::NotActive {
                name: name.to_owned(),
                status: skill.skill.status,
                reason: skill.skill.outcome.map_or_else(
                    || "it has not been decided about yet".to_owned(),
                    |outcome| format!("{} ({})", outcome.reason, outcome.code),
                ),
            });
        };
        let agent_id = self.registry.skill_runner().ok_or(InvokeError::NoRunner)?;
        let req_id = uuid::Uuid::now_v7().simple().to_string();
        let timeout_ms = u64::try_from(TIMEOUT.as_millis()).unwrap_or(u64::MAX);
        // A source that is not configured any more counts as it was when the skill was made.
        let source = match self.sources.get(&skill.skill.source) {
            Some(source) => Some(source.clone()),
            None => self.store.runs_source(&version.run_id).await?,
        };
        let sources: Vec<SourceConfig> = source.into_iter().collect();
        let servers = self.sources.servers_of(&sources);
        let command = KingCommand {
            command: "run_skill".to_owned(),
            target_agent: agent_id.clone(),
            params: HashMap::from([
                ("req_id".to_owned(), json!(req_id)),
                ("skill".to_owned(), json!(name)),
                ("artifact_id".to_owned(), json!(version.artifact_id)),
                ("input".to_owned(), Value::Object(input)),
                ("deadline".to_owned(), json!(Timestamp::now().plus_ms(timeout_ms))),
                ("sources".to_owned(), json!(sources)),
                ("servers".to_owned(), json!(servers)),
            ]),
        };
        let (answer, answered) = oneshot::channel();
        let asked = Asked { agent_id: agent_id.clone(), answer };
        self.waiting().insert(req_id.clone(), asked);
        let forget = Forget { commands: self, req_id: &req_id };
        let payload = serde_json::to_value(&command).expect("a command is plain data");
        let result = if self.registry.send(&agent_id, events::KING_COMMAND, &payload) {
            tokio::time::timeout(TIMEOUT, answered)
                .await
                .map_err(|_| InvokeError::Timeout(TIMEOUT.as_secs()))
                .and_then(|result| result.map_err(|_| InvokeError::NoRunner))
        } else {
            Err(InvokeError::NoRunner)
        };
        drop(forget);
        let result = result?;
        let message = result.error.unwrap_or_else(|| "the runner gave no reason".to_owned());
        match (result.output, result.code) {
            (Some(output), None) => Ok(SkillAnswer {
                name: name.to_owned(),
                version: version.version.clone(),
                agent_id: result.agent_id,
                output,
                latency_ms: result.latency_ms,
            }),
            (_, Some(code)) if code == "invalid_input" => Err(InvokeError::InvalidInput(message)),
            (_, code) => Err(InvokeError::Failed {
                code: code.unwrap_or_else(|| "skill_failed".to_owned()),
                message,
            }),
        }
    }
}
