//! Memories and their tiers.

use axum::{Json, extract::State, http::StatusCode};
use evo_common::{
    api::{
        BindTask, ChangeMemory, ErrorBody, MemoryAnswer, MemoryDetail, MemoryForgotten, MemoryList,
        MemoryStats, MemoryTasks, MemoryTierAnswer, MemoryTiers, MemoryWritten, NewMemory,
        SearchMemories,
    },
    clock::Timestamp,
    messages::{MemoryCategory, MemoryScope, MemoryTierEntry, MemoryUpdate},
};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    error::{ApiError, Result},
    extract::{JsonBody, PathParam, PathParams, QueryParams, limit, offset},
};
use crate::{
    memory,
    state::King,
    store::{Connection, MemoryFilter, memories},
};

/// Memories in one answer to a search: when the caller names no number, and at most.
const SEARCH_LIMIT: u32 = 20;
const MAX_SEARCH_LIMIT: u32 = 100;

/// The routes of this area.
pub(super) fn routes() -> OpenApiRouter<King> {
    OpenApiRouter::new()
        .routes(routes!(list_memories, create_memory))
        .routes(routes!(search_memories))
        .routes(routes!(get_memory_stats))
        .routes(routes!(get_memory, update_memory, delete_memory))
        .routes(routes!(list_memory_tiers, put_memory_tier))
        .routes(routes!(get_memory_tier, delete_memory_tier))
        .routes(routes!(list_memory_tasks, bind_memory_task))
}

/// The path of the routes below.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "stands in the document; handlers take the text")]
struct MemoryPath {
    /// The memory's id.
    #[param(example = "mem-evo")]
    memory_id: String,
}

/// Which memories to list.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ListMemories {
    /// Most memories in the answer, 50 by default.
    #[param(minimum = 1, maximum = 500, default = 50, example = 10)]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    #[param(example = "mem-z")]
    cursor: Option<String>,
    /// How many to leave out at the beginning; `cursor` is faster and misses nothing.
    #[param(minimum = 0, maximum = 10_000, default = 0, example = 0)]
    offset: Option<u32>,
    /// Only in this scope.
    #[param(inline, example = "system")]
    scope: Option<MemoryScope>,
    /// Only of this kind.
    #[param(inline, example = "fact")]
    category: Option<MemoryCategory>,
    /// Only of this agent.
    #[param(example = "evo-learning")]
    agent_id: Option<String>,
    /// Only of this run.
    #[param(example = "run-0")]
    run_id: Option<String>,
    /// Only about this skill.
    #[param(example = "evo-king-get-health")]
    skill_id: Option<String>,
    /// Only with this tag, exactly.
    #[param(example = "evo")]
    tag: Option<String>,
    /// Only with this tier.
    #[param(example = "l0")]
    tier: Option<String>,
    /// Only those bound to this task.
    #[param(example = "task-0")]
    task_id: Option<String>,
}

/// List the memories.
///
/// Newest first, in pages, each memory with its one line (tier `l0`). Listing changes no count of
/// uses.
#[utoipa::path(
    get,
    path = "/memories",
    tag = "memories",
    params(ListMemories),
    responses((status = 200, description = "A page of memories.", body = MemoryList)),
)]
async fn list_memories(
    State(king): State<King>,
    QueryParams(params): QueryParams<ListMemories>,
) -> Result<Json<MemoryList>> {
    let named = |text: Option<String>| text.filter(|text| !text.is_empty());
    if let Some(tier) = &params.tier
        && !memory::is_tier(tier)
    {
        return Err(ApiError::parameter("tier", format!("{tier:?} is not l0, l1 or l2")));
    }
    let filter = MemoryFilter {
        limit: limit(params.limit)?,
        cursor: named(params.cursor),
        offset: offset(params.offset)?,
        scope: params.scope,
        category: params.category,
        agent_id: named(params.agent_id),
        run_id: named(params.run_id),
        skill_id: named(params.skill_id),
        tag: named(params.tag),
        tier: params.tier,
        task_id: named(params.task_id),
    };
    Ok(Json(king.store.memories_list(filter).await?))
}

