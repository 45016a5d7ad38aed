//! What somebody wants of Learning, from asking to the answer. Everything is done in the caller's
//! transaction: the request, the step in its history, the event.
//!
//! A request is `open` until a cycle makes a candidate of it, `taken` while a run is about it, and then
//! `answered`, `rejected` with the reason, or `open` again when the run said nothing about it. When it was
//! about what is in use already, and that is not what is wanted, a cycle of its own follows.

mod ask;
#[cfg(test)]
mod tests;

use evo_common::{
    api::{RequestAnswer, RequestStatus},
    case::{Case, Split},
    clock::Timestamp,
    outcome::{Outcome, Verdict, codes},
    stage::{CandidateKind, Incumbent, RequestKind, SkillRequest},
};
use serde_json::{Value, json};

pub(crate) use ask::{Error, ask, cancel};

use super::{demand, origin};
use crate::{
    failpoints,
    store::{
        self, Connection, events,
        requests::{self, Change, NewRequest, Raise, Request, Step},
        runs,
    },
};

/// Tries that come to nothing, after which a request is rejected.
const MAX_TRIES: u32 = 3;
/// Requests that Learning gets at most.
const MAX_TOLD: u32 = 50;
/// Bytes of examples that a dispatch carries at most.
const MAX_TOLD_BYTES: usize = 1 << 20;

/// What a request goes on with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// With whatever the next cycle makes of it, if it is not over.
    Nothing,
    /// With a cycle of its own, at once: what is in use does not do it, and something else may.
    Cycle,
}

/// What a repair of this version has in common with every other one.
pub(crate) fn same_repair(skill: &str, artifact_id: &str) -> String {
    format!("repair {skill} {artifact_id}")
}

/// Failing calls want something.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'w> {
    pub(crate) kind: RequestKind,
    /// `telemetry` or `rollback`.
    pub(crate) origin: &'w str,
    pub(crate) text: &'w str,
    pub(crate) skill: Option<&'w str>,
    pub(crate) artifact_id: Option<&'w str>,
    pub(crate) cluster: Option<&'w str>,
    pub(crate) same: &'w str,
    /// How many calls failed.
    pub(crate) weight: f64,
    /// For so long it is not wanted again after it was rejected.
    pub(crate) rest_ms: u64,
}

/// Writes down what failing calls want; the same once more raises its demand. What was rejected is
/// wanted again after a rest, what a person cancelled never. Gives the request that is open now.
pub(crate) async fn want(
    connection: &Connection,
    now: Timestamp,
    wanted: Wanted<'_>,
) -> store::Result<Option<String>> {
    let Wanted { kind, origin, text, skill, artifact_id, cluster, same, weight, rest_ms } = wanted;
    let Some(known) = requests::newest_same(connection, same).await? else {
        let rank = demand::first(weight, now);
        let new = NewRequest { kind, origin, text, skill, artifact_id, cluster, same, rank };
        let request_id = requests::insert(connection, now, new).await?;
        let step = Step { action: "opened", reason: Some(text), ..Step::default() };
        tell(
            connection,
            now,
            &request_id,
            step,
            &json!({"kind": kind, "origin": origin, "text": text}),
        )
        .await?;
        failpoints::passed("after a request");
        return Ok(Some(request_id));
    };
    let rested = now.ms_since(known.updated_at) >= rest_ms;
    match known.status {
        RequestStatus::Cancelled => return Ok(None),
        RequestStatus::Rejected if !rested => return Ok(None),
        _ => {}
    }
    let rank = demand::more(known.rank, weight, now);
    // A person's words stay.
    let text = (known.origin != "person").then_some(text);
    let raise = Raise { rank, text, cluster, origin: None };
    requests::raise(connection, now, &known.request_id, raise).await?;
    if !known.status.is_open() {
        let change = Change {
            status: RequestStatus::Open,
            tries: 0,
            over_budget: false,
            run_id: None,
            answer: None,
            code: None,
            reason: None,
        };
        requests::save(connection, now, &known.request_id, change).await?;
        let step = Step { action: "reopened", reason: text, ..Step::default() };
        tell(connection, now, &known.request_id, step, &json!({})).await?;
    }
    Ok(Some(known.request_id))
}

