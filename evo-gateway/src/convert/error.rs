//! Errors of providers, and of the gateway itself, in the shape that the client's SDK reads.

use serde_json::Value;

use super::{ConvertError, Dialect};
use crate::{
    model::{ApiError, ErrorKind},
    wire::{anthropic, openai},
};

/// How much of a body that is no JSON is worth showing.
const MAX_TEXT_CHARS: usize = 2_000;

/// The word by which clients know that the conversation became too long.
const CONTEXT_LENGTH_EXCEEDED: &str = "context_length_exceeded";
/// How Anthropic begins the message of the same error; its clients look for this.
const PROMPT_TOO_LONG: &str = "prompt is too long";

/// An error answer of a provider as an error body in the dialect `front`. The HTTP status decides what
/// kind of error it is; the provider's message is kept, also when the body is no JSON.
pub fn error(provider: Dialect, front: Dialect, status: u16, body: &[u8]) -> Vec<u8> {
    front.protocol().write_error(provider.protocol().read_error(status, body))
}

/// The same as the only event of a stream.
pub fn error_event(provider: Dialect, front: Dialect, status: u16, body: &[u8]) -> Vec<u8> {
    front.protocol().last_words(provider.protocol().read_error(status, body), false)
}

/// What an error answer of a provider says, for people.
pub fn reason(provider: Dialect, status: u16, body: &[u8]) -> String {
    provider.protocol().read_error(status, body).message
}

/// The event that tells a caller inside a stream, between two events, that it broke off. `begun` says
/// whether anything of the stream went out before.
pub fn last_words(front: Dialect, error: ApiError, begun: bool) -> Vec<u8> {
    front.protocol().last_words(error, begun)
}

/// An error answer, by its shape.
pub(super) fn read_any(status: u16, body: &[u8]) -> ApiError {
    match serde_json::from_slice::<Value>(body) {
        Ok(value) => read(&value, ErrorKind::of_status(status)),
        Err(_) => of_text(status, body),
    }
}

/// An error of the gateway's own as the only event of a stream.
pub fn own_event(front: Dialect, status: u16, code: &str, message: &str) -> Vec<u8> {
    let error = ApiError {
        kind: ErrorKind::of_status(status),
        message: message.to_owned(),
        code: Some(code.to_owned()),
        param: None,
    };
    front.protocol().last_words(error, false)
}

/// An error of the gateway itself. `code` is a word for programs, which is in all dialects' bodies;
/// `param` is the field of the request that it is about.
pub fn own_error(
    front: Dialect,
    status: u16,
    code: &str,
    message: &str,
    param: Option<&str>,
) -> Vec<u8> {
    front.protocol().write_error(ApiError {
        kind: ErrorKind::of_status(status),
        message: message.to_owned(),
        code: Some(code.to_owned()),
        param: param.map(str::to_owned),
    })
}

/// What a provider said instead of an answer, if `body` is an error.
pub(super) fn in_place_of_answer(body: &[u8]) -> Option<ConvertError> {
    let value: Value = serde_json::from_slice(body).ok()?;
    let error = value.get("error").filter(|error| !error.is_null())?;
    Some(ConvertError::new("error", read_in_stream(error).message))
}

/// Reads the `error` of an event inside a stream, where no status says its kind.
pub(super) fn read_in_stream(error: &Value) -> ApiError {
    let status = error.get("code").or_else(|| error.get("status")).and_then(Value::as_u64);
    let kind = match status.and_then(|status| u16::try_from(status).ok()) {
        Some(status) => ErrorKind::of_status(status),
        None => {
            let named = |key: &str| error.get(key).and_then(Value::as_str).and_then(kind_named);
            named("type").or_else(|| named("code")).unwrap_or(ErrorKind::Internal)
        }
    };
    read(error, kind)
}

