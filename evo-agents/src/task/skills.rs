//! The skills that a task may use.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use evo_common::{
    clock::Timestamp,
    config::SourceConfig,
    messages::{AgentSkillReport, SkillCall, SkillResult, TraceContext},
    redact::{redact, redact_json},
    skill::{SkillIO, SkillManifest},
    tracing_context,
};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::{
    cut,
    progress::{CallRecord, Progress},
};
use crate::{
    gateway::Tool,
    handler::CommandError,
    king::ToKing,
    skill::{
        execute::{CallPolicy, Executor},
        package::Package,
        run::{self, Failure},
    },
};

/// Most tools that a model is shown at once.
const MAX_TOOLS: usize = 64;
/// Longest description of a tool, and of one of its inputs.
const MAX_DESCRIPTION: usize = 1_024;
const MAX_INPUT_DESCRIPTION: usize = 300;
/// Longest input and output of a call in the report.
const MAX_RECORD: usize = 2 * 1024;

/// A skill that can be called.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) package: Arc<Package>,
    /// Digest of the package; absent for a skill of the agent's own folder.
    pub(crate) artifact_id: Option<String>,
    /// The source that it comes from, if that is configured.
    pub(crate) source: Option<SourceConfig>,
}

impl Known {
    fn manifest(&self) -> &SkillManifest {
        &self.package.manifest
    }
}

/// The skills that a task may use, and a way to call them. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Skills {
    agent_id: Arc<str>,
    known: Arc<[Known]>,
    servers: Arc<BTreeMap<String, String>>,
    executor: Executor,
    progress: Progress,
    deadline: Timestamp,
}

impl Skills {
    pub(crate) fn new(
        agent_id: &str,
        known: Arc<[Known]>,
        servers: BTreeMap<String, String>,
        executor: Executor,
        progress: Progress,
        deadline: Timestamp,
    ) -> Self {
        let servers = Arc::new(servers);
        Self { agent_id: agent_id.into(), known, servers, executor, progress, deadline }
    }

    /// What each of them does, in the order of their names.
    pub fn manifests(&self) -> impl Iterator<Item = &SkillManifest> {
        self.known.iter().map(Known::manifest)
    }

    /// The skills as tools of a model. When there are too many, those that have most words in
    /// common with `about` are taken.
    pub fn tools(&self, about: &str) -> Vec<Tool> {
        let mut manifests: Vec<&SkillManifest> = self
            .known
            .iter()
            .filter(|known| !known.manifest().has_code)
            .map(Known::manifest)
            .collect();
        if manifests.len() > MAX_TOOLS {
            let wanted = words(about);
            let score = |manifest: &SkillManifest| {
                let own = words(&format!("{} {}", manifest.name, manifest.description));
                own.intersection(&wanted).count()
            };
            manifests.sort_by_cached_key(|manifest| std::cmp::Reverse(score(manifest)));
            manifests.truncate(MAX_TOOLS);
        }
        manifests.sort_by(|a, b| a.name.cmp(&b.name));
        manifests.into_iter().map(tool).collect()
    }

    /// Calls a skill, tells king how it went, and gives its output.
    pub async fn call(&self, name: &str, input: Map<String, Value>) -> Result<Value, CommandError> {
        let started = Instant::now();
        let known = self.known.iter().find(|known| known.manifest().name == name);
        let result = match known {
            Some(known) => self.execute(known, &input).await,
            None => Err(Failure::new("skill_not_found", self.not_found(name))),
        };
        let latency_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let record = CallRecord {
            step: self.progress.steps(),
            skill: name.to_owned(),
            input: shown(Value::Object(input)),
            status: if result.is_ok() { "success" } else { "failure" },
            output: result.as_ref().ok().map(|output| cut(&redact(&text_of(output)), MAX_RECORD)),
            code: result.as_ref().err().map(|failure| failure.code.clone()),
            error: result.as_ref().err().map(|failure| redact(&failure.message).into_owned()),
            latency_ms,
        };
        let counts = result.as_ref().map_or_else(Failure::counts, |_| true);
        let report = (counts && known.is_some()).then(|| {
            let artifact_id = known.and_then(|known| known.artifact_id.clone());
            self.report(name, artifact_id, &result, latency_ms)
        });
        self.progress.called(record, report).await;
        result.map_err(CommandError::from)
    }

