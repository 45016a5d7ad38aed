//! What runners say.

use std::{collections::HashMap, fmt, str::FromStr};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{self, MapAccess, Visitor, value::MapAccessDeserializer},
};
use serde_json::Value;
use utoipa::ToSchema;

use super::{
    PipelineStage, TaskAttemptRef, TraceContext,
    text::{accept_text, map_or_text},
};
use crate::ids::Attempt;

/// The protocol spoken by runners of this implementation. A runner that doesn't name one is a
/// legacy runner: one attempt at a time, no attempt numbers.
pub const PROTOCOL_VERSION: u32 = 2;

/// Which stage an agent serves.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AgentRole {
    /// Activates, holds or discards.
    SkillManage,
    /// Finds candidates.
    Learning,
    /// Validates packages before they run.
    PreLoad,
    /// Makes packages.
    Building,
    /// Tests packages by running them.
    Evaluation,
    /// A custom role.
    User(String),
}

/// Runner announces itself to king on connect.
///
/// ```
/// use evo_common::messages::{AgentRegister, AgentRole, events};
/// use serde_json;
///
/// # fn main() -> Result<(), serde_json::Error> {
/// let msg = AgentRegister {
///     agent_id: "learning-001".to_string(),
///     role: AgentRole::Learning,
///     capabilities: vec!["discover".to_string(), "evaluate".to_string()],
/// };
///
/// let payload = serde_json::to_string(&msg)?;
/// # assert_eq!(
/// #     (events::AGENT_REGISTER, payload.as_str()),
/// #     (
/// #         "agent:register",
/// #         r#"{"agent_id":"learning-001","role":"learning","capabilities":["discover","evaluate"]}"#
/// #     )
/// # );
/// // socket.emit(events::AGENT_REGISTER, payload).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct AgentRegister {
    /// Stable name of the agent.
    pub agent_id: String,
    /// The stage it serves.
    pub role: AgentRole,
    /// What it can do, in free words.
    pub capabilities: Vec<String>,
}

impl AgentRole {
    /// The role as it is written on the wire, without the custom role's name: `pre_load`, `user`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::SkillManage => "skill_manage",
            Self::Learning => "learning",
            Self::PreLoad => "pre_load",
            Self::Building => "building",
            Self::Evaluation => "evaluation",
            Self::User(_) => "user",
        }
    }

    /// The stage that this role serves; a user agent serves none.
    pub fn stage(&self) -> Option<PipelineStage> {
        Some(match self {
            Self::SkillManage => PipelineStage::SkillManage,
            Self::Learning => PipelineStage::Learning,
            Self::PreLoad => PipelineStage::PreLoad,
            Self::Building => PipelineStage::Building,
            Self::Evaluation => PipelineStage::Evaluation,
            Self::User(_) => return None,
        })
    }
}

impl fmt::Display for AgentRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(name) if !name.is_empty() && name != "user" => write!(f, "user:{name}"),
            other => f.write_str(other.kind()),
        }
    }
}

/// A text that names no role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown role {0:?}: use learning, building, pre_load, evaluation, skill_manage, user or user:<name>"
)]
pub struct UnknownRole(pub String);

impl FromStr for AgentRole {
    type Err = UnknownRole;

    /// Reads `pre_load`, `pre-load`, `Pre Load`, `user` and `user:translator`.
    fn from_str(text: &str) -> Result<Self, UnknownRole> {
        let unknown = || UnknownRole(text.to_owned());
        let (role, name) = match text.split_once(':') {
            Some((role, name)) => (role, Some(name.trim())),
            None => (text, None),
        };
        let role = role.trim().to_lowercase().replace(['-', ' '], "_");
        Ok(match (role.as_str(), name) {
            ("skill_manage", None) => Self::SkillManage,
            ("learning", None) => Self::Learning,
            ("pre_load", None) => Self::PreLoad,
            ("building", None) => Self::Building,
            ("evaluation", None) => Self::Evaluation,
            ("user", name) => Self::User(name.unwrap_or("user").to_owned()),
            _ => return Err(unknown()),
        })
    }
}

impl<'de> Deserialize<'de> for AgentRole {
    /// Reads every text that [`AgentRole::from_str`] reads, and `{"user": "translator"}`.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct RoleVisitor;

        impl<'de> Visitor<'de> for RoleVisitor {
            type Value = AgentRole;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "a role such as \"learning\", \"user:<name>\" or {\"user\": \"<name>\"}",
                )
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<AgentRole, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<AgentRole, A::Error> {
                #[derive(Deserialize)]
                #[serde(deny_unknown_fields)]
                struct Custom {
                    user: String,
                }
                Custom::deserialize(MapAccessDeserializer::new(map))
                    .map(|custom| AgentRole::User(custom.user))
            }
        }

        deserializer.deserialize_any(RoleVisitor)
    }
}

/// `agent:register` as this implementation sends it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct AgentRegistration {
    /// The published fields.
    #[serde(flatten, deserialize_with = "AgentRegister::deserialize")]
    pub register: AgentRegister,
    /// [`PROTOCOL_VERSION`]; absent for a legacy runner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<u32>,
    /// Echoed in king's reply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub req_id: Option<String>,
    /// New for every process start. Attempts leased to an older session and not listed in
    /// `in_hand` are lost and get a new attempt at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    /// How many attempts it takes at the same time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<u32>,
    /// Attempts that are running, or whose result waits in the runner's outbox.
    #[serde(default)]
    pub in_hand: Vec<AttemptRef>,
    /// The same for tasks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tasks_in_hand: Vec<TaskAttemptRef>,
    /// Names of the loaded skills.
    #[serde(default)]
    pub skills: Vec<String>,
    /// The agent's soul.md.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub soul_content: Option<String>,
    /// The runner's version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Where the runner's executable is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binary_path: Option<String>,
    /// The runner's process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Anything else a runner sent; kept and shown.
    #[serde(flatten)]
    pub extra: serde_json::Map<String, Value>,
}

