//! The event log.

use evo_common::{
    api::{EventList, EventRecord},
    clock::Timestamp,
};
use libsql::{Connection, params};
use serde::Serialize;

use super::{EventFilter, Result, Store, row};

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

/// Events after a place, oldest first.
pub(crate) async fn after(
    connection: &Connection,
    filter: &EventFilter,
) -> Result<Vec<EventRecord>> {
    let read = |row: &libsql::Row| {
        Ok(EventRecord {
            seq: row.get(0)?,
            at: row::moment(row, 1)?,
            kind: row.get(2)?,
            run_id: row.get(3)?,
            agent_id: row.get(4)?,
            payload: row::json(row, 5)?,
        })
    };
    let (after, limit) = (filter.after, i64::from(filter.limit));
    match (&filter.run_id, &filter.kind) {
        (Some(run_id), kind) => {
            row::all(
                connection,
                "SELECT seq, at, kind, run_id, agent_id, payload FROM events
                 WHERE run_id = ?1 AND seq > ?2 AND (?3 IS NULL OR kind = ?3)
                 ORDER BY seq LIMIT ?4",
                params![run_id.as_str(), after, kind.clone(), limit],
                read,
            )
            .await
        }
        (None, Some(kind)) => {
            row::all(
                connection,
                "SELECT seq, at, kind, run_id, agent_id, payload FROM events
                 WHERE kind = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3",
                params![kind.clone(), after, limit],
                read,
            )
            .await
        }
        (None, None) => {
            row::all(
                connection,
                "SELECT seq, at, kind, run_id, agent_id, payload FROM events
                 WHERE seq > ?1 ORDER BY seq LIMIT ?2",
                params![after, limit],
                read,
            )
            .await
        }
    }
}

impl Store {
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
