//! Calls of skills: begun on a runner, followed step by step, and cancelled when nobody wants them
//! any more.

use std::{collections::HashMap, sync::Arc, time::Duration};

use evo_common::{
    api::{SkillAnswer, SkillStarted, SkillStep},
    clock::Timestamp,
    config::SourceConfig,
    messages::{CommandProgress, CommandResult, KingCommand},
};
use serde_json::{Map, Value, json};
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc, oneshot},
    time::Instant,
};

use super::{Asked, Commands, InvokeError, new_request_id};
use crate::{
    skills::telemetry,
    store::{
        self, Connection,
        skills::callable::{self, Callable, Found},
    },
};

/// How long a skill may take.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Steps that wait for whoever follows a call; later ones are dropped.
const STEPS: usize = 64;
/// The command that ends another one.
const CANCEL: &str = "cancel";

/// What happens in a call.
#[derive(Debug)]
pub(crate) enum CallEvent {
    /// A step of it begins.
    Step(SkillStep),
    /// It has ended; nothing follows.
    Ended(Result<SkillAnswer, InvokeError>),
}

/// A call of a skill under way. Dropped before its end, it is cancelled at its runner.
pub(crate) struct Call {
    commands: Commands,
    started: SkillStarted,
    until: Instant,
    /// Whether a step may still come.
    followed: bool,
    steps: mpsc::Receiver<SkillStep>,
    answer: oneshot::Receiver<CommandResult>,
    ended: bool,
    /// Its place among all calls.
    _place: OwnedSemaphorePermit,
}

impl Commands {
    /// Runs a skill's version in use on a runner.
    pub async fn run_skill(
        &self,
        name: &str,
        input: Map<String, Value>,
    ) -> Result<SkillAnswer, InvokeError> {
        let mut call = self.begin_skill(name, input, false).await?;
        loop {
            if let CallEvent::Ended(result) = call.next().await {
                return result;
            }
        }
    }

    /// Begins a call of a skill's version in use; with `follow` its steps are told.
    pub(crate) async fn begin_skill(
        &self,
        name: &str,
        input: Map<String, Value>,
        follow: bool,
    ) -> Result<Call, InvokeError> {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| {
            InvokeError::Busy("king has as many calls under way as it may".to_owned())
        })?;
        let skill = match self.callable(name).await {
            Err(error @ InvokeError::NotFound(_)) => {
                self.note_missing(name, input).await?;
                return Err(error);
            }
            found => found?,
        };
        let agent_id = self.registry.skill_runner().ok_or(InvokeError::NoRunner)?;
        let timeout_ms = u64::try_from(TIMEOUT.as_millis()).unwrap_or(u64::MAX);
        // The request's id says which version the call gets; it is the id of the report, too.
        let req_id = new_request_id();
        let version = skill.choose(&req_id);
        // A source that is not configured any more counts as it was when the skill was made.
        let source = match self.sources.get(&skill.source) {
            Some(source) => Some(source.clone()),
            None => self.store.runs_source(&version.run_id).await?,
        };
        let sources: Vec<SourceConfig> = source.into_iter().collect();
        let servers = self.sources.servers_of(&sources);
        let params = HashMap::from([
            ("req_id".to_owned(), json!(req_id)),
            ("skill".to_owned(), json!(name)),
            ("artifact_id".to_owned(), json!(version.at.artifact_id)),
            ("input".to_owned(), Value::Object(input)),
            ("deadline".to_owned(), json!(Timestamp::now().plus_ms(timeout_ms))),
            ("sources".to_owned(), json!(sources)),
            ("servers".to_owned(), json!(servers)),
            ("follow".to_owned(), json!(follow)),
        ]);
        let (answer, answered) = oneshot::channel();
        let (tell, steps) = mpsc::channel(STEPS);
        let asked = Asked { agent_id: agent_id.clone(), answer, steps: follow.then_some(tell) };
        self.waiting().insert(req_id.clone(), asked);
        let mut call = Call {
            commands: self.clone(),
            started: SkillStarted {
                name: name.to_owned(),
                version: version.at.version.clone(),
                artifact_id: version.at.artifact_id.clone(),
                agent_id: agent_id.clone(),
                request_id: req_id,
            },
            until: Instant::now() + TIMEOUT,
            followed: follow,
            steps,
            answer: answered,
            ended: false,
            _place: place,
        };
        let command =
            KingCommand { command: "run_skill".to_owned(), target_agent: agent_id, params };
        if !self.send(&command) {
            // There is nothing to be cancelled.
            call.forget();
            return Err(InvokeError::NoRunner);
        }
        Ok(call)
    }

    /// A step of a command begins.
    pub(crate) fn progressed(&self, progress: CommandProgress) {
        let waiting = self.waiting();
        let CommandProgress { req_id, agent_id, step, of, message } = progress;
        let asked = waiting.get(&req_id).filter(|asked| asked.agent_id == agent_id);
        if let Some(steps) = asked.and_then(|asked| asked.steps.as_ref())
            && steps.try_send(SkillStep { step, of, message }).is_err()
        {
            tracing::debug!(req_id, "A step is not told: whoever follows the call does not read");
        }
    }

    /// Why a skill can't be called, if it can't.
    pub(crate) async fn run_state(&self, name: &str) -> Result<(), InvokeError> {
        self.callable(name).await.map(drop)
    }

    /// Somebody wants a skill that there is not; when many do, Learning is asked for it.
    async fn note_missing(&self, name: &str, input: Map<String, Value>) -> store::Result<()> {
        let (config, name) = (self.telemetry.clone(), name.to_owned());
        self.store
            .write(async move |connection: &Connection| {
                let (now, code) = (Timestamp::now(), telemetry::NOT_FOUND);
                telemetry::missing(connection, now, &config, code, &name, Some(&input)).await
            })
            .await
    }

    /// The versions of a skill that calls get.
    async fn callable(&self, name: &str) -> Result<Callable, InvokeError> {
        let wanted = name.to_owned();
        let read = async move |connection: &Connection| callable::get(connection, &wanted).await;
        match self.store.read(read).await? {
            Found::Callable(skill) => Ok(skill),
            Found::NotActive { status, reason } => {
                Err(InvokeError::NotActive { name: name.to_owned(), status, reason })
            }
            Found::Nothing => Err(InvokeError::NotFound(name.to_owned())),
        }
    }
}

