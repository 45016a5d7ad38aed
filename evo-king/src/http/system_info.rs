//! What king knows of its machine.

use axum::{Json, extract::State};
use evo_common::messages::SystemDiscovery;
use serde_json::json;

use super::error::ApiError;
use crate::{state::King, system_info::REFRESHED};

/// Show the machine that king runs on.
///
/// The system, programs that agents may need, Evo's own programs, and a checklist. It is looked at
/// once; a refresh looks again.
#[utoipa::path(
    get,
    path = "/system-info",
    tag = "system",
    responses((
        status = 200, description = "What is known.", body = SystemDiscovery,
        example = json!(example()),
    )),
)]
pub(super) async fn get_system_info(State(king): State<King>) -> Json<SystemDiscovery> {
    Json(king.system_info.get().await)
}

/// Look at the machine again.
///
/// Runs every known program with its version option; this takes at most a little more than two
/// seconds. Whoever is connected over Socket.IO gets what was found as `king:system_info`.
#[utoipa::path(
    post,
    path = "/system-info/refresh",
    tag = "system",
    responses((
        status = 200, description = "What was found.", body = SystemDiscovery,
        example = json!(example()),
    )),
)]
pub(super) async fn refresh_system_info(
    State(king): State<King>,
) -> Result<Json<SystemDiscovery>, ApiError> {
    let found = king.system_info.refresh().await;
    // The relay tells it to everybody.
    king.store.events_append(REFRESHED, None, json!({})).await?;
    Ok(Json(found))
}

/// A machine on which nothing was looked for yet.
fn example() -> serde_json::Value {
    serde_json::json!({
        "discovered_at": "2026-01-31T12:00:00.000Z", "king_version": "0.1.0",
        "system": {
            "os": "linux", "os_version": "Debian GNU/Linux 12", "arch": "x86_64",
            "hostname": "machine", "cpu_count": 2, "memory_bytes": 8_589_934_592_u64,
            "home_dir": "/home/me", "evo_home": "/home/me/.evo",
        },
        "tools": [], "evo_components": [], "checklist": [],
    })
}
