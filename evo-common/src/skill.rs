//! Skill packages: the published manifest and config types, and the layout of a package folder.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api::RiskClass;

/// Describes a skill's interface (`manifest.toml`).
///
/// ```no_run
/// use evo_common::skill::SkillManifest;
/// use std::fs;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let content = fs::read_to_string("manifest.toml")?;
/// let manifest = SkillManifest::from_toml(&content)?;
///
/// println!("Loaded skill: {} v{}", manifest.name, manifest.version);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SkillManifest {
    /// Unique name: `[a-z0-9-]{1,64}`.
    pub name: String,
    /// Semantic version.
    pub version: String,
    /// What it does, in a sentence.
    pub description: String,
    /// What it can do, in words that others can match.
    pub capabilities: Vec<String>,
    /// What it takes.
    pub inputs: Vec<SkillIO>,
    /// What it gives.
    pub outputs: Vec<SkillIO>,
    /// Names of skills that it needs.
    #[serde(default)]
    pub dependencies: Vec<String>,
    /// Whether this skill ships executable code.
    #[serde(default)]
    pub has_code: bool,
}

/// One input or output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SkillIO {
    /// Its name.
    pub name: String,
    /// JSON Schema type: `string`, `integer`, `number`, `boolean`, `array`, `object`, `any`.
    pub r#type: String,
    /// Whether it must be given.
    #[serde(default)]
    pub required: bool,
    /// What it means.
    pub description: Option<String>,
}

/// How a skill is executed (`config.toml`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SkillConfig {
    /// The addresses it calls. A URL may start with `{server}`, see [`HttpCall`]. A skill with code
    /// has none.
    #[serde(default)]
    pub endpoints: Vec<SkillEndpoint>,
    /// Name of the environment variable that holds the auth token.
    pub auth_ref: Option<String>,
    /// Whatever else the skill needs; [`HttpCall`] for http skills.
    #[serde(default)]
    pub extra: HashMap<String, serde_json::Value>,
}

/// One address of a skill.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SkillEndpoint {
    /// Its name.
    pub name: String,
    /// URL, with `{input}` placeholders in path and query.
    pub url: String,
    /// HTTP method.
    pub method: HttpMethod,
    /// Headers sent with every call; values may hold `{input}` placeholders.
    #[serde(default)]
    pub headers: HashMap<String, String>,
}

/// HTTP method, upper case on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum HttpMethod {
    /// GET
    Get,
    /// POST
    Post,
    /// PUT
    Put,
    /// DELETE
    Delete,
    /// PATCH
    Patch,
}

impl SkillManifest {
    /// Reads `manifest.toml`.
    pub fn from_toml(text: &str) -> Result<Self, toml::de::Error> {
        toml::from_str(text)
    }
}

impl SkillConfig {
    /// Reads `config.toml`.
    pub fn from_toml(text: &str) -> Result<Self, toml::de::Error> {
        toml::from_str(text)
    }
}

/// What an http skill keeps under `[extra]` of its config.
///
/// Placeholders: a value that is exactly `"{name}"` becomes the input's JSON value; inside a
/// longer text it becomes the input as text. An entry whose placeholder names an optional input
/// that was not given is left out.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct HttpCall {
    /// The source whose current base URL replaces `{server}`, so that no package holds the port
    /// of one machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// The operation this call was made from: `GET /agents/{agent_id}`.
    #[serde(default)]
    pub operation: String,
    /// Query parameters: name → template.
    #[serde(default)]
    pub query: std::collections::BTreeMap<String, String>,
    /// Header parameters: name → template.
    #[serde(default)]
    pub headers: std::collections::BTreeMap<String, String>,
    /// Body template: `"{body}"`, or an object whose values hold placeholders.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<serde_json::Value>,
    /// Content type of the body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// How the auth token is sent: `bearer` (default), `basic`, `header:<Name>` or `query:<name>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth_scheme: Option<String>,
    /// Declared success statuses.
    #[serde(default)]
    pub success: Vec<u16>,
    /// How a list parameter is joined: name → `csv`, `multi`, `ssv`, `pipes`. Default `multi`.
    #[serde(default)]
    pub list_style: std::collections::BTreeMap<String, String>,
    /// Time limit of one call.
    #[serde(default = "HttpCall::default_timeout_ms")]
    pub timeout_ms: u64,
    /// Largest answer that is read.
    #[serde(default = "HttpCall::default_max_response_bytes")]
    pub max_response_bytes: u64,
    /// How often a GET is sent again within its time limit when the server can't be reached or
    /// answers 429, 502, 503 or 504; at most [`Self::MAX_RETRIES`]. Nothing else is ever repeated.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub retries: u8,
    /// JSON pointer of what the skill gives, inside of a successful answer; all of it by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_zero(number: &u8) -> bool {
    *number == 0
}

impl HttpCall {
    /// Most repeats of one call.
    pub const MAX_RETRIES: u8 = 3;

    /// Time limit of one call when the package names none.
    pub const fn default_timeout_ms() -> u64 {
        10_000
    }

    /// Largest answer when the package names none: 4 MiB.
    pub const fn default_max_response_bytes() -> u64 {
        4 * 1024 * 1024
    }

    /// Reads the `[extra]` table of a config.
    pub fn from_config(config: &SkillConfig) -> Result<Self, serde_json::Error> {
        let map: serde_json::Map<String, serde_json::Value> =
            config.extra.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
        serde_json::from_value(serde_json::Value::Object(map))
    }
}

