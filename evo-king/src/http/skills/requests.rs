//! What somebody wants of Learning. Held-out examples are counted and never shown: a runner may read
//! here.

use axum::{Extension, Json, extract::State, http::StatusCode};
use evo_common::{
    api::{
        CancelRequest, ErrorBody, NewRequest, RequestAsked, RequestCancelled, RequestDetail,
        RequestList, RequestStatus,
    },
    clock::Timestamp,
    stage::RequestKind,
};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    access::Identity,
    http::{
        error::{ApiError, Result, sentence},
        extract::{JsonBody, PathParam, QueryParams, limit},
    },
    skills::requests::{self, Error},
    state::King,
    store::{
        Connection,
        requests::views::{self, RequestFilter},
    },
};

/// The name of the newest request.
const LATEST: &str = "latest";

/// The routes of this area.
pub(super) fn routes() -> OpenApiRouter<King> {
    OpenApiRouter::new()
        .routes(routes!(list_requests, ask_for_skill))
        .routes(routes!(get_request))
        .routes(routes!(cancel_request))
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        let message = sentence(&error.to_string());
        match error {
            Error::Unknown(_) => Self::not_found(message),
            Error::Invalid { field, message } => Self::field(&field, message),
            Error::KeyReused { .. } => {
                Self::new(StatusCode::CONFLICT, "idempotency_key_reused", message)
            }
            Error::Closed { .. } => Self::new(StatusCode::CONFLICT, "request_closed", message),
            Error::Pipeline(error) => error.into(),
            Error::Store(error) => error.into(),
        }
    }
}

/// Which requests to list.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ListRequests {
    /// Most requests in the answer, 50 by default.
    #[param(minimum = 1, maximum = 500, default = 50, example = 10)]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    #[param(example = "req-z")]
    cursor: Option<String>,
    /// Only requests that have come so far.
    #[param(inline, example = "open")]
    status: Option<RequestStatus>,
    /// Only requests of this kind.
    #[param(inline, example = "new")]
    kind: Option<RequestKind>,
}

/// List requests for skills.
///
/// What people asked for, and what failing calls ask for, newest first, in pages.
#[utoipa::path(
    get,
    path = "/skills/requests",
    tag = "skills",
    params(ListRequests),
    responses((status = 200, description = "A page of requests.", body = RequestList)),
)]
async fn list_requests(
    State(king): State<King>,
    QueryParams(params): QueryParams<ListRequests>,
) -> Result<Json<RequestList>> {
    let ListRequests { limit: most, cursor, status, kind } = params;
    let filter = RequestFilter { limit: limit(most)?, cursor, status, kind };
    let read = async move |connection: &Connection| {
        views::list(connection, Timestamp::now(), filter).await
    };
    Ok(Json(king.store.read(read).await?))
}

/// Ask for a skill.
///
/// Say in words what it should do, and give examples. The next cycle takes it, or one that is started at
/// once. The same once more raises the demand of the request that is there. With `skill` that one is to
/// become better.
#[utoipa::path(
    post,
    path = "/skills/requests",
    tag = "skills",
    request_body(
        content = NewRequest, description = "What is wanted.",
        example = json!({
            "text": "Convert a temperature from Fahrenheit to Celsius.",
            "examples": [
                {"input": {"fahrenheit": 212}, "output": 100},
                {"input": {"fahrenheit": 32}, "expect": {"exact": 0, "tolerance": 0.01}},
            ],
        }),
    ),
    responses(
        (status = 200, description = "The same was asked for before.", body = RequestAsked),
        (status = 201, description = "It is written down.", body = RequestAsked),
        (status = 409, description = "The idempotency key was used for another request.", body = ErrorBody),
    ),
)]
async fn ask_for_skill(
    State(king): State<King>,
    Extension(identity): Extension<Identity>,
    JsonBody(asked): JsonBody<NewRequest>,
) -> Result<(StatusCode, Json<RequestAsked>)> {
    let asked = requests::ask(&king.store, &king.pipeline, asked, &identity.name).await?;
    king.pipeline.wake();
    let status = if asked.created { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(asked)))
}

/// Show one request.
///
/// The examples that builders see, the runs about it and what came of them, the failures that it is
/// about, and its history. `latest` is the newest request.
#[utoipa::path(
    get,
    path = "/skills/requests/{request_id}",
    tag = "skills",
    params((
        "request_id" = String, Path,
        description = "The request's id, or `latest`.", example = "latest",
    )),
    responses(
        (status = 200, description = "The request.", body = RequestDetail),
        (status = 404, description = "There is no such request.", body = ErrorBody),
    ),
)]
async fn get_request(
    State(king): State<King>,
    PathParam(request_id): PathParam,
) -> Result<Json<RequestDetail>> {
    let wanted = request_id.clone();
    let read = async move |connection: &Connection| {
        let id = if wanted == LATEST { views::latest(connection).await? } else { Some(wanted) };
        match id {
            Some(id) => views::get(connection, Timestamp::now(), &id).await,
            None => Ok(None),
        }
    };
    let request = king.store.read(read).await?;
    if request.is_none() && request_id != LATEST {
        return Err(Error::Unknown(request_id).into());
    }
    Ok(Json(RequestDetail { request }))
}

/// Cancel a request.
///
/// Nobody wants it any more: no cycle takes it, and runs about it end. Failing calls don't bring it back.
#[utoipa::path(
    post,
    path = "/skills/requests/{request_id}/cancel",
    tag = "skills",
    params((
        "request_id" = String, Path,
        description = "The request's id.", example = "req-01890a5dac96774bbcceb302099a8057",
    )),
    request_body(
        content = CancelRequest, description = "Who and why.",
        example = json!({"reason": "it is in another API by now", "by": "Ada"}),
    ),
    responses(
        (status = 200, description = "It is cancelled.", body = RequestCancelled),
        (status = 404, description = "There is no such request.", body = ErrorBody),
        (status = 409, description = "It is answered or rejected already.", body = ErrorBody),
    ),
)]
async fn cancel_request(
    State(king): State<King>,
    Extension(identity): Extension<Identity>,
    PathParam(request_id): PathParam,
    JsonBody(cancel): JsonBody<CancelRequest>,
) -> Result<Json<RequestCancelled>> {
    let (store, pipeline) = (&king.store, &king.pipeline);
    let cancelled = requests::cancel(store, pipeline, &request_id, &cancel, &identity.name).await?;
    king.pipeline.wake();
    Ok(Json(cancelled))
}
