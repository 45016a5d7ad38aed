//! Errors in Google's words.

use serde_json::{Value, json};

use crate::{
    convert::error::read_any,
    model::{ApiError, ErrorKind},
    wire::gemini as wire,
};

/// The type of the detail that names a reason.
const ERROR_INFO: &str = "type.googleapis.com/google.rpc.ErrorInfo";
/// With which of Google's reasons a key is wrong, although the status says 400.
const WRONG_KEY: [&str; 2] = ["API_KEY_INVALID", "API_KEY_EXPIRED"];

/// Reads an error answer. Where an array was asked for, the error may stand in one.
pub(super) fn read(status: u16, body: &[u8]) -> ApiError {
    let value: Value = serde_json::from_slice(body).unwrap_or_default();
    let value = match value {
        Value::Array(mut list) if !list.is_empty() => list.swap_remove(0),
        value => value,
    };
    let mut failure = match &value {
        Value::Null => read_any(status, body),
        value => read_any(status, value.to_string().as_bytes()),
    };
    let details = value.pointer("/error/details").and_then(Value::as_array);
    let mut reasons = details.into_iter().flatten().filter_map(|detail| detail["reason"].as_str());
    let reason = reasons.next();
    if reason.is_some_and(|reason| WRONG_KEY.contains(&reason)) {
        failure.kind = ErrorKind::Authentication;
    }
    let too_long = failure.kind == ErrorKind::InvalidRequest
        && failure.message.contains("exceeds the maximum number of tokens");
    if too_long {
        failure.code = Some("context_length_exceeded".to_owned());
    }
    failure.code = failure.code.or_else(|| reason.map(str::to_owned));
    failure
}

/// Writes an error. Its code for programs stands where Google has its reasons.
pub(super) fn write(failure: ApiError) -> wire::ErrorBody {
    let (code, status) = match failure.kind {
        ErrorKind::InvalidRequest => (400, "INVALID_ARGUMENT"),
        ErrorKind::TooLarge => (413, "INVALID_ARGUMENT"),
        ErrorKind::Authentication => (401, "UNAUTHENTICATED"),
        ErrorKind::Billing => (402, "FAILED_PRECONDITION"),
        ErrorKind::Permission => (403, "PERMISSION_DENIED"),
        ErrorKind::NotFound => (404, "NOT_FOUND"),
        ErrorKind::RateLimit => (429, "RESOURCE_EXHAUSTED"),
        ErrorKind::Internal => (500, "INTERNAL"),
        ErrorKind::Timeout => (504, "DEADLINE_EXCEEDED"),
        ErrorKind::Overloaded => (503, "UNAVAILABLE"),
    };
    let info = failure.code.map(|reason| match failure.param {
        Some(field) => {
            json!({"@type": ERROR_INFO, "reason": reason, "domain": "evo", "metadata": {"field": field}})
        }
        None => json!({"@type": ERROR_INFO, "reason": reason, "domain": "evo"}),
    });
    let details = info.into_iter().collect();
    wire::ErrorBody { error: wire::ErrorDetail { code, message: failure.message, status, details } }
}
