//! Which versions of a skill are in use, and what moves them: decisions of runs, reported calls, time.
//! Everything is done in the caller's transaction: the pointers, the row of the skill's history, the
//! event, what is to be told to runners, the timer.
//!
//! What is active is replaced and never taken away, unless the skill goes to the archive.

use std::collections::BTreeSet;

use evo_common::{
    api::RiskClass,
    clock::Timestamp,
    evidence::Evidence,
    messages::{ConfigNotice, SkillCall, SkillResult},
    outcome::{Outcome, codes},
    rollout::VersionRef,
};
use serde_json::json;

use super::{
    approval::{self, Facts},
    canary::{self, Progress, Step},
    monitor::{Badness, Finding, Monitor, Observation},
    repair, requests, telemetry,
};
use crate::{
    config::{Failing, Leave, SkillsConfig, TelemetryConfig},
    failpoints,
    store::{
        self, Connection, events, outbox,
        skills::{
            approvals, live,
            pointers::{self, Activation, Canary, Channels},
            state, timers, views,
        },
    },
};

const MS_PER_MINUTE: i64 = 60_000;

/// A change of what is in use.
pub(super) struct Move<'m> {
    pub(super) skill: &'m str,
    /// `activated`, `canary`, `advanced`, …; the event is called `skill.<action>`.
    pub(super) action: &'m str,
    /// The version that it is about.
    pub(super) version: &'m VersionRef,
    /// Who, when it was not king.
    pub(super) actor: Option<&'m str>,
    pub(super) reason: &'m str,
}

/// Writes a change of what is in use, with everything that belongs to it.
pub(super) async fn apply(
    connection: &Connection,
    now: Timestamp,
    before: &Channels,
    after: &Channels,
    change: &Move<'_>,
) -> store::Result<()> {
    let Move { skill, action, version, actor, reason } = *change;
    failpoints::passed("before a change of a skill");
    pointers::save(connection, skill, before, after).await?;
    let channel = after.of(&version.artifact_id).filter(|channel| *channel != "previous");
    let share = match (&after.canary, channel) {
        (Some(canary), Some("canary")) => canary.share,
        (_, Some(_)) => 100,
        (_, None) => 0,
    };
    let channel = channel.unwrap_or("none");
    let activation = Activation { skill, version, channel, share, action, actor, reason };
    pointers::record(connection, now, activation).await?;
    if let Some(active) = &after.active {
        state::in_use(connection, now, skill, active).await?;
    }
    tell(connection, now, after, change).await?;
    if after.canary.is_none() {
        timers::set(connection, skill, None).await?;
    }
    let digest = pointers::digest(connection).await?;
    let notice = json!(ConfigNotice::new("skills", &digest));
    let kind = outbox::SKILLS_CHANGED;
    outbox::push(connection, now, kind, kind, None, &notice).await?;
    failpoints::passed("after a change of a skill");
    Ok(())
}

/// The event of a change: what was done, and what is in use now.
async fn tell(
    connection: &Connection,
    now: Timestamp,
    after: &Channels,
    change: &Move<'_>,
) -> store::Result<()> {
    let Move { skill, action, version, actor, reason } = *change;
    let made = state::version(connection, skill, &version.artifact_id).await?;
    let payload = json!({
        "name": skill, "action": action,
        "version": version.version, "artifact_id": version.artifact_id,
        "active": after.active,
        "canary": after.canary.as_ref().map(|canary| json!({
            "artifact_id": canary.version.artifact_id, "version": canary.version.version,
            "share": canary.share,
        })),
        "previous": after.previous,
        "by": actor, "reason": reason,
    });
    let run_id = made.as_ref().map(|made| made.run_id.as_str());
    let kind = format!("skill.{action}");
    events::append(connection, now, &kind, run_id, None, &payload).await?;
    Ok(())
}

/// What is known of a version that has just passed.
pub(crate) struct Passed<'p> {
    pub(crate) skill: &'p str,
    pub(crate) artifact_id: &'p str,
    pub(crate) version: &'p str,
    pub(crate) run_id: &'p str,
    pub(crate) evidence: &'p Evidence,
    /// Classes of all that a call of it could do.
    pub(crate) classes: &'p BTreeSet<RiskClass>,
    pub(crate) outcome: Outcome,
}

