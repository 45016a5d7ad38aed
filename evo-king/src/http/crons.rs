//! Jobs by the clock.

use axum::{Json, extract::State, http::StatusCode};
use evo_common::{api::ErrorBody, clock::Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    error::{ApiError, Result, sentence, shutting_down},
    extract::{JsonBody, PathParam},
};
use crate::{
    cron::{Change, Error, NewJob},
    state::King,
    store::cron::CronJob,
};

/// The routes of this area.
pub(super) fn routes() -> OpenApiRouter<King> {
    OpenApiRouter::new()
        .routes(routes!(list_crons, create_cron))
        .routes(routes!(get_cron, change_cron, delete_cron))
        .routes(routes!(run_cron))
}

/// A job by the clock.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Cron {
    /// Its name.
    name: String,
    /// What it does: `evolution_cycle`, `gateway_health`, `retention`, `update_check` or `backup`.
    job: String,
    /// What it is for.
    description: String,
    /// Minute, hour, day, month and weekday.
    schedule: String,
    /// The zone whose clocks count.
    timezone: String,
    /// Whether it runs by the clock.
    enabled: bool,
    /// What becomes of a moment at which king was not there: `skip` or `run_once`.
    missed: String,
    /// What the job is told.
    #[schema(value_type = Object)]
    params: Value,
    /// Whether it is king's own; such a job can't be deleted.
    builtin: bool,
    /// When it runs next; absent while it is off.
    next_run: Option<String>,
    /// When it ran last.
    last_run: Option<String>,
    /// How that ended: `running`, `ok`, `failed`, `interrupted` or `skipped`.
    last_status: Option<String>,
    /// Why it failed.
    last_error: Option<String>,
    /// What it came to.
    #[schema(value_type = Option<Object>)]
    last_result: Option<Value>,
    /// How often it has run.
    run_count: i64,
    /// When it was made.
    created_at: String,
    /// When it was last changed by somebody.
    updated_at: String,
}

impl From<CronJob> for Cron {
    fn from(job: CronJob) -> Self {
        let moment = |at: Option<Timestamp>| at.map(Timestamp::to_rfc3339);
        Self {
            name: job.name,
            job: job.job,
            description: job.description,
            schedule: job.schedule,
            timezone: job.timezone,
            enabled: job.enabled,
            missed: job.missed,
            params: job.params,
            builtin: job.builtin,
            next_run: moment(job.due_at),
            last_run: moment(job.last_run),
            last_status: job.last_status,
            last_error: job.last_error,
            last_result: job.last_result.filter(|result| !result.is_null()),
            run_count: job.run_count,
            created_at: job.created_at.to_rfc3339(),
            updated_at: job.updated_at.to_rfc3339(),
        }
    }
}

/// Every job.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CronList {
    /// The jobs, by name.
    crons: Vec<Cron>,
    /// How many there are.
    count: usize,
}

/// One job.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct OneCron {
    /// Whether it was done.
    success: bool,
    /// The job.
    cron: Cron,
}

impl OneCron {
    fn of(job: CronJob) -> Json<Self> {
        Json(Self { success: true, cron: job.into() })
    }
}

/// A job to be created.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct CreateCron {
    /// 1 to 64 of a-z, 0-9, - and _.
    name: String,
    /// `evolution_cycle`, `gateway_health`, `retention`, `update_check` or `backup`.
    job: String,
    /// Minute, hour, day, month and weekday, or `@daily` and the like.
    schedule: String,
    /// A name of the IANA database; `UTC` by default.
    timezone: Option<String>,
    /// Whether it runs by the clock; true by default.
    enabled: Option<bool>,
    /// `skip` (default) or `run_once`.
    missed: Option<String>,
    /// What it is for.
    description: Option<String>,
    /// What the job is told.
    #[schema(value_type = Option<Object>)]
    params: Option<Map<String, Value>>,
}

/// What is to be changed of a job; the rest stays.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct ChangeCron {
    /// Minute, hour, day, month and weekday, or `@daily` and the like.
    schedule: Option<String>,
    /// A name of the IANA database.
    timezone: Option<String>,
    /// Whether it runs by the clock.
    enabled: Option<bool>,
    /// `skip` or `run_once`.
    missed: Option<String>,
    /// What it is for.
    description: Option<String>,
    /// What the job is told.
    #[schema(value_type = Option<Object>)]
    params: Option<Map<String, Value>>,
}

/// List the jobs.
///
/// Every job that runs by the clock, with its next moment and what its last run came to.
#[utoipa::path(
    get,
    path = "/admin/crons",
    tag = "admin",
    responses((
        status = 200, description = "Every job.", body = CronList,
        example = json!({"crons": [], "count": 0}),
    )),
)]
async fn list_crons(State(king): State<King>) -> Result<Json<CronList>> {
    let crons: Vec<Cron> =
        king.crons.list(&king.store).await?.into_iter().map(Cron::from).collect();
    Ok(Json(CronList { count: crons.len(), crons }))
}

