//! Agents.

use axum::{Json, extract::State};
use evo_common::{
    api::{AgentList, AgentView, ErrorBody},
    ids::AgentId,
};

use super::{
    error::{ApiError, Result},
    extract::PathParam,
};
use crate::state::King;

/// List the agents.
///
/// Every agent that has ever registered, in the order of their ids, with what it is doing now.
#[utoipa::path(
    get,
    path = "/agents",
    tag = "agents",
    responses((
        status = 200, description = "Every agent.", body = AgentList,
        example = json!({"agents": [], "count": 0}),
    )),
)]
pub(super) async fn list_agents(State(king): State<King>) -> Result<Json<AgentList>> {
    Ok(Json(king.store.agents_list().await?))
}

/// Show one agent.
///
/// Its role, its state and heartbeat, its capabilities, and how much work it has in hand.
#[utoipa::path(
    get,
    path = "/agents/{agent_id}",
    tag = "agents",
    params(("agent_id" = String, Path, description = "The agent's id.", example = "evo-learning")),
    responses(
        (status = 200, description = "The agent.", body = AgentView),
        (status = 404, description = "No agent of this id has ever registered.", body = ErrorBody),
    ),
)]
pub(super) async fn get_agent(
    State(king): State<King>,
    PathParam(agent_id): PathParam,
) -> Result<Json<AgentView>> {
    let agent_id = AgentId::parse(agent_id)?;
    king.store.agents_get(agent_id.as_str()).await?.map(Json).ok_or_else(|| {
        ApiError::not_found(format!("There is no agent {agent_id}; GET /agents lists them."))
    })
}