/// Whether a version that passed may go on by itself: what a person wants of the skill, and what the
/// policy says about its kind, can hold or end it. Nothing here makes an outcome better.
pub(crate) async fn may_go_on(
    connection: &Connection,
    now: Timestamp,
    config: &SkillsConfig,
    passed: Passed<'_>,
) -> store::Result<Outcome> {
    let Passed { skill, artifact_id, outcome, .. } = passed;
    state::passed(connection, skill, artifact_id).await?;
    let channels = pointers::load(connection, skill).await?;
    let incumbent = channels.active.as_ref().map(|active| active.artifact_id.as_str());
    let measured = passed.evidence.incumbent.as_deref();
    if measured.is_some() && measured != incumbent {
        let reason = "the version in use is not the one that it was compared with; it is compared \
                      again";
        return Ok(Outcome::held(codes::NEED_MORE_EVIDENCE, reason));
    }
    let wishes = state::wishes(connection, skill).await?.unwrap_or_default();
    let held = |code: &str, what: &str, how: &str| {
        let reason = format!("{} {what}; {how}", outcome.reason);
        Ok(Outcome::held(code, reason))
    };
    if wishes.is_archived() {
        let how = format!("`evo skill restore {skill}` brings it back");
        return held(codes::ARCHIVED, "The skill is in the archive", &how);
    }
    if let Some(pinned) = &wishes.pinned
        && pinned != artifact_id
    {
        let how = format!(
            "`evo skill unpin {skill}` and `evo skill activate {skill} {}` put it into use",
            passed.version
        );
        return held(codes::PINNED, "The skill is pinned to another version", &how);
    }
    if wishes.frozen {
        let how = format!("`evo skill unfreeze {skill}` lets new versions in");
        return held(codes::FROZEN, "The skill is frozen", &how);
    }
    let findings = views::findings(connection, passed.run_id).await?;
    let overruled = approvals::overruled(connection, artifact_id).await?;
    let facts = Facts { classes: passed.classes, findings: &findings, overruled: &overruled };
    let risk = facts.risk();
    match approval::decide(config.approval, &facts) {
        Leave::Auto => Ok(outcome),
        Leave::Ask => {
            let reason = outcome.reason.as_str();
            let new = approvals::NewApproval {
                skill,
                artifact_id,
                version: passed.version,
                run_id: passed.run_id,
                risk,
                incumbent,
                reason,
            };
            waits_no_more(connection, now, skill, "a newer version waits").await?;
            approvals::ask(connection, now, new).await?;
            failpoints::passed("after a question for a person");
            let payload = json!({
                "name": skill, "version": passed.version, "artifact_id": artifact_id, "risk": risk,
            });
            let id = Some(passed.run_id);
            events::append(connection, now, "skill.needs_approval", id, None, &payload).await?;
            let what = format!("A skill of the class `{}` needs a person", risk.as_str());
            let how = format!(
                "`evo skill approve {skill} --reason …` or `evo skill deny {skill} --reason …`"
            );
            held(codes::NEEDS_APPROVAL, &what, &how)
        }
        Leave::Deny => {
            let why = match facts.danger() {
                Some(finding) => format!(
                    "the scan found {:?} in {} and nobody has overruled it: `evo skill overrule \
                     {skill} {} --reason …`",
                    finding.code, finding.file, finding.code
                ),
                None => format!(
                    "king.toml denies skills of the class `{}` ([skills.approval])",
                    risk.as_str()
                ),
            };
            let reason = format!("{} Not put into use: {why}", outcome.reason);
            Ok(Outcome::discarded(codes::DENIED_BY_POLICY, reason))
        }
    }
}

/// A version that waits for a person waits no more.
async fn waits_no_more(
    connection: &Connection,
    now: Timestamp,
    skill: &str,
    why: &str,
) -> store::Result<()> {
    let newest = approvals::newest(connection, skill).await?;
    let Some(waits) = newest.filter(|newest| newest.status == "pending") else { return Ok(()) };
    approvals::supersede(connection, now, skill, why).await?;
    let version = VersionRef { artifact_id: waits.artifact_id, version: waits.version };
    let outcome = Outcome::held("superseded", why);
    requests::decided(connection, now, &waits.run_id, skill, &version, &outcome).await
}

