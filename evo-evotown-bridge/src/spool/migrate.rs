//! Numbered migrations with checksums.

use std::path::Path;

use libsql::{Connection, TransactionBehavior, params};

use super::{Error, Result, rows::all};

/// Every migration in order; a number is its place from 1.
const MIGRATIONS: &[&str] =
    &[include_str!("migrations/0001_initial.sql"), include_str!("migrations/0002_left_out.sql")];

/// Brings the schema up to date. Refuses a queue of a newer version, and one whose applied
/// migrations are not the ones known here.
pub(super) async fn run(connection: &Connection, path: &Path) -> Result<()> {
    let path = || path.display().to_string();
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).await?;
    transaction
        .execute(
            "CREATE TABLE IF NOT EXISTS migrations (
                 number INTEGER PRIMARY KEY, checksum TEXT NOT NULL, applied_at INTEGER NOT NULL
             ) STRICT",
            (),
        )
        .await?;
    let applied: Vec<(i64, String)> =
        all(&transaction, "SELECT number, checksum FROM migrations ORDER BY number", (), |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .await?;
    let known = i64::try_from(MIGRATIONS.len()).expect("few migrations");
    if let Some((found, _)) = applied.last()
        && *found > known
    {
        return Err(Error::Newer { path: path(), found: *found, known });
    }
    for (number, sql) in (1_i64..).zip(MIGRATIONS) {
        let checksum = evo_common::ids::sha256_hex(sql.as_bytes());
        match applied.iter().find(|(applied, _)| *applied == number) {
            Some((_, stored)) if *stored == checksum => {}
            Some(_) => return Err(Error::Migration { path: path(), number }),
            None => {
                transaction.execute_batch(sql).await?;
                transaction
                    .execute(
                        "INSERT INTO migrations (number, checksum, applied_at) VALUES (?, ?, ?)",
                        params![number, checksum, evo_common::clock::Timestamp::now().0],
                    )
                    .await?;
            }
        }
    }
    transaction.commit().await?;
    Ok(())
}
