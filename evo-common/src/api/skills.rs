//! Skills, their versions, and what people do to them.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::{
    evidence::{Evidence, Scores},
    outcome::{Outcome, Verdict},
    rollout::{CanaryRef, VersionRef},
    stage::Finding,
};

/// One skill.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SkillSummary {
    /// Its name.
    pub name: String,
    /// `candidate`, `active`, `held`, `discarded`, `failed` or `archived`.
    pub status: String,
    /// The version in use; else the newest one. Absent before Building made one.
    pub version: Option<String>,
    /// Digest of that version.
    pub artifact_id: Option<String>,
    /// What it does.
    pub description: String,
    /// The source it comes from.
    pub source: String,
    /// Lower bound of its score; absent before Evaluation.
    pub score: Option<f64>,
    /// The last decision about it.
    pub outcome: Option<Outcome>,
    /// When it last changed (RFC 3339).
    pub updated_at: String,
    /// The new version that gets a part of the calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<CanaryRef>,
    /// Whether somebody wants it to stay on the version in use.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pinned: bool,
    /// Whether somebody wants nothing new of it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub frozen: bool,
    /// Why a person should look at it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flag: Option<SkillFlag>,
    /// The bundles that it belongs to beside its source's own: `petstore/pets` for a tag of its
    /// operation.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bundles: Vec<String>,
}

/// Why a person should look at a skill.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SkillFlag {
    /// `failing`: the version in use fails and there is none to go back to. `outage`: it fails like
    /// the others of its source.
    pub code: String,
    /// For people.
    pub reason: String,
    /// Since when (RFC 3339).
    pub at: String,
}

/// A page of skills.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SkillList {
    /// In name order.
    pub skills: Vec<SkillSummary>,
    /// How many are in this page.
    pub count: usize,
    /// Pass it as `cursor` for the next page; absent on the last one.
    pub next_cursor: Option<String>,
}

/// One version of a skill.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SkillVersionView {
    /// Its version.
    pub version: String,
    /// Digest of its package.
    pub artifact_id: String,
    /// The version that it replaces.
    pub parent: Option<String>,
    /// The run that made it.
    pub run_id: String,
    /// Whether it is in use.
    pub active: bool,
    /// Where it stands: `active`, `canary` or `previous`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    /// Whether it has passed Evaluation, so that a person may put it into use.
    #[serde(default)]
    pub passed: bool,
    /// When it failed in use and was taken back (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rolled_back_at: Option<String>,
    /// What was decided.
    pub decision: Option<Verdict>,
    /// Stable code of the decision.
    pub code: Option<String>,
    /// Why.
    pub reason: Option<String>,
    /// The score.
    pub scores: Option<Scores>,
    /// What was measured.
    pub evidence: Option<Evidence>,
    /// What its calls in use came to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub live: Option<LiveView>,
    /// The manifest in the package.
    #[schema(value_type = Object)]
    pub manifest: Value,
    /// What it calls.
    pub endpoints: Vec<String>,
    /// Who built it: `openapi/1`, `search/1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub builder: Option<String>,
    /// What was done to the package that it was made from: `name`, `path`, …
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub operators: Vec<String>,
    /// What it does otherwise than the version that was in use when it was built, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<String>,
    /// The request that it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// When it was made (RFC 3339).
    pub created_at: String,
}

/// What a version's calls in use came to.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LiveView {
    /// Reported calls.
    pub reports: u64,
    /// Part of them that did what it should; a call that did a part counts half.
    pub rate: f64,
    /// The rate that is expected of it.
    pub expected: f64,
    /// Evidence that it has become worse.
    pub alarm: f64,
    /// At this much it is taken back.
    pub threshold: f64,
}

/// What a skill has cost.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SkillCost {
    /// Reported calls of the skill in use.
    pub calls: u64,
    /// What these calls cost in USD, as far as it was reported.
    pub calls_usd: f64,
    /// Runs that were about it.
    pub runs: u64,
    /// Calls of models in these runs.
    pub model_calls: u64,
    /// Tokens that went in.
    pub input_tokens: u64,
    /// Tokens that came out.
    pub output_tokens: u64,
    /// What they cost in USD; absent when the price of any of them is not known.
    pub usd: Option<f64>,
    /// Where the numbers about models come from: `gateway`, or `stages` (what runners reported) when
    /// the gateway could not be asked.
    pub source: String,
}

