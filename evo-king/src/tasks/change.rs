//! What clients and agents change about tasks by hand: fields, states, and that they are there.

use evo_common::{
    api::ChangeTask,
    clock::Timestamp,
    ids::{AgentId, RunId},
    messages::TaskStatus,
    redact::redact,
};
use serde_json::json;

use super::{
    Error, Outgoing, Result, Tasks,
    create::{as_object, check_payload, check_summary, is_given_out},
    lifecycle::{Note, apply, note, part_ended},
    state::{Command, Effect, Rejection, TaskState, decide},
    work::bounded,
};
use crate::store::{
    Connection, events,
    tasks::{self, Task},
};

/// What is to change about a task.
pub(crate) type Change = ChangeTask;

/// Longest `current_stage`.
const MAX_STAGE: usize = 64;

/// Who speaks of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Who {
    /// Somebody who may change every task.
    Operator,
    /// An agent, of its own tasks.
    Agent(String),
}

impl Tasks {
    /// Changes a task.
    pub(crate) async fn change(&self, task_id: &str, change: Change, who: Who) -> Result<()> {
        check(&change)?;
        let (this, task_id) = (self.clone(), task_id.to_owned());
        let out = self
            .parts
            .store
            .write(async move |connection: &Connection| {
                let now = Timestamp::now();
                let task = tasks::load(connection, &task_id)
                    .await?
                    .ok_or_else(|| Error::Unknown(task_id.clone()))?;
                if let Who::Agent(agent) = &who
                    && task.agent_id.as_ref() != Some(agent)
                    && task.wanted.as_ref() != Some(agent)
                {
                    return Err(Error::NotYours { task_id, agent: agent.clone() });
                }
                let mut out = Vec::new();
                this.apply_change(connection, now, task, change, &mut out).await?;
                Ok::<_, Error>(out)
            })
            .await?;
        self.send(out);
        Ok(())
    }

    async fn apply_change(
        &self,
        connection: &Connection,
        now: Timestamp,
        mut task: Task,
        change: Change,
        out: &mut Vec<Outgoing>,
    ) -> Result<()> {
        let task_id = task.task_id.clone();
        if let Some(summary) = change.summary {
            task.summary = summary;
        }
        if let (None, Some(run_id)) = (&task.state, task.run_id.clone()) {
            let only_cancelled = change.status.is_none_or(|s| s == TaskStatus::Cancelled)
                && change.agent_id.is_none()
                && change.current_stage.is_none()
                && change.payload.is_none();
            if !only_cancelled {
                return Err(Error::OfRun { task_id, run_id });
            }
            if change.status.is_some() {
                let run = RunId::parse(run_id).map_err(|error| Error::Invalid {
                    field: "run_id",
                    message: error.to_string(),
                })?;
                self.parts.pipeline.cancel_within(connection, &run).await?;
            }
            tasks::save(connection, now, &task).await?;
            return Ok(
                note(connection, now, &task, Note::info("task.updated", "It was changed")).await?
            );
        }
        if let Some(agent_id) = change.agent_id {
            if task.state.as_ref().and_then(TaskState::lease).is_some_and(|(a, _)| a != agent_id) {
                let message = "somebody else works on it now; cancel it first".to_owned();
                return Err(Error::Invalid { field: "agent_id", message });
            }
            task.wanted = Some(agent_id.clone()).filter(|agent_id| !agent_id.is_empty());
            task.agent_id.clone_from(&task.wanted);
            // A task that was nobody's is this agent's now, and done like any other.
            if let Some(TaskState::ByHand { begun: false, next }) = task.state
                && task.wanted.is_some()
            {
                task.state = Some(TaskState::Waiting { attempt: next, tries: 0, not_before: now });
            }
        }
        if let Some(stage) = change.current_stage {
            task.current_stage = stage;
        }
        let payload = change.payload.map(as_object);
        if let Some(payload) = &payload {
            task.payload.clone_from(payload);
        }
        let policy = &self.parts.policy;
        let decision = match (change.status, &task.state) {
            (Some(status), Some(state)) => {
                match decide(state, &Command::Set { status, now }, policy) {
                    Err(Rejection::NothingToDo) => None,
                    decided => Some(decided?),
                }
            }
            _ => None,
        };
        let Some(mut decision) = decision else {
            tasks::save(connection, now, &task).await?;
            return Ok(
                note(connection, now, &task, Note::info("task.updated", "It was changed")).await?
            );
        };
        if change.status == Some(TaskStatus::Pending) {
            decision.next = pending_again(&task, decision.next, now);
        }
        let ends = decision.effects.iter().any(|effect| matches!(effect, Effect::Ended { .. }));
        if ends {
            let failed = change.status == Some(TaskStatus::Failed);
            let error = payload.as_ref().and_then(|payload| payload.get("error")?.as_str());
            let error = error.filter(|_| failed).map(|error| redact(error).into_owned());
            let result = payload.map(|payload| {
                let result = payload.get("result").cloned();
                bounded(result.unwrap_or(payload))
            });
            tasks::save_result(connection, &task_id, result.as_ref(), error.as_deref(), None)
                .await?;
        }
        let silent = decision.effects.is_empty();
        apply(connection, now, policy, &mut task, decision, out).await?;
        if silent {
            let status = task.state.as_ref().map_or(TaskStatus::Pending, TaskState::status);
            let message = format!("It is {status} now");
            note(connection, now, &task, Note::info("task.updated", message)).await?;
        }
        Ok(())
    }

