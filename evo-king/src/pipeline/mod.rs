//! The pipeline: durable runs, driven by a pure state machine.
//!
//! Every command is one transaction of the store: load the state, [`state::decide`], write the new
//! state with its event-log rows and outbox effects. What leaves king (a dispatch, a cancellation,
//! a notice) is sent after the commit by [`reconcile`], at least once; receivers take repeats.

mod apply;
mod budget;
mod context;
mod control;
mod direct;
mod fan_out;
mod flights;
mod heard;
mod import;
mod reconcile;
mod recovery;
mod results;
mod sampler;
mod set_aside;
#[cfg(test)]
mod simulation;
mod start;
pub mod state;
#[cfg(test)]
mod tests;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use evo_common::{
    api::RunKind,
    clock::Timestamp,
    ids::{RunId, sha256_hex},
    messages::{
        AgentHeartbeat, AgentRegistration, AttemptAccepted, PipelineRunStatus, PipelineStage,
        Reply, RunnerStatus, SkillCall, StageReport,
    },
    tracing_context,
};
use serde_json::json;
use tokio::sync::Notify;
use tracing::Instrument as _;

use crate::{
    artifacts::ArtifactStore,
    config::Config,
    registry::Registry,
    skills::lifecycle,
    sources::Sources,
    store::{self, Connection, Store, agents, events, runs},
};
pub(crate) use import::Import;
use state::{Command, Effect, Policy, Rejection, RunState, StageEnd, decide};

/// Why the pipeline did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database failed.
    #[error("the pipeline's database failed")]
    Store(#[from] store::Error),
    /// There is no such run.
    #[error("there is no run {0:?}")]
    UnknownRun(String),
    /// The command does not fit the run's state.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// What was asked for does not fit what else there is.
    #[error("{message}")]
    Refused {
        /// Stable code.
        code: &'static str,
        /// What is in the way and what to do.
        message: String,
    },
    /// The idempotency key was used for another request.
    #[error(
        "the idempotency key {key:?} started run {run_id} with another request; take a new key"
    )]
    KeyReused {
        /// The key.
        key: String,
        /// The run that it started.
        run_id: String,
    },
    /// The request is wrong.
    #[error("field `{field}`: {message}")]
    Invalid {
        /// Which field.
        field: &'static str,
        /// What is wrong and what to do.
        message: String,
    },
}

type Result<T> = std::result::Result<T, Error>;

/// Drives runs. Cheap to clone.
#[derive(Clone)]
pub struct Coordinator {
    parts: Arc<Parts>,
}

struct Parts {
    store: Store,
    artifacts: ArtifactStore,
    registry: Registry,
    sources: Sources,
    config: Arc<Config>,
    policy: Policy,
    /// Something may have to be assigned or delivered.
    wake: Notify,
    /// What is out.
    flights: flights::Flights,
    /// Which signs of life the database knows.
    heard: heard::Heard,
    /// Which direct runs are traced.
    sampler: sampler::Sampler,
    /// Whether attempts are given out: from when the loop runs until king ends.
    assigning: AtomicBool,
}

impl Coordinator {
    /// A coordinator over these parts.
    pub fn new(
        store: Store,
        artifacts: ArtifactStore,
        registry: Registry,
        sources: Sources,
        config: Arc<Config>,
    ) -> Self {
        let policy = Policy { advice_ms: config.recovery_ms, ..Policy::default() };
        let sampler = sampler::Sampler::new(config.traces_direct_per_second);
        Self {
            parts: Arc::new(Parts {
                sampler,
                store,
                artifacts,
                registry,
                sources,
                config,
                policy,
                wake: Notify::new(),
                flights: flights::Flights::default(),
                heard: heard::Heard::default(),
                assigning: AtomicBool::new(false),
            }),
        }
    }

    /// Ends a run; of a cycle, its children too.
    pub async fn cancel(&self, run_id: &RunId) -> Result<()> {
        loop {
            let (this, run_id) = (self.clone(), run_id.clone());
            let cancel =
                async move |connection: &Connection| this.cancel_within(connection, &run_id).await;
            match self.parts.store.write(cancel).await {
                Err(error) => self.mend(error).await?,
                Ok(()) => break,
            }
        }
        self.parts.wake.notify_one();
        Ok(())
    }

