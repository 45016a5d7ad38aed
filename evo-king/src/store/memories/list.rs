//! Pages of memories, and what they are counted and taken away by.

use std::collections::BTreeMap;

use evo_common::{
    api::{MemoryList, MemoryView},
    messages::{MemoryCategory, MemoryScope},
};
use libsql::params;

use super::{Tiers, columns, view};
use crate::store::{Connection, MemoryFilter, Result, Store, row};

/// Tasks that are named for one memory at most.
const MAX_TASKS: u32 = 500;

/// A page of memories, newest first, each with its one line.
pub(crate) async fn list(connection: &Connection, filter: &MemoryFilter) -> Result<MemoryList> {
    let (from, name) = match (&filter.task_id, &filter.tag) {
        (Some(_), _) => (
            "task_memories AS bound CROSS JOIN memories AS m ON m.memory_id = bound.memory_id",
            "bound.memory_id",
        ),
        (None, Some(_)) => (
            "memory_tags AS tagged CROSS JOIN memories AS m ON m.memory_id = tagged.memory_id",
            "tagged.memory_id",
        ),
        (None, None) => ("memories AS m", "m.memory_id"),
    };
    let tagged = match &filter.task_id {
        Some(_) => {
            "EXISTS (SELECT 1 FROM memory_tags AS tagged
                     WHERE tagged.memory_id = m.memory_id AND tagged.tag = ?)"
        }
        None => "tagged.tag = ?",
    };
    let (sql, mut params) = filter
        .conditions(row::Conditions::default().and("bound.task_id = ?", filter.task_id.clone()))
        .and(tagged, filter.tag.clone())
        .and(&format!("{name} < ?"), filter.cursor.clone())
        .query(
            &format!("SELECT {} FROM {from}", columns(Tiers::Line)),
            &format!("{name} DESC"),
            row::wanted(0, filter.limit),
        );
    params.push(i64::from(filter.offset).into());
    let sql = format!("{sql} OFFSET ?");
    let mut memories = row::readable(connection, &sql, params, view).await?;
    let next_cursor = next_cursor(&mut memories, filter.limit);
    Ok(MemoryList { count: memories.len(), memories, next_cursor })
}

/// Takes away the one entry that says that there is more; gives the name of the last that stays.
fn next_cursor(memories: &mut Vec<MemoryView>, limit: u32) -> Option<String> {
    let more = row::cut(memories, 0, limit);
    memories.last().filter(|_| more).map(|memory| memory.memory.id.clone())
}

impl MemoryFilter {
    /// The conditions on the memory itself.
    pub(super) fn conditions(&self, conditions: row::Conditions) -> row::Conditions {
        conditions
            .and("m.scope = ?", self.scope.map(MemoryScope::as_str))
            .and("m.category = ?", self.category.map(MemoryCategory::as_str))
            .and("m.agent_id = ? AND m.agent_id <> ''", self.agent_id.clone())
            .and("m.run_id = ? AND m.run_id <> ''", self.run_id.clone())
            .and("m.skill_id = ? AND m.skill_id <> ''", self.skill_id.clone())
            .and(
                "EXISTS (SELECT 1 FROM memory_tiers AS has
                         WHERE has.memory_id = m.memory_id AND has.tier = ?)",
                self.tier.clone(),
            )
    }
}

/// How many memories each scope has; every scope is there.
pub(crate) async fn stats(connection: &Connection) -> Result<BTreeMap<String, u64>> {
    let counted: Vec<(String, u64)> = row::all(
        connection,
        "SELECT scope, SUM(count) FROM memory_counts GROUP BY scope",
        (),
        |row| Ok((row.get(0)?, row.get(1)?)),
    )
    .await?;
    let mut stats: BTreeMap<String, u64> =
        MemoryScope::ALL.iter().map(|scope| (scope.as_str().to_owned(), 0)).collect();
    stats.extend(counted);
    Ok(stats)
}

/// How many memories there are, of a scope or of all.
pub(crate) async fn count(connection: &Connection, scope: Option<&str>) -> Result<u64> {
    let (sql, params) = row::Conditions::default().and("scope = ?", scope).query(
        "SELECT SUM(count) FROM memory_counts",
        "1",
        1,
    );
    Ok(u64::try_from(row::number(connection, &sql, params).await?).unwrap_or_default())
}

/// What decides whether a memory stays.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Use {
    pub(crate) memory_id: String,
    pub(crate) access_count: i64,
    pub(crate) relevance: f64,
    pub(crate) updated_at: i64,
}

/// The oldest memories that are not pinned, of a scope or of all.
pub(crate) async fn oldest(
    connection: &Connection,
    scope: Option<&str>,
    limit: u32,
) -> Result<Vec<Use>> {
    let (sql, params) = row::Conditions::default()
        .and("scope = ?", scope)
        .and_all("iif(json_valid(metadata), json_extract(metadata, '$.pinned'), NULL) IS NOT 1", [])
        .query(
            "SELECT memory_id, access_count, relevance_score, updated_at FROM memories",
            "memory_id",
            i64::from(limit),
        );
    row::all(connection, &sql, params, |row| {
        Ok(Use {
            memory_id: row.get(0)?,
            access_count: row.get(1)?,
            relevance: row.get(2)?,
            updated_at: row.get(3)?,
        })
    })
    .await
}

/// The tasks that a memory is bound to.
pub(crate) async fn tasks_of_memory(
    connection: &Connection,
    memory_id: &str,
) -> Result<Vec<String>> {
    row::all(
        connection,
        "SELECT task_id FROM task_memories WHERE memory_id = ? ORDER BY task_id DESC LIMIT ?",
        params![memory_id, MAX_TASKS],
        |row| Ok(row.get(0)?),
    )
    .await
}

/// The metadata of the pipeline's cases with a tag that belong to this owner, the last changed first.
pub(crate) async fn cases_with_tag(
    connection: &Connection,
    owner: &str,
    tag: &str,
    limit: u32,
) -> Result<Vec<serde_json::Value>> {
    row::readable(
        connection,
        "SELECT m.metadata FROM memory_tags AS tagged
         CROSS JOIN memories AS m ON m.memory_id = tagged.memory_id
         WHERE tagged.tag = ? AND m.scope = 'pipeline' AND m.category = 'case' AND m.agent_id = ?
         ORDER BY m.updated_at DESC LIMIT ?",
        params![tag, owner, limit],
        |row| row::json(row, 0),
    )
    .await
}

impl Store {
    /// A page of memories.
    pub(crate) async fn memories_list(&self, filter: MemoryFilter) -> Result<MemoryList> {
        self.read(async move |connection| list(connection, &filter).await).await
    }

    /// How many memories each scope has.
    pub(crate) async fn memories_stats(&self) -> Result<BTreeMap<String, u64>> {
        self.read(async |connection| stats(connection).await).await
    }
}
