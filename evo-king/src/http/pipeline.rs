//! Runs and cycles.

use axum::{Json, extract::State, http::StatusCode};
use evo_common::{
    api::{CycleReport, ErrorBody, RunDetail, RunKind, RunList, StartRun, StartedRun},
    ids::RunId,
    messages::{PipelineRunStatus, PipelineStage},
    outcome::Verdict,
};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    error::{ApiError, Result},
    extract::{JsonBody, PathParam, QueryParams, limit, moment, offset},
};
use crate::{state::King, store::RunFilter};

/// Instead of a run's id: the newest cycle.
const LATEST: &str = "latest";

/// The path of the routes below.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "stands in the document; handlers take the text")]
pub(super) struct RunPath {
    /// The run's id; `latest` for the newest cycle.
    #[param(example = "latest")]
    run_id: String,
}

/// Start a run.
///
/// In a cycle Learning looks through the sources, and one run starts for every candidate that it
/// finds. With `kind` `direct` one run goes straight through the five stages: each runner gets the
/// trigger and what the earlier stages said, king keeps what it says, and no skill is touched. A
/// repeat with the same `idempotency_key` answers with the first run and starts nothing.
#[utoipa::path(
    post,
    path = "/pipeline/start",
    tag = "pipeline",
    request_body(
        content = StartRun, description = "What is to be started.",
        example = json!({"trigger": {"kind": "manual"}}),
    ),
    responses(
        (status = 200, description = "The run had been started with this key.", body = StartedRun),
        (status = 201, description = "The run was started.", body = StartedRun),
        (status = 409, description = "The key was used for another request.", body = ErrorBody),
    ),
)]
pub(super) async fn start_run(
    State(king): State<King>,
    JsonBody(start): JsonBody<StartRun>,
) -> Result<(StatusCode, Json<StartedRun>)> {
    Ok(started(king.pipeline.start(start).await?))
}

/// Which runs to list.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ListRuns {
    /// Most runs in the answer, 50 by default.
    #[param(minimum = 1, maximum = 500, default = 50, example = 10)]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    #[param(example = "run-z")]
    cursor: Option<String>,
    /// How many to leave out at the beginning; `cursor` is faster and misses nothing.
    #[param(minimum = 0, maximum = 10_000, default = 0, example = 0)]
    offset: Option<u32>,
    /// Only cycles, only the runs of candidates, or only direct runs.
    #[param(inline, example = "cycle")]
    kind: Option<RunKind>,
    /// Only runs in this state.
    #[param(inline, example = "running")]
    status: Option<PipelineRunStatus>,
    /// Only runs of this cycle; `latest` for the newest one.
    #[param(example = "latest")]
    parent_run_id: Option<String>,
    /// Only runs that are at this stage, or ended there.
    #[param(inline, example = "learning")]
    stage: Option<PipelineStage>,
    /// Only runs about which this was decided.
    #[param(inline, example = "held")]
    decision: Option<Verdict>,
    /// Only runs that ended with this code.
    #[param(example = "flaky")]
    code: Option<String>,
    /// Only runs that started then or later (RFC 3339).
    #[param(example = "2026-01-01T00:00:00Z")]
    since: Option<String>,
    /// Only runs that started before (RFC 3339).
    #[param(example = "2100-01-01T00:00:00Z")]
    until: Option<String>,
    /// Only runs that have all of these words in candidate, code, reason, id or trigger; the last
    /// word may be the beginning of one.
    #[param(example = "health")]
    q: Option<String>,
}

/// List the runs.
///
/// Newest first, in pages. A cycle is a run too, and its candidates' runs have it as parent. `stage`,
/// `agent_id` and `artifact_id` are those of the stage that the run is at, or ended at; `GET
/// /pipeline/runs/{run_id}` has every stage.
#[utoipa::path(
    get,
    path = "/pipeline/runs",
    tag = "pipeline",
    params(ListRuns),
    responses((status = 200, description = "A page of runs.", body = RunList)),
)]
pub(super) async fn list_runs(
    State(king): State<King>,
    QueryParams(params): QueryParams<ListRuns>,
) -> Result<Json<RunList>> {
    let parent = about_run(&king, params.parent_run_id).await?;
    let query = params.q.map(|words| words.trim().to_owned()).filter(|words| !words.is_empty());
    if query.is_some() {
        king.store.runs_index().await?;
    }
    let filter = RunFilter {
        limit: limit(params.limit)?,
        cursor: params.cursor,
        offset: offset(params.offset)?,
        kind: params.kind,
        status: params.status,
        parent,
        stage: params.stage,
        decision: params.decision,
        code: params.code,
        since: moment("since", params.since)?,
        until: moment("until", params.until)?,
        query,
    };
    Ok(Json(king.store.runs_list(filter).await?))
}

