//! When a skill needs attention: its canary may have come far enough.

use evo_common::clock::Timestamp;
use libsql::params;

use super::{Connection, Result, row};

/// Sets the skill's one timer, whatever it was; none takes it away.
pub(crate) async fn set(
    connection: &Connection,
    skill: &str,
    due_at: Option<Timestamp>,
) -> Result<()> {
    let Some(due_at) = due_at else {
        let sql = "DELETE FROM skill_timers WHERE skill = ?";
        connection.execute(sql, params![skill]).await?;
        return Ok(());
    };
    connection
        .execute(
            "INSERT OR REPLACE INTO skill_timers (skill, due_at) VALUES (?, ?)",
            params![skill, due_at.0],
        )
        .await?;
    connection.leaves_timer(due_at);
    Ok(())
}

/// Skills whose timer is due.
pub(crate) async fn due(connection: &Connection, now: Timestamp) -> Result<Vec<String>> {
    row::all(
        connection,
        "SELECT skill FROM skill_timers WHERE due_at <= ? ORDER BY due_at LIMIT 100",
        params![now.0],
        |row| Ok(row.get(0)?),
    )
    .await
}

/// The next moment at which one will be due.
pub(crate) async fn next(connection: &Connection, now: Timestamp) -> Result<Option<Timestamp>> {
    row::first(
        connection,
        "SELECT due_at FROM skill_timers WHERE due_at > ? ORDER BY due_at LIMIT 1",
        params![now.0],
        |row| Ok(Timestamp(row.get(0)?)),
    )
    .await
}
