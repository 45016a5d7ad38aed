//! Everything about one run.

use evo_common::{
    api::{AttemptView, RecoveryView, RunHistory, TimerView},
    clock::Timestamp,
    ids::{Attempt, RunId},
    redact,
};
use libsql::{Row, params};
use serde_json::Value;

use super::{Connection, Result, Store, row, views::get};
use crate::store::{EventFilter, events};

/// Most events and children in one history.
const MOST: u32 = 10_000;

/// Everything about one run.
pub(crate) async fn history(connection: &Connection, run_id: &RunId) -> Result<Option<RunHistory>> {
    let id = run_id.as_str();
    let Some(run) = get(connection, id).await? else { return Ok(None) };
    let sql = "SELECT trigger FROM runs WHERE run_id = ?";
    let mut trigger: Value = row::first(connection, sql, params![id], |row| row::json(row, 0))
        .await?
        .unwrap_or_default();
    redact::redact_json(&mut trigger);
    let attempts = row::all(
        connection,
        "SELECT stage, attempt, agent_id, ended, started_at, ended_at FROM attempts
         WHERE run_id = ? ORDER BY started_at, attempt",
        params![id],
        |row| {
            Ok(AttemptView {
                stage: row::parsed(row, 0)?,
                attempt: Attempt(row.get(1)?),
                agent_id: row.get(2)?,
                ended: row.get(3)?,
                started_at: row::moment(row, 4)?,
                ended_at: optional_moment(row, 5)?,
            })
        },
    )
    .await?;
    let recoveries = row::all(
        connection,
        "SELECT request_id, stage, attempt, agent_id, error, ended, reasoning, asked_at, deadline,
             ended_at
         FROM recoveries WHERE run_id = ? ORDER BY asked_at, request_id",
        params![id],
        |row| {
            Ok(RecoveryView {
                request_id: row.get(0)?,
                stage: row::parsed(row, 1)?,
                attempt: Attempt(row.get(2)?),
                agent_id: row.get(3)?,
                error: row.get(4)?,
                action: row.get(5)?,
                reasoning: row.get(6)?,
                asked_at: row::moment(row, 7)?,
                deadline: row::moment(row, 8)?,
                ended_at: optional_moment(row, 9)?,
            })
        },
    )
    .await?;
    let timers = row::all(
        connection,
        "SELECT kind, due_at FROM timers WHERE run_id = ?",
        params![id],
        |row| Ok(TimerView { kind: row.get(0)?, due_at: row::moment(row, 1)? }),
    )
    .await?;
    let filter =
        EventFilter { after: 0, limit: MOST + 1, run_id: Some(run_id.clone()), kind: None };
    let mut events = events::after(connection, &filter).await?;
    let mut children: Vec<String> = row::all(
        connection,
        "SELECT run_id FROM runs WHERE parent_run_id = ? LIMIT ?",
        params![id, MOST + 1],
        |row| Ok(row.get(0)?),
    )
    .await?;
    let most = MOST as usize;
    let complete = events.len() <= most && children.len() <= most;
    events.truncate(most);
    children.truncate(most);
    Ok(Some(RunHistory { run, trigger, attempts, recoveries, events, timers, children, complete }))
}

fn optional_moment(row: &Row, column: i32) -> Result<Option<String>> {
    Ok(row.get::<Option<i64>>(column)?.map(|at| Timestamp(at).to_rfc3339()))
}

impl Store {
    /// Everything about one run.
    pub async fn runs_history(&self, run_id: &RunId) -> Result<Option<RunHistory>> {
        let run_id = run_id.clone();
        self.read(async move |connection| history(connection, &run_id).await).await
    }
}
