//! Extractors that answer with the error envelope and name what is wrong.

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Query, Request},
    http::{StatusCode, header, request::Parts},
};
use evo_common::clock::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::error::ApiError;

/// A JSON body. An empty one counts as `{}`.
pub(super) struct JsonBody<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let kind =
            request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        if let Some(kind) = kind.filter(|kind| !is_json(kind)) {
            return Err(ApiError::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported_media_type",
                format!("The body's content type is {kind:?}; send application/json."),
            ));
        }
        let bytes = Bytes::from_request(request, state).await?;
        let value: Value = if bytes.is_empty() {
            Value::Object(serde_json::Map::new())
        } else {
            serde_json::from_slice(&bytes).map_err(|error| {
                ApiError::new(
                    StatusCode::BAD_REQUEST,
                    "invalid_json",
                    format!("The body is not JSON: {error}."),
                )
            })?
        };
        // serde would also take a list for a struct, field by field.
        if !value.is_object() {
            return Err(ApiError::field(".", "the body must be a JSON object"));
        }
        evo_common::messages::decode("body", value)
            .map(Self)
            .map_err(|error| ApiError::field(&error.path, error.message))
    }
}

fn is_json(content_type: &str) -> bool {
    let media_type = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    media_type == "application/json" || media_type.ends_with("+json")
}

/// Query parameters.
pub(super) struct QueryParams<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for QueryParams<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Query(params) = Query::from_request_parts(parts, state).await?;
        Ok(Self(params))
    }
}

/// The path parameter of a route that has one.
pub(super) struct PathParam(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for PathParam {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        axum::extract::Path::<String>::from_request_parts(parts, state)
            .await
            .map(|axum::extract::Path(value)| Self(value))
            .map_err(|rejection| ApiError::parameter("path", rejection.body_text()))
    }
}

/// The path parameters of a route that has two.
pub(super) struct PathParams(pub(super) String, pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for PathParams {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        axum::extract::Path::<(String, String)>::from_request_parts(parts, state)
            .await
            .map(|axum::extract::Path((first, second))| Self(first, second))
            .map_err(|rejection| ApiError::parameter("path", rejection.body_text()))
    }
}

/// Most entries in one page.
pub(super) const MAX_LIMIT: u32 = 500;
/// Entries in one page when the caller names no limit.
pub(super) const DEFAULT_LIMIT: u32 = 50;

/// Most entries that may be left out at the beginning.
const MAX_OFFSET: u32 = 10_000;

/// Checks `offset`: whoever wants to go further has a cursor, which does not read what it leaves out.
pub(super) fn offset(offset: Option<u32>) -> Result<u32, ApiError> {
    match offset.unwrap_or(0) {
        offset @ 0..=MAX_OFFSET => Ok(offset),
        other => {
            let message = format!("{other} is more than {MAX_OFFSET}; go on with `cursor`");
            Err(ApiError::parameter("offset", message))
        }
    }
}

/// Reads a moment.
pub(super) fn moment(name: &str, text: Option<String>) -> Result<Option<Timestamp>, ApiError> {
    let Some(text) = text else { return Ok(None) };
    let moment = Timestamp::parse_rfc3339(&text).ok_or_else(|| {
        let message = format!("{text:?} is no moment such as 2026-01-01T00:00:00Z");
        ApiError::parameter(name, message)
    })?;
    Ok(Some(moment))
}

/// Reads a cursor that is a number.
pub(super) fn number_cursor(cursor: Option<String>) -> Result<Option<i64>, ApiError> {
    let Some(text) = cursor else { return Ok(None) };
    let place = text.parse().map_err(|_| {
        ApiError::parameter("cursor", format!("{text:?} is no `next_cursor` of this list"))
    })?;
    Ok(Some(place))
}

/// Checks `limit`.
pub(super) fn limit(limit: Option<u32>) -> Result<u32, ApiError> {
    match limit.unwrap_or(DEFAULT_LIMIT) {
        limit @ 1..=MAX_LIMIT => Ok(limit),
        other => {
            Err(ApiError::parameter("limit", format!("{other} is not between 1 and {MAX_LIMIT}")))
        }
    }
}
