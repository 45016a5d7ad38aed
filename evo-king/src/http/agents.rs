//! Agents: who there is, what happened to them, what they think with, and commands to them.

use axum::{Json, extract::State};
use evo_common::{
    api::{
        AgentDetail, AgentHistory, AgentList, AgentModel, AgentView, ChooseModel, CommandAgent,
        CommandDone, ConfigSynced, ErrorBody, ModelChosen, SyncConfig,
    },
    clock::Timestamp,
    ids::AgentId,
    messages::{ConfigNotice, ModelPreference},
};
use serde::Deserialize;
use serde_json::json;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    error::{ApiError, Result},
    extract::{JsonBody, PathParam, QueryParams, limit, offset},
};
use crate::{
    state::King,
    store::{
        self, Connection,
        agent_history::HistoryFilter,
        agents::{self, AgentFilter},
        events, outbox, skills,
    },
};

/// Most agents in one page: clients of the original read one page only.
const MOST_AGENTS: u32 = 2_000;
/// Changes that an agent's detail shows.
const RECENT: u32 = 20;
/// Longest name of a model.
const MAX_MODEL: usize = 200;
/// Longest word for how hard a model thinks.
const MAX_EFFORT: usize = 32;
/// Longest reason for a synchronisation.
const MAX_REASON: usize = 200;

/// The routes of this area.
pub(super) fn routes() -> OpenApiRouter<King> {
    OpenApiRouter::new()
        .routes(routes!(list_agents))
        .routes(routes!(get_agent))
        .routes(routes!(get_agent_history))
        .routes(routes!(get_agent_detail))
        .routes(routes!(get_agent_model, choose_agent_model))
        .routes(routes!(command_agent))
        .routes(routes!(sync_config))
}

/// The path of the routes below.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "stands in the document; handlers take the text")]
struct AgentPath {
    /// The agent's id.
    #[param(example = "evo-learning")]
    agent_id: String,
}

/// Which agents to list.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ListAgents {
    /// Most agents in the answer, 2,000 by default.
    #[param(minimum = 1, maximum = 2_000, default = 2_000, example = 10)]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    #[param(example = "evo-a")]
    cursor: Option<String>,
    /// How many to leave out at the beginning; `cursor` is faster and misses nothing.
    #[param(minimum = 0, maximum = 10_000, default = 0, example = 0)]
    offset: Option<u32>,
    /// Whether to show each agent's soul.md.
    #[param(default = false, example = false)]
    souls: Option<bool>,
}

/// List the agents.
///
/// Every agent that has registered, in the order of their ids, with what it is doing now; in pages,
/// of which one is enough for most.
#[utoipa::path(
    get,
    path = "/agents",
    tag = "agents",
    params(ListAgents),
    responses((
        status = 200, description = "A page of agents.", body = AgentList,
        example = json!({"agents": [], "count": 0, "next_cursor": null}),
    )),
)]
async fn list_agents(
    State(king): State<King>,
    QueryParams(params): QueryParams<ListAgents>,
) -> Result<Json<AgentList>> {
    let limit = match params.limit.unwrap_or(MOST_AGENTS) {
        limit @ 1..=MOST_AGENTS => limit,
        other => {
            let message = format!("{other} is not between 1 and {MOST_AGENTS}");
            return Err(ApiError::parameter("limit", message));
        }
    };
    let filter = AgentFilter {
        limit,
        cursor: params.cursor,
        offset: offset(params.offset)?,
        souls: params.souls.unwrap_or(false),
    };
    let mut list = king.store.agents_list(filter, silent_since(&king)).await?;
    for agent in &mut list.agents {
        agent.socket_id = king.registry.connection_of(&agent.agent_id);
    }
    Ok(Json(list))
}

/// Show one agent.
///
/// Its role, its state and heartbeat, its capabilities, and how much work it has in hand.
#[utoipa::path(
    get,
    path = "/agents/{agent_id}",
    tag = "agents",
    params(AgentPath),
    responses(
        (status = 200, description = "The agent.", body = AgentView),
        (status = 404, description = "No agent of this id has ever registered.", body = ErrorBody),
    ),
)]
async fn get_agent(
    State(king): State<King>,
    PathParam(agent_id): PathParam,
) -> Result<Json<AgentView>> {
    Ok(Json(load(&king, AgentId::parse(agent_id)?).await?))
}

/// Which changes to list.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ListChanges {
    /// Most changes in the answer, 50 by default.
    #[param(minimum = 1, maximum = 500, default = 50, example = 10)]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    #[param(example = "1000000")]
    cursor: Option<i64>,
    /// How many to leave out at the beginning; `cursor` is faster and misses nothing.
    #[param(minimum = 0, maximum = 10_000, default = 0, example = 0)]
    offset: Option<u32>,
}

