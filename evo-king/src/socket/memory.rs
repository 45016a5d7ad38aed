//! Memories: what clients and agents ask for and tell. Answers are acks, in the published shape.

use evo_common::{
    api::SearchMemories,
    clock::Timestamp,
    messages::{MemoryDelete, MemoryQuery, MemoryStore, MemoryUpdate, Reply, events},
    tokens::Scope,
};
use serde::Deserialize;
use serde_json::json;
use socketioxide::extract::SocketRef;

use super::request::{Change, Request};
use crate::{
    memory,
    store::{Connection, memories, tasks},
};

/// Most memories in one answer.
const MAX_LIMIT: u32 = 100;

pub(super) fn register_handlers(socket: &SocketRef) {
    socket.on(events::MEMORY_STORE, on_store);
    socket.on(events::MEMORY_QUERY, on_query);
    socket.on(events::MEMORY_UPDATE, on_update);
    socket.on(events::MEMORY_DELETE, on_delete);
}

/// `memory:query` with what this implementation adds.
#[derive(Deserialize)]
struct Query {
    #[serde(flatten, deserialize_with = "MemoryQuery::deserialize")]
    query: MemoryQuery,
    #[serde(default)]
    run_id: Option<String>,
    #[serde(default)]
    skill_id: Option<String>,
    #[serde(default)]
    tag: Option<String>,
    #[serde(default)]
    cursor: Option<String>,
    /// Whether what is found counts as used.
    #[serde(default)]
    touch: bool,
}

/// Who writes: an operator may do everything, a runner keeps to itself.
struct Writer {
    is_operator: bool,
    agent_id: Option<String>,
}

impl Writer {
    fn of(request: &Request) -> Result<Self, Reply> {
        request.may(Scope::Runner)?;
        let is_operator = request.scope().allows(Scope::Operator);
        // A connection that was overtaken speaks for nobody.
        Ok(Self { is_operator, agent_id: request.speaker("").ok() })
    }

    /// Whether a memory may go with a task, whose agent will read it: an operator's with any, an
    /// agent's with what it was given.
    async fn may_bind(&self, connection: &Connection, task_id: Option<&str>) -> Result<(), Reply> {
        let Some(task_id) = task_id.filter(|task_id| !task_id.is_empty()) else { return Ok(()) };
        if self.is_operator {
            return Ok(());
        }
        let task = tasks::load(connection, task_id).await?;
        if let (Some(agent), Some(task)) = (self.agent_id.as_deref(), &task) {
            let leased = task.state.as_ref().and_then(|state| state.lease());
            let holder = leased.map(|(holder, _)| holder).or(task.agent_id.as_deref());
            if holder == Some(agent) {
                return Ok(());
            }
        }
        let message = format!("task {task_id:?} is not with this connection's agent");
        Err(Reply::rejected("", "not_your_task", message))
    }

    /// Whether it may write what belongs to this agent; what belongs to nobody is everybody's.
    fn may_write(&self, owner: &str) -> Result<(), Reply> {
        if self.is_operator || owner.is_empty() || self.agent_id.as_deref() == Some(owner) {
            return Ok(());
        }
        let message = format!("the memory belongs to {owner:?}, and this connection does not");
        Err(Reply::rejected("", "not_your_agent", message))
    }
}

async fn on_store(mut change: Change) {
    let done = async {
        let memory: MemoryStore = change.read()?;
        let writer = Writer::of(&change)?;
        writer.may_write(&memory.agent_id)?;
        let config = change.king.config.clone();
        let write = async move |connection: &Connection| {
            writer.may_bind(connection, memory.task_id.as_deref()).await?;
            let now = Timestamp::now();
            memory::bounds::make_room(connection, now, &config.retention, &memory).await?;
            Ok::<_, Reply>(memory::store(connection, now, memory).await?)
        };
        let stored = change.king.store.write(write).await?;
        change.about(&stored.memory_id);
        Ok(json!({"success": true, "memory_id": stored.memory_id, "created": stored.created}))
    };
    let done = done.await;
    change.tell(done).await;
}

async fn on_query(mut request: Request) {
    let done = async {
        let Query { query, run_id, skill_id, tag, cursor, touch } = request.read()?;
        request.may(Scope::Viewer)?;
        // Looking on is no use.
        let touch = touch && request.scope().allows(Scope::Runner);
        let search = SearchMemories {
            query: query.query,
            scope: query.scope,
            category: query.category,
            agent_id: query.agent_id,
            run_id,
            skill_id,
            tag,
            tier: query.tier,
            task_id: query.task_id,
            limit: Some(query.limit.clamp(1, MAX_LIMIT)),
            cursor,
            touch,
        };
        let page = memory::search(&request.king.store, search).await?;
        Ok(json!({
            "success": true, "memories": page.memories, "count": page.count,
            "next_cursor": page.next_cursor,
        }))
    };
    let done = done.await;
    request.tell(done);
}

async fn on_update(mut change: Change) {
    let done = async {
        let update: MemoryUpdate = change.read()?;
        change.about(&update.memory_id);
        let writer = Writer::of(&change)?;
        let write = async move |connection: &Connection| {
            let memory_id = update.memory_id.clone();
            writer.may_write(&owner_of(connection, &memory_id).await?)?;
            memory::update(connection, Timestamp::now(), update).await?;
            Ok::<_, Reply>(memories::detail(connection, &memory_id).await?)
        };
        let memory = change.king.store.write(write).await?;
        Ok(json!({"success": true, "memory": memory}))
    };
    let done = done.await;
    change.tell(done).await;
}

async fn on_delete(mut change: Change) {
    let done = async {
        let MemoryDelete { memory_id } = change.read()?;
        change.about(&memory_id);
        let (writer, gone) = (Writer::of(&change)?, memory_id.clone());
        let write = async move |connection: &Connection| {
            writer.may_write(&owner_of(connection, &gone).await?)?;
            Ok::<_, Reply>(memory::delete(connection, Timestamp::now(), &gone).await?)
        };
        change.king.store.write(write).await?;
        Ok(json!({"success": true, "memory_id": memory_id}))
    };
    let done = done.await;
    change.tell(done).await;
}

async fn owner_of(connection: &Connection, memory_id: &str) -> Result<String, memory::Error> {
    let memory = memories::get(connection, memory_id).await?;
    let memory = memory.ok_or_else(|| memory::Error::NotFound(memory_id.to_owned()))?;
    Ok(memory.memory.agent_id)
}
