//! Failing calls that have their error and the shape of their inputs in common.

use evo_common::clock::Timestamp;
use libsql::{Row, params};

use super::{Connection, Result, row};

/// Such calls.
#[derive(Debug, Clone)]
pub(crate) struct Cluster {
    pub(crate) cluster_id: String,
    pub(crate) skill: String,
    /// The version that failed last.
    pub(crate) artifact_id: Option<String>,
    pub(crate) code: String,
    pub(crate) error: String,
    pub(crate) shape: String,
    pub(crate) failures: u64,
    pub(crate) rank: f64,
    /// When the last ones failed since a request was made of them, oldest first.
    pub(crate) recent: Vec<i64>,
    pub(crate) request_id: Option<String>,
    pub(crate) first_at: Timestamp,
    pub(crate) last_at: Timestamp,
}

const COLUMNS: &str = "SELECT cluster_id, skill, artifact_id, code, error, shape, failures, rank,
    recent, request_id, first_at, last_at FROM failure_clusters";

fn read(row: &Row) -> Result<Cluster> {
    Ok(Cluster {
        cluster_id: row.get(0)?,
        skill: row.get(1)?,
        artifact_id: row.get(2)?,
        code: row.get(3)?,
        error: row.get(4)?,
        shape: row.get(5)?,
        failures: row.get(6)?,
        rank: row.get(7)?,
        recent: row::json(row, 8)?,
        request_id: row.get(9)?,
        first_at: Timestamp(row.get(10)?),
        last_at: Timestamp(row.get(11)?),
    })
}

/// One cluster.
pub(crate) async fn load(connection: &Connection, cluster_id: &str) -> Result<Option<Cluster>> {
    let sql = format!("{COLUMNS} WHERE cluster_id = ?");
    row::first(connection, &sql, params![cluster_id], read).await
}

/// Writes a cluster.
pub(crate) async fn save(connection: &Connection, cluster: &Cluster) -> Result<()> {
    connection
        .execute(
            "INSERT OR REPLACE INTO failure_clusters (cluster_id, skill, artifact_id, code, error,
                 shape, failures, rank, recent, request_id, first_at, last_at)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            params![
                cluster.cluster_id.as_str(),
                cluster.skill.as_str(),
                cluster.artifact_id.as_deref(),
                cluster.code.as_str(),
                cluster.error.as_str(),
                cluster.shape.as_str(),
                i64::try_from(cluster.failures).unwrap_or(i64::MAX),
                cluster.rank,
                row::to_json(&cluster.recent),
                cluster.request_id.as_deref(),
                cluster.first_at.0,
                cluster.last_at.0
            ],
        )
        .await?;
    Ok(())
}

/// Leaves room for one more: of too many the lightest goes.
pub(crate) async fn make_room(connection: &Connection, most: u32) -> Result<()> {
    let count = row::number(connection, "SELECT COUNT(*) FROM failure_clusters", ()).await?;
    if count >= i64::from(most) {
        connection
            .execute(
                "DELETE FROM failure_clusters WHERE cluster_id IN
                     (SELECT cluster_id FROM failure_clusters ORDER BY rank LIMIT ?)",
                params![count - i64::from(most) + 1],
            )
            .await?;
    }
    Ok(())
}

/// What a request was made of, the heaviest first.
pub(crate) async fn of_request(
    connection: &Connection,
    request_id: &str,
    limit: i64,
) -> Result<Vec<Cluster>> {
    let sql = format!("{COLUMNS} WHERE request_id = ? ORDER BY rank DESC LIMIT ?");
    row::all(connection, &sql, params![request_id, limit], read).await
}
