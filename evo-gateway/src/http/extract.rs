//! What handlers take out of requests, with errors in the dialect of who asks.

use axum::{
    body::Bytes,
    extract::{
        FromRequestParts, Path, Query,
        rejection::{BytesRejection, PathRejection},
    },
    http::{HeaderMap, request::Parts},
};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::error::{ApiError, dialect_of};
use crate::proxy::Refused;

/// Most entries in one page.
const MAX_LIMIT: u32 = 500;
/// Entries in one page when the caller names no limit.
const DEFAULT_LIMIT: u32 = 50;

/// Query parameters.
pub(super) struct QueryParams<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for QueryParams<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let query = Query::from_request_parts(parts, state).await;
        let Query(params) = query.map_err(|rejection| {
            let message = format!("The query can't be read: {}.", rejection.body_text());
            refused(&parts.headers, Refused::new(400, "invalid_request", message))
        })?;
        Ok(Self(params))
    }
}

/// What stands in the path.
pub(super) struct PathParam(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for PathParam {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Path(param) =
            Path::from_request_parts(parts, state).await.map_err(|rejection: PathRejection| {
                let message = format!("The path can't be read: {}.", rejection.body_text());
                let dialect = dialect_of(parts.uri.path(), &parts.headers);
                ApiError(dialect, Refused::new(400, "invalid_request", message))
            })?;
        Ok(Self(param))
    }
}

/// Checks `limit`.
pub(super) fn limit(headers: &HeaderMap, limit: Option<u32>) -> Result<u32, ApiError> {
    match limit.unwrap_or(DEFAULT_LIMIT) {
        limit @ 1..=MAX_LIMIT => Ok(limit),
        other => {
            let message = format!("`limit`: {other} is not between 1 and {MAX_LIMIT}.");
            Err(wrong(headers, "limit", message))
        }
    }
}

/// The JSON object of a body.
pub(super) fn object(
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Map<String, Value>, ApiError> {
    let refuse =
        |status, code, message: String| refused(headers, Refused::new(status, code, message));
    let body = body.map_err(|error| refuse(413, "request_too_large", error.body_text()))?;
    match serde_json::from_slice(&body) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(refuse(400, "invalid_request", "The body must be a JSON object.".to_owned())),
        Err(error) => {
            Err(refuse(400, "invalid_request", format!("The body is not valid JSON: {error}.")))
        }
    }
}

/// 400 about a field or a parameter.
pub(super) fn wrong(headers: &HeaderMap, field: &str, message: String) -> ApiError {
    let field = Some(field.to_owned());
    refused(headers, Refused { field, ..Refused::new(400, "invalid_request", message) })
}

/// 403.
pub(super) fn forbidden(headers: &HeaderMap, needed: &str) -> ApiError {
    let message = format!("This needs {needed}; `tokens.toml` in Evo's data folder has it.");
    refused(headers, Refused::new(403, "forbidden", message))
}

/// A refusal in the dialect of who asks.
pub(super) fn refused(headers: &HeaderMap, refused: Refused) -> ApiError {
    ApiError(dialect_of("", headers), refused)
}
