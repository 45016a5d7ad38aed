//! Effects that were committed with a decision and have yet to be delivered.

use evo_common::clock::Timestamp;
use libsql::params;
use serde_json::Value;

use super::{Connection, Result, Store, damaged, row};

/// One effect.
#[derive(Debug, Clone)]
pub(crate) struct Effect {
    pub(crate) id: i64,
    pub(crate) kind: String,
    pub(crate) agent_id: Option<String>,
    pub(crate) payload: Value,
}

/// A runner is to stop an attempt.
pub(crate) const CANCEL: &str = "cancel";
/// A runner is asked how to go on after a failure, again and again until that is settled.
pub(crate) const RECOVERY: &str = "recovery";
/// The set of active skills changed.
pub(crate) const SKILLS_CHANGED: &str = "skills_changed";

/// Adds an effect; one with the same key is replaced.
pub(crate) async fn push(
    connection: &Connection,
    at: Timestamp,
    kind: &str,
    key: &str,
    agent_id: Option<&str>,
    payload: &Value,
) -> Result<()> {
    connection
        .execute(
            "INSERT OR REPLACE INTO outbox (kind, key, agent_id, payload, created_at)
             VALUES (?, ?, ?, ?, ?)",
            params![kind, key, agent_id, row::to_json(payload), at.0],
        )
        .await?;
    connection.leaves_effect();
    Ok(())
}

/// What an effect that is still to be delivered says.
pub(crate) async fn payload(connection: &Connection, key: &str) -> Result<Option<Value>> {
    let sql = "SELECT payload FROM outbox WHERE key = ?";
    row::first(connection, sql, params![key], |row| row::json(row, 0)).await
}

/// Takes an effect back, or marks it delivered.
pub(crate) async fn remove(connection: &Connection, key: &str) -> Result<()> {
    connection.execute("DELETE FROM outbox WHERE key = ?", params![key]).await?;
    Ok(())
}

/// What is to be delivered, oldest first.
pub(crate) async fn list(connection: &Connection) -> Result<Vec<Effect>> {
    row::all(
        connection,
        "SELECT id, kind, agent_id, payload FROM outbox ORDER BY id LIMIT 1000",
        (),
        |row| {
            let id = row.get(0)?;
            let payload = row::json(row, 3).map_err(|error| damaged::of_effect(error, id))?;
            Ok(Effect { id, kind: row.get(1)?, agent_id: row.get(2)?, payload })
        },
    )
    .await
}

impl Store {
    /// What is to be delivered, oldest first.
    pub(crate) async fn outbox_list(&self) -> Result<Vec<Effect>> {
        self.read(async |connection| list(connection).await).await
    }

    /// These were delivered.
    pub(crate) async fn outbox_delivered(&self, ids: Vec<i64>) -> Result<()> {
        self.write(async move |connection: &Connection| {
            for id in ids {
                connection.execute("DELETE FROM outbox WHERE id = ?", params![id]).await?;
            }
            Ok(())
        })
        .await
    }
}
