//! Every change of an agent's state, so many as are worth reading.

use evo_common::{
    api::{AgentChange, AgentHistory},
    clock::Timestamp,
};
use libsql::params;

use super::{Connection, Result, Store, row};

/// Changes that are kept of one agent.
const KEPT: i64 = 1_000;

/// One change.
pub(super) struct Change<'c> {
    /// Absent at the agent's first registration.
    pub(super) prev_status: Option<String>,
    pub(super) new_status: &'c str,
    /// What it came by: `register`, `heartbeat`, `disconnect`, `crash` or `king_start`.
    pub(super) trigger: &'c str,
    pub(super) detail: &'c str,
}

/// Writes a change down; the oldest one goes when there are too many.
pub(super) async fn append(
    connection: &Connection,
    now: Timestamp,
    agent_id: &str,
    change: Change<'_>,
) -> Result<()> {
    connection
        .execute(
            "INSERT INTO agent_history (agent_id, prev_status, new_status, trigger, detail, pid,
                 created_at)
             VALUES (?1, ?2, ?3, ?4, ?5, (SELECT pid FROM agents WHERE agent_id = ?1), ?6)",
            params![
                agent_id,
                change.prev_status,
                change.new_status,
                change.trigger,
                change.detail,
                now.0,
            ],
        )
        .await?;
    connection
        .execute(
            "DELETE FROM agent_history WHERE agent_id = ?1 AND id <= (
                 SELECT id FROM agent_history WHERE agent_id = ?1
                 ORDER BY id DESC LIMIT 1 OFFSET ?2)",
            params![agent_id, KEPT],
        )
        .await?;
    Ok(())
}

/// Which changes of an agent to list, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HistoryFilter {
    pub(crate) agent_id: String,
    /// `next_cursor` of the page before: only changes with a smaller id.
    pub(crate) cursor: Option<i64>,
    pub(crate) limit: u32,
    pub(crate) offset: u32,
}

/// A page of an agent's changes.
pub(crate) async fn list(connection: &Connection, filter: &HistoryFilter) -> Result<AgentHistory> {
    let (sql, mut params) = row::Conditions::default()
        .and("agent_id = ?", Some(filter.agent_id.clone()))
        .and("id < ?", filter.cursor)
        .query(
            "SELECT id, agent_id, prev_status, new_status, trigger, detail, pid, created_at
             FROM agent_history",
            "id DESC",
            row::wanted(0, filter.limit),
        );
    params.push(i64::from(filter.offset).into());
    let mut history = row::all(connection, &format!("{sql} OFFSET ?"), params, |row| {
        Ok(AgentChange {
            id: row.get(0)?,
            agent_id: row.get(1)?,
            prev_status: row.get(2)?,
            new_status: row.get(3)?,
            trigger: row.get(4)?,
            detail: row.get(5)?,
            pid: row.get(6)?,
            created_at: row::moment(row, 7)?,
        })
    })
    .await?;
    // The database has left out what is to be left out.
    let more = row::cut(&mut history, 0, filter.limit);
    let next_cursor = history.last().filter(|_| more).map(|change| change.id.to_string());
    Ok(AgentHistory {
        count: history.len(),
        history,
        limit: filter.limit,
        offset: filter.offset,
        next_cursor,
    })
}

impl Store {
    /// A page of an agent's changes.
    pub(crate) async fn agents_history(&self, filter: HistoryFilter) -> Result<AgentHistory> {
        self.read(async move |connection| list(connection, &filter).await).await
    }
}
