//! Tasks.

mod logs;
mod views;

pub(crate) use logs::{LogPage, log, of_event};
#[cfg(test)]
pub(crate) use {
    logs::logs,
    views::{current, latest, list, subtasks},
};

use evo_common::{
    api::{TaskVerdict, TaskWork},
    clock::Timestamp,
    ids::Attempt,
    messages::{ModelPreference, TaskLimits},
};
use libsql::{Row, params};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Connection, Result, damaged, row};
use crate::tasks::state::{End, TaskState};

pub(crate) use views::{TaskFilter, get};

/// A task as its coordinator works with it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Task {
    pub(crate) task_id: String,
    pub(crate) parent_id: Option<String>,
    /// How many tasks are above it.
    pub(crate) depth: u32,
    pub(crate) task_type: String,
    pub(crate) run_id: Option<String>,
    /// Who has it, had it last, or is to have it.
    pub(crate) agent_id: Option<String>,
    /// Who is to have it; whoever is free without one.
    pub(crate) wanted: Option<String>,
    pub(crate) summary: String,
    pub(crate) payload: Value,
    pub(crate) limits: Option<TaskLimits>,
    pub(crate) model: Option<ModelPreference>,
    /// Absent for a run's task: it is as its run is.
    pub(crate) state: Option<TaskState>,
    pub(crate) current_stage: String,
    /// What an evaluation runner was asked about it.
    pub(crate) question: Option<Question>,
    /// The attempt whose report was applied last, and the report's digest.
    pub(crate) applied: Option<(Attempt, String)>,
}

/// What an evaluation runner is asked about a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Question {
    pub(crate) kind: Asked,
    /// Named in the answer.
    pub(crate) request_id: String,
    /// Who is asked; nobody yet without one.
    pub(crate) agent: Option<String>,
    /// King answers by itself then.
    pub(crate) deadline: Timestamp,
    /// Why it is asked (`manual`, `recovery`).
    #[serde(default)]
    pub(crate) trigger: String,
}

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Asked {
    /// How did it go?
    Evaluate,
    /// Into what can it be split?
    Decompose,
}

/// A start that is to happen once, and what it asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Once<'k> {
    pub(crate) key: &'k str,
    pub(crate) digest: &'k str,
}

/// The id of a run's task.
pub(crate) fn id_of_run(run_id: &str) -> String {
    format!("task-{}", run_id.strip_prefix("run-").unwrap_or(run_id))
}

/// Makes a task.
pub(crate) async fn insert(
    connection: &Connection,
    now: Timestamp,
    task: &Task,
    once: Option<Once<'_>>,
) -> Result<()> {
    let not_before = match &task.state {
        Some(TaskState::Waiting { not_before, .. }) => Some(not_before.0),
        _ => None,
    };
    connection
        .execute(
            "INSERT INTO tasks (task_id, parent_id, depth, task_type, run_id, agent_id, wanted,
                 summary, payload, limits, model, state, phase, status, not_before,
                 idempotency_key, idempotency_digest, created_at, updated_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17,
                 ?18, ?18)",
            params![
                task.task_id.clone(),
                task.parent_id.clone(),
                task.depth,
                task.task_type.clone(),
                task.run_id.clone(),
                task.agent_id.clone(),
                task.wanted.clone(),
                task.summary.clone(),
                row::to_json(&task.payload),
                task.limits.as_ref().map(row::to_json),
                task.model.as_ref().map(row::to_json),
                task.state.as_ref().map(row::to_json),
                task.state.as_ref().map(TaskState::phase),
                task.state.as_ref().map(|state| state.status().as_str()),
                not_before,
                once.map(|once| once.key),
                once.map(|once| once.digest),
                now.0,
            ],
        )
        .await?;
    Ok(())
}

/// Makes a run's task. It holds nothing of its own: how it is, is read from the run.
pub(crate) async fn insert_for_run(
    connection: &Connection,
    now: Timestamp,
    run_id: &str,
) -> Result<()> {
    connection
        .execute(
            "INSERT INTO tasks (task_id, task_type, run_id, created_at, updated_at)
             VALUES (?1, 'pipeline', ?2, ?3, ?3)",
            params![id_of_run(run_id), run_id, now.0],
        )
        .await?;
    Ok(())
}

const COLUMNS: &str = "task_id, parent_id, depth, task_type, run_id, agent_id, wanted, summary,
    payload, limits, model, state, current_stage, question, applied_attempt, applied_digest";

fn read(row: &Row) -> Result<Task> {
    read_all(row).map_err(|error| match row.get::<String>(0) {
        Ok(task_id) => error.about(&damaged::TASKS, &task_id),
        Err(_) => error,
    })
}

