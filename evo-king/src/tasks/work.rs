//! Tasks that user agents do: given out under a lease, confirmed, reported.

use std::collections::HashMap;

use evo_common::{
    api::TaskWork,
    clock::Timestamp,
    ids::{Attempt, sha256_hex},
    messages::{
        MemoryRecord, Reply, TaskAttemptRef, TaskCancel, TaskDispatch, TaskInvite, TaskReport,
        TaskStatus, TraceContext, events as wire,
    },
    tracing_context,
};
use serde_json::{Value, json};

use super::{
    Error, Outgoing, Result, Tasks,
    lifecycle::apply,
    state::{AttemptEnd, Command, Rejection, TaskState, decide},
};
use crate::{
    skills::telemetry,
    store::{
        self, Connection, MemoryFilter, memories,
        tasks::{self, Task},
    },
};

/// Most bytes of a result, as JSON; a longer one is cut.
const MAX_RESULT: usize = super::MAX_PAYLOAD;
/// Most bytes of the list of called skills.
const MAX_CALLS: usize = 64 * 1024;
/// Memories that go with a task.
const MAX_MEMORIES: u32 = 20;
/// Tasks that are given out in one go.
const BATCH: u32 = 100;

/// A result that is not too long to be kept.
pub(super) fn bounded(value: Value) -> Value {
    bounded_to(value, MAX_RESULT)
}

fn bounded_to(value: Value, most: usize) -> Value {
    let text = value.to_string();
    if text.len() <= most {
        return value;
    }
    json!({ "truncated": true, "bytes": text.len(), "text": super::cut(&text, most) })
}

/// What a report's payload holds: the result, and the list of called skills.
fn taken_apart(payload: Option<Value>) -> (Value, Value) {
    match payload {
        Some(Value::Object(mut payload)) if payload.contains_key("result") => (
            bounded(payload.remove("result").unwrap_or_default()),
            bounded_to(payload.remove("tool_calls").unwrap_or_default(), MAX_CALLS),
        ),
        other => (bounded(other.unwrap_or_default()), Value::Null),
    }
}

impl Tasks {
    /// After a start: whoever had an attempt gets time to come back.
    pub async fn recover(&self) -> Result<()> {
        while let Err(error) = self.keep_leases().await {
            self.mend(error).await?;
        }
        Ok(())
    }

    async fn keep_leases(&self) -> Result<()> {
        let this = self.clone();
        self.parts
            .store
            .write(async move |connection: &Connection| {
                let now = Timestamp::now();
                let lease_until = now.plus_ms(this.parts.config.grace_ms);
                for mut task in tasks::leased(connection).await? {
                    let Some(state) = &task.state else { continue };
                    let Some((agent, attempt)) = state.lease() else { continue };
                    let hold = Command::Hold { agent: agent.to_owned(), attempt, lease_until };
                    let Ok(decision) = decide(state, &hold, &this.parts.policy) else { continue };
                    let policy = &this.parts.policy;
                    apply(connection, now, policy, &mut task, decision, &mut Vec::new()).await?;
                }
                Ok::<_, Error>(())
            })
            .await
    }

    /// Gives waiting tasks to user agents with free capacity.
    pub(super) async fn assign(&self) -> Result<()> {
        let ready = self.parts.registry.ready_for_tasks();
        if ready.is_empty() {
            return Ok(());
        }
        let anything = {
            let names: Vec<String> = ready.iter().map(|(agent, _)| agent.clone()).collect();
            self.parts
                .store
                .read(async move |connection| {
                    let now = Timestamp::now();
                    let mut found = !tasks::waiting(connection, None, now, 1).await?.is_empty();
                    for name in names {
                        let own = tasks::waiting(connection, Some(&name), now, 1).await?;
                        found |= !own.is_empty();
                    }
                    Ok(found)
                })
                .await?
        };
        if !anything {
            return Ok(());
        }
        let this = self.clone();
        self.parts
            .store
            .write(async move |connection: &Connection| {
                let now = Timestamp::now();
                let leased: HashMap<String, u32> =
                    tasks::leased_by_agent(connection).await?.into_iter().collect();
                let mut free: Vec<(String, u32)> = ready
                    .into_iter()
                    .map(|(agent, capacity)| {
                        let taken = leased.get(&agent).copied().unwrap_or(0);
                        (agent, capacity.saturating_sub(taken))
                    })
                    .collect();
                // Those that want one agent first: the others can go anywhere.
                for (agent, places) in &mut free {
                    for task in tasks::waiting(connection, Some(agent), now, *places).await? {
                        this.give(connection, now, task, agent).await?;
                        *places -= 1;
                    }
                }
                let places =
                    free.iter().fold(0_u32, |sum, (_, places)| sum.saturating_add(*places));
                let places = places.min(BATCH);
                for task in tasks::waiting(connection, None, now, places).await? {
                    let most = free.iter_mut().max_by_key(|(_, places)| *places);
                    let Some((agent, places)) = most else { break };
                    this.give(connection, now, task, agent).await?;
                    *places = places.saturating_sub(1);
                }
                Ok::<_, Error>(())
            })
            .await
    }

