//! What the stages hand to each other: the context of a dispatch and the output of each stage.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::{
    case::Case,
    config::SourceConfig,
    evidence::{Evidence, Scores},
    messages::PipelineStage,
    outcome::{Outcome, Verdict},
    shape::Shape,
    skill::{SkillIO, SkillManifest, Written},
};

/// `metadata` of `pipeline:next`: everything known about the run, cumulative.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StageContext {
    /// What started the cycle.
    #[serde(default)]
    pub trigger: Value,
    /// The candidate; absent in Learning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candidate: Option<Candidate>,
    /// Outputs of the earlier stages by stage name.
    #[serde(default)]
    pub outputs: BTreeMap<PipelineStage, Value>,
    /// Cases that builders may see.
    #[serde(default)]
    pub train_cases: Vec<Case>,
    /// Held-out cases; only Evaluation gets them.
    #[serde(default)]
    pub holdout_cases: Vec<Case>,
    /// All enabled sources for Learning; the candidate's source for the other stages.
    #[serde(default)]
    pub sources: Vec<SourceConfig>,
    /// Source name → current base URL, for endpoints that start with `{server}`.
    #[serde(default)]
    pub servers: BTreeMap<String, String>,
    /// Skills that the candidate is compared with: active ones, and siblings of the cycle that
    /// precede it in name order.
    #[serde(default)]
    pub known_skills: Vec<KnownSkill>,
    /// The version in use that this candidate would replace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incumbent: Option<Incumbent>,
    /// Version that the package gets (`0.1.0`, or the incumbent's with the patch raised).
    #[serde(default)]
    pub version: String,
    /// How Evaluation is to be run.
    #[serde(default)]
    pub plan: EvaluationPlan,
    /// Open requests, for Learning: those with the greatest demand first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requests: Vec<SkillRequest>,
    /// Sources that are no part of the cycle, of skills whose repair is asked for, for Learning: what
    /// they have in the place of such a skill may be better by now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reread: Vec<SourceConfig>,
    /// What models may still be asked in this cycle; absent without a limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<ModelBudget>,
    /// What king's skills are called, for Learning, so that a skill keeps its name. Absent when
    /// king does not say; a model must not change a name then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub names: Option<Vec<KnownName>>,
    /// How earlier tries to make skills of the sources' operations ended, for Learning: at most 500,
    /// the newest first within each source.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub past: Vec<PastOutcome>,
    /// Digest of the last package that was made of the same definition, for Building, so that a
    /// model is asked about a definition only once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub earlier: Option<String>,
    /// Codes of findings of the scan that a person has overruled for this very package.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub overruled: Vec<String>,
}

/// The name of a skill that king has, in whatever state it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownName {
    /// Its name.
    pub name: String,
    /// Name of its source.
    pub source: String,
    /// What in the source: `GET /agents/{agent_id}`.
    pub locator: String,
    /// Digest of the definition that it was last made from.
    pub fingerprint: String,
    /// What the newest candidate said it does, when a model wrote that; else absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// What a model wrote in the newest candidate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub written: Vec<Written>,
}

/// How the last try to make a skill of an operation ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PastOutcome {
    /// Name of the source.
    pub source: String,
    /// What in the source: `GET /agents/{agent_id}`.
    pub locator: String,
    /// What the candidate was called.
    pub name: String,
    /// Digest of the definition that was tried.
    pub fingerprint: String,
    /// What became of it.
    pub decision: Verdict,
    /// Stable code of the reason.
    pub code: String,
    /// The reason.
    pub reason: String,
    /// How often in a row this definition ended so.
    pub count: u32,
    /// Since when (RFC 3339).
    pub first_at: String,
    /// When it last ended so (RFC 3339).
    pub last_at: String,
}

/// What a model's calls came to in a stage.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ModelUsage {
    /// Calls that were answered.
    pub calls: u32,
    /// Tokens that went in.
    pub input_tokens: u64,
    /// Tokens that came out.
    pub output_tokens: u64,
    /// What they cost in USD; absent when the price of any of the calls is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_usd: Option<f64>,
}

impl ModelUsage {
    /// Adds the usage of further calls.
    pub fn add(&mut self, other: &Self) {
        self.cost_usd = match (self.calls, other.calls) {
            (_, 0) => self.cost_usd,
            (0, _) => other.cost_usd,
            _ => self.cost_usd.zip(other.cost_usd).map(|(ours, theirs)| ours + theirs),
        };
        self.calls = self.calls.saturating_add(other.calls);
        self.input_tokens = self.input_tokens.saturating_add(other.input_tokens);
        self.output_tokens = self.output_tokens.saturating_add(other.output_tokens);
    }
}

/// What models may still be asked in a cycle. A stage that has none left goes on without a model where
/// it can.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct ModelBudget {
    /// Calls; absent without a limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calls: Option<u64>,
    /// Tokens, in and out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// What they may cost in USD.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usd: Option<f64>,
}