    /// The same in the caller's transaction; the runner is told when the pipeline is woken.
    pub(crate) async fn cancel_within(
        &self,
        connection: &Connection,
        run_id: &RunId,
    ) -> Result<()> {
        let run_id = run_id.as_str();
        let run = runs::load(connection, run_id)
            .await?
            .ok_or_else(|| Error::UnknownRun(run_id.to_owned()))?;
        let reason = "cancelled by an operator".to_owned();
        // The cycle first: the end of its last child must not end it as completed.
        self.command(connection, &run, &Command::Cancel { reason: reason.clone() }).await?;
        for child in runs::open_children(connection, run_id).await? {
            let command = Command::Cancel { reason: reason.clone() };
            self.command(connection, &child, &command).await?;
        }
        Ok(())
    }

    /// Takes an agent in. Attempts that it had in an older session and does not list are lost.
    pub async fn register(&self, agent: AgentRegistration, capacity: u32) -> Result<()> {
        let this = self.clone();
        let boot = self.parts.store.boots();
        self.parts
            .store
            .write(async move |connection: &Connection| {
                let now = Timestamp::now();
                let agent_id = agent.register.agent_id.as_str();
                this.parts.heard.forget(agent_id);
                agents::register(connection, now, &agent, capacity).await?;
                let payload = json!({
                    "agent_id": agent_id,
                    "role": agent.register.role.to_string(),
                    "capabilities": agent.register.capabilities,
                    "skills": agent.skills,
                    "version": agent.version,
                    "capacity": capacity,
                    "status": RunnerStatus::Ready,
                });
                let id = Some(agent_id);
                events::append(connection, now, "agent.registered", None, id, &payload).await?;
                for run in runs::leased_to(connection, agent_id).await? {
                    let Some((stage, attempt)) = run.state.at() else { continue };
                    let has_it = agent.in_hand.iter().any(|held| {
                        held.run_id == run.run_id && held.stage == stage && held.attempt == attempt
                    });
                    if !has_it {
                        let agent = agent_id.to_owned();
                        this.command(connection, &run, &Command::RunnerLost { agent, now, boot })
                            .await?;
                    }
                }
                Ok::<_, Error>(())
            })
            .await?;
        self.parts.wake.notify_one();
        Ok(())
    }

    /// A connection was lost. The agent's attempts stay leased: it may come back and go on.
    pub async fn offline(&self, agent_id: String) -> Result<()> {
        self.parts.heard.forget(&agent_id);
        self.parts
            .store
            .write(async move |connection: &Connection| {
                let now = Timestamp::now();
                let payload = json!({"agent_id": agent_id, "status": "offline"});
                agents::offline(connection, now, &agent_id).await?;
                let id = Some(agent_id.as_str());
                events::append(connection, now, "agent.offline", None, id, &payload).await?;
                Ok::<_, Error>(())
            })
            .await
    }

    /// The runner has an attempt in hand. The database hears of it when the attempt is still out a
    /// moment later; most are over by then.
    pub fn accepted(&self, message: &AttemptAccepted) -> Result<()> {
        let AttemptAccepted { agent_id, run_id, stage, attempt } = message;
        if self.parts.flights.confirm(run_id, *stage, *attempt, agent_id) {
            return Ok(());
        }
        let current = "it is not out to this runner".to_owned();
        Err(Rejection::StaleAttempt { stage: *stage, given: *attempt, current }.into())
    }

    /// A sign of life. Extends the leases of what the agent has in hand.
    pub async fn heartbeat(&self, heartbeat: AgentHeartbeat) -> Result<()> {
        let now = Timestamp::now();
        let lease_ms = self.parts.config.lease_ms;
        let agent_id = heartbeat.status.agent_id.clone();
        let status = heartbeat.status.status;
        let leased = if self.parts.flights.any_of(&agent_id) {
            let agent_id = agent_id.clone();
            self.parts
                .store
                .read(async move |connection| runs::leased_to(connection, &agent_id).await)
                .await?
        } else {
            Vec::new()
        };
        // Writing is only worth it when half of a lease has gone by.
        let worth = now.plus_ms(lease_ms / 2);
        let due: Vec<_> = leased
            .into_iter()
            .filter(|run| {
                let RunState::Leased { stage, attempt, lease_until, .. } = &run.state else {
                    return false;
                };
                let listed = heartbeat.in_hand.as_ref().is_none_or(|held| {
                    held.iter().any(|held| {
                        held.run_id == run.run_id
                            && held.stage == *stage
                            && held.attempt == *attempt
                    })
                });
                listed && *lease_until < worth
            })
            .collect();
        // So with the moment at which it was heard of.
        let noted = self.parts.heard.is_noted(&agent_id, status, lease_ms / 4);
        if due.is_empty() && noted {
            return Ok(());
        }
        let this = self.clone();
        self.parts
            .store
            .write(async move |connection: &Connection| {
                agents::heard_of(connection, now, &agent_id, &store::row::name_of(&status)).await?;
                let (heard, agent) = (this.clone(), agent_id.clone());
                connection.after_commit(move || heard.parts.heard.note(agent, status));
                for run in due {
                    let Some((stage, attempt)) = run.state.at() else { continue };
                    let command = Command::Extend {
                        agent: agent_id.clone(),
                        stage,
                        attempt,
                        lease_until: now.plus_ms(lease_ms),
                    };
                    let Some(run) = runs::load(connection, &run.run_id).await? else { continue };
                    match this.command(connection, &run, &command).await {
                        Ok(()) => {
                            this.parts.flights.confirm(&run.run_id, stage, attempt, &agent_id);
                        }
                        // It ended between the reading and the writing.
                        Err(Error::Rejected(_)) => {}
                        Err(error) => return Err(error),
                    }
                }
                Ok::<_, Error>(())
            })
            .await
    }

