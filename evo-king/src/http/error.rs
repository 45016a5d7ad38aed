//! The one shape of every error answer, and where internal errors become one.

use std::{any::Any, borrow::Cow};

use axum::{
    Json,
    extract::{
        OriginalUri,
        rejection::{BytesRejection, QueryRejection},
    },
    http::{Method, StatusCode},
    response::{IntoResponse, Response},
};
use evo_common::{
    api::{ErrorBody, ErrorDetail},
    ids::InvalidId,
};
use serde_json::Value;

use crate::{
    artifacts,
    commands::{CommandError, InvokeError},
    error::chain,
    memory, pipeline, store, tasks,
};

pub(super) type Result<T> = std::result::Result<T, ApiError>;

/// An error answer.
#[derive(Debug)]
pub(super) struct ApiError(Box<Parts>);

#[derive(Debug)]
struct Parts {
    status: StatusCode,
    code: Cow<'static, str>,
    message: String,
    details: Option<Value>,
    /// What is behind it; logged and never sent.
    cause: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl ApiError {
    pub(super) fn new(
        status: StatusCode,
        code: impl Into<Cow<'static, str>>,
        message: impl Into<String>,
    ) -> Self {
        let (code, message) = (code.into(), message.into());
        Self(Box::new(Parts { status, code, message, details: None, cause: None }))
    }

    /// There is no such thing.
    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    /// A path, query or header parameter is not what it should be.
    pub(super) fn parameter(name: &str, message: impl std::fmt::Display) -> Self {
        let message = sentence(&format!("Parameter `{name}`: {message}"));
        Self::new(StatusCode::BAD_REQUEST, "invalid_parameter", message)
            .with_details(serde_json::json!({ "parameter": name }))
    }

    /// A part of the body is not what it should be.
    pub(super) fn field(name: &str, message: impl std::fmt::Display) -> Self {
        let message = sentence(&format!("Field `{name}`: {message}"));
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_field", message)
            .with_details(serde_json::json!({ "field": name }))
    }

    /// King's own fault. The caller learns that, the log learns why.
    pub(super) fn internal(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::fault("internal", cause)
    }

    fn fault(
        code: &'static str,
        cause: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        let message = "King could not do this because of a fault of its own; its log has the \
                       reason under this request's `x-request-id`.";
        let mut error = Self::new(StatusCode::INTERNAL_SERVER_ERROR, code, message);
        error.0.cause = Some(cause.into());
        error
    }

    /// The same with something for programs to read.
    pub(super) fn with_details(mut self, details: Value) -> Self {
        self.0.details = Some(details);
        self
    }
}

impl ApiError {
    /// The envelope, for an answer whose status is sent already. What is behind a fault of king's own
    /// goes to the log.
    pub(super) fn into_body(self) -> ErrorBody {
        let Parts { code, message, details, cause, .. } = *self.0;
        if let Some(cause) = cause {
            let error = chain(&*cause);
            tracing::error!(%error, "A call failed because of a fault: {error}");
        }
        ErrorBody { error: ErrorDetail { code: code.into_owned(), message, details } }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let Parts { status, code, message, details, cause } = *self.0;
        let error = ErrorDetail { code: code.into_owned(), message, details };
        let mut response = (status, Json(ErrorBody { error })).into_response();
        if let Some(cause) = cause {
            response.extensions_mut().insert(Fault(chain(&*cause)));
        }
        response
    }
}

/// What is behind an answer that says that king has a fault. Rides on the response to the log.
#[derive(Debug, Clone)]
pub(super) struct Fault(pub(super) String);

impl From<store::Error> for ApiError {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::Closed => shutting_down(),
            other => Self::internal(other),
        }
    }
}

/// King no longer takes work.
pub(super) fn shutting_down() -> ApiError {
    ApiError::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "shutting_down",
        "King is shutting down; try again when it is back.",
    )
}

impl From<artifacts::Error> for ApiError {
    fn from(error: artifacts::Error) -> Self {
        match error {
            artifacts::Error::Illegal(_) => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, error.code(), sentence(&chain(&error)))
            }
            artifacts::Error::Corrupt { .. } | artifacts::Error::Io { .. } => {
                Self::fault(error.code(), error)
            }
        }
    }
}

impl From<pipeline::Error> for ApiError {
    fn from(error: pipeline::Error) -> Self {
        match error {
            pipeline::Error::Store(error) => error.into(),
            pipeline::Error::UnknownRun(_) => Self::not_found(sentence(&error.to_string())),
            pipeline::Error::Rejected(rejection) => {
                Self::new(StatusCode::CONFLICT, rejection.code(), sentence(&rejection.to_string()))
            }
            pipeline::Error::Refused { code, message } => {
                Self::new(StatusCode::CONFLICT, code, sentence(&message))
            }
            pipeline::Error::KeyReused { .. } => Self::new(
                StatusCode::CONFLICT,
                "idempotency_key_reused",
                sentence(&error.to_string()),
            ),
            pipeline::Error::Invalid { field, message } => Self::field(field, message),
        }
    }
}

