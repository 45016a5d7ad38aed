//! Memories: what clients and agents ask for and tell. Answers are acks, in the published shape.

use evo_common::{
    api::SearchMemories,
    clock::Timestamp,
    messages::{MemoryDelete, MemoryQuery, MemoryStore, MemoryUpdate, Reply, events},
    tokens::Scope,
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use socketioxide::extract::{AckSender, MaybeExtension, SocketRef, State, TryData};

use super::{Access, agent::Identity, allowance::Admitted, read, scope_of};
use crate::{
    memory,
    state::King,
    store::{self, Connection, memories},
};

/// Most memories in one answer.
const MAX_LIMIT: u32 = 100;

type Payload = TryData<Value>;

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

/// Why a request was not done.
enum Refusal {
    Reply(Reply),
    Memory(memory::Error),
}

impl From<memory::Error> for Refusal {
    fn from(error: memory::Error) -> Self {
        Self::Memory(error)
    }
}

impl From<store::Error> for Refusal {
    fn from(error: store::Error) -> Self {
        Self::Memory(error.into())
    }
}

impl From<Reply> for Refusal {
    fn from(reply: Reply) -> Self {
        Self::Reply(reply)
    }
}

/// Who asks: an operator may do everything, a runner keeps to itself.
struct Asker {
    scope: Scope,
    agent_id: Option<String>,
}

impl Asker {
    fn new(access: MaybeExtension<Access>, identity: MaybeExtension<Identity>) -> Self {
        Self { scope: scope_of(access), agent_id: identity.0.map(|Identity(agent_id)| agent_id) }
    }

    fn may(&self, needed: Scope) -> Result<(), Refusal> {
        if self.scope.allows(needed) {
            return Ok(());
        }
        let message = format!("this needs the {} token", needed.as_str());
        Err(Reply::rejected("", "forbidden", message).into())
    }

    /// Whether it may write what belongs to this agent; what belongs to nobody is everybody's.
    fn may_write(&self, owner: &str) -> Result<(), Refusal> {
        if self.scope.allows(Scope::Operator)
            || owner.is_empty()
            || self.agent_id.as_deref() == Some(owner)
        {
            return Ok(());
        }
        let message = format!("the memory belongs to {owner:?}, and this connection does not");
        Err(Reply::rejected("", "not_your_agent", message).into())
    }
}

async fn on_store(
    _: Admitted,
    TryData(payload): Payload,
    ack: AckSender,
    access: MaybeExtension<Access>,
    identity: MaybeExtension<Identity>,
    State(king): State<King>,
) {
    let asker = Asker::new(access, identity);
    let done = async {
        let memory: MemoryStore = decoded(events::MEMORY_STORE, payload)?;
        asker.may(Scope::Runner)?;
        asker.may_write(&memory.agent_id)?;
        let stored = king
            .store
            .write(async move |connection: &Connection| {
                memory::store(connection, Timestamp::now(), memory).await
            })
            .await?;
        Ok(json!({"success": true, "memory_id": stored.memory_id, "created": stored.created}))
    };
    answer(ack, done.await);
}

async fn on_query(
    _: Admitted,
    TryData(payload): Payload,
    ack: AckSender,
    access: MaybeExtension<Access>,
    identity: MaybeExtension<Identity>,
    State(king): State<King>,
) {
    let asker = Asker::new(access, identity);
    let done = async {
        let Query { query, run_id, skill_id, tag, cursor, touch } =
            decoded(events::MEMORY_QUERY, payload)?;
        asker.may(Scope::Viewer)?;
        // Looking on is no use.
        let touch = touch && asker.scope.allows(Scope::Runner);
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
        let page = memory::search(&king.store, search).await?;
        Ok(json!({
            "success": true, "memories": page.memories, "count": page.count,
            "next_cursor": page.next_cursor,
        }))
    };
    answer(ack, done.await);
}

async fn on_update(
    _: Admitted,
    TryData(payload): Payload,
    ack: AckSender,
    access: MaybeExtension<Access>,
    identity: MaybeExtension<Identity>,
    State(king): State<King>,
) {
    let asker = Asker::new(access, identity);
    let done = async {
        let update: MemoryUpdate = decoded(events::MEMORY_UPDATE, payload)?;
        asker.may(Scope::Runner)?;
        let memory = king
            .store
            .write(async move |connection: &Connection| {
                let memory_id = update.memory_id.clone();
                let owner = owner_of(connection, &memory_id).await?;
                asker.may_write(&owner)?;
                memory::update(connection, Timestamp::now(), update).await?;
                Ok::<_, Refusal>(memories::detail(connection, &memory_id).await?)
            })
            .await?;
        Ok(json!({"success": true, "memory": memory}))
    };
    answer(ack, done.await);
}

async fn on_delete(
    _: Admitted,
    TryData(payload): Payload,
    ack: AckSender,
    access: MaybeExtension<Access>,
    identity: MaybeExtension<Identity>,
    State(king): State<King>,
) {
    let asker = Asker::new(access, identity);
    let done = async {
        let MemoryDelete { memory_id } = decoded(events::MEMORY_DELETE, payload)?;
        asker.may(Scope::Runner)?;
        let gone = memory_id.clone();
        king.store
            .write(async move |connection: &Connection| {
                let owner = owner_of(connection, &gone).await?;
                asker.may_write(&owner)?;
                Ok::<_, Refusal>(memory::delete(connection, Timestamp::now(), &gone).await?)
            })
            .await?;
        Ok(json!({"success": true, "memory_id": memory_id}))
    };
    answer(ack, done.await);
}

async fn owner_of(connection: &Connection, memory_id: &str) -> Result<String, memory::Error> {
    let memory = memories::get(connection, memory_id).await?;
    let memory = memory.ok_or_else(|| memory::Error::NotFound(memory_id.to_owned()))?;
    Ok(memory.memory.agent_id)
}

fn decoded<T: DeserializeOwned>(
    event: &str,
    payload: Result<Value, impl std::fmt::Display>,
) -> Result<T, Refusal> {
    Ok(read(event, payload)?)
}

/// The published shape: `{success: true, …}` or `{success: false, error}`, with a stable `code`.
fn answer(ack: AckSender, done: Result<Value, Refusal>) {
    let answer = done.unwrap_or_else(|refusal| {
        let (code, error) = match refusal {
            Refusal::Reply(reply) => {
                (reply.code.unwrap_or_default(), reply.message.unwrap_or_default())
            }
            Refusal::Memory(error) => {
                let code = match &error {
                    memory::Error::Invalid { .. } => "invalid_field",
                    memory::Error::NotFound(_) => "not_found",
                    memory::Error::Store(cause) => {
                        tracing::error!(error = %cause, "A memory could not be stored: {cause}");
                        "unavailable"
                    }
                };
                (code.to_owned(), error.to_string())
            }
        };
        json!({"success": false, "code": code, "error": error})
    });
    // Fails when nobody asked for an ack.
    ack.send(&answer).unwrap_or_default();
}
