//! Answers to what is none of the gateway's routes, and errors in the dialect of who asks.

use std::sync::Arc;

use axum::{
    Extension,
    body::Body,
    extract::{OriginalUri, State},
    http::{HeaderMap, Method, Response, Uri},
    response::IntoResponse,
};

use super::{fronts::decoded, google, models};
use crate::{
    auth::Caller,
    convert::Dialect,
    gateway::Gateway,
    proxy::{Refused, answer::Answer},
};

/// An error in the dialect of who asks.
pub(super) struct ApiError(pub(super) Dialect, pub(super) Refused);

impl IntoResponse for ApiError {
    fn into_response(self) -> axum::response::Response {
        let (parts, answer) = self.1.answer(self.0).into_parts();
        let body = match answer {
            Answer::Whole(Some(bytes)) => Body::from(bytes),
            _ => Body::empty(),
        };
        Response::from_parts(parts, body)
    }
}

/// The dialect of who asks, by where it asks. Anthropic's clients also name the version of its API.
pub(super) fn dialect_of(path: &str, headers: &HeaderMap) -> Dialect {
    if path.starts_with("/v1beta/") {
        Dialect::Gemini
    } else if path.starts_with("/api/") {
        Dialect::OllamaChat
    } else if path.starts_with("/v1/messages") || headers.contains_key("anthropic-version") {
        Dialect::Anthropic
    } else {
        Dialect::OpenAiChat
    }
}

/// 404, unless it is a model whose name holds a slash.
pub(super) async fn no_such_route(
    State(gateway): State<Arc<Gateway>>,
    Extension(caller): Extension<Caller>,
    method: Method,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
) -> axum::response::Response {
    if matches!(method, Method::GET | Method::HEAD) {
        if let Some(name) = uri.path().strip_prefix("/v1/models/") {
            return models::answer_model(&gateway, &caller, &headers, &decoded(name));
        }
        if let Some(name) = uri.path().strip_prefix("/v1beta/models/") {
            return google::answer_model(&gateway, &caller, &decoded(name));
        }
    }
    let message =
        format!("There is no {method} {}; GET /openapi.json lists what there is.", uri.path());
    let dialect = dialect_of(uri.path(), &headers);
    ApiError(dialect, Refused::new(404, "no_such_route", message)).into_response()
}

/// 405.
pub(super) async fn no_such_method(
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> impl IntoResponse {
    ApiError(dialect_of(uri.path(), &headers), wrong_method(&method, uri.path()))
}

/// The route is there, the method is not.
pub(super) fn wrong_method(method: &Method, path: &str) -> Refused {
    let message = format!("{path} does not take {method}; GET /openapi.json says what it takes.");
    Refused::new(405, "method_not_allowed", message)
}
