//! Memories: their texts, tags and tasks. What comes in has been checked and is without secrets
//! (`crate::memory` sees to that).

mod list;
mod search;

use evo_common::{
    api::{MemoryDetail, MemoryView},
    clock::Timestamp,
    messages::{MemoryRecord, MemoryStore, MemoryTierRecord, MemoryUpdate},
};
use libsql::{Row, params};
use serde::Deserialize;
use serde_json::Value;

use super::{Connection, Result, Store, row};
use crate::memory::text;

pub(crate) use list::{cases_with_tag, count, list, oldest, tasks_of_memory};
#[cfg(test)]
pub(crate) use {list::stats, search::search};

/// What storing came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) memory_id: String,
    /// Whether there was none with this key.
    pub(crate) created: bool,
}

/// A new memory's name. Names grow with time.
fn new_id() -> String {
    format!("mem-{}", uuid::Uuid::now_v7().simple())
}

/// Stores a memory. One with the same scope, agent and key is replaced and keeps its name.
pub(crate) async fn store(
    connection: &Connection,
    now: Timestamp,
    memory: &MemoryStore,
) -> Result<Stored> {
    let known = if memory.key.is_empty() {
        None
    } else {
        id_of_key(connection, memory.scope.as_str(), &memory.agent_id, &memory.key).await?
    };
    let created = known.is_none();
    let memory_id = match known {
        Some(memory_id) => {
            connection
                .execute(
                    "UPDATE memories SET category = ?2, metadata = ?3, relevance_score = ?4,
                         run_id = iif(?5 = '', run_id, ?5), skill_id = iif(?6 = '', skill_id, ?6),
                         version = version + 1, updated_at = ?7
                     WHERE memory_id = ?1",
                    params![
                        memory_id.clone(),
                        memory.category.as_str(),
                        row::to_json(&memory.metadata),
                        memory.relevance_score,
                        memory.run_id.clone(),
                        memory.skill_id.clone(),
                        now.0,
                    ],
                )
                .await?;
            connection
                .execute("DELETE FROM memory_tiers WHERE memory_id = ?", params![memory_id.clone()])
                .await?;
            memory_id
        }
        None => {
            let memory_id = new_id();
            connection
                .execute(
                    "INSERT INTO memories (memory_id, scope, category, key, agent_id, run_id,
                         skill_id, metadata, relevance_score, version, access_count, created_at,
                         updated_at)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, 1, 0, ?10, ?10)",
                    params![
                        memory_id.clone(),
                        memory.scope.as_str(),
                        memory.category.as_str(),
                        memory.key.clone(),
                        memory.agent_id.clone(),
                        memory.run_id.clone(),
                        memory.skill_id.clone(),
                        row::to_json(&memory.metadata),
                        memory.relevance_score,
                        now.0,
                    ],
                )
                .await?;
            memory_id
        }
    };
    save_tags(connection, &memory_id, &memory.tags).await?;
    for tier in &memory.tiers {
        save_tier(connection, now, &memory_id, &tier.tier, &tier.content).await?;
    }
    if let Some(task_id) = &memory.task_id {
        bind_task(connection, now, task_id, &memory_id).await?;
    }
    index(connection, &memory_id).await?;
    Ok(Stored { memory_id, created })
}

/// Changes what the update names. Says whether there is such a memory.
pub(crate) async fn update(
    connection: &Connection,
    now: Timestamp,
    update: &MemoryUpdate,
) -> Result<bool> {
    let changed = connection
        .execute(
            "UPDATE memories SET metadata = coalesce(?2, metadata),
                 relevance_score = coalesce(?3, relevance_score),
                 version = version + 1, updated_at = ?4
             WHERE memory_id = ?1",
            params![
                update.memory_id.clone(),
                update.metadata.as_ref().map(row::to_json),
                update.relevance_score,
                now.0,
            ],
        )
        .await?;
    if changed == 0 {
        return Ok(false);
    }
    if let Some(tags) = &update.tags {
        save_tags(connection, &update.memory_id, tags).await?;
    }
    for tier in update.tiers.iter().flatten() {
        save_tier(connection, now, &update.memory_id, &tier.tier, &tier.content).await?;
    }
    index(connection, &update.memory_id).await?;
    Ok(true)
}

