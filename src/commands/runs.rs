//! `evo runs …`.

mod control;

use anyhow::Context as _;
use evo_common::{
    api::{RunDetail, RunKind, RunList, RunSummary},
    evidence::{Evidence, Trials},
    messages::{PipelineRunStatus, PipelineStage},
};
use serde_json::Value;

use super::{session::Session, skill::pairs_text};
use crate::{
    cli::{DataArgs, FormatArgs, RunArgs, RunsCommand, RunsFilter},
    client::{self, Client},
    report::{print, print_json, table},
    stop::{Result, Stop},
    up::Runners,
};

pub(super) async fn run(command: RunsCommand) -> Result<()> {
    match command {
        RunsCommand::List { filter, limit, format, data } => {
            list(filter, limit, format, &data).await
        }
        RunsCommand::Show(args) => show(args).await,
        RunsCommand::Pause(args) => control::set_paused(args, true).await,
        RunsCommand::Resume(args) => control::set_paused(args, false).await,
        RunsCommand::Retry(args) => control::retry(args).await,
        RunsCommand::Fork { run, from, trigger } => control::fork(run, &from, trigger).await,
        RunsCommand::Cancel(args) => control::cancel(args).await,
        RunsCommand::Queues { format, data } => control::queues(format, &data).await,
        RunsCommand::DeadLetters { dismiss, limit, format, data } => {
            control::dead_letters(dismiss, limit, format, &data).await
        }
        RunsCommand::Export(args) => control::export(args).await,
    }
}

/// Asks king something about a run.
async fn ask<T>(
    data: &DataArgs,
    run: &str,
    question: impl AsyncFnOnce(&Client) -> std::result::Result<T, client::Error>,
) -> Result<T> {
    // A king that starts for the one question is large.
    let session = Box::pin(Session::open(data, Runners::None)).await?;
    let result = question(&session.client).await;
    session.close().await;
    result.map_err(|error| {
        if error.is_not_found() {
            Stop::failed(format!("there is no run {run}; `evo runs list` shows the newest"))
        } else {
            Stop::Failed(error.into())
        }
    })
}

async fn list(filter: RunsFilter, limit: usize, format: FormatArgs, data: &DataArgs) -> Result<()> {
    let RunsFilter { kind, cycle, status, stage, decision, code, since, until, search } = filter;
    let words = [
        ("kind", kind, "cycle, candidate or direct"),
        ("status", status, "running, completed, failed or timed_out"),
        ("stage", stage, "learning, building, pre_load, evaluation or skill_manage"),
        ("decision", decision, "active, held, discarded or failed"),
    ];
    for (name, given, allowed) in &words {
        let known = |word: &str| allowed.replace(" or ", ", ").split(", ").any(|one| one == word);
        if let Some(word) = given.as_deref().filter(|word| !known(word)) {
            return Err(Stop::usage(format!("--{name} {word}: use {allowed}")));
        }
    }
    let texts = [
        ("parent_run_id", cycle),
        ("code", code),
        ("since", since),
        ("until", until),
        ("q", search),
    ];
    let query: Vec<(&str, String)> = words
        .into_iter()
        .map(|(name, word, _)| (name, word))
        .chain(texts)
        .filter_map(|(name, value)| Some((name, value?)))
        .collect();
    let query: Vec<(&str, &str)> =
        query.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let session = Box::pin(Session::open(data, Runners::None)).await?;
    let result = session.client.runs(&query, limit).await;
    session.close().await;
    let runs = result.context("listing runs")?;
    if format.json { print_json(&runs) } else { print(&list_text(&runs)) }
}

fn list_text(list: &RunList) -> String {
    if list.runs.is_empty() {
        return "No runs match.\n".to_owned();
    }
    let row = |run: &RunSummary| {
        vec![
            run.run_id.clone(),
            about(run),
            state(run),
            run.stage.to_string(),
            run.updated_at.clone(),
        ]
    };
    let rows = list.runs.iter().map(row).collect();
    table(&["run", "about", "state", "stage", "last change"], &[], rows)
}

fn about(run: &RunSummary) -> String {
    match run.kind {
        RunKind::Cycle => "cycle".to_owned(),
        RunKind::Candidate => run.candidate.clone().unwrap_or_default(),
        RunKind::Direct => "direct".to_owned(),
    }
}

fn state(run: &RunSummary) -> String {
    match &run.outcome {
        Some(outcome) => format!("{} ({})", outcome.decision.as_str(), outcome.code),
        None if run.status != PipelineRunStatus::Running => status(run.status).to_owned(),
        None => match run.phase.as_str() {
            _ if run.paused => "paused".to_owned(),
            phase @ ("waiting" | "recovering") => phase.to_owned(),
            _ => status(run.status).to_owned(),
        },
    }
}

