//! `evo skill …`.

mod people;
mod tree;
mod versions;

use anyhow::Context as _;
use evo_common::{
    api::{InvokeSkill, SkillAnswer, SkillDetail, SkillList, SkillSummary, SkillVersionView},
    evidence::Paired,
    outcome::Outcome,
    skill::SkillManifest,
};
use serde_json::{Map, Value};
use tokio::time::{Duration, Instant};

use super::session::{Session, nearest};
use crate::{
    cli::{DataArgs, FormatArgs, SkillCommand},
    client::Client,
    progress::say,
    report::{duration, print, print_json, table},
    stop::{Result, Stop},
    up::Runners,
};

/// States that a skill can be in.
const STATES: [&str; 6] = ["candidate", "active", "held", "discarded", "failed", "archived"];

pub(super) async fn run(command: SkillCommand) -> Result<()> {
    match command {
        SkillCommand::List { status, source, bundle, format, data } => {
            list(status, source, bundle, format, &data).await
        }
        SkillCommand::Show { name, format, data } => show(&name, format, &data).await,
        SkillCommand::Run { name, input, set, format, data } => {
            call(&name, input.as_deref(), &set, format, &data).await
        }
        SkillCommand::History { skill, limit } => versions::history(skill, limit).await,
        SkillCommand::Calls { skill, limit } => versions::calls(skill, limit).await,
        SkillCommand::Lineage(skill) => versions::lineage(skill).await,
        SkillCommand::Diff { skill, from, to } => versions::diff(skill, from, to).await,
        SkillCommand::Approvals { name, format, data } => {
            versions::approvals(name, format, &data).await
        }
        SkillCommand::Approve(action) => people::act(action, "approve", None).await,
        SkillCommand::Deny(action) => people::act(action, "deny", None).await,
        SkillCommand::Pin(action) => people::act(action, "pin", None).await,
        SkillCommand::Unpin(action) => people::act(action, "unpin", None).await,
        SkillCommand::Freeze(action) => people::act(action, "freeze", None).await,
        SkillCommand::Unfreeze(action) => people::act(action, "unfreeze", None).await,
        SkillCommand::Archive(action) => people::act(action, "archive", None).await,
        SkillCommand::Restore(action) => people::act(action, "restore", None).await,
        SkillCommand::Rollback { action, to } => people::act(action, "rollback", to).await,
        SkillCommand::Activate { action, version } => {
            people::act(action, "activate", Some(version)).await
        }
        SkillCommand::Export(args) => tree::export(args).await,
        SkillCommand::Import(args) => tree::import(args).await,
        SkillCommand::Overrule { action, code, version } => {
            people::overrule(action, code, version).await
        }
    }
}

async fn list(
    status: Option<String>,
    source: Option<String>,
    bundle: Option<String>,
    format: FormatArgs,
    data: &DataArgs,
) -> Result<()> {
    let status = status.unwrap_or_default();
    if !status.is_empty() && !STATES.contains(&status.as_str()) {
        return Err(Stop::usage(format!(
            "--status {status}: no such state; use one of {}",
            STATES.join(", ")
        )));
    }
    let (source, bundle) = (source.unwrap_or_default(), bundle.unwrap_or_default());
    let session = Box::pin(Session::open(data, Runners::None)).await?;
    let query = [("status", &*status), ("source", &*source), ("bundle", &*bundle)];
    let result = session.client.skills(&query).await;
    session.close().await;
    let skills = result.context("listing skills")?;
    if format.json { print_json(&skills) } else { print(&list_text(&skills)) }
}

fn list_text(list: &SkillList) -> String {
    if list.skills.is_empty() {
        return "No skills match.\n".to_owned();
    }
    let row = |skill: &SkillSummary| {
        vec![
            skill.name.clone(),
            skill.status.clone(),
            skill.version.clone().unwrap_or_default(),
            skill.score.map(|score| format!("{score:.3}")).unwrap_or_default(),
            match &skill.outcome {
                Some(outcome) if skill.status != "active" => outcome.code.clone(),
                _ => skill.description.clone(),
            },
        ]
    };
    let rows = list.skills.iter().map(row).collect();
    table(&["skill", "status", "version", "score", "about"], &[3], rows)
}

async fn show(name: &str, format: FormatArgs, data: &DataArgs) -> Result<()> {
    let session = Box::pin(Session::open(data, Runners::None)).await?;
    let result = find(&session.client, name).await;
    session.close().await;
    let skill = result?;
    if format.json { print_json(&skill) } else { print(&show_text(&skill)) }
}

/// One skill; when there is none of that name, says which are like it.
async fn find(client: &Client, name: &str) -> Result<SkillDetail> {
    match client.skill(name).await {
        Ok(skill) => Ok(skill),
        Err(error) if error.is_not_found() => Err(missing(client, name).await),
        Err(error) => Err(Stop::Failed(error.into())),
    }
}