/// Forgets one tier. Says whether there was one.
pub(crate) async fn delete_tier(
    connection: &Connection,
    now: Timestamp,
    memory_id: &str,
    tier: &str,
) -> Result<bool> {
    let gone = connection
        .execute(
            "DELETE FROM memory_tiers WHERE memory_id = ? AND tier = ?",
            params![memory_id, tier],
        )
        .await?;
    if gone == 0 {
        return Ok(false);
    }
    connection
        .execute(
            "UPDATE memories SET version = version + 1, updated_at = ?2 WHERE memory_id = ?1",
            params![memory_id, now.0],
        )
        .await?;
    index(connection, memory_id).await?;
    Ok(true)
}

/// Forgets a memory. Says whether there was one.
pub(crate) async fn delete(connection: &Connection, memory_id: &str) -> Result<bool> {
    connection
        .execute(
            "DELETE FROM memory_fts
             WHERE rowid = (SELECT id FROM memories WHERE memory_id = ?)",
            params![memory_id],
        )
        .await?;
    for table in ["memory_tiers", "memory_tags", "task_memories"] {
        let sql = format!("DELETE FROM {table} WHERE memory_id = ?");
        connection.execute(&sql, params![memory_id]).await?;
    }
    let gone =
        connection.execute("DELETE FROM memories WHERE memory_id = ?", params![memory_id]).await?;
    Ok(gone > 0)
}

/// Binds a memory to a task; doing it again changes nothing.
pub(crate) async fn bind_task(
    connection: &Connection,
    now: Timestamp,
    task_id: &str,
    memory_id: &str,
) -> Result<()> {
    connection
        .execute(
            "INSERT OR IGNORE INTO task_memories (task_id, memory_id, created_at) VALUES (?, ?, ?)",
            params![task_id, memory_id, now.0],
        )
        .await?;
    Ok(())
}

/// These memories were used.
pub(crate) async fn touch(
    connection: &Connection,
    now: Timestamp,
    memory_ids: &[String],
) -> Result<()> {
    for memory_id in memory_ids {
        connection
            .execute(
                "UPDATE memories SET access_count = access_count + 1, last_accessed_at = ?2
                 WHERE memory_id = ?1",
                params![memory_id.clone(), now.0],
            )
            .await?;
    }
    Ok(())
}

/// The name of the memory with this key.
pub(crate) async fn id_of_key(
    connection: &Connection,
    scope: &str,
    agent_id: &str,
    key: &str,
) -> Result<Option<String>> {
    row::first(
        connection,
        "SELECT memory_id FROM memories
         WHERE scope = ? AND agent_id = ? AND key = ? AND key <> ''",
        params![scope, agent_id, key],
        |row| Ok(row.get(0)?),
    )
    .await
}

/// Whether there is such a memory.
pub(crate) async fn exists(connection: &Connection, memory_id: &str) -> Result<bool> {
    let found = row::first(
        connection,
        "SELECT 1 FROM memories WHERE memory_id = ?",
        params![memory_id],
        |row| Ok(row.get::<i64>(0)?),
    );
    Ok(found.await?.is_some())
}

/// One memory with all its tiers.
pub(crate) async fn get(connection: &Connection, memory_id: &str) -> Result<Option<MemoryView>> {
    let sql = format!("SELECT {} FROM memories AS m WHERE m.memory_id = ?", columns(Tiers::All));
    row::first(connection, &sql, params![memory_id], view).await
}

async fn save_tags(connection: &Connection, memory_id: &str, tags: &[String]) -> Result<()> {
    connection.execute("DELETE FROM memory_tags WHERE memory_id = ?", params![memory_id]).await?;
    for tag in tags {
        connection
            .execute(
                "INSERT OR IGNORE INTO memory_tags (memory_id, tag) VALUES (?, ?)",
                params![memory_id, tag.clone()],
            )
            .await?;
    }
    Ok(())
}

async fn save_tier(
    connection: &Connection,
    now: Timestamp,
    memory_id: &str,
    tier: &str,
    content: &str,
) -> Result<()> {
    connection
        .execute(
            "INSERT INTO memory_tiers (memory_id, tier, content, created_at, updated_at)
             VALUES (?1, ?2, ?3, ?4, ?4)
             ON CONFLICT (memory_id, tier) DO UPDATE SET
                 content = excluded.content, updated_at = excluded.updated_at",
            params![memory_id, tier, content, now.0],
        )
        .await?;
    Ok(())
}

