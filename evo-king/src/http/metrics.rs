//! Figures for Prometheus.

use utoipa_axum::router::OpenApiRouter;

use crate::state::King;

/// The routes of this area.
pub(super) fn routes() -> OpenApiRouter<King> {
    OpenApiRouter::new()
}
