//! Commands from king: running a skill, and whatever the agent's handler adds.

use std::{
    collections::{BTreeMap, HashMap},
    panic::AssertUnwindSafe,
    sync::Arc,
};

use evo_common::{
    clock::Timestamp,
    config::SourceConfig,
    ids::ArtifactId,
    messages::{
        AgentSkillReport, CommandProgress, CommandResult, DecodeError, KingCommand,
        ModelPreference, SkillCall, SkillResult, TraceContext, decode, events,
    },
    tracing_context,
};
use futures_util::FutureExt as _;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::dispatch::panic_text;
use crate::{
    artifacts,
    handler::{AgentHandler, CommandError, Services},
    king::ToKing,
    skill::{
        execute::CallPolicy,
        package::Package,
        run::{self, Failure},
        snapshot::Known,
        steps::{self, Teller},
    },
    task::progress::Say,
};

/// Runs a skill once.
pub(super) const RUN_SKILL: &str = "run_skill";
/// Says which model the agent asks from now on.
pub(super) const SET_MODEL: &str = "set_model";
/// Takes no more work.
pub(super) const DRAIN: &str = "drain";
/// Ends the command with this `req_id`.
pub(super) const CANCEL: &str = "cancel";

/// The params of `run_skill`.
#[derive(Debug, Deserialize)]
struct RunSkill {
    req_id: String,
    skill: String,
    /// Absent for a skill in the agent's own folder.
    #[serde(default)]
    artifact_id: Option<ArtifactId>,
    #[serde(default)]
    input: Map<String, Value>,
    #[serde(default)]
    deadline: Option<Timestamp>,
    #[serde(default)]
    sources: Vec<SourceConfig>,
    #[serde(default)]
    servers: BTreeMap<String, String>,
    /// Whether somebody wants to hear of its steps.
    #[serde(default)]
    follow: bool,
}

/// What a command is done with. Cheap to clone.
#[derive(Clone)]
pub(super) struct Commander {
    pub(super) agent_id: String,
    pub(super) handler: Arc<dyn AgentHandler>,
    pub(super) services: Services,
    /// Skills of the agent's own folder.
    pub(super) local: Arc<Vec<Package>>,
    /// Source name → base URL, as king last told.
    pub(super) servers: BTreeMap<String, String>,
    /// Says something while a command is done.
    pub(super) say: Say,
}

impl Commander {
    /// Does a command; gives what is to be said about it.
    pub(super) async fn run(self, command: KingCommand) -> Vec<ToKing> {
        match command.command.as_str() {
            RUN_SKILL => self.skill(command).await,
            SET_MODEL => self.set_model(&command),
            _ => self.other(command).await,
        }
    }

    async fn other(self, command: KingCommand) -> Vec<ToKing> {
        let name = command.command.clone();
        let req_id = req_id(&command);
        let started = Instant::now();
        let work = AssertUnwindSafe(async { self.handler.command(command).await }).catch_unwind();
        let result = work.await.unwrap_or_else(|panic| {
            let message = format!("the handler panicked: {}", panic_text(&*panic));
            Err(CommandError::new("panicked", message))
        });
        if let Err(error) = &result {
            tracing::warn!(%error, "The command {name:?} failed: {error}");
        }
        match req_id {
            Some(req_id) => vec![answer(&self.agent_id, req_id, started, result)],
            None => Vec::new(),
        }
    }

