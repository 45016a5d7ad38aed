//! The table of usage: the only place of this crate that holds SQL. One connection writes, in the
//! thread of [`books`](super::books); whoever reads opens one of its own.

mod insert;
mod query;
mod rows;
#[cfg(test)]
mod tests;

use std::{
    io,
    path::{Path, PathBuf},
};

use chrono::{DateTime, TimeDelta, Utc};
use evo_common::{clock::Timestamp, ids::sha256_hex};
use insert::Inserts;
use libsql::{Builder, Connection, TransactionBehavior, params};

pub(crate) use query::{Filter, Group, Query};
pub(crate) use rows::{Page, Report, Row, Sums};

use super::record::Record;
use crate::auth::spent::Ledger;

/// Every migration in order; a number is its place from 1.
const MIGRATIONS: &[&str] = &[include_str!("store/migrations/0001_usage.sql")];
/// Rows that are deleted in one transaction.
const DELETED: usize = 1_000;
/// What the longest budget needs.
const BUDGET_DAYS: i64 = 32;

const SPENT: &str = "SELECT key, at / 3600000 AS hour, CAST(TOTAL(cost_nano) AS INTEGER)
    FROM usage INDEXED BY usage_by_time WHERE at >= ? AND cost_nano > 0 GROUP BY key, hour";
const DELETE: &str = "DELETE FROM usage WHERE id IN (SELECT id FROM usage WHERE at < ? LIMIT ?)";

/// Why the table did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is none.
    #[error(
        "no usage is kept: the gateway has no data folder, or `usage.enabled` is false; name a file \
         with EVO_GATEWAY_DB_PATH"
    )]
    Off,
    /// The database refused.
    #[error("the database failed: {0}")]
    Database(#[from] libsql::Error),
    /// The file can't be made.
    #[error("the file can't be made: {0}")]
    File(#[source] io::Error),
    /// It was made by a newer gateway.
    #[error(
        "it has schema {found}, newer than {known} which this version knows; start the newer version"
    )]
    Newer {
        /// Its schema.
        found: i64,
        /// The newest schema known.
        known: i64,
    },
    /// A migration is not the one that was applied.
    #[error(
        "migration {0} is not the one that this version holds; start the version that wrote it"
    )]
    Migration(i64),
    /// A thread failed.
    #[error("the work was not done: {0}")]
    Process(#[source] io::Error),
}

/// The connection that writes.
pub(crate) struct Writer {
    connection: Connection,
    inserts: Inserts,
}

impl Writer {
    /// Opens the table, for its owner only, and brings its schema up to date.
    pub(crate) async fn open(file: &Path) -> Result<Self, StoreError> {
        if let Some(folder) = file.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).map_err(StoreError::File)?;
        }
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create(true).truncate(false);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        drop(options.open(file).map_err(StoreError::File)?);
        let connection = connect(file).await?;
        connection
            .execute_batch(
                "PRAGMA busy_timeout = 5000; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;",
            )
            .await?;
        migrate(&connection).await?;
        Ok(Self { connection, inserts: Inserts::default() })
    }

    /// Enters what keys have spent in the time that a budget may look back.
    pub(crate) async fn spent(&self, ledger: &Ledger) -> Result<(), StoreError> {
        let since = Utc::now() - TimeDelta::days(BUDGET_DAYS);
        let mut rows = self.connection.query(SPENT, [since.timestamp_millis()]).await?;
        while let Some(row) = rows.next().await? {
            let (key, hour, cost): (String, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
            if let Some(at) = DateTime::from_timestamp(hour * 3_600, 0) {
                ledger.account(&key).spend(at, u64::try_from(cost).unwrap_or_default());
            }
        }
        Ok(())
    }

    /// Writes rows, all or none.
    pub(crate) async fn write(&mut self, records: &[Record]) -> Result<(), StoreError> {
        let transaction =
            self.connection.transaction_with_behavior(TransactionBehavior::Immediate).await?;
        self.inserts.write(&transaction, records).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Deletes a few rows from before a time. Says whether there may be more.
    pub(crate) async fn delete_before(&mut self, time: DateTime<Utc>) -> Result<bool, StoreError> {
        let most = i64::try_from(DELETED).unwrap_or(i64::MAX);
        let deleted =
            self.connection.execute(DELETE, params![time.timestamp_millis(), most]).await?;
        Ok(deleted >= DELETED as u64)
    }
}

/// Reads the table. Cheap to clone; everything blocks.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    file: PathBuf,
}

impl Store {
    /// The table in this file, which is there.
    pub(super) fn new(file: &Path) -> Self {
        Self { file: file.to_owned() }
    }

    /// Single rows, the newest first.
    pub(super) fn rows(&self, query: &Query) -> Result<Page, StoreError> {
        self.read(async |connection| rows::page(connection, query).await)
    }

    /// What rows add up to, by group.
    pub(super) fn groups(&self, query: &Query) -> Result<Report, StoreError> {
        self.read(async |connection| rows::report(connection, query).await)
    }

    fn read<T>(
        &self,
        read: impl AsyncFnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        runtime.map_err(StoreError::Process)?.block_on(async {
            let connection = connect(&self.file).await?;
            connection.execute_batch("PRAGMA busy_timeout = 5000; PRAGMA query_only = ON;").await?;
            read(&connection).await
        })
    }
}

async fn connect(file: &Path) -> Result<Connection, StoreError> {
    Ok(Builder::new_local(file).build().await?.connect()?)
}

async fn migrate(connection: &Connection) -> Result<(), StoreError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).await?;
    transaction
        .execute(
            "CREATE TABLE IF NOT EXISTS migrations (
                 number INTEGER PRIMARY KEY, checksum TEXT NOT NULL, applied_at INTEGER NOT NULL
             ) STRICT",
            (),
        )
        .await?;
    let mut applied = Vec::new();
    let mut rows =
        transaction.query("SELECT number, checksum FROM migrations ORDER BY number", ()).await?;
    while let Some(row) = rows.next().await? {
        applied.push((row.get::<i64>(0)?, row.get::<String>(1)?));
    }
    drop(rows);
    let known = i64::try_from(MIGRATIONS.len()).expect("few migrations");
    if let Some((found, _)) = applied.last()
        && *found > known
    {
        return Err(StoreError::Newer { found: *found, known });
    }
    for (number, sql) in (1_i64..).zip(MIGRATIONS) {
        let checksum = sha256_hex(sql.as_bytes());
        match applied.iter().find(|(applied, _)| *applied == number) {
            Some((_, stored)) if *stored == checksum => {}
            Some(_) => return Err(StoreError::Migration(number)),
            None => {
                transaction.execute_batch(sql).await?;
                transaction
                    .execute(
                        "INSERT INTO migrations (number, checksum, applied_at) VALUES (?, ?, ?)",
                        params![number, checksum, Timestamp::now().0],
                    )
                    .await?;
            }
        }
    }
    transaction.commit().await?;
    Ok(())
}