/// Store a memory.
///
/// One with the same scope, agent and key is replaced and keeps its id. Secrets are taken out of
/// it before it is stored.
#[utoipa::path(
    post,
    path = "/memories",
    tag = "memories",
    request_body(
        content = NewMemory, description = "The memory.",
        example = json!({
            "scope": "system", "category": "preference", "key": "language", "tags": ["people"],
            "tiers": [{"tier": "l0", "content": "Answers are given in English."}],
        }),
    ),
    responses(
        (status = 200, description = "The memory of this key was replaced.", body = MemoryWritten),
        (status = 201, description = "The memory was stored.", body = MemoryWritten),
    ),
)]
async fn create_memory(
    State(king): State<King>,
    JsonBody(new): JsonBody<NewMemory>,
) -> Result<(StatusCode, Json<MemoryWritten>)> {
    let config = king.config.clone();
    let (created, memory) = king
        .store
        .write(async move |connection: &Connection| {
            let (now, new) = (Timestamp::now(), new.into());
            memory::bounds::make_room(connection, now, &config.retention, &new).await?;
            let stored = memory::store(connection, now, new).await?;
            Ok::<_, memory::Error>((stored.created, detail(connection, &stored.memory_id).await?))
        })
        .await?;
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(MemoryWritten { success: true, memory })))
}

/// Search the memories.
///
/// Words are looked for in keys, tags, texts and metadata, in any language; the best hits come
/// first. Memories with all words are found, or, when there is none, those with some. With `touch`
/// what is found counts as used.
#[utoipa::path(
    post,
    path = "/memories/search",
    tag = "memories",
    request_body(
        content = SearchMemories, description = "What to look for.",
        example = json!({"query": "how operations turned out", "limit": 5}),
    ),
    responses((status = 200, description = "What was found.", body = MemoryList)),
)]
async fn search_memories(
    State(king): State<King>,
    JsonBody(search): JsonBody<SearchMemories>,
) -> Result<Json<MemoryList>> {
    let limit = search.limit.unwrap_or(SEARCH_LIMIT);
    if !(1..=MAX_SEARCH_LIMIT).contains(&limit) {
        let message = format!("{limit} is not between 1 and {MAX_SEARCH_LIMIT}");
        return Err(ApiError::field("limit", message));
    }
    Ok(Json(memory::search(&king.store, SearchMemories { limit: Some(limit), ..search }).await?))
}

/// Count the memories.
///
/// How many memories each scope has, and how many there are in all.
#[utoipa::path(
    get,
    path = "/memories/stats",
    tag = "memories",
    responses((
        status = 200, description = "The counts.", body = MemoryStats,
        example = json!({
            "stats": {"agent": 0, "pipeline": 12, "skill": 0, "system": 1}, "count": 13,
        }),
    )),
)]
async fn get_memory_stats(State(king): State<King>) -> Result<Json<MemoryStats>> {
    let stats = king.store.memories_stats().await?;
    Ok(Json(MemoryStats { count: stats.values().sum(), stats }))
}

/// Show one memory.
///
/// The memory with all its tiers and the tasks that it is bound to. Showing it changes no count of
/// uses.
#[utoipa::path(
    get,
    path = "/memories/{memory_id}",
    tag = "memories",
    params(MemoryPath),
    responses(
        (status = 200, description = "The memory.", body = MemoryAnswer),
        (status = 404, description = "There is no such memory.", body = ErrorBody),
    ),
)]
async fn get_memory(
    State(king): State<King>,
    PathParam(memory_id): PathParam,
) -> Result<Json<MemoryAnswer>> {
    Ok(Json(MemoryAnswer { memory: load(&king, memory_id).await? }))
}