    /// Without a model, or with an empty one, the agent is left to choose again.
    fn set_model(self, command: &KingCommand) -> Vec<ToKing> {
        let started = Instant::now();
        let text = |name: &str| match command.params.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => {
                Ok(Some(text.trim().to_owned()).filter(|text| !text.is_empty()))
            }
            Some(_) => {
                Err(CommandError::new("invalid_input", format!("`params.{name}` must be a text")))
            }
        };
        let set = || {
            let (model, reasoning_effort) = (text("model")?, text("reasoning_effort")?);
            let Some(gateway) = &self.services.gateway else {
                let message =
                    "this runner knows no gateway, so that it asks no model: set GATEWAY_ADDRESS";
                return Err(CommandError::new("no_gateway", message));
            };
            let preference = model.map(|model| ModelPreference { model, reasoning_effort });
            tracing::info!("King wants this model to be asked: {preference:?}");
            gateway.set_preferred(preference.clone());
            Ok(json!({
                "model": preference.as_ref().map(|preference| &preference.model),
                "reasoning_effort": preference.as_ref().map(|preference| &preference.reasoning_effort),
            }))
        };
        let result = set();
        let req_id = req_id(command);
        req_id.map(|req_id| answer(&self.agent_id, req_id, started, result)).into_iter().collect()
    }

    async fn skill(self, command: KingCommand) -> Vec<ToKing> {
        let started = Instant::now();
        let fallback = req_id(&command);
        let job = match read(command) {
            Ok(job) => job,
            Err(error) => {
                tracing::warn!(%error, "A command can't be read: {error}");
                let result = Err(CommandError::new("invalid_command", error.to_string()));
                return fallback
                    .map(|req_id| answer(&self.agent_id, req_id, started, result))
                    .into_iter()
                    .collect();
            }
        };
        let cancel = self.services.cancel.clone();
        let result = tokio::select! {
            () = cancel.cancelled() => {
                let message = "nobody wants its result any more, or the runner is shutting down";
                Err(Failure::new("cancelled", message))
            }
            result = self.follow(&job) => result,
        };
        let latency_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let counts = result.as_ref().map_or_else(Failure::counts, |_| true);
        let report = counts.then(|| {
            let mut carrier = HashMap::new();
            tracing_context::inject_context(&mut carrier);
            ToKing::SkillReport(Box::new(SkillCall {
                report: AgentSkillReport {
                    agent_id: self.agent_id.clone(),
                    skill_id: job.skill.clone(),
                    result: match &result {
                        Ok(_) => SkillResult::Success,
                        Err(error) => SkillResult::Failure(error.message.clone()),
                    },
                    score: None,
                },
                req_id: Some(job.req_id.clone()),
                artifact_id: job.artifact_id.as_ref().map(ToString::to_string),
                latency_ms: Some(latency_ms),
                cost_usd: None,
                code: result.as_ref().err().map(|failure| failure.code.clone()),
                input: result.is_err().then(|| run::reported_input(&job.input)).flatten(),
                trace: (!carrier.is_empty()).then_some(TraceContext(carrier)),
            }))
        });
        let answer =
            answer(&self.agent_id, job.req_id, started, result.map_err(CommandError::from));
        std::iter::once(answer).chain(report).collect()
    }

    async fn follow(&self, job: &RunSkill) -> Result<Value, Failure> {
        if !job.follow {
            return self.execute(job).await;
        }
        let (say, agent_id, req_id) =
            (Arc::clone(&self.say), self.agent_id.clone(), job.req_id.clone());
        let teller: Teller = Arc::new(move |step, of, message| {
            let (agent_id, req_id) = (agent_id.clone(), req_id.clone());
            let progress = CommandProgress { req_id, agent_id, step, of, message };
            say(ToKing::CommandProgress(Box::new(progress)))
        });
        steps::followed(teller, self.execute(job)).await
    }

    async fn execute(&self, job: &RunSkill) -> Result<Value, Failure> {
        let package = self.package(job).await?;
        let left = job.deadline.map(|deadline| deadline.ms_since(Timestamp::now()));
        if left == Some(0) {
            return Err(Failure::new("timeout", "the deadline had passed before the call"));
        }
        let mut servers = self.servers.clone();
        servers.extend(job.servers.clone());
        let skills = self.services.skills.snapshot(&servers, &job.req_id).await;
        let skills = match job.artifact_id {
            Some(_) => skills,
            None => skills.over(&self.local.iter().map(Known::local).collect::<Vec<_>>()),
        };
        let policy = CallPolicy {
            timeout_cap_ms: left,
            parts: skills.parts_of(&package),
            ..run::policy_of(&package, &job.sources, &servers)
        };
        run::run(&self.services.executor, &package, &job.input, &policy).await
    }

    async fn package(&self, job: &RunSkill) -> Result<Package, Failure> {
        let not_found = |message: String| Failure::new("skill_not_found", message);
        let Some(id) = &job.artifact_id else {
            return self
                .local
                .iter()
                .find(|package| package.manifest.name == job.skill)
                .cloned()
                .ok_or_else(|| not_found(format!("this agent has no skill {:?}", job.skill)));
        };
        self.services.artifacts.package(id).await.map_err(|error| {
            let code = match &error {
                artifacts::Error::NotFound(_) => "skill_not_found",
                artifacts::Error::Package(_) | artifacts::Error::Digest { .. } => "invalid_package",
                _ => "unavailable",
            };
            Failure::new(code, error.to_string())
        })
    }
}

impl From<Failure> for CommandError {
    fn from(failure: Failure) -> Self {
        Self::new(failure.code, failure.message)
    }
}

fn read(command: KingCommand) -> Result<RunSkill, DecodeError> {
    let params: Map<String, Value> = command.params.into_iter().collect();
    decode(events::KING_COMMAND, Value::Object(params))
}

pub(super) fn req_id(command: &KingCommand) -> Option<String> {
    command.params.get("req_id").and_then(Value::as_str).map(str::to_owned)
}

fn answer(
    agent_id: &str,
    req_id: String,
    started: Instant,
    result: Result<Value, CommandError>,
) -> ToKing {
    let (output, code, error) = match result {
        Ok(output) => (Some(output), None, None),
        Err(error) => (None, Some(error.code), Some(error.message)),
    };
    ToKing::CommandResult(Box::new(CommandResult {
        req_id,
        agent_id: agent_id.to_owned(),
        output,
        code,
        error,
        latency_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
    }))
}

/// The answer to a command that can't be taken now.
pub(super) fn refuse(
    agent_id: &str,
    command: &KingCommand,
    code: &str,
    message: &str,
) -> Option<ToKing> {
    let result = Err(CommandError::new(code, message));
    req_id(command).map(|req_id| answer(agent_id, req_id, Instant::now(), result))
}

/// The answer to a command that was done at once.
pub(super) fn done(agent_id: &str, command: &KingCommand, output: Value) -> Option<ToKing> {
    req_id(command).map(|req_id| answer(agent_id, req_id, Instant::now(), Ok(output)))
}

#[cfg(test)]
mod tests;