impl ModelBudget {
    /// Whether nothing is left of some part of it.
    pub fn is_used_up(&self) -> bool {
        self.calls == Some(0) || self.tokens == Some(0) || self.usd.is_some_and(|usd| usd <= 0.0)
    }
}

/// How an evaluation is run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EvaluationPlan {
    /// Which look this is, from 1.
    pub look: u32,
    /// Held-out trials to make in this look.
    pub trials: u32,
    /// Sittings over which the trials are spread.
    pub sittings: u32,
    /// Pause between two sittings.
    pub sitting_gap_ms: u64,
    /// Repeats of a case within one trial, when a trial is a case.
    pub repeats: u32,
}

impl Default for EvaluationPlan {
    fn default() -> Self {
        Self { look: 1, trials: 20, sittings: 2, sitting_gap_ms: 1_000, repeats: 3 }
    }
}

/// What a candidate is made of, which says who builds it and what its definition holds.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum CandidateKind {
    /// An operation of an OpenAPI document.
    #[default]
    Openapi,
    /// A tool of an MCP server.
    Mcp,
    /// A folder with a `SKILL.md`.
    SkillMd,
    /// What somebody asked for, with examples.
    Request,
    /// A better version of a skill that fails in use.
    Repair,
    /// Several skills in a row.
    Composed,
    /// A skill in use, as it is: it may be what a request asks for. Nothing is built.
    InUse,
}

impl CandidateKind {
    /// Whether it is an operation of an OpenAPI document, as all were at first.
    pub fn is_openapi(&self) -> bool {
        *self == Self::Openapi
    }

    /// Whether it is made of skills in use. When that does not do what a request asks for, something
    /// else can still be built.
    pub fn reuses(self) -> bool {
        matches!(self, Self::Composed | Self::InUse)
    }
}

/// What somebody wants of Learning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RequestKind {
    /// A skill that there is not yet.
    New,
    /// A better version of one that fails in use.
    Repair,
}

/// An open request for a skill, as Learning gets it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SkillRequest {
    /// Its id.
    pub request_id: String,
    /// What is wanted.
    pub kind: RequestKind,
    /// What is wanted, in words; what the failures have in common for a repair.
    pub text: String,
    /// Inputs with what is expected, as whoever asked gave them: those that builders may see. King
    /// has held out others, and adds them to the cases of whatever candidate answers the request.
    #[serde(default)]
    pub examples: Vec<Case>,
    /// The skill that is to be repaired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skill: Option<String>,
    /// The version of it that fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_id: Option<String>,
    /// What the failures have in common: `status_500`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// Digest of the definition that this version was made from, if king knows it; of a version that
    /// came of a repair, that of what was repaired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// How much it is asked for, with age counted (`Σ exp(−age / 7 d)`).
    pub demand: f64,
    /// Fingerprints of candidates made of skills in use that were measured for it and are not what
    /// is wanted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tried: Vec<String>,
}

/// Something that could become a skill.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// What it is made of.
    #[serde(default, skip_serializing_if = "CandidateKind::is_openapi")]
    pub kind: CandidateKind,
    /// The request that it answers, if one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// Name of the skill: `<source>-<operationId or method-path>`, kebab case.
    pub name: String,
    /// Name of the source.
    pub source: String,
    /// What in the source: `GET /agents/{agent_id}`.
    pub locator: String,
    /// What it does, in a sentence.
    pub description: String,
    /// What it can do.
    pub capabilities: Vec<String>,
    /// Digest of the definition (operation, resolved schemas, security, builder version).
    pub fingerprint: String,
    /// How much it is asked for; 1 by default.
    pub demand: f64,
    /// Whether the builder only compiles the definition, so that it can't learn cases by heart.
    pub deterministic: bool,
    /// The definition, as the source's builder understands it (for OpenAPI: the normalised
    /// operation).
    pub definition: Value,
    /// Its cases. King stores them, splits them and takes them out of the candidate before the
    /// other stages see it.
    #[serde(default)]
    pub cases: Vec<Case>,
    /// What in it a model wrote: `name`, `description`. Nothing that the fingerprint covers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub written: Vec<Written>,
    /// How the last try with the same definition ended, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub past: Option<PastOutcome>,
}

/// A skill that a candidate is compared with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KnownSkill {
    /// Its name.
    pub name: String,
    /// Whether it is active (else: a sibling in the same cycle).
    pub active: bool,
    /// Digest of its definition.
    pub fingerprint: String,
    /// What it does.
    pub description: String,
    /// What it can do.
    pub capabilities: Vec<String>,
    /// What it calls: `GET {server}/agents`.
    pub endpoints: Vec<String>,
    /// What it takes.
    pub inputs: Vec<SkillIO>,
    /// What it gives.
    pub outputs: Vec<SkillIO>,
}

/// The version in use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incumbent {
    /// Its digest.
    pub artifact_id: String,
    /// Its version.
    pub version: String,
}

