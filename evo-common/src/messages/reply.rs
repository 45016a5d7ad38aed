//! King's answers, and the one way in which a payload becomes a typed message.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use utoipa::ToSchema;

use super::text::accept_text;

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReplyStatus {
    /// Applied and durable.
    Accepted,
    /// Had been applied before; nothing was done again.
    Duplicate,
    /// Not applied; `code` and `message` say why. Repeating it unchanged won't help.
    Rejected,
    /// Not applied now; send it again later.
    Retry,
}

/// `king:reply`: the answer to one request (`agent:register`, `pipeline:stage_result`, …).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct Reply {
    /// The `req_id` of the request; empty if it carried none.
    #[serde(default)]
    pub req_id: String,
    /// What became of it.
    pub status: ReplyStatus,
    /// Stable code of a rejection (`stale_attempt`, `invalid_field`, …).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// For people: what is wrong and what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Digest of which skills are in use, in the answers to `agent:register` and `agent:status`. A
    /// runner that knows another one looks again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skills: Option<String>,
}

impl Reply {
    /// The request was applied.
    pub fn accepted(req_id: impl Into<String>) -> Self {
        Self {
            req_id: req_id.into(),
            status: ReplyStatus::Accepted,
            code: None,
            message: None,
            skills: None,
        }
    }

    /// The request had been applied before.
    pub fn duplicate(req_id: impl Into<String>) -> Self {
        Self { status: ReplyStatus::Duplicate, ..Self::accepted(req_id) }
    }

    /// The request can't be applied.
    pub fn rejected(
        req_id: impl Into<String>,
        code: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            req_id: req_id.into(),
            status: ReplyStatus::Rejected,
            code: Some(code.into()),
            message: Some(message.into()),
            skills: None,
        }
    }

    /// The request could not be applied now.
    pub fn retry(req_id: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            req_id: req_id.into(),
            status: ReplyStatus::Retry,
            code: Some("unavailable".to_owned()),
            message: Some(message.into()),
            skills: None,
        }
    }
}

accept_text!(Reply);

/// A payload that is not the message it should be: names the field and what was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{event}: field `{path}`: {message}")]
pub struct DecodeError {
    /// The event whose payload it is.
    pub event: String,
    /// Where in the payload, with dots (`metadata.trigger`); `.` is the payload itself.
    pub path: String,
    /// What is wrong.
    pub message: String,
}

/// Turns a Socket.IO payload into its message. A JSON text instead of an object is accepted, as
/// some clients send one.
pub fn decode<T: DeserializeOwned>(event: &str, payload: Value) -> Result<T, DecodeError> {
    let error =
        |path: String, message: String| DecodeError { event: event.to_owned(), path, message };
    let payload = match payload {
        Value::String(text) => serde_json::from_str(&text)
            .map_err(|e| error(".".to_owned(), format!("a text that is not JSON: {e}")))?,
        other => other,
    };
    serde_path_to_error::deserialize(payload)
        .map_err(|e| error(e.path().to_string(), e.inner().to_string()))
}
