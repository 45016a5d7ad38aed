//! What came out: for programs as JSON, for people as a table.

use std::{collections::BTreeMap, fmt::Write as _};

use serde::Serialize;

use crate::{machine::Machine, stats::Spread, targets::Kind};

/// Figures of one target in one round, by name.
pub type Figures = BTreeMap<&'static str, f64>;

/// One figure: its name in JSON, how a table shows it, and whether it is also shown as what the
/// proxy adds to `direct`.
#[derive(Debug)]
struct Row {
    name: &'static str,
    title: &'static str,
    decimals: usize,
}

const fn row(name: &'static str, title: &'static str, decimals: usize) -> Row {
    Row { name, title, decimals }
}

/// The rows of the table, in order.
const ROWS: [Row; 28] = [
    row("requests_per_second", "saturation: requests/s", 0),
    row("saturation_p50_ms", "  latency p50, ms", 2),
    row("saturation_p99_ms", "  latency p99, ms", 2),
    row("cpu_us_per_request", "  CPU per request, us", 1),
    row("requests_per_second_to_direct", "  requests/s to direct", 2),
    row("rate_200_p50_ms", "200/s: latency p50, ms", 3),
    row("rate_200_p99_ms", "  latency p99, ms", 3),
    row("added_at_200_p50_ms", "  added p50, ms", 3),
    row("added_at_200_p99_ms", "  added p99, ms", 3),
    row("rate_1000_p50_ms", "1000/s: latency p50, ms", 3),
    row("rate_1000_p99_ms", "  latency p99, ms", 3),
    row("added_at_1000_p50_ms", "  added p50, ms", 3),
    row("added_at_1000_p99_ms", "  added p99, ms", 3),
    row("rate_1000_cpu_us_per_request", "  CPU per request, us", 1),
    row("chunks_per_second", "50 streams, no pause: chunks/s", 0),
    row("stream_cpu_us_per_chunk", "  CPU per chunk, us", 2),
    row("paced_first_p50_ms", "500 streams, 20 ms: first chunk p50, ms", 1),
    row("paced_first_p99_ms", "  first chunk p99, ms", 1),
    row("paced_gap_p50_ms", "  gap p50, ms", 1),
    row("paced_gap_p99_ms", "  gap p99, ms", 1),
    row("paced_stream_p50_ms", "  whole stream p50, ms", 0),
    row("paced_cpu_us_per_chunk", "  CPU per chunk, us", 2),
    row("memory_idle_mib", "memory: idle, MiB", 1),
    row("memory_500_streams_mib", "  highest with 500 streams, MiB", 1),
    row("memory_peak_mib", "  highest of all, MiB", 1),
    row("log_bytes_per_request", "log bytes per request", 0),
    row("failed", "failed requests", 0),
    row("others_cpu_percent", "processors taken by others, %", 0),
];

/// One target over all rounds.
#[derive(Debug, Serialize)]
pub struct TargetReport {
    pub name: Kind,
    /// What the program says about itself.
    pub version: String,
    /// Every round.
    pub rounds: Vec<Figures>,
    /// Median and range over the rounds.
    pub summary: BTreeMap<&'static str, Spread>,
}

impl TargetReport {
    pub fn new(name: Kind, version: String, rounds: Vec<Figures>) -> Self {
        let summary = ROWS
            .iter()
            .filter_map(|row| {
                let values: Vec<f64> =
                    rounds.iter().filter_map(|round| round.get(row.name).copied()).collect();
                Some((row.name, Spread::of(values)?))
            })
            .collect();
        Self { name, version, rounds, summary }
    }
}

/// A goal of the project, and what was measured. Told, never enforced.
#[derive(Debug, Serialize)]
pub struct Goal {
    pub figure: &'static str,
    pub wanted: &'static str,
    pub measured: f64,
    pub met: bool,
}

/// Why a part is missing.
#[derive(Debug, Serialize)]
pub struct Missing {
    pub target: Kind,
    pub reason: String,
}

