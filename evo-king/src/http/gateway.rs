//! The gateway's configuration and models.

use axum::{
    Extension, Json,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use evo_common::{
    api::ErrorBody,
    config::load::{ConfigErrors, Format},
    redact::redact,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    error::{ApiError, Result, sentence},
    extract::{QueryParams, limit},
};
use crate::{
    access::Identity,
    config_sync::{Error, LiveError, Put},
    state::King,
    store::config_history::ConfigChange,
};

/// The routes of this area.
pub(super) fn routes() -> OpenApiRouter<King> {
    OpenApiRouter::new()
        .routes(routes!(get_config, put_config))
        .routes(routes!(list_models))
        .routes(routes!(refresh_models))
        .routes(routes!(list_changes))
}

/// A page of the configuration's history.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ConfigHistory {
    /// The changes, newest first.
    history: Vec<ConfigChange>,
    /// How many are in this page.
    count: usize,
    /// Give it as `cursor` for the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// What a configuration that was sent came to.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ConfigPut {
    /// Always true.
    success: bool,
    /// `applied`; `pending` while the gateway does not answer; `unchanged` when it runs already.
    outcome: String,
    /// SHA-256 of the file as it is now.
    config_hash: String,
    /// The change with what it came to; absent when nothing changed.
    change: Option<ConfigChange>,
}

/// Which changes to list.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ListChanges {
    /// Most changes in the answer, 50 by default.
    #[param(minimum = 1, maximum = 500, default = 50, example = 10)]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// Show the gateway's configuration.
///
/// The configuration as the gateway's file has it: server, providers, routing. The header
/// `x-evo-config-hash` holds the SHA-256 of the file.
#[utoipa::path(
    get,
    path = "/gateway/config",
    tag = "gateway",
    responses(
        (
            status = 200, description = "The configuration.", body = Object,
            example = json!({"server": {"host": "127.0.0.1", "port": 8080}, "providers": []}),
        ),
        (status = 409, description = "King knows no configuration of a gateway.", body = ErrorBody),
        (status = 422, description = "The file is wrong.", body = ErrorBody),
    ),
)]
pub(super) async fn get_config(State(king): State<King>) -> Result<Response> {
    let (config, hash) = king.config_sync.get()?;
    let config = serde_json::to_value(config).map_err(ApiError::internal)?;
    Ok(([("x-evo-config-hash", hash)], Json(config)).into_response())
}

/// Change the gateway's configuration.
///
/// The body is the whole configuration, as JSON or TOML. King checks it, writes it to the gateway's
/// file in the file's own format, tests it with a gateway of its own, and swaps it into the one that
/// serves without dropping a request. One that does not do is refused, and everything is as it was.
#[utoipa::path(
    put,
    path = "/gateway/config",
    tag = "gateway",
    request_body(
        content(
            (Object = "application/json", example = json!({
                "server": {"host": "127.0.0.1", "port": 8080}, "providers": [],
            })),
            (String = "application/toml"),
        ),
    ),
    responses(
        (status = 200, description = "It runs.", body = ConfigPut),
        (status = 202, description = "It does, and runs as soon as the gateway answers.", body = ConfigPut),
        (status = 409, description = "King knows no configuration of a gateway, or may not write it.", body = ErrorBody),
        (status = 422, description = "It is wrong, or a gateway does not run with it.", body = ErrorBody),
        (status = 502, description = "The gateway does not answer.", body = ErrorBody),
    ),
)]
pub(super) async fn put_config(
    State(king): State<King>,
    Extension(caller): Extension<Identity>,
    headers: HeaderMap,
    body: String,
) -> Result<Response> {
    let format = format_of(&headers, &body)?;
    let put = king.config_sync.put(body, format, &caller.name).await?;
    let change = match put {
        Put::Unchanged(config_hash) => {
            let outcome = "unchanged".to_owned();
            let put = ConfigPut { success: true, outcome, config_hash, change: None };
            return Ok(Json(put).into_response());
        }
        Put::Changed(change) => *change,
    };
    if change.outcome == "rejected" {
        let reason = change.reason.clone().unwrap_or_default();
        let details = json!({ "reason": change.code, "change": change });
        let error = ApiError::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "config_rejected",
            sentence(&format!("the configuration is not used: {reason}")),
        );
        return Err(error.with_details(details));
    }
    let status = if change.outcome == "pending" { StatusCode::ACCEPTED } else { StatusCode::OK };
    let put = ConfigPut {
        success: true,
        outcome: change.outcome.clone(),
        config_hash: change.config_hash.clone(),
        change: Some(change),
    };
    Ok((status, Json(put)).into_response())
}