/// A version may go into use: at once when it is the first one, else beside the one in use, on a part
/// of the calls. Says in which way.
pub(crate) async fn start(
    connection: &Connection,
    now: Timestamp,
    config: &SkillsConfig,
    skill: &str,
    version: &VersionRef,
    actor: Option<&str>,
    reason: &str,
) -> store::Result<Option<u8>> {
    let before = pointers::load(connection, skill).await?;
    if before.active.as_ref() == Some(version) {
        return Ok(None);
    }
    state::set_rolled_back(connection, skill, &version.artifact_id, None).await?;
    start_anew(connection, skill, &version.artifact_id).await?;
    let share = canary::first_share(&config.canary).filter(|_| before.active.is_some());
    let Some(share) = share else {
        take_over(connection, now, skill, version, "activated", actor, reason).await?;
        return Ok(None);
    };
    let before =
        drop_canary(connection, now, skill, before, "a newer version takes its place").await?;
    let canary = Canary { version: version.clone(), share, since: now, reports: 0 };
    let after = Channels { canary: Some(canary), ..before.clone() };
    let change = Move { skill, action: "canary", version, actor, reason };
    apply(connection, now, &before, &after, &change).await?;
    Ok(Some(share))
}

/// What speaks against a version is settled: it is put into use again.
pub(super) async fn start_anew(
    connection: &Connection,
    skill: &str,
    artifact_id: &str,
) -> store::Result<()> {
    if let Some(mut monitor) = live::monitor(connection, skill, artifact_id).await? {
        monitor.restart();
        live::save_monitor(connection, skill, artifact_id, &monitor).await?;
    }
    Ok(())
}

/// A version gets every call from now on; the one before is what the skill would go back to.
pub(super) async fn take_over(
    connection: &Connection,
    now: Timestamp,
    skill: &str,
    version: &VersionRef,
    action: &str,
    actor: Option<&str>,
    reason: &str,
) -> store::Result<()> {
    let before = pointers::load(connection, skill).await?;
    let canary = before.canary.clone().filter(|canary| canary.version != *version);
    let after = Channels {
        previous: before.active.clone().or_else(|| before.previous.clone()),
        active: Some(version.clone()),
        canary,
        fence: before.fence,
    };
    state::set_flag(connection, now, skill, None).await?;
    let change = Move { skill, action, version, actor, reason };
    apply(connection, now, &before, &after, &change).await
}

/// A canary that is there gets no calls any more. Gives where the versions stand then.
pub(super) async fn drop_canary(
    connection: &Connection,
    now: Timestamp,
    skill: &str,
    before: Channels,
    reason: &str,
) -> store::Result<Channels> {
    let Some(canary) = before.canary.clone() else { return Ok(before) };
    let after = Channels { canary: None, ..before.clone() };
    let version = &canary.version;
    let change = Move { skill, action: "dropped", version, actor: None, reason };
    apply(connection, now, &before, &after, &change).await?;
    pointers::load(connection, skill).await
}

/// A canary that has come far enough gets more calls.
pub(crate) async fn advance(
    connection: &Connection,
    now: Timestamp,
    config: &SkillsConfig,
    skill: &str,
) -> store::Result<()> {
    let before = pointers::load(connection, skill).await?;
    let Some(canary) = &before.canary else {
        return timers::set(connection, skill, None).await;
    };
    let Canary { version, share, since, reports } = canary.clone();
    match canary::step(&config.canary, &Progress { share, since, reports }, now) {
        Step::Wait(due) => timers::set(connection, skill, due).await,
        Step::Advance(next) => {
            let canary = Canary { version, share: next, since: now, reports: 0 };
            let after = Channels { canary: Some(canary.clone()), ..before.clone() };
            let reason = format!("{reports} reports at {share} % raised no alarm");
            let version = &canary.version;
            let change = Move { skill, action: "advanced", version, actor: None, reason: &reason };
            apply(connection, now, &before, &after, &change).await?;
            timers::set(connection, skill, None).await
        }
        Step::Promote => {
            let reason = format!("{reports} reports at {share} % raised no alarm");
            take_over(connection, now, skill, &version, "promoted", None, &reason).await
        }
    }
}