fn read_all(row: &Row) -> Result<Task> {
    let attempt: Option<u32> = row.get(14)?;
    let digest: Option<String> = row.get(15)?;
    Ok(Task {
        task_id: row.get(0)?,
        parent_id: row.get(1)?,
        depth: row.get(2)?,
        task_type: row.get(3)?,
        run_id: row.get(4)?,
        agent_id: row.get(5)?,
        wanted: row.get(6)?,
        summary: row.get(7)?,
        payload: row::json(row, 8)?,
        limits: row::optional_json(row, 9)?,
        model: row::optional_json(row, 10)?,
        state: row::optional_json(row, 11)?,
        current_stage: row.get(12)?,
        question: row::optional_json(row, 13)?,
        applied: attempt.map(Attempt).zip(digest),
    })
}

/// One task.
pub(crate) async fn load(connection: &Connection, task_id: &str) -> Result<Option<Task>> {
    let sql = format!("SELECT {COLUMNS} FROM tasks WHERE task_id = ?");
    row::first(connection, &sql, params![task_id], read).await
}

/// Whether there is such a task.
pub(crate) async fn exists(connection: &Connection, task_id: &str) -> Result<bool> {
    let sql = "SELECT COUNT(*) FROM tasks WHERE task_id = ?";
    Ok(row::number(connection, sql, params![task_id]).await? > 0)
}

/// The task that an idempotency key made, and what it was used for.
pub(crate) async fn by_key(
    connection: &Connection,
    key: &str,
) -> Result<Option<(String, Option<String>)>> {
    row::first(
        connection,
        "SELECT task_id, idempotency_digest FROM tasks WHERE idempotency_key = ?",
        params![key],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )
    .await
}

/// Writes what may have changed about a task, but for its result.
pub(crate) async fn save(connection: &Connection, now: Timestamp, task: &Task) -> Result<()> {
    let state = task.state.as_ref();
    let not_before = match state {
        Some(TaskState::Waiting { not_before, .. }) => Some(not_before.0),
        _ => None,
    };
    let due = state.and_then(TaskState::due_at);
    let asked = task.question.as_ref().map(|question| question.deadline);
    let ended = state.and_then(TaskState::end).is_some();
    connection
        .execute(
            "UPDATE tasks SET agent_id = ?2, wanted = ?3, summary = ?4, payload = ?5, state = ?6,
                 phase = ?7, status = ?8, current_stage = ?9, not_before = ?10, due_at = ?11,
                 question = ?12, applied_attempt = ?13, applied_digest = ?14, updated_at = ?15,
                 ended_at = iif(?16, coalesce(ended_at, ?15), NULL)
             WHERE task_id = ?1",
            params![
                task.task_id.clone(),
                task.agent_id.clone(),
                task.wanted.clone(),
                task.summary.clone(),
                row::to_json(&task.payload),
                state.map(row::to_json),
                state.map(TaskState::phase),
                state.map(|state| state.status().as_str()),
                task.current_stage.clone(),
                not_before,
                due.into_iter().chain(asked).min().map(|due| due.0),
                task.question.as_ref().map(row::to_json),
                task.applied.as_ref().map(|(attempt, _)| attempt.0),
                task.applied.as_ref().map(|(_, digest)| digest.clone()),
                now.0,
                ended,
            ],
        )
        .await?;
    Ok(())
}

/// Writes what came out of a task.
pub(crate) async fn save_result(
    connection: &Connection,
    task_id: &str,
    result: Option<&Value>,
    error: Option<&str>,
    work: Option<&TaskWork>,
) -> Result<()> {
    connection
        .execute(
            "UPDATE tasks SET result = ?2, error = ?3, work = ?4 WHERE task_id = ?1",
            params![task_id, result.map(row::to_json), error, work.map(row::to_json)],
        )
        .await?;
    Ok(())
}

/// Writes what was found when a task was looked at.
pub(crate) async fn save_verdict(
    connection: &Connection,
    task_id: &str,
    verdict: &TaskVerdict,
) -> Result<()> {
    connection
        .execute(
            "UPDATE tasks SET evaluation = ? WHERE task_id = ?",
            params![row::to_json(verdict), task_id],
        )
        .await?;
    Ok(())
}

/// Writes what a task has written so far.
pub(crate) async fn save_output(
    connection: &Connection,
    task_id: &str,
    output: &str,
) -> Result<()> {
    connection
        .execute("UPDATE tasks SET output = ? WHERE task_id = ?", params![output, task_id])
        .await?;
    Ok(())
}

/// Tasks that wait for this agent, or for any, and may be given out now.
pub(crate) async fn waiting(
    connection: &Connection,
    wanted: Option<&str>,
    now: Timestamp,
    limit: u32,
) -> Result<Vec<Task>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM tasks
         WHERE phase = 'waiting' AND wanted IS ? AND not_before <= ?
         ORDER BY task_id LIMIT ?"
    );
    row::all(connection, &sql, params![wanted, now.0, limit], read).await
}

