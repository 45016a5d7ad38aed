//! `config/sources.toml`: where Learning looks.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    check,
    load::{Fault, Validate},
};
use crate::case::Expectation;

/// Every source.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SourcesConfig {
    /// The sources, by unique name.
    #[serde(default)]
    pub sources: Vec<SourceConfig>,
}

impl SourcesConfig {
    /// Reads `sources.toml`. Unknown keys are accepted; services use [`super::load`], which
    /// rejects them.
    pub fn from_toml(text: &str) -> Result<Self, toml::de::Error> {
        toml::from_str(text)
    }
}

impl Validate for SourcesConfig {
    fn validate(&self, faults: &mut Vec<Fault>) {
        let mut names = BTreeSet::new();
        for (index, source) in self.sources.iter().enumerate() {
            let at = format!("sources[{index}]");
            if !names.insert(source.name.as_str()) {
                faults.push(Fault::new(
                    format!("{at}.name"),
                    format!("another source is called `{}` already: rename one", source.name),
                ));
            }
            source.validate_at(&at, faults);
        }
    }
}

/// What kind of thing a source is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SourceKind {
    /// An OpenAPI document: Swagger 2.0, OpenAPI 3.0 or 3.1, JSON or YAML.
    Openapi,
    /// A folder with `SKILL.md` files, or a git repository of such folders.
    SkillMd,
    /// An MCP server: a command that speaks over its standard streams, or the URL of one that
    /// speaks streamable HTTP.
    Mcp,
    /// A JSON list of sources of the other kinds.
    Feed,
}

/// One place where Learning looks for candidates.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SourceConfig {
    /// Unique name, `[a-z0-9-]{1,32}`; the first part of its skills' names.
    pub name: String,
    /// What it is.
    pub kind: SourceKind,
    /// File path or URL of the document. The location `king:` is king's own document and
    /// `gateway:` the gateway's, wherever they listen today. Of an MCP server with a `command` it
    /// is the folder that the command is started in, the runner's own when it is empty.
    #[serde(default)]
    pub location: String,
    /// Replaces the document's own server URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_url: Option<String>,
    /// Origins (`http://127.0.0.1:8000`) that may be called although their address is private or
    /// loopback. Nothing opens loopback in general. Tokens go only to these, to the origin of
    /// `base_url` and to that of an http(s) `location`. The URL of an MCP server needs no entry.
    #[serde(default)]
    pub allow_origins: Vec<String>,
    /// Operations that may be executed although they are not GET or HEAD: operation ids or
    /// `POST /path`. Of an MCP server the names of tools that do not say that they only read.
    #[serde(default)]
    pub allow_operations: Vec<String>,
    /// Environment variables that this source's skills may use as `auth_ref`, and that the
    /// `command` of an MCP server gets.
    #[serde(default)]
    pub allow_env: Vec<String>,
    /// The environment variable that holds this source's auth token, when the document's security
    /// scheme should not name one itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth_ref: Option<String>,
    /// What p95 of a call may be; by default max(250 ms, 5 × the median of three probes).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_budget_ms: Option<u64>,
    /// Most candidates that one cycle takes from it; by default all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_candidates: Option<u32>,
    /// How much is thought of it, from 0 to 1: a factor of its candidates' priority.
    #[serde(default = "full_trust", skip_serializing_if = "is_full_trust")]
    pub trust: f64,
    /// Program and arguments of an MCP server that speaks over its standard streams; without it
    /// `location` is the URL of one that speaks HTTP.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Calls of an MCP server's tools that are known to be right. A tool whose definition says
    /// nothing of its answer can be measured by these alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub examples: Vec<SourceExample>,
    /// Off keeps it in the file and out of the cycle.
    #[serde(default = "enabled_by_default")]
    pub enabled: bool,
}

/// A call of a tool that is known to be right: an entry of `[[sources.examples]]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SourceExample {
    /// Name of the tool.
    pub tool: String,
    /// Its input.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub input: serde_json::Map<String, serde_json::Value>,
    /// What its answer must be. Without it the answer must be no error, hold something, and be of
    /// one shape over all repeats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect: Option<Expectation>,
}

/// Whether a text is a legal source name: `[a-z0-9-]{1,32}`, no dash at either end.
pub fn is_valid_name(name: &str) -> bool {
    name.len() <= 32 && crate::skill::is_valid_name(name)
}

