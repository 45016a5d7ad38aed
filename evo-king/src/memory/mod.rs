//! Memories: what clients, agents and the pipeline keep. Everything that is stored passes here: it
//! is checked against the limits, secrets are taken out of it, and whoever follows is told. All
//! functions that write run in the caller's transaction.

pub(crate) mod bounds;
pub(crate) mod outcomes;
pub(crate) mod text;

use std::collections::BTreeSet;

use evo_common::{
    api::{MemoryList, SearchMemories},
    clock::Timestamp,
    messages::{MemoryStore, MemoryTierEntry, MemoryUpdate},
    redact::{redact, redact_json},
};
use serde_json::{Value, json};

use crate::store::{
    self, Connection, MemoryFilter, Store, events,
    memories::{self, Stored},
    tasks,
};

/// The tiers, and the most bytes in each: a line, a page, everything.
const TIERS: [(&str, usize); 3] = [("l0", 4 * 1024), ("l1", 32 * 1024), ("l2", 128 * 1024)];
/// Longest key and query.
const MAX_KEY: usize = 512;
/// Longest tag.
const MAX_TAG: usize = 128;
/// Most tags of one memory.
const MAX_TAGS: usize = 50;
/// Longest id of an agent, run, skill or task.
const MAX_ID: usize = 128;
/// Most bytes of metadata, as JSON.
const MAX_METADATA: usize = 32 * 1024;
/// Whom king's own memories belong to; no agent may have this name, so none can change them.
pub(crate) const OWNER: &str = "evo-king";
/// The kind of event that tells of a change.
pub(crate) const CHANGED: &str = "memory.changed";

/// Why a memory was not stored.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A part of it is not what it should be.
    #[error("field `{field}`: {message}")]
    Invalid {
        /// Which.
        field: String,
        /// What is wrong with it.
        message: String,
    },
    /// No more are kept, and none may go.
    #[error(
        "there are {most} memories{}, which is the most (retention.{} in king.toml), and none of them may go: delete or unpin some, or raise the limit",
        .scope.map(|scope| format!(" of the scope {scope}")).unwrap_or_default(),
        if .scope.is_some() { "memories_scope_rows" } else { "memories_rows" }
    )]
    Full {
        /// Of one scope, or of all together.
        scope: Option<&'static str>,
        /// How many there are.
        most: u64,
    },
    /// There is no such memory.
    #[error("there is no memory {0:?}; GET /memories lists them")]
    NotFound(String),
    /// The database failed.
    #[error("the database failed")]
    Store(#[from] store::Error),
}

type Result<T> = std::result::Result<T, Error>;

fn invalid(field: impl Into<String>, message: impl Into<String>) -> Error {
    Error::Invalid { field: field.into(), message: message.into() }
}

/// Stores a memory. One with the same scope, agent and key is replaced and keeps its id.
pub(crate) async fn store(
    connection: &Connection,
    now: Timestamp,
    mut memory: MemoryStore,
) -> Result<Stored> {
    check_text("key", &memory.key, MAX_KEY)?;
    for (field, id) in [
        ("agent_id", &memory.agent_id),
        ("run_id", &memory.run_id),
        ("skill_id", &memory.skill_id),
        ("task_id", memory.task_id.as_ref().unwrap_or(&String::new())),
    ] {
        check_text(field, id, MAX_ID)?;
    }
    if memory.task_id.as_deref() == Some("") {
        memory.task_id = None;
    }
    check_relevance(memory.relevance_score)?;
    memory.key = clean(memory.key);
    clean_metadata(&mut memory.metadata)?;
    clean_tags(&mut memory.tags)?;
    clean_tiers(&mut memory.tiers)?;
    if let Some(task_id) = &memory.task_id {
        check_task(connection, task_id).await?;
    }
    let stored = memories::store(connection, now, &memory).await?;
    let action = if stored.created { "stored" } else { "updated" };
    changed(connection, now, action, &stored.memory_id).await?;
    Ok(stored)
}

/// Changes what the update names.
pub(crate) async fn update(
    connection: &Connection,
    now: Timestamp,
    mut update: MemoryUpdate,
) -> Result<()> {
    if let Some(relevance) = update.relevance_score {
        check_relevance(relevance)?;
    }
    if let Some(metadata) = &mut update.metadata {
        clean_metadata(metadata)?;
    }
    if let Some(tags) = &mut update.tags {
        clean_tags(tags)?;
    }
    if let Some(tiers) = &mut update.tiers {
        clean_tiers(tiers)?;
    }
    if !memories::update(connection, now, &update).await? {
        return Err(Error::NotFound(update.memory_id));
    }
    Ok(changed(connection, now, "updated", &update.memory_id).await?)
}

/// Forgets one tier of a memory. Says whether there was one.
pub(crate) async fn delete_tier(
    connection: &Connection,
    now: Timestamp,
    memory_id: &str,
    tier: &str,
) -> Result<bool> {
    check_tier("tier", tier)?;
    if !memories::exists(connection, memory_id).await? {
        return Err(Error::NotFound(memory_id.to_owned()));
    }
    let gone = memories::delete_tier(connection, now, memory_id, tier).await?;
    if gone {
        changed(connection, now, "updated", memory_id).await?;
    }
    Ok(gone)
}

/// Forgets a memory.
pub(crate) async fn delete(connection: &Connection, now: Timestamp, memory_id: &str) -> Result<()> {
    if !memories::delete(connection, memory_id).await? {
        return Err(Error::NotFound(memory_id.to_owned()));
    }
    Ok(changed(connection, now, "deleted", memory_id).await?)
}

