//! Numbered migrations with checksums.

use libsql::params;

use super::{Connection, Error, Result, row};

/// Every migration in order; a number is its place from 1.
const MIGRATIONS: &[&str] = &[
    include_str!("migrations/0001_initial.sql"),
    include_str!("migrations/0002_traces.sql"),
    include_str!("migrations/0003_pipeline.sql"),
    include_str!("migrations/0004_tasks.sql"),
    include_str!("migrations/0005_memory.sql"),
    include_str!("migrations/0006_agents.sql"),
    include_str!("migrations/0007_jobs.sql"),
    include_str!("migrations/0008_config_history.sql"),
    include_str!("migrations/0009_tokens.sql"),
    include_str!("migrations/0010_speed.sql"),
    include_str!("migrations/0011_lifecycle.sql"),
    include_str!("migrations/0012_requests.sql"),
    include_str!("migrations/0013_composed.sql"),
];

/// Brings the schema up to date in the caller's transaction. Refuses a database of a newer version,
/// and one whose applied migrations are not the ones known here.
pub(super) async fn run(connection: &Connection, path: &str) -> Result<()> {
    connection
        .execute(
            "CREATE TABLE IF NOT EXISTS migrations (
                 number INTEGER PRIMARY KEY, checksum TEXT NOT NULL, applied_at INTEGER NOT NULL
             ) STRICT",
            (),
        )
        .await?;
    let applied = applied(connection, path).await?;
    for (number, sql) in (1_i64..).zip(MIGRATIONS).filter(|(number, _)| *number > applied) {
        // Where not even the first one fits, it is no database of king's.
        let failed = |source| match number {
            1 => Error::Database(source),
            number => Error::MigrationFailed { path: path.to_owned(), number, source },
        };
        connection.execute_batch(sql).await.map_err(failed)?;
        connection
            .execute(
                "INSERT INTO migrations (number, checksum, applied_at) VALUES (?, ?, ?)",
                params![number, checksum(sql), evo_common::clock::Timestamp::now().0],
            )
            .await?;
    }
    Ok(())
}

/// The newest migration that was applied. Refuses what this version can't go on from.
pub(super) async fn applied(connection: &Connection, path: &str) -> Result<i64> {
    let applied: Vec<(i64, String)> = row::all(
        connection,
        "SELECT number, checksum FROM migrations ORDER BY number",
        (),
        |row| Ok((row.get(0)?, row.get(1)?)),
    )
    .await?;
    let known = i64::try_from(MIGRATIONS.len()).expect("few migrations");
    let last = applied.last().map_or(0, |(number, _)| *number);
    if last > known {
        return Err(Error::Newer { path: path.to_owned(), found: last, known });
    }
    // One after the other, each as it is here: a gap is as wrong as another text.
    for (number, sql) in (1..=last).zip(MIGRATIONS) {
        let stored = applied.iter().find(|(applied, _)| *applied == number);
        if stored.is_none_or(|(_, stored)| *stored != checksum(sql)) {
            return Err(Error::Migration { path: path.to_owned(), number });
        }
    }
    Ok(last)
}

fn checksum(sql: &str) -> String {
    evo_common::ids::sha256_hex(sql.as_bytes())
}
