//! Shapes of `/memories`.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, de::value::StringDeserializer};
use serde_json::Value;
use utoipa::ToSchema;

use crate::messages::{
    MemoryCategory, MemoryRecord, MemoryScope, MemoryStore, MemoryTierEntry, MemoryTierRecord,
};

/// One memory.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MemoryView {
    /// The published fields. In a list only the tier `l0` is there.
    #[serde(flatten)]
    pub memory: MemoryRecord,
    /// How often it was written.
    pub version: u64,
    /// When it was last used (RFC 3339); reading is no use.
    pub last_accessed_at: Option<String>,
}

/// A page of memories.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MemoryList {
    /// Newest first; what was searched for, best first.
    pub memories: Vec<MemoryView>,
    /// How many are in this page.
    pub count: usize,
    /// Pass it as `cursor` for the next page; absent on the last one.
    pub next_cursor: Option<String>,
}

/// One memory with what it is bound to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MemoryDetail {
    /// The memory.
    #[serde(flatten)]
    pub memory: MemoryView,
    /// The tasks that it is bound to.
    pub task_ids: Vec<String>,
}

/// `GET /memories/{memory_id}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MemoryAnswer {
    /// The memory.
    pub memory: MemoryDetail,
}

/// A memory was written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MemoryWritten {
    /// Always true; kept for clients of the original.
    pub success: bool,
    /// The memory as it is now.
    pub memory: MemoryDetail,
}

/// A memory, or a tier of it, was forgotten.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MemoryForgotten {
    /// Always true; kept for clients of the original.
    pub success: bool,
    /// The memory.
    pub memory_id: String,
}

/// `GET /memories/stats`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MemoryStats {
    /// Scope → how many memories it has.
    pub stats: BTreeMap<String, u64>,
    /// How many there are in all.
    pub count: u64,
}

/// `GET /memories/{memory_id}/tiers`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MemoryTiers {
    /// In their order.
    pub tiers: Vec<MemoryTierRecord>,
    /// How many.
    pub count: usize,
}

/// One tier of a memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MemoryTierAnswer {
    /// The tier.
    pub tier: MemoryTierRecord,
}

/// `GET /memories/{memory_id}/tasks`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MemoryTasks {
    /// The last bound first.
    pub task_ids: Vec<String>,
    /// How many.
    pub count: usize,
}

/// `POST /memories`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NewMemory {
    /// Whom it concerns.
    #[serde(default = "system_scope")]
    pub scope: MemoryScope,
    /// What kind of thing it is: `case`, `pattern`, `fact` (the default; the original's `general`
    /// is read as it), `preference`, `resource` or `event`.
    #[serde(default = "fact", deserialize_with = "category_or_general")]
    pub category: MemoryCategory,
    /// A name that is unique in its scope and agent, or empty. Storing it again replaces it.
    #[serde(default)]
    pub key: String,
    /// Anything.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub metadata: Value,
    /// Words to find it by.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Whose it is, or empty.
    #[serde(default)]
    pub agent_id: String,
    /// The run that it comes from, or empty.
    #[serde(default)]
    pub run_id: String,
    /// The skill that it is about, or empty.
    #[serde(default)]
    pub skill_id: String,
    /// How much it matters, in [0, 1].
    #[serde(default)]
    pub relevance_score: f64,
    /// Its texts.
    #[serde(default)]
    pub tiers: Vec<MemoryTierEntry>,
    /// A task to bind it to.
    #[serde(default)]
    pub task_id: Option<String>,
}

fn system_scope() -> MemoryScope {
    MemoryScope::System
}

fn fact() -> MemoryCategory {
    MemoryCategory::Fact
}

/// The original's dashboard calls what has no kind `general`.
fn category_or_general<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<MemoryCategory, D::Error> {
    let name = String::deserialize(deserializer)?;
    if name == "general" {
        return Ok(MemoryCategory::Fact);
    }
    MemoryCategory::deserialize(StringDeserializer::new(name))
}

impl From<NewMemory> for MemoryStore {
    fn from(new: NewMemory) -> Self {
        Self {
            scope: new.scope,
            category: new.category,
            key: new.key,
            metadata: new.metadata,
            tags: new.tags,
            agent_id: new.agent_id,
            run_id: new.run_id,
            skill_id: new.skill_id,
            relevance_score: new.relevance_score,
            tiers: new.tiers,
            task_id: new.task_id,
        }
    }
}

/// `PUT /memories/{memory_id}`: what is absent stays.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ChangeMemory {
    /// Takes the place of what was there.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    pub metadata: Option<Value>,
    /// Take the place of what was there.
    #[serde(default)]
    pub tags: Option<Vec<String>>,
    /// How much it matters, in [0, 1].
    #[serde(default)]
    pub relevance_score: Option<f64>,
    /// Each takes the place of the tier of its name.
    #[serde(default)]
    pub tiers: Option<Vec<MemoryTierEntry>>,
}

/// `POST /memories/search`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SearchMemories {
    /// Words to look for, in any language; empty for everything that passes the filters.
    #[serde(default)]
    pub query: String,
    /// Only in this scope.
    #[serde(default)]
    pub scope: Option<MemoryScope>,
    /// Only of this kind.
    #[serde(default)]
    pub category: Option<MemoryCategory>,
    /// Only of this agent.
    #[serde(default)]
    pub agent_id: Option<String>,
    /// Only of this run.
    #[serde(default)]
    pub run_id: Option<String>,
    /// Only about this skill.
    #[serde(default)]
    pub skill_id: Option<String>,
    /// Only with this tag, exactly.
    #[serde(default)]
    pub tag: Option<String>,
    /// Only those that have this tier, and words in it.
    #[serde(default)]
    pub tier: Option<String>,
    /// Only those bound to this task.
    #[serde(default)]
    pub task_id: Option<String>,
    /// Most memories in the answer, 20 by default and 100 at most.
    #[serde(default)]
    pub limit: Option<u32>,
    /// `next_cursor` of the page before.
    #[serde(default)]
    pub cursor: Option<String>,
    /// Whether what is found counts as used.
    #[serde(default)]
    pub touch: bool,
}

/// Binds a memory to a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BindTask {
    /// The task.
    pub task_id: String,
}
