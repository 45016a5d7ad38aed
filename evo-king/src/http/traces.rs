//! Traces: the receiver of spans over OTLP, and what was received.

use std::borrow::Cow;

use axum::{
    Extension, Json,
    body::Bytes,
    extract::{State, rejection::BytesRejection},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use evo_common::{
    api::{ErrorBody, TraceDetail, TraceList, TraceStatus},
    clock::Timestamp,
    ids::RunId,
    tokens::Scope,
    tracing_context::run_trace_id,
};
use serde::Deserialize;
use tokio::sync::Semaphore;
use utoipa::{IntoParams, ToSchema};

use super::{
    error::{ApiError, Result},
    extract::{PathParam, QueryParams, limit, offset},
    pipeline::about_run,
};
use crate::{
    otlp::{self, Encoding, Unreadable},
    state::King,
    store::{TraceFilter, traces::Accept},
};

/// Instead of a trace's id: the newest trace.
const LATEST: &str = "latest";
/// Hex digits of a trace's id.
const ID_DIGITS: usize = 32;
/// How far the clock of whoever sends spans may be ahead of king's.
const MAX_AHEAD_MS: u64 = 3_600_000;
const NS_PER_MS: i64 = 1_000_000;
/// Requests that are read at the same time: each may take memory many times its size.
static READING: Semaphore = Semaphore::const_new(2);

/// Spans, as OpenTelemetry's exporters send them (OTLP in JSON).
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
#[expect(dead_code, reason = "stands in the document for a message of OTLP")]
pub(super) struct OtlpRequest {
    /// Spans by the process that made them.
    #[schema(value_type = Vec<Object>)]
    resource_spans: (),
}

/// Spans as a binary ExportTraceServiceRequest, and its answer.
#[derive(ToSchema)]
#[schema(value_type = String, format = Binary)]
#[expect(dead_code, reason = "stands in the document for a message of OTLP")]
pub(super) struct OtlpMessage(Vec<u8>);

/// The answer to spans in JSON.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
#[expect(dead_code, reason = "stands in the document for a message of OTLP")]
pub(super) struct OtlpAnswer {
    /// How many spans were refused, and why; absent when none was.
    #[schema(value_type = Option<Object>)]
    partial_success: (),
}

/// Receive spans.
///
/// OTLP over HTTP, as OpenTelemetry's exporters speak it: protobuf or JSON, plain or gzip, at most
/// 8 MiB. A span that is known already stays as it is. Takes the operator, runner or gateway token;
/// the last one only adds to traces that king knows, such as those of its runs.
#[utoipa::path(
    post,
    path = "/v1/traces",
    tag = "traces",
    request_body(
        description = "An ExportTraceServiceRequest.",
        content(
            (OtlpRequest = "application/json", example = json!({"resourceSpans": []})),
            (OtlpMessage = "application/x-protobuf"),
        ),
    ),
    responses((
        status = 200, description = "An ExportTraceServiceResponse, written as the request was.",
        content(
            (OtlpAnswer = "application/json", example = json!({})),
            (OtlpMessage = "application/x-protobuf"),
        ),
    )),
)]
pub(super) async fn receive_spans(
    State(king): State<King>,
    scope: Option<Extension<Scope>>,
    headers: HeaderMap,
    body: std::result::Result<Bytes, BytesRejection>,
) -> Result<Response> {
    let text = |name| headers.get(name).map(|value: &HeaderValue| value.to_str().unwrap_or("?"));
    let kind = text(header::CONTENT_TYPE).unwrap_or_default();
    let encoding = Encoding::of(kind).ok_or_else(|| {
        unsupported(format!(
            "The body's content type is {kind:?}; send application/x-protobuf or application/json."
        ))
    })?;
    let packed = match text(header::CONTENT_ENCODING) {
        None | Some("" | "identity") => false,
        Some(coding) if coding.eq_ignore_ascii_case("gzip") => true,
        Some(coding) => {
            return Err(unsupported(format!(
                "The body's content encoding is {coding:?}; send gzip or none."
            )));
        }
    };
    let body = body?;
    let latest_ns = Timestamp::now().plus_ms(MAX_AHEAD_MS).0.saturating_mul(NS_PER_MS);
    let reading = READING.acquire().await.map_err(ApiError::internal)?;
    let received = tokio::task::spawn_blocking(move || {
        // Held to the end of the work, which goes on when the caller does not.
        let _reading = reading;
        let body = if packed { Cow::Owned(otlp::unpack(&body)?) } else { Cow::Borrowed(&*body) };
        otlp::read(&body, encoding, latest_ns)
    })
    .await
    .map_err(ApiError::internal)??;
    // Every program that talks to a model has the gateway's token.
    let accept = match scope {
        Some(Extension(Scope::Gateway)) => Accept::KnownTraces,
        _ => Accept::All,
    };
    let refused = received.refused + king.store.traces_add(received.spans, accept).await?;
    let kind = HeaderValue::from_static(encoding.content_type());
    Ok(([(header::CONTENT_TYPE, kind)], otlp::answer(refused, encoding)).into_response())
}