    async fn give(
        &self,
        connection: &Connection,
        now: Timestamp,
        mut task: Task,
        agent: &str,
    ) -> Result<()> {
        let Some(state) = &task.state else { return Ok(()) };
        let limits = task.limits.unwrap_or_else(|| self.limits());
        let command = Command::Assign {
            agent: agent.to_owned(),
            now,
            lease_ms: self.parts.config.lease_ms,
            timeout_ms: limits.timeout_ms,
        };
        let policy = &self.parts.policy;
        let Ok(decision) = decide(state, &command, policy) else { return Ok(()) };
        Ok(apply(connection, now, policy, &mut task, decision, &mut Vec::new()).await?)
    }

    /// The invitation to a task's attempt, as it is now.
    pub(super) async fn dispatch_of(
        &self,
        connection: &Connection,
        task: Task,
    ) -> store::Result<Option<(String, TaskDispatch)>> {
        let Some(TaskState::Leased { agent, attempt, deadline, .. }) = &task.state else {
            return Ok(None);
        };
        let span = tracing::info_span!(
            "task.dispatch", task.id = %task.task_id, agent.id = %agent, attempt = attempt.0
        );
        let root = task.run_id.as_deref().map(tracing_context::run_carrier);
        if let Some(root) = &root {
            tracing_context::set_parent(&span, root);
        }
        let trace = span.in_scope(|| {
            let mut carrier = HashMap::new();
            tracing_context::inject_context(&mut carrier);
            if carrier.is_empty() { root } else { Some(carrier) }.map(TraceContext)
        });
        let memories = self.memories_of(connection, &task).await?;
        let dispatch = TaskDispatch {
            invite: TaskInvite {
                task_id: task.task_id.clone(),
                task_type: task.task_type,
                payload: task.payload,
            },
            agent_id: agent.clone(),
            attempt: *attempt,
            deadline_ms: deadline.0,
            summary: task.summary,
            model: task.model.or_else(|| self.parts.registry.model_of(agent)),
            memories,
            limits: task.limits.unwrap_or_else(|| self.limits()),
            trace,
        };
        Ok(Some((agent.clone(), dispatch)))
    }

    /// What is bound to a task, or to the task that it is a part of.
    async fn memories_of(
        &self,
        connection: &Connection,
        task: &Task,
    ) -> store::Result<Vec<MemoryRecord>> {
        let mut found = Vec::new();
        for task_id in std::iter::once(&task.task_id).chain(&task.parent_id) {
            let task_id = Some(task_id.clone());
            let filter = MemoryFilter { limit: MAX_MEMORIES, task_id, ..MemoryFilter::default() };
            let page = memories::list(connection, &filter).await?;
            found.extend(page.memories.into_iter().map(|view| view.memory));
        }
        Ok(found)
    }

    /// An agent registered. Attempts that it has by king's books and does not list are lost.
    pub async fn registered(&self, agent_id: &str, in_hand: Vec<TaskAttemptRef>) -> Result<()> {
        let leased = self.leased_to(agent_id).await?;
        if !leased.is_empty() {
            let (this, agent_id) = (self.clone(), agent_id.to_owned());
            self.parts
                .store
                .write(async move |connection: &Connection| {
                    let now = Timestamp::now();
                    for task in tasks::leased_to(connection, &agent_id).await? {
                        if lists(&in_hand, &task) {
                            continue;
                        }
                        let lost = Command::RunnerLost { agent: agent_id.clone(), now };
                        this.command(connection, now, task, &lost, &mut Vec::new()).await?;
                    }
                    Ok::<_, Error>(())
                })
                .await?;
        }
        self.wake();
        Ok(())
    }

