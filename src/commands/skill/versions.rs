//! What is known of a skill's versions.

use evo_common::api::{
    ActivationView, ApprovalDetail, ApprovalList, RequestSummary, Rollout, SkillApproval,
    SkillCallList, SkillDetail, SkillDiff, SkillHistory, SkillLineage,
};
use serde::{Serialize, de::DeserializeOwned};

use super::{Session, find, missing, pairs_text};
use crate::{
    cli::{DataArgs, FormatArgs, SkillArgs},
    client::{self, Client},
    report::{print, print_json, table},
    stop::{Result, Stop},
    up::Runners,
};

/// Characters of a digest that are shown.
const DIGEST: usize = 12;

pub(super) async fn history(skill: SkillArgs, limit: u32) -> Result<()> {
    let session = Box::pin(Session::open(&skill.data, Runners::None)).await?;
    let story = Box::pin(story(&session.client, &skill.name, &limit.to_string())).await;
    session.close().await;
    let story = story?;
    if skill.format.json { print_json(&story.history) } else { print(&story_text(&story)) }
}

/// Repairs that are looked through for those of one skill.
const REPAIRS: u32 = 200;

/// What became of a skill's versions, with what there is to say about each, and what was asked for
/// meanwhile.
struct Story {
    history: SkillHistory,
    skill: SkillDetail,
    repairs: Vec<RequestSummary>,
}

async fn story(client: &Client, name: &str, limit: &str) -> Result<Story> {
    let skill = find(client, name).await?;
    let failed = |error: client::Error| Stop::Failed(error.into());
    let history = client.of_skill(name, "history", &[("limit", limit)]).await.map_err(failed)?;
    let repairs = client.requests(&[("kind", "repair")], REPAIRS).await.map_err(failed)?;
    let mut repairs = repairs.requests;
    repairs.retain(|request| request.skill.as_deref() == Some(name));
    Ok(Story { history, skill, repairs })
}

/// Newest first: every line is what happened, what stands below it why.
fn story_text(story: &Story) -> String {
    let Story { history, skill, repairs } = story;
    let oldest = history.history.last().map(|entry| entry.at.as_str());
    // What was asked for before the oldest line belongs to another page.
    let is_here = |at: &str| history.next_cursor.is_none() || oldest.is_none_or(|old| at >= old);
    let mut told: Vec<(&str, String)> =
        history.history.iter().map(|entry| (entry.at.as_str(), entry_text(entry, skill))).collect();
    for request in repairs.iter().filter(|request| is_here(&request.created_at)) {
        let (id, status) = (&request.request_id, request.status.as_str());
        let from = match request.origin.as_str() {
            "telemetry" => "calls that fail alike",
            "rollback" => "a version that failed in use",
            _ => "a person",
        };
        let text = request.text.replace('\n', " ");
        let text = format!("repair wanted by {from}: {id}, {status} by now\n    {text}\n");
        told.push((&request.created_at, text));
    }
    if told.is_empty() {
        return "No version of it was ever in use.\n".to_owned();
    }
    // What is of one moment keeps its order.
    told.sort_by(|a, b| b.0.cmp(a.0));
    told.into_iter().map(|(at, text)| format!("{at}  {text}")).collect::<Vec<_>>().concat()
}

fn entry_text(entry: &ActivationView, skill: &SkillDetail) -> String {
    let ActivationView { action, version, share, by, reason, .. } = entry;
    let gets = match share {
        0 => "no calls".to_owned(),
        100 => "all calls".to_owned(),
        share => format!("{share} % of the calls"),
    };
    let by = by.as_ref().map(|by| format!(", by {by}")).unwrap_or_default();
    let mut text = format!("{version} {}, gets {gets}{by}\n", action.replace('_', " "));
    let made = skill.versions.iter().find(|made| made.artifact_id == entry.artifact_id);
    // What is new of a version is told where it begins.
    if let Some(made) = made.filter(|_| ["canary", "activated"].contains(&&**action)) {
        for change in &made.changes {
            text += &format!("    {change}\n");
        }
        let pairs = made.evidence.as_ref().and_then(|evidence| evidence.paired.as_ref());
        if let Some(pairs) = pairs {
            text += &format!("    {}\n", pairs_text(pairs));
        }
    }
    format!("{text}    {reason}\n")
}

