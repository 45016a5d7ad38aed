//! The event log.

use evo_common::{
    api::{EventList, EventRecord},
    clock::Timestamp,
    ids::RunId,
};
use libsql::params;
use serde::Serialize;
use serde_json::json;

use super::{Connection, Error, EventFilter, Result, Store, Unreadable, row};

/// Appends an event and gives its place.
pub(crate) async fn append(
    connection: &Connection,
    at: Timestamp,
    kind: &str,
    run_id: Option<&str>,
    agent_id: Option<&str>,
    payload: &impl Serialize,
) -> Result<i64> {
    connection
        .execute(
            "INSERT INTO events (at, kind, run_id, agent_id, payload) VALUES (?, ?, ?, ?, ?)",
            params![at.0, kind, run_id, agent_id, row::to_json(payload)],
        )
        .await?;
    Ok(connection.last_insert_rowid())
}

/// The newest event's place; 0 without one.
pub(crate) async fn last_seq(connection: &Connection) -> Result<i64> {
    row::number(connection, "SELECT MAX(seq) FROM events", ()).await
}

/// The oldest event's place; 0 without one.
pub(crate) async fn first_seq(connection: &Connection) -> Result<i64> {
    row::number(connection, "SELECT MIN(seq) FROM events", ()).await
}

/// Which events are relayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// All.
    All,
    /// All but the steps of runs, which are most of the log and concern only those who follow runs.
    NoSteps,
}

fn read(row: &libsql::Row) -> Result<EventRecord> {
    Ok(EventRecord {
        seq: row.get(0)?,
        at: row::moment(row, 1)?,
        kind: row.get(2)?,
        run_id: row.get(3)?,
        agent_id: row.get(4)?,
        payload: match row::json(row, 5) {
            // Whoever follows the log must be able to go on behind it.
            Err(Error::Corrupt(reason)) => json!({"code": Unreadable::CODE, "reason": reason}),
            payload => payload?,
        },
    })
}

/// The next events to be relayed, oldest first.
pub(crate) async fn to_relay(
    connection: &Connection,
    after: i64,
    limit: u32,
    scope: Scope,
) -> Result<Vec<EventRecord>> {
    let sql = match scope {
        Scope::All => {
            "SELECT seq, at, kind, run_id, agent_id, payload FROM events
             WHERE seq > ? ORDER BY seq LIMIT ?"
        }
        Scope::NoSteps => {
            "SELECT seq, at, kind, run_id, agent_id, payload FROM events
             WHERE seq > ? AND kind NOT LIKE 'stage.%' AND kind NOT LIKE 'run.%'
             ORDER BY seq LIMIT ?"
        }
    };
    row::all(connection, sql, params![after, limit], read).await
}

/// Events after a place, oldest first.
pub(crate) async fn after(
    connection: &Connection,
    filter: &EventFilter,
) -> Result<Vec<EventRecord>> {
    let kinds: Vec<&str> = filter.kind.iter().flat_map(|kind| kind.split(',')).collect();
    if let [] | [_] = kinds[..] {
        return after_of(connection, filter, kinds.first().copied()).await;
    }
    // Each kind by its index, so that rare ones are found without reading all the others.
    let mut events = Vec::new();
    for kind in kinds {
        events.extend(after_of(connection, filter, Some(kind)).await?);
    }
    events.sort_by_key(|event| event.seq);
    events.dedup_by_key(|event| event.seq);
    events.truncate(filter.limit as usize);
    Ok(events)
}

async fn after_of(
    connection: &Connection,
    filter: &EventFilter,
    kind: Option<&str>,
) -> Result<Vec<EventRecord>> {
    let (sql, params) = row::Conditions::default()
        .and("seq > ?", Some(filter.after))
        .and("run_id = ?", filter.run_id.as_ref().map(RunId::as_str))
        .and("kind = ?", kind)
        .query(
            "SELECT seq, at, kind, run_id, agent_id, payload FROM events",
            "seq",
            i64::from(filter.limit),
        );
    row::all(connection, &sql, params, read).await
}

impl Store {
    /// Appends an event that no state goes with.
    pub(crate) async fn events_append(
        &self,
        kind: &'static str,
        agent_id: Option<String>,
        payload: serde_json::Value,
    ) -> Result<()> {
        self.write(async move |connection: &Connection| {
            let now = Timestamp::now();
            append(connection, now, kind, None, agent_id.as_deref(), &payload).await?;
            Ok::<_, Error>(())
        })
        .await
    }

    /// The oldest event's place; 0 without one.
    pub async fn events_first(&self) -> Result<i64> {
        self.read(async |connection| first_seq(connection).await).await
    }

    /// The next events to be relayed, oldest first.
    pub(crate) async fn events_after(
        &self,
        after: i64,
        limit: u32,
        scope: Scope,
    ) -> Result<Vec<EventRecord>> {
        self.read(async move |connection| to_relay(connection, after, limit, scope).await).await
    }

    /// A page of the event log.
    pub async fn events_list(&self, filter: EventFilter) -> Result<EventList> {
        self.read(async move |connection| {
            let events = after(connection, &filter).await?;
            let last_seq = events.last().map_or(filter.after, |event| event.seq);
            Ok(EventList { count: events.len(), events, last_seq })
        })
        .await
    }
}
