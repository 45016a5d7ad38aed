//! The gateway's HTTP face.

use axum::{Json, Router, extract::State, routing::get};
use evo_common::{api::Health, runtime::Shutdown};
use tokio::net::TcpListener;

/// Serves until the shutdown, then until the answers in hand are out.
pub(crate) async fn serve(listener: TcpListener, shutdown: Shutdown) -> std::io::Result<()> {
    let router = router(shutdown.clone());
    axum::serve(listener, router)
        .with_graceful_shutdown(async move { shutdown.cancelled().await })
        .await
}

fn router(shutdown: Shutdown) -> Router {
    Router::new().route("/health", get(health)).with_state(shutdown)
}

/// Says that the process serves; it calls no provider for that.
async fn health(State(shutdown): State<Shutdown>) -> Json<Health> {
    let status = if shutdown.is_cancelled() { "draining" } else { "ok" };
    Json(Health {
        status: status.to_owned(),
        service: "evo-gateway".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    })
}
