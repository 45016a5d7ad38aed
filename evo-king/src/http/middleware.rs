//! What happens to every request.

use std::time::Duration;

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse as _, Response},
};

use super::error::{ApiError, Fault};
use crate::{failpoints, state::King};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Longest request id that is taken over from a caller.
const MAX_REQUEST_ID: usize = 128;
/// Until the answer begins. Long answers (the event stream) may go on after that.
const TIME_LIMIT: Duration = Duration::from_secs(30);
/// The same for routes that wait for a runner, or for a test of a configuration, which have
/// deadlines of their own.
const RUNNER_TIME_LIMIT: Duration = Duration::from_secs(90);
/// Those routes.
const RUNNER_ROUTES: &[&str] =
    &["/skills/{name}/invoke", "/mcp", "/agents/{agent_id}/command", "/gateway/config"];
/// The same for routes that read and write whole files.
const FILE_TIME_LIMIT: Duration = Duration::from_secs(3_600);
/// Those routes.
const FILE_ROUTES: &[&str] = &["/admin/backup", "/admin/restore"];

/// What still works while king drains, of what changes something: what ends attempts.
const DRAIN_ROUTES: &[&str] = &["/artifacts/{digest}", "/v1/traces"];
/// When whoever was refused because king drains may ask the next one.
const BACK_AFTER: HeaderValue = HeaderValue::from_static("5");

/// Refuses what would begin something when king is about to end.
pub(super) async fn refuse_while_draining(
    State(king): State<King>,
    request: Request,
    next: Next,
) -> Response {
    let safe = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    let ends_work = request
        .extensions()
        .get::<MatchedPath>()
        .is_some_and(|path| DRAIN_ROUTES.contains(&path.as_str()));
    if safe || ends_work || !king.draining.is_cancelled() {
        return next.run(request).await;
    }
    let mut response = ApiError::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "draining",
        "King is about to end and begins nothing new; try again when it is back.",
    )
    .into_response();
    response.headers_mut().insert(header::RETRY_AFTER, BACK_AFTER);
    response
}

/// The request's id, for whoever handles it.
#[derive(Debug, Clone)]
pub(super) struct RequestId(HeaderValue);

impl RequestId {
    /// The id as a header.
    pub(super) fn value(&self) -> HeaderValue {
        self.0.clone()
    }

    /// The id as a text.
    pub(super) fn text(&self) -> String {
        self.0.to_str().unwrap_or_default().to_owned()
    }
}

/// Gives every answer the request's id and writes one log line: for debugging when the answer is
/// what it should be or the caller's own mistake, as an error when king has a fault.
pub(super) async fn observe(
    State(king): State<King>,
    mut request: Request,
    next: Next,
) -> Response {
    let started = tokio::time::Instant::now();
    let id = request_id(&request);
    request.extensions_mut().insert(RequestId(id.clone()));
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let mut response = next.run(request).await;
    if method != Method::GET {
        failpoints::passed("before an answer over HTTP");
    }
    let status = response.status().as_u16();
    let route = response.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    king.metrics.answered(method.as_str(), route, status, started.elapsed());
    tracing::debug!(
        request.id = ?id,
        http.method = %method,
        http.path = %path,
        http.status = status,
        duration_ms = started.elapsed().as_secs_f64() * 1_000.0,
        "{method} {path} {status}"
    );
    if let Some(Fault(cause)) = response.extensions().get() {
        tracing::error!(
            request.id = ?id,
            http.method = %method,
            http.path = %path,
            error = %cause,
            "{method} {path} failed: {cause}"
        );
    }
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, id);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

fn request_id(request: &Request) -> HeaderValue {
    request
        .headers()
        .get(REQUEST_ID)
        .filter(|id| !id.is_empty() && id.len() <= MAX_REQUEST_ID && id.to_str().is_ok())
        .cloned()
        .unwrap_or_else(|| {
            HeaderValue::try_from(format!("req-{}", uuid::Uuid::now_v7().simple()))
                .expect("hex digits make a header value")
        })
}

/// Tells [`observe`] which route answered.
pub(super) async fn name_route(request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().cloned();
    let mut response = next.run(request).await;
    if let Some(route) = route {
        response.extensions_mut().insert(route);
    }
    response
}

/// Ends requests whose answer does not begin in time.
pub(super) async fn limit_time(request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let limit = match route {
        route if RUNNER_ROUTES.contains(&route) => RUNNER_TIME_LIMIT,
        route if FILE_ROUTES.contains(&route) => FILE_TIME_LIMIT,
        _ => TIME_LIMIT,
    };
    within(limit, next.run(request)).await
}

/// The answer, or a refusal when it does not begin in time.
pub(super) async fn within(limit: Duration, answer: impl Future<Output = Response>) -> Response {
    tokio::time::timeout(limit, answer).await.unwrap_or_else(|_| {
        ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "timeout",
            format!("The answer took longer than {} s; try again.", limit.as_secs()),
        )
        .into_response()
    })
}