/// How far a new version that gets a part of the calls has come.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Rollout {
    /// The version.
    pub version: String,
    /// Percentage of the calls that it gets.
    pub share: u8,
    /// Since when it gets this share (RFC 3339).
    pub since: String,
    /// Its reported calls since then.
    pub reports: u64,
    /// Reported calls that the next share takes.
    pub reports_needed: u32,
    /// Before this it does not get more (RFC 3339).
    pub not_before: String,
    /// The next share, in percent.
    pub next: u8,
}

/// One skill with its versions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SkillDetail {
    /// The skill.
    #[serde(flatten)]
    pub skill: SkillSummary,
    /// What in the source it was made from.
    pub locator: String,
    /// Grows with every change of which versions are in use. Sent along with an action, that is only
    /// done when nothing has changed meanwhile.
    #[serde(default)]
    pub fence: i64,
    /// What it would go back to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<VersionRef>,
    /// How far the new version that gets a part of the calls has come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Rollout>,
    /// Inputs that failed in use and are cases of every later version.
    #[serde(default)]
    pub pinned_cases: u64,
    /// The version that waits for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<ApprovalView>,
    /// What it has cost.
    #[serde(default)]
    pub cost: SkillCost,
    /// When it was last called (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_at: Option<String>,
    /// Newest first.
    pub versions: Vec<SkillVersionView>,
}

/// What kind of harm a skill could do.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum RiskClass {
    /// It reads over HTTP from a source that is configured.
    Read,
    /// It may change something, or its source is not configured.
    Write,
    /// It brings code.
    Code,
}

impl RiskClass {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Code => "code",
        }
    }
}

/// A version that waits for a person.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ApprovalView {
    /// Its place among all approvals.
    pub id: i64,
    /// The skill.
    pub skill: String,
    /// The version.
    pub version: String,
    /// Digest of its package.
    pub artifact_id: String,
    /// What kind of harm it could do.
    pub risk: RiskClass,
    /// The version in use that it was measured against.
    pub incumbent: Option<String>,
    /// Why it may become active.
    pub reason: String,
    /// The run that measured it.
    pub run_id: String,
    /// `pending`, `approved`, `denied` or `superseded`.
    pub status: String,
    /// Since when it waits (RFC 3339).
    pub asked_at: String,
    /// When it was decided (RFC 3339).
    pub decided_at: Option<String>,
    /// Who decided.
    pub decided_by: Option<String>,
    /// Why, in their words.
    pub decided_why: Option<String>,
}

/// Versions that wait for a person.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ApprovalList {
    /// Newest first.
    pub approvals: Vec<ApprovalView>,
    /// How many are in this page.
    pub count: usize,
    /// Pass it as `cursor` for the next page; absent on the last one.
    pub next_cursor: Option<String>,
}

/// Everything that a person needs to decide about a version (`GET /skills/{name}/approval`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ApprovalDetail {
    /// What waits.
    #[serde(flatten)]
    pub approval: ApprovalView,
    /// What would change, against the version in use.
    pub diff: SkillDiff,
    /// The score.
    pub scores: Option<Scores>,
    /// What was measured.
    pub evidence: Option<Evidence>,
    /// What the scan found.
    pub findings: Vec<Finding>,
    /// What the skill has cost so far.
    pub cost: SkillCost,
}

/// What waits for a person, of one skill.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SkillApproval {
    /// The skill.
    pub name: String,
    /// The version that waits, or waited last, with what there is to know; absent when none ever did.
    pub approval: Option<ApprovalDetail>,
}

/// What a person does to a skill. Every field is optional, unless the route says otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SkillAction {
    /// Why, for the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Who; the token's name when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Only when the skill's `fence` is still this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fence: Option<i64>,
    /// Which version: its number, or its digest or the beginning of that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// A person overrules a finding of the scan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OverruleFinding {
    /// The finding's code.
    pub code: String,
    /// Why it is no danger, for the record.
    pub reason: String,
    /// Who; the token's name when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Which version: its number, or its digest or the beginning of that; the newest when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// What became of an action.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SkillChanged {
    /// Always true.
    pub success: bool,
    /// Whether anything changed (false: it was so already).
    pub changed: bool,
    /// The run that goes on because of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_id: Option<String>,
    /// The skill as it is now.
    pub skill: SkillSummary,
    /// Its fence now.
    pub fence: i64,
}