impl From<tasks::Error> for ApiError {
    fn from(error: tasks::Error) -> Self {
        let (code, message) = (error.code(), sentence(&error.to_string()));
        match error {
            tasks::Error::Store(error) => error.into(),
            tasks::Error::Pipeline(error) => error.into(),
            tasks::Error::Unknown(_) => Self::not_found(message),
            tasks::Error::Invalid { field, message } => Self::field(field, message),
            tasks::Error::NotYours { .. } => Self::new(StatusCode::FORBIDDEN, code, message),
            tasks::Error::Rejected(_)
            | tasks::Error::OfRun { .. }
            | tasks::Error::NotAsked(_)
            | tasks::Error::KeyReused { .. } => Self::new(StatusCode::CONFLICT, code, message),
        }
    }
}

impl From<memory::Error> for ApiError {
    fn from(error: memory::Error) -> Self {
        match error {
            memory::Error::Store(error) => error.into(),
            memory::Error::NotFound(_) => Self::not_found(sentence(&error.to_string())),
            memory::Error::Invalid { field, message } => Self::field(&field, message),
            memory::Error::Full { .. } => {
                Self::new(StatusCode::CONFLICT, "memory_full", sentence(&error.to_string()))
            }
        }
    }
}

/// The code and the message of a call that failed.
pub(crate) fn of_invoke(error: InvokeError) -> ErrorDetail {
    ApiError::from(error).into_body().error
}

impl From<InvokeError> for ApiError {
    fn from(error: InvokeError) -> Self {
        let message = sentence(&error.to_string());
        let (status, code) = match error {
            InvokeError::NotFound(_) => (StatusCode::NOT_FOUND, "not_found".into()),
            InvokeError::NotActive { .. } => (StatusCode::CONFLICT, "not_active".into()),
            InvokeError::NoRunner => (StatusCode::SERVICE_UNAVAILABLE, "no_runner".into()),
            InvokeError::Busy(_) => (StatusCode::SERVICE_UNAVAILABLE, "busy".into()),
            InvokeError::Timeout(_) => (StatusCode::GATEWAY_TIMEOUT, "timeout".into()),
            InvokeError::InvalidInput(_) => {
                (StatusCode::UNPROCESSABLE_ENTITY, "invalid_input".into())
            }
            InvokeError::Failed { code, .. } => (StatusCode::BAD_GATEWAY, Cow::Owned(code)),
            InvokeError::Store(error) => return error.into(),
        };
        Self::new(status, code, message)
    }
}

impl From<CommandError> for ApiError {
    fn from(error: CommandError) -> Self {
        let message = sentence(&error.to_string());
        let (status, code) = match error {
            CommandError::UnknownAgent(_) => (StatusCode::NOT_FOUND, "not_found".into()),
            CommandError::NotConnected(_) => (StatusCode::CONFLICT, "not_connected".into()),
            CommandError::Timeout { .. } => (StatusCode::GATEWAY_TIMEOUT, "timeout".into()),
            CommandError::Invalid { field, message } => return Self::field(field, message),
            CommandError::Failed { code, .. } => (StatusCode::BAD_GATEWAY, Cow::Owned(code)),
            CommandError::Store(error) => return error.into(),
        };
        Self::new(status, code, message)
    }
}

/// A message as a sentence.
pub(super) fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
    let end = if text.ends_with(['.', '!', '?']) { "" } else { "." };
    format!("{first}{}{end}", chars.as_str())
}

impl From<InvalidId> for ApiError {
    fn from(error: InvalidId) -> Self {
        Self::parameter(
            &error.kind.replace(' ', "_"),
            format!("{:?} is not valid, {}", error.value, error.reason),
        )
    }
}

impl From<QueryRejection> for ApiError {
    fn from(rejection: QueryRejection) -> Self {
        let text = rejection.body_text();
        // "Failed to deserialize query string: limit: invalid digit found in string"
        let problem = text.split_once(": ").map_or(&*text, |(_, problem)| problem);
        match problem.split_once(": ") {
            Some((name, message)) => Self::parameter(name, message),
            None => Self::new(StatusCode::BAD_REQUEST, "invalid_parameter", sentence(problem)),
        }
    }
}

impl From<BytesRejection> for ApiError {
    fn from(rejection: BytesRejection) -> Self {
        if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
            return Self::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "body_too_large",
                "The request body is too large: 17 MiB for an artifact or a tree of skills, 8 MiB for \
                 spans and 1 MiB for everything else is the most.",
            );
        }
        Self::new(StatusCode::BAD_REQUEST, "body_unreadable", "The request body could not be read.")
    }
}

/// Answers for paths that don't exist.
pub(super) async fn no_such_route(method: Method, OriginalUri(uri): OriginalUri) -> ApiError {
    ApiError::new(
        StatusCode::NOT_FOUND,
        "no_such_route",
        format!("There is no {method} {}; GET /openapi.json lists every route.", uri.path()),
    )
}

/// Answers for methods that a path doesn't have. The header `Allow` lists those that it has.
pub(super) async fn no_such_method(method: Method, OriginalUri(uri): OriginalUri) -> ApiError {
    ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        format!("{} has no {method}; the header Allow lists its methods.", uri.path()),
    )
}

/// Answers for a handler that panicked.
#[expect(clippy::needless_pass_by_value, reason = "the signature that CatchPanicLayer asks for")]
pub(super) fn panicked(panic: Box<dyn Any + Send + 'static>) -> Response {
    let text = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "panic".to_owned());
    ApiError::internal(format!("a handler panicked: {text}")).into_response()
}
