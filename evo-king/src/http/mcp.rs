//! The MCP endpoint.

use std::{sync::Arc, time::Duration};

use axum::{
    Extension,
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, Response, StatusCode, header},
    response::IntoResponse as _,
};
use evo_common::api::ErrorBody;
use futures_util::StreamExt as _;
use rmcp::transport::streamable_http_server::{
    StreamableHttpServerConfig, StreamableHttpService,
    session::local::{LocalSessionManager, SessionConfig},
};
use tokio::sync::Semaphore;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{BODY_LIMIT, error::ApiError, middleware::RequestId};
use crate::{access::Identity, mcp::Server, state::King};

/// A comment is sent this often on a stream, so that both ends notice a dead connection.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How long a session may take for its first message.
const BEGIN: Duration = Duration::from_secs(10);
/// Longest text of an answer that is no JSON.
const MAX_REFUSAL: usize = 4 * 1024;

/// What serves MCP. Cheap to clone.
pub(super) type Service = StreamableHttpService<Server, LocalSessionManager>;

/// The routes of this area.
pub(super) fn routes() -> OpenApiRouter<King> {
    OpenApiRouter::new().routes(routes!(mcp_message, mcp_stream, mcp_end))
}

/// What serves MCP for a king.
pub(super) fn service(king: &King) -> Service {
    let limits = &king.config.limits;
    let mut sessions = SessionConfig::default();
    sessions.keep_alive = Some(Duration::from_millis(limits.mcp_idle_ms));
    sessions.init_timeout = Some(BEGIN);
    let mut manager = LocalSessionManager::default();
    manager.session_config = sessions;
    let config = StreamableHttpServerConfig::default()
        .with_sse_keep_alive(Some(KEEP_ALIVE))
        .with_max_request_body_bytes(BODY_LIMIT)
        .with_cancellation_token(king.shutdown.child_token())
        // `auth::check_host_and_origin` looks at every request before.
        .disable_allowed_hosts();
    let places = Arc::new(Semaphore::new(limits.mcp_sessions as usize));
    let king = king.clone();
    let server = move || Ok(Server::new(king.clone(), Arc::clone(&places)));
    StreamableHttpService::new(server, Arc::new(manager), config)
}

/// Send a message over MCP.
///
/// The Model Context Protocol over streamable HTTP: any MCP client lists the skills in use as tools,
/// calls them, and hears when they change. The body is one JSON-RPC message; the first one is
/// `initialize`, whose answer has the header `Mcp-Session-Id` that later messages carry. Clients of
/// protocol 2026-07-28 need no session. A client whose address names a `bundle` sees and calls the skills
/// of that bundle only.
#[utoipa::path(
    post,
    path = "/mcp",
    tag = "mcp",
    params((
        "bundle" = Option<String>, Query,
        description = "The name of a source, or `SOURCE/TAG` with a tag of its document.",
        example = "evo-king",
    )),
    request_body(
        content = Object, description = "A JSON-RPC message.",
        example = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"}),
    ),
    responses(
        (status = 200, description = "The answer.", content(
            (Object = "application/json"), (String = "text/event-stream"),
        )),
        (status = 202, description = "A notification was taken.", body = String, content_type = "text/plain"),
        (status = 400, description = "A message that only a session may send.", body = ErrorBody),
        (status = 404, description = "The session has ended; begin another one.", body = ErrorBody),
        (status = 406, description = "The client must accept JSON and event streams.", body = ErrorBody),
        (status = 413, description = "The message is too large.", body = ErrorBody),
        (status = 415, description = "The message is no JSON.", body = ErrorBody),
    ),
)]
async fn mcp_message(
    State(king): State<King>,
    Extension(service): Extension<Service>,
    request: Request,
) -> Response<Body> {
    serve(king, service, request).await
}