/// Writes a step of a request's way, and its event.
async fn tell(
    connection: &Connection,
    now: Timestamp,
    request_id: &str,
    step: Step<'_>,
    more: &Value,
) -> store::Result<()> {
    requests::note(connection, now, request_id, step).await?;
    let mut payload = json!({
        "request_id": request_id, "run_id": step.run_id, "by": step.actor, "code": step.code,
        "reason": step.reason,
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        payload[key] = value.clone();
    }
    let kind = format!("request.{}", step.action);
    events::append(connection, now, &kind, step.run_id, None, &payload).await?;
    Ok(())
}

/// Open requests as Learning gets them, without what is held out.
pub(crate) async fn for_learning(
    connection: &Connection,
    now: Timestamp,
    trigger: &Value,
) -> store::Result<Vec<SkillRequest>> {
    let wanted = match ids_of(trigger) {
        Some(ids) => {
            let mut wanted = Vec::new();
            for id in ids.into_iter().take(MAX_TOLD as usize) {
                let request = requests::load(connection, id).await?;
                wanted.extend(request.filter(|request| request.status == RequestStatus::Open));
            }
            wanted
        }
        None if !takes_requests(trigger) => return Ok(Vec::new()),
        None => requests::wanted(connection, MAX_TOLD).await?,
    };
    let mut told = Vec::new();
    let mut bytes = 0;
    for request in wanted {
        let examples = requests::examples(connection, &request.request_id).await?;
        let examples: Vec<Case> = examples
            .into_iter()
            .filter(|(_, split)| *split != Split::Holdout)
            .map(|(case, _)| case)
            .collect();
        bytes += store::row::to_json(&examples).len();
        // The first one always fits: no request is larger.
        if bytes > MAX_TOLD_BYTES && !told.is_empty() {
            break;
        }
        let origin = match (request.kind, &request.skill, &request.artifact_id) {
            (RequestKind::Repair, Some(skill), Some(artifact_id)) => {
                origin::of_version(connection, skill, artifact_id).await?
            }
            _ => None,
        };
        let tried = requests::tried(connection, &request.request_id).await?;
        told.push(SkillRequest {
            tried,
            demand: demand::at(request.rank, now),
            fingerprint: origin.as_ref().and_then(origin::fingerprint).map(str::to_owned),
            request_id: request.request_id,
            kind: request.kind,
            text: request.text,
            examples,
            skill: request.skill,
            artifact_id: request.artifact_id,
            cluster: request.cluster,
        });
    }
    Ok(told)
}

/// The requests that a cycle is about, when it is about certain ones.
pub(crate) fn ids_of(trigger: &Value) -> Option<Vec<&str>> {
    let ids = trigger.get("requests")?.as_array()?;
    Some(ids.iter().filter_map(Value::as_str).collect())
}

/// Whether a cycle is about requests at all: one that is limited to some sources names them.
fn takes_requests(trigger: &Value) -> bool {
    let sources = trigger.get("sources").and_then(Value::as_array);
    sources
        .is_none_or(|names| names.iter().any(|name| name == evo_common::config::sources::REQUESTS))
}

/// A run about a request begins.
pub(crate) async fn taken(
    connection: &Connection,
    now: Timestamp,
    request: &Request,
    run_id: &str,
    name: &str,
) -> store::Result<()> {
    let request_id = request.request_id.as_str();
    requests::save_run(connection, now, request_id, run_id, name, "running", None).await?;
    let change = Change {
        status: RequestStatus::Taken,
        tries: request.tries,
        over_budget: false,
        run_id: Some(run_id),
        answer: None,
        code: None,
        reason: None,
    };
    requests::save(connection, now, request_id, change).await?;
    let step = Step { action: "taken", run_id: Some(run_id), ..Step::default() };
    tell(connection, now, request_id, step, &json!({"name": name})).await?;
    failpoints::passed("after a request was taken");
    Ok(())
}

/// A cycle had a request before it and made nothing of it: it stays open, and what was in the way is
/// kept.
pub(crate) async fn passed_over(
    connection: &Connection,
    now: Timestamp,
    request_id: &str,
    cycle_id: &str,
    code: &str,
    reason: &str,
) -> store::Result<()> {
    let Some(request) = requests::load(connection, request_id).await? else { return Ok(()) };
    if request.status != RequestStatus::Open {
        return Ok(());
    }
    let over_budget = request.over_budget || code == codes::OVER_BUDGET;
    // The same every hour is told once.
    let news = request.code.as_deref() != Some(code) || request.reason.as_deref() != Some(reason);
    let change = Change {
        status: RequestStatus::Open,
        tries: request.tries,
        over_budget,
        run_id: None,
        answer: None,
        code: Some(code),
        reason: Some(reason),
    };
    requests::save(connection, now, request_id, change).await?;
    if news {
        let step = Step {
            action: "passed_over",
            run_id: Some(cycle_id),
            code: Some(code),
            reason: Some(reason),
            ..Step::default()
        };
        tell(connection, now, request_id, step, &json!({})).await?;
    }
    Ok(())
}

/// A candidate whose run ended before it began.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AtOnce<'a> {
    pub(crate) run_id: &'a str,
    pub(crate) name: &'a str,
    pub(crate) outcome: &'a Outcome,
    /// Whether it only waits for another run.
    pub(crate) busy: bool,
    /// The version in use that is the same.
    pub(crate) in_use: Option<&'a Incumbent>,
    /// Whether it is made of skills in use.
    pub(crate) reuses: bool,
}

