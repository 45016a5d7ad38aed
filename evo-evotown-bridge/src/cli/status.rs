//! `evo bridge status`.

use serde_json::json;

use super::print;
use crate::{
    Error, Settings, Snapshot, config,
    spool::{self, Line, Problem},
};

/// Problems that are shown.
const PROBLEMS: u32 = 20;

pub(super) async fn of_queue(settings: &Settings, json: bool, check: bool) -> Result<(), Error> {
    let data = config::data_of(settings)?;
    let file = config::spool_file(&data);
    let found = spool::snapshot(&file, PROBLEMS).await?;
    let shown = match &found {
        found if json => json!(found.clone().unwrap_or_default()).to_string(),
        Some(snapshot) => text(snapshot),
        None => format!("no bridge has run with {} yet", data.display()),
    };
    print(&shown)?;
    if check && !found.is_some_and(|snapshot| snapshot.running) {
        return Err(Error::NotRunning(data.display().to_string()));
    }
    Ok(())
}

/// What was told of one run.
pub(super) async fn of_run(settings: &Settings, run_id: &str, json: bool) -> Result<(), Error> {
    let data = config::data_of(settings)?;
    let file = config::spool_file(&data);
    let lines = if file.exists() { spool::deliveries(&file, run_id).await? } else { Vec::new() };
    if lines.is_empty() {
        return Err(Error::UnknownRun(run_id.to_owned()));
    }
    if json {
        return print(&json!({"run_id": run_id, "deliveries": lines}).to_string());
    }
    let shown: Vec<String> = lines.iter().map(line).collect();
    print(&shown.join("\n"))
}

fn line(line: &Line) -> String {
    let said = format!("{}  {:<9}  {} ({} tries)", line.at, line.kind, line.state, line.tries);
    let notes = [&line.reason, &line.left_out].into_iter().flatten().map(String::as_str);
    std::iter::once(said.as_str()).chain(notes).collect::<Vec<&str>>().join("\n    ")
}

fn text(snapshot: &Snapshot) -> String {
    let counts = &snapshot.counts;
    let state = if snapshot.running { "runs" } else { "does not run" };
    let mut lines = vec![
        format!("bridge   {state}"),
        format!("engine   {}", snapshot.engine_id.as_deref().unwrap_or("has no name yet")),
        format!("log      read up to place {}", snapshot.cursor),
        format!("runs     {}, {} of them not ended", counts.runs, counts.runs_open),
        format!(
            "queue    {} wait, {} delivered lately, {} refused",
            counts.backlog, counts.done, counts.parked
        ),
    ];
    lines.extend(snapshot.problems.iter().map(problem));
    lines.join("\n")
}

fn problem(problem: &Problem) -> String {
    format!(
        "{}  {} {} of {} ({} tries): {}",
        problem.at, problem.state, problem.kind, problem.run_id, problem.tries, problem.reason
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_status_of_a_folder_without_a_queue_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings { data: Some(folder.path().to_owned()), ..Settings::default() };
        of_queue(&settings, true, false).await.unwrap();
        let error = of_queue(&settings, false, true).await.unwrap_err();
        assert_eq!(error.exit_code(), 1, "{error}");
        let error = of_run(&settings, "run-x", false).await.unwrap_err();
        assert!(error.to_string().contains("push --run-id run-x"), "{error}");
        assert!(!folder.path().join("bridge.db").exists(), "looking makes nothing");
    }
}