/// How many attempts of tasks each agent has.
pub(crate) async fn leased_by_agent(connection: &Connection) -> Result<Vec<(String, u32)>> {
    row::all(
        connection,
        "SELECT agent_id, COUNT(*) FROM tasks WHERE phase = 'leased' GROUP BY agent_id",
        (),
        |row| Ok((row.get(0)?, row.get(1)?)),
    )
    .await
}

/// Tasks whose attempt this agent has. What can't be read of these and the following lists is set
/// aside when its time has passed.
pub(crate) async fn leased_to(connection: &Connection, agent_id: &str) -> Result<Vec<Task>> {
    let sql =
        format!("SELECT {COLUMNS} FROM tasks WHERE phase = 'leased' AND agent_id = ? LIMIT 1000");
    row::readable(connection, &sql, params![agent_id], read).await
}

/// Every task that is leased.
pub(crate) async fn leased(connection: &Connection) -> Result<Vec<Task>> {
    let sql = format!("SELECT {COLUMNS} FROM tasks WHERE phase = 'leased'");
    row::readable(connection, &sql, (), read).await
}

/// Ended tasks that nobody was asked about.
pub(crate) async fn not_asked(connection: &Connection, limit: u32) -> Result<Vec<Task>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM tasks WHERE phase = 'evaluating' AND question IS NULL LIMIT ?"
    );
    row::all(connection, &sql, params![limit], read).await
}

/// Tasks that somebody was asked about.
pub(crate) async fn asked(connection: &Connection) -> Result<Vec<Task>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM tasks WHERE question IS NOT NULL ORDER BY task_id LIMIT 500"
    );
    row::readable(connection, &sql, (), read).await
}

/// Tasks that need attention by now.
pub(crate) async fn due(connection: &Connection, now: Timestamp) -> Result<Vec<String>> {
    row::all(
        connection,
        "SELECT task_id FROM tasks WHERE due_at <= ? ORDER BY due_at LIMIT 500",
        params![now.0],
        |row| Ok(row.get(0)?),
    )
    .await
}

/// What became of a subtask.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Part {
    pub(crate) task_id: String,
    pub(crate) summary: String,
    /// Absent while it is at work.
    pub(crate) end: Option<End>,
    pub(crate) result: Option<Value>,
    pub(crate) error: Option<String>,
}

/// A task's subtasks, in the order of their making.
pub(crate) async fn parts(connection: &Connection, task_id: &str) -> Result<Vec<Part>> {
    row::all(
        connection,
        "SELECT task_id, summary, state, result, error FROM tasks WHERE parent_id = ?
         ORDER BY task_id LIMIT 1000",
        params![task_id],
        |row| {
            let task_id: String = row.get(0)?;
            let about = |error: super::Error| error.about(&damaged::TASKS, &task_id);
            let state: Option<TaskState> = row::optional_json(row, 2).map_err(about)?;
            Ok(Part {
                summary: row.get(1)?,
                end: state.as_ref().and_then(TaskState::end),
                result: row::optional_json(row, 3).map_err(about)?,
                error: row.get(4)?,
                task_id,
            })
        },
    )
    .await
}

/// A task and everything under it, the deepest first.
pub(crate) async fn subtree(connection: &Connection, task_id: &str) -> Result<Vec<Task>> {
    let mut found: Vec<Task> = load(connection, task_id).await?.into_iter().collect();
    let mut looked = 0;
    let sql = format!("SELECT {COLUMNS} FROM tasks WHERE parent_id = ? ORDER BY task_id");
    while let Some(parent) = found.get(looked).map(|task| task.task_id.clone()) {
        found.extend(row::all(connection, &sql, params![parent], read).await?);
        looked += 1;
    }
    found.reverse();
    Ok(found)
}

/// Removes a task with its log and what is bound to it. Its subtasks must be gone.
pub(crate) async fn delete(connection: &Connection, task_id: &str) -> Result<()> {
    connection.execute("DELETE FROM task_logs WHERE task_id = ?", params![task_id]).await?;
    connection.execute("DELETE FROM task_memories WHERE task_id = ?", params![task_id]).await?;
    connection.execute("DELETE FROM tasks WHERE task_id = ?", params![task_id]).await?;
    Ok(())
}

/// Writes what went wrong with a task.
pub(crate) async fn save_error(connection: &Connection, task_id: &str, error: &str) -> Result<()> {
    connection
        .execute("UPDATE tasks SET error = ? WHERE task_id = ?", params![error, task_id])
        .await?;
    Ok(())
}