/// The model that an agent is to use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ModelPreference {
    /// Its name at the gateway (`openai:gpt-4o-mini`).
    pub model: String,
    /// How hard it thinks (`low`, `medium`, `high`); the model's own default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning_effort: Option<String>,
}

/// One try of one stage of one run.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct AttemptRef {
    /// The run.
    pub run_id: String,
    /// The stage.
    pub stage: PipelineStage,
    /// The try.
    pub attempt: Attempt,
}

/// State of a runner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RunnerStatus {
    /// Not yet able to take work.
    Starting,
    /// Able to take work. Older runners say `alive`.
    #[serde(alias = "alive", alias = "online", alias = "heartbeat")]
    Ready,
    /// At work, with no capacity left.
    Busy,
    /// Unable to work.
    Error,
    /// Draining.
    Shutting,
}

/// Periodic heartbeat from runner to king.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct AgentStatus {
    /// Who.
    pub agent_id: String,
    /// How it is.
    pub status: RunnerStatus,
    /// Anything it measures.
    #[serde(default, deserialize_with = "map_or_text")]
    pub metrics: HashMap<String, Value>,
}

/// `agent:status` as this implementation sends it: extends the leases of the attempts in hand.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct AgentHeartbeat {
    /// The published fields.
    #[serde(flatten, deserialize_with = "AgentStatus::deserialize")]
    pub status: AgentStatus,
    /// Attempts in hand. Absent for a legacy runner, whose heartbeat extends all its leases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_hand: Option<Vec<AttemptRef>>,
    /// Attempts of tasks in hand.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tasks_in_hand: Vec<TaskAttemptRef>,
    /// Asks king to answer with a `king:reply`, so that a runner notices a dead connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub req_id: Option<String>,
}

/// How one skill call ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SkillResult {
    /// It did what it should.
    Success,
    /// It failed, with the error message.
    Failure(String),
    /// It did a part, described here.
    Partial(String),
}

/// Runner reports result of a skill execution.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct AgentSkillReport {
    /// Who called it.
    pub agent_id: String,
    /// The skill's name.
    pub skill_id: String,
    /// How it ended.
    pub result: SkillResult,
    /// A score in [0, 1], if somebody gave one.
    pub score: Option<f64>,
}

/// `agent:skill_report` as this implementation sends it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct SkillCall {
    /// The published fields.
    #[serde(flatten, deserialize_with = "AgentSkillReport::deserialize")]
    pub report: AgentSkillReport,
    /// Unique per call; a repeat is a duplicate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub req_id: Option<String>,
    /// The version that ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_id: Option<String>,
    /// How long the call took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<u64>,
    /// What it cost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_usd: Option<f64>,
    /// Stable code of a failure (`skill_failed`, `timeout`, …).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// What it was called with, when it failed: a later version is tested on it. Left out when it is
    /// large or holds a secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<serde_json::Map<String, Value>>,
    /// Carries the caller's span.
    #[serde(default, rename = "_trace", skip_serializing_if = "Option::is_none")]
    pub trace: Option<TraceContext>,
}

/// Runner reports API health check results.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct AgentHealth {
    /// Who checked.
    pub agent_id: String,
    /// What it found.
    pub health_checks: Vec<HealthCheck>,
}

/// Individual health check result within [`AgentHealth`].
///
/// The shape of older runners, `{url, reachable, latency_ms, status_code}`, is read as well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct HealthCheck {
    /// What was checked.
    pub name: String,
    /// Its address.
    pub endpoint: String,
    /// Whether it answered well.
    pub healthy: bool,
    /// How long it took.
    pub latency_ms: Option<u64>,
    /// What went wrong.
    pub error: Option<String>,
}

impl<'de> Deserialize<'de> for HealthCheck {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// Both shapes in one.
        #[derive(Deserialize)]
        #[serde(rename = "HealthCheck")]
        struct Wire {
            name: Option<String>,
            endpoint: Option<String>,
            healthy: Option<bool>,
            latency_ms: Option<u64>,
            error: Option<String>,
            url: Option<String>,
            reachable: Option<bool>,
            status_code: Option<u16>,
        }
        let wire = Wire::deserialize(deserializer)?;
        let missing = de::Error::missing_field;
        let Some(url) = wire.url else {
            return Ok(Self {
                name: wire.name.ok_or_else(|| missing("name"))?,
                endpoint: wire.endpoint.ok_or_else(|| missing("endpoint"))?,
                healthy: wire.healthy.ok_or_else(|| missing("healthy"))?,
                latency_ms: wire.latency_ms,
                error: wire.error,
            });
        };
        let healthy = wire.reachable.or(wire.healthy).ok_or_else(|| missing("reachable"))?;
        let error = wire.error.or_else(|| match (healthy, wire.status_code) {
            (true, _) => None,
            (false, Some(status)) => Some(format!("not reachable: status {status}")),
            (false, None) => Some("not reachable".to_owned()),
        });
        Ok(Self {
            name: wire.name.unwrap_or_else(|| url.clone()),
            endpoint: wire.endpoint.unwrap_or(url),
            healthy,
            latency_ms: wire.latency_ms,
            error,
        })
    }
}

accept_text!(
    AgentRegister,
    AgentRegistration,
    AgentStatus,
    AgentHeartbeat,
    AgentSkillReport,
    SkillCall,
    AgentHealth,
);
