//! What is taken away because it is old. Every function does a small part and says how much it was.

use std::collections::HashSet;

use evo_common::clock::Timestamp;
use libsql::params;

use super::{Connection, Result, memories, row, tasks};

/// Rows of one transaction.
const BATCH: i64 = 500;
/// Runs of one transaction; each has rows in other tables.
const RUNS: usize = 50;
/// Newest events that are kept whatever their age: the place of the newest one must stay known.
const EVENTS_KEPT: i64 = 1_000;

/// A table that only grows at its end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Log {
    pub(crate) table: &'static str,
    /// When a row was written.
    at: &'static str,
}

const fn log_of(table: &'static str, at: &'static str) -> Log {
    Log { table, at }
}

/// The tables that only grow at their end.
pub(crate) const LOGS: [Log; 5] = [
    log_of("audit", "at"),
    log_of("agent_history", "created_at"),
    log_of("skill_calls", "at"),
    log_of("socket_events", "at"),
    log_of("outbox", "created_at"),
];

/// What is kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limit {
    /// Only what is not older; all if there is none.
    pub(crate) before: Option<Timestamp>,
    /// Only so many of the newest; all if 0.
    pub(crate) rows: u64,
}

impl Limit {
    fn before(self) -> i64 {
        self.before.map_or(i64::MIN, |before| before.0)
    }

    fn rows(self) -> i64 {
        match self.rows {
            0 => i64::MAX,
            rows => i64::try_from(rows).unwrap_or(i64::MAX),
        }
    }
}

/// The oldest rows of such a table.
pub(crate) async fn log(connection: &Connection, log: Log, limit: Limit) -> Result<u64> {
    let Log { table, at } = log;
    let sql = format!(
        "DELETE FROM {table} WHERE id IN (SELECT id FROM {table} ORDER BY id LIMIT {BATCH})
             AND ({at} < ?1 OR id <= (SELECT MAX(id) FROM {table}) - ?2)"
    );
    Ok(connection.execute(&sql, params![limit.before(), limit.rows()]).await?)
}

/// The oldest events. Those of runs that are not over stay, and all after them: whoever follows the
/// log finds every event of whatever still changes.
pub(crate) async fn events(connection: &Connection, limit: Limit) -> Result<u64> {
    let oldest_open = "SELECT MIN(run_id) FROM runs WHERE status = 'running'";
    let open: Option<String> =
        row::first(connection, oldest_open, (), |row| Ok(row.get(0)?)).await?.flatten();
    let mut end = row::number(connection, "SELECT MAX(seq) FROM events", ()).await? - EVENTS_KEPT;
    if let Some(run_id) = open {
        let first = "SELECT MIN(seq) FROM events WHERE run_id = ?";
        let first: Option<i64> =
            row::first(connection, first, params![run_id], |row| Ok(row.get(0)?)).await?.flatten();
        end = first.map_or(end, |first| end.min(first - 1));
    }
    let sql = format!(
        "DELETE FROM events WHERE seq IN (SELECT seq FROM events ORDER BY seq LIMIT {BATCH})
             AND seq <= ?3 AND (at < ?1 OR seq <= (SELECT MAX(seq) FROM events) - ?2)"
    );
    Ok(connection.execute(&sql, params![limit.before(), limit.rows(), end]).await?)
}

/// How many more events than `rows` are kept because of the oldest run that is not over, and that run.
pub(crate) async fn events_over(
    connection: &Connection,
    rows: u64,
) -> Result<Option<(u64, String)>> {
    let oldest_open = "SELECT MIN(run_id) FROM runs WHERE status = 'running'";
    let open: Option<String> =
        row::first(connection, oldest_open, (), |row| Ok(row.get(0)?)).await?.flatten();
    let (Some(run_id), true) = (open, rows > 0) else { return Ok(None) };
    let first = row::number(connection, "SELECT MIN(seq) FROM events", ()).await?;
    let last = row::number(connection, "SELECT MAX(seq) FROM events", ()).await?;
    let most = i64::try_from(rows).unwrap_or(i64::MAX).max(EVENTS_KEPT);
    let over = u64::try_from(last - first + 1 - most).unwrap_or(0);
    Ok((over > 0).then_some((over, run_id)))
}