/// Writes what a memory is found by.
async fn index(connection: &Connection, memory_id: &str) -> Result<()> {
    let Some(memory) = get(connection, memory_id).await? else { return Ok(()) };
    let memory = memory.memory;
    let tier = |name: &str| {
        let tier = memory.tiers.iter().find(|tier| tier.tier == name);
        tier.map(|tier| text::prepare(&tier.content)).unwrap_or_default()
    };
    let mut details = String::new();
    texts_of(&memory.metadata, &mut details);
    for id in [&memory.skill_id, &memory.agent_id] {
        details.push('\n');
        details.push_str(id);
    }
    let id =
        row::number(connection, "SELECT id FROM memories WHERE memory_id = ?", params![memory_id])
            .await?;
    connection.execute("DELETE FROM memory_fts WHERE rowid = ?", params![id]).await?;
    connection
        .execute(
            "INSERT INTO memory_fts (rowid, key, tags, l0, l1, l2, details)
             VALUES (?, ?, ?, ?, ?, ?, ?)",
            params![
                id,
                text::prepare(&memory.key),
                // A full stop keeps a phrase from going on in the next tag.
                text::prepare(&memory.tags.join("\n")),
                tier("l0"),
                tier("l1"),
                tier("l2"),
                text::prepare(&details),
            ],
        )
        .await?;
    Ok(())
}

/// The texts in a JSON value, one a line.
fn texts_of(value: &Value, out: &mut String) {
    match value {
        Value::String(text) => {
            out.push('\n');
            out.push_str(text);
        }
        Value::Array(list) => list.iter().for_each(|value| texts_of(value, out)),
        Value::Object(map) => map.values().for_each(|value| texts_of(value, out)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Which tiers come with a memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tiers {
    All,
    /// Only the one line.
    Line,
}

/// What a [`view`] is read from, of `memories AS m`.
fn columns(tiers: Tiers) -> String {
    let only = match tiers {
        Tiers::All => "",
        Tiers::Line => " AND t.tier = 'l0'",
    };
    format!(
        "m.memory_id, m.scope, m.category, m.key, m.metadata, m.agent_id, m.run_id, m.skill_id,
         m.relevance_score, m.access_count, m.created_at, m.updated_at, m.version,
         m.last_accessed_at,
         (SELECT json_group_array(g.tag) FROM memory_tags AS g WHERE g.memory_id = m.memory_id),
         (SELECT json_group_array(json_object('tier', t.tier, 'content', t.content,
              'created_at', t.created_at, 'updated_at', t.updated_at))
          FROM memory_tiers AS t WHERE t.memory_id = m.memory_id{only})"
    )
}

/// A tier as [`columns`] writes it.
#[derive(Deserialize)]
struct Tier {
    tier: String,
    content: String,
    created_at: i64,
    updated_at: i64,
}

fn view(row: &Row) -> Result<MemoryView> {
    let id: String = row.get(0)?;
    let tiers: Vec<Tier> = row::json(row, 15)?;
    let tiers = tiers
        .into_iter()
        .map(|tier| MemoryTierRecord {
            id: format!("{id}:{}", tier.tier),
            memory_id: id.clone(),
            tier: tier.tier,
            content: tier.content,
            created_at: Timestamp(tier.created_at).to_rfc3339(),
            updated_at: Timestamp(tier.updated_at).to_rfc3339(),
        })
        .collect();
    Ok(MemoryView {
        memory: MemoryRecord {
            id,
            scope: row.get(1)?,
            category: row.get(2)?,
            key: row.get(3)?,
            tiers,
            metadata: row::json(row, 4)?,
            tags: row::json(row, 14)?,
            agent_id: row.get(5)?,
            run_id: row.get(6)?,
            skill_id: row.get(7)?,
            relevance_score: row.get(8)?,
            access_count: row.get(9)?,
            created_at: row::moment(row, 10)?,
            updated_at: row::moment(row, 11)?,
        },
        version: row.get(12)?,
        last_accessed_at: row.get::<Option<i64>>(13)?.map(|at| Timestamp(at).to_rfc3339()),
    })
}

/// One memory with its tiers, and the tasks that it is bound to.
pub(crate) async fn detail(
    connection: &Connection,
    memory_id: &str,
) -> Result<Option<MemoryDetail>> {
    let Some(memory) = get(connection, memory_id).await? else { return Ok(None) };
    let task_ids = tasks_of_memory(connection, memory_id).await?;
    Ok(Some(MemoryDetail { memory, task_ids }))
}

impl Store {
    /// One memory with its tiers, and the tasks that it is bound to.
    pub(crate) async fn memories_get(&self, memory_id: &str) -> Result<Option<MemoryDetail>> {
        let memory_id = memory_id.to_owned();
        self.read(async move |connection| detail(connection, &memory_id).await).await
    }
}