    /// A sign of life. Extends the leases of what the agent has in hand, and says of the rest
    /// that it is not wanted any more.
    pub async fn heartbeat(&self, agent_id: &str, in_hand: &[TaskAttemptRef]) -> Result<()> {
        if in_hand.is_empty() {
            return Ok(());
        }
        let leased = self.leased_to(agent_id).await?;
        let unwanted = in_hand
            .iter()
            .filter(|held| !leased.iter().any(|task| lists(std::slice::from_ref(*held), task)));
        let unwanted: Vec<Outgoing> = unwanted
            .map(|held| {
                let cancel = TaskCancel {
                    task_id: held.task_id.clone(),
                    attempt: held.attempt,
                    reason: "the attempt is over".to_owned(),
                };
                let payload = serde_json::to_value(&cancel).expect("plain data");
                Outgoing { agent: agent_id.to_owned(), event: wire::TASK_CANCEL, payload }
            })
            .collect();
        // Writing is only worth it when half of a lease has gone by.
        let lease_ms = self.parts.config.lease_ms;
        let worth = Timestamp::now().plus_ms(lease_ms / 2);
        let due: Vec<TaskAttemptRef> = leased
            .iter()
            .filter(|task| lists(in_hand, task))
            .filter_map(|task| match &task.state {
                Some(TaskState::Leased { attempt, accepted, lease_until, .. })
                    if !accepted || *lease_until < worth =>
                {
                    Some(TaskAttemptRef { task_id: task.task_id.clone(), attempt: *attempt })
                }
                _ => None,
            })
            .collect();
        if !due.is_empty() {
            let (this, agent) = (self.clone(), agent_id.to_owned());
            self.parts
                .store
                .write(async move |connection: &Connection| {
                    let now = Timestamp::now();
                    for TaskAttemptRef { task_id, attempt } in due {
                        let Some(task) = tasks::load(connection, &task_id).await? else { continue };
                        let lease_until = now.plus_ms(lease_ms);
                        let hold = Command::Hold { agent: agent.clone(), attempt, lease_until };
                        this.command(connection, now, task, &hold, &mut Vec::new()).await?;
                    }
                    Ok::<_, Error>(())
                })
                .await?;
        }
        if !unwanted.is_empty() {
            self.send(unwanted);
        }
        Ok(())
    }

    /// The runner has an attempt in hand; an error when it is not this runner's.
    pub async fn joined(&self, agent_id: String, task_id: String, attempt: Attempt) -> Result<()> {
        let this = self.clone();
        self.parts
            .store
            .write(async move |connection: &Connection| {
                let now = Timestamp::now();
                let mut task = tasks::load(connection, &task_id)
                    .await?
                    .ok_or_else(|| Error::Unknown(task_id.clone()))?;
                let lease_until = now.plus_ms(this.parts.config.lease_ms);
                let hold = Command::Hold { agent: agent_id.clone(), attempt, lease_until };
                let Some(state) = &task.state else {
                    return Err(Error::NotYours { task_id, agent: agent_id });
                };
                let policy = &this.parts.policy;
                let decision = decide(state, &hold, policy)?;
                apply(connection, now, policy, &mut task, decision, &mut Vec::new()).await?;
                Ok::<_, Error>(())
            })
            .await
    }

    /// Does what a command says, if it fits the task. Says whether it did.
    pub(super) async fn command(
        &self,
        connection: &Connection,
        now: Timestamp,
        mut task: Task,
        command: &Command,
        out: &mut Vec<Outgoing>,
    ) -> Result<bool> {
        let policy = &self.parts.policy;
        let Some(state) = &task.state else { return Ok(false) };
        let Ok(decision) = decide(state, command, policy) else { return Ok(false) };
        apply(connection, now, policy, &mut task, decision, out).await?;
        Ok(true)
    }

    async fn leased_to(&self, agent_id: &str) -> Result<Vec<Task>> {
        let agent_id = agent_id.to_owned();
        let leased = self
            .parts
            .store
            .read(async move |connection| tasks::leased_to(connection, &agent_id).await);
        Ok(leased.await?)
    }

    /// How an attempt ended. The answer says what became of the report.
    pub async fn report(&self, agent_id: String, report: TaskReport) -> Reply {
        let req_id = report.req_id.clone();
        let task_id = report.update.task_id.clone();
        let applied = self.apply_report(agent_id, report).await;
        match applied {
            Ok(true) => {
                self.parts.streams.close(&task_id);
                self.wake();
                Reply::accepted(req_id)
            }
            Ok(false) => Reply::duplicate(req_id),
            Err(Error::Store(error)) => {
                tracing::error!(task.id = %task_id, error = %error, "A task's result could not be stored: {error}");
                Reply::retry(req_id, "king could not store the result; send it again")
            }
            Err(error) => {
                tracing::warn!(task.id = %task_id, "A task's result was rejected: {error}");
                Reply::rejected(req_id, error.code(), error.to_string())
            }
        }
    }

