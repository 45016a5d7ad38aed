//! Numbers at a glance.

use std::collections::BTreeMap;

use axum::{Json, extract::State};
use evo_common::clock::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use super::error::Result;
use crate::state::King;

/// How many there are of everything.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Stats {
    /// How long king has been up.
    uptime_seconds: u64,
    /// The newest event's place in the log.
    latest_seq: i64,
    /// Runs by state: `running`, `completed`, `failed`, `timed_out`.
    runs: BTreeMap<String, u64>,
    /// Skills by state: `candidate`, `active`, `held`, `discarded`, `failed`.
    skills: BTreeMap<String, u64>,
    /// Agents that are not offline.
    agents_online: u64,
    /// Size of the database; absent for a remote one.
    database_bytes: Option<u64>,
}

/// Show the numbers.
///
/// Runs and skills by state, agents online, the newest event, uptime and the size of the database.
#[utoipa::path(
    get,
    path = "/stats",
    tag = "system",
    responses((
        status = 200, description = "The numbers.", body = Stats,
        example = json!({
            "uptime_seconds": 3, "latest_seq": 0, "runs": {}, "skills": {}, "agents_online": 0,
            "database_bytes": 200_704,
        }),
    )),
)]
pub(super) async fn get_stats(State(king): State<King>) -> Result<Json<Stats>> {
    let latest_seq = *king.store.committed().borrow();
    let counts = king.store.counts().await?;
    Ok(Json(Stats {
        uptime_seconds: Timestamp::now().ms_since(king.started_at) / 1_000,
        latest_seq,
        runs: counts.runs,
        skills: counts.skills,
        agents_online: counts.agents_online,
        database_bytes: counts.database_bytes,
    }))
}