/// Takes the report of a call; false when it had been taken before.
pub(crate) async fn report(
    connection: &Connection,
    now: Timestamp,
    config: &SkillsConfig,
    telemetry: &TelemetryConfig,
    call: &SkillCall,
) -> store::Result<bool> {
    if !live::insert_call(connection, now, call).await? {
        return Ok(false);
    }
    let skill = call.report.skill_id.as_str();
    let failure = match &call.report.result {
        SkillResult::Failure(detail) => Some(detail.as_str()),
        SkillResult::Success | SkillResult::Partial(_) => None,
    };
    let code = call.code.as_deref().unwrap_or("failed");
    if let (Some(detail), telemetry::NOT_FOUND | telemetry::MISSING) = (failure, code) {
        // It says what there should be, and nothing about what there is.
        let wanted = if code == telemetry::MISSING { detail } else { skill };
        let input = call.input.as_ref();
        telemetry::missing(connection, now, telemetry, code, wanted, input).await?;
        return Ok(true);
    }
    // A skill of the agent's own folder is none of king's.
    let Some(called) = live::called(connection, skill).await? else { return Ok(true) };
    let minute = now.0.div_euclid(MS_PER_MINUTE);
    let badness = match call.report.result {
        SkillResult::Success => Badness::Good,
        SkillResult::Partial(_) => Badness::Half,
        SkillResult::Failure(_) => Badness::Bad,
    };
    let cost = call.cost_usd.filter(|cost| cost.is_finite() && *cost > 0.0).unwrap_or(0.0);
    let mut own = called.minute;
    own.add(minute, badness);
    live::count_call(connection, now, skill, cost, own).await?;
    let source = called.source.as_str();
    let of_source = live::source_minute(connection, source).await?.unwrap_or_default();
    let mut with_this = of_source;
    with_this.add(minute, badness);
    live::save_source_minute(connection, source, with_this).await?;
    let channels = pointers::load(connection, skill).await?;
    let active = channels.active.as_ref().map(|active| active.artifact_id.as_str());
    let Some(artifact_id) = call.artifact_id.as_deref().or(active) else { return Ok(true) };
    let is_canary = match channels.of(artifact_id) {
        Some("canary") => true,
        Some("active") => false,
        // What is not in use any more proves nothing about what is.
        _ => return Ok(true),
    };
    let Some(mut monitor) = live::monitor(connection, skill, artifact_id).await? else {
        return Ok(true);
    };
    let other = if is_canary { active } else { previous_of(&channels) };
    let other = match other {
        Some(other) => live::monitor(connection, skill, other).await?,
        None => None,
    };
    let beside = match (&other, is_canary) {
        (Some(incumbent), true) => incumbent.minute,
        _ => of_source.without(called.minute),
    };
    let found = monitor.observe(&Observation {
        agent: &call.report.agent_id,
        badness,
        minute,
        baseline: other.as_ref().map(Monitor::baseline),
        beside: Some(beside),
    });
    live::save_monitor(connection, skill, artifact_id, &monitor).await?;
    if is_canary {
        pointers::count_report(connection, skill).await?;
    }
    let version = match &channels.canary {
        Some(canary) if is_canary => Some(&canary.version),
        _ => channels.active.as_ref(),
    };
    // What fails for all of its source is no fault of this one, and one that is taken back asks itself.
    if let (Some(detail), Finding::Quiet | Finding::Recovered) = (failure, found) {
        let input = call.input.as_ref();
        let failed = telemetry::Failed { skill, version, code, detail, input };
        telemetry::failed(connection, now, telemetry, failed).await?;
    }
    match found {
        Finding::Worse => {
            let rest_ms = telemetry.rest_ms;
            take_back(connection, now, config, rest_ms, skill, artifact_id, &monitor).await?;
        }
        Finding::Outage => {
            let reason = "its calls fail, and so do those of what runs beside it; nothing is taken \
                          back: look at the server";
            flag(connection, now, skill, "outage", reason).await?;
        }
        Finding::Recovered => recovered(connection, now, skill).await?,
        Finding::Quiet if is_canary => advance(connection, now, config, skill).await?,
        Finding::Quiet => {}
    }
    Ok(true)
}

fn previous_of(channels: &Channels) -> Option<&str> {
    channels.previous.as_ref().map(|previous| previous.artifact_id.as_str())
}

