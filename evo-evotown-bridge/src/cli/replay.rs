//! `evo bridge replay`: runs that Evotown does not have any more are told again.

use evo_common::clock::Timestamp;
use serde_json::json;

use super::print;
use crate::{
    Config, Error, Settings,
    client::Answer,
    config,
    spool::{self, Again},
    visit::Visit,
};

/// Whether Evotown has a run.
enum There {
    /// With its end.
    Ended,
    /// Without.
    Open,
    No,
    /// It does not tell; a repeated end is taken as one.
    Unknown,
}

pub(super) async fn replay(
    settings: &Settings,
    since: Timestamp,
    dry_run: bool,
    json: bool,
) -> Result<(), Error> {
    let data = config::data_of(settings)?;
    let file = config::spool_file(&data);
    if !file.exists() {
        return Err(Error::NoQueue(data.display().to_string()));
    }
    let link = Visit::new(&Config::load_without_king(settings)?).await?;
    let runs = spool::ended_since(&file, since).await?;
    let (mut queued, mut there) = (Vec::new(), 0_usize);
    for run_id in runs {
        let path = ["runs", run_id.as_str(), "status"];
        let query = [("engine_id", link.engine_id())];
        let answer = link.get(&path, &query).await?;
        let again = match has(&answer) {
            There::Ended => {
                there += 1;
                continue;
            }
            There::No => Again::All,
            There::Open | There::Unknown => Again::End,
        };
        if !dry_run {
            spool::replay(&file, &run_id, again).await?;
        }
        queued.push(run_id);
    }
    if json {
        return print(&json!({"queued": queued, "there": there, "dry_run": dry_run}).to_string());
    }
    let would = if dry_run { "would be" } else { "are" };
    let mut said = format!("{} runs {would} told again, Evotown has {there}", queued.len());
    for run_id in &queued {
        said += "\n  ";
        said += run_id;
    }
    print(&said)
}

fn has(answer: &Answer) -> There {
    match (answer.status(), answer.text("status")) {
        (200, Some("running")) => There::Open,
        (200, Some(_)) => There::Ended,
        (404, _) if answer.text("detail") == Some("run not found") => There::No,
        _ => There::Unknown,
    }
}
