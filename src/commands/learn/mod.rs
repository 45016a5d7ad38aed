//! `evo learn …`: what somebody wants of Learning.

mod examples;

use std::io::IsTerminal as _;

use evo_common::{
    api::{
        CancelRequest, NewRequest, RequestList, RequestStatus, RequestStep, RequestSummary,
        RequestView, StartRun,
    },
    config::sources::REQUESTS,
    stage::RequestKind,
};

use serde::Serialize;
use serde_json::json;

use super::session::Session;
use crate::{
    cli::{LearnArgs, LearnFilter},
    client::{self, Client},
    progress::{Progress, say},
    report::{print, print_json, table},
    stop::{Result, Stop},
    up::{Runners, follow_cycle},
};

/// Open requests that one cycle is started about; king tells Learning of as many.
const MOST_STARTED: u32 = 50;
/// Characters of a text in a table.
const SHORT: usize = 60;

pub(super) async fn run(args: LearnArgs) -> Result<()> {
    if args.list {
        return list(&args.filter, &args).await;
    }
    if let Some(id) = &args.start {
        return start(id, &args).await;
    }
    if let Some(id) = &args.show {
        return show(id, &args).await;
    }
    if let Some(id) = &args.cancel {
        return cancel(id, &args).await;
    }
    let Some(text) = args.text.clone() else {
        return Err(Stop::usage(
            "say what is wanted: evo learn \"…\" --examples FILE; or --list, --show ID, --start [ID], --cancel ID",
        ));
    };
    ask(text, args).await
}

async fn ask(text: String, args: LearnArgs) -> Result<()> {
    // What can be wrong on the command line is said before anything starts.
    let examples = match &args.examples {
        Some(file) => examples::read(file)?,
        None => Vec::new(),
    };
    let runners = if args.wait { Runners::All } else { Runners::None };
    let session = Box::pin(Session::open(&args.data, runners)).await?;
    let start = !args.no_start && (args.wait || !session.is_own());
    let new = NewRequest {
        text,
        examples,
        skill: args.skill.clone(),
        idempotency_key: None,
        start,
        by: args.by.clone(),
    };
    let result = Box::pin(asked(&session.client, new, &args)).await;
    session.close().await;
    result
}

async fn asked(client: &Client, new: NewRequest, args: &LearnArgs) -> Result<()> {
    let asked = client.ask(&new).await.map_err(refused)?;
    let id = asked.request.request_id.clone();
    say(about(&asked.request, asked.created));
    match &asked.cycle_id {
        Some(cycle) if args.wait => {
            let mut progress = Progress::new(std::io::stderr().is_terminal());
            let mut cycle = cycle.clone();
            loop {
                follow_cycle(client, &cycle, &mut progress).await?;
                let view = client.request(&id).await.map_err(refused)?.request;
                match view.and_then(|view| next_cycle(&view)) {
                    Some(next) if next != cycle => cycle = next,
                    _ => break,
                }
            }
        }
        Some(cycle) => say(format!("Cycle {cycle} is about it: `evo learn --show {id}`")),
        None if asked.request.status == RequestStatus::Taken => {
            let run = asked.request.run_id.as_deref().unwrap_or("a run");
            say(format!("It is taken already, by {run}"));
        }
        None => say("The next cycle takes it: `evo up`, or the same with --wait"),
    }
    let view = client.request(&id).await.map_err(refused)?;
    let Some(view) = view.request else {
        return Err(Stop::failed(format!("request {id} is gone")));
    };
    if args.format.json {
        print_json(&view)?;
    } else {
        print(&show_text(&view))?;
    }
    match (args.wait, view.request.status) {
        (false, _) | (true, RequestStatus::Answered) => Ok(()),
        (true, status) => {
            let why = view.request.reason.as_deref();
            let why = why.map(|why| format!(": {why}")).unwrap_or_default();
            Err(Stop::failed(format!("the request is {}{why}", status.as_str())))
        }
    }
}