/// Show one run.
///
/// The run with its stages: who did each, which attempt, what came out. Held-out cases are never
/// shown.
#[utoipa::path(
    get,
    path = "/pipeline/runs/{run_id}",
    tag = "pipeline",
    params(RunPath),
    responses(
        (status = 200, description = "The run.", body = RunDetail),
        (status = 404, description = "There is no such run.", body = ErrorBody),
    ),
)]
pub(super) async fn get_run(
    State(king): State<King>,
    PathParam(id): PathParam,
) -> Result<Json<RunDetail>> {
    let id = run_id(&king, id).await?;
    detail(&king, &id).await
}

/// Cancel a run.
///
/// It ends as failed with the code `cancelled`, and so do the runs of a cycle's candidates that
/// have not ended. The runner at work is told. Skills stay as they are.
#[utoipa::path(
    delete,
    path = "/pipeline/runs/{run_id}",
    tag = "pipeline",
    params(RunPath),
    responses(
        (status = 200, description = "The run as it is now.", body = RunDetail),
        (status = 404, description = "There is no such run.", body = ErrorBody),
        (status = 409, description = "The run has ended.", body = ErrorBody),
    ),
)]
pub(super) async fn cancel_run(
    State(king): State<King>,
    PathParam(id): PathParam,
) -> Result<Json<RunDetail>> {
    let id = run_id(&king, id).await?;
    king.pipeline.cancel(&id).await?;
    detail(&king, &id).await
}

/// Show what a cycle came to.
///
/// Every active skill, and every candidate of the cycle that was held, discarded or broke, each
/// with its reason. Also answers while the cycle runs, with what is known so far.
#[utoipa::path(
    get,
    path = "/pipeline/cycles/{run_id}/report",
    tag = "pipeline",
    params((
        "run_id" = String, Path,
        description = "The cycle's id; `latest` for the newest one.", example = "latest",
    )),
    responses(
        (status = 200, description = "The report.", body = CycleReport),
        (status = 404, description = "There is no such cycle.", body = ErrorBody),
    ),
)]
pub(super) async fn get_cycle_report(
    State(king): State<King>,
    PathParam(id): PathParam,
) -> Result<Json<CycleReport>> {
    let id = run_id(&king, id).await?;
    king.store.cycle_report(&id).await?.map(Json).ok_or_else(|| {
        ApiError::not_found(format!(
            "There is no cycle {id}; GET /pipeline/runs?kind=cycle lists them."
        ))
    })
}

/// Reads a run's id, or finds the newest cycle.
pub(super) async fn run_id(king: &King, id: String) -> Result<RunId> {
    if id != LATEST {
        return Ok(RunId::parse(id)?);
    }
    king.store.runs_latest_cycle().await?.ok_or_else(|| {
        ApiError::not_found("There is no cycle yet; POST /pipeline/start starts one.")
    })
}

/// The run that a list is limited to.
pub(super) async fn about_run(king: &King, id: Option<String>) -> Result<Option<RunId>> {
    let Some(id) = id else { return Ok(None) };
    let id = RunId::parse(id)?;
    if id.as_str() != LATEST {
        return Ok(Some(id));
    }
    // Before the first cycle nothing can be about it: no run has this word as its id.
    Ok(Some(king.store.runs_latest_cycle().await?.unwrap_or(id)))
}

pub(super) fn no_such_run(id: &RunId) -> ApiError {
    ApiError::not_found(format!("There is no run {id}; GET /pipeline/runs lists them."))
}

/// The answer to a request that starts a run.
pub(super) fn started(started: StartedRun) -> (StatusCode, Json<StartedRun>) {
    let status = if started.created { StatusCode::CREATED } else { StatusCode::OK };
    (status, Json(started))
}

/// A run as it is now.
pub(super) async fn detail(king: &King, id: &RunId) -> Result<Json<RunDetail>> {
    king.store.runs_get(id).await?.map(Json).ok_or_else(|| no_such_run(id))
}