    async fn execute(&self, known: &Known, input: &Map<String, Value>) -> Result<Value, Failure> {
        let left = self.deadline.ms_since(Timestamp::now());
        if left == 0 {
            return Err(Failure::new("timeout", "the deadline had passed before the call"));
        }
        let policy = run::policy_of(&known.package, known.source.as_slice(), &self.servers);
        let policy = CallPolicy { timeout_cap_ms: Some(left), ..policy };
        run::run(&self.executor, &known.package, input, &policy).await
    }

    fn not_found(&self, name: &str) -> String {
        let near: Vec<&str> = self
            .manifests()
            .map(|manifest| manifest.name.as_str())
            .filter(|known| known.contains(name) || name.contains(known))
            .take(5)
            .collect();
        if near.is_empty() {
            format!("there is no active skill {name:?}; GET /skills?status=active lists them")
        } else {
            format!("there is no active skill {name:?}; did you mean {}?", near.join(", "))
        }
    }

    fn report(
        &self,
        name: &str,
        artifact_id: Option<String>,
        result: &Result<Value, Failure>,
        latency_ms: u64,
    ) -> ToKing {
        let mut carrier = HashMap::new();
        tracing_context::inject_context(&mut carrier);
        ToKing::SkillReport(Box::new(SkillCall {
            report: AgentSkillReport {
                agent_id: self.agent_id.to_string(),
                skill_id: name.to_owned(),
                result: match result {
                    Ok(_) => SkillResult::Success,
                    Err(failure) => SkillResult::Failure(failure.message.clone()),
                },
                score: None,
            },
            req_id: Some(uuid::Uuid::now_v7().simple().to_string()),
            artifact_id,
            latency_ms: Some(latency_ms),
            cost_usd: None,
            trace: (!carrier.is_empty()).then_some(TraceContext(carrier)),
        }))
    }
}

/// A text as it is, anything else as JSON.
pub(crate) fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A value that is too large for a report is shown by its beginning.
fn shown(mut value: Value) -> Value {
    redact_json(&mut value);
    let text = value.to_string();
    if text.len() <= MAX_RECORD { value } else { Value::String(cut(&text, MAX_RECORD)) }
}

/// Words of at least three letters, in lower case.
fn words(text: &str) -> BTreeSet<String> {
    text.split(|c: char| !c.is_alphanumeric())
        .filter(|word| word.chars().count() >= 3)
        .map(str::to_lowercase)
        .collect()
}

fn tool(manifest: &SkillManifest) -> Tool {
    let properties: Map<String, Value> =
        manifest.inputs.iter().map(|io| (io.name.clone(), schema_of(io))).collect();
    let required: Vec<&str> =
        manifest.inputs.iter().filter(|io| io.required).map(|io| io.name.as_str()).collect();
    Tool {
        name: manifest.name.clone(),
        description: cut(&manifest.description, MAX_DESCRIPTION),
        parameters: json!({
            "type": "object", "properties": properties, "required": required,
            "additionalProperties": false,
        }),
    }
}

fn schema_of(io: &SkillIO) -> Value {
    let mut schema = match io.r#type.as_str() {
        kind @ ("string" | "integer" | "number" | "boolean" | "object") => json!({"type": kind}),
        "array" => json!({"type": "array", "items": {}}),
        // `any`, and what older packages have there.
        _ => json!({}),
    };
    if let Some(description) = io.description.as_deref().filter(|text| !text.is_empty()) {
        schema["description"] = json!(cut(description, MAX_INPUT_DESCRIPTION));
    }
    schema
}