async fn missing(client: &Client, name: &str) -> Stop {
    let all = client.skills(&[]).await.map(|list| list.skills).unwrap_or_default();
    let near = nearest(name, all.iter().map(|skill| skill.name.as_str()));
    Stop::failed(if near.is_empty() {
        format!("there is no skill {name}; `evo skill list` shows all")
    } else {
        format!("there is no skill {name}; did you mean {}?", near.join(" or "))
    })
}

fn show_text(skill: &SkillDetail) -> String {
    let summary = &skill.skill;
    let mut text = format!(
        "{} ({})\n  {}\n  from {} · {}\n",
        summary.name, summary.status, summary.description, summary.source, skill.locator
    );
    if !summary.bundles.is_empty() {
        text += &format!("  in the bundle {}\n", summary.bundles.join(", "));
    }
    if let Some(outcome) = &summary.outcome {
        text += &format!("  {}: {}\n", outcome.code, outcome.reason);
    }
    text += &versions::state_text(skill);
    for version in &skill.versions {
        text += &version_text(version, summary.outcome.as_ref());
    }
    text
}

/// One version. Its decision is left out when it is the skill's own, which stands above.
fn version_text(version: &SkillVersionView, told: Option<&Outcome>) -> String {
    let mut text = format!(
        "\n{}{}  {}\n",
        version.version,
        version.channel.as_ref().map(|channel| format!(" ({channel})")).unwrap_or_default(),
        version.artifact_id
    );
    for endpoint in &version.endpoints {
        text += &format!("  calls        {endpoint}\n");
    }
    for change in &version.changes {
        text += &format!("  changed      {change}\n");
    }
    if let Some(builder) = &version.builder {
        let by = match version.operators.as_slice() {
            [] => builder.clone(),
            operators => format!("{builder} ({})", operators.join(", ")),
        };
        let request = version.request_id.as_ref();
        let request = request.map(|id| format!(" for {id}")).unwrap_or_default();
        text += &format!("  built by     {by}{request}\n");
    }
    if let Some(inputs) = version.manifest["inputs"].as_array().filter(|list| !list.is_empty()) {
        let inputs: Vec<String> = inputs
            .iter()
            .map(|input| {
                let part = |key: &str| input[key].as_str().unwrap_or_default();
                let must = if input["required"] == Value::Bool(true) { "" } else { "?" };
                format!("{}{must}: {}", part("name"), part("type"))
            })
            .collect();
        text += &format!("  takes        {}\n", inputs.join(", "));
    }
    if let Some(code) = &version.code {
        let reason = version.reason.as_deref().unwrap_or_default();
        if told.is_none_or(|told| told.code != *code || told.reason != reason) {
            text += &format!("  decision     {code}: {reason}\n");
        }
    }
    if let Some(scores) = &version.scores {
        text += &format!(
            "  score        {:.3} to {:.3} (utility {:.3}, reliability {:.3}, novelty {:.3}, integration {:.3})\n",
            scores.overall.low,
            scores.overall.high,
            scores.utility.low,
            scores.reliability.low,
            scores.novelty,
            scores.integration
        );
    }
    if let Some(evidence) = &version.evidence {
        text += &format!(
            "  evidence     {}/{} held-out trials passed over {} cases; p95 {:.0} of {:.0} ms\n",
            evidence.holdout.passed,
            evidence.holdout.total,
            evidence.cases_run,
            evidence.latency.p95_ms,
            evidence.latency.budget_ms
        );
        if let Some(pairs) = &evidence.paired {
            text += &format!("  compared     {}\n", pairs_text(pairs));
        }
        for failure in &evidence.failures {
            text += &format!("  failed       {}: {}\n", failure.code, failure.detail);
        }
    }
    if let Some(live) = version.live.as_ref().filter(|live| live.reports > 0) {
        text += &format!(
            "  in use       {} calls, {:.1} % did what they should ({:.0} % expected); alarm {:.1} of {:.0}\n",
            live.reports,
            live.rate * 100.0,
            live.expected * 100.0,
            live.alarm,
            live.threshold
        );
    }
    if let Some(at) = &version.rolled_back_at {
        text += &format!("  taken back   {at}\n");
    }
    text += &format!("  made         {} by run {}\n", version.created_at, version.run_id);
    text
}

/// Pairs of trials with the version that was in use.
pub(super) fn pairs_text(pairs: &Paired) -> String {
    let pinned = match (pairs.pinned, pairs.pinned_worse) {
        (0, _) => String::new(),
        (pinned, 0) => format!(", {pinned} of them with inputs that failed in use"),
        (pinned, worse) => {
            format!(", {pinned} of them with inputs that failed in use, of which {worse} are worse")
        }
    };
    format!(
        "{} pairs with the version in use: {} better, {} worse{pinned}",
        pairs.total, pairs.better, pairs.worse
    )
}

async fn call(
    name: &str,
    input: Option<&str>,
    set: &[String],
    format: FormatArgs,
    data: &DataArgs,
) -> Result<()> {
    // What can be wrong on the command line is said before anything starts.
    let input = parse_input(input)?;
    let set = parse_set(set)?;
    let session = Box::pin(Session::open(data, Runners::User)).await?;
    let result = invoke(&session, name, input, set).await;
    session.close().await;
    let answer = result?;
    if format.json {
        return print_json(&answer);
    }
    say(format!(
        "{} {} on {} in {}",
        answer.name,
        answer.version,
        answer.agent_id,
        duration(answer.latency_ms)
    ));
    let text = match &answer.output {
        Value::String(text) => text.clone(),
        other => serde_json::to_string_pretty(other).context("the answer")?,
    };
    print(&format!("{text}\n"))
}

