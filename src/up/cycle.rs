//! One cycle over HTTP: started or found unfinished, followed to its end.

use std::time::Duration;

use anyhow::Context as _;
use evo_common::{
    api::{CycleReport, StartRun},
    messages::PipelineRunStatus,
};
use serde_json::json;

use crate::{
    client::Client,
    progress::{Progress, say},
    stop::Result,
};

/// How often the event log is read.
const POLL: Duration = Duration::from_millis(200);
/// Pause between two sittings of an evaluation, so that a first start takes seconds.
const SITTING_GAP_MS: u64 = 1_000;

/// Finishes the cycle that was left unfinished, or runs a new one.
pub(crate) async fn run(client: &Client, progress: &mut Progress) -> Result<CycleReport> {
    let (cycle, resumed) = match unfinished(client).await? {
        Some(cycle) => {
            say(format!("Going on with the unfinished cycle {cycle}"));
            (cycle, true)
        }
        None => (start(client).await?, false),
    };
    follow(client, &cycle, progress).await?;
    let mut report = client.report(&cycle).await.context("the cycle's report")?;
    report.resumed = resumed;
    Ok(report)
}

async fn unfinished(client: &Client) -> Result<Option<String>> {
    let query = [("kind", "cycle"), ("status", "running")];
    let list = client.runs(&query, 1).await.context("looking for an unfinished cycle")?;
    Ok(list.runs.into_iter().next().map(|run| run.run_id))
}

async fn start(client: &Client) -> Result<String> {
    let trigger = json!({ "kind": "up", "sitting_gap_ms": SITTING_GAP_MS });
    let started = client
        .start_cycle(&StartRun { trigger, ..StartRun::default() })
        .await
        .context("starting a cycle")?;
    Ok(started.run_id)
}

/// Shows what happens until the cycle has ended.
pub(crate) async fn follow(client: &Client, cycle: &str, progress: &mut Progress) -> Result<()> {
    let started = client
        .events(0, &[("run_id", cycle), ("kind", "cycle.started")])
        .await
        .context("reading the event log")?;
    let mut after = started.events.first().map_or(0, |event| event.seq);
    progress.begin(cycle);
    let mut ended = false;
    loop {
        let page = client.events(after, &[]).await.context("reading the event log")?;
        for event in &page.events {
            progress.note(event);
        }
        progress.draw();
        if let Some(last) = page.events.last() {
            after = last.seq;
            continue;
        }
        if ended {
            progress.finish();
            return Ok(());
        }
        // The state of the run decides, not an event that might have been missed. The log is read
        // once more after it, for what was written since the last page.
        let run = client.run(cycle).await.context("reading the cycle's state")?;
        ended = run.run.status != PipelineRunStatus::Running;
        if !ended {
            tokio::time::sleep(POLL).await;
        }
    }
}
