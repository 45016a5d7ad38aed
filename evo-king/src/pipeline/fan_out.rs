//! Learning's candidates become child runs, in the transaction of Learning's result.

use std::{borrow::Cow, collections::HashSet};

use evo_common::{
    api::RunKind,
    clock::Timestamp,
    evidence::Evidence,
    ids::RunId,
    messages::{PipelineRunStatus, PipelineStage},
    outcome::{Outcome, Verdict, codes},
    skill,
    stage::{Candidate, LearningOutput},
};
use serde_json::json;

use super::{Coordinator, state::RunState};
use crate::{
    skills::cases,
    store::{self, Connection, events, runs, skills, timers},
};

/// Version of a skill's first package.
const FIRST_VERSION: &str = "0.1.0";

/// What is wrong with Learning's output, if anything is.
pub(super) fn check(output: &LearningOutput) -> Result<(), String> {
    for (index, candidate) in output.candidates.iter().enumerate() {
        if !skill::is_valid_name(&candidate.name) {
            return Err(format!(
                "candidates[{index}].name is {:?}: a skill's name is 1 to 64 of [a-z0-9-]",
                candidate.name
            ));
        }
    }
    Ok(())
}

/// How a candidate starts.
struct Start {
    state: RunState,
    look: u32,
    version: String,
    /// What earlier looks at the same definition measured.
    evidence: Option<Evidence>,
}

impl Coordinator {
    /// Makes a child run of every candidate; gives how many of them have a way to go.
    pub(super) async fn fan_out(
        &self,
        connection: &Connection,
        now: Timestamp,
        cycle: &runs::Run,
        output: &LearningOutput,
    ) -> store::Result<u32> {
        let mut open = 0;
        let mut seen = HashSet::new();
        for candidate in &output.candidates {
            let candidate = &*self.with_kept_name(connection, candidate).await?;
            let start = if seen.insert(candidate.name.clone()) {
                self.start_of(connection, now, candidate).await?
            } else {
                ended(Outcome::discarded(
                    codes::DUPLICATE,
                    "another candidate of this cycle has the same name",
                ))
            };
            open += u32::from(start.state.status() == PipelineRunStatus::Running);
            self.start_child(connection, now, cycle, candidate, &start).await?;
        }
        let payload = json!({
            "candidates": output.candidates.len(),
            "open": open,
            "failed_sources": output.failed_sources,
        });
        let id = Some(cycle.run_id.as_str());
        events::append(connection, now, "cycle.fanned_out", id, None, &payload).await?;
        Ok(open)
    }

