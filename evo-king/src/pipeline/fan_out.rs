//! Learning's candidates become child runs, in the transaction of Learning's result.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashSet},
};

use evo_common::{
    api::{RequestStatus, RunKind, StartRun},
    case::{Case, Split},
    clock::Timestamp,
    config::sources::REQUESTS,
    evidence::Evidence,
    ids::RunId,
    messages::{PipelineRunStatus, PipelineStage},
    outcome::{Outcome, Verdict, codes},
    skill,
    stage::{Candidate, CandidateKind, Incumbent, LearningOutput},
};
use futures_util::future::LocalBoxFuture;
use serde_json::json;

use super::{Coordinator, budget, state::RunState};
use crate::{
    memory::outcomes,
    skills::{cases, origin, requests},
    store::{self, Connection, events, requests::Request, runs, skills, timers},
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
    /// The held run that it goes on with.
    goes_on: Option<String>,
    /// The package that there is already; empty when it has to be built.
    artifact_id: String,
    /// Whether it only waits for another run.
    busy: bool,
    /// The version in use that is the same.
    in_use: Option<Incumbent>,
}

/// What the candidates of a request came to at once.
#[derive(Default)]
struct Answers<'c> {
    /// Requests that a run was started about.
    started: HashSet<String>,
    /// Requests whose candidate ended at once.
    ended: BTreeMap<String, EndedAtOnce<'c>>,
}