/// Rows of one look at a table.
const PAGE: usize = 500;
/// Agents of one transaction.
const AGENTS: usize = 200;

/// Agents after an id that have not been heard of since, of whom nothing is wanted: they are offline,
/// have no work in hand, none waits for them, and nobody chose their model. Their names are free again.
/// Says which, and where to go on.
pub(crate) async fn agents(
    connection: &Connection,
    after: &str,
    before: Timestamp,
    stays: impl Fn(&str) -> bool,
) -> Result<(Vec<String>, Option<String>)> {
    let page: Vec<(String, bool)> = row::all(
        connection,
        &format!(
            "SELECT agent_id, last_heartbeat < ?2 AND preferred_model IS NULL
                AND NOT EXISTS (SELECT 1 FROM runs
                    WHERE runs.phase = 'leased' AND runs.agent_id = agents.agent_id)
                AND NOT EXISTS (SELECT 1 FROM tasks
                    WHERE tasks.phase = 'leased' AND tasks.agent_id = agents.agent_id)
                AND NOT EXISTS (SELECT 1 FROM tasks
                    WHERE tasks.phase = 'waiting' AND tasks.wanted = agents.agent_id)
         FROM agents WHERE agent_id > ?1 ORDER BY agent_id LIMIT {AGENTS}"
        ),
        params![after, before.0],
        |row| Ok((row.get(0)?, row.get::<i64>(1)? != 0)),
    )
    .await?;
    let next = page.last().filter(|_| page.len() == AGENTS).map(|(id, _)| id.clone());
    let mut gone = Vec::new();
    for (agent_id, _) in page.into_iter().filter(|(id, old)| *old && !stays(id)) {
        for sql in
            ["DELETE FROM agent_owners WHERE agent_id = ?", "DELETE FROM agents WHERE agent_id = ?"]
        {
            connection.execute(sql, params![agent_id.as_str()]).await?;
        }
        gone.push(agent_id);
    }
    Ok((gone, next))
}

