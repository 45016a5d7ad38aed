//! From king's events to what Evotown is told. Pure: no clock, no I/O.
//!
//! Each event of king's log changes what is known of its run ([`Facts`]) and may lead to
//! deliveries. What is delivered is written down once, so that a repeat is the same byte for byte.

mod facts;
mod fold;
mod limits;
mod log;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use evo_common::{
    api::{EventRecord, RunKind},
    clock::Timestamp,
    messages::{PipelineRunStatus, PipelineStage},
    outcome::{Outcome, Verdict, codes},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

pub(crate) use facts::{Facts, PackageFile};
pub(crate) use fold::fold;
use limits::{clean, fit, fit_ids, text};

use crate::config::{ChildRuns, Link, MAX_ID, Mode};

/// There is no type of its own for Evo; other names are refused.
pub(crate) const ENGINE_TYPE: &str = "custom";
/// The version that is reported.
pub(crate) const ENGINE_VERSION: &str = env!("CARGO_PKG_VERSION");

/// Exit code of a run that ran into its deadline, as `timeout` gives it.
const EXIT_TIMED_OUT: i64 = 124;
/// Exit code of a run that somebody cancelled, as a shell gives it after Ctrl-C.
const EXIT_CANCELLED: i64 = 130;

/// Which call a delivery is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// The event `run.started`.
    Started,
    /// The event `run.progress`.
    Progress,
    /// `POST /runs/{run_id}/complete`, which decides how the run ended.
    Complete,
    /// The event `run.completed`, which puts the end into the timeline. Nothing follows it.
    Completed,
    /// `POST /skill-candidates`: a skill that came into use, for the operator's review.
    Candidate,
}

/// Every kind.
const KINDS: [Kind; 5] =
    [Kind::Started, Kind::Progress, Kind::Complete, Kind::Completed, Kind::Candidate];

impl Kind {
    /// The word in the queue and in messages.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Progress => "progress",
            Self::Complete => "complete",
            Self::Completed => "completed",
            Self::Candidate => "candidate",
        }
    }
}

impl std::str::FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        KINDS
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| format!("unknown kind of delivery {text:?}"))
    }
}

/// Who reports, and how.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Identity {
    /// This engine.
    pub(crate) engine_id: String,
    /// Its team.
    pub(crate) team_id: Option<String>,
    /// Its tenant.
    pub(crate) tenant_id: Option<String>,
    /// King's address as Evotown's users reach it, if they do.
    pub(crate) king_url: Option<String>,
    /// What is told of a run.
    pub(crate) mode: Mode,
    /// How the runs of candidates are told.
    pub(crate) child_runs: ChildRuns,
}

impl Identity {
    pub(crate) fn of(link: &Link, engine_id: &str) -> Self {
        Self {
            engine_id: engine_id.to_owned(),
            team_id: link.team_id.clone(),
            tenant_id: link.tenant_id.clone(),
            king_url: link.king_url.clone(),
            mode: link.mode,
            child_runs: link.child_runs,
        }
    }
}

/// What is to be delivered.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Draft {
    /// Tells repeats: a run has one delivery of each key.
    pub(crate) key: String,
    /// Which call it is.
    pub(crate) kind: Kind,
    /// What is sent.
    pub(crate) body: Value,
}

/// What is known beside the run itself.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Around {
    /// The task of the run's parent, if the parent is known.
    pub(crate) parent_task: Option<String>,
    /// The cycle that the run belongs to, while it is not over.
    pub(crate) open_cycle: Option<String>,
    /// Of a cycle: how many child runs ended with each decision.
    pub(crate) children: BTreeMap<String, u64>,
    /// Files of the package that the event names.
    pub(crate) package: Option<Vec<PackageFile>>,
}

/// What an event leads to.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Step {
    /// What is known of the run now.
    pub(crate) facts: Facts,
    /// What is to be delivered, in order.
    pub(crate) drafts: Vec<Draft>,
    /// The run that tells of this one.
    pub(crate) folded_into: Option<String>,
}