/// A candidate that ended before it began.
struct EndedAtOnce<'c> {
    run_id: String,
    candidate: &'c Candidate,
    start: Start,
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
        let mut begun = HashSet::new();
        let wanted = requests_of(connection, output).await?;
        let mut answers = Answers::default();
        let budget = budget::of(self, connection, &cycle.run_id).await?;
        let mut named = Vec::with_capacity(output.candidates.len());
        for candidate in budget.in_order(connection, &wanted, &output.candidates).await? {
            named.push(self.with_kept_name(connection, candidate).await?);
        }
        for candidate in named.iter().map(AsRef::as_ref) {
            let request = candidate.request_id.as_ref().map(|id| (id, wanted.get(id)));
            let mut start = match request {
                _ if candidate.name == REQUESTS => ended(Outcome::discarded(
                    codes::DUPLICATE,
                    "the name is king's own; take another",
                )),
                Some((id, request)) if !is_open(request) => ended(closed(id, request)),
                // It changes nothing of its skill, so it is in nobody's way.
                Some(_) if candidate.kind == CandidateKind::InUse => {
                    start_of_answer(connection, now, candidate).await?
                }
                None if candidate.kind == CandidateKind::InUse => ended(closed("-", None)),
                // One that ends at once, since its definition is in use, leaves the way to a repair.
                _ if begun.contains(&candidate.name) => {
                    busy("another candidate of this cycle has the same name")
                }
                _ => self.start_of(connection, now, candidate).await?,
            };
            if start.is_running()
                && let Some(reason) = budget.stops(candidate, open)
            {
                start = ended(Outcome::held(codes::OVER_BUDGET, reason));
            }
            if start.is_running() {
                open += 1;
                if candidate.kind != CandidateKind::InUse {
                    begun.insert(candidate.name.clone());
                }
            }
            let run_id = self.start_child(connection, now, cycle, candidate, &start).await?;
            let Some((request_id, Some(request))) = request else { continue };
            if start.is_running() {
                requests::taken(connection, now, request, &run_id, &candidate.name).await?;
                answers.started.insert(request_id.clone());
            } else if is_open(Some(request)) {
                let ended = EndedAtOnce { run_id, candidate, start };
                answers.ended.insert(request_id.clone(), ended);
            }
        }
        self.leave_requests(connection, now, cycle, output, &wanted, &answers).await?;
        let payload = json!({
            "candidates": output.candidates.len(),
            "open": open,
            "failed_sources": output.failed_sources,
            "duplicates": output.duplicates,
        });
        let id = Some(cycle.run_id.as_str());
        events::append(connection, now, "cycle.fanned_out", id, None, &payload).await?;
        Ok(open)
    }

    /// What becomes of requests about which no run was started.
    async fn leave_requests(
        &self,
        connection: &Connection,
        now: Timestamp,
        cycle: &runs::Run,
        output: &LearningOutput,
        wanted: &BTreeMap<String, Request>,
        answers: &Answers<'_>,
    ) -> store::Result<()> {
        let cycle_id = cycle.run_id.as_str();
        let ended = answers.ended.iter().filter(|(id, _)| !answers.started.contains(*id));
        for (request_id, EndedAtOnce { run_id, candidate, start }) in ended {
            let (RunState::Ended { outcome: Some(outcome), .. }, Some(request)) =
                (&start.state, wanted.get(request_id))
            else {
                continue;
            };
            let in_use = start.in_use.as_ref();
            let (name, reuses) = (&*candidate.name, candidate.kind.reuses());
            let at_once =
                requests::AtOnce { run_id, name, outcome, busy: start.busy, in_use, reuses };
            let next = requests::ended_at_once(connection, now, request, cycle_id, at_once).await?;
            self.go_on(connection, now, request_id, next).await?;
        }
        let tried = |id: &str| answers.started.contains(id) || answers.ended.contains_key(id);
        for left in output.unanswered.iter().filter(|left| !tried(&left.request_id)) {
            let (id, code, reason) = (&left.request_id, &left.code, &left.reason);
            requests::passed_over(connection, now, id, cycle_id, code, reason).await?;
        }
        let said = |id: &str| output.unanswered.iter().any(|left| left.request_id == id);
        for id in requests::ids_of(&cycle.trigger).unwrap_or_default() {
            if !tried(id) && !said(id) {
                let reason = "Learning made no candidate of it; a builder that could is not there";
                let code = "no_candidate";
                requests::passed_over(connection, now, id, cycle_id, code, reason).await?;
            }
        }
        Ok(())
    }

    /// Starts what a request goes on with.
    pub(super) async fn go_on(
        &self,
        connection: &Connection,
        now: Timestamp,
        request_id: &str,
        next: requests::Next,
    ) -> store::Result<()> {
        if next == requests::Next::Nothing {
            return Ok(());
        }
        let trigger = json!({"kind": "learn", "sources": [REQUESTS], "requests": [request_id]});
        let start = StartRun { trigger, ..StartRun::default() };
        // Boxed because a run that ends may lead here.
        let started: LocalBoxFuture<'_, _> = Box::pin(self.start_within(connection, &start));
        let started = started.await.map_err(|error| match error {
            super::Error::Store(error) => error,
            other => store::Error::Corrupt(other.to_string()),
        })?;
        requests::goes_on(connection, now, request_id, &started.run_id).await
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
            goes_on: None,
            artifact_id: String::new(),
            busy: false,
            in_use: None,
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
            // A repair waits for what becomes of it.
            return Ok(busy(&format!(
                "version {} of the same definition gets {} % of the calls already",
                canary.version.version, canary.share
            )));
        }
        if let Some((incumbent, fingerprint)) = &known.active
            && *fingerprint == candidate.fingerprint
        {
            let reason =
                format!("version {} of the same definition is active already", incumbent.version);
            let outcome = Outcome::discarded(codes::DUPLICATE, reason);
            return Ok(Start { in_use: Some(incumbent.clone()), ..ended(outcome) });
        }
        let earlier = runs::load(connection, &known.run_id).await?;
        if let Some(run) = &earlier
            && run.state.status() == PipelineRunStatus::Running
        {
            return Ok(busy(&format!("run {} about the same skill has not ended", run.run_id)));
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
                let goes_on = Some(known.run_id.clone());
                Ok(Start { goes_on, ..fresh(version, known.look + 1, Some(evidence)) })
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
    ) -> store::Result<String> {
        let run_id = RunId::new();
        let run_id = run_id.as_str();
        if let Some(held) = &start.goes_on {
            timers::clear(connection, held).await?;
        }
        let mut without_cases = Candidate { cases: Vec::new(), ..candidate.clone() };
        if let Some(version) = broken_version(connection, candidate).await?
            && let Some(of) =
                origin::of_version(connection, &candidate.name, &version.at.artifact_id).await?
            && let Some(definition) = without_cases.definition.as_object_mut()
        {
            // Its cases may refer to the schema that this declares.
            definition.entry("of").or_insert(of);
        }
        // A skill may be from a source that is not configured (any more).
        let made_with = match candidate.kind {
            CandidateKind::InUse => {
                let (skill, made) = (&candidate.name, start.artifact_id.as_str());
                let version = skills::state::version(connection, skill, made).await?;
                match version {
                    Some(version) => runs::load(connection, &version.run_id).await?,
                    None => None,
                }
                .and_then(|run| run.source)
            }
            _ => None,
        };
        let new = runs::NewRun {
            run_id,
            parent_run_id: Some(&cycle.run_id),
            kind: RunKind::Candidate,
            candidate: Some(&without_cases),
            source: self.parts.sources.get(&candidate.source).or(made_with.as_ref()),
            trigger: &cycle.trigger,
            look: start.look,
            version: &start.version,
            artifact_id: &start.artifact_id,
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
            if let Some(outcome) = outcome.as_ref().filter(|o| o.code == codes::OVER_BUDGET) {
                outcomes::remember(connection, now, run_id, candidate, outcome).await?;
            }
            return Ok(run_id.to_owned());
        }
        if candidate.kind != CandidateKind::InUse {
            skills::start_candidate(connection, now, candidate, run_id, start.look).await?;
        }
        let cases = self.cases_of(connection, candidate).await?;
        store::cases::insert(connection, run_id, &cases).await?;
        Ok(run_id.to_owned())
    }

    /// A candidate's cases, and which of them builders may see. What is held out of a request was
    /// decided when it was asked for, and Learning never saw it. A repair is tested with the cases of
    /// the version that it repairs, too.
    async fn cases_of(
        &self,
        connection: &Connection,
        candidate: &Candidate,
    ) -> store::Result<Vec<(Case, Split)>> {
        let mut all = match &candidate.request_id {
            Some(request_id) => store::requests::examples(connection, request_id).await?,
            None => Vec::new(),
        };
        let asked = all.len();
        let is_asked = |all: &[(Case, Split)], case: &Case| {
            let mut asked = all.iter().take(asked);
            asked.any(|(known, _)| known.case_id == case.case_id || known.input == case.input)
        };
        let mut own = candidate.cases.clone();
        if let Some(version) = broken_version(connection, candidate).await? {
            let (train, holdout) = store::cases::of_run(connection, &version.run_id).await?;
            for case in train.iter().chain(holdout.iter().filter(|case| !train.contains(case))) {
                let split = match (train.contains(case), holdout.contains(case)) {
                    // What served both parts is split now: a model could learn it by heart.
                    (true, true) => {
                        own.push(case.clone());
                        continue;
                    }
                    (true, false) => Split::Train,
                    _ => Split::Holdout,
                };
                if !is_asked(&all, case) {
                    all.push((case.clone(), split));
                }
            }
        }
        own.retain(|case| {
            let known = all.iter().any(|(known, _)| known.case_id == case.case_id);
            !known && !is_asked(&all, case)
        });
        let ids: Vec<&str> = own.iter().map(|case| case.case_id.as_str()).collect();
        let splits = cases::split(&ids, candidate.deterministic, self.parts.store.split_key());
        all.extend(own.into_iter().zip(splits));
        Ok(all)
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
        let is_answer = candidate.kind == CandidateKind::InUse;
        let known = skills::known(connection, &candidate.name).await?;
        // A newer run about this skill has taken over.
        if !is_answer && known.is_none_or(|known| known.run_id != held.run_id) {
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
        if !is_answer {
            skills::start_candidate(connection, now, candidate, run_id, look).await?;
        }
        let payload = json!({
            "name": candidate.name,
            "locator": candidate.locator,
            "look": look,
            "parent_run_id": held.run_id,
        });
        events::append(connection, now, "run.started", Some(run_id), None, &payload).await?;
        requests::looked_again(connection, now, &held.run_id, run_id, &candidate.name).await
    }
}