    /// A skill keeps its name: when a model named a candidate whose operation has a skill by now,
    /// because another cycle was faster, that skill's name counts.
    async fn with_kept_name<'c>(
        &self,
        connection: &Connection,
        candidate: &'c Candidate,
    ) -> store::Result<Cow<'c, Candidate>> {
        let is_name = |field: &String| field == "name";
        let by_model = candidate.written.iter().any(|text| text.fields.iter().any(is_name));
        if !by_model || skills::known(connection, &candidate.name).await?.is_some() {
            return Ok(Cow::Borrowed(candidate));
        }
        let kept = skills::name_at(connection, &candidate.source, &candidate.locator).await?;
        Ok(match kept {
            Some(name) => Cow::Owned(Candidate { name, ..candidate.clone() }),
            None => Cow::Borrowed(candidate),
        })
    }

    /// Compares a candidate with what is known of its skill.
    async fn start_of(
        &self,
        connection: &Connection,
        now: Timestamp,
        candidate: &Candidate,
    ) -> store::Result<Start> {
        let fresh = |version: String, look, evidence| Start {
            state: RunState::start(PipelineStage::Building, now),
            look,
            version,
            evidence,
        };
        let Some(known) = skills::known(connection, &candidate.name).await? else {
            return Ok(fresh(FIRST_VERSION.to_owned(), 1, None));
        };
        if known.source != candidate.source {
            return Ok(ended(Outcome::discarded(
                codes::DUPLICATE,
                format!(
                    "the name belongs to a skill of the source {:?}; rename one of the sources",
                    known.source
                ),
            )));
        }
        let wishes = skills::state::wishes(connection, &candidate.name).await?.unwrap_or_default();
        if wishes.is_archived() || wishes.frozen {
            let (code, what, how) = if wishes.frozen {
                (codes::FROZEN, "frozen", "unfreeze")
            } else {
                (codes::ARCHIVED, "in the archive", "restore")
            };
            let name = &candidate.name;
            let reason =
                format!("the skill is {what}; `evo skill {how} {name}` lets new versions in");
            return Ok(ended(Outcome::held(code, reason)));
        }
        let channels = skills::pointers::load(connection, &candidate.name).await?;
        if let Some(canary) = &channels.canary
            && known.fingerprint == candidate.fingerprint
            && known.decision == Some(Verdict::Active)
        {
            return Ok(ended(Outcome::discarded(
                codes::DUPLICATE,
                format!(
                    "version {} of the same definition gets {} % of the calls already",
                    canary.version.version, canary.share
                ),
            )));
        }
        if let Some((incumbent, fingerprint)) = &known.active
            && *fingerprint == candidate.fingerprint
        {
            return Ok(ended(Outcome::discarded(
                codes::DUPLICATE,
                format!("version {} of the same definition is active already", incumbent.version),
            )));
        }
        let earlier = runs::load(connection, &known.run_id).await?;
        if let Some(run) = &earlier
            && run.state.status() == PipelineRunStatus::Running
        {
            return Ok(ended(Outcome::discarded(
                codes::DUPLICATE,
                format!("run {} about the same skill has not ended", run.run_id),
            )));
        }
        let same = known.fingerprint == candidate.fingerprint;
        if same && let Some(outcome) = waits_for_a_person(&known, &wishes) {
            return Ok(ended(outcome));
        }
        if let (true, Some(Verdict::Discarded), Some(at)) = (same, known.decision, known.decided_at)
            && now.ms_since(at) < self.parts.config.remember_discarded_ms
        {
            return Ok(ended(Outcome::discarded(
                codes::DUPLICATE,
                format!(
                    "the same definition was discarded at {} ({}): {}",
                    at.to_rfc3339(),
                    known.code.as_deref().unwrap_or("no code"),
                    known.reason.as_deref().unwrap_or("no reason"),
                ),
            )));
        }
        let version = match &known.active {
            Some((incumbent, _)) => {
                let newest = skills::newest_number(connection, &candidate.name).await?;
                next_version(newest.as_deref().unwrap_or(&incumbent.version))
            }
            None => FIRST_VERSION.to_owned(),
        };
        let undecided = same && known.decision != Some(Verdict::Discarded);
        let measured = earlier.filter(|_| undecided);
        match measured.and_then(|run| run.evidence.map(|evidence| (run.version, evidence))) {
            Some((version, evidence)) => {
                // The evidence gathered so far counts; starting anew would be a second chance.
                timers::clear(connection, &known.run_id).await?;
                Ok(fresh(version, known.look + 1, Some(evidence)))
            }
            None => Ok(fresh(version, 1, None)),
        }
    }

    async fn start_child(
        &self,
        connection: &Connection,
        now: Timestamp,
        cycle: &runs::Run,
        candidate: &Candidate,
        start: &Start,
    ) -> store::Result<()> {
        let run_id = RunId::new();
        let run_id = run_id.as_str();
        let without_cases = Candidate { cases: Vec::new(), ..candidate.clone() };
        let new = runs::NewRun {
            run_id,
            parent_run_id: Some(&cycle.run_id),
            kind: RunKind::Candidate,
            candidate: Some(&without_cases),
            source: self.parts.sources.get(&candidate.source),
            trigger: &cycle.trigger,
            look: start.look,
            version: &start.version,
            artifact_id: "",
            evidence: start.evidence.as_ref(),
            state: &start.state,
            priority: cycle.priority,
            paused: cycle.paused,
            forked_from: None,
            once: None,
            boots: self.parts.store.boots(),
            traced: true,
        };
        runs::insert(connection, now, new).await?;
        let id = Some(run_id);
        let payload = json!({
            "name": candidate.name,
            "locator": candidate.locator,
            "parent_run_id": cycle.run_id,
            "past": candidate.past,
        });
        events::append(connection, now, "run.started", id, None, &payload).await?;
        if let RunState::Ended { status, outcome } = &start.state {
            let payload = json!({"name": candidate.name, "status": status, "outcome": outcome});
            events::append(connection, now, "run.ended", id, None, &payload).await?;
            return Ok(());
        }
        skills::start_candidate(connection, now, candidate, run_id, start.look).await?;
        let ids: Vec<&str> = candidate.cases.iter().map(|case| case.case_id.as_str()).collect();
        let splits = cases::split(&ids, candidate.deterministic, self.parts.store.split_key());
        let cases: Vec<_> = candidate.cases.iter().cloned().zip(splits).collect();
        store::cases::insert(connection, run_id, &cases).await
    }

    /// A held run's next look: a new run that goes on from Evaluation with everything before.
    pub(super) async fn look_again(
        &self,
        connection: &Connection,
        now: Timestamp,
        held: &runs::Run,
    ) -> store::Result<()> {
        timers::clear(connection, &held.run_id).await?;
        let Some(candidate) = &held.candidate else { return Ok(()) };
        let known = skills::known(connection, &candidate.name).await?;
        // A newer run about this skill has taken over.
        if known.is_none_or(|known| known.run_id != held.run_id) {
            return Ok(());
        }
        let run_id = RunId::new();
        let run_id = run_id.as_str();
        let look = held.look + 1;
        let new = runs::NewRun {
            run_id,
            parent_run_id: Some(&held.run_id),
            kind: RunKind::Candidate,
            candidate: Some(candidate),
            source: held.source.as_ref(),
            trigger: &held.trigger,
            look,
            version: &held.version,
            artifact_id: &held.artifact_id,
            evidence: held.evidence.as_ref(),
            state: &RunState::start(PipelineStage::Evaluation, now),
            priority: held.priority,
            paused: false,
            forked_from: None,
            once: None,
            boots: self.parts.store.boots(),
            traced: true,
        };
        runs::insert(connection, now, new).await?;
        runs::copy_stages(connection, &held.run_id, run_id, PipelineStage::Evaluation).await?;
        store::cases::copy(connection, &held.run_id, run_id).await?;
        skills::start_candidate(connection, now, candidate, run_id, look).await?;
        let payload = json!({
            "name": candidate.name,
            "locator": candidate.locator,
            "look": look,
            "parent_run_id": held.run_id,
        });
        events::append(connection, now, "run.started", Some(run_id), None, &payload).await?;
        Ok(())
    }
}

