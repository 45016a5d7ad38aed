//! What happened to a task.

use evo_common::{api::TaskLogs, clock::Timestamp, messages::TaskLogEntry};
use libsql::{Row, params};
use serde::Deserialize as _;
use serde_json::Value;

use super::super::{Connection, Result, Store, row};

/// Adds a line to a task's log; gives it back with its id.
pub(crate) async fn log(
    connection: &Connection,
    now: Timestamp,
    mut line: TaskLogEntry,
) -> Result<TaskLogEntry> {
    connection
        .execute(
            "INSERT INTO task_logs (task_id, level, message, detail, agent_id, stage, created_at)
             VALUES (?, ?, ?, ?, ?, ?, ?)",
            params![
                line.task_id.clone(),
                line.level.clone(),
                line.message.clone(),
                line.detail.clone(),
                line.agent_id.clone(),
                line.stage.clone(),
                now.0,
            ],
        )
        .await?;
    line.id = connection.last_insert_rowid();
    line.created_at = now.to_rfc3339();
    Ok(line)
}

/// Which lines of a log to show, oldest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LogPage {
    /// Only lines after this one.
    pub(crate) after: i64,
    /// Lines to leave out at the beginning.
    pub(crate) offset: u32,
    /// Most lines.
    pub(crate) limit: u32,
}

fn line(row: &Row) -> Result<TaskLogEntry> {
    Ok(TaskLogEntry {
        id: row.get(0)?,
        task_id: row.get(1)?,
        level: row.get(2)?,
        message: row.get(3)?,
        detail: row.get(4)?,
        agent_id: row.get(5)?,
        stage: row.get(6)?,
        created_at: row::moment(row, 7)?,
    })
}

/// A task's own log.
async fn of_task(connection: &Connection, task_id: &str, page: LogPage) -> Result<TaskLogs> {
    let logs = row::all(
        connection,
        "SELECT id, task_id, level, message, detail, agent_id, stage, created_at FROM task_logs
         WHERE task_id = ? AND id > ? ORDER BY id LIMIT ? OFFSET ?",
        params![task_id, page.after, page.limit + 1, page.offset],
        line,
    )
    .await?;
    let sql = "SELECT COUNT(*) FROM task_logs WHERE task_id = ?";
    let count = row::number(connection, sql, params![task_id]).await?;
    Ok(paged(logs, count, page.limit))
}

/// The log of a run's task: what the event log tells of the run.
async fn of_run(
    connection: &Connection,
    task_id: &str,
    run_id: &str,
    page: LogPage,
) -> Result<TaskLogs> {
    let logs = row::all(
        connection,
        "SELECT seq, kind, agent_id, payload, at FROM events
         WHERE run_id = ? AND seq > ? ORDER BY seq LIMIT ? OFFSET ?",
        params![run_id, page.after, page.limit + 1, page.offset],
        |row| {
            let kind: String = row.get(1)?;
            let payload: Value = row::json(row, 3)?;
            Ok(TaskLogEntry {
                id: row.get(0)?,
                agent_id: row.get::<Option<String>>(2)?.unwrap_or_default(),
                created_at: row::moment(row, 4)?,
                ..of_event(task_id, &kind, &payload)
            })
        },
    )
    .await?;
    let sql = "SELECT COUNT(*) FROM events WHERE run_id = ?";
    let count = row::number(connection, sql, params![run_id]).await?;
    Ok(paged(logs, count, page.limit))
}

/// The line that an event of a run's is in the log of the run's task. What a task says of itself
/// (the run's, or a part of it) is such a line already.
pub(crate) fn of_event(task_id: &str, kind: &str, payload: &Value) -> TaskLogEntry {
    if let Some(line) = payload.get("log").and_then(|log| TaskLogEntry::deserialize(log).ok()) {
        return line;
    }
    let text = |key: &str| payload.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (subject, verb) = kind.split_once('.').unwrap_or((kind, ""));
    let stage = text("stage");
    let about = [stage.as_str(), &text("name"), &text("summary")]
        .iter()
        .find(|text| !text.is_empty())
        .map(|text| format!(" {text}"))
        .unwrap_or_default();
    let attempt = payload.get("attempt").and_then(Value::as_u64);
    let attempt = attempt.map(|attempt| format!(" (attempt {attempt})")).unwrap_or_default();
    let detail = match text("error") {
        error if error.is_empty() => text("reason"),
        error => error,
    };
    let failed = verb == "failed" || payload.get("status").is_some_and(|s| s == "failed");
    TaskLogEntry {
        id: 0,
        task_id: task_id.to_owned(),
        level: if failed { "error" } else { "info" }.to_owned(),
        message: format!("{subject}{about} {verb}{attempt}"),
        detail,
        agent_id: String::new(),
        stage,
        created_at: String::new(),
    }
}

fn paged(mut logs: Vec<TaskLogEntry>, count: i64, limit: u32) -> TaskLogs {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = logs.len() > limit;
    logs.truncate(limit);
    TaskLogs {
        next_cursor: logs.last().filter(|_| more).map(|line| line.id),
        count: u64::try_from(count).unwrap_or(0),
        logs,
    }
}

impl Store {
    /// A page of a task's log; `None` when there is no such task.
    pub(crate) async fn tasks_logs(
        &self,
        task_id: String,
        page: LogPage,
    ) -> Result<Option<TaskLogs>> {
        self.read(async move |connection| logs(connection, &task_id, page).await).await
    }
}

pub(crate) async fn logs(
    connection: &Connection,
    task_id: &str,
    page: LogPage,
) -> Result<Option<TaskLogs>> {
    let Some(task) = super::load(connection, task_id).await? else { return Ok(None) };
    Ok(Some(match task.run_id.filter(|run_id| super::id_of_run(run_id) == task_id) {
        Some(run_id) => of_run(connection, task_id, &run_id, page).await?,
        None => of_task(connection, task_id, page).await?,
    }))
}
