//! The next moment at which a run needs attention.

use evo_common::clock::Timestamp;
use libsql::params;

use super::{Connection, Result, Store, row, skills};

/// A held run's next look is due.
pub(crate) const LOOK: &str = "look";

/// Sets the run's one timer. One of a lease that is due earlier stays: whoever finds nothing to do
/// when it is due sets it anew, which is cheaper than doing so at every step of a run.
pub(crate) async fn set(
    connection: &Connection,
    run_id: &str,
    kind: &str,
    due_at: Timestamp,
) -> Result<()> {
    connection
        .execute(
            "INSERT INTO timers (run_id, kind, due_at) VALUES (?, ?, ?)
             ON CONFLICT (run_id) DO UPDATE SET kind = excluded.kind, due_at = excluded.due_at
             WHERE due_at > excluded.due_at OR kind NOT IN ('lease', 'deadline')
                 OR excluded.kind NOT IN ('lease', 'deadline')",
            params![run_id, kind, due_at.0],
        )
        .await?;
    connection.leaves_timer(due_at);
    Ok(())
}

/// Sets the run's one timer, whatever it was.
pub(crate) async fn replace(
    connection: &Connection,
    run_id: &str,
    kind: &str,
    due_at: Timestamp,
) -> Result<()> {
    connection
        .execute(
            "INSERT OR REPLACE INTO timers (run_id, kind, due_at) VALUES (?, ?, ?)",
            params![run_id, kind, due_at.0],
        )
        .await?;
    connection.leaves_timer(due_at);
    Ok(())
}

/// Takes the run's timer away.
pub(crate) async fn clear(connection: &Connection, run_id: &str) -> Result<()> {
    connection.execute("DELETE FROM timers WHERE run_id = ?", params![run_id]).await?;
    Ok(())
}

/// Runs whose timer is due: id and kind. A waiting run's backoff is no business of the ticker's.
pub(crate) async fn due(connection: &Connection, now: Timestamp) -> Result<Vec<(String, String)>> {
    row::all(
        connection,
        "SELECT run_id, kind FROM timers WHERE due_at <= ? AND kind <> 'backoff'
         ORDER BY due_at LIMIT 1000",
        params![now.0],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )
    .await
}

/// Whether a timer is due, and the next moment at which one will be.
pub(super) async fn next(
    connection: &Connection,
    now: Timestamp,
) -> Result<(bool, Option<Timestamp>)> {
    let due = !due(connection, now).await?.is_empty();
    let next = row::first(
        connection,
        "SELECT due_at FROM timers WHERE due_at > ? ORDER BY due_at LIMIT 1",
        params![now.0],
        |row| Ok(Timestamp(row.get(0)?)),
    )
    .await?;
    let due = due || !skills::timers::due(connection, now).await?.is_empty();
    let of_skills = skills::timers::next(connection, now).await?;
    let next = match (next, of_skills) {
        (Some(run), Some(skill)) => Some(run.min(skill)),
        (run, skill) => run.or(skill),
    };
    Ok((due, next))
}

impl Store {
    /// The next moment after `now` at which a timer is due, and whether one is due already.
    pub(crate) async fn timers_next(&self, now: Timestamp) -> Result<(bool, Option<Timestamp>)> {
        self.read(async move |connection| next(connection, now).await).await
    }
}