/// Follow an MCP session.
///
/// Server-sent events with what the server says by itself: above all that the list of tools has
/// changed.
#[utoipa::path(
    get,
    path = "/mcp",
    tag = "mcp",
    responses(
        (status = 200, description = "What the server says.", body = String, content_type = "text/event-stream"),
        (status = 404, description = "The session has ended; begin another one.", body = ErrorBody),
        (status = 406, description = "The client must accept event streams.", body = ErrorBody),
    ),
)]
async fn mcp_stream(
    State(king): State<King>,
    Extension(service): Extension<Service>,
    request: Request,
) -> Response<Body> {
    serve(king, service, request).await
}

/// End an MCP session.
///
/// Its streams end, and its place is free.
#[utoipa::path(
    delete,
    path = "/mcp",
    tag = "mcp",
    responses(
        (status = 202, description = "It has ended.", body = String, content_type = "text/plain"),
        (status = 400, description = "The header names no session.", body = ErrorBody),
    ),
)]
async fn mcp_end(
    State(king): State<King>,
    Extension(service): Extension<Service>,
    request: Request,
) -> Response<Body> {
    serve(king, service, request).await
}

async fn serve(king: King, service: Service, mut request: Request) -> Response<Body> {
    // A call has this id in the audit log.
    if let Some(id) = request.extensions().get::<RequestId>().map(RequestId::value) {
        request.headers_mut().insert("x-request-id", id);
    }
    let identity = request.extensions().get::<Identity>().cloned();
    let (parts, body) = service.handle(request).await.into_parts();
    let body = Body::new(body);
    if is_stream(&parts.headers) {
        // A stream ends with its token.
        let Some(identity) = identity else { return Response::from_parts(parts, body) };
        let keyring = king.keyring.clone();
        let ended = async move { keyring.ended(&identity.token_id).await };
        let stream = body.into_data_stream().take_until(Box::pin(ended));
        return Response::from_parts(parts, Body::from_stream(stream));
    }
    if parts.status.is_success() || parts.headers.get(header::CONTENT_TYPE).is_some_and(is_json) {
        return Response::from_parts(parts, body);
    }
    let text = axum::body::to_bytes(body, MAX_REFUSAL).await.unwrap_or_default();
    let mut refusal = refusal(parts.status, &String::from_utf8_lossy(&text)).into_response();
    if let Some(allow) = parts.headers.get(header::ALLOW) {
        refusal.headers_mut().insert(header::ALLOW, allow.clone());
    }
    refusal
}

fn is_stream(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    kind.is_some_and(|kind| kind.starts_with("text/event-stream"))
}

fn is_json(kind: &header::HeaderValue) -> bool {
    kind.to_str().is_ok_and(|kind| kind.starts_with("application/json"))
}

/// A refusal of the protocol's library in the one shape of king's errors.
fn refusal(status: StatusCode, text: &str) -> ApiError {
    let (code, message) = match status {
        StatusCode::NOT_FOUND => (
            "no_such_session",
            "There is no such MCP session, or it has ended; send `initialize` to begin another one.",
        ),
        StatusCode::NOT_ACCEPTABLE => (
            "not_acceptable",
            "An MCP client accepts `application/json` and `text/event-stream`; a GET only the latter.",
        ),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => (
            "unsupported_media_type",
            "An MCP message is JSON; send it with `Content-Type: application/json`.",
        ),
        StatusCode::PAYLOAD_TOO_LARGE => {
            ("body_too_large", "An MCP message may have 1 MiB; send less.")
        }
        StatusCode::METHOD_NOT_ALLOWED => (
            "method_not_allowed",
            "This protocol version has no such request; the header Allow lists what there is.",
        ),
        StatusCode::BAD_REQUEST if text.contains("Session ID") => (
            "session_required",
            "The message needs a session: send `initialize` first, and its `Mcp-Session-Id` with \
             everything after.",
        ),
        status if status.is_server_error() => return ApiError::internal(text.to_owned()),
        status => return ApiError::new(status, "invalid_mcp_request", text.to_owned()),
    };
    ApiError::new(status, code, message)
}
