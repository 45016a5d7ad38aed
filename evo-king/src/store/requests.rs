//! What somebody wants of Learning: a new skill, or a repair of one.

use evo_common::clock::Timestamp;
use libsql::params;

use super::{Connection, Result};

/// A version that failed in use wants a better one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Repair<'r> {
    pub(crate) skill: &'r str,
    pub(crate) artifact_id: &'r str,
    pub(crate) text: &'r str,
    /// What its failures have in common.
    pub(crate) cluster: &'r str,
    /// How many calls failed.
    pub(crate) demand: f64,
}

/// Asks for the repair of a version. There is one such request per version: another one raises its
/// demand, and opens it again.
pub(crate) async fn repair(
    connection: &Connection,
    now: Timestamp,
    repair: Repair<'_>,
) -> Result<()> {
    let request_id = format!("req-{}", uuid::Uuid::now_v7().simple());
    connection
        .execute(
            "INSERT INTO requests (request_id, kind, text, skill, artifact_id, cluster, demand,
                 created_at, updated_at)
             VALUES (?1, 'repair', ?2, ?3, ?4, ?5, ?6, ?7, ?7)
             ON CONFLICT (skill, artifact_id) WHERE kind = 'repair' DO UPDATE SET
                 text = excluded.text, cluster = excluded.cluster, status = 'open',
                 demand = demand + excluded.demand, updated_at = excluded.updated_at",
            params![
                request_id,
                repair.text,
                repair.skill,
                repair.artifact_id,
                repair.cluster,
                repair.demand,
                now.0
            ],
        )
        .await?;
    Ok(())
}