async fn invoke(
    session: &Session,
    name: &str,
    mut input: Map<String, Value>,
    set: Vec<(String, String)>,
) -> Result<SkillAnswer> {
    let skill = find(&session.client, name).await?;
    let Some(version) = skill.versions.iter().find(|version| version.active) else {
        let why = skill.skill.outcome.as_ref();
        let why = why.map(|outcome| format!(": {}", outcome.reason)).unwrap_or_default();
        return Err(Stop::failed(format!("{name} is not active but {}{why}", skill.skill.status)));
    };
    let manifest: SkillManifest = serde_json::from_value(version.manifest.clone())
        .with_context(|| format!("the manifest of {name}"))?;
    for (key, text) in set {
        let value = typed(&manifest, &key, text)?;
        input.insert(key, value);
    }
    let request = InvokeSkill { input, ..InvokeSkill::default() };
    let give_up = Instant::now() + session.patience();
    loop {
        match session.client.invoke(name, &request).await {
            Ok(answer) => return Ok(answer),
            Err(error) if error.is("no_runner") && Instant::now() < give_up => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(error) if error.is("invalid_input") => return Err(Stop::Usage(error.into())),
            Err(error) => return Err(Stop::Failed(error.into())),
        }
    }
}

fn parse_input(text: Option<&str>) -> Result<Map<String, Value>> {
    let Some(text) = text else { return Ok(Map::new()) };
    match serde_json::from_str(text) {
        Ok(Value::Object(input)) => Ok(input),
        Ok(_) => Err(Stop::usage("--input must be a JSON object, such as {\"limit\": 3}")),
        Err(error) => Err(Stop::usage(format!("--input is not JSON: {error}"))),
    }
}

fn parse_set(set: &[String]) -> Result<Vec<(String, String)>> {
    set.iter()
        .map(|text| match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
            _ => Err(Stop::usage(format!("--set {text}: write it as NAME=VALUE"))),
        })
        .collect()
}

/// The text as the type that the skill declares for this input.
fn typed(manifest: &SkillManifest, key: &str, text: String) -> Result<Value> {
    let Some(declared) = manifest.inputs.iter().find(|input| input.name == key) else {
        let names: Vec<&str> = manifest.inputs.iter().map(|input| input.name.as_str()).collect();
        return Err(Stop::usage(match names.as_slice() {
            [] => format!("--set {key}: {} takes no inputs", manifest.name),
            names => format!(
                "--set {key}: {} has no such input; it takes {}",
                manifest.name,
                names.join(", ")
            ),
        }));
    };
    if declared.r#type == "string" {
        return Ok(Value::String(text));
    }
    match serde_json::from_str(&text) {
        Ok(value) => Ok(value),
        Err(_) if declared.r#type == "any" => Ok(Value::String(text)),
        Err(_) => Err(Stop::usage(format!(
            "--set {key}={text}: this input is of type {}",
            declared.r#type
        ))),
    }
}

#[cfg(test)]
mod tests {
    use evo_common::skill::SkillIO;

    use super::*;

    fn manifest() -> SkillManifest {
        let input = |name: &str, r#type: &str| SkillIO {
            name: name.to_owned(),
            r#type: r#type.to_owned(),
            required: false,
            description: None,
        };
        SkillManifest {
            name: "x".to_owned(),
            version: "0.1.0".to_owned(),
            description: String::new(),
            capabilities: Vec::new(),
            inputs: vec![input("limit", "integer"), input("run_id", "string"), input("y", "any")],
            outputs: Vec::new(),
            dependencies: Vec::new(),
            has_code: false,
        }
    }

    #[test]
    fn a_value_gets_the_declared_type() {
        let value = |key: &str, text: &str| typed(&manifest(), key, text.to_owned());
        assert_eq!(value("limit", "3").unwrap(), Value::from(3));
        assert_eq!(value("run_id", "3").unwrap(), Value::from("3"));
        assert_eq!(value("y", "three").unwrap(), Value::from("three"));
        for (key, text) in [("limit", "three"), ("nothing", "1")] {
            assert!(matches!(value(key, text), Err(Stop::Usage(_))), "{key}={text}");
        }
    }

    #[test]
    fn inputs_on_the_command_line_are_checked() {
        assert_eq!(parse_input(None).unwrap(), Map::new());
        assert!(matches!(parse_input(Some("[1]")), Err(Stop::Usage(_))));
        assert!(matches!(parse_input(Some("{")), Err(Stop::Usage(_))));
        assert!(matches!(parse_set(&["limit".to_owned()]), Err(Stop::Usage(_))));
        assert_eq!(parse_set(&["a=b=c".to_owned()]).unwrap(), [("a".to_owned(), "b=c".to_owned())]);
    }
}