fn unsupported(message: String) -> ApiError {
    ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message)
}

impl From<Unreadable> for ApiError {
    fn from(error: Unreadable) -> Self {
        let (status, code) = match error {
            Unreadable::Malformed(_) => (StatusCode::BAD_REQUEST, "invalid_otlp"),
            Unreadable::TooLarge | Unreadable::TooMany => {
                (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large")
            }
        };
        Self::new(status, code, super::error::sentence(&error.to_string()))
    }
}

/// Which traces to list.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ListTraces {
    /// Most traces in the answer, 50 by default.
    #[param(minimum = 1, maximum = 500, default = 50, example = 10)]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    #[param(example = "4102444800000000000-00000000000000000000000000000001")]
    cursor: Option<String>,
    /// How many to leave out at the beginning; `cursor` is faster and misses nothing.
    #[param(minimum = 0, maximum = 10_000, default = 0, example = 0)]
    offset: Option<u32>,
    /// Only traces in which this component took part.
    #[param(example = "evo-king")]
    service: Option<String>,
    /// Only traces that stand so.
    #[param(inline, example = "running")]
    status: Option<TraceStatus>,
    /// Only traces that took so long at least; of one that runs, so far.
    #[param(example = 0)]
    min_duration_ms: Option<u64>,
    /// Only the trace of this run; `latest` for the newest cycle.
    #[param(example = "latest")]
    run_id: Option<String>,
}

/// List the traces.
///
/// Newest first, in pages. Every run has one trace, whose root span king makes itself; other spans
/// come from whoever did the work.
#[utoipa::path(
    get,
    path = "/traces",
    tag = "traces",
    params(ListTraces),
    responses((status = 200, description = "A page of traces.", body = TraceList)),
)]
pub(super) async fn list_traces(
    State(king): State<King>,
    QueryParams(params): QueryParams<ListTraces>,
) -> Result<Json<TraceList>> {
    let filter = TraceFilter {
        limit: limit(params.limit)?,
        cursor: params.cursor.as_deref().map(cursor).transpose()?,
        offset: offset(params.offset)?,
        service: params.service,
        status: params.status,
        min_duration_ms: params.min_duration_ms,
        run_id: about_run(&king, params.run_id).await?.map(Into::into),
    };
    Ok(Json(king.store.traces_list(filter).await?))
}

/// Reads a cursor.
fn cursor(text: &str) -> Result<(i64, String)> {
    text.split_once('-')
        .and_then(|(started, id)| Some((started.parse().ok()?, trace_id(id)?)))
        .ok_or_else(|| {
            ApiError::parameter("cursor", "it is not the `next_cursor` of a page of traces")
        })
}

/// Reads a trace's id.
fn trace_id(text: &str) -> Option<String> {
    let valid = text.len() == ID_DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    valid.then(|| text.to_ascii_lowercase())
}

/// Show one trace.
///
/// The trace and its spans, by the time at which they began. The parent of a span may be one that
/// king does not know (yet).
#[utoipa::path(
    get,
    path = "/traces/{id}",
    tag = "traces",
    params((
        "id" = String, Path,
        description = "The trace's id, or that of its run; `latest` for the newest trace.",
        example = "latest",
    )),
    responses(
        (status = 200, description = "The trace.", body = TraceDetail),
        (status = 404, description = "There is no such trace.", body = ErrorBody),
    ),
)]
pub(super) async fn get_trace(
    State(king): State<King>,
    PathParam(id): PathParam,
) -> Result<Json<TraceDetail>> {
    let trace_id = if id == LATEST {
        king.store
            .traces_latest()
            .await?
            .ok_or_else(|| ApiError::not_found("There is no trace yet; every run makes one."))?
    } else if let Some(trace_id) = trace_id(&id) {
        trace_id
    } else {
        run_trace_id(RunId::parse(id.clone())?.as_str())
    };
    king.store.traces_get(trace_id).await?.map(Json).ok_or_else(|| {
        ApiError::not_found(format!("There is no trace {id}; GET /traces lists them."))
    })
}