/// What passed and only waits for a person is not measured once more, and what a person said no to is
/// not asked again.
fn waits_for_a_person(known: &skills::Known, wishes: &skills::state::Wishes) -> Option<Outcome> {
    let code = known.code.as_deref()?;
    let reason = known.reason.as_deref().unwrap_or("no reason");
    match code {
        codes::NEEDS_APPROVAL => Some(Outcome::held(code, reason)),
        codes::PINNED if wishes.pinned.is_some() => Some(Outcome::held(code, reason)),
        codes::DENIED => Some(Outcome::discarded(
            codes::DUPLICATE,
            format!("a person said no to the same definition: {reason}"),
        )),
        _ => None,
    }
}

fn ended(outcome: Outcome) -> Start {
    Start {
        state: RunState::Ended { status: PipelineRunStatus::Completed, outcome: Some(outcome) },
        look: 1,
        version: String::new(),
        evidence: None,
    }
}

/// The incumbent's version with its patch number raised.
fn next_version(version: &str) -> String {
    match semver::Version::parse(version) {
        Ok(mut version) => {
            version.patch += 1;
            version.pre = semver::Prerelease::EMPTY;
            version.build = semver::BuildMetadata::EMPTY;
            version.to_string()
        }
        Err(_) => FIRST_VERSION.to_owned(),
    }
}
