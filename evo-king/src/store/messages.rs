//! Messages over Socket.IO, as far as they are kept.

use evo_common::clock::Timestamp;
use libsql::params;
use serde_json::Value;

use super::{Connection, Result, row};

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) at: Timestamp,
    /// `inbound` or `outbound`.
    pub(crate) direction: &'static str,
    pub(crate) event_name: String,
    pub(crate) agent_id: Option<String>,
    pub(crate) socket_id: String,
    /// Its first bytes.
    pub(crate) payload: String,
}

/// A message that was kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) id: i64,
    pub(crate) at: Timestamp,
    pub(crate) direction: String,
    pub(crate) event_name: String,
    pub(crate) agent_id: Option<String>,
    pub(crate) socket_id: String,
    pub(crate) payload: String,
}

/// Which messages to list, newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct MessageFilter {
    pub(crate) limit: u32,
    /// Only messages before this one.
    pub(crate) cursor: Option<i64>,
    pub(crate) agent_id: Option<String>,
    pub(crate) event_name: Option<String>,
    pub(crate) direction: Option<String>,
    pub(crate) since: Option<Timestamp>,
    pub(crate) until: Option<Timestamp>,
    /// Messages to pass over.
    pub(crate) offset: u32,
}

/// Stores messages.
pub(crate) async fn insert(connection: &Connection, messages: &[Message]) -> Result<()> {
    for message in messages {
        connection
            .execute(
                "INSERT INTO socket_events
                     (at, direction, event_name, agent_id, socket_id, payload)
                 VALUES (?, ?, ?, ?, ?, ?)",
                params![
                    message.at.0,
                    message.direction,
                    message.event_name.as_str(),
                    message.agent_id.as_deref(),
                    message.socket_id.as_str(),
                    message.payload.as_str(),
                ],
            )
            .await?;
    }
    Ok(())
}

/// A page of messages, newest first.
pub(crate) async fn list(connection: &Connection, filter: MessageFilter) -> Result<Vec<Kept>> {
    let wanted = filter.limit.saturating_add(filter.offset);
    let (sql, params): (String, Vec<libsql::Value>) = row::Conditions::default()
        .and("id < ?", Some(filter.cursor.unwrap_or(i64::MAX)))
        .and("agent_id = ?", filter.agent_id)
        .and("event_name = ?", filter.event_name)
        .and("direction = ?", filter.direction)
        .and("at >= ?", filter.since.map(|at| at.0))
        .and("at <= ?", filter.until.map(|at| at.0))
        .query(
            "SELECT id, at, direction, event_name, agent_id, socket_id, payload FROM socket_events",
            "id DESC",
            i64::from(wanted),
        );
    let kept = row::all(connection, &sql, params, |row| {
        Ok(Kept {
            id: row.get(0)?,
            at: Timestamp(row.get(1)?),
            direction: row.get(2)?,
            event_name: row.get(3)?,
            agent_id: row.get(4)?,
            socket_id: row.get(5)?,
            payload: row.get(6)?,
        })
    })
    .await?;
    Ok(kept.into_iter().skip(filter.offset as usize).collect())
}

impl Kept {
    /// The payload, as JSON if it is whole.
    pub(crate) fn value(&self) -> Value {
        serde_json::from_str(&self.payload).unwrap_or_else(|_| Value::String(self.payload.clone()))
    }
}
