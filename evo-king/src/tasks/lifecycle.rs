//! Writes a decision about a task: its state, its log line, its event-log row, and what its end
//! means for the task that it is a part of. All in the caller's transaction.

use evo_common::{
    clock::Timestamp,
    messages::{TaskCancel, TaskLogEntry, events as wire},
    redact::redact,
};
use futures_util::future::LocalBoxFuture;
use serde_json::{Value, json};

use super::{
    Outgoing,
    state::{Command, Decision, Effect, End, Policy, TaskState, decide},
};
use crate::store::{
    self, Connection, events,
    tasks::{self, Task},
};

/// A line of a task's log.
pub(super) struct Note<'n> {
    /// The event's kind (`task.assigned`).
    pub(super) kind: &'static str,
    /// `info`, `warn` or `error`.
    pub(super) level: &'static str,
    /// What happened.
    pub(super) message: String,
    /// More about it.
    pub(super) detail: &'n str,
}

impl Note<'_> {
    pub(super) fn info(kind: &'static str, message: impl Into<String>) -> Self {
        Self { kind, level: "info", message: message.into(), detail: "" }
    }
}

/// Adds a line to a task's log, and the event that tells of it.
pub(super) async fn note(
    connection: &Connection,
    now: Timestamp,
    task: &Task,
    note: Note<'_>,
) -> store::Result<()> {
    let agent_id = task.agent_id.clone().unwrap_or_default();
    let line = TaskLogEntry {
        id: 0,
        task_id: task.task_id.clone(),
        level: note.level.to_owned(),
        message: redact(&note.message).into_owned(),
        detail: redact(note.detail).into_owned(),
        agent_id,
        stage: task.current_stage.clone(),
        created_at: String::new(),
    };
    let log = tasks::log(connection, now, line).await?;
    let payload = json!({
        "task_id": task.task_id, "parent_id": task.parent_id,
        "status": task.state.as_ref().map(TaskState::status), "log": log,
    });
    let agent = task.agent_id.as_deref();
    events::append(connection, now, note.kind, task.run_id.as_deref(), agent, &payload).await?;
    Ok(())
}

/// Writes a decision about a task.
pub(super) fn apply<'a>(
    connection: &'a Connection,
    now: Timestamp,
    policy: &'a Policy,
    task: &'a mut Task,
    decision: Decision,
    out: &'a mut Vec<Outgoing>,
) -> LocalBoxFuture<'a, store::Result<()>> {
    // Boxed because the end of a subtask leads to a decision about the task that it is a part of.
    Box::pin(async move {
        task.state = Some(decision.next);
        if let Some((agent, _)) = task.state.as_ref().and_then(TaskState::lease) {
            task.agent_id = Some(agent.to_owned());
        }
        let mut has_ended = false;
        for effect in decision.effects {
            has_ended |= matches!(effect, Effect::Ended { .. });
            apply_effect(connection, now, task, effect, out).await?;
        }
        tasks::save(connection, now, task).await?;
        if has_ended && let Some(parent_id) = task.parent_id.clone() {
            part_ended(connection, now, policy, &parent_id, out).await?;
        }
        Ok(())
    })
}

async fn apply_effect(
    connection: &Connection,
    now: Timestamp,
    task: &mut Task,
    effect: Effect,
    out: &mut Vec<Outgoing>,
) -> store::Result<()> {
    let about = match effect {
        Effect::Dispatch => {
            let lease = task.state.as_ref().and_then(TaskState::lease);
            let Some((agent, attempt)) = lease else { return Ok(()) };
            let message = format!("Attempt {attempt} goes to {agent}");
            note(connection, now, task, Note::info("task.assigned", message)).await?;
            return Ok(());
        }
        Effect::Cancel { agent, attempt, reason } => {
            let cancel =
                TaskCancel { task_id: task.task_id.clone(), attempt, reason: reason.to_owned() };
            let payload = serde_json::to_value(&cancel).expect("a cancellation is plain data");
            out.push(Outgoing { agent, event: wire::TASK_CANCEL, payload });
            return Ok(());
        }
        Effect::Retry { attempt, error } => {
            let message = format!("Attempt {attempt} came to nothing; another one follows");
            let detail = error.as_str();
            let line = Note { kind: "task.retried", level: "warn", message, detail };
            return note(connection, now, task, line).await;
        }
        Effect::Reopened => {
            task.applied = None;
            tasks::save_result(connection, &task.task_id, None, None, None).await?;
            Note::info("task.reopened", "It is to be done again")
        }
        Effect::Ended { end, error } => {
            task.question = None;
            if let Some(error) = &error {
                let error = redact(error);
                tasks::save_error(connection, &task.task_id, &error).await?;
            }
            let (level, message) = match end {
                End::Completed => ("info", "It was completed"),
                End::Failed => ("error", "It failed"),
                End::Cancelled => ("warn", "It was cancelled"),
            };
            let detail = error.unwrap_or_default();
            let line =
                Note { kind: "task.ended", level, message: message.to_owned(), detail: &detail };
            return note(connection, now, task, line).await;
        }
    };
    note(connection, now, task, about).await
}

/// A part of a task has ended or is gone: when it was the last that was open, so has the task.
pub(super) async fn part_ended(
    connection: &Connection,
    now: Timestamp,
    policy: &Policy,
    parent_id: &str,
    out: &mut Vec<Outgoing>,
) -> store::Result<()> {
    let Some(mut parent) = tasks::load(connection, parent_id).await? else { return Ok(()) };
    let Some(state) = &parent.state else { return Ok(()) };
    let parts = tasks::parts(connection, parent_id).await?;
    let ends: Option<Vec<End>> = parts.iter().map(|part| part.end).collect();
    let Some(ends) = ends else { return Ok(()) };
    let done = ends.iter().filter(|end| **end == End::Completed).count();
    let end = if ends.iter().all(|end| *end == End::Cancelled) {
        End::Cancelled
    } else if done == ends.len() {
        End::Completed
    } else {
        End::Failed
    };
    let Ok(decision) = decide(state, &Command::PartsEnded { end }, policy) else { return Ok(()) };
    let subtasks: Vec<Value> = parts
        .iter()
        .map(|part| {
            json!({
                "task_id": part.task_id, "summary": part.summary, "status": part.end,
                "result": part.result, "error": part.error,
            })
        })
        .collect();
    let result = super::work::bounded(json!({ "subtasks": subtasks }));
    let error = (end == End::Failed)
        .then(|| format!("{} of {} subtasks did not succeed", ends.len() - done, ends.len()));
    tasks::save_result(connection, parent_id, Some(&result), error.as_deref(), None).await?;
    apply(connection, now, policy, &mut parent, decision, out).await
}