/// Change a memory.
///
/// What the body names takes the place of what was there; the rest stays, also the tiers that it
/// does not name.
#[utoipa::path(
    put,
    path = "/memories/{memory_id}",
    tag = "memories",
    params(MemoryPath),
    request_body(
        content = ChangeMemory, description = "What changes.",
        example = json!({"relevance_score": 0.5}),
    ),
    responses(
        (status = 200, description = "The memory as it is now.", body = MemoryWritten),
        (status = 404, description = "There is no such memory.", body = ErrorBody),
    ),
)]
async fn update_memory(
    State(king): State<King>,
    PathParam(memory_id): PathParam,
    JsonBody(change): JsonBody<ChangeMemory>,
) -> Result<Json<MemoryWritten>> {
    let ChangeMemory { metadata, tags, relevance_score, tiers } = change;
    let update = MemoryUpdate { memory_id, metadata, tags, relevance_score, tiers };
    written(&king, update).await
}

/// Forget a memory.
///
/// It is gone with its tiers, its tags and its ties to tasks.
#[utoipa::path(
    delete,
    path = "/memories/{memory_id}",
    tag = "memories",
    params(MemoryPath),
    responses(
        (status = 200, description = "It is forgotten.", body = MemoryForgotten),
        (status = 404, description = "There is no such memory.", body = ErrorBody),
    ),
)]
async fn delete_memory(
    State(king): State<King>,
    PathParam(memory_id): PathParam,
) -> Result<Json<MemoryForgotten>> {
    let gone = memory_id.clone();
    king.store
        .write(async move |connection: &Connection| {
            memory::delete(connection, Timestamp::now(), &gone).await
        })
        .await?;
    Ok(Json(MemoryForgotten { success: true, memory_id }))
}

/// List a memory's tiers.
///
/// A memory has up to three texts: `l0` a line, `l1` a page, `l2` everything.
#[utoipa::path(
    get,
    path = "/memories/{memory_id}/tiers",
    tag = "memories",
    params(MemoryPath),
    responses(
        (status = 200, description = "The tiers that it has.", body = MemoryTiers),
        (status = 404, description = "There is no such memory.", body = ErrorBody),
    ),
)]
async fn list_memory_tiers(
    State(king): State<King>,
    PathParam(memory_id): PathParam,
) -> Result<Json<MemoryTiers>> {
    let tiers = load(&king, memory_id).await?.memory.memory.tiers;
    Ok(Json(MemoryTiers { count: tiers.len(), tiers }))
}

/// Write a memory's tier.
///
/// Takes the place of the tier of that name, which a memory has once.
#[utoipa::path(
    post,
    path = "/memories/{memory_id}/tiers",
    tag = "memories",
    params(MemoryPath),
    request_body(
        content = MemoryTierEntry, description = "The tier.",
        example = json!({"tier": "l1", "content": "More about it."}),
    ),
    responses(
        (status = 200, description = "The memory as it is now.", body = MemoryWritten),
        (status = 404, description = "There is no such memory.", body = ErrorBody),
    ),
)]
async fn put_memory_tier(
    State(king): State<King>,
    PathParam(memory_id): PathParam,
    JsonBody(tier): JsonBody<MemoryTierEntry>,
) -> Result<Json<MemoryWritten>> {
    memory::check_tier("tier", &tier.tier)?;
    let update = MemoryUpdate {
        memory_id,
        metadata: None,
        tags: None,
        relevance_score: None,
        tiers: Some(vec![tier]),
    };
    written(&king, update).await
}

/// Show one tier of a memory.
///
/// The text, and when it was made and last changed.
#[utoipa::path(
    get,
    path = "/memories/{memory_id}/tiers/{tier}",
    tag = "memories",
    params(
        MemoryPath,
        ("tier" = String, Path, description = "`l0`, `l1` or `l2`.", example = "l0"),
    ),
    responses(
        (status = 200, description = "The tier.", body = MemoryTierAnswer),
        (status = 404, description = "There is no such memory, or it has no such tier.", body = ErrorBody),
    ),
)]
async fn get_memory_tier(
    State(king): State<King>,
    PathParams(memory_id, name): PathParams,
) -> Result<Json<MemoryTierAnswer>> {
    let tiers = load(&king, memory_id.clone()).await?.memory.memory.tiers;
    let tier = tiers.into_iter().find(|tier| tier.tier == name);
    let tier = tier.ok_or_else(|| no_tier(&memory_id, &name))?;
    Ok(Json(MemoryTierAnswer { tier }))
}