/// The only candidate of an open request ended before it began.
pub(crate) async fn ended_at_once(
    connection: &Connection,
    now: Timestamp,
    request: &Request,
    cycle_id: &str,
    at_once: AtOnce<'_>,
) -> store::Result<Next> {
    let AtOnce { run_id, name, outcome, busy, in_use, reuses } = at_once;
    let id = request.request_id.as_str();
    requests::save_run(connection, now, id, run_id, name, "ended", Some(outcome)).await?;
    if let (Some(version), RequestKind::New) = (in_use, request.kind) {
        let answer = RequestAnswer {
            skill: name.to_owned(),
            version: version.version.clone(),
            artifact_id: version.artifact_id.clone(),
        };
        answered(connection, now, request, run_id, &answer, outcome).await?;
        return Ok(Next::Nothing);
    }
    if busy || outcome.decision != Verdict::Discarded {
        let (code, reason) = (&outcome.code, &outcome.reason);
        passed_over(connection, now, id, cycle_id, code, reason).await?;
        return Ok(Next::Nothing);
    }
    let taken = Request { status: RequestStatus::Taken, ..request.clone() };
    settle(connection, now, &taken, run_id, outcome, reuses).await
}

/// A run of a candidate has ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ended<'e> {
    pub(crate) run_id: &'e str,
    pub(crate) name: &'e str,
    pub(crate) version: &'e str,
    pub(crate) artifact_id: &'e str,
    pub(crate) outcome: &'e Outcome,
    /// Whether a further look at it follows.
    pub(crate) looks_again: bool,
    /// Whether it is made of skills in use.
    pub(crate) reuses: bool,
}

/// What the end of a run means for the request that it is about.
pub(crate) async fn run_ended(
    connection: &Connection,
    now: Timestamp,
    request_id: &str,
    ended: Ended<'_>,
) -> store::Result<Next> {
    let Some(request) = requests::load(connection, request_id).await? else {
        return Ok(Next::Nothing);
    };
    let Ended { run_id, name, outcome, .. } = ended;
    let waits_for_a_person = [codes::NEEDS_APPROVAL, codes::PINNED].contains(&&*outcome.code);
    let waits = outcome.decision == Verdict::Held && (ended.looks_again || waits_for_a_person);
    let state = if waits { "waiting" } else { "ended" };
    requests::save_run(connection, now, request_id, run_id, name, state, Some(outcome)).await?;
    if outcome.decision == Verdict::Active {
        let answer = RequestAnswer {
            skill: name.to_owned(),
            version: ended.version.to_owned(),
            artifact_id: ended.artifact_id.to_owned(),
        };
        answered(connection, now, &request, run_id, &answer, outcome).await?;
        return Ok(Next::Nothing);
    }
    if waits {
        return Ok(Next::Nothing);
    }
    settle(connection, now, &request, run_id, outcome, ended.reuses).await
}

/// A request goes on with a cycle of its own.
pub(crate) async fn goes_on(
    connection: &Connection,
    now: Timestamp,
    request_id: &str,
    cycle_id: &str,
) -> store::Result<()> {
    let step = Step { action: "goes_on", run_id: Some(cycle_id), ..Step::default() };
    tell(connection, now, request_id, step, &json!({})).await?;
    failpoints::passed("after a request went on");
    Ok(())
}

