//! Figures for Prometheus.

use axum::{
    extract::State,
    http::{HeaderValue, header},
    response::{IntoResponse as _, Response},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::error::Result;
use crate::state::King;

/// The routes of this area.
pub(super) fn routes() -> OpenApiRouter<King> {
    OpenApiRouter::new().routes(routes!(get_metrics))
}

/// Show the figures.
///
/// In OpenMetrics' text format, for Prometheus: requests by route and status, runs that wait by
/// stage, attempts that agents have, connected agents by role, the size of the database.
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
async fn get_metrics(State(king): State<King>) -> Result<Response> {
    let now = king.store.on_the_way().await?;
    let last_seq = *king.store.committed().borrow();
    let text = king.metrics.text(&now, &king.registry, king.started_at, last_seq);
    let kind = HeaderValue::from_static(evo_common::metrics::CONTENT_TYPE);
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}