/// One change of which versions of a skill are in use, or something that a person did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ActivationView {
    /// Its place.
    pub id: i64,
    /// When (RFC 3339).
    pub at: String,
    /// `activated`, `canary`, `advanced`, `promoted`, `dropped`, `rolled_back`, `archived`,
    /// `retired`, `restored`, …
    pub action: String,
    /// The version's place afterwards: `active`, `canary`, or `none`.
    pub channel: String,
    /// The version.
    pub version: String,
    /// Digest of its package.
    pub artifact_id: String,
    /// Percentage of the calls that it gets.
    pub share: u8,
    /// The run that made the version.
    pub run_id: String,
    /// Who did it; absent when king did.
    pub by: Option<String>,
    /// Why.
    pub reason: String,
}

/// A page of a skill's history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SkillHistory {
    /// Newest first.
    pub history: Vec<ActivationView>,
    /// How many are in this page.
    pub count: usize,
    /// Pass it as `cursor` for the next page; absent on the last one.
    pub next_cursor: Option<String>,
}

/// One reported call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SkillCallView {
    /// Its place.
    pub id: i64,
    /// When (RFC 3339).
    pub at: String,
    /// Digest of the version that ran, if it was said.
    pub artifact_id: Option<String>,
    /// Who ran it.
    pub agent_id: String,
    /// `success`, `failure` or `partial`.
    pub result: String,
    /// Stable code of a failure.
    pub code: Option<String>,
    /// What went wrong, or what was done of it.
    pub detail: Option<String>,
    /// How long it took.
    pub latency_ms: Option<u64>,
    /// What it cost.
    pub cost_usd: Option<f64>,
}

/// A page of a skill's calls.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SkillCallList {
    /// Newest first.
    pub calls: Vec<SkillCallView>,
    /// How many are in this page.
    pub count: usize,
    /// Pass it as `cursor` for the next page; absent on the last one.
    pub next_cursor: Option<String>,
}

/// A version in the graph of a skill's descent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LineageNode {
    /// Digest of the package.
    pub id: String,
    /// The skill that it belongs to.
    pub skill: String,
    /// Its version; absent of a package that king does not know any more.
    pub version: Option<String>,
    /// The source that it comes from.
    pub source: Option<String>,
    /// Who built it.
    pub builder: Option<String>,
    /// What was done to its parents.
    pub operators: Vec<String>,
    /// The run that made it.
    pub run_id: Option<String>,
    /// Where it stands: `active`, `canary` or `previous`.
    pub channel: Option<String>,
    /// What was decided.
    pub decision: Option<Verdict>,
    /// Stable code of the decision.
    pub code: Option<String>,
    /// Lower and upper bound of its score, and its dimensions.
    pub scores: Option<Scores>,
    /// Cases that builders could see.
    pub train_cases: Vec<String>,
    /// Held-out cases. Their contents stay with king.
    pub holdout_cases: Vec<String>,
    /// When it was made (RFC 3339).
    pub created_at: Option<String>,
}

/// One step of descent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LineageEdge {
    /// The parent's digest.
    pub from: String,
    /// The child's digest.
    pub to: String,
    /// `replaces` for the version that it was measured against, `made_from` for a package that it was
    /// built from.
    pub kind: String,
}

/// Where a skill's versions come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SkillLineage {
    /// The skill.
    pub name: String,
    /// Its versions, and what they were made from.
    pub nodes: Vec<LineageNode>,
    /// Who comes from whom.
    pub edges: Vec<LineageEdge>,
}

/// One file that differs between two versions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FileDiff {
    /// Its path in the package.
    pub path: String,
    /// `added`, `removed` or `changed`.
    pub change: String,
    /// A unified diff; of a file that is no text only its sizes.
    pub diff: String,
}

/// What differs between two versions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SkillDiff {
    /// The skill.
    pub name: String,
    /// The older one; absent for a first version.
    pub from: Option<VersionRef>,
    /// The newer one.
    pub to: VersionRef,
    /// The files that differ, in the order of their paths.
    pub files: Vec<FileDiff>,
    /// How many they are.
    pub count: usize,
}

/// Skills that came as a tree (`POST /skills/import`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImportedSkills {
    /// Always true.
    pub success: bool,
    /// The cycle that their candidates belong to.
    pub run_id: String,
    /// How many there are.
    pub count: usize,
    /// How many of them have a way to go; the others ended at once, and the cycle's report says why.
    pub open: u32,
    /// Their names.
    pub skills: Vec<String>,
}

/// A skill that would go to the archive now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Retirement {
    /// The skill.
    pub name: String,
    /// `unused` or `failing`.
    pub code: String,
    /// Why.
    pub reason: String,
}

/// Skills that would go to the archive now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RetirementList {
    /// In name order.
    pub retirements: Vec<Retirement>,
    /// How many there are.
    pub count: usize,
}