/// A further look at a candidate is a run of its own.
pub(crate) async fn looked_again(
    connection: &Connection,
    now: Timestamp,
    held: &str,
    run_id: &str,
    name: &str,
) -> store::Result<()> {
    let Some((request_id, _)) = requests::of_run(connection, held).await? else { return Ok(()) };
    requests::save_run(connection, now, &request_id, run_id, name, "running", None).await?;
    requests::run_over(connection, held).await
}

/// A person has decided about a version, or nobody has to any more.
pub(crate) async fn decided(
    connection: &Connection,
    now: Timestamp,
    run_id: &str,
    skill: &str,
    version: &evo_common::rollout::VersionRef,
    outcome: &Outcome,
) -> store::Result<()> {
    let Some((request_id, _)) = requests::of_run(connection, run_id).await? else { return Ok(()) };
    let ended = Ended {
        run_id,
        name: skill,
        version: &version.version,
        artifact_id: &version.artifact_id,
        outcome,
        looks_again: false,
        // Whoever says no means the request's way, too.
        reuses: false,
    };
    run_ended(connection, now, &request_id, ended).await?;
    Ok(())
}

/// It is answered, once.
async fn answered(
    connection: &Connection,
    now: Timestamp,
    request: &Request,
    run_id: &str,
    answer: &RequestAnswer,
    outcome: &Outcome,
) -> store::Result<()> {
    if request.status == RequestStatus::Answered || request.status == RequestStatus::Cancelled {
        return Ok(());
    }
    let change = Change {
        status: RequestStatus::Answered,
        tries: request.tries,
        over_budget: false,
        run_id: Some(run_id),
        answer: Some(answer),
        code: Some(&outcome.code),
        reason: Some(&outcome.reason),
    };
    requests::save(connection, now, &request.request_id, change).await?;
    let step = Step {
        action: "answered",
        run_id: Some(run_id),
        code: Some(&outcome.code),
        reason: Some(&outcome.reason),
        ..Step::default()
    };
    tell(connection, now, &request.request_id, step, &json!({"answer": answer})).await?;
    failpoints::passed("after a request was answered");
    Ok(())
}

/// A run about a taken request came to nothing. When no other one is under way, the request is rejected,
/// or open again where the run said nothing about it.
async fn settle(
    connection: &Connection,
    now: Timestamp,
    request: &Request,
    run_id: &str,
    outcome: &Outcome,
    reuses: bool,
) -> store::Result<Next> {
    if request.status != RequestStatus::Taken
        || !requests::open_runs(connection, &request.request_id).await?.is_empty()
    {
        return Ok(Next::Nothing);
    }
    // That what is in use does not do it says nothing about what could be built.
    let goes_on = reuses && outcome.decision == Verdict::Discarded;
    let over_budget = outcome.code == codes::OVER_BUDGET;
    let tries = match outcome.code.as_str() {
        codes::OVER_BUDGET | codes::CANCELLED => request.tries,
        _ if goes_on => request.tries,
        _ => request.tries + 1,
    };
    let discarded = outcome.decision == Verdict::Discarded
        && !was_of_source(connection, request, run_id).await?;
    let rejected = !goes_on && (discarded || tries >= MAX_TRIES);
    let reason = if rejected && !discarded {
        format!("tried {tries} times: {}", outcome.reason)
    } else {
        outcome.reason.clone()
    };
    let change = Change {
        status: if rejected { RequestStatus::Rejected } else { RequestStatus::Open },
        tries,
        over_budget,
        run_id: Some(run_id),
        answer: None,
        code: Some(&outcome.code),
        reason: Some(&reason),
    };
    requests::save(connection, now, &request.request_id, change).await?;
    let step = Step {
        action: if rejected { "rejected" } else { "reopened" },
        run_id: Some(run_id),
        code: Some(&outcome.code),
        reason: Some(&reason),
        ..Step::default()
    };
    tell(connection, now, &request.request_id, step, &json!({})).await?;
    failpoints::passed("after a request was settled");
    Ok(if goes_on { Next::Cycle } else { Next::Nothing })
}

/// Whether the run was about what the source has now in the place of a skill that fails. When that is no
/// better, the skill itself can still be repaired.
async fn was_of_source(
    connection: &Connection,
    request: &Request,
    run_id: &str,
) -> store::Result<bool> {
    if request.kind != RequestKind::Repair {
        return Ok(false);
    }
    let candidate = runs::load(connection, run_id).await?.and_then(|run| run.candidate);
    Ok(candidate.is_some_and(|candidate| candidate.kind != CandidateKind::Repair))
}