impl Step {
    /// What is delivered of a run that is told by itself.
    fn of(facts: Facts, mut drafts: Vec<Draft>, identity: &Identity) -> Self {
        let folded_into = facts.folded_into.clone();
        if folded_into.is_some() {
            drafts.clear();
        } else if identity.mode == Mode::CompleteOnly {
            drafts.retain(|draft| draft.kind == Kind::Complete);
        }
        Self { facts, drafts, folded_into }
    }
}

/// The parent that an event names.
pub(crate) fn parent_of(event: &EventRecord) -> Option<&str> {
    event.payload.get("parent_run_id")?.as_str()
}

/// The package that an event names.
pub(crate) fn package_of(event: &EventRecord) -> Option<&str> {
    if !event.kind.starts_with("stage.") {
        return None;
    }
    event.payload.get("artifact_id")?.as_str().filter(|id| !id.is_empty())
}

/// What the run of an event is. A direct run says so when it starts and when it ends.
fn kind_of(event: &EventRecord) -> RunKind {
    if event.kind.starts_with("cycle.") {
        return RunKind::Cycle;
    }
    match string(&event.payload, "kind").as_deref() {
        Some("direct") => RunKind::Direct,
        _ => RunKind::Candidate,
    }
}

/// Reads one event of king's log about the run `run_id`. `None` when nothing follows from it: the
/// run has ended, it was told before, or it is of no interest to Evotown.
pub(crate) fn read(
    event: &EventRecord,
    run_id: &str,
    known: Option<Facts>,
    around: &Around,
    identity: &Identity,
) -> Option<Step> {
    let teller = Teller { run_id, identity, at: &event.at };
    let payload = &event.payload;
    if let Some(mut facts) = known.clone().filter(|facts| facts.ended) {
        // A person may have allowed it after the run had ended; it is no event of the run.
        if !is_activation(event) || facts.activated.is_some() {
            return None;
        }
        let drafts = vec![teller.candidate(&mut facts, payload)?];
        return Some(Step::of(facts, drafts, identity));
    }
    let is_new = known.is_none();
    let kind = kind_of(event);
    let mut facts = known.unwrap_or_else(|| Facts::new(kind, &event.at));
    let mut drafts = Vec::new();
    match event.kind.as_str() {
        "cycle.started" | "run.started" if is_new => {
            facts.name = string(payload, "name").map(|name| text(&name));
            facts.locator = string(payload, "locator").map(|locator| text(&locator));
            facts.look = payload.get("look").and_then(Value::as_u64).unwrap_or(1);
            facts.task_id = match kind {
                RunKind::Cycle | RunKind::Direct => Some(run_id.to_owned()),
                RunKind::Candidate => {
                    around.parent_task.clone().or_else(|| parent_of(event).map(str::to_owned))
                }
            };
            if identity.child_runs == ChildRuns::Folded && kind == RunKind::Candidate {
                facts.folded_into.clone_from(&around.open_cycle);
            }
        }
        "stage.completed" | "stage.failed" => {
            let stage = facts.take_stage(payload, &event.at, around.package.as_deref())?;
            drafts.push(teller.progress(&mut facts, &stage));
        }
        "stage.retried" => facts.retries += 1,
        _ if is_activation(event) => drafts.extend(teller.candidate(&mut facts, payload)),
        "cycle.fanned_out" => {
            facts.candidates = payload.get("candidates").and_then(Value::as_u64).unwrap_or(0);
            facts.failed_sources = payload
                .get("failed_sources")
                .and_then(Value::as_array)
                .map_or(0, |list| list.len() as u64);
        }
        "run.ended" | "cycle.ended" => {
            facts.ended = true;
            if kind == RunKind::Direct {
                facts.kind = kind;
            }
            let end = End::read(payload, facts.kind);
            facts.decision = Some(end.decision().to_owned());
            let finished = [
                teller.complete(&facts, &end, &around.children),
                teller.completed(&mut facts, &end),
            ];
            drafts.extend(finished);
            facts.forget();
        }
        _ => return None,
    }
    if is_new {
        // The first word about a run, also when its start is no longer in the log.
        drafts.insert(0, teller.started(&facts));
    }
    Some(Step::of(facts, drafts, identity))
}

