//! Jobs by the clock.

use evo_common::clock::Timestamp;
use libsql::params;
use serde_json::Value;

use super::{Connection, Result, Unreadable, damaged, row};

/// A job.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct CronJob {
    pub(crate) name: String,
    pub(crate) job: String,
    pub(crate) description: String,
    pub(crate) schedule: String,
    pub(crate) timezone: String,
    pub(crate) enabled: bool,
    pub(crate) missed: String,
    pub(crate) params: Value,
    pub(crate) builtin: bool,
    /// When it runs next.
    pub(crate) due_at: Option<Timestamp>,
    pub(crate) last_run: Option<Timestamp>,
    pub(crate) last_status: Option<String>,
    pub(crate) last_error: Option<String>,
    pub(crate) last_result: Option<Value>,
    pub(crate) run_count: i64,
    pub(crate) created_at: Timestamp,
    pub(crate) updated_at: Timestamp,
}

const COLUMNS: &str =
    "name, job, description, schedule, timezone, enabled, missed, params, builtin,
    due_at, last_run, last_status, last_error, last_result, run_count, created_at, updated_at";

fn read(row: &libsql::Row) -> Result<CronJob> {
    read_all(row).map_err(|error| match row.get::<String>(0) {
        Ok(name) => error.about(&damaged::JOBS, &name),
        Err(_) => error,
    })
}

fn read_all(row: &libsql::Row) -> Result<CronJob> {
    let moment = |column| Ok::<_, super::Error>(row.get::<Option<i64>>(column)?.map(Timestamp));
    Ok(CronJob {
        name: row.get(0)?,
        job: row.get(1)?,
        description: row.get(2)?,
        schedule: row.get(3)?,
        timezone: row.get(4)?,
        enabled: row.get::<i64>(5)? != 0,
        missed: row.get(6)?,
        params: row::json(row, 7)?,
        builtin: row.get::<i64>(8)? != 0,
        due_at: moment(9)?,
        last_run: moment(10)?,
        last_status: row.get(11)?,
        last_error: row.get(12)?,
        last_result: row::optional_json(row, 13)?,
        run_count: row.get(14)?,
        created_at: Timestamp(row.get(15)?),
        updated_at: Timestamp(row.get(16)?),
    })
}

/// Inserts a job; says whether there was none of its name.
pub(crate) async fn insert_new(connection: &Connection, job: &CronJob) -> Result<bool> {
    let sql = format!(
        "INSERT OR IGNORE INTO cron_jobs ({COLUMNS})
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
    );
    let inserted = connection
        .execute(
            &sql,
            params![
                job.name.as_str(),
                job.job.as_str(),
                job.description.as_str(),
                job.schedule.as_str(),
                job.timezone.as_str(),
                job.enabled,
                job.missed.as_str(),
                row::to_json(&job.params),
                job.builtin,
                job.due_at.map(|at| at.0),
                job.last_run.map(|at| at.0),
                job.last_status.as_deref(),
                job.last_error.as_deref(),
                job.last_result.as_ref().map(row::to_json),
                job.run_count,
                job.created_at.0,
                job.updated_at.0,
            ],
        )
        .await?;
    Ok(inserted > 0)
}

/// Stores what may change of a job.
pub(crate) async fn update(connection: &Connection, job: &CronJob) -> Result<()> {
    connection
        .execute(
            "UPDATE cron_jobs SET description = ?, schedule = ?, timezone = ?, enabled = ?,
                 missed = ?, params = ?, due_at = ?, last_run = ?, last_status = ?, last_error = ?,
                 last_result = ?, run_count = ?, updated_at = ?
             WHERE name = ?",
            params![
                job.description.as_str(),
                job.schedule.as_str(),
                job.timezone.as_str(),
                job.enabled,
                job.missed.as_str(),
                row::to_json(&job.params),
                job.due_at.map(|at| at.0),
                job.last_run.map(|at| at.0),
                job.last_status.as_deref(),
                job.last_error.as_deref(),
                job.last_result.as_ref().map(row::to_json),
                job.run_count,
                job.updated_at.0,
                job.name.as_str(),
            ],
        )
        .await?;
    Ok(())
}

/// A job that can't be read is switched off, without what can't be read of it.
pub(crate) async fn set_aside(connection: &Connection, bad: &Unreadable) -> Result<bool> {
    let damages = damaged::JOBS.repair(connection, &bad.id).await?;
    if damages.is_empty() {
        return Ok(false);
    }
    let error = format!("{}: {}", Unreadable::CODE, damaged::told(&damages));
    connection
        .execute(
            "UPDATE cron_jobs SET enabled = 0, due_at = NULL, last_status = 'failed',
                 last_error = ? WHERE name = ?",
            params![error, bad.id.as_str()],
        )
        .await?;
    Ok(true)
}

/// Deletes a job.
pub(crate) async fn delete(connection: &Connection, name: &str) -> Result<()> {
    connection.execute("DELETE FROM cron_jobs WHERE name = ?", params![name]).await?;
    Ok(())
}

/// One job.
pub(crate) async fn get(connection: &Connection, name: &str) -> Result<Option<CronJob>> {
    let sql = format!("SELECT {COLUMNS} FROM cron_jobs WHERE name = ?");
    row::first(connection, &sql, params![name], read).await
}

/// Every job, by name; there are few.
pub(crate) async fn list(connection: &Connection) -> Result<Vec<CronJob>> {
    let sql = format!("SELECT {COLUMNS} FROM cron_jobs ORDER BY name");
    row::all(connection, &sql, (), read).await
}

/// Jobs whose moment has come, the longest due first.
pub(crate) async fn due(connection: &Connection, now: Timestamp) -> Result<Vec<String>> {
    row::all(
        connection,
        "SELECT name FROM cron_jobs WHERE due_at <= ? ORDER BY due_at",
        params![now.0],
        |row| Ok(row.get(0)?),
    )
    .await
}

/// The next moment of any job.
pub(crate) async fn next_due(connection: &Connection) -> Result<Option<Timestamp>> {
    let sql = "SELECT MIN(due_at) FROM cron_jobs WHERE due_at IS NOT NULL";
    let next = row::first(connection, sql, (), |row| Ok(row.get::<Option<i64>>(0)?)).await?;
    Ok(next.flatten().map(Timestamp))
}
