//! King's HTTP API. Handlers are thin: they check what came in, call the store, the pipeline or the
//! commands, and turn errors into the one envelope.
//!
//! From the outside in, a request passes: the observer (request id, log line, headers), the panic
//! catcher, CORS, the Host and Origin check, whatever the caller of [`router_around`] wraps around the
//! routes (Socket.IO), the token check, the audit log, the time limit, the body limit, the handler.

mod admin;
mod agents;
mod artifacts;
mod audit;
mod auth;
mod crons;
mod debug;
mod detached;
mod error;
mod events;
mod extract;
mod gateway;
mod health;
mod logs;
mod mcp;
mod memories;
mod metrics;
mod middleware;
mod openapi;
mod patience;
mod pipeline;
mod runs;
mod serve;
mod skills;
mod sources;
mod stats;
mod supervisor;
mod system_info;
mod tasks;
mod tokens;
mod traces;

use std::time::Duration;

use axum::{
    Extension, Router,
    extract::DefaultBodyLimit,
    http::{HeaderName, HeaderValue, Method, header},
    middleware as layer,
};
use tower_http::{catch_panic::CatchPanicLayer, cors::CorsLayer};
use utoipa_axum::{
    router::{OpenApiRouter, UtoipaMethodRouterExt as _},
    routes,
};

use crate::{otlp, state::King};

pub(crate) use error::of_invoke;
pub use openapi::document;
pub(crate) use serve::serve;

/// Largest request body, except for artifacts and spans: 1 MiB.
const BODY_LIMIT: usize = 1024 * 1024;
/// Largest upload of an artifact: the largest archive and some room, so that one that is too large
/// is refused by name.
const ARTIFACT_LIMIT: usize = 17 * 1024 * 1024;

/// How long a browser may keep what it was told about an origin.
const CORS_MAX_AGE: Duration = Duration::from_secs(600);

/// Every route with its documentation.
fn routes() -> OpenApiRouter<King> {
    let upload_limit = DefaultBodyLimit::max(ARTIFACT_LIMIT);
    let spans_limit = DefaultBodyLimit::max(otlp::MAX_BODY);
    OpenApiRouter::with_openapi(openapi::base())
        .routes(routes!(health::get_health))
        .routes(routes!(health::get_ready))
        .routes(routes!(openapi::get_openapi))
        .routes(routes!(pipeline::start_run))
        .routes(routes!(pipeline::list_runs))
        .routes(routes!(pipeline::get_run, pipeline::cancel_run))
        .routes(routes!(pipeline::get_cycle_report))
        .routes(routes!(artifacts::get_artifact, artifacts::put_artifact).layer(upload_limit))
        .routes(routes!(events::list_events))
        .routes(routes!(events::stream_events))
        .routes(routes!(sources::list_sources))
        .routes(routes!(system_info::get_system_info))
        .routes(routes!(system_info::refresh_system_info))
        .routes(routes!(stats::get_stats))
        .routes(routes!(traces::receive_spans).layer(spans_limit))
        .routes(routes!(traces::list_traces))
        .routes(routes!(traces::get_trace))
        .merge(skills::routes())
        .merge(mcp::routes())
        .merge(runs::routes())
        .merge(tasks::routes())
        .merge(agents::routes())
        .merge(memories::routes())
        .merge(admin::routes())
        .merge(crons::routes())
        .merge(debug::routes())
        .merge(gateway::routes())
        .merge(supervisor::routes())
        .merge(logs::routes())
        .merge(tokens::routes())
        .merge(metrics::routes())
}

/// The whole API, with something wrapped around its routes that does its own authentication
/// (Socket.IO). The Host and Origin check applies to that too, so that no web page can drive it.
pub fn router_around(king: King, wrap: impl FnOnce(Router) -> Router) -> Router {
    let (routes, _) = routes().split_for_parts();
    let routes = routes
        .fallback(error::no_such_route)
        .method_not_allowed_fallback(error::no_such_method)
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .layer(layer::from_fn(middleware::limit_time))
        .layer(layer::from_fn_with_state(king.clone(), audit::audit))
        .layer(layer::from_fn_with_state(king.clone(), middleware::refuse_while_draining))
        .layer(layer::from_fn_with_state(king.clone(), auth::require_token))
        .layer(layer::from_fn(middleware::name_route))
        .layer(Extension(mcp::service(&king)))
        .with_state(king.clone());
    let cors = cors(&king.config.cors_origins);
    wrap(routes)
        .layer(layer::from_fn_with_state(king.clone(), auth::check_host_and_origin))
        .layer(cors)
        .layer(CatchPanicLayer::custom(error::panicked))
        .layer(layer::from_fn_with_state(king, middleware::observe))
}

/// Lets the pages of the listed origins read answers; without any, browsers keep them from every page.
fn cors(origins: &[String]) -> CorsLayer {
    if origins.is_empty() {
        return CorsLayer::new();
    }
    let origins: Vec<HeaderValue> =
        origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()).collect();
    CorsLayer::new()
        .allow_origin(origins)
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
        .allow_headers([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            HeaderName::from_static("x-api-key"),
            HeaderName::from_static("last-event-id"),
        ])
        .expose_headers([HeaderName::from_static("x-request-id")])
        .max_age(CORS_MAX_AGE)
}

#[cfg(test)]
mod tests;