impl Call {
    /// What runs where.
    pub(crate) fn started(&self) -> &SkillStarted {
        &self.started
    }

    /// What happens next.
    pub(crate) async fn next(&mut self) -> CallEvent {
        loop {
            tokio::select! {
                biased;
                step = self.steps.recv(), if self.followed => match step {
                    Some(step) => return CallEvent::Step(step),
                    // The sender went with the answer.
                    None => self.followed = false,
                },
                result = &mut self.answer => {
                    let ended = match result {
                        Ok(result) => self.outcome(result),
                        Err(_) => Err(InvokeError::NoRunner),
                    };
                    self.forget();
                    return CallEvent::Ended(ended);
                }
                () = tokio::time::sleep_until(self.until) => {
                    // Its runner is told when this is dropped.
                    return CallEvent::Ended(Err(InvokeError::Timeout(TIMEOUT.as_secs())));
                }
            }
        }
    }

    fn outcome(&self, result: CommandResult) -> Result<SkillAnswer, InvokeError> {
        let message = result.error.unwrap_or_else(|| "the runner gave no reason".to_owned());
        match (result.output, result.code) {
            (Some(output), None) => Ok(SkillAnswer {
                name: self.started.name.clone(),
                version: self.started.version.clone(),
                agent_id: result.agent_id,
                output,
                latency_ms: result.latency_ms,
            }),
            (_, Some(code)) if code == "invalid_input" => Err(InvokeError::InvalidInput(message)),
            (_, Some(code)) if code == "busy" => Err(InvokeError::Busy(message)),
            (_, code) => Err(InvokeError::Failed {
                code: code.unwrap_or_else(|| "skill_failed".to_owned()),
                message,
            }),
        }
    }

    /// Nobody waits for its answer any more, and its runner need not be told.
    fn forget(&mut self) {
        self.ended = true;
        self.commands.waiting().remove(&self.started.request_id);
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        self.forget();
        let params = HashMap::from([("req_id".to_owned(), json!(self.started.request_id))]);
        let target_agent = self.started.agent_id.clone();
        let command = KingCommand { command: CANCEL.to_owned(), target_agent, params };
        if !self.commands.send(&command) {
            tracing::debug!("A call that nobody wants ends with its runner, which is away");
        }
    }
}