fn read(body: &Value, kind: ErrorKind) -> ApiError {
    let error = body.get("error").filter(|error| !error.is_null()).unwrap_or(body);
    let text = |key: &str| error.get(key).and_then(Value::as_str).map(str::to_owned);
    let message = error
        .as_str()
        .map(str::to_owned)
        .or_else(|| text("message"))
        .or_else(|| text("detail"))
        .or_else(|| body.get("message").and_then(Value::as_str).map(str::to_owned))
        .unwrap_or_else(|| body.to_string());
    let code = text("code").or_else(|| {
        let too_long = message.starts_with(PROMPT_TOO_LONG)
            || message.contains("exceed context limit")
            || message.contains("maximum context length");
        (kind == ErrorKind::InvalidRequest && too_long).then(|| CONTEXT_LENGTH_EXCEEDED.to_owned())
    });
    ApiError { kind, message, code, param: text("param") }
}

fn of_text(status: u16, body: &[u8]) -> ApiError {
    let text = String::from_utf8_lossy(body);
    let text: String = text.trim().chars().take(MAX_TEXT_CHARS).collect();
    let message = if text.is_empty() {
        format!("the provider answered {status} without saying why")
    } else {
        text
    };
    ApiError { kind: ErrorKind::of_status(status), message, code: None, param: None }
}

/// The kind by a type of Anthropic's or `OpenAI`'s, or by a code of the latter's Responses, whose failures
/// have no type.
fn kind_named(name: &str) -> Option<ErrorKind> {
    Some(match name {
        "invalid_request_error" | "invalid_prompt" | "context_length_exceeded" => {
            ErrorKind::InvalidRequest
        }
        "authentication_error" => ErrorKind::Authentication,
        "billing_error" | "insufficient_quota" => ErrorKind::Billing,
        "permission_error" => ErrorKind::Permission,
        "not_found_error" => ErrorKind::NotFound,
        "request_too_large" => ErrorKind::TooLarge,
        "rate_limit_error" | "rate_limit_exceeded" | "requests" | "tokens" => ErrorKind::RateLimit,
        "timeout_error" => ErrorKind::Timeout,
        "overloaded_error" | "server_is_overloaded" | "slow_down" => ErrorKind::Overloaded,
        "api_error" | "server_error" => ErrorKind::Internal,
        _ => return None,
    })
}

pub(super) fn write_openai(error: ApiError) -> openai::ErrorBody {
    // OpenAI has fewer types than there are kinds; the code tells the others apart.
    let (kind, code) = match error.kind {
        ErrorKind::InvalidRequest => ("invalid_request_error", None),
        ErrorKind::Authentication => ("authentication_error", None),
        ErrorKind::Billing => ("insufficient_quota", Some("billing_error")),
        ErrorKind::Permission => ("permission_error", None),
        ErrorKind::NotFound => ("not_found_error", None),
        ErrorKind::TooLarge => ("invalid_request_error", Some("request_too_large")),
        ErrorKind::RateLimit => ("rate_limit_error", Some("rate_limit_exceeded")),
        ErrorKind::Internal => ("server_error", None),
        ErrorKind::Timeout => ("server_error", Some("timeout_error")),
        ErrorKind::Overloaded => ("server_error", Some("overloaded_error")),
    };
    openai::ErrorBody {
        error: openai::ErrorDetail {
            message: error.message,
            kind,
            param: error.param,
            code: error.code.or_else(|| code.map(str::to_owned)),
        },
    }
}

pub(super) fn write_anthropic(error: ApiError) -> anthropic::ErrorBody {
    let kind = match error.kind {
        ErrorKind::InvalidRequest => "invalid_request_error",
        ErrorKind::Authentication => "authentication_error",
        ErrorKind::Billing => "billing_error",
        ErrorKind::Permission => "permission_error",
        ErrorKind::NotFound => "not_found_error",
        ErrorKind::TooLarge => "request_too_large",
        ErrorKind::RateLimit => "rate_limit_error",
        ErrorKind::Internal => "api_error",
        ErrorKind::Timeout => "timeout_error",
        ErrorKind::Overloaded => "overloaded_error",
    };
    let too_long = error.code.as_deref() == Some(CONTEXT_LENGTH_EXCEEDED);
    let message = if too_long && !error.message.contains(PROMPT_TOO_LONG) {
        format!("{PROMPT_TOO_LONG}: {}", error.message)
    } else {
        error.message
    };
    let error = anthropic::ErrorDetail { kind, message, code: error.code };
    anthropic::ErrorBody { kind: "error", error }
}