/// Whether a version of a skill came into use, for all calls or for some.
fn is_activation(event: &EventRecord) -> bool {
    matches!(event.kind.as_str(), "skill.activated" | "skill.canary")
}

/// The end of a run that king's log does not tell any more, since it begins again.
pub(crate) fn abandon(
    run_id: &str,
    mut facts: Facts,
    children: &BTreeMap<String, u64>,
    now: Timestamp,
    identity: &Identity,
) -> Step {
    let at = now.to_rfc3339();
    let teller = Teller { run_id, identity, at: &at };
    facts.ended = true;
    let end = End {
        how: How::Cancelled,
        outcome: Some(Outcome::failed(
            "log_replaced",
            "king's database was replaced and does not know this run; how it ended is not known",
        )),
    };
    facts.decision = Some(end.decision().to_owned());
    let drafts = vec![teller.complete(&facts, &end, children), teller.completed(&mut facts, &end)];
    facts.forget();
    Step::of(facts, drafts, identity)
}

/// How a run ended, in Evotown's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Succeeded,
    Failed,
    TimedOut,
    Cancelled,
}

impl How {
    fn status(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed | Self::TimedOut => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    fn exit_code(self) -> i64 {
        match self {
            Self::Succeeded => 0,
            Self::Failed => 1,
            Self::TimedOut => EXIT_TIMED_OUT,
            Self::Cancelled => EXIT_CANCELLED,
        }
    }
}

struct End {
    how: How,
    /// Absent for a cycle that completed.
    outcome: Option<Outcome>,
}

impl End {
    fn read(payload: &Value, kind: RunKind) -> Self {
        let status: Option<PipelineRunStatus> =
            payload.get("status").and_then(|status| PipelineRunStatus::deserialize(status).ok());
        let outcome: Option<Outcome> =
            payload.get("outcome").and_then(|outcome| Outcome::deserialize(outcome).ok());
        let code = outcome.as_ref().map_or("", |outcome| outcome.code.as_str());
        let decided = outcome.as_ref().map(|outcome| outcome.decision != Verdict::Failed);
        let how = if code == codes::CANCELLED {
            How::Cancelled
        } else if code == codes::TIMED_OUT || status == Some(PipelineRunStatus::TimedOut) {
            How::TimedOut
        } else if status == Some(PipelineRunStatus::Completed)
            && decided.unwrap_or(kind != RunKind::Candidate)
        {
            How::Succeeded
        } else {
            How::Failed
        };
        Self { how, outcome }
    }

    fn decision(&self) -> &'static str {
        match (&self.outcome, self.how) {
            (_, How::Cancelled) => "cancelled",
            (Some(outcome), _) => outcome.decision.as_str(),
            (None, How::Succeeded) => "completed",
            (None, _) => "failed",
        }
    }

    /// A candidate's task is to become a skill; that of others to come to their end.
    fn task_completed(&self, kind: RunKind) -> bool {
        match kind {
            RunKind::Candidate => {
                self.outcome.as_ref().is_some_and(|outcome| outcome.decision == Verdict::Active)
            }
            RunKind::Cycle | RunKind::Direct => self.how == How::Succeeded,
        }
    }
}

/// One event's way into words.
struct Teller<'t> {
    run_id: &'t str,
    identity: &'t Identity,
    at: &'t str,
}

