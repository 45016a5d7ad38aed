//! What commands print on stdout: tables for people, one JSON object for programs.

use std::io::Write as _;

use anyhow::Context as _;
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use evo_common::{
    api::{CycleReport, InactiveCandidate},
    messages::PipelineRunStatus,
    outcome::codes,
};
use serde::Serialize;

use crate::{
    stop::{Result, Stop},
    up::components::{self, Component},
};

/// Writes to stdout. A reader that has gone away (`| head`) is no failure.
pub(crate) fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result.context("can't write to stdout")?),
    }
}

/// Writes one value as JSON on one line.
pub(crate) fn print_json(value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string(value).context("can't be written as JSON")?;
    print(&format!("{text}\n"))
}

/// Tables are no narrower than this.
const LEAST_WIDTH: u16 = 80;

/// A table without lines that fits the terminal. Columns named in `right` are numbers.
pub(crate) fn table(head: &[&str], right: &[usize], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    // On a narrower terminal the lines break by themselves, which reads better than thin columns.
    if table.width().is_some_and(|width| width < LEAST_WIDTH) {
        table.set_width(LEAST_WIDTH);
    }
    table.set_header(head.to_vec());
    for row in rows {
        table.add_row(row);
    }
    for (index, column) in table.column_iter_mut().enumerate() {
        let left = if index == 0 { 2 } else { 0 };
        column.set_padding((left, 2));
        if right.contains(&index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let text: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    text.join("\n") + "\n"
}

/// `1.2 s`, `2 min 5 s`.
pub(crate) fn duration(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{:.1} s", ms as f64 / 1_000.0),
        _ => format!("{} min {} s", ms / 60_000, ms % 60_000 / 1_000),
    }
}

/// What `evo up --json` prints: the report without what only king's clients need.
#[derive(Debug, Serialize)]
struct Summary<'a> {
    cycle_id: &'a str,
    resumed: bool,
    candidates: u64,
    active: &'a [evo_common::api::ActiveSkill],
    held: &'a [InactiveCandidate],
    discarded: &'a [InactiveCandidate],
    failed: &'a [InactiveCandidate],
    failed_sources: &'a [evo_common::stage::FailedSource],
    components: &'a [Component],
    duration_ms: u64,
}

/// Prints what a cycle came to and how the parts of Evo are.
pub(crate) fn print_cycle(
    report: &CycleReport,
    components: &[Component],
    json: bool,
) -> Result<()> {
    if json {
        print_json(&Summary {
            cycle_id: &report.cycle_id,
            resumed: report.resumed,
            candidates: report.candidates,
            active: &report.active,
            held: &report.held,
            discarded: &report.discarded,
            failed: &report.failed,
            failed_sources: &report.failed_sources,
            components,
            duration_ms: report.duration_ms,
        })
    } else {
        print(&format!("{}{}\n", cycle_text(report), components::line(components)))
    }
}

fn cycle_text(report: &CycleReport) -> String {
    let mut text = String::new();
    if !report.active.is_empty() {
        let rows = report
            .active
            .iter()
            .map(|skill| {
                vec![
                    skill.name.clone(),
                    skill.version.clone(),
                    format!("{:.3}", skill.score),
                    skill.cases_run.to_string(),
                    skill.trials_run.to_string(),
                    if skill.new { "new" } else { "" }.to_owned(),
                ]
            })
            .collect();
        text += "Active\n";
        text += &table(&["skill", "version", "score", "cases", "trials", ""], &[2, 3, 4], rows);
        text += "\n";
    }
    // What is active already is found again in each cycle; that deserves a number, not a row.
    let (known, discarded): (Vec<_>, Vec<_>) =
        report.discarded.iter().partition(|it| it.code == codes::DUPLICATE);
    for (title, list) in [
        ("Held", report.held.iter().collect()),
        ("Discarded", discarded),
        ("Failed", report.failed.iter().collect::<Vec<_>>()),
    ] {
        if !list.is_empty() {
            let rows = list
                .iter()
                .map(|it| vec![it.name.clone(), it.code.clone(), it.reason.clone()])
                .collect();
            text += &format!("{title}\n{}\n", table(&["skill", "code", "reason"], &[], rows));
        }
    }
    if !report.failed_sources.is_empty() {
        let rows = report
            .failed_sources
            .iter()
            .map(|source| vec![source.name.clone(), source.message.clone()])
            .collect();
        text +=
            &format!("Sources that could not be read\n{}\n", table(&["source", "why"], &[], rows));
    }
    let new = report.active.iter().filter(|skill| skill.new).count();
    text += &format!(
        "{} candidates in {}: {new} activated, {} held, {} discarded, {} failed, {} known before; {} skills active. Cycle {}\n",
        report.candidates,
        duration(report.duration_ms),
        report.held.len(),
        report.discarded.len() - known.len(),
        report.failed.len(),
        known.len(),
        report.active.len(),
        report.cycle_id,
    );
    text
}

/// Success only if the cycle ended as it should and somebody can use something.
pub(crate) fn verdict(report: &CycleReport) -> Result<()> {
    let cycle = &report.cycle_id;
    if report.status != PipelineRunStatus::Completed {
        return Err(Stop::failed(format!(
            "the cycle {cycle} broke; `evo runs show {cycle}` says where"
        )));
    }
    if report.active.is_empty() {
        return Err(Stop::failed(
            "the cycle ended and no skill is active; the reasons are above, and sources can be added in config/sources.toml of the data folder",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use evo_common::api::ActiveSkill;

    use super::*;

    fn report() -> CycleReport {
        CycleReport {
            cycle_id: "run-1".to_owned(),
            resumed: false,
            status: PipelineRunStatus::Completed,
            candidates: 3,
            active: vec![ActiveSkill {
                name: "evo-king-health".to_owned(),
                version: "0.1.0".to_owned(),
                score: 0.74,
                cases_run: 3,
                trials_run: 20,
                new: true,
            }],
            held: vec![InactiveCandidate {
                name: "evo-king-start".to_owned(),
                code: "write_not_allowed".to_owned(),
                reason: "POST may change something".to_owned(),
            }],
            discarded: vec![InactiveCandidate {
                name: "evo-king-known".to_owned(),
                code: "duplicate".to_owned(),
                reason: "active already".to_owned(),
            }],
            failed: Vec::new(),
            failed_sources: Vec::new(),
            duration_ms: 61_500,
        }
    }

    #[test]
    fn a_cycle_reads_as_tables_and_one_sentence() {
        let text = cycle_text(&report());
        let active = text.lines().find(|line| line.contains("evo-king-health")).unwrap();
        assert_eq!(
            active.split_whitespace().collect::<Vec<_>>(),
            ["evo-king-health", "0.1.0", "0.740", "3", "20", "new"]
        );
        assert!(text.contains("write_not_allowed"), "{text}");
        assert!(!text.contains("evo-king-known"), "{text}");
        assert!(
            text.ends_with("3 candidates in 1 min 1 s: 1 activated, 1 held, 0 discarded, 0 failed, 1 known before; 1 skills active. Cycle run-1\n"),
            "{text}"
        );
    }

    #[test]
    fn only_an_ended_cycle_with_an_active_skill_is_a_success() {
        assert!(verdict(&report()).is_ok());
        let broken = CycleReport { status: PipelineRunStatus::Failed, ..report() };
        assert!(matches!(verdict(&broken), Err(Stop::Failed(_))));
        let empty = CycleReport { active: Vec::new(), ..report() };
        assert!(matches!(verdict(&empty), Err(Stop::Failed(_))));
    }
}