/// Show what happened to an agent.
///
/// Every change of its state, newest first, in pages; the last 1,000 of each agent are kept.
#[utoipa::path(
    get,
    path = "/agents/{agent_id}/history",
    tag = "agents",
    params(
        AgentPath,
        ListChanges,
    ),
    responses(
        (status = 200, description = "A page of changes.", body = AgentHistory),
        (status = 404, description = "No agent of this id has ever registered.", body = ErrorBody),
    ),
)]
async fn get_agent_history(
    State(king): State<King>,
    PathParam(agent_id): PathParam,
    QueryParams(params): QueryParams<ListChanges>,
) -> Result<Json<AgentHistory>> {
    let filter = HistoryFilter {
        agent_id,
        cursor: params.cursor,
        limit: limit(params.limit)?,
        offset: offset(params.offset)?,
    };
    let agent = load(&king, AgentId::parse(filter.agent_id.clone())?).await?;
    let filter = HistoryFilter { agent_id: agent.agent_id, ..filter };
    Ok(Json(king.store.agents_history(filter).await?))
}

/// Show one agent with its last changes.
///
/// The agent as `GET /agents/{agent_id}` shows it, and its last 20 changes of state.
#[utoipa::path(
    get,
    path = "/agents/{agent_id}/detail",
    tag = "agents",
    params(AgentPath),
    responses(
        (status = 200, description = "The agent and its changes.", body = AgentDetail),
        (status = 404, description = "No agent of this id has ever registered.", body = ErrorBody),
    ),
)]
async fn get_agent_detail(
    State(king): State<King>,
    PathParam(agent_id): PathParam,
) -> Result<Json<AgentDetail>> {
    let agent = load(&king, AgentId::parse(agent_id)?).await?;
    let agent_id = agent.agent_id.clone();
    let filter = HistoryFilter { agent_id, cursor: None, limit: RECENT, offset: 0 };
    let recent_history = king.store.agents_history(filter).await?.history;
    Ok(Json(AgentDetail { agent, recent_history }))
}

/// Show an agent's model.
///
/// The model that an operator chose for it, if any, and how hard that is to think.
#[utoipa::path(
    get,
    path = "/agents/{agent_id}/model",
    tag = "agents",
    params(AgentPath),
    responses(
        (status = 200, description = "What was chosen.", body = AgentModel),
        (status = 404, description = "No agent of this id has ever registered.", body = ErrorBody),
    ),
)]
async fn get_agent_model(
    State(king): State<King>,
    PathParam(agent_id): PathParam,
) -> Result<Json<AgentModel>> {
    let agent = load(&king, AgentId::parse(agent_id)?).await?;
    Ok(Json(AgentModel {
        agent_id: agent.agent_id,
        model: agent.preferred_model,
        reasoning_effort: agent.reasoning_effort,
    }))
}

/// Choose an agent's model.
///
/// The agent is told at once when it is connected, and everything that it is given to do from now
/// on says so too. Without a model the agent chooses for itself again.
#[utoipa::path(
    put,
    path = "/agents/{agent_id}/model",
    tag = "agents",
    params(AgentPath),
    request_body(
        content = ChooseModel, description = "The model.",
        example = json!({"model": "openai:gpt-4o-mini", "reasoning_effort": "low"}),
    ),
    responses(
        (status = 200, description = "It is chosen.", body = ModelChosen),
        (status = 404, description = "No agent of this id has ever registered.", body = ErrorBody),
    ),
)]
async fn choose_agent_model(
    State(king): State<King>,
    PathParam(agent_id): PathParam,
    JsonBody(choice): JsonBody<ChooseModel>,
) -> Result<Json<ModelChosen>> {
    let agent_id = AgentId::parse(agent_id)?;
    let named = |text: Option<String>| text.filter(|text| !text.trim().is_empty());
    let (model, reasoning_effort) = (named(choice.model), named(choice.reasoning_effort));
    check_word("model", model.as_deref(), MAX_MODEL)?;
    check_word("reasoning_effort", reasoning_effort.as_deref(), MAX_EFFORT)?;
    if model.is_none() && reasoning_effort.is_some() {
        let message = "it goes with a model, and none is named";
        return Err(ApiError::field("reasoning_effort", message));
    }
    let preference = model.map(|model| ModelPreference { model, reasoning_effort });
    let (id, stored, registry) = (agent_id.clone(), preference.clone(), king.registry.clone());
    let known = king
        .store
        .write(async move |connection: &Connection| {
            let id = id.as_str();
            let known = agents::set_model(connection, id, stored.as_ref()).await?;
            if known {
                let payload = json!({"agent_id": id, "model": stored});
                let now = Timestamp::now();
                events::append(connection, now, "agent.model", None, Some(id), &payload).await?;
                let id = id.to_owned();
                connection.after_commit(move || registry.set_model(&id, stored));
            }
            Ok::<_, store::Error>(known)
        })
        .await?;
    if !known {
        return Err(unknown(&agent_id));
    }
    let id = agent_id.as_str();
    let told = !king.registry.is_legacy(id) && king.commands.tell_model(id, preference.as_ref());
    let (model, reasoning_effort) = preference
        .map(|preference| (Some(preference.model), preference.reasoning_effort))
        .unwrap_or_default();
    let agent_id = agent_id.into();
    Ok(Json(ModelChosen { success: true, agent_id, model, reasoning_effort, told }))
}