impl Start {
    fn is_running(&self) -> bool {
        self.state.status() == PipelineRunStatus::Running
    }
}

/// The version that a candidate repairs.
async fn broken_version(
    connection: &Connection,
    candidate: &Candidate,
) -> store::Result<Option<skills::state::Version>> {
    let Some(request_id) = candidate.request_id.as_ref() else { return Ok(None) };
    let request = store::requests::load(connection, request_id).await?;
    let version = request.and_then(|request| request.skill.zip(request.artifact_id));
    match version {
        Some((skill, artifact_id))
            if candidate.kind == CandidateKind::Repair && skill == candidate.name =>
        {
            skills::state::version(connection, &skill, &artifact_id).await
        }
        _ => Ok(None),
    }
}

/// The requests that candidates answer, as they are now.
async fn requests_of(
    connection: &Connection,
    output: &LearningOutput,
) -> store::Result<BTreeMap<String, Request>> {
    let mut found = BTreeMap::new();
    for id in output.candidates.iter().filter_map(|candidate| candidate.request_id.as_ref()) {
        if !found.contains_key(id)
            && let Some(request) = store::requests::load(connection, id).await?
        {
            found.insert(id.clone(), request);
        }
    }
    Ok(found)
}

fn is_open(request: Option<&Request>) -> bool {
    request.is_some_and(|request| request.status == RequestStatus::Open)
}

fn closed(request_id: &str, request: Option<&Request>) -> Outcome {
    let reason = match request {
        Some(request) => format!("the request {request_id} is {}", request.status.as_str()),
        None => format!("there is no request {request_id}"),
    };
    Outcome::discarded(codes::REQUEST_CLOSED, reason)
}

fn busy(reason: &str) -> Start {
    Start { busy: true, ..ended(Outcome::discarded(codes::DUPLICATE, reason)) }
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
        goes_on: None,
        artifact_id: String::new(),
        busy: false,
        in_use: None,
    }
}

/// A skill in use that may be what a request asks for begins with Evaluation, as it is.
async fn start_of_answer(
    connection: &Connection,
    now: Timestamp,
    candidate: &Candidate,
) -> store::Result<Start> {
    let said = candidate.definition["artifact_id"].as_str().unwrap_or_default();
    let known = skills::known(connection, &candidate.name).await?;
    let of_source = known.filter(|known| known.source == candidate.source);
    let in_use = of_source.and_then(|known| known.active).map(|(incumbent, _)| incumbent);
    let Some(in_use) = in_use.filter(|in_use| in_use.artifact_id == said) else {
        let reason = format!("{} is not in use in the version that was tried", candidate.name);
        return Ok(ended(Outcome::held(codes::NOT_IN_USE, reason)));
    };
    Ok(Start {
        state: RunState::start(PipelineStage::Evaluation, now),
        version: in_use.version,
        artifact_id: in_use.artifact_id,
        ..ended(Outcome::held(codes::NOT_IN_USE, ""))
    })
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
