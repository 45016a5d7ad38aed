//! Memories: what agents keep and look up.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::text::{accept_text, empty_object, object_text, object_text_if_any};

/// Whom a memory concerns.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum MemoryScope {
    /// Everybody.
    System,
    /// One agent.
    Agent,
    /// A run of the pipeline.
    Pipeline,
    /// One skill.
    Skill,
}

impl MemoryScope {
    /// Every scope.
    pub const ALL: [Self; 4] = [Self::System, Self::Agent, Self::Pipeline, Self::Skill];

    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Agent => "agent",
            Self::Pipeline => "pipeline",
            Self::Skill => "skill",
        }
    }
}

/// What kind of thing is remembered.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum MemoryCategory {
    /// Something that was done, and how it went.
    Case,
    /// Something that keeps happening.
    Pattern,
    /// Something that is so.
    Fact,
    /// Something that somebody wants.
    Preference,
    /// Something that can be used.
    Resource,
    /// Something that happened.
    Event,
}

impl MemoryCategory {
    /// Every category.
    pub const ALL: [Self; 6] =
        [Self::Case, Self::Pattern, Self::Fact, Self::Preference, Self::Resource, Self::Event];

    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Case => "case",
            Self::Pattern => "pattern",
            Self::Fact => "fact",
            Self::Preference => "preference",
            Self::Resource => "resource",
            Self::Event => "event",
        }
    }
}

/// One tier of a memory: `l0` is a line, `l1` a page, `l2` everything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MemoryTierEntry {
    /// `l0`, `l1` or `l2`.
    pub tier: String,
    /// Its text.
    pub content: String,
}

/// `memory:store`: something to remember.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(remote = "Self")]
pub struct MemoryStore {
    /// Whom it concerns.
    pub scope: MemoryScope,
    /// What kind of thing it is.
    pub category: MemoryCategory,
    /// A name that is unique in its scope, or empty.
    #[serde(default)]
    pub key: String,
    /// Anything.
    #[serde(default = "empty_object", deserialize_with = "object_text")]
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

/// Memories in one answer when the request does not say.
fn default_limit() -> u32 {
    20
}

/// `memory:query`: looks for memories.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(remote = "Self")]
pub struct MemoryQuery {
    /// Words to look for.
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
    /// Only in this tier's text.
    #[serde(default)]
    pub tier: Option<String>,
    /// Only those bound to this task.
    #[serde(default)]
    pub task_id: Option<String>,
    /// Most memories in the answer.
    #[serde(default = "default_limit")]
    pub limit: u32,
}

/// `memory:update`: what is to change about a memory; what is absent stays.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(remote = "Self")]
pub struct MemoryUpdate {
    /// The memory.
    pub memory_id: String,
    /// Takes the place of what was there.
    #[serde(default, deserialize_with = "object_text_if_any")]
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

/// `memory:delete`: forgets a memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct MemoryDelete {
    /// The memory.
    pub memory_id: String,
}

/// One tier of a memory, as king shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MemoryTierRecord {
    /// Its id.
    pub id: String,
    /// The memory. The original leaves it out where the tier stands inside its memory.
    #[serde(default)]
    pub memory_id: String,
    /// `l0`, `l1` or `l2`.
    pub tier: String,
    /// Its text.
    pub content: String,
    /// When it was made (RFC 3339).
    pub created_at: String,
    /// When it changed last (RFC 3339).
    pub updated_at: String,
}

/// A memory, as king shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MemoryRecord {
    /// Its id.
    pub id: String,
    /// A [`MemoryScope`].
    pub scope: String,
    /// A [`MemoryCategory`].
    pub category: String,
    /// Its name in its scope, or empty.
    pub key: String,
    /// Its texts.
    #[serde(default)]
    pub tiers: Vec<MemoryTierRecord>,
    /// Anything.
    #[serde(default = "empty_object", deserialize_with = "object_text")]
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
    /// How often it was found.
    #[serde(default)]
    pub access_count: i64,
    /// When it was made (RFC 3339).
    pub created_at: String,
    /// When it changed last (RFC 3339).
    pub updated_at: String,
}

/// The memories that a query found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(remote = "Self")]
pub struct MemoryResult {
    /// The best first.
    pub memories: Vec<MemoryRecord>,
    /// How many there are in this answer.
    pub count: u32,
}

/// `memory:changed`: a memory was made, changed or forgotten.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct MemoryChanged {
    /// `stored`, `updated` or `deleted`.
    pub action: String,
    /// The memory as it is now.
    #[serde(default)]
    pub memory: Option<MemoryRecord>,
    /// Its id.
    #[serde(default)]
    pub memory_id: Option<String>,
}

accept_text!(MemoryStore, MemoryQuery, MemoryUpdate, MemoryDelete, MemoryResult, MemoryChanged);
