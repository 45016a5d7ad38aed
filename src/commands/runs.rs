//! `evo runs list|show`.

use anyhow::Context as _;
use evo_common::{
    api::{RunDetail, RunKind, RunList, RunSummary},
    messages::PipelineRunStatus,
};

use super::session::Session;
use crate::{
    cli::{DataArgs, FormatArgs, RunsCommand},
    report::{print, print_json, table},
    stop::{Result, Stop},
    up::Runners,
};

pub(super) async fn run(command: RunsCommand) -> Result<()> {
    match command {
        RunsCommand::List { kind, cycle, limit, format, data } => {
            list(kind, cycle, limit, format, &data).await
        }
        RunsCommand::Show { run, format, data } => show(&run, format, &data).await,
    }
}

async fn list(
    kind: Option<String>,
    cycle: Option<String>,
    limit: usize,
    format: FormatArgs,
    data: &DataArgs,
) -> Result<()> {
    let kind = kind.unwrap_or_default();
    if !matches!(kind.as_str(), "" | "cycle" | "candidate" | "direct") {
        return Err(Stop::usage(format!("--kind {kind}: use cycle, candidate or direct")));
    }
    let cycle = cycle.unwrap_or_default();
    let session = Session::open(data, Runners::None).await?;
    let query = [("kind", kind.as_str()), ("parent_run_id", cycle.as_str())];
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
        None => status(run.status).to_owned(),
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

async fn show(run: &str, format: FormatArgs, data: &DataArgs) -> Result<()> {
    let session = Session::open(data, Runners::None).await?;
    let result = session.client.run(run).await;
    session.close().await;
    let detail = result.map_err(|error| {
        if error.is_not_found() {
            Stop::failed(format!("there is no run {run}; `evo runs list` shows the newest"))
        } else {
            Stop::Failed(error.into())
        }
    })?;
    if format.json { print_json(&detail) } else { print(&show_text(&detail)) }
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
    if let Some(outcome) = &run.outcome {
        text += &format!("  why       {}\n", outcome.reason);
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
