//! What operators do to runs, the queues, and the runs that came to nothing.

use axum::{Json, extract::State, http::StatusCode};
use evo_common::{
    api::{
        DeadLetterList, DismissedRun, ErrorBody, ForkRun, QueueList, QueueView, RunDetail,
        RunHistory, StartedRun,
    },
    clock::Timestamp,
    ids::RunId,
    messages::PipelineStage,
};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    error::{ApiError, Result},
    extract::{JsonBody, PathParam, QueryParams, limit},
    pipeline::{RunPath, detail, no_such_run, run_id, started},
};
use crate::state::King;

/// The routes of this area.
pub(super) fn routes() -> OpenApiRouter<King> {
    OpenApiRouter::new()
        .routes(routes!(pause_run))
        .routes(routes!(resume_run))
        .routes(routes!(retry_run))
        .routes(routes!(fork_run))
        .routes(routes!(get_history))
        .routes(routes!(list_queues))
        .routes(routes!(list_dead_letters))
        .routes(routes!(dismiss_dead_letter))
        .routes(routes!(retry_dead_letter))
}

/// Pause a run.
///
/// An attempt that is under way may finish; nothing new of the run is given to runners until it is
/// resumed. Of a cycle the same goes for the runs of its candidates.
#[utoipa::path(
    post,
    path = "/pipeline/runs/{run_id}/pause",
    tag = "pipeline",
    params(RunPath),
    responses(
        (status = 200, description = "The run as it is now.", body = RunDetail),
        (status = 404, description = "There is no such run.", body = ErrorBody),
        (status = 409, description = "The run has ended.", body = ErrorBody),
    ),
)]
async fn pause_run(State(king): State<King>, PathParam(id): PathParam) -> Result<Json<RunDetail>> {
    let id = run_id(&king, id).await?;
    king.pipeline.pause(&id).await?;
    detail(&king, &id).await
}

/// Resume a run.
///
/// It goes on where it was paused. Of a cycle the same goes for the runs of its candidates.
#[utoipa::path(
    post,
    path = "/pipeline/runs/{run_id}/resume",
    tag = "pipeline",
    params(RunPath),
    responses(
        (status = 200, description = "The run as it is now.", body = RunDetail),
        (status = 404, description = "There is no such run.", body = ErrorBody),
        (status = 409, description = "The run has ended.", body = ErrorBody),
    ),
)]
async fn resume_run(State(king): State<King>, PathParam(id): PathParam) -> Result<Json<RunDetail>> {
    let id = run_id(&king, id).await?;
    king.pipeline.resume(&id).await?;
    detail(&king, &id).await
}

/// Retry a run that failed.
///
/// A new run goes on from the stage that came to nothing, with copies of what the stages before it
/// gave. The run that failed stays ended. A repeated retry answers with the same new run.
#[utoipa::path(
    post,
    path = "/pipeline/runs/{run_id}/retry",
    tag = "pipeline",
    params(RunPath),
    responses(
        (status = 200, description = "The run had been retried.", body = StartedRun),
        (status = 201, description = "The new run.", body = StartedRun),
        (status = 404, description = "There is no such run.", body = ErrorBody),
        (status = 409, description = "The run did not fail, or it can't be repeated.", body = ErrorBody),
    ),
)]
async fn retry_run(
    State(king): State<King>,
    PathParam(id): PathParam,
) -> Result<(StatusCode, Json<StartedRun>)> {
    let id = run_id(&king, id).await?;
    Ok(started(king.pipeline.retry(&id).await?))
}

/// Fork a run.
///
/// A new run begins at the given stage, with copies of what the stages before it gave. Of a
/// candidate only its last run can be forked, when it has ended and its package is not active;
/// what was measured stays with it.
#[utoipa::path(
    post,
    path = "/pipeline/runs/{run_id}/fork",
    tag = "pipeline",
    params(RunPath),
    request_body(
        content = ForkRun, description = "Where the new run begins.",
        example = json!({"from_stage": "learning"}),
    ),
    responses(
        (status = 201, description = "The new run.", body = StartedRun),
        (status = 404, description = "There is no such run.", body = ErrorBody),
        (status = 409, description = "The run can't be repeated from there.", body = ErrorBody),
    ),
)]
async fn fork_run(
    State(king): State<King>,
    PathParam(id): PathParam,
    JsonBody(fork): JsonBody<ForkRun>,
) -> Result<(StatusCode, Json<StartedRun>)> {
    let id = run_id(&king, id).await?;
    Ok(started(king.pipeline.fork(&id, fork).await?))
}

