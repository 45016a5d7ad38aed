//! Whether king is up, and whether it takes work.

use axum::{Json, extract::State, http::StatusCode};
use evo_common::api::Health;

use crate::state::King;

/// Say whether king is up.
///
/// Needs no token. From the moment king is told to end the status is `draining`, with the HTTP
/// status 503.
#[utoipa::path(
    get,
    path = "/health",
    tag = "system",
    responses(
        (
            status = 200, description = "King answers.", body = Health,
            example = json!({"status": "ok", "service": "evo-king", "version": "0.1.0"}),
        ),
        (status = 503, description = "King is about to end.", body = Health),
    ),
)]
pub(super) async fn get_health(State(king): State<King>) -> (StatusCode, Json<Health>) {
    state_of(&king)
}

/// Say whether king takes work.
///
/// Needs no token. 200 when king gives out work and its database answers; 503 when it is about to
/// end or to start anew, or when its database does not answer.
#[utoipa::path(
    get,
    path = "/ready",
    tag = "system",
    responses(
        (
            status = 200, description = "King takes work.", body = Health,
            example = json!({"status": "ok", "service": "evo-king", "version": "0.1.0"}),
        ),
        (status = 503, description = "It does not now.", body = Health),
    ),
)]
pub(super) async fn get_ready(State(king): State<King>) -> (StatusCode, Json<Health>) {
    let answer = state_of(&king);
    if answer.0 == StatusCode::OK && king.store.is_well().await.is_err() {
        return (StatusCode::SERVICE_UNAVAILABLE, Json(health("database_failed")));
    }
    answer
}

fn state_of(king: &King) -> (StatusCode, Json<Health>) {
    if king.draining.is_cancelled() {
        return (StatusCode::SERVICE_UNAVAILABLE, Json(health("draining")));
    }
    (StatusCode::OK, Json(health("ok")))
}

fn health(status: &str) -> Health {
    Health {
        status: status.to_owned(),
        service: "evo-king".to_owned(),
        version: crate::VERSION.to_owned(),
    }
}