    /// Whether the report was applied now (false: it had been before).
    async fn apply_report(&self, agent_id: String, report: TaskReport) -> Result<bool> {
        let digest = sha256_hex(
            json!([report.update.status, report.update.payload, report.error])
                .to_string()
                .as_bytes(),
        );
        let end = match report.update.status {
            Some(TaskStatus::Completed) => AttemptEnd::Completed,
            Some(TaskStatus::Failed) => AttemptEnd::Failed {
                error: report.error.clone().unwrap_or_else(|| "it gave no reason".to_owned()),
                transient: report.transient,
            },
            _ => {
                let message = "the end of an attempt is `completed` or `failed`".to_owned();
                return Err(Error::Invalid { field: "status", message });
            }
        };
        let (result, tool_calls) = taken_apart(report.update.payload);
        let work = TaskWork {
            steps: report.steps,
            usage: report.usage,
            latency_ms: report.latency_ms,
            tool_calls,
        };
        let (this, task_id, attempt) = (self.clone(), report.update.task_id, report.attempt);
        self.parts
            .store
            .write(async move |connection: &Connection| {
                let now = Timestamp::now();
                let mut task = tasks::load(connection, &task_id)
                    .await?
                    .ok_or_else(|| Error::Unknown(task_id.clone()))?;
                let policy = &this.parts.policy;
                if let Some((applied, earlier)) = &task.applied
                    && *applied == attempt
                {
                    if *earlier == digest {
                        return Ok(false);
                    }
                    let current = "it has its result".to_owned();
                    return Err(Rejection::StaleAttempt { given: attempt, current }.into());
                }
                let Some(state) = &task.state else {
                    return Err(Error::NotYours { task_id, agent: agent_id });
                };
                let ends = end == AttemptEnd::Completed
                    || matches!(end, AttemptEnd::Failed { transient: false, .. });
                let command = Command::Report { agent: agent_id, attempt, end, now };
                let decision = decide(state, &command, policy)?;
                if ends {
                    let result = Some(&result).filter(|result| !result.is_null());
                    tasks::save_result(connection, &task_id, result, None, Some(&work)).await?;
                    this.note_missing(connection, now, result, &work.tool_calls).await?;
                }
                if let Some(output) = this.parts.streams.text(&task_id, attempt) {
                    tasks::save_output(connection, &task_id, &output).await?;
                }
                task.applied = Some((attempt, digest));
                apply(connection, now, policy, &mut task, decision, &mut Vec::new()).await?;
                Ok(true)
            })
            .await
    }
}

impl Tasks {
    /// What a task's agent lacked: skills that it called and that there are not, and what its result
    /// says (`missing_capability`). When that comes often, Learning is asked for it.
    async fn note_missing(
        &self,
        connection: &Connection,
        now: Timestamp,
        result: Option<&Value>,
        calls: &Value,
    ) -> store::Result<()> {
        let config = &self.parts.config.learning.telemetry;
        let said = result.and_then(|result| result.get(telemetry::MISSING)?.as_str());
        if let Some(said) = said {
            let code = telemetry::MISSING;
            telemetry::missing(connection, now, config, code, said, None).await?;
        }
        let code = telemetry::NOT_FOUND;
        let calls = calls.as_array().map(Vec::as_slice).unwrap_or_default();
        let missing = calls.iter().filter(|call| call["code"] == code);
        for name in missing.filter_map(|call| call["skill"].as_str()) {
            telemetry::missing(connection, now, config, code, name, None).await?;
        }
        Ok(())
    }
}

/// Whether a list names the attempt that a task's lease is for.
fn lists(in_hand: &[TaskAttemptRef], task: &Task) -> bool {
    let Some((_, attempt)) = task.state.as_ref().and_then(TaskState::lease) else { return false };
    in_hand.iter().any(|held| held.task_id == task.task_id && held.attempt == attempt)
}

impl Error {
    /// Stable code for answers.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Unknown(_) => "not_found",
            Self::Invalid { .. } => "invalid_field",
            Self::Rejected(rejection) => rejection.code(),
            Self::OfRun { .. } => "task_of_run",
            Self::NotYours { .. } => "not_your_task",
            Self::NotAsked(_) => "not_asked",
            Self::KeyReused { .. } => "idempotency_key_reused",
            Self::Pipeline(crate::pipeline::Error::Rejected(rejection)) => rejection.code(),
            Self::Pipeline(_) => "pipeline",
            Self::Store(_) => "unavailable",
        }
    }
}