/// One whole run.
#[derive(Debug, Serialize)]
pub struct Report {
    pub benchmark: &'static str,
    pub started_at_unix: u64,
    pub machine: Machine,
    pub settings: Settings,
    /// Load average over one minute before each round.
    pub load_average_before_rounds: Vec<f64>,
    pub targets: Vec<TargetReport>,
    /// The gateway's figure divided by nginx's of the same round.
    pub gateway_to_nginx: BTreeMap<&'static str, Spread>,
    pub goals: Vec<Goal>,
    pub missing: Vec<Missing>,
    /// The first thing that went wrong with each target.
    pub failures: BTreeMap<&'static str, String>,
}

/// What the run was told.
#[derive(Debug, Clone, Serialize)]
pub struct Settings {
    pub rounds: usize,
    pub seconds: f64,
    pub saturation_connections: usize,
    pub rate_connections: usize,
    pub burst_streams: usize,
    pub paced_streams: usize,
    pub chunks_per_stream: u32,
    pub pace_ms: u64,
    pub request_bytes: usize,
    pub answer_bytes: usize,
}

/// Figures of the gateway that are worth dividing by nginx's.
const RATIOS: [&str; 6] = [
    "requests_per_second",
    "cpu_us_per_request",
    "chunks_per_second",
    "stream_cpu_us_per_chunk",
    "paced_cpu_us_per_chunk",
    "memory_500_streams_mib",
];

/// Divides round by round.
pub fn ratios(targets: &[TargetReport]) -> BTreeMap<&'static str, Spread> {
    let rounds = |kind| {
        targets.iter().find(|target| target.name == kind).map_or(&[][..], |target| &target.rounds)
    };
    let (gateway, nginx) = (rounds(Kind::Gateway), rounds(Kind::Nginx));
    RATIOS
        .into_iter()
        .filter_map(|name| {
            let quotients = gateway
                .iter()
                .zip(nginx)
                .filter_map(|(gateway, nginx)| Some(gateway.get(name)? / nginx.get(name)?));
            Some((name, Spread::of(quotients)?))
        })
        .collect()
}

/// The goals that can be judged by what was measured.
pub fn goals(targets: &[TargetReport], to_nginx: &BTreeMap<&'static str, Spread>) -> Vec<Goal> {
    let gateway = targets.iter().find(|target| target.name == Kind::Gateway);
    let own =
        |name| gateway.and_then(|target| target.summary.get(name)).map(|spread| spread.median);
    let at_most = |figure, limit, wanted| {
        own(figure).map(|measured| Goal { figure, wanted, measured, met: measured <= limit })
    };
    let share = to_nginx.get("requests_per_second").map(|spread| Goal {
        figure: "requests_per_second, to nginx's",
        wanted: "at least 0.6",
        measured: spread.median,
        met: spread.median >= 0.6,
    });
    let goals = [
        at_most("cpu_us_per_request", 45.0, "at most 45"),
        share,
        at_most("added_at_1000_p50_ms", 0.2, "at most 0.2"),
        at_most("added_at_1000_p99_ms", 0.6, "at most 0.6"),
        at_most("memory_idle_mib", 20.0, "at most 20"),
        at_most("memory_500_streams_mib", 40.0, "at most 40"),
    ];
    goals.into_iter().flatten().collect()
}

impl Report {
    /// The whole run as a table for people.
    pub fn table(&self) -> String {
        let mut rows = vec![self.heading()];
        for row in &ROWS {
            let spreads: Vec<Option<&Spread>> =
                self.targets.iter().map(|target| target.summary.get(row.name)).collect();
            if spreads.iter().all(Option::is_none) {
                continue;
            }
            let cells = spreads.into_iter().map(|spread| {
                spread.map_or_else(|| "-".to_owned(), |spread| cell(spread, row.decimals))
            });
            rows.push(std::iter::once(row.title.to_owned()).chain(cells).collect());
        }
        let mut text = self.facts();
        text.push_str(&aligned(&rows));
        self.write_ratios(&mut text);
        for (target, failure) in &self.failures {
            writeln!(text, "{target}: first failure: {failure}").expect("a String takes it");
        }
        for missing in &self.missing {
            writeln!(text, "{} was left out: {}", missing.target.name(), missing.reason)
                .expect("a String takes it");
        }
        text
    }