/// Tokens that are not valid since before a moment. One that an agent registered with stays as long
/// as that agent is known: its name is free because the token is not valid any more.
pub(crate) async fn tokens(connection: &Connection, before: Timestamp) -> Result<Vec<String>> {
    let mut owners = HashSet::new();
    let mut after = Some(String::new());
    while let Some(at) = after.take() {
        let page: Vec<(String, String)> = row::all(
            connection,
            &format!(
                "SELECT agent_id, token_id FROM agent_owners WHERE agent_id > ?
                 ORDER BY agent_id LIMIT {PAGE}"
            ),
            params![at],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .await?;
        after = page.last().filter(|_| page.len() == PAGE).map(|(id, _)| id.clone());
        owners.extend(page.into_iter().map(|(_, token_id)| token_id));
    }
    let mut gone = Vec::new();
    let mut after = Some(String::new());
    while let Some(at) = after.take() {
        let page: Vec<(String, bool)> = row::all(
            connection,
            &format!(
                "SELECT token_id,
                     min(coalesce(revoked_at, 1 << 62), coalesce(expires_at, 1 << 62)) < ?2
                 FROM tokens WHERE token_id > ?1 ORDER BY token_id LIMIT {PAGE}"
            ),
            params![at, before.0],
            |row| Ok((row.get(0)?, row.get::<i64>(1)? != 0)),
        )
        .await?;
        after = page.last().filter(|_| page.len() == PAGE).map(|(id, _)| id.clone());
        let old = page.into_iter().filter(|(id, old)| *old && !owners.contains(id));
        gone.extend(old.map(|(token_id, _)| token_id));
    }
    gone.truncate(PAGE);
    for token_id in &gone {
        let sql = "DELETE FROM tokens WHERE token_id = ?";
        connection.execute(sql, params![token_id.as_str()]).await?;
    }
    Ok(gone)
}

/// Tasks that are worked on by hand, which nobody has changed since before a moment, and that are no
/// part of anything that is not over.
pub(crate) async fn tasks_by_hand(connection: &Connection, before: Timestamp) -> Result<u64> {
    let mut old: Vec<String> = Vec::new();
    for status in ["pending", "in_progress"] {
        let found = row::all(
            connection,
            "SELECT task_id FROM tasks AS task
             WHERE status = ?1 AND task_id < ?2 AND phase = 'by_hand' AND updated_at < ?3
                 AND NOT EXISTS (SELECT 1 FROM tasks AS part WHERE part.parent_id = task.task_id)
                 AND (parent_id IS NULL OR EXISTS (SELECT 1 FROM tasks AS whole
                     WHERE whole.task_id = task.parent_id AND whole.phase <> 'split'))
             ORDER BY task_id LIMIT 100",
            params![status, format!("task-{:012x}", before.0.max(0)), before.0],
            |row| Ok(row.get(0)?),
        );
        old.extend(found.await?);
    }
    for task_id in &old {
        tasks::delete(connection, task_id).await?;
    }
    Ok(old.len() as u64)
}

/// The oldest memories by their last change.
pub(crate) async fn memories(connection: &Connection, before: Timestamp) -> Result<u64> {
    let old: Vec<String> = row::all(
        connection,
        "SELECT memory_id FROM memories WHERE updated_at < ? ORDER BY updated_at LIMIT 100",
        params![before.0],
        |row| Ok(row.get(0)?),
    )
    .await?;
    for memory_id in &old {
        memories::delete(connection, memory_id).await?;
    }
    Ok(old.len() as u64)
}

/// The id that a run would have that began at this moment; those of earlier ones are less.
pub(crate) fn run_id_at(at: Timestamp) -> String {
    format!("run-{:012x}", at.0.max(0))
}

/// Runs below an id that ended before a moment and that nothing refers to, newest first; and where
/// to go on.
pub(crate) async fn runs(
    connection: &Connection,
    below: &str,
    before: Timestamp,
) -> Result<(u64, Option<String>)> {
    let sql = format!(
        "SELECT run_id, phase = 'ended' AND updated_at < ?2
                AND NOT EXISTS (SELECT 1 FROM runs AS child WHERE child.parent_run_id = run.run_id)
                AND NOT EXISTS (SELECT 1 FROM skills WHERE skills.run_id = run.run_id)
                AND NOT EXISTS (SELECT 1 FROM skill_versions AS version
                                WHERE version.run_id = run.run_id)
                AND NOT EXISTS (SELECT 1 FROM activations WHERE activations.run_id = run.run_id)
                AND NOT EXISTS (SELECT 1 FROM approvals WHERE approvals.run_id = run.run_id)
         FROM runs AS run WHERE run_id < ?1 ORDER BY run_id DESC LIMIT {RUNS}"
    );
    let page: Vec<(String, bool)> = row::all(connection, &sql, params![below, before.0], |row| {
        Ok((row.get(0)?, row.get::<i64>(1)? != 0))
    })
    .await?;
    let mut gone = 0;
    for (run_id, _) in page.iter().filter(|(_, goes)| *goes) {
        // Its task goes with all that it was split into, unless some of that is not over.
        let parts = tasks::subtree(connection, &tasks::id_of_run(run_id)).await?;
        let open =
            |task: &tasks::Task| task.state.as_ref().is_some_and(|state| state.end().is_none());
        if parts.iter().any(open) {
            continue;
        }
        for part in &parts {
            tasks::delete(connection, &part.task_id).await?;
        }
        for sql in RUN_ROWS {
            connection.execute(sql, params![run_id.as_str()]).await?;
        }
        gone += 1;
    }
    let last = page.last().map(|(run_id, _)| run_id.clone());
    Ok((gone, last.filter(|_| page.len() == RUNS)))
}

/// Requests that are over and have not changed since before a moment. One that failing calls would make
/// again stays cancelled: a person has said no to it.
pub(crate) async fn requests(connection: &Connection, before: Timestamp) -> Result<u64> {
    // The ids are in the order of time, as those of runs.
    let below = format!("req-{:012x}", before.0.max(0));
    let mut old: Vec<String> = Vec::new();
    for status in ["answered", "rejected", "cancelled"] {
        let found = row::all(
            connection,
            "SELECT request_id FROM requests
             WHERE status = ?1 AND request_id < ?2 AND updated_at < ?3
                 AND (status <> 'cancelled' OR (kind = 'new' AND origin = 'person'))
             ORDER BY request_id LIMIT 100",
            params![status, below.as_str(), before.0],
            |row| Ok(row.get(0)?),
        );
        old.extend(found.await?);
    }
    for request_id in &old {
        for sql in REQUEST_ROWS {
            connection.execute(sql, params![request_id.as_str()]).await?;
        }
    }
    Ok(old.len() as u64)
}

/// What goes with a request, and the request itself.
const REQUEST_ROWS: &[&str] = &[
    "UPDATE failure_clusters SET request_id = NULL WHERE request_id = ?",
    "DELETE FROM request_examples WHERE request_id = ?",
    "DELETE FROM request_keys WHERE request_id = ?",
    "DELETE FROM request_runs WHERE request_id = ?",
    "DELETE FROM request_history WHERE request_id = ?",
    "DELETE FROM requests WHERE request_id = ?",
];

/// Tasks that ended before a moment and are no part of anything that stays.
pub(crate) async fn tasks(connection: &Connection, before: Timestamp) -> Result<u64> {
    let old: Vec<String> = row::all(
        connection,
        "SELECT task_id FROM tasks AS task WHERE ended_at < ?
             AND NOT EXISTS (SELECT 1 FROM tasks AS part WHERE part.parent_id = task.task_id)
             AND (parent_id IS NULL OR EXISTS (SELECT 1 FROM tasks AS whole
                 WHERE whole.task_id = task.parent_id AND whole.ended_at IS NOT NULL))
         ORDER BY ended_at LIMIT 100",
        params![before.0],
        |row| Ok(row.get(0)?),
    )
    .await?;
    for task_id in &old {
        tasks::delete(connection, task_id).await?;
    }
    Ok(old.len() as u64)
}

/// What goes with a run, and the run itself.
const RUN_ROWS: &[&str] = &[
    "DELETE FROM stages WHERE run_id = ?",
    "DELETE FROM attempts WHERE run_id = ?",
    "DELETE FROM cases WHERE run_id = ?",
    "DELETE FROM timers WHERE run_id = ?",
    "DELETE FROM recoveries WHERE run_id = ?",
    "DELETE FROM run_fts WHERE rowid = (SELECT doc FROM run_docs WHERE run = ?)",
    "DELETE FROM run_docs WHERE run = ?",
    "UPDATE runs SET forked_from = NULL WHERE forked_from = ?",
    "UPDATE runs SET retried_by = NULL WHERE retried_by = ?",
    "DELETE FROM runs WHERE run_id = ?",
];

/// Whether anything refers to a package.
pub(crate) async fn is_package_used(connection: &Connection, artifact_id: &str) -> Result<bool> {
    let used = row::number(
        connection,
        "SELECT EXISTS (SELECT 1 FROM skill_versions WHERE artifact_id = ?1)
             OR EXISTS (SELECT 1 FROM skill_pointers WHERE artifact_id = ?1)
             OR EXISTS (SELECT 1 FROM runs WHERE artifact_id = ?1 AND artifact_id <> '')
             OR EXISTS (SELECT 1 FROM stages WHERE artifact_id = ?1 AND artifact_id <> '')",
        params![artifact_id],
    )
    .await?;
    Ok(used != 0)
}
