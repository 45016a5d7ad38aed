//! What operators do to runs, the queues and the dead letters.

use evo_common::{
    api::{DeadLetterList, ForkRun, QueueList, StartedRun},
    messages::PipelineStage,
};

use super::{ask, print_run, status};
use crate::{
    cli::{DataArgs, FormatArgs, RunArgs},
    report::{print, print_json, table},
    stop::{Result, Stop},
};

pub(super) async fn set_paused(args: RunArgs, paused: bool) -> Result<()> {
    let run = args.run.as_str();
    let question = async |client: &crate::client::Client| client.set_paused(run, paused).await;
    print_run(&ask(&args.data, run, question).await?, args.format)
}

pub(super) async fn cancel(args: RunArgs) -> Result<()> {
    let run = args.run.as_str();
    let detail = ask(&args.data, run, async |client| client.cancel(run).await).await?;
    print_run(&detail, args.format)
}

pub(super) async fn retry(args: RunArgs) -> Result<()> {
    let run = args.run.as_str();
    let started = ask(&args.data, run, async |client| client.retry(run).await).await?;
    print_started(&started, run, args.format)
}

pub(super) async fn fork(args: RunArgs, from: &str, trigger: Option<String>) -> Result<()> {
    let from_stage: PipelineStage = from.parse().map_err(|_| {
        let stages = "learning, building, pre_load, evaluation or skill_manage";
        Stop::usage(format!("--from {from}: use {stages}"))
    })?;
    let trigger = trigger
        .map(|text| serde_json::from_str(&text))
        .transpose()
        .map_err(|error| Stop::usage(format!("--trigger is not JSON: {error}")))?;
    let (run, fork) = (args.run.as_str(), ForkRun { from_stage, trigger });
    let started = ask(&args.data, run, async |client| client.fork(run, &fork).await).await?;
    print_started(&started, run, args.format)
}

fn print_started(started: &StartedRun, from: &str, format: FormatArgs) -> Result<()> {
    if format.json {
        return print_json(started);
    }
    let since = if started.created { "" } else { " since an earlier retry" };
    print(&format!("{} repeats {from}{since}\n", started.run_id))
}

pub(super) async fn export(args: RunArgs) -> Result<()> {
    let run = args.run.as_str();
    let history = ask(&args.data, run, async |client| client.history(run).await).await?;
    if args.format.json {
        return print_json(&history);
    }
    let text =
        serde_json::to_string_pretty(&history).map_err(|error| Stop::Failed(error.into()))?;
    print(&format!("{text}\n"))
}

pub(super) async fn queues(format: FormatArgs, data: &DataArgs) -> Result<()> {
    let queues = ask(data, "", async |client| client.queues().await).await?;
    if format.json { print_json(&queues) } else { print(&queues_text(&queues)) }
}

fn queues_text(list: &QueueList) -> String {
    let rows = list
        .queues
        .iter()
        .map(|queue| {
            vec![
                queue.stage.to_string(),
                queue.runners.to_string(),
                queue.capacity.to_string(),
                queue.limit.map_or_else(|| "none".to_owned(), |limit| limit.to_string()),
                queue.leased.to_string(),
                queue.waiting.to_string(),
                queue.paused.to_string(),
                queue.oldest_wait_ms.map_or_else(String::new, |ms| format!("{} s", ms / 1_000)),
            ]
        })
        .collect();
    let head =
        ["stage", "runners", "capacity", "limit", "at work", "waiting", "paused", "longest wait"];
    table(&head, &[1, 2, 3, 4, 5, 6, 7], rows)
}

pub(super) async fn dead_letters(
    dismiss: Option<String>,
    limit: u32,
    format: FormatArgs,
    data: &DataArgs,
) -> Result<()> {
    let run = dismiss.unwrap_or_default();
    let letters = ask(data, &run, async |client| {
        if !run.is_empty() {
            client.dismiss(&run).await?;
        }
        client.dead_letters(limit).await
    })
    .await?;
    if format.json { print_json(&letters) } else { print(&dead_letters_text(&letters)) }
}

fn dead_letters_text(list: &DeadLetterList) -> String {
    if list.dead_letters.is_empty() {
        return "No run waits for attention.\n".to_owned();
    }
    let rows = list
        .dead_letters
        .iter()
        .map(|letter| {
            vec![
                letter.run_id.clone(),
                letter.candidate.clone().unwrap_or_default(),
                letter.stage.to_string(),
                letter.attempts.to_string(),
                status(letter.status).to_owned(),
                letter.error.clone(),
            ]
        })
        .collect();
    let more =
        if list.next_cursor.is_some() { "There are more; --limit shows up to 500.\n" } else { "" };
    table(&["run", "candidate", "stage", "tries", "state", "error"], &[3], rows) + more
}