/// Command an agent.
///
/// Sends `king:command` to the agent and waits for its answer. An agent of the published protocol
/// never answers: it is told, and `answered` is false.
#[utoipa::path(
    post,
    path = "/agents/{agent_id}/command",
    tag = "agents",
    params(AgentPath),
    request_body(
        content = CommandAgent, description = "The command.",
        example = json!({"command": "drain", "params": {}, "timeout_ms": 10_000}),
    ),
    responses(
        (status = 200, description = "The agent's answer.", body = CommandDone),
        (status = 404, description = "No agent of this id has ever registered.", body = ErrorBody),
        (status = 409, description = "The agent is not connected.", body = ErrorBody),
        (status = 502, description = "The agent answered that it failed.", body = ErrorBody),
        (status = 504, description = "The agent did not answer in time.", body = ErrorBody),
    ),
)]
async fn command_agent(
    State(king): State<King>,
    PathParam(agent_id): PathParam,
    JsonBody(command): JsonBody<CommandAgent>,
) -> Result<Json<CommandDone>> {
    let agent_id = AgentId::parse(agent_id)?;
    Ok(Json(king.commands.command(agent_id.as_str(), command).await?))
}

/// Have the agents look at their configuration again.
///
/// Sends `king:config_update` to every agent and to dashboards; each agent compares the digest
/// with what it has.
#[utoipa::path(
    post,
    path = "/admin/config-sync",
    tag = "agents",
    request_body(
        content = SyncConfig, description = "Why.",
        example = json!({"reason": "post_dependency_update"}),
    ),
    responses((status = 200, description = "It is on its way.", body = ConfigSynced)),
)]
async fn sync_config(
    State(king): State<King>,
    JsonBody(sync): JsonBody<SyncConfig>,
) -> Result<Json<ConfigSynced>> {
    check_word("reason", sync.reason.as_deref(), MAX_REASON)?;
    let config_hash = king
        .store
        .write(async move |connection: &Connection| {
            let now = Timestamp::now();
            let digest = skills::pointers::digest(connection).await?;
            let payload = json!(ConfigNotice {
                trigger: Some("config_sync".to_owned()),
                reason: Some(sync.reason.unwrap_or_else(|| "requested".to_owned())),
                ..ConfigNotice::new("skills", &digest)
            });
            let kind = outbox::SKILLS_CHANGED;
            outbox::push(connection, now, kind, kind, None, &payload).await?;
            events::append(connection, now, "config.sync", None, None, &payload).await?;
            Ok::<_, store::Error>(digest)
        })
        .await?;
    king.pipeline.wake();
    Ok(Json(ConfigSynced { success: true, config_hash }))
}

async fn load(king: &King, agent_id: AgentId) -> Result<AgentView> {
    let agent = king.store.agents_get(agent_id.as_str(), silent_since(king)).await?;
    let mut agent = agent.ok_or_else(|| unknown(&agent_id))?;
    agent.socket_id = king.registry.connection_of(agent_id.as_str());
    Ok(agent)
}

/// Who has not been heard of since then is offline.
fn silent_since(king: &King) -> Timestamp {
    let lease = i64::try_from(king.config.lease_ms).unwrap_or(i64::MAX);
    Timestamp(Timestamp::now().0.saturating_sub(lease))
}

fn unknown(agent_id: &AgentId) -> ApiError {
    ApiError::not_found(format!("There is no agent {agent_id}; GET /agents lists them."))
}

fn check_word(field: &str, word: Option<&str>, most: usize) -> Result<()> {
    match word {
        Some(word) if word.len() > most || word.chars().any(char::is_control) => {
            let message = format!("it has at most {most} characters, none of them a line break");
            Err(ApiError::field(field, message))
        }
        _ => Ok(()),
    }
}