    fn heading(&self) -> Vec<String> {
        let names = self.targets.iter().map(|target| target.name.name().to_owned());
        std::iter::once("median [min..max]".to_owned()).chain(names).collect()
    }

    fn facts(&self) -> String {
        let Machine { cores, processor, memory_mib, kernel, .. } = &self.machine;
        let load: Vec<String> =
            self.load_average_before_rounds.iter().map(|load| format!("{load:.2}")).collect();
        let mut text = format!(
            "{cores} cores ({processor}), {memory_mib} MiB, Linux {kernel}; {} rounds of {} s; \
             load average before each round: {}\n",
            self.settings.rounds,
            self.settings.seconds,
            load.join(", ")
        );
        for target in &self.targets {
            writeln!(text, "{}: {}", target.name.name(), target.version)
                .expect("a String takes it");
        }
        text.push('\n');
        text
    }

    fn write_ratios(&self, text: &mut String) {
        let mut lines = String::new();
        for name in RATIOS {
            if let Some(spread) = self.gateway_to_nginx.get(name) {
                writeln!(lines, "  {name}: {}", cell(spread, 2)).expect("a String takes it");
            }
        }
        if !lines.is_empty() {
            text.push_str("\ngateway divided by nginx, round by round:\n");
            text.push_str(&lines);
        }
        if !self.goals.is_empty() {
            text.push_str("\ngoals (told, not enforced):\n");
        }
        for Goal { figure, wanted, measured, met } in &self.goals {
            let met = if *met { "met" } else { "not met" };
            writeln!(text, "  {figure}: {measured:.2}, wanted {wanted}: {met}")
                .expect("a String takes it");
        }
    }
}

fn cell(spread: &Spread, decimals: usize) -> String {
    let Spread { median, min, max } = spread;
    format!("{median:.decimals$} [{min:.decimals$}..{max:.decimals$}]")
}

/// The first column to the left, the others to the right.
fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let widths: Vec<usize> = (0..columns)
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for row in rows {
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            if column == 0 {
                write!(text, "{cell:<width$}").expect("a String takes it");
            } else {
                write!(text, "  {cell:>width$}").expect("a String takes it");
            }
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(name: Kind, requests: &[f64], cpu: f64) -> TargetReport {
        let rounds = requests
            .iter()
            .map(|requests| {
                Figures::from([("requests_per_second", *requests), ("cpu_us_per_request", cpu)])
            })
            .collect();
        TargetReport::new(name, String::new(), rounds)
    }

    #[test]
    fn ratios_are_taken_round_by_round() {
        let targets = [
            target(Kind::Nginx, &[100.0, 200.0, 50.0], 20.0),
            target(Kind::Gateway, &[70.0, 100.0, 40.0], 40.0),
        ];
        let ratios = ratios(&targets);
        assert_eq!(ratios["requests_per_second"], Spread { median: 0.7, min: 0.5, max: 0.8 });
        assert_eq!(ratios["cpu_us_per_request"], Spread { median: 2.0, min: 2.0, max: 2.0 });
        let met: Vec<(&str, bool)> =
            goals(&targets, &ratios).iter().map(|goal| (goal.figure, goal.met)).collect();
        let expected = [("cpu_us_per_request", true), ("requests_per_second, to nginx's", true)];
        assert_eq!(met, expected);
    }

    #[test]
    fn without_nginx_there_is_no_ratio() {
        let targets = [target(Kind::Gateway, &[70.0], 50.0)];
        let ratios = ratios(&targets);
        assert!(ratios.is_empty());
        let goals = goals(&targets, &ratios);
        assert_eq!(goals.len(), 1);
        assert!(!goals[0].met);
    }

    #[test]
    fn every_row_is_named_once() {
        let mut names: Vec<&str> = ROWS.iter().map(|row| row.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ROWS.len());
        assert!(RATIOS.iter().all(|name| names.contains(name)));
    }
}