impl Teller<'_> {
    fn started(&self, facts: &Facts) -> Draft {
        let mut payload = Map::new();
        payload.insert("kind".to_owned(), json!(facts.kind));
        insert(&mut payload, "candidate", facts.name.clone());
        insert(&mut payload, "locator", facts.locator.clone());
        if facts.look > 1 {
            payload.insert("look".to_owned(), json!(facts.look));
        }
        let started = Teller { at: &facts.started_at, ..*self };
        let mut body = started.event("run.started", facts, 0);
        body.insert("status".to_owned(), json!("running"));
        body.insert("payload".to_owned(), Value::Object(payload));
        self.draft("started", Kind::Started, body)
    }

    fn progress(&self, facts: &mut Facts, stage: &facts::Stage) -> Draft {
        let mut payload = Map::new();
        insert(&mut payload, "candidate", facts.name.clone());
        insert(&mut payload, "artifact_id", facts.artifact_id.clone());
        self.step(facts, &format!("progress:{}:{}", stage.stage, stage.attempt), payload, stage)
    }

    /// A stage result, of the run itself or of one that it tells of.
    fn step(
        &self,
        facts: &mut Facts,
        key: &str,
        mut payload: Map<String, Value>,
        stage: &facts::Stage,
    ) -> Draft {
        payload.insert("stage".to_owned(), json!(stage.stage));
        payload.insert("status".to_owned(), json!(stage.status));
        payload.insert("attempt".to_owned(), json!(stage.attempt));
        insert(&mut payload, "error", stage.error.clone());
        self.progress_of(facts, key, payload, Some(stage.stage))
    }

    fn progress_of(
        &self,
        facts: &mut Facts,
        key: &str,
        payload: Map<String, Value>,
        stage: Option<PipelineStage>,
    ) -> Draft {
        facts.events += 1;
        // The place of the last event that was applied: after a cut connection it tells whether
        // this one was, since events are never told apart from their repeats.
        let mut signals = facts.numbers(self.at);
        signals.insert("seq".to_owned(), json!(facts.events));
        insert(&mut signals, "stage", stage.map(|stage| stage.as_str().to_owned()));
        let mut body = self.event("run.progress", facts, facts.events);
        body.insert("status".to_owned(), json!("running"));
        body.insert("signals".to_owned(), Value::Object(signals));
        body.insert("payload".to_owned(), Value::Object(payload));
        self.draft(key, Kind::Progress, body)
    }

    fn complete(&self, facts: &Facts, end: &End, children: &BTreeMap<String, u64>) -> Draft {
        let mut signals = facts.numbers(self.at);
        signals.insert("kind".to_owned(), json!(facts.kind));
        signals.insert("decision".to_owned(), json!(end.decision()));
        signals.insert("task_completed".to_owned(), json!(end.task_completed(facts.kind)));
        signals.insert("score".to_owned(), json!(facts::finite(facts.score)));
        dimensions(&mut signals, facts);
        if end.how == How::TimedOut {
            signals.insert("timed_out".to_owned(), json!(true));
        }
        insert(&mut signals, "candidate", facts.name.clone());
        let outcome = end.outcome.as_ref();
        insert(&mut signals, "code", outcome.map(|outcome| text(&outcome.code)));
        insert(&mut signals, "reason", outcome.map(|outcome| text(&outcome.reason)));
        let stages: Vec<Value> = facts.stages.iter().map(facts::Stage::brief).collect();
        signals.insert("stages".to_owned(), json!(stages));
        signals.insert("retries".to_owned(), json!(facts.retries));
        signals.insert("new_skill_paths".to_owned(), json!(facts.new_skill_paths()));
        if facts.kind == RunKind::Cycle {
            signals.insert("candidates".to_owned(), json!(facts.candidates));
            signals.insert("failed_sources".to_owned(), json!(facts.failed_sources));
            for decision in [Verdict::Active, Verdict::Held, Verdict::Discarded, Verdict::Failed] {
                let name = decision.as_str();
                let count = children.get(name).copied().unwrap_or(0);
                signals.insert(name.to_owned(), json!(count));
            }
        }
        signals.insert("artifacts".to_owned(), json!(facts.artifacts));
        let mut body = Map::new();
        body.insert("engine_id".to_owned(), json!(self.identity.engine_id));
        body.insert("engine_version".to_owned(), json!(ENGINE_VERSION));
        body.insert("status".to_owned(), json!(end.how.status()));
        body.insert("exit_code".to_owned(), json!(end.how.exit_code()));
        body.insert("finished_at".to_owned(), json!(self.at));
        body.insert("log_excerpt".to_owned(), json!(log::of(facts, end, self.at)));
        body.insert("artifact_manifest".to_owned(), json!(facts.manifest()));
        insert(&mut body, "artifact_bundle_url", self.bundle_url(facts));
        body.insert("signals".to_owned(), Value::Object(signals));
        self.draft("complete", Kind::Complete, body)
    }

    /// Without log, artifacts and signals: it would overwrite those of `complete`.
    fn completed(&self, facts: &mut Facts, end: &End) -> Draft {
        facts.events += 1;
        let mut payload = Map::new();
        payload.insert("decision".to_owned(), json!(end.decision()));
        insert(&mut payload, "code", end.outcome.as_ref().map(|outcome| text(&outcome.code)));
        let mut body = self.event("run.completed", facts, facts.events);
        body.insert("status".to_owned(), json!(end.how.status()));
        body.insert("exit_code".to_owned(), json!(end.how.exit_code()));
        body.insert("payload".to_owned(), Value::Object(payload));
        self.draft("completed", Kind::Completed, body)
    }

    /// The skill that came into use, for review at Evotown. The same version has the same id, whatever
    /// run or repeat it comes from.
    fn candidate(&self, facts: &mut Facts, payload: &Value) -> Option<Draft> {
        let name = string(payload, "name").map(|name| text(&name))?;
        facts.activated = Some(name.clone());
        let artifact_id = string(payload, "artifact_id").or_else(|| facts.artifact_id.clone());
        let version = string(payload, "version");
        let mut signals = facts.numbers(self.at);
        signals.insert("score".to_owned(), json!(facts::finite(facts.score)));
        dimensions(&mut signals, facts);
        let mut manifest = Map::new();
        insert(&mut manifest, "version", version.as_deref().map(text));
        insert(&mut manifest, "artifact_id", artifact_id.clone());
        insert(&mut manifest, "locator", facts.locator.clone());
        manifest.insert("files".to_owned(), json!(facts.artifacts));
        let digest = artifact_id.as_deref().or(version.as_deref()).unwrap_or("1");
        let id = format!("{}@{}", first(&name, MAX_ID - 17), first(digest, 16));
        let mut body = Map::new();
        body.insert("candidate_id".to_owned(), json!(id));
        body.insert("source_run_id".to_owned(), json!(self.run_id));
        insert(&mut body, "tenant_id", self.identity.tenant_id.clone());
        insert(&mut body, "team_id", self.identity.team_id.clone());
        insert(&mut body, "agent_id", facts.agent_id.clone());
        body.insert("engine_id".to_owned(), json!(self.identity.engine_id));
        body.insert("runtime_target".to_owned(), json!(ENGINE_TYPE));
        body.insert("name".to_owned(), json!(first(&name, MAX_ID)));
        insert(&mut body, "description", facts.description.clone());
        insert(&mut body, "package_url", self.bundle_url(facts));
        body.insert("inline_manifest".to_owned(), Value::Object(manifest));
        body.insert("signals".to_owned(), Value::Object(signals));
        Some(self.draft("candidate", Kind::Candidate, body))
    }

    /// Where the package can be fetched, if Evotown's users can reach king.
    fn bundle_url(&self, facts: &Facts) -> Option<String> {
        let (king, id) = (self.identity.king_url.as_ref()?, facts.artifact_id.as_ref()?);
        Some(format!("{king}/artifacts/{id}"))
    }

    /// What every event has. `engine_type` is always sent: left out, it would become `custom`
    /// whatever the engine was registered as, and the ids of the last event win.
    fn event(&self, event_type: &str, facts: &Facts, seq: u64) -> Map<String, Value> {
        let mut body = Map::new();
        body.insert("event_type".to_owned(), json!(event_type));
        body.insert("run_id".to_owned(), json!(self.run_id));
        body.insert("engine_id".to_owned(), json!(self.identity.engine_id));
        body.insert("engine_type".to_owned(), json!(ENGINE_TYPE));
        body.insert("engine_version".to_owned(), json!(ENGINE_VERSION));
        insert(&mut body, "tenant_id", self.identity.tenant_id.clone());
        insert(&mut body, "team_id", self.identity.team_id.clone());
        insert(&mut body, "agent_id", facts.agent_id.clone());
        insert(&mut body, "task_id", facts.task_id.clone());
        body.insert("ts".to_owned(), json!(self.at));
        body.insert("seq".to_owned(), json!(seq));
        body
    }

    fn draft(&self, key: &str, kind: Kind, body: Map<String, Value>) -> Draft {
        let mut body = Value::Object(body);
        clean(&mut body);
        // What names the run and the engine is never a secret, and must arrive as it is.
        for name in ["run_id", "source_run_id"] {
            if body.get(name).is_some() {
                body[name] = json!(self.run_id);
            }
        }
        body["engine_id"] = json!(self.identity.engine_id);
        fit_ids(&mut body);
        fit(&mut body);
        Draft { key: key.to_owned(), kind, body }
    }
}

