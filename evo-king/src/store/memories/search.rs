//! Full-text search over memories.

use evo_common::api::MemoryList;
use libsql::{Value, params_from_iter};

use super::{Tiers, columns, list::list, view};
use crate::{
    memory::{self, text},
    store::{Connection, MemoryFilter, Result, Store, row},
};

/// What a hit is worth by where it is: key, tags, l0, l1, l2, details. A memory's own relevance
/// raises it to twice that at most.
const RANK: &str = "bm25(memory_fts, 8.0, 6.0, 4.0, 2.0, 1.0, 1.0) * (1.0 + m.relevance_score)";

/// Memories with all the words of the query; when there are none, with any of them. The best come
/// first. Without a query it is [`list`]; one without a letter or digit finds nothing.
pub(crate) async fn search(
    connection: &Connection,
    query: &str,
    filter: &MemoryFilter,
) -> Result<MemoryList> {
    if query.trim().is_empty() {
        let mut page = list(connection, filter).await?;
        for memory in &mut page.memories {
            if let Some(whole) = super::get(connection, &memory.memory.id).await? {
                *memory = whole;
            }
        }
        return Ok(page);
    }
    let nothing = MemoryList { memories: Vec::new(), count: 0, next_cursor: None };
    let Some(expression) = text::expression(query) else { return Ok(nothing) };
    let (mode, offset) = filter.place();
    let mut page = nothing;
    if mode == Mode::All {
        page = ranked(connection, &expression.all, Mode::All, offset, filter).await?;
    }
    // A later page belongs to the way in which the first one was found.
    if mode == Mode::Any || page.count == 0 && filter.cursor.is_none() {
        page = ranked(connection, &expression.any, Mode::Any, offset, filter).await?;
    }
    Ok(page)
}

/// Which words have to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    All,
    Any,
}

impl MemoryFilter {
    /// Where a page of a ranking begins. A cursor that is none of ours begins at the beginning.
    fn place(&self) -> (Mode, u32) {
        let cursor = self.cursor.as_deref().unwrap_or_default();
        let place = |text: &str| text.parse().unwrap_or(0);
        match cursor.split_once(':') {
            Some(("any", offset)) => (Mode::Any, place(offset)),
            Some((_, offset)) => (Mode::All, place(offset)),
            None => (Mode::All, self.offset),
        }
    }
}

async fn ranked(
    connection: &Connection,
    expression: &str,
    mode: Mode,
    offset: u32,
    filter: &MemoryFilter,
) -> Result<MemoryList> {
    // Within one tier: that one, and what the memory is called.
    let tier = filter.tier.as_deref().filter(|tier| memory::is_tier(tier));
    let expression = match tier {
        Some(tier) => format!("{{key tags {tier}}} : ({expression})"),
        None => expression.to_owned(),
    };
    let conditions = row::Conditions::default().and("memory_fts MATCH ?", Some(expression));
    let (sql, mut params) = filter
        .conditions(conditions)
        .and(
            "EXISTS (SELECT 1 FROM memory_tags AS tagged
                     WHERE tagged.memory_id = m.memory_id AND tagged.tag = ?)",
            filter.tag.clone(),
        )
        .and(
            "EXISTS (SELECT 1 FROM task_memories AS bound
                     WHERE bound.memory_id = m.memory_id AND bound.task_id = ?)",
            filter.task_id.clone(),
        )
        .query(
            &format!(
                "SELECT {} FROM memory_fts CROSS JOIN memories AS m ON m.id = memory_fts.rowid",
                columns(Tiers::All)
            ),
            &format!("{RANK}, m.id DESC"),
            i64::from(filter.limit) + 1,
        );
    params.push(Value::Integer(i64::from(offset)));
    let sql = format!("{sql} OFFSET ?");
    let mut memories = row::readable(connection, &sql, params_from_iter(params), view).await?;
    let next_cursor = (memories.len() > filter.limit as usize).then(|| {
        let mode = if mode == Mode::All { "all" } else { "any" };
        format!("{mode}:{}", offset.saturating_add(filter.limit))
    });
    memories.truncate(filter.limit as usize);
    Ok(MemoryList { count: memories.len(), memories, next_cursor })
}

impl Store {
    /// Looks for memories.
    pub(crate) async fn memories_search(
        &self,
        query: String,
        filter: MemoryFilter,
    ) -> Result<MemoryList> {
        self.read(async move |connection| search(connection, &query, &filter).await).await
    }
}