/// A version has become worse than it should be: it gets no more calls, if there is another one that
/// could have them. What failed becomes cases of every later version, and Learning is asked for a
/// better one.
async fn take_back(
    connection: &Connection,
    now: Timestamp,
    config: &SkillsConfig,
    rest_ms: u64,
    skill: &str,
    artifact_id: &str,
    monitor: &Monitor,
) -> store::Result<()> {
    let before = pointers::load(connection, skill).await?;
    let seen = monitor.recent();
    let reason = format!(
        "{} of its last {} calls did what they should; at least {:.0} % were expected",
        seen.passed,
        seen.total,
        monitor.expected * 100.0
    );
    failpoints::passed("before a version is taken back");
    repair::ask(connection, now, skill, artifact_id, &reason, rest_ms).await?;
    let is = |version: &VersionRef| version.artifact_id == artifact_id;
    if let Some(canary) = before.canary.clone().filter(|canary| is(&canary.version)) {
        let after = Channels { canary: None, ..before.clone() };
        give_up(connection, now, skill, artifact_id, &reason).await?;
        let version = &canary.version;
        let change = Move { skill, action: "rolled_back", version, actor: None, reason: &reason };
        return apply(connection, now, &before, &after, &change).await;
    }
    let Some(active) = before.active.clone().filter(is) else { return Ok(()) };
    let pinned = state::wishes(connection, skill).await?.is_some_and(|said| said.pinned.is_some());
    let before_it = match &before.previous {
        Some(previous) if !pinned => {
            let known = state::version(connection, skill, &previous.artifact_id).await?;
            known.filter(|version| version.passed && !version.rolled_back)
        }
        _ => None,
    };
    if let Some(version) = before_it {
        let after = Channels {
            active: Some(version.at.clone()),
            previous: Some(active.clone()),
            ..before.clone()
        };
        give_up(connection, now, skill, artifact_id, &reason).await?;
        start_anew(connection, skill, &version.at.artifact_id).await?;
        let change =
            Move { skill, action: "rolled_back", version: &active, actor: None, reason: &reason };
        return apply(connection, now, &before, &after, &change).await;
    }
    if config.failing == Failing::Retire && !pinned {
        return archive(connection, now, skill, "retired", None, &reason).await;
    }
    let why = if pinned { "it is pinned" } else { "there is no version to go back to" };
    let reason = format!(
        "{reason}, and {why}: `evo skill archive {skill}` stops it, `evo skill history {skill}` \
         shows earlier versions"
    );
    flag(connection, now, skill, "failing", &reason).await
}

/// A version is not wanted any more, since it failed in use.
async fn give_up(
    connection: &Connection,
    now: Timestamp,
    skill: &str,
    artifact_id: &str,
    reason: &str,
) -> store::Result<()> {
    state::set_rolled_back(connection, skill, artifact_id, Some(now)).await?;
    let outcome = Outcome::discarded(codes::ROLLED_BACK, reason);
    store::skills::decide(connection, now, skill, artifact_id, &outcome).await
}

/// Puts a skill into the archive: nothing of it is in use any more.
pub(super) async fn archive(
    connection: &Connection,
    now: Timestamp,
    skill: &str,
    action: &str,
    actor: Option<&str>,
    reason: &str,
) -> store::Result<()> {
    let before = pointers::load(connection, skill).await?;
    let before =
        drop_canary(connection, now, skill, before, "the skill goes to the archive").await?;
    waits_no_more(connection, now, skill, "the skill went to the archive").await?;
    let active = before.active.clone();
    let archived = active.as_ref().map(|active| active.artifact_id.as_str());
    state::set_archived(connection, now, skill, state::ARCHIVED, archived).await?;
    state::set_flag(connection, now, skill, None).await?;
    let Some(version) = &active else { return Ok(()) };
    let after = Channels { active: None, ..before.clone() };
    let change = Move { skill, action, version, actor, reason };
    apply(connection, now, &before, &after, &change).await
}

async fn flag(
    connection: &Connection,
    now: Timestamp,
    skill: &str,
    code: &str,
    reason: &str,
) -> store::Result<()> {
    state::set_flag(connection, now, skill, Some((code, reason))).await?;
    let payload = json!({"name": skill, "code": code, "reason": reason});
    events::append(connection, now, "skill.flagged", None, None, &payload).await?;
    Ok(())
}

async fn recovered(connection: &Connection, now: Timestamp, skill: &str) -> store::Result<()> {
    state::set_flag(connection, now, skill, None).await?;
    let payload = json!({"name": skill});
    events::append(connection, now, "skill.recovered", None, None, &payload).await?;
    Ok(())
}