/// How the code of a package is run: the `[runtime]` table of `config.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CodeRuntime {
    /// The file that is run, as a path inside the package: `src/main.py`.
    pub entry: String,
    /// What runs it: `python3` or `node`.
    #[serde(default = "CodeRuntime::default_interpreter")]
    pub interpreter: String,
    /// Time limit of one call.
    #[serde(default = "HttpCall::default_timeout_ms")]
    pub timeout_ms: u64,
    /// Memory of all its processes together.
    #[serde(default = "CodeRuntime::default_memory_mb")]
    pub memory_mb: u32,
    /// Hosts that it may talk to: `api.example.com`, `api.example.com:8443` or
    /// `https://api.example.com`. None by default.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub network: Vec<String>,
}

impl CodeRuntime {
    /// Longest time limit: five minutes.
    pub const MAX_TIMEOUT_MS: u64 = 300_000;
    /// Least memory that an interpreter starts with.
    pub const MIN_MEMORY_MB: u32 = 32;
    /// Most memory.
    pub const MAX_MEMORY_MB: u32 = 2_048;

    /// Python code in this file, with the limits of a package that names none.
    pub fn new(entry: impl Into<String>) -> Self {
        Self {
            entry: entry.into(),
            interpreter: Self::default_interpreter(),
            timeout_ms: HttpCall::default_timeout_ms(),
            memory_mb: Self::default_memory_mb(),
            network: Vec::new(),
        }
    }

    /// What runs the code when the package does not say so.
    pub fn default_interpreter() -> String {
        "python3".to_owned()
    }

    /// Memory when the package names none.
    pub const fn default_memory_mb() -> u32 {
        256
    }
}

/// The tool that a skill calls: the `[mcp]` table of `config.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct McpCall {
    /// The source whose MCP server has the tool.
    pub server: String,
    /// Name of the tool.
    pub tool: String,
    /// Time limit of one call.
    #[serde(default = "HttpCall::default_timeout_ms")]
    pub timeout_ms: u64,
    /// Largest answer that is read.
    #[serde(default = "HttpCall::default_max_response_bytes")]
    pub max_response_bytes: u64,
}

/// One step of a composed skill: an entry of `[[steps]]` in `config.toml`. What a step may refer
/// to is the object `{"input": {…}, "steps": [answers of the earlier steps]}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// The skill that is called; the manifest lists it among its dependencies.
    pub skill: String,
    /// Its inputs: name → JSON pointer (`/input/city`, `/steps/0/body/id`).
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub input: std::collections::BTreeMap<String, String>,
    /// Further inputs that are always the same: name → value.
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub fixed: std::collections::BTreeMap<String, serde_json::Value>,
}

/// Several skills in a row: what `config.toml` of a composed skill holds, and what its candidate's
/// definition is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Composition {
    /// JSON pointer to the answer, into the same object that the steps refer to; by default the
    /// body of the last step's answer (`/steps/1/body`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    /// Classes of the skills of its steps when it was built. A step whose skill is of another class
    /// by now is not called: nobody has let it. Without any, nothing is known of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<RiskClass>,
    /// The steps, in order.
    #[serde(default)]
    pub steps: Vec<Step>,
}

impl Composition {
    /// Most steps.
    pub const MAX_STEPS: usize = 16;

    /// The skills that it calls, each once, in the order of their first step.
    pub fn skills(&self) -> Vec<&str> {
        let mut skills: Vec<&str> = Vec::new();
        for step in &self.steps {
            if !skills.contains(&step.skill.as_str()) {
                skills.push(&step.skill);
            }
        }
        skills
    }
}

/// Files of a package folder.
pub mod files {
    /// [`super::SkillManifest`].
    pub const MANIFEST: &str = "manifest.toml";
    /// [`super::SkillConfig`].
    pub const CONFIG: &str = "config.toml";
    /// Train cases ([`crate::case::CaseFile`]).
    pub const TESTS: &str = "tests.toml";
    /// The agentskills.io form.
    pub const SKILL_MD: &str = "SKILL.md";
    /// Where it comes from ([`super::Provenance`]).
    pub const PROVENANCE: &str = "provenance.toml";
}

/// Where a package comes from (`provenance.toml`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Provenance {
    /// Name of the source.
    pub source: String,
    /// What in the source: `GET /agents/{agent_id}`.
    pub locator: String,
    /// Digest of the candidate's definition; the same definition is not built twice.
    pub fingerprint: String,
    /// Who built it: `openapi/1`.
    pub builder: String,
    /// Digest of the version that this one replaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// Model that took part, the last one when there were several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// What models wrote. Everything else was compiled from the definition.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub written: Vec<Written>,
    /// Digests of the packages that it was made from, when it was not compiled from the definition
    /// alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parents: Vec<String>,
    /// What was done to them, in order: `verb`, `base_url`, `compose`, …
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub operators: Vec<String>,
}

/// Texts of a package that a model wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Written {
    /// The model, as the gateway names it: `openai:gpt-4o-mini`.
    pub model: String,
    /// SHA-256 of the prompt, in hex.
    pub prompt: String,
    /// What it wrote: `name`, `description`, `inputs.<name>.description`.
    pub fields: Vec<String>,
}

/// Whether a text is a legal skill name: `[a-z0-9-]{1,64}`, no dash at either end.
pub fn is_valid_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-')
}