/// What Learning found.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LearningOutput {
    /// The candidates; one child run each.
    pub candidates: Vec<Candidate>,
    /// Sources that could not be read; the others go on.
    #[serde(default)]
    pub failed_sources: Vec<FailedSource>,
    /// Requests that no candidate answers, with the reason. They stay open.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unanswered: Vec<UnansweredRequest>,
    /// What another source offers too. Nothing is built of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub duplicates: Vec<DuplicateCandidate>,
    /// What models were asked, when one was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<ModelUsage>,
}

/// What would have become the same skill as a candidate of another source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DuplicateCandidate {
    /// What it would have been called.
    pub name: String,
    /// Name of its source.
    pub source: String,
    /// What in the source.
    pub locator: String,
    /// Name of the candidate that is there instead.
    pub duplicate_of: String,
    /// Why they are the same.
    pub reason: String,
}

/// A source that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FailedSource {
    /// Its name.
    pub name: String,
    /// Why, with file or address and what to do.
    pub message: String,
}

/// A request of which Learning made no candidate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnansweredRequest {
    /// The request.
    pub request_id: String,
    /// Stable code: `no_model`, `no_examples`, …
    pub code: String,
    /// Why, and what to do.
    pub reason: String,
}

/// What Building made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BuildingOutput {
    /// The manifest in the package.
    pub manifest: SkillManifest,
    /// What the package calls: `GET {server}/agents`.
    pub endpoints: Vec<String>,
    /// Names and sizes of the package's files.
    pub files: BTreeMap<String, u64>,
    /// What it does otherwise than the version in use, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<String>,
    /// Set when the candidate ends here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// What models were asked, when one was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<ModelUsage>,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Good to know.
    Info,
    /// A person should look.
    Warning,
    /// The package must not run.
    High,
}

/// Something that Pre-load noticed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Finding {
    /// Stable code.
    pub code: String,
    /// How bad it is.
    pub severity: Severity,
    /// Which file.
    pub file: String,
    /// Which line, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// For people.
    pub message: String,
}

/// What Pre-load found.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PreLoadOutput {
    /// Findings over all files.
    pub findings: Vec<Finding>,
    /// Probes of the endpoints, in the original's shape.
    pub health_results: Vec<crate::messages::HealthCheck>,
    /// Whether every endpoint answered.
    pub all_healthy: bool,
    /// Latency of the fastest probe call, the base of the latency budget.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe_fastest_ms: Option<f64>,
    /// What the probes' answers looked like. Evaluation's answers to the same input must be alike.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed: Option<Shape>,
    /// Set when the candidate ends here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
}

/// What Evaluation measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EvaluationOutput {
    /// The measurements; king decides from these.
    pub evidence: Evidence,
    /// The score that follows, for readers; king recomputes it.
    pub scores: Scores,
    /// Lower bound of the score, as the original called it.
    pub overall_score: f64,
    /// `activate`, `hold` or `discard`, as the original called it.
    pub recommendation: String,
}

/// What Skill-Manage did. It can lower king's decision, never raise it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SkillManageOutput {
    /// `activated`, `held` or `discarded`.
    pub action: String,
    /// Why.
    pub reason: String,
    /// The outcome that the runner proposes.
    pub outcome: Outcome,
    /// Lower bound of the score.
    pub overall_score: f64,
}

impl StageContext {
    /// Reads the context from a dispatch's metadata.
    pub fn from_metadata(
        metadata: &std::collections::HashMap<String, Value>,
    ) -> Result<Self, crate::messages::DecodeError> {
        let map: serde_json::Map<String, Value> =
            metadata.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
        crate::messages::decode(crate::messages::events::PIPELINE_NEXT, Value::Object(map))
    }

    /// The context as a dispatch's metadata.
    pub fn into_metadata(self) -> std::collections::HashMap<String, Value> {
        match serde_json::to_value(self).expect("a context is plain data") {
            Value::Object(map) => map.into_iter().collect(),
            _ => unreachable!("a struct becomes an object"),
        }
    }

    /// The output of an earlier stage, typed.
    pub fn output<T: serde::de::DeserializeOwned>(
        &self,
        stage: PipelineStage,
    ) -> Option<Result<T, serde_json::Error>> {
        self.outputs.get(&stage).map(T::deserialize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(calls: u32, tokens: u64, cost_usd: Option<f64>) -> ModelUsage {
        ModelUsage { calls, input_tokens: tokens, output_tokens: tokens, cost_usd }
    }

    #[test]
    fn a_sum_has_a_price_only_when_every_part_has_one() {
        let mut sum = ModelUsage::default();
        sum.add(&usage(1, 10, Some(0.5)));
        sum.add(&ModelUsage::default());
        assert_eq!(sum, usage(1, 10, Some(0.5)));
        sum.add(&usage(2, 5, Some(0.25)));
        assert_eq!(sum, usage(3, 15, Some(0.75)));
        sum.add(&usage(1, 1, None));
        sum.add(&usage(1, 1, Some(1.0)));
        assert_eq!(sum, usage(5, 17, None));
    }
}