    /// A skill was called; false when that had been reported before.
    pub(crate) async fn skill_called(&self, call: SkillCall) -> Result<bool> {
        let this = self.clone();
        self.parts
            .store
            .write(async move |connection: &Connection| {
                let Config { skills, learning, .. } = &*this.parts.config;
                let telemetry = &learning.telemetry;
                let now = Timestamp::now();
                Ok(lifecycle::report(connection, now, skills, telemetry, &call).await?)
            })
            .await
    }

    /// A stage's result. The answer says what became of it.
    pub async fn report(&self, report: StageReport) -> Reply {
        let result = &report.result;
        if !self.parts.flights.is_traced(&result.run_id) {
            return self.answer_report(report).await;
        }
        let span = tracing::info_span!(
            "pipeline.result",
            run.id = %result.run_id,
            stage = %result.stage,
            attempt = report.attempt.map(|attempt| attempt.0),
            agent.id = %result.agent_id,
        );
        tracing_context::set_parent(&span, &tracing_context::run_carrier(&result.run_id));
        self.answer_report(report).instrument(span).await
    }

    async fn answer_report(&self, report: StageReport) -> Reply {
        let req_id = report.req_id.clone().unwrap_or_default();
        let (run_id, stage) = (report.result.run_id.clone(), report.result.stage);
        match self.apply_report(report).await {
            Ok(true) => {
                // A place is free for whoever waits for it.
                if self.parts.store.signals().waits(stage) {
                    self.parts.wake.notify_one();
                }
                Reply::accepted(req_id)
            }
            Ok(false) => Reply::duplicate(req_id),
            Err(ReportError::Rejected { code, message }) => {
                tracing::warn!(run.id = %run_id, stage = %stage, code, "A result was rejected: {message}");
                Reply::rejected(req_id, code, message)
            }
            Err(ReportError::Store(error)) => {
                tracing::error!(run.id = %run_id, stage = %stage, error = %error, "A result could not be stored: {error}");
                Reply::retry(req_id, "king could not store the result; send it again")
            }
        }
    }

    /// Whether the report was applied now (false: it had been before).
    async fn apply_report(&self, report: StageReport) -> std::result::Result<bool, ReportError> {
        let result = &report.result;
        if result.status == PipelineRunStatus::Running {
            return Err(ReportError::rejected(
                "invalid_field",
                "field `status`: a result is `completed`, `failed` or `timed_out`, not `running`",
            ));
        }
        let said = (result.status, &result.artifact_id, &result.output, &result.error);
        let digest = sha256_hex(store::row::to_json(&said).as_bytes());
        // The package must be here before anything points at it.
        let package = results::package_of(&self.parts.artifacts, result).await;
        let this = self.clone();
        self.parts
            .store
            .write(async move |connection: &Connection| {
                this.apply_in_transaction(connection, report, &digest, package).await
            })
            .await
    }

