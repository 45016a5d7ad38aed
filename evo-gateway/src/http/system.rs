//! Whether the gateway is up.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::{HeaderValue, header},
    response::{IntoResponse as _, Response},
};
use evo_common::api::Health;
use serde::Serialize;
use utoipa::ToSchema;

use crate::gateway::Gateway;

/// What this is.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Root {
    /// `evo-gateway`.
    service: &'static str,
    /// Where all routes are described.
    document: &'static str,
}

/// Say what this is.
///
/// Ollama's clients ask it, with HEAD, to learn whether somebody is there.
#[utoipa::path(
    get,
    path = "/",
    tag = "system",
    responses((
        status = 200, description = "The gateway is there.", body = Root,
        example = json!({"service": "evo-gateway", "document": "/openapi.json"}),
    )),
)]
pub(super) async fn get_root() -> Json<Root> {
    Json(Root { service: "evo-gateway", document: "/openapi.json" })
}

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

/// Show the figures.
///
/// In OpenMetrics' text format, for Prometheus: requests by route, provider, status and outcome, how
/// long they took, how many are under way; tokens, cost, times and breakers by provider and model.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "system",
    responses((
        status = 200, description = "The figures.", body = String,
        content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8",
        example = json!("# EOF\n"),
    )),
)]
pub(super) async fn get_metrics(State(gateway): State<Arc<Gateway>>) -> Response {
    let kind = HeaderValue::from_static(evo_common::metrics::CONTENT_TYPE);
    let text = gateway.log.metrics().text(&gateway.live().providers);
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}