pub(super) async fn calls(skill: SkillArgs, limit: u32) -> Result<()> {
    let limit = limit.to_string();
    show(&skill, "calls", &[("limit", &limit)], calls_text).await
}

fn calls_text(list: &SkillCallList) -> String {
    if list.calls.is_empty() {
        return "No call was reported.\n".to_owned();
    }
    let row = |call: &evo_common::api::SkillCallView| {
        vec![
            call.at.clone(),
            short(call.artifact_id.as_deref().unwrap_or_default()),
            call.agent_id.clone(),
            call.result.clone(),
            call.latency_ms.map(|ms| format!("{ms} ms")).unwrap_or_default(),
            call.code.clone().or_else(|| call.detail.clone()).unwrap_or_default(),
        ]
    };
    let rows = list.calls.iter().map(row).collect();
    table(&["when", "package", "agent", "result", "took", "about"], &[4], rows)
}

pub(super) async fn lineage(skill: SkillArgs) -> Result<()> {
    show(&skill, "lineage", &[], lineage_text).await
}

fn lineage_text(lineage: &SkillLineage) -> String {
    let row = |node: &evo_common::api::LineageNode| {
        let from: Vec<String> = lineage
            .edges
            .iter()
            .filter(|edge| edge.to == node.id)
            .map(|edge| format!("{} {}", edge.kind, short(&edge.from)))
            .collect();
        vec![
            short(&node.id),
            node.version.clone().unwrap_or_default(),
            node.channel.clone().unwrap_or_default(),
            node.builder.clone().unwrap_or_default(),
            node.operators.join(", "),
            node.code.clone().unwrap_or_default(),
            from.join(", "),
        ]
    };
    let rows = lineage.nodes.iter().map(row).collect();
    table(&["package", "version", "use", "built by", "by", "decision", "comes from"], &[], rows)
}

pub(super) async fn diff(skill: SkillArgs, from: Option<String>, to: Option<String>) -> Result<()> {
    let (from, to) = (from.unwrap_or_default(), to.unwrap_or_default());
    show(&skill, "diff", &[("from", &from), ("to", &to)], diff_text).await
}

fn diff_text(diff: &SkillDiff) -> String {
    let from = diff.from.as_ref().map_or("nothing", |from| from.version.as_str());
    let mut text =
        format!("{}: {from} → {}, {} files differ\n", diff.name, diff.to.version, diff.count);
    for file in &diff.files {
        text += &format!("\n{} {}\n{}", file.change, file.path, file.diff);
        if !text.ends_with('\n') {
            text.push('\n');
        }
    }
    text
}

pub(super) async fn approvals(
    name: Option<String>,
    format: FormatArgs,
    data: &DataArgs,
) -> Result<()> {
    let Some(name) = name else {
        let session = Box::pin(Session::open(data, Runners::None)).await?;
        let list = session.client.approvals().await;
        session.close().await;
        let list = list.map_err(|error| Stop::Failed(error.into()))?;
        return if format.json { print_json(&list) } else { print(&approvals_text(&list)) };
    };
    let skill = SkillArgs { name, format, data: data.clone() };
    show(&skill, "approval", &[], approval_text).await
}

fn approvals_text(list: &ApprovalList) -> String {
    if list.approvals.is_empty() {
        return "Nothing waits for a person.\n".to_owned();
    }
    let row = |approval: &evo_common::api::ApprovalView| {
        vec![
            approval.skill.clone(),
            approval.version.clone(),
            approval.risk.as_str().to_owned(),
            approval.asked_at.clone(),
            approval.reason.clone(),
        ]
    };
    let rows = list.approvals.iter().map(row).collect();
    table(&["skill", "version", "risk", "since", "why it may"], &[], rows)
        + "Next: `evo skill approvals NAME` shows one, `evo skill approve NAME --reason …` or \
           `evo skill deny NAME --reason …` decides\n"
}

