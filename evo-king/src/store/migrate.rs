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
    let applied: Vec<(i64, String)> = row::all(
        connection,
        "SELECT number, checksum FROM migrations ORDER BY number",
        (),
        |row| Ok((row.get(0)?, row.get(1)?)),
    )
    .await?;
    let known = i64::try_from(MIGRATIONS.len()).expect("few migrations");
    if let Some((found, _)) = applied.last()
        && *found > known
    {
        return Err(Error::Newer { path: path.to_owned(), found: *found, known });
    }
    for (number, sql) in (1_i64..).zip(MIGRATIONS) {
        let checksum = evo_common::ids::sha256_hex(sql.as_bytes());
        match applied.iter().find(|(applied, _)| *applied == number) {
            Some((_, stored)) if *stored == checksum => {}
            Some(_) => return Err(Error::Migration { path: path.to_owned(), number }),
            None => {
                connection.execute_batch(sql).await?;
                connection
                    .execute(
                        "INSERT INTO migrations (number, checksum, applied_at) VALUES (?, ?, ?)",
                        params![number, checksum, evo_common::clock::Timestamp::now().0],
                    )
                    .await?;
            }
        }
    }
    Ok(())
}
