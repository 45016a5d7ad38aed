//! What king knows of its machine.

use axum::{Json, extract::State};
use evo_common::messages::SystemDiscovery;

use crate::state::King;

/// Show the machine that king runs on.
///
/// The system, programs that agents may need, Evo's own programs, and a checklist. It is looked at
/// once; a refresh looks again.
#[utoipa::path(
    get,
    path = "/system-info",
    tag = "system",
    responses((status = 200, description = "What is known.", body = SystemDiscovery)),
)]
pub(super) async fn get_system_info(State(king): State<King>) -> Json<SystemDiscovery> {
    Json(king.system_info.get().await)
}

/// Look at the machine again.
///
/// Runs every known program with its version option; this takes at most a little more than two
/// seconds.
#[utoipa::path(
    post,
    path = "/system-info/refresh",
    tag = "system",
    responses((status = 200, description = "What was found.", body = SystemDiscovery)),
)]
pub(super) async fn refresh_system_info(State(king): State<King>) -> Json<SystemDiscovery> {
    Json(king.system_info.refresh().await)
}