/// Binds a memory to a task.
pub(crate) async fn bind_task(
    connection: &Connection,
    now: Timestamp,
    task_id: &str,
    memory_id: &str,
) -> Result<()> {
    if !memories::exists(connection, memory_id).await? {
        return Err(Error::NotFound(memory_id.to_owned()));
    }
    check_task(connection, task_id).await?;
    Ok(memories::bind_task(connection, now, task_id, memory_id).await?)
}

/// Nothing is bound to a task that is not there.
async fn check_task(connection: &Connection, task_id: &str) -> Result<()> {
    if tasks::exists(connection, task_id).await? {
        return Ok(());
    }
    Err(invalid("task_id", format!("there is no task {task_id:?}; GET /tasks lists them")))
}

/// Looks for memories. Only with `touch` does finding one count as a use of it.
pub(crate) async fn search(store: &Store, search: SearchMemories) -> Result<MemoryList> {
    check_query(&search.query)?;
    if let Some(tier) = &search.tier {
        check_tier("tier", tier)?;
    }
    let named = |text: Option<String>| text.filter(|text| !text.is_empty());
    let filter = MemoryFilter {
        limit: search.limit.unwrap_or(1),
        cursor: named(search.cursor),
        offset: 0,
        scope: search.scope,
        category: search.category,
        agent_id: named(search.agent_id),
        run_id: named(search.run_id),
        skill_id: named(search.skill_id),
        tag: named(search.tag),
        tier: search.tier,
        task_id: named(search.task_id),
    };
    let page = store.memories_search(search.query, filter).await?;
    if search.touch && page.count > 0 {
        let used: Vec<String> =
            page.memories.iter().map(|memory| memory.memory.id.clone()).collect();
        store
            .write(async move |connection: &Connection| {
                memories::touch(connection, Timestamp::now(), &used).await
            })
            .await?;
    }
    Ok(page)
}

async fn changed(
    connection: &Connection,
    now: Timestamp,
    action: &str,
    memory_id: &str,
) -> store::Result<()> {
    let payload = json!({"action": action, "memory_id": memory_id});
    events::append(connection, now, CHANGED, None, None, &payload).await?;
    Ok(())
}

/// Whether there is a tier of this name.
pub(crate) fn is_tier(tier: &str) -> bool {
    TIERS.iter().any(|(name, _)| *name == tier)
}

/// Checks the name of a tier; gives the most bytes that it holds.
pub(crate) fn check_tier(field: &str, tier: &str) -> Result<usize> {
    let known = TIERS.iter().find(|(name, _)| *name == tier);
    known.map(|(_, most)| *most).ok_or_else(|| {
        invalid(field, format!("there is no tier {tier:?}; the tiers are l0, l1 and l2"))
    })
}

/// Checks a query.
fn check_query(query: &str) -> Result<()> {
    if query.len() > MAX_KEY {
        return Err(invalid(
            "query",
            format!("it has {} bytes; {MAX_KEY} is the most", query.len()),
        ));
    }
    Ok(())
}

fn check_text(field: &str, text: &str, most: usize) -> Result<()> {
    if text.len() > most {
        return Err(invalid(field, format!("it has {} bytes; {most} is the most", text.len())));
    }
    if text.chars().any(char::is_control) {
        return Err(invalid(field, "it holds a control character, such as a line break"));
    }
    Ok(())
}

fn check_relevance(relevance: f64) -> Result<()> {
    if (0.0..=1.0).contains(&relevance) {
        return Ok(());
    }
    Err(invalid("relevance_score", format!("{relevance} is not between 0 and 1")))
}

fn clean(text: String) -> String {
    match redact(&text) {
        std::borrow::Cow::Borrowed(_) => text,
        std::borrow::Cow::Owned(clean) => clean,
    }
}

fn clean_metadata(metadata: &mut Value) -> Result<()> {
    match metadata {
        Value::Object(_) => {}
        Value::Null => *metadata = json!({}),
        // Some clients send the JSON text of an object.
        Value::String(text) => {
            *metadata = serde_json::from_str(text)
                .ok()
                .filter(Value::is_object)
                .ok_or_else(|| invalid("metadata", "it is a text that is no JSON object"))?;
        }
        _ => return Err(invalid("metadata", "it is not an object")),
    }
    redact_json(metadata);
    let size = metadata.to_string().len();
    if size > MAX_METADATA {
        return Err(invalid(
            "metadata",
            format!("it has {size} bytes as JSON; {MAX_METADATA} is the most"),
        ));
    }
    Ok(())
}

fn clean_tags(tags: &mut [String]) -> Result<()> {
    if tags.len() > MAX_TAGS {
        return Err(invalid("tags", format!("there are {}; {MAX_TAGS} is the most", tags.len())));
    }
    for (index, tag) in tags.iter_mut().enumerate() {
        let field = format!("tags[{index}]");
        check_text(&field, tag, MAX_TAG)?;
        if tag.trim().is_empty() {
            return Err(invalid(field, "a tag is not empty"));
        }
        *tag = clean(std::mem::take(tag));
    }
    Ok(())
}

fn clean_tiers(tiers: &mut [MemoryTierEntry]) -> Result<()> {
    let mut seen = BTreeSet::new();
    for (index, entry) in tiers.iter_mut().enumerate() {
        let most = check_tier(&format!("tiers[{index}].tier"), &entry.tier)?;
        if !seen.insert(entry.tier.clone()) {
            return Err(invalid(
                format!("tiers[{index}].tier"),
                format!("{} is there twice; a memory has each tier once", entry.tier),
            ));
        }
        if entry.content.len() > most {
            return Err(invalid(
                format!("tiers[{index}].content"),
                format!(
                    "it has {} bytes; {most} is the most in {}",
                    entry.content.len(),
                    entry.tier
                ),
            ));
        }
        entry.content = clean(std::mem::take(&mut entry.content));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
