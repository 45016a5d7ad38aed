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
    rollout::takes_canary,
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
    /// The new version that gets a part of the calls.
    pub(crate) canary: Option<KnownCanary>,
    /// The source that it comes from, if that is configured.
    pub(crate) source: Option<SourceConfig>,
}

/// A new version of a skill that gets a part of the calls.
#[derive(Debug, Clone)]
pub(crate) struct KnownCanary {
    pub(crate) package: Arc<Package>,
    pub(crate) artifact_id: String,
    /// In percent.
    pub(crate) share: u8,
}

impl Known {
    fn manifest(&self) -> &SkillManifest {
        &self.package.manifest
    }

    /// The package with this digest, if it is one of the skill's.
    pub(crate) fn package_of(&self, artifact_id: &str) -> Option<Arc<Package>> {
        if self.artifact_id.as_deref() == Some(artifact_id) {
            return Some(Arc::clone(&self.package));
        }
        let canary = self.canary.as_ref().filter(|canary| canary.artifact_id == artifact_id)?;
        Some(Arc::clone(&canary.package))
    }

    /// The version that a call gets, from its beginning to its end.
    fn choose(&self, request_id: &str) -> (&Package, Option<&str>) {
        match &self.canary {
            Some(canary) if takes_canary(request_id, canary.share) => {
                (&canary.package, Some(&canary.artifact_id))
            }
            _ => (&self.package, self.artifact_id.as_deref()),
        }
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
        let req_id = uuid::Uuid::now_v7().simple().to_string();
        let chosen = known.map(|known| known.choose(&req_id));
        let result = match (known, chosen) {
            (Some(known), Some((package, _))) => self.execute(known, package, &input).await,
            _ => Err(Failure::new("skill_not_found", self.not_found(name))),
        };
        let latency_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let failed_input = result.is_err().then(|| run::reported_input(&input)).flatten();
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
            let artifact_id = chosen.and_then(|(_, artifact_id)| artifact_id.map(str::to_owned));
            self.report(name, req_id, artifact_id, &result, failed_input, latency_ms)
        });
        self.progress.called(record, report).await;
        result.map_err(CommandError::from)
    }

    async fn execute(
        &self,
        known: &Known,
        package: &Package,
        input: &Map<String, Value>,
    ) -> Result<Value, Failure> {
        let left = self.deadline.ms_since(Timestamp::now());
        if left == 0 {
            return Err(Failure::new("timeout", "the deadline had passed before the call"));
        }
        let policy = run::policy_of(package, known.source.as_slice(), &self.servers);
        let policy = CallPolicy { timeout_cap_ms: Some(left), ..policy };
        run::run(&self.executor, package, input, &policy).await
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
        req_id: String,
        artifact_id: Option<String>,
        result: &Result<Value, Failure>,
        input: Option<Map<String, Value>>,
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
            req_id: Some(req_id),
            artifact_id,
            latency_ms: Some(latency_ms),
            cost_usd: None,
            code: result.as_ref().err().map(|failure| failure.code.clone()),
            input,
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