/// Export a run.
///
/// Everything about it in one object: its stages, every attempt, every question about how to go
/// on, its part of the event log, its timer, and its children's ids. Held-out cases are not part of
/// it.
#[utoipa::path(
    get,
    path = "/pipeline/runs/{run_id}/history",
    tag = "pipeline",
    params(RunPath),
    responses(
        (status = 200, description = "Everything about the run.", body = RunHistory),
        (status = 404, description = "There is no such run.", body = ErrorBody),
    ),
)]
async fn get_history(
    State(king): State<King>,
    PathParam(id): PathParam,
) -> Result<Json<RunHistory>> {
    let id = run_id(&king, id).await?;
    king.store.runs_history(&id).await?.map(Json).ok_or_else(|| no_such_run(&id))
}

/// List the queues.
///
/// For each stage: its connected runners and how much they take, what is given out, how many runs
/// wait or are paused, and how long the first one has waited.
#[utoipa::path(
    get,
    path = "/pipeline/queues",
    tag = "pipeline",
    responses((
        status = 200, description = "Every queue.", body = QueueList,
        example = json!({"queues": [{
            "stage": "building", "role": "building", "runners": 1, "capacity": 8, "limit": null,
            "leased": 8, "waiting": 3, "paused": 0, "oldest_wait_ms": 1200,
        }], "count": 1}),
    )),
)]
async fn list_queues(State(king): State<King>) -> Result<Json<QueueList>> {
    let held = king.store.runs_queues().await?;
    let ready = king.registry.ready();
    let now = Timestamp::now();
    let queue = |stage: PipelineStage| {
        let held = held.get(&stage).copied().unwrap_or_default();
        let runners = || ready.iter().filter(|ready| ready.stage == stage);
        QueueView {
            stage,
            role: stage,
            runners: u32::try_from(runners().count()).unwrap_or(u32::MAX),
            capacity: runners().fold(0, |sum, ready| sum.saturating_add(ready.capacity)),
            limit: king.config.concurrency.of(stage),
            leased: held.leased,
            waiting: held.waiting,
            paused: held.paused,
            oldest_wait_ms: held.waiting_since.map(|since| now.ms_since(since)),
        }
    };
    let queues: Vec<QueueView> = PipelineStage::ALL.into_iter().map(queue).collect();
    Ok(Json(QueueList { count: queues.len(), queues }))
}

/// The path of the routes below.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "stands in the document; handlers take the text")]
struct DeadLetterPath {
    /// The run's id.
    #[param(example = "run-1")]
    run_id: String,
}

/// Which dead letters to list.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ListDeadLetters {
    /// Most runs in the answer, 50 by default.
    #[param(minimum = 1, maximum = 500, default = 50, example = 10)]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    #[param(example = "run-z")]
    cursor: Option<String>,
}

/// List the dead letters.
///
/// Runs that failed or timed out and that nobody has retried or put aside, newest first, in pages.
/// A cancelled run is none.
#[utoipa::path(
    get,
    path = "/pipeline/dead-letters",
    tag = "pipeline",
    params(ListDeadLetters),
    responses((
        status = 200, description = "A page of dead letters.", body = DeadLetterList,
        example = json!({"dead_letters": [], "count": 0, "next_cursor": null}),
    )),
)]
async fn list_dead_letters(
    State(king): State<King>,
    QueryParams(params): QueryParams<ListDeadLetters>,
) -> Result<Json<DeadLetterList>> {
    Ok(Json(king.store.runs_dead(params.cursor, limit(params.limit)?).await?))
}

/// Put a dead letter aside.
///
/// The run stays as it is and is no dead letter any more.
#[utoipa::path(
    delete,
    path = "/pipeline/dead-letters/{run_id}",
    tag = "pipeline",
    params(DeadLetterPath),
    responses(
        (status = 200, description = "It was put aside.", body = DismissedRun),
        (status = 404, description = "There is no such dead letter.", body = ErrorBody),
    ),
)]
async fn dismiss_dead_letter(
    State(king): State<King>,
    PathParam(id): PathParam,
) -> Result<Json<DismissedRun>> {
    let id = RunId::parse(id)?;
    if !king.store.runs_dismiss(id.to_string()).await? {
        return Err(ApiError::not_found(format!(
            "There is no dead letter {id}; GET /pipeline/dead-letters lists them."
        )));
    }
    Ok(Json(DismissedRun { success: true, run_id: id.into() }))
}

/// Retry a dead letter.
///
/// The same as retrying the run.
#[utoipa::path(
    post,
    path = "/pipeline/dead-letters/{run_id}/retry",
    tag = "pipeline",
    params(DeadLetterPath),
    responses(
        (status = 200, description = "The run had been retried.", body = StartedRun),
        (status = 201, description = "The new run.", body = StartedRun),
        (status = 404, description = "There is no such run.", body = ErrorBody),
        (status = 409, description = "The run did not fail, or it can't be repeated.", body = ErrorBody),
    ),
)]
async fn retry_dead_letter(
    State(king): State<King>,
    PathParam(id): PathParam,
) -> Result<(StatusCode, Json<StartedRun>)> {
    Ok(started(king.pipeline.retry(&RunId::parse(id)?).await?))
}
