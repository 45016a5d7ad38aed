//! The skills that a task may use.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use evo_common::{
    clock::Timestamp,
    messages::{AgentSkillReport, SkillCall, SkillResult, TraceContext},
    redact::{redact, redact_json},
    skill::SkillManifest,
    tool, tracing_context,
};
use serde_json::{Map, Value};
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
        in_use::SkillsInUse,
        package::Package,
        run::{self, Failure},
        snapshot::{Chosen, Known},
    },
};

/// Most tools that a model is shown at once.
const MAX_TOOLS: usize = 64;
/// Longest description of a tool.
const MAX_DESCRIPTION: usize = 1_024;
/// Longest input and output of a call in the report.
const MAX_RECORD: usize = 2 * 1024;

/// The skills that a task may use, and a way to call them. Cheap to clone.
///
/// What a model is shown stays as it was when the task began. Each call gets the versions that are in
/// use when it begins: what was taken back meanwhile is not called any more.
#[derive(Debug, Clone)]
pub struct Skills {
    agent_id: Arc<str>,
    in_use: SkillsInUse,
    /// Skills of the agent's own folder, which go before king's.
    local: Arc<[Known]>,
    manifests: Arc<[SkillManifest]>,
    servers: Arc<BTreeMap<String, String>>,
    executor: Executor,
    progress: Progress,
    deadline: Timestamp,
}

impl Skills {
    pub(crate) async fn new(
        agent_id: &str,
        in_use: SkillsInUse,
        local: &[Package],
        servers: BTreeMap<String, String>,
        executor: Executor,
        progress: Progress,
        deadline: Timestamp,
    ) -> Self {
        let local: Arc<[Known]> = local.iter().map(Known::local).collect();
        let shown = in_use.snapshot(&servers, "").await.over(&local);
        let mut manifests: Vec<SkillManifest> = shown.manifests().cloned().collect();
        manifests.sort_by(|a, b| a.name.cmp(&b.name));
        Self {
            agent_id: agent_id.into(),
            in_use,
            local,
            manifests: manifests.into(),
            servers: Arc::new(servers),
            executor,
            progress,
            deadline,
        }
    }

    /// What each of them does, in the order of their names.
    pub fn manifests(&self) -> impl Iterator<Item = &SkillManifest> {
        self.manifests.iter()
    }

    /// The skills as tools of a model. When there are too many, those that have most words in
    /// common with `about` are taken.
    pub fn tools(&self, about: &str) -> Vec<Tool> {
        let mut manifests: Vec<&SkillManifest> = self.manifests().collect();
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
        manifests.into_iter().map(as_tool).collect()
    }

    /// Calls a skill, tells king how it went, and gives its output. `arguments` are its inputs, or what
    /// [`Skills::tools`] calls them.
    pub async fn call(
        &self,
        name: &str,
        arguments: Map<String, Value>,
    ) -> Result<Value, CommandError> {
        let started = Instant::now();
        let req_id = uuid::Uuid::now_v7().simple().to_string();
        let snapshot = self.in_use.snapshot(&self.servers, &req_id).await.over(&self.local);
        let chosen = snapshot.choose(name);
        let (input, result) = match &chosen {
            Some(chosen) => {
                let input = tool::inputs(&chosen.package.manifest, arguments);
                let result = self.execute(chosen, &input).await;
                (input, result)
            }
            None => (arguments, Err(Failure::new("skill_not_found", self.not_found(name)))),
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
        let report = chosen.filter(|_| counts).map(|chosen| {
            self.report(name, req_id, chosen.artifact_id, &result, failed_input, latency_ms)
        });
        self.progress.called(record, report).await;
        result.map_err(CommandError::from)
    }

    async fn execute(&self, chosen: &Chosen, input: &Map<String, Value>) -> Result<Value, Failure> {
        let left = self.deadline.ms_since(Timestamp::now());
        if left == 0 {
            return Err(Failure::new("timeout", "the deadline had passed before the call"));
        }
        let policy = CallPolicy { timeout_cap_ms: Some(left), ..chosen.policy.clone() };
        run::run(&self.executor, &chosen.package, input, &policy).await
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

fn as_tool(manifest: &SkillManifest) -> Tool {
    Tool {
        name: manifest.name.clone(),
        description: cut(&manifest.description, MAX_DESCRIPTION),
        parameters: Value::Object(tool::input_schema(manifest)),
    }
}