/// Create a job.
///
/// It runs by its schedule from now on. Moments are by the clocks of its time zone: what falls into
/// the hour that is left out in spring runs right after it, what comes twice in autumn runs once.
#[utoipa::path(
    post,
    path = "/admin/crons",
    tag = "admin",
    request_body(
        content = CreateCron, description = "The job.",
        example = json!({
            "name": "nightly-cycle", "job": "evolution_cycle", "schedule": "0 3 * * *",
            "timezone": "Europe/Berlin", "missed": "run_once",
        }),
    ),
    responses(
        (status = 201, description = "The job.", body = OneCron),
        (status = 409, description = "There is one of this name.", body = ErrorBody),
        (status = 422, description = "A field is wrong.", body = ErrorBody),
    ),
)]
async fn create_cron(
    State(king): State<King>,
    JsonBody(body): JsonBody<CreateCron>,
) -> Result<(StatusCode, Json<OneCron>)> {
    let new = NewJob {
        name: body.name,
        job: body.job,
        description: body.description.unwrap_or_default(),
        schedule: body.schedule,
        timezone: body.timezone.unwrap_or_else(|| "UTC".to_owned()),
        enabled: body.enabled.unwrap_or(true),
        missed: body.missed.unwrap_or_else(|| "skip".to_owned()),
        params: body.params.unwrap_or_default(),
    };
    let job = king.crons.create(&king.store, Timestamp::now(), new).await?;
    Ok((StatusCode::CREATED, OneCron::of(job)))
}

/// Show a job.
///
/// With its next moment and what its last run came to.
#[utoipa::path(
    get,
    path = "/admin/crons/{name}",
    tag = "admin",
    params(("name" = String, Path, description = "Name of the job.", example = "retention")),
    responses(
        (status = 200, description = "The job.", body = OneCron),
        (status = 404, description = "There is no such job.", body = ErrorBody),
    ),
)]
async fn get_cron(State(king): State<King>, PathParam(name): PathParam) -> Result<Json<OneCron>> {
    Ok(OneCron::of(king.crons.get(&king.store, &name).await?))
}

/// Change a job.
///
/// Switches it on or off, or gives it another schedule, zone, policy or parameters. Its next moment
/// follows from that.
#[utoipa::path(
    patch,
    path = "/admin/crons/{name}",
    tag = "admin",
    params(("name" = String, Path, description = "Name of the job.", example = "retention")),
    request_body(
        content = ChangeCron, description = "What to change.", example = json!({"enabled": true}),
    ),
    responses(
        (status = 200, description = "The job.", body = OneCron),
        (status = 404, description = "There is no such job.", body = ErrorBody),
        (status = 422, description = "A field is wrong.", body = ErrorBody),
    ),
)]
async fn change_cron(
    State(king): State<King>,
    PathParam(name): PathParam,
    JsonBody(body): JsonBody<ChangeCron>,
) -> Result<Json<OneCron>> {
    let ChangeCron { schedule, timezone, enabled, missed, description, params } = body;
    let change = Change { description, schedule, timezone, enabled, missed, params };
    Ok(OneCron::of(king.crons.change(&king.store, Timestamp::now(), &name, change).await?))
}

/// What was deleted.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DeletedCron {
    /// Whether it was done.
    success: bool,
    /// The job's name.
    name: String,
}

/// Delete a job.
///
/// King's own jobs can only be switched off.
#[utoipa::path(
    delete,
    path = "/admin/crons/{name}",
    tag = "admin",
    params(("name" = String, Path, description = "Name of the job.", example = "nightly-cycle")),
    responses(
        (status = 200, description = "It is gone.", body = DeletedCron),
        (status = 404, description = "There is no such job.", body = ErrorBody),
        (status = 409, description = "It is king's own.", body = ErrorBody),
    ),
)]
async fn delete_cron(
    State(king): State<King>,
    PathParam(name): PathParam,
) -> Result<Json<DeletedCron>> {
    king.crons.delete(&king.store, &name).await?;
    Ok(Json(DeletedCron { success: true, name }))
}

/// Run a job now.
///
/// Whether it is on or not; its next moment stays. The answer comes when its work is done, and says
/// in `last_status` how that ended.
#[utoipa::path(
    post,
    path = "/admin/crons/{name}/run",
    tag = "admin",
    params(("name" = String, Path, description = "Name of the job.", example = "gateway_health")),
    responses(
        (status = 200, description = "It has run.", body = OneCron),
        (status = 404, description = "There is no such job.", body = ErrorBody),
        (status = 409, description = "It is under way.", body = ErrorBody),
    ),
)]
async fn run_cron(State(king): State<King>, PathParam(name): PathParam) -> Result<Json<OneCron>> {
    king.crons.get(&king.store, &name).await?;
    king.crons.run_now(&king, &name).await?;
    Ok(OneCron::of(king.crons.get(&king.store, &name).await?))
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        let message = sentence(&error.to_string());
        match error {
            Error::Unknown(_) => Self::not_found(message),
            Error::Exists(_) => Self::new(StatusCode::CONFLICT, "cron_exists", message),
            Error::Builtin(_) => Self::new(StatusCode::CONFLICT, "cron_builtin", message),
            Error::Running(_) => Self::new(StatusCode::CONFLICT, "cron_running", message),
            Error::Ending => shutting_down(),
            Error::Invalid { field, message } => Self::field(field, message),
            Error::Pipeline(error) => error.into(),
            Error::Store(error) => error.into(),
        }
    }
}