/// The body without what a policy may have refused; `None` when there is nothing left to take away.
/// The list of all files stays in the signals, which no policy looks at.
pub(crate) fn degrade(kind: Kind, body: &Value) -> Option<Value> {
    let mut less = body.clone();
    let fields = less.as_object_mut()?;
    match kind {
        Kind::Complete => {
            fields.remove("log_excerpt");
            fields.insert("artifact_manifest".to_owned(), json!([]));
        }
        Kind::Started | Kind::Progress | Kind::Completed => {
            fields.remove("payload");
        }
        Kind::Candidate => {
            fields.remove("inline_manifest");
        }
    }
    (less != *body).then_some(less)
}

/// The body without everything that makes it large; `None` when it is small already.
pub(crate) fn shrink(kind: Kind, body: &Value) -> Option<Value> {
    let mut less = degrade(kind, body).unwrap_or_else(|| body.clone());
    if let Some(signals) = less.get_mut("signals").and_then(Value::as_object_mut) {
        for large in ["artifacts", "stages"] {
            signals.remove(large);
        }
    }
    (less != *body).then_some(less)
}

/// What the score is made of, where it was measured.
fn dimensions(signals: &mut Map<String, Value>, facts: &Facts) {
    let Some(scores) = facts.dimensions else { return };
    for (name, score) in [
        ("utility", scores.utility),
        ("reliability", scores.reliability),
        ("novelty", scores.novelty),
        ("integration", scores.integration),
    ] {
        signals.insert(name.to_owned(), json!(facts::finite(score)));
    }
}

/// At most so many characters from the beginning of a text.
fn first(text: &str, most: usize) -> &str {
    text.char_indices().nth(most).map_or(text, |(end, _)| &text[..end])
}

fn insert(map: &mut Map<String, Value>, name: &str, value: Option<String>) {
    if let Some(value) = value.filter(|value| !value.is_empty()) {
        map.insert(name.to_owned(), Value::String(value));
    }
}

fn string(payload: &Value, name: &str) -> Option<String> {
    payload.get(name)?.as_str().map(str::to_owned)
}

/// The stage that a payload names.
fn stage_of(payload: &Value) -> Option<PipelineStage> {
    PipelineStage::deserialize(payload.get("stage")?).ok()
}