fn approval_text(skill: &SkillApproval) -> String {
    let Some(detail) = &skill.approval else {
        return format!("No version of {} waits for a person.\n", skill.name);
    };
    let ApprovalDetail { approval, diff, scores, evidence, findings, cost } = detail;
    let mut text = format!(
        "{} {} ({}), risk {}, since {}\n  {}\n",
        approval.skill,
        approval.version,
        approval.status,
        approval.risk.as_str(),
        approval.asked_at,
        approval.reason
    );
    if let (Some(by), Some(why)) = (&approval.decided_by, &approval.decided_why) {
        text += &format!("  {} by {by}: {why}\n", approval.status);
    }
    if let Some(scores) = scores {
        text +=
            &format!("  score        {:.3} to {:.3}\n", scores.overall.low, scores.overall.high);
    }
    if let Some(evidence) = evidence {
        let (passed, total) = (evidence.holdout.passed, evidence.holdout.total);
        text += &format!("  evidence     {passed} of {total} held-out trials passed\n");
    }
    for finding in findings {
        text +=
            &format!("  found        {} in {}: {}\n", finding.code, finding.file, finding.message);
    }
    text += &format!(
        "  cost         {} calls of models, {} + {} tokens{}\n\n",
        cost.model_calls,
        cost.input_tokens,
        cost.output_tokens,
        cost.usd.map(|usd| format!(", {usd:.4} USD")).unwrap_or_default()
    );
    text + &diff_text(diff)
}

/// What stands beside a skill's state: what people want of it, and what it has cost.
pub(super) fn state_text(skill: &SkillDetail) -> String {
    let (summary, cost) = (&skill.skill, &skill.cost);
    let name = &summary.name;
    let mut text = String::new();
    if summary.pinned {
        text += "  pinned: it stays on the version in use\n";
    }
    if summary.frozen {
        text += "  frozen: nothing new of it is taken\n";
    }
    if let Some(flag) = &summary.flag {
        text += &format!("  look at it: {} since {}: {}\n", flag.code, flag.at, flag.reason);
    }
    if let Some(rollout) = &skill.rollout {
        text += &format!("  {}\n", rollout_text(rollout));
    }
    if skill.pinned_cases > 0 {
        text += &format!(
            "  {} inputs that failed in use are cases of every new version\n",
            skill.pinned_cases
        );
    }
    if let Some(waits) = &skill.approval {
        text += &format!("  {} waits for a person: `evo skill approvals {name}`\n", waits.version);
    }
    text += &format!(
        "  cost: {} calls ({:.4} USD); {} runs with {} calls of models, {} + {} tokens{}, {}\n",
        cost.calls,
        cost.calls_usd,
        cost.runs,
        cost.model_calls,
        cost.input_tokens,
        cost.output_tokens,
        cost.usd.map(|usd| format!(", {usd:.4} USD")).unwrap_or_default(),
        match cost.source.as_str() {
            "gateway" => "as the gateway counted",
            _ => "as the stages reported",
        }
    );
    text
}

/// How far a canary has come, and what it waits for.
fn rollout_text(rollout: &Rollout) -> String {
    let Rollout { version, share, reports, reports_needed, not_before, next, .. } = rollout;
    let then = match next {
        100 => "all of them".to_owned(),
        next => format!("{next} %"),
    };
    format!(
        "{version} gets {share} % of the calls; {then} after {reports_needed} reports without alarm \
         ({reports} so far), not before {not_before}"
    )
}

fn short(digest: &str) -> String {
    digest.chars().take(DIGEST).collect()
}

/// Asks for something about a skill and prints it.
async fn show<T: DeserializeOwned + Serialize>(
    skill: &SkillArgs,
    what: &str,
    query: &[(&str, &str)],
    text: impl Fn(&T) -> String,
) -> Result<()> {
    // A king that starts for the one question is large.
    let session = Box::pin(Session::open(&skill.data, Runners::None)).await?;
    let known = session.client.skill(&skill.name).await;
    let answer: Result<T> = match known {
        Ok(_) => {
            let answer = session.client.of_skill(&skill.name, what, query).await;
            answer.map_err(|error| Stop::Failed(error.into()))
        }
        Err(error) if error.is_not_found() => Err(missing(&session.client, &skill.name).await),
        Err(error) => Err(Stop::Failed(error.into())),
    };
    session.close().await;
    let answer = answer?;
    if skill.format.json { print_json(&answer) } else { print(&text(&answer)) }
}