/// Forget one tier of a memory.
///
/// The rest of the memory stays.
#[utoipa::path(
    delete,
    path = "/memories/{memory_id}/tiers/{tier}",
    tag = "memories",
    params(
        MemoryPath,
        ("tier" = String, Path, description = "`l0`, `l1` or `l2`.", example = "l0"),
    ),
    responses(
        (status = 200, description = "It is forgotten.", body = MemoryForgotten),
        (status = 404, description = "There is no such memory, or it has no such tier.", body = ErrorBody),
    ),
)]
async fn delete_memory_tier(
    State(king): State<King>,
    PathParams(memory_id, tier): PathParams,
) -> Result<Json<MemoryForgotten>> {
    if !memory::is_tier(&tier) {
        return Err(no_tier(&memory_id, &tier));
    }
    let (id, name) = (memory_id.clone(), tier.clone());
    let gone = king
        .store
        .write(async move |connection: &Connection| {
            memory::delete_tier(connection, Timestamp::now(), &id, &name).await
        })
        .await?;
    if !gone {
        return Err(no_tier(&memory_id, &tier));
    }
    Ok(Json(MemoryForgotten { success: true, memory_id }))
}

/// List a memory's tasks.
///
/// The ids of the tasks that the memory is bound to.
#[utoipa::path(
    get,
    path = "/memories/{memory_id}/tasks",
    tag = "memories",
    params(MemoryPath),
    responses(
        (status = 200, description = "The tasks.", body = MemoryTasks),
        (status = 404, description = "There is no such memory.", body = ErrorBody),
    ),
)]
async fn list_memory_tasks(
    State(king): State<King>,
    PathParam(memory_id): PathParam,
) -> Result<Json<MemoryTasks>> {
    let task_ids = load(&king, memory_id).await?.task_ids;
    Ok(Json(MemoryTasks { count: task_ids.len(), task_ids }))
}

/// Bind a memory to a task.
///
/// Doing it again changes nothing.
#[utoipa::path(
    post,
    path = "/memories/{memory_id}/tasks",
    tag = "memories",
    params(MemoryPath),
    request_body(
        content = BindTask, description = "The task.", example = json!({"task_id": "task-0"}),
    ),
    responses(
        (status = 200, description = "The tasks of the memory.", body = MemoryTasks),
        (status = 404, description = "There is no such memory.", body = ErrorBody),
    ),
)]
async fn bind_memory_task(
    State(king): State<King>,
    PathParam(memory_id): PathParam,
    JsonBody(bind): JsonBody<BindTask>,
) -> Result<Json<MemoryTasks>> {
    let task_ids = king
        .store
        .write(async move |connection: &Connection| {
            memory::bind_task(connection, Timestamp::now(), &bind.task_id, &memory_id).await?;
            Ok::<_, memory::Error>(memories::tasks_of_memory(connection, &memory_id).await?)
        })
        .await?;
    Ok(Json(MemoryTasks { count: task_ids.len(), task_ids }))
}

async fn written(king: &King, update: MemoryUpdate) -> Result<Json<MemoryWritten>> {
    let memory = king
        .store
        .write(async move |connection: &Connection| {
            let memory_id = update.memory_id.clone();
            memory::update(connection, Timestamp::now(), update).await?;
            detail(connection, &memory_id).await
        })
        .await?;
    Ok(Json(MemoryWritten { success: true, memory }))
}

async fn detail(
    connection: &Connection,
    memory_id: &str,
) -> std::result::Result<MemoryDetail, memory::Error> {
    let memory = memories::detail(connection, memory_id).await?;
    memory.ok_or_else(|| memory::Error::NotFound(memory_id.to_owned()))
}

async fn load(king: &King, memory_id: String) -> Result<MemoryDetail> {
    let memory = king.store.memories_get(&memory_id).await?;
    Ok(memory.ok_or(memory::Error::NotFound(memory_id))?)
}

fn no_tier(memory_id: &str, tier: &str) -> ApiError {
    ApiError::not_found(format!(
        "Memory {memory_id} has no tier {tier:?}; GET /memories/{memory_id}/tiers lists its tiers."
    ))
}
