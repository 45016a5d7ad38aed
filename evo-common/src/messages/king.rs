//! What king says.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::text::{accept_text, map_or_text};
use crate::rollout::SkillInUse;

/// King sends a command to a specific agent.
///
/// `run_skill` has the params `{req_id, skill, artifact_id, input, deadline, follow}` and is answered by
/// [`CommandResult`]; with `follow`, its steps are told by [`CommandProgress`]. `cancel` with the
/// `req_id` of a command ends that one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct KingCommand {
    /// What to do: `run_skill`, `drain`.
    pub command: String,
    /// Who is to do it.
    pub target_agent: String,
    /// With what.
    #[serde(deserialize_with = "map_or_text")]
    pub params: HashMap<String, Value>,
}

/// King notifies runners of a config change. `config_type` is `skills` when the set of active
/// skills changed, `gateway` when the gateway's configuration did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct KingConfigUpdate {
    /// What changed.
    pub config_type: String,
    /// Digest of the new state.
    pub new_config_hash: String,
}

/// `king:config_update` as this implementation sends it, with what the original's clients read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct ConfigNotice {
    /// The published fields.
    #[serde(flatten, deserialize_with = "KingConfigUpdate::deserialize")]
    pub update: KingConfigUpdate,
    /// The digest once more, as the original called it.
    #[serde(default)]
    pub config_hash: String,
    /// What it came by: `config_sync` when an operator asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trigger: Option<String>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Of `skills`: which versions are in use, when they are not too many for one message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skills: Option<Vec<SkillInUse>>,
}

impl ConfigNotice {
    /// Something changed.
    pub fn new(config_type: &str, hash: &str) -> Self {
        Self {
            update: KingConfigUpdate {
                config_type: config_type.to_owned(),
                new_config_hash: hash.to_owned(),
            },
            config_hash: hash.to_owned(),
            trigger: None,
            reason: None,
            skills: None,
        }
    }
}

/// `king:welcome`: king's handlers are in place; the runner registers now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct KingWelcome {
    /// King's version.
    pub king_version: String,
    /// The newest protocol that king speaks.
    pub protocol: u32,
    /// How often the runner should send `agent:status`.
    pub heartbeat_ms: u64,
    /// Source name → base URL, for packages whose endpoints start with `{server}`.
    #[serde(default)]
    pub servers: BTreeMap<String, String>,
}

/// `agent:command_result`: the answer to a `king:command` that carried a `req_id`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct CommandResult {
    /// The `req_id` of the command.
    pub req_id: String,
    /// Who did it.
    pub agent_id: String,
    /// What came out; absent when it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
    /// Stable code of the failure (`skill_failed`, `skill_not_found`, `invalid_input`, …).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// How long it took.
    #[serde(default)]
    pub latency_ms: u64,
}

/// `agent:command_progress`: a step of a `king:command` begins, for whoever follows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct CommandProgress {
    /// The `req_id` of the command.
    pub req_id: String,
    /// Who does it.
    pub agent_id: String,
    /// The step, from 1.
    pub step: u32,
    /// How many there are, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<u32>,
    /// For people: what is done in it.
    pub message: String,
}

/// What king knows of its machine (`king:system_info`, `GET /system-info`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(remote = "Self")]
pub struct SystemDiscovery {
    /// When (RFC 3339).
    pub discovered_at: String,
    /// King's version.
    pub king_version: String,
    /// The machine.
    pub system: SystemFacts,
    /// Programs that agents may need.
    pub tools: Vec<ToolFacts>,
    /// Programs of Evo.
    pub evo_components: Vec<ComponentFacts>,
    /// What is in order and what is not.
    pub checklist: Vec<ChecklistItem>,
}

/// The machine that king runs on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SystemFacts {
    /// `linux`, `macos`, …
    pub os: String,
    /// Version of the operating system.
    pub os_version: String,
    /// `x86_64`, `aarch64`, …
    pub arch: String,
    /// Name of the machine.
    pub hostname: String,
    /// Number of processors.
    pub cpu_count: u64,
    /// Main memory.
    pub memory_bytes: u64,
    /// The user's home folder.
    pub home_dir: String,
    /// Evo's data folder.
    pub evo_home: String,
}

/// One program on the machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ToolFacts {
    /// Its name.
    pub name: String,
    /// What it says of its version.
    pub version: Option<String>,
    /// Where it is.
    pub path: Option<String>,
    /// `available`, `not_found` or `suggested`.
    pub status: String,
    /// Why it is suggested.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suggestion_reason: Option<String>,
    /// `language`, `container`, `agent`, …
    pub category: String,
}

/// One of Evo's own programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ComponentFacts {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub binary_path: Option<String>,
    /// Its version.
    pub version: Option<String>,
    /// Whether it was found.
    pub found: bool,
}

/// One line of the checklist.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ChecklistItem {
    /// What was looked at.
    pub name: String,
    /// `pass`, `fail` or `suggested`.
    pub status: String,
    /// What was found.
    pub message: String,
}

accept_text!(
    KingCommand,
    KingConfigUpdate,
    ConfigNotice,
    KingWelcome,
    CommandProgress,
    CommandResult,
    SystemDiscovery
);
