//! Whether king is up.

use axum::{Json, extract::State};
use evo_common::api::Health;

use crate::state::King;

/// Say whether king is up.
///
/// Needs no token. The status is `draining` from the moment king is told to end.
#[utoipa::path(
    get,
    path = "/health",
    tag = "system",
    responses((
        status = 200, description = "King answers.", body = Health,
        example = json!({"status": "ok", "service": "evo-king", "version": "0.1.0"}),
    )),
)]
pub(super) async fn get_health(State(king): State<King>) -> Json<Health> {
    let status = if king.shutdown.is_cancelled() { "draining" } else { "ok" };
    Json(Health {
        status: status.to_owned(),
        service: "evo-king".to_owned(),
        version: crate::VERSION.to_owned(),
    })
}