/// Runs a cycle about open requests to its end.
async fn start(id: &str, args: &LearnArgs) -> Result<()> {
    let session = Box::pin(Session::open(&args.data, Runners::All)).await?;
    let result = Box::pin(started(&session.client, id)).await;
    session.close().await;
    let requests = result?;
    if args.format.json {
        print_json(&requests)?;
    } else {
        for view in &requests.requests {
            print(&show_text(view))?;
        }
    }
    let is_left = |view: &&RequestView| view.request.status != RequestStatus::Answered;
    match requests.requests.iter().filter(is_left).count() {
        0 => Ok(()),
        left => Err(Stop::failed(format!("{left} of {} are not answered", requests.count))),
    }
}

/// What became of requests, each with its steps.
#[derive(Serialize)]
struct Started {
    cycle_id: String,
    count: usize,
    requests: Vec<RequestView>,
}

async fn started(client: &Client, id: &str) -> Result<Started> {
    let ids: Vec<String> = if id.is_empty() {
        let open = [("status", RequestStatus::Open.as_str())];
        let open = client.requests(&open, MOST_STARTED).await.map_err(refused)?;
        open.requests.into_iter().map(|request| request.request_id).collect()
    } else {
        let view = client.request(id).await.map_err(refused)?;
        view.request.map(|view| view.request.request_id).into_iter().collect()
    };
    if ids.is_empty() {
        return Err(Stop::failed("nothing is open; `evo learn --list` shows what was asked for"));
    }
    let trigger = json!({"kind": "learn", "sources": [REQUESTS], "requests": ids});
    let start = StartRun { trigger, ..StartRun::default() };
    let cycle_id = client.start_cycle(&start).await.map_err(refused)?.run_id;
    let mut progress = Progress::new(std::io::stderr().is_terminal());
    follow_cycle(client, &cycle_id, &mut progress).await?;
    let mut requests = Vec::new();
    for id in ids {
        requests.extend(client.request(&id).await.map_err(refused)?.request);
    }
    Ok(Started { cycle_id, count: requests.len(), requests })
}

/// The newest cycle that a request went on with by itself.
fn next_cycle(view: &RequestView) -> Option<String> {
    let step = view.history.iter().rfind(|step| step.action == "goes_on")?;
    step.run_id.clone()
}

fn about(request: &RequestSummary, created: bool) -> String {
    let RequestSummary { request_id, examples, held_out, asked, .. } = request;
    let first = if created {
        format!("{request_id} is written down")
    } else {
        format!("{request_id} wants the same; it was asked for {asked} times")
    };
    let second = match (*examples, *held_out) {
        (0, _) => "without examples nothing can be measured: --examples FILE".to_owned(),
        (all, held) if held == all => {
            format!("{all} examples, all kept to judge by: give more, so that builders see some")
        }
        (all, held) => format!("{all} examples, {held} of them kept to judge by"),
    };
    format!("{first}; {second}")
}

async fn list(filter: &LearnFilter, args: &LearnArgs) -> Result<()> {
    let words = |all: &[&str]| all.join(", ");
    let status = filter.status.as_deref().unwrap_or_default();
    let known = RequestStatus::ALL.map(RequestStatus::as_str);
    if !status.is_empty() && !known.contains(&status) {
        let message = format!("--status {status}: use one of {}", words(&known));
        return Err(Stop::usage(message));
    }
    let kind = filter.kind.as_deref().unwrap_or_default();
    if !["", "new", "repair"].contains(&kind) {
        return Err(Stop::usage(format!("--kind {kind}: use new or repair")));
    }
    let session = Box::pin(Session::open(&args.data, Runners::None)).await?;
    let result = session.client.requests(&[("status", status), ("kind", kind)], filter.limit).await;
    session.close().await;
    let list = result.map_err(refused)?;
    if args.format.json { print_json(&list) } else { print(&list_text(&list)) }
}