impl SourceConfig {
    /// Faults of this source, whose key path is `at`.
    fn validate_at(&self, at: &str, faults: &mut Vec<Fault>) {
        let mut fault = |key: String, message: String| {
            faults.push(Fault::new(format!("{at}.{key}"), message));
        };
        if !is_valid_name(&self.name) {
            fault(
                "name".to_owned(),
                format!(
                    "{:?} is no source name: use 1 to 32 of a-z, 0-9 and `-`, no `-` at either end",
                    self.name
                ),
            );
        }
        if self.name == IMPORTS {
            let message = format!("{IMPORTS:?} is the source of what is brought; take another");
            fault("name".to_owned(), message);
        }
        if self.name == REQUESTS {
            let message = format!("{REQUESTS:?} is the source of what is asked for; take another");
            fault("name".to_owned(), message);
        }
        if self.location.trim().is_empty() && self.command.is_empty() {
            let wanted = match self.kind {
                SourceKind::Openapi => "the file or URL of the OpenAPI document",
                SourceKind::SkillMd => "the folder, or the URL of the git repository",
                SourceKind::Mcp => "the server's URL, or its `command`",
                SourceKind::Feed => "the file or URL of the list",
            };
            fault("location".to_owned(), format!("is empty: give {wanted}"));
        }
        if let Some(Err(message)) = self.base_url.as_deref().map(check::http_url) {
            fault("base_url".to_owned(), message);
        }
        for (index, origin) in self.allow_origins.iter().enumerate() {
            if let Err(message) = check::origin(origin) {
                fault(format!("allow_origins[{index}]"), message);
            }
        }
        for (index, operation) in self.allow_operations.iter().enumerate() {
            if operation.trim().is_empty() {
                fault(
                    format!("allow_operations[{index}]"),
                    "is empty: give an operation id or `POST /path`".to_owned(),
                );
            }
        }
        for (index, name) in self.allow_env.iter().enumerate() {
            if let Err(message) = check::variable(name) {
                fault(format!("allow_env[{index}]"), message);
            }
        }
        if let Some(Err(message)) = self.auth_ref.as_deref().map(check::variable) {
            fault("auth_ref".to_owned(), message);
        }
        if self.latency_budget_ms == Some(0) {
            fault("latency_budget_ms".to_owned(), "is 0: no call can be that fast".to_owned());
        }
        if !(0.0..=1.0).contains(&self.trust) {
            fault("trust".to_owned(), format!("{} is not from 0 to 1", self.trust));
        }
        match (self.kind, self.command.first()) {
            (SourceKind::Mcp, Some(program)) if program.trim().is_empty() => {
                fault("command[0]".to_owned(), "is empty: name the program".to_owned());
            }
            (SourceKind::Mcp, _) | (_, None) => {}
            (_, Some(_)) => {
                fault(
                    "command".to_owned(),
                    "is only for a source of kind `mcp`: take it out".to_owned(),
                );
            }
        }
        if self.kind != SourceKind::Mcp && !self.examples.is_empty() {
            fault(
                "examples".to_owned(),
                "are only for the tools of a source of kind `mcp`: take them out".to_owned(),
            );
        }
        for (index, example) in self.examples.iter().enumerate() {
            if example.tool.trim().is_empty() {
                fault(format!("examples[{index}].tool"), "is empty: name the tool".to_owned());
            }
        }
        if self.max_candidates == Some(0) {
            fault(
                "max_candidates".to_owned(),
                "is 0: set `enabled = false` to leave the source out".to_owned(),
            );
        }
    }
}

impl SourceConfig {
    /// The source [`REQUESTS`]: nothing is read from it, and nothing is allowed.
    pub fn of_requests() -> Self {
        Self { kind: SourceKind::Feed, ..Self::openapi(REQUESTS, "requests:") }
    }

    /// An OpenAPI document; nothing beyond reading public addresses is allowed.
    pub fn openapi(name: impl Into<String>, location: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            kind: SourceKind::Openapi,
            location: location.into(),
            base_url: None,
            allow_origins: Vec::new(),
            allow_operations: Vec::new(),
            allow_env: Vec::new(),
            auth_ref: None,
            latency_budget_ms: None,
            max_candidates: None,
            trust: full_trust(),
            command: Vec::new(),
            examples: Vec::new(),
            enabled: true,
        }
    }
}

fn full_trust() -> f64 {
    1.0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_full_trust(trust: &f64) -> bool {
    *trust >= full_trust()
}

fn enabled_by_default() -> bool {
    true
}

/// Name of the source of what Evo makes by itself, of requests. No configured source is called so.
pub const REQUESTS: &str = "requests";

/// Name of the source of skills that somebody brings as a tree. No configured source is called so, so
/// that a person is asked before one of them is used.
pub const IMPORTS: &str = "imports";

/// Location of king's own OpenAPI document.
pub const KING_LOCATION: &str = "king:";
/// Location of the gateway's own OpenAPI document.
pub const GATEWAY_LOCATION: &str = "gateway:";
