//! One call of a skill as its callers want it: an output or a failure, under the policy of the
//! skill's own source.

use std::collections::BTreeMap;

use evo_common::{config::SourceConfig, redact::redact_json};
use serde_json::{Map, Value};

use super::{
    execute::{CallAnswer, CallPolicy, Executor},
    package::{Kind, Package},
};

/// Largest input of a failed call that is reported.
const MAX_REPORTED_INPUT: usize = 16 * 1024;
/// Longest part of a failed call's answer that is repeated.
const EXCERPT: usize = 300;

/// Why a skill gave no output.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Failure {
    /// Stable code (`skill_failed`, `invalid_input`, …).
    pub(crate) code: String,
    /// For people.
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into() }
    }

    /// Whether it says something about the skill: a wrong input, a runner that stops and a
    /// machine without a sandbox do not.
    pub(crate) fn counts(&self) -> bool {
        !["invalid_input", "cancelled", "skill_not_found", "sandbox_unavailable"]
            .contains(&self.code.as_str())
    }
}

/// Calls a skill.
pub(crate) async fn run(
    executor: &Executor,
    package: &Package,
    input: &Map<String, Value>,
    policy: &CallPolicy,
) -> Result<Value, Failure> {
    let answer = executor
        .call(package, input, policy)
        .await
        .map_err(|error| Failure::new(error.code(), error.to_string()))?;
    output(package, answer)
}

/// What a failed call was made with, as far as king may know it: a later version is tested on it.
/// Nothing that is large, and nothing that holds a secret.
pub(crate) fn reported_input(input: &Map<String, Value>) -> Option<Map<String, Value>> {
    let plain = Value::Object(input.clone());
    let mut masked = plain.clone();
    redact_json(&mut masked);
    (masked == plain && plain.to_string().len() <= MAX_REPORTED_INPUT).then(|| input.clone())
}

/// What a package may do: king says whose it is; a skill of the own folder says so itself.
pub(crate) fn policy_of(
    package: &Package,
    sources: &[SourceConfig],
    servers: &BTreeMap<String, String>,
) -> CallPolicy {
    let provenance = package.provenance.as_ref().map(|provenance| &provenance.source);
    let own = provenance.or(package.call.server.as_ref());
    let source = sources.iter().find(|source| Some(&source.name) == own).or(sources.first());
    match source {
        Some(source) => CallPolicy::of_source(source, servers),
        None => CallPolicy::of_server(own.map(String::as_str), servers),
    }
}

/// An answer with a declared success status is the skill's output. An empty body becomes an empty
/// text: null would read as "no output".
fn output(package: &Package, answer: CallAnswer) -> Result<Value, Failure> {
    let declared = &package.call.success;
    let success = if declared.is_empty() {
        (200..300).contains(&answer.status)
    } else {
        declared.contains(&answer.status)
    };
    if success {
        return Ok(match answer.body {
            Value::Null => Value::String(String::new()),
            body => body,
        });
    }
    let body = match &answer.body {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let excerpt: String = body.chars().take(EXCERPT).collect();
    let what = match package.kind {
        Kind::Mcp(_) => "the tool reports an error".to_owned(),
        Kind::Http | Kind::Code | Kind::Composed(_) => format!("HTTP {}", answer.status),
    };
    let message = if excerpt.is_empty() { what } else { format!("{what}: {excerpt}") };
    Err(Failure::new("skill_failed", message))
}
