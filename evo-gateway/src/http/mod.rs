//! The gateway's HTTP face. Each request passes, from the outside in: the log entry and the request
//! id, the Host and Origin check, the token check, and then either the proxy, for the
//! routes that ask models, or the router for everything else.

mod admin;
mod error;
mod extract;
mod fronts;
mod google;
mod health;
mod keys;
mod models;
mod ollama;
mod openapi;
mod origin;
mod providers;
mod proxied;
mod serve;
mod service;
mod system;
#[cfg(test)]
mod tests;
mod usage;

use std::sync::Arc;

use axum::Router;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::gateway::Gateway;

pub use openapi::document;
pub(crate) use serve::{Ends, Workers};

/// Every route with its documentation, but those of the proxy.
fn routes() -> OpenApiRouter<Arc<Gateway>> {
    OpenApiRouter::with_openapi(openapi::base())
        .routes(routes!(system::get_root))
        .routes(routes!(system::get_health))
        .routes(routes!(health::get_provider_health))
        .routes(routes!(system::get_metrics))
        .routes(routes!(openapi::get_openapi))
        .routes(routes!(models::list_models))
        .routes(routes!(models::get_model))
        .routes(routes!(models::refresh_models))
        .routes(routes!(google::list_google_models))
        .routes(routes!(google::get_google_model))
        .routes(routes!(ollama::list_tags))
        .routes(routes!(ollama::show_model))
        .routes(routes!(ollama::list_loaded))
        .routes(routes!(ollama::get_version))
        .routes(routes!(providers::list_providers))
        .routes(routes!(admin::get_config, admin::put_config))
        .routes(routes!(keys::list_keys, keys::create_key))
        .routes(routes!(keys::change_key, keys::revoke_key))
        .routes(routes!(usage::get_usage))
}

fn router(gateway: Arc<Gateway>) -> Router {
    let (routes, _) = routes().split_for_parts();
    routes
        .fallback(error::no_such_route)
        .method_not_allowed_fallback(error::no_such_method)
        .with_state(gateway)
}