    /// Removes a task and everything under it, in one transaction: open attempts and runs are
    /// cancelled, logs and bindings to memories are gone. Gives the ids of what was removed.
    pub(crate) async fn delete(&self, task_id: &str) -> Result<Vec<String>> {
        loop {
            match self.delete_all(task_id).await {
                Err(error) => self.mend(error).await?,
                gone => return gone,
            }
        }
    }

    async fn delete_all(&self, task_id: &str) -> Result<Vec<String>> {
        let (this, task_id) = (self.clone(), task_id.to_owned());
        let (ids, out) = self
            .parts
            .store
            .write(async move |connection: &Connection| {
                let now = Timestamp::now();
                let doomed = tasks::subtree(connection, &task_id).await?;
                let Some(top) = doomed.last() else { return Err(Error::Unknown(task_id)) };
                let (parent_id, run_id) = (top.parent_id.clone(), top.run_id.clone());
                let mut out = Vec::new();
                let mut ids = Vec::with_capacity(doomed.len());
                for task in doomed {
                    ids.push(task.task_id.clone());
                    this.remove(connection, now, task, &mut out).await?;
                }
                ids.reverse();
                let payload = json!({ "task_id": task_id, "task_ids": ids });
                let run_id = run_id.as_deref();
                events::append(connection, now, "task.deleted", run_id, None, &payload).await?;
                if let Some(parent_id) = &parent_id {
                    let policy = &this.parts.policy;
                    part_ended(connection, now, policy, parent_id, &mut out).await?;
                }
                Ok((ids, out))
            })
            .await?;
        for id in &ids {
            self.parts.streams.forget(id);
        }
        self.send(out);
        self.parts.pipeline.wake();
        Ok(ids)
    }

    async fn remove(
        &self,
        connection: &Connection,
        now: Timestamp,
        mut task: Task,
        out: &mut Vec<Outgoing>,
    ) -> Result<()> {
        match (&task.state, task.run_id.as_deref().map(RunId::parse)) {
            (None, Some(Ok(run_id))) => {
                match self.parts.pipeline.cancel_within(connection, &run_id).await {
                    // It has ended already, or is gone.
                    Ok(())
                    | Err(
                        crate::pipeline::Error::Rejected(_) | crate::pipeline::Error::UnknownRun(_),
                    ) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            (Some(state), _) => {
                // The parent is told once, when all of this is gone.
                task.parent_id = None;
                let cancel = Command::Set { status: TaskStatus::Cancelled, now };
                if let Ok(decision) = decide(state, &cancel, &self.parts.policy) {
                    apply(connection, now, &self.parts.policy, &mut task, decision, out).await?;
                }
            }
            (None, _) => {}
        }
        Ok(tasks::delete(connection, &task.task_id).await?)
    }
}

/// A task that is to be done again waits for an agent only if it did so before.
fn pending_again(task: &Task, next: TaskState, now: Timestamp) -> TaskState {
    match (next, is_given_out(&task.task_type, task.wanted.as_deref())) {
        (TaskState::Waiting { attempt, .. }, false) => {
            TaskState::ByHand { begun: false, next: attempt }
        }
        (TaskState::ByHand { next, .. }, true) => {
            TaskState::Waiting { attempt: next, tries: 0, not_before: now }
        }
        (next, _) => next,
    }
}

fn check(change: &Change) -> Result<()> {
    let invalid = |field, message: String| Err(Error::Invalid { field, message });
    if let Some(agent_id) = change.agent_id.as_ref().filter(|agent_id| !agent_id.is_empty())
        && let Err(error) = AgentId::parse(agent_id.clone())
    {
        return invalid("agent_id", error.to_string());
    }
    if let Some(stage) = &change.current_stage
        && (stage.len() > MAX_STAGE || stage.chars().any(char::is_control))
    {
        return invalid("current_stage", format!("it must be a word of at most {MAX_STAGE} bytes"));
    }
    change.summary.as_deref().map_or(Ok(()), check_summary)?;
    change.payload.as_ref().map_or(Ok(()), check_payload)
}
