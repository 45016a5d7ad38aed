//! What people do with a queue, also while a bridge uses it: the bridge sees it when it looks again.

use std::path::Path;

use evo_common::clock::Timestamp;
use libsql::{Connection, TransactionBehavior, params};

use super::{Problem, Result, counts, rows::all, set_due, thread};

/// What became of refused deliveries that were to be queued again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Retried {
    /// Those that wait now.
    pub(crate) queued: u64,
    /// Those that stay where they are: events of a run whose end was delivered.
    pub(crate) left: u64,
}

/// What of a run is told again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Again {
    /// All of it.
    All,
    /// Its end.
    End,
}

/// What was refused for good, newest first.
pub(crate) async fn dead(path: &Path, limit: u32) -> Result<Vec<Problem>> {
    let connection = thread::connect_for_reading(path).await?;
    all(
        &connection,
        "SELECT run_id, kind, state, tries, COALESCE(reason, ''), updated_at FROM deliveries
         WHERE state = 'parked' ORDER BY updated_at DESC LIMIT ?",
        params![limit],
        super::problem,
    )
    .await
}

/// Queues refused deliveries again, of one run or of all.
pub(crate) async fn retry_dead(path: &Path, run_id: Option<&str>) -> Result<Retried> {
    let connection = thread::connect(path).await?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).await?;
    let before = counts(&transaction).await?.parked;
    let now = Timestamp::now().0;
    // An event of a run that has ended at Evotown would open it there again.
    let again: Vec<(String, i64)> = all(
        &transaction,
        "SELECT run_id, ordinal FROM deliveries AS dead
         WHERE state = 'parked' AND (?1 IS NULL OR run_id = ?1)
           AND (kind NOT IN ('started', 'progress') OR NOT EXISTS (
               SELECT 1 FROM deliveries AS ended
               WHERE ended.run_id = dead.run_id AND ended.kind IN ('complete', 'completed')
                 AND ended.state IN ('done', 'sending')))",
        params![run_id],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )
    .await?;
    for (run_id, ordinal) in &again {
        transaction
            .execute(
                "UPDATE deliveries SET state = 'waiting', tries = 0, next_at = ?, updated_at = ?
                 WHERE run_id = ? AND ordinal = ?",
                params![now, now, run_id.as_str(), *ordinal],
            )
            .await?;
        set_due(&transaction, run_id).await?;
    }
    let parked = match run_id {
        None => before,
        Some(run_id) => of_run(&transaction, run_id).await? + again.len() as u64,
    };
    transaction.commit().await?;
    let queued = again.len() as u64;
    Ok(Retried { queued, left: parked.saturating_sub(queued) })
}

async fn of_run(connection: &Connection, run_id: &str) -> Result<u64> {
    let found: Vec<i64> = all(
        connection,
        "SELECT ordinal FROM deliveries WHERE run_id = ? AND state = 'parked'",
        params![run_id],
        |row| Ok(row.get(0)?),
    )
    .await?;
    Ok(found.len() as u64)
}

/// Forgets refused deliveries, of one run or of all.
pub(crate) async fn drop_dead(path: &Path, run_id: Option<&str>) -> Result<u64> {
    let connection = thread::connect(path).await?;
    let sql = "DELETE FROM deliveries WHERE state = 'parked' AND (?1 IS NULL OR run_id = ?1)";
    Ok(connection.execute(sql, params![run_id]).await?)
}

/// Runs whose end was delivered since then, oldest first.
pub(crate) async fn ended_since(path: &Path, since: Timestamp) -> Result<Vec<String>> {
    let connection = thread::connect_for_reading(path).await?;
    all(
        &connection,
        "SELECT run_id FROM deliveries
         WHERE state = 'done' AND kind = 'complete' AND updated_at >= ? ORDER BY updated_at, run_id",
        params![since.0],
        |row| Ok(row.get(0)?),
    )
    .await
}

/// Queues what was delivered of a run again.
pub(crate) async fn replay(path: &Path, run_id: &str, again: Again) -> Result<()> {
    let connection = thread::connect(path).await?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).await?;
    let now = Timestamp::now().0;
    let kinds = match again {
        Again::All => "'started', 'progress', 'candidate', 'complete', 'completed'",
        Again::End => "'complete', 'completed'",
    };
    let sql = format!(
        "UPDATE deliveries SET state = 'waiting', tries = 0, reason = NULL, next_at = ?1, updated_at = ?1
         WHERE run_id = ?2 AND state = 'done' AND kind IN ({kinds})"
    );
    transaction.execute(&sql, params![now, run_id]).await?;
    set_due(&transaction, run_id).await?;
    transaction.commit().await?;
    Ok(())
}
