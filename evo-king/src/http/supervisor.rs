//! The agents whose processes king runs.

use axum::{Json, extract::State, http::StatusCode};
use evo_common::api::ErrorBody;
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    error::{ApiError, Result},
    extract::PathParam,
};
use crate::{
    state::King,
    supervisor::{Action, SupervisedAgent},
};

/// The routes of this area.
pub(super) fn routes() -> OpenApiRouter<King> {
    OpenApiRouter::new()
        .routes(routes!(list_supervised))
        .routes(routes!(start_supervised))
        .routes(routes!(stop_supervised))
        .routes(routes!(restart_supervised))
}

/// Every supervised agent.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SupervisedList {
    /// Whether king supervises agents.
    enabled: bool,
    /// The folder that holds theirs.
    folder: Option<String>,
    /// The agents, by name.
    agents: Vec<SupervisedAgent>,
    /// How many.
    count: usize,
}

/// A supervised agent that was told something.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SupervisedTold {
    /// Always true.
    success: bool,
    /// The agent as it stood when it was told.
    agent: SupervisedAgent,
}

/// The path of the routes below.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "stands in the document; handlers take the text")]
struct AgentFolder {
    /// Name of the agent's folder.
    #[param(example = "user")]
    agent: String,
}

/// List the supervised agents.
///
/// The agents whose processes king runs, with their state, how often they ended by themselves and
/// where their logs are. King supervises when it is given a folder of agents; `evo up` needs none.
#[utoipa::path(
    get,
    path = "/supervisor",
    tag = "agents",
    responses((
        status = 200, description = "Every supervised agent.", body = SupervisedList,
        example = json!({"enabled": false, "folder": null, "agents": [], "count": 0}),
    )),
)]
pub(super) async fn list_supervised(State(king): State<King>) -> Result<Json<SupervisedList>> {
    let agents = king.supervisor.list().await?;
    let folder = king.supervisor.folder();
    Ok(Json(SupervisedList {
        enabled: folder.is_some(),
        folder: folder.map(|folder| folder.display().to_string()),
        count: agents.len(),
        agents,
    }))
}

/// Start a supervised agent.
///
/// One that was stopped, or that waits for its next start, is started at once.
#[utoipa::path(
    post,
    path = "/supervisor/{agent}/start",
    tag = "agents",
    params(AgentFolder),
    responses(
        (status = 200, description = "It was told.", body = SupervisedTold),
        (status = 404, description = "There is no such agent.", body = ErrorBody),
        (status = 409, description = "King supervises no agents.", body = ErrorBody),
    ),
)]
pub(super) async fn start_supervised(
    State(king): State<King>,
    PathParam(agent): PathParam,
) -> Result<Json<SupervisedTold>> {
    tell(&king, &agent, Action::Start)
}

/// Stop a supervised agent.
///
/// It is asked to end, and killed when it does not within four seconds. It stays stopped until it is
/// started, or king is.
#[utoipa::path(
    post,
    path = "/supervisor/{agent}/stop",
    tag = "agents",
    params(AgentFolder),
    responses(
        (status = 200, description = "It was told.", body = SupervisedTold),
        (status = 404, description = "There is no such agent.", body = ErrorBody),
        (status = 409, description = "King supervises no agents.", body = ErrorBody),
    ),
)]
pub(super) async fn stop_supervised(
    State(king): State<King>,
    PathParam(agent): PathParam,
) -> Result<Json<SupervisedTold>> {
    tell(&king, &agent, Action::Stop)
}

/// Restart a supervised agent.
///
/// Its process is ended as for a stop, and another one is started.
#[utoipa::path(
    post,
    path = "/supervisor/{agent}/restart",
    tag = "agents",
    params(AgentFolder),
    responses(
        (status = 200, description = "It was told.", body = SupervisedTold),
        (status = 404, description = "There is no such agent.", body = ErrorBody),
        (status = 409, description = "King supervises no agents.", body = ErrorBody),
    ),
)]
pub(super) async fn restart_supervised(
    State(king): State<King>,
    PathParam(agent): PathParam,
) -> Result<Json<SupervisedTold>> {
    tell(&king, &agent, Action::Restart)
}

fn tell(king: &King, agent: &str, action: Action) -> Result<Json<SupervisedTold>> {
    if king.supervisor.folder().is_none() {
        return Err(ApiError::new(
            StatusCode::CONFLICT,
            "supervisor_off",
            "King supervises no agents: start it with --agents DIR, or set agents in the table \
             supervisor of king.toml.",
        ));
    }
    let agent = king.supervisor.act(agent, action).ok_or_else(|| {
        ApiError::not_found(format!(
            "There is no supervised agent {agent:?}; GET /supervisor lists them."
        ))
    })?;
    Ok(Json(SupervisedTold { success: true, agent }))
}