fn status(status: PipelineRunStatus) -> &'static str {
    match status {
        PipelineRunStatus::Running => "running",
        PipelineRunStatus::Completed => "completed",
        PipelineRunStatus::Failed => "failed",
        PipelineRunStatus::TimedOut => "timed out",
    }
}

async fn show(args: RunArgs) -> Result<()> {
    let run = args.run.as_str();
    let found = ask(&args.data, run, async |client| {
        let detail = client.run(run).await?;
        let of_cycle = [("parent_run_id", detail.run.run_id.as_str())];
        let children = match detail.run.kind {
            RunKind::Cycle => client.runs(&of_cycle, MOST_CHILDREN).await?.runs,
            RunKind::Candidate | RunKind::Direct => Vec::new(),
        };
        Ok((detail, children))
    });
    let (detail, children) = found.await?;
    print_run(&detail, args.format)?;
    if args.format.json || children.is_empty() { Ok(()) } else { print(&children_text(&children)) }
}

/// Runs of a cycle that are listed below it.
const MOST_CHILDREN: usize = 30;

fn children_text(runs: &[RunSummary]) -> String {
    let row = |run: &RunSummary| {
        let why = run.outcome.as_ref().map(|outcome| outcome.reason.clone()).unwrap_or_default();
        vec![run.run_id.clone(), about(run), state(run), why]
    };
    let rows = runs.iter().map(row).collect();
    format!("\n{}", table(&["run", "about", "state", "why"], &[], rows))
}

/// What a candidate's stages found out, as far as it can be told in a line.
fn found_text(detail: &RunDetail) -> String {
    let of = |wanted: PipelineStage| {
        let stage = detail.stages.iter().find(|stage| stage.stage == wanted);
        stage.and_then(|stage| stage.result.clone())
    };
    let mut text = String::new();
    let built = of(PipelineStage::Building).map(|built| built["changes"].clone());
    for change in built.as_ref().and_then(Value::as_array).into_iter().flatten() {
        text += &format!("  changed   {}\n", change.as_str().unwrap_or_default());
    }
    let evidence = of(PipelineStage::Evaluation).map(|tested| tested["evidence"].clone());
    // What an other version of Evo measured may be written otherwise.
    let Some(Ok(evidence)) = evidence.map(serde_json::from_value::<Evidence>) else { return text };
    let Trials { passed, total } = evidence.holdout;
    text += &format!("  trials    {passed} of {total} held-out trials passed\n");
    if let Some(pairs) = &evidence.paired {
        text += &format!("  compared  {}\n", pairs_text(pairs));
    }
    text
}

fn print_run(detail: &RunDetail, format: FormatArgs) -> Result<()> {
    if format.json { print_json(detail) } else { print(&show_text(detail)) }
}

fn show_text(detail: &RunDetail) -> String {
    let run = &detail.run;
    let mut text = format!("{} · {} · {}\n", run.run_id, about(run), state(run));
    if let Some(parent) = &run.parent_run_id {
        text += &format!("  part of   {parent}\n");
    }
    if run.kind == RunKind::Cycle {
        text += &format!("  runs      {} of {} ended\n", detail.children_ended, detail.children);
    }
    if let Some(forked_from) = &run.forked_from {
        text += &format!("  repeats   {forked_from}\n");
    }
    if let Some(retried_by) = &run.retried_by {
        text += &format!("  retried   {retried_by}\n");
    }
    if let Some(queue) = &detail.queue {
        let (place, all) = (queue.position, queue.waiting);
        text += &format!("  waits     {place} of {all} for a runner of {}\n", queue.stage);
    }
    if let Some(outcome) = &run.outcome {
        text += &format!("  why       {}\n", outcome.reason);
    }
    if run.kind == RunKind::Candidate {
        text += &found_text(detail);
    }
    if !run.artifact_id.is_empty() {
        text += &format!("  package   {}\n", run.artifact_id);
    }
    text += &format!("  time      {} to {}\n\n", run.created_at, run.updated_at);
    let rows = detail
        .stages
        .iter()
        .map(|stage| {
            vec![
                stage.stage.to_string(),
                status(stage.status).to_owned(),
                stage.attempt.to_string(),
                stage.agent_id.clone().unwrap_or_default(),
                stage.updated_at.clone(),
                stage.error.clone().unwrap_or_default(),
            ]
        })
        .collect();
    text += &table(&["stage", "state", "attempt", "agent", "last change", "error"], &[2], rows);
    text
}