    async fn apply_in_transaction(
        &self,
        connection: &Connection,
        report: StageReport,
        digest: &str,
        package: std::result::Result<results::Described, String>,
    ) -> std::result::Result<bool, ReportError> {
        let StageReport { result, attempt, transient, .. } = report;
        let run = runs::load(connection, &result.run_id).await?.ok_or_else(|| {
            ReportError::rejected("unknown_run", format!("there is no run {:?}", result.run_id))
        })?;
        // A legacy runner names no attempt: its result counts for the lease that it holds.
        let attempt = match (attempt, &run.state) {
            (Some(attempt), _) => attempt,
            (None, RunState::Leased { stage, attempt, agent, .. })
                if *stage == result.stage && *agent == result.agent_id =>
            {
                *attempt
            }
            (None, _) => {
                let message = "the result names no attempt and the agent holds no lease for it";
                return Err(ReportError::rejected("stale_attempt", message));
            }
        };
        // What is out has not been answered yet.
        let applied = match &run.state {
            RunState::Leased { stage, attempt: out, .. }
                if (*stage, *out) == (result.stage, attempt) =>
            {
                None
            }
            _ => runs::applied_digest(connection, &run.run_id, result.stage, attempt).await?,
        };
        match applied {
            Some(applied) if applied == digest => return Ok(false),
            Some(_) => {
                return Err(ReportError::rejected(
                    "already_answered",
                    format!("attempt {attempt} has been answered with another result"),
                ));
            }
            None => {}
        }
        let now = Timestamp::now();
        // Whether the answer may be given at all, before its content is looked at.
        let probe =
            Command::Accept { agent: result.agent_id.clone(), stage: result.stage, attempt };
        match decide(&run.state, &probe, &self.parts.policy) {
            Ok(_) | Err(Rejection::NothingToDo) => {}
            Err(rejection) => {
                return Err(ReportError::rejected(rejection.code(), rejection.to_string()));
            }
        }
        let cycle = budget::add(connection, &run, &result.output).await?;
        let read = results::read(self, connection, &run, &result, transient, package, now).await?;
        let command = Command::Report {
            agent: result.agent_id.clone(),
            stage: result.stage,
            attempt,
            end: read.end,
            now,
        };
        let mut decision = self
            .decide(run.state.agent(), &run.state, &command)
            .map_err(|rejection| ReportError::rejected(rejection.code(), rejection.to_string()))?;
        // Straight to the next stage's runner, in the same transaction.
        if run.kind == RunKind::Direct
            && !run.paused
            && let Some(leased) = self.placed(connection, &decision.next, now)
        {
            decision.next = leased;
            decision.effects.push(Effect::Dispatch);
        }
        let report = apply::Report {
            agent_id: &result.agent_id,
            artifact_id: &read.artifact_id,
            output: read.output.as_ref(),
            digest,
        };
        self.apply(connection, now, &run, decision, Some(&report)).await?;
        if let Some(cycle) = cycle {
            self.keep_budget(connection, &cycle).await?;
        }
        Ok(true)
    }

    /// Decides about one command and writes what follows.
    async fn command(
        &self,
        connection: &Connection,
        run: &runs::Run,
        command: &Command,
    ) -> Result<()> {
        let mut state = run.state.clone();
        // The database may not know yet that the runner has confirmed the attempt.
        if let RunState::Leased { stage, attempt, accepted, .. } = &mut state
            && matches!(command, Command::RunnerLost { .. } | Command::Tick { .. })
        {
            *accepted |= self.parts.flights.is_confirmed(&run.run_id, *stage, *attempt);
        }
        let decision = self.decide(state.agent(), &state, command)?;
        self.apply(connection, Timestamp::now(), run, decision, None).await?;
        Ok(())
    }

    /// The lease of a run that waits for a runner, when one is free and nobody was there before it.
    fn placed(
        &self,
        connection: &Connection,
        waiting: &RunState,
        now: Timestamp,
    ) -> Option<RunState> {
        let RunState::Waiting { stage, .. } = waiting else { return None };
        if !self.parts.assigning.load(Ordering::Relaxed) || connection.waits(*stage) {
            return None;
        }
        // What is out of a stage is counted when the loop gives it out.
        if self.parts.config.concurrency.of(*stage).is_some() {
            return None;
        }
        let agent = self.parts.registry.free_runner(*stage)?;
        let command = self.assignment(agent, *stage, now);
        Some(decide(waiting, &command, &self.parts.policy).ok()?.next)
    }

    /// An attempt for this runner.
    fn assignment(&self, agent: String, stage: PipelineStage, now: Timestamp) -> Command {
        Command::Assign {
            agent,
            now,
            lease_ms: self.parts.config.lease_ms,
            timeout_ms: self.parts.config.timeout_ms(stage),
            boot: self.parts.store.boots(),
        }
    }
}

/// Why a report was not applied.
enum ReportError {
    Rejected { code: &'static str, message: String },
    Store(store::Error),
}

impl ReportError {
    fn rejected(code: &'static str, message: impl Into<String>) -> Self {
        Self::Rejected { code, message: message.into() }
    }
}

impl From<Error> for ReportError {
    fn from(error: Error) -> Self {
        match error {
            Error::Store(error) => Self::Store(error),
            other => Self::rejected("not_possible", other.to_string()),
        }
    }
}

impl From<store::Error> for ReportError {
    fn from(error: store::Error) -> Self {
        Self::Store(error)
    }
}

/// What king read out of a result.
struct ReadResult {
    end: StageEnd,
    /// What is stored and shown: never a held-out case.
    output: Option<serde_json::Value>,
    artifact_id: String,
}
