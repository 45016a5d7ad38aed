//! Whether the gateway is up.

use std::sync::Arc;

use axum::{Json, extract::State};
use evo_common::api::Health;

use crate::gateway::Gateway;

/// Say whether the gateway is up.
///
/// Needs no token, and asks no provider. The status is `draining` from the moment the gateway is
/// told to end.
#[utoipa::path(
    get,
    path = "/health",
    tag = "system",
    responses((
        status = 200, description = "The gateway answers.", body = Health,
        example = json!({"status": "ok", "service": "evo-gateway", "version": "0.1.0"}),
    )),
)]
pub(super) async fn get_health(State(gateway): State<Arc<Gateway>>) -> Json<Health> {
    let status = if gateway.shutdown.is_cancelled() { "draining" } else { "ok" };
    Json(Health {
        status: status.to_owned(),
        service: "evo-gateway".to_owned(),
        version: crate::VERSION.to_owned(),
    })
}