/// List the gateway's models.
///
/// What the gateway answers to `GET /v1/models`: every model that agents can be given.
#[utoipa::path(
    get,
    path = "/gateway/models",
    tag = "gateway",
    responses(
        (
            status = 200, description = "The models.", body = Object,
            example = json!({"object": "list", "data": []}),
        ),
        (status = 409, description = "King knows no gateway.", body = ErrorBody),
        (status = 502, description = "The gateway does not answer.", body = ErrorBody),
    ),
)]
pub(super) async fn list_models(State(king): State<King>) -> Result<Json<Value>> {
    Ok(Json(king.config_sync.models().await?))
}

/// Read the gateway's models again.
///
/// The gateway asks every provider for its list, and answers with the models as they are then.
#[utoipa::path(
    post,
    path = "/gateway/models/refresh",
    tag = "gateway",
    responses(
        (
            status = 200, description = "The models.", body = Object,
            example = json!({"object": "list", "data": []}),
        ),
        (status = 409, description = "King knows no gateway.", body = ErrorBody),
        (status = 502, description = "The gateway does not answer.", body = ErrorBody),
    ),
)]
pub(super) async fn refresh_models(State(king): State<King>) -> Result<Json<Value>> {
    Ok(Json(king.config_sync.refresh_models().await?))
}

/// List changes of the gateway's configuration.
///
/// Newest first: what was changed, by whom, what it came to and why, and where the configuration
/// before it was saved. Values that may be secret are not shown.
#[utoipa::path(
    get,
    path = "/config-history",
    tag = "gateway",
    params(ListChanges),
    responses((status = 200, description = "A page of changes.", body = ConfigHistory)),
)]
pub(super) async fn list_changes(
    State(king): State<King>,
    QueryParams(params): QueryParams<ListChanges>,
) -> Result<Json<ConfigHistory>> {
    let limit = limit(params.limit)?;
    let cursor = params.cursor.map(|cursor| {
        cursor.parse().map_err(|_| {
            ApiError::parameter("cursor", format!("{cursor:?} is none; take `next_cursor`"))
        })
    });
    let mut history = king.store.config_history(limit + 1, cursor.transpose()?).await?;
    let more = history.len() > limit as usize;
    history.truncate(limit as usize);
    let next_cursor = history.last().filter(|_| more).map(|change| change.id.to_string());
    Ok(Json(ConfigHistory { count: history.len(), history, next_cursor }))
}

/// What the content type says; without one, what the body looks like.
fn format_of(headers: &HeaderMap, body: &str) -> Result<Format> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    match kind.map(|kind| kind.split(';').next().unwrap_or_default().trim()) {
        Some("application/json") => Ok(Format::Json),
        Some("application/toml" | "text/toml" | "text/x-toml") => Ok(Format::Toml),
        None | Some("text/plain") if body.trim_start().starts_with('{') => Ok(Format::Json),
        None | Some("text/plain") => Ok(Format::Toml),
        Some(other) => Err(ApiError::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_media_type",
            format!(
                "The body's content type is {other:?}; send application/json or application/toml."
            ),
        )),
    }
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        let conflict =
            |code, text: String| Self::new(StatusCode::CONFLICT, code, sentence(&redact(&text)));
        match error {
            Error::NotConfigured(why) => conflict("gateway_not_configured", why),
            Error::ReadOnly(_) => conflict("config_read_only", error.to_string()),
            Error::Invalid(errors) => invalid(&errors),
            Error::Gateway(error) => {
                let message = sentence(&error.to_string());
                let details = match &error {
                    LiveError::Refused { status, .. } => json!({ "status": status }),
                    LiveError::Unreachable { base, .. } => json!({ "gateway": base }),
                };
                Self::new(StatusCode::BAD_GATEWAY, error.code(), message).with_details(details)
            }
            Error::Io(error) => Self::internal(error),
            Error::Store(error) => error.into(),
        }
    }
}

/// Every fault of a configuration with its key.
fn invalid(errors: &ConfigErrors) -> ApiError {
    let faults: Vec<Value> = errors
        .faults
        .iter()
        .map(|fault| {
            json!({
                "key": fault.key, "message": fault.message,
                "line": fault.position.map(|(line, _)| line),
            })
        })
        .collect();
    ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_config", sentence(&errors.to_string()))
        .with_details(json!({ "faults": faults }))
}