fn list_text(list: &RequestList) -> String {
    if list.requests.is_empty() {
        return "Nobody asked for anything. `evo learn \"…\" --examples FILE` does.\n".to_owned();
    }
    let row = |request: &RequestSummary| {
        vec![
            request.request_id.clone(),
            request.status.as_str().to_owned(),
            kind(request.kind).to_owned(),
            format!("{:.1}", request.demand),
            format!("{}", request.examples),
            cut(&request.text),
            match (&request.answer, &request.code) {
                (Some(answer), _) => format!("{} {}", answer.skill, answer.version),
                (None, Some(code)) => code.clone(),
                (None, None) => String::new(),
            },
        ]
    };
    let rows = list.requests.iter().map(row).collect();
    let head = ["request", "status", "kind", "demand", "examples", "what", "came to"];
    table(&head, &[3, 4], rows)
}

async fn show(id: &str, args: &LearnArgs) -> Result<()> {
    let session = Box::pin(Session::open(&args.data, Runners::None)).await?;
    let result = session.client.request(id).await;
    session.close().await;
    let Some(view) = result.map_err(refused)?.request else {
        return Err(Stop::failed("nobody asked for anything yet"));
    };
    if args.format.json { print_json(&view) } else { print(&show_text(&view)) }
}

async fn cancel(id: &str, args: &LearnArgs) -> Result<()> {
    let session = Box::pin(Session::open(&args.data, Runners::None)).await?;
    let cancel = CancelRequest { reason: args.reason.clone(), by: args.by.clone() };
    let result = session.client.cancel_request(id, &cancel).await;
    session.close().await;
    let done = result.map_err(refused)?;
    if args.format.json {
        return print_json(&done);
    }
    let was = if done.changed { "is cancelled" } else { "was cancelled before" };
    print(&format!("{id} {was}\n"))
}

fn show_text(view: &RequestView) -> String {
    let request = &view.request;
    let mut text = format!(
        "{} ({}, {}, from {})\n  {}\n  demand {:.2}, asked for {} times · {} examples, {} held out\n",
        request.request_id,
        request.status.as_str(),
        kind(request.kind),
        request.origin,
        request.text.replace('\n', "\n  "),
        request.demand,
        request.asked,
        request.examples,
        request.held_out
    );
    if let Some(skill) = &request.skill {
        text += &format!("  about     {skill}\n");
    }
    if let Some(answer) = &request.answer {
        text += &format!(
            "  answer    {} {}: `evo skill show {}`\n",
            answer.skill, answer.version, answer.skill
        );
    }
    if let (Some(code), Some(reason)) = (&request.code, &request.reason) {
        text += &format!("  why       {code}: {reason}\n");
    }
    if request.over_budget {
        text += "  the next cycle takes it first\n";
    }
    for cluster in &view.clusters {
        text += &format!(
            "  failures  {} × {} {} (inputs: {})\n",
            cluster.failures, cluster.code, cluster.error, cluster.shape
        );
    }
    for run in &view.runs {
        text += &format!(
            "  run       {} {} {}{}\n",
            run.run_id,
            run.name,
            run.state,
            run.code.as_ref().map(|code| format!(" ({code})")).unwrap_or_default()
        );
    }
    for RequestStep { at, action, by, code, .. } in &view.history {
        let by = by.as_ref().map(|by| format!(" by {by}")).unwrap_or_default();
        let code = code.as_ref().map(|code| format!(" ({code})")).unwrap_or_default();
        text += &format!("  {at} {action}{by}{code}\n");
    }
    text
}

fn kind(kind: RequestKind) -> &'static str {
    match kind {
        RequestKind::New => "new",
        RequestKind::Repair => "repair",
    }
}

fn cut(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= SHORT {
        return line;
    }
    line.chars().take(SHORT - 1).chain(['…']).collect()
}

fn refused(error: client::Error) -> Stop {
    if error.is("invalid_field") || error.is("body_too_large") {
        return Stop::Usage(error.into());
    }
    Stop::Failed(anyhow::Error::from(error).context("asking king"))
}
