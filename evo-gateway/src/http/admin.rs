//! The running configuration: what it is, and another one in its place.

use std::sync::Arc;

use axum::{
    Extension, Json,
    body::Bytes,
    extract::{State, rejection::BytesRejection},
    http::{HeaderMap, header},
};
use chrono::SecondsFormat;
use evo_common::config::load::Format;
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    error::ApiError,
    extract::{forbidden, refused},
};
use crate::{
    auth::Caller,
    gateway::{Gateway, Live, SwapError},
    proxy::Refused,
};

/// The running configuration, without anything that is secret.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RunningConfig {
    /// SHA-256 of its text: of the file's bytes, or of the body that was sent.
    config_hash: String,
    /// Since when it runs (RFC 3339).
    since: String,
    /// Names of the providers, in their order.
    providers: Vec<String>,
    /// How many.
    count: usize,
}

impl RunningConfig {
    fn of(live: &Live) -> Self {
        let providers: Vec<String> =
            live.providers.iter().map(|provider| provider.name.to_string()).collect();
        Self {
            config_hash: live.digest.clone(),
            since: live.since.to_rfc3339_opts(SecondsFormat::Millis, true),
            count: providers.len(),
            providers,
        }
    }
}

/// What became of a configuration that was sent.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Taken {
    /// Always true.
    success: bool,
    /// The configuration that runs now.
    #[serde(flatten)]
    running: RunningConfig,
    /// SHA-256 of the one before.
    previous_hash: String,
    /// Keys that only a restart of the gateway takes over: `server` when it names another address,
    /// `usage.enabled` when it is another.
    restart_needed_for: Vec<&'static str>,
}

/// Show the running configuration.
///
/// Its SHA-256, since when it runs, and the names of its providers. No keys, no addresses.
#[utoipa::path(
    get,
    path = "/admin/config",
    tag = "system",
    responses((
        status = 200, description = "The running configuration.", body = RunningConfig,
        example = json!({
            "config_hash": "0f4636c78f65d3639ece5a064b5ae753e3408614a14fb18ab4d7540d2c248543",
            "since": "2026-01-31T12:00:00.000Z", "providers": ["openai"], "count": 1,
        }),
    )),
)]
pub(super) async fn get_config(
    State(gateway): State<Arc<Gateway>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
) -> Result<Json<RunningConfig>, ApiError> {
    if matches!(caller, Caller::Key(_)) {
        return Err(forbidden(&headers, "the gateway's or the operator's token"));
    }
    Ok(Json(RunningConfig::of(&gateway.live())))
}

/// Swap the running configuration.
///
/// The body is a whole configuration, as `gateway.toml` or `gateway.json` holds it. It is checked
/// strictly, and then taken over at once or not at all: requests and streams in hand end with the
/// providers that they began with, and connections to providers stay. The gateway's file is not
/// written; at its next start the gateway reads that.
#[utoipa::path(
    put,
    path = "/admin/config",
    tag = "system",
    request_body(
        content(
            (Object = "application/json", example = json!({
                "server": {"host": "127.0.0.1", "port": 8080}, "providers": [],
            })),
            (String = "application/toml"),
        ),
    ),
    responses(
        (status = 200, description = "It runs now.", body = Taken),
        (status = 422, description = "The configuration is wrong; the message names each key at fault.", body = super::openapi::ErrorBody),
    ),
)]
pub(super) async fn put_config(
    State(gateway): State<Arc<Gateway>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Taken>, ApiError> {
    if !matches!(caller, Caller::Operator | Caller::Anybody) {
        return Err(forbidden(&headers, "the operator's token"));
    }
    let refuse =
        |status, code, message: String| refused(&headers, Refused::new(status, code, message));
    let body = body.map_err(|error| refuse(413, "request_too_large", error.body_text()))?;
    let text = String::from_utf8(body.into())
        .map_err(|_| refuse(400, "invalid_request", "The body is not UTF-8.".to_owned()))?;
    let format = format_of(&headers, &text);
    // It reads the machine's certificates.
    let swap = tokio::task::spawn_blocking(move || gateway.swap(&text, format)).await;
    let swap = match swap {
        Ok(Ok(swap)) => swap,
        Ok(Err(SwapError::Wrong(errors))) => {
            let field = errors.faults.first().map(|fault| fault.key.clone());
            let field = field.filter(|key| !key.is_empty());
            let wrong = Refused::new(422, "invalid_config", errors.to_string());
            return Err(refused(&headers, Refused { field, ..wrong }));
        }
        Ok(Err(SwapError::Unusable(error))) => {
            return Err(refuse(500, "config_not_usable", error.to_string()));
        }
        Err(error) => return Err(refuse(500, "internal", format!("The swap failed: {error}."))),
    };
    let running = RunningConfig::of(&swap.live);
    tracing::info!(
        config.hash = %running.config_hash,
        providers = running.count,
        caller = caller.name(),
        "The configuration {} runs now",
        running.config_hash
    );
    Ok(Json(Taken {
        success: true,
        running,
        previous_hash: swap.previous,
        restart_needed_for: swap.restart_needed_for,
    }))
}

/// What the content type says, else what the text looks like.
fn format_of(headers: &HeaderMap, text: &str) -> Format {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    match kind {
        Some(kind) if kind.contains("json") => Format::Json,
        Some(kind) if kind.contains("toml") => Format::Toml,
        _ if text.trim_start().starts_with('{') => Format::Json,
        _ => Format::Toml,
    }
}
