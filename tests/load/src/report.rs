//! What came out of the gateway's benchmark: for people as a table.

mod scenarios;

use std::{collections::BTreeMap, fmt::Write as _};

use crate::{machine::Machine, stats::Spread, targets::Kind};

/// Figures of one measurement, by name.
pub type Figures = BTreeMap<&'static str, f64>;
/// One target in one round.
pub type Round = BTreeMap<Phase, Figures>;

/// The measurements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// 500 streams of 100 chunks, 20 ms apart.
    Paced,
    /// As many requests as are answered.
    Saturation,
    /// So many requests per second.
    Rate(u32),
    /// 50 streams of 100 chunks without pause, again and again.
    Burst,
}

impl Phase {
    /// In order. The paced streams come first: what they cost in memory is told of a process that did
    /// nothing yet.
    pub const ALL: [Self; 5] =
        [Self::Paced, Self::Saturation, Self::Rate(200), Self::Rate(1_000), Self::Burst];

    /// What a scenario is called by.
    pub fn name(self) -> String {
        match self {
            Self::Paced => "500 paced streams".to_owned(),
            Self::Saturation => "saturation".to_owned(),
            Self::Rate(rate) => format!("rate={rate}"),
            Self::Burst => "50 streams".to_owned(),
        }
    }
}

/// One figure: where it is, how a table shows it, and with how many decimals.
type Row = (Phase, &'static str, &'static str, usize);

/// The rows of the table, in order. Processor time is told in milliseconds, as everywhere.
const ROWS: [Row; 34] = [
    (Phase::Saturation, "ops_per_s", "saturation: requests/s", 0),
    (Phase::Saturation, "p50_ms", "  latency p50, ms", 2),
    (Phase::Saturation, "p99_ms", "  latency p99, ms", 2),
    (Phase::Saturation, "cpu_ms_per_op", "  CPU per request, ms", 4),
    (Phase::Saturation, "ratio_to_direct", "  requests/s to direct", 2),
    (Phase::Saturation, "ratio_to_nginx", "  requests/s to nginx", 2),
    (Phase::Saturation, "cpu_ratio_to_nginx", "  CPU per request to nginx", 2),
    (Phase::Saturation, "rss_mb", "  highest memory, MiB", 1),
    (Phase::Saturation, "log_bytes_per_request", "  log bytes per request", 0),
    (Phase::Saturation, "lost", "  requests without a row of usage", 0),
    (Phase::Saturation, "others_cpu_percent", "  processors taken by others, %", 0),
    (Phase::Rate(200), "p50_ms", "200/s: latency p50, ms", 3),
    (Phase::Rate(200), "p99_ms", "  latency p99, ms", 3),
    (Phase::Rate(200), "added_p50_ms", "  added p50, ms", 3),
    (Phase::Rate(200), "added_p99_ms", "  added p99, ms", 3),
    (Phase::Rate(1_000), "p50_ms", "1000/s: latency p50, ms", 3),
    (Phase::Rate(1_000), "p99_ms", "  latency p99, ms", 3),
    (Phase::Rate(1_000), "added_p50_ms", "  added p50, ms", 3),
    (Phase::Rate(1_000), "added_p99_ms", "  added p99, ms", 3),
    (Phase::Rate(1_000), "cpu_ms_per_op", "  CPU per request, ms", 4),
    (Phase::Burst, "ops_per_s", "50 streams, no pause: chunks/s", 0),
    (Phase::Burst, "cpu_ms_per_op", "  CPU per chunk, ms", 4),
    (Phase::Burst, "ratio_to_nginx", "  chunks/s to nginx", 2),
    (Phase::Paced, "first_p50_ms", "500 streams, 20 ms: first chunk p50, ms", 1),
    (Phase::Paced, "first_p99_ms", "  first chunk p99, ms", 1),
    (Phase::Paced, "p50_ms", "  gap p50, ms", 1),
    (Phase::Paced, "p99_ms", "  gap p99, ms", 1),
    (Phase::Paced, "stream_p50_ms", "  whole stream p50, ms", 0),
    (Phase::Paced, "over_nominal_percent", "  over its nominal time, %", 2),
    (Phase::Paced, "over_direct_percent", "  of which the proxy's, %", 2),
    (Phase::Paced, "rest_over_nominal_percent", "  over it from the first chunk on, %", 2),
    (Phase::Paced, "cpu_ms_per_op", "  CPU per chunk, ms", 4),
    (Phase::Paced, "rss_idle_mb", "  memory before, MiB", 1),
    (Phase::Paced, "rss_mb", "  highest memory, MiB", 1),
];

/// One target over all rounds.
#[derive(Debug)]
pub struct TargetReport {
    pub name: Kind,
    /// What the program says about itself.
    pub version: String,
    /// Every round.
    pub rounds: Vec<Round>,
}

impl TargetReport {
    /// A figure of every round.
    fn values(&self, phase: Phase, figure: &str) -> Vec<f64> {
        let of_round = |round: &Round| round.get(&phase)?.get(figure).copied();
        self.rounds.iter().filter_map(of_round).collect()
    }

    /// A figure over the rounds.
    fn spread(&self, phase: Phase, figure: &str) -> Option<Spread> {
        Spread::of(self.values(phase, figure))
    }
}

/// A goal of the project, and what was measured. Told, never enforced.
#[derive(Debug, PartialEq)]
struct Goal {
    figure: &'static str,
    wanted: &'static str,
    measured: f64,
    met: bool,
}

/// One whole run.
#[derive(Debug)]
pub struct Report {
    pub machine: Machine,
    /// Counted seconds of each measurement.
    pub seconds: f64,
    /// Load average over one minute before each round.
    pub loads: Vec<f64>,
    pub targets: Vec<TargetReport>,
    /// What is missing, and why.
    pub missing: Vec<String>,
    /// The first thing that went wrong in each measurement.
    pub failures: BTreeMap<(Kind, Phase), String>,
}

impl Report {
    /// The whole run as a table for people.
    pub fn table(&self) -> String {
        let mut rows = vec![self.heading()];
        for (phase, figure, title, decimals) in ROWS {
            let spreads: Vec<Option<Spread>> =
                self.targets.iter().map(|target| target.spread(phase, figure)).collect();
            if spreads.iter().all(Option::is_none) {
                continue;
            }
            let cells = spreads.into_iter().map(|spread| {
                spread.map_or_else(|| "-".to_owned(), |spread| cell(spread, decimals))
            });
            rows.push(std::iter::once(title.to_owned()).chain(cells).collect());
        }
        let mut text = self.facts();
        text.push_str(&aligned(&rows));
        self.write_goals(&mut text);
        for ((target, phase), failure) in &self.failures {
            let (target, phase) = (target.name(), phase.name());
            writeln!(text, "{target} {phase}: first failure: {failure}")
                .expect("a String takes it");
        }
        for missing in &self.missing {
            writeln!(text, "{missing}").expect("a String takes it");
        }
        text
    }

    fn heading(&self) -> Vec<String> {
        let names = self.targets.iter().map(|target| target.name.name().to_owned());
        std::iter::once("median [min..max]".to_owned()).chain(names).collect()
    }

    fn facts(&self) -> String {
        let Machine { cores, processor, memory_mib, kernel, .. } = &self.machine;
        let loads: Vec<String> = self.loads.iter().map(|load| format!("{load:.2}")).collect();
        let mut text = format!(
            "{cores} cores ({processor}), {memory_mib} MiB, Linux {kernel}; {} rounds of {} s; \
             load average before each round: {}\n",
            self.loads.len(),
            self.seconds,
            loads.join(", ")
        );
        for target in &self.targets {
            writeln!(text, "{}: {}", target.name.name(), target.version)
                .expect("a String takes it");
        }
        text.push('\n');
        text
    }

    /// The goals that can be judged by what was measured.
    fn goals(&self) -> Vec<Goal> {
        let gateway = self.targets.iter().find(|target| target.name == Kind::Gateway);
        let median = |phase, figure| Some(gateway?.spread(phase, figure)?.median);
        let at_most = |figure, phase, name, limit, wanted| {
            let measured = median(phase, name)?;
            Some(Goal { figure, wanted, measured, met: measured <= limit })
        };
        let share = median(Phase::Saturation, "ratio_to_nginx").map(|measured| Goal {
            figure: "requests/s to nginx's",
            wanted: "at least 0.6",
            measured,
            met: measured >= 0.6,
        });
        let (one, thousand, streams) = (Phase::Saturation, Phase::Rate(1_000), Phase::Paced);
        let goals = [
            at_most("CPU-ms per request", one, "cpu_ms_per_op", 0.045, "at most 0.045"),
            share,
            at_most("added p50 at 1000/s, ms", thousand, "added_p50_ms", 0.2, "at most 0.2"),
            at_most("added p99 at 1000/s, ms", thousand, "added_p99_ms", 0.6, "at most 0.6"),
            at_most("memory idle, MiB", streams, "rss_idle_mb", 20.0, "at most 20"),
            at_most("memory with 500 streams, MiB", streams, "rss_mb", 40.0, "at most 40"),
            at_most("over nominal, %", streams, "over_nominal_percent", 0.7, "at most 0.7"),
        ];
        goals.into_iter().flatten().collect()
    }

    fn write_goals(&self, text: &mut String) {
        let goals = self.goals();
        if !goals.is_empty() {
            text.push_str("\ngoals (told, not enforced):\n");
        }
        for Goal { figure, wanted, measured, met } in goals {
            let met = if met { "met" } else { "not met" };
            writeln!(text, "  {figure}: {measured:.3}, wanted {wanted}: {met}")
                .expect("a String takes it");
        }
    }
}

fn cell(spread: Spread, decimals: usize) -> String {
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

    fn report(targets: Vec<TargetReport>) -> Report {
        Report {
            machine: Machine::look(),
            seconds: 1.0,
            loads: vec![1.0, 3.0],
            targets,
            missing: Vec::new(),
            failures: BTreeMap::new(),
        }
    }

    fn target(name: Kind, rounds: &[(f64, f64)]) -> TargetReport {
        let rounds = rounds.iter().map(|(rate, ratio)| {
            let figures = Figures::from([
                ("size", 10.0),
                ("ops_per_s", *rate),
                ("p50_ms", 1.0),
                ("p99_ms", 2.0),
                ("cpu_ms_per_op", 0.02),
                ("ratio_to_nginx", *ratio),
                ("failed", 0.0),
            ]);
            Round::from([(Phase::Saturation, figures)])
        });
        TargetReport { name, version: String::new(), rounds: rounds.collect() }
    }

    #[test]
    fn goals_are_judged_by_the_median_of_what_was_measured() {
        let gateway = target(Kind::Gateway, &[(70.0, 0.7), (100.0, 0.5), (40.0, 0.55)]);
        let met: Vec<(&str, bool)> =
            report(vec![gateway]).goals().iter().map(|goal| (goal.figure, goal.met)).collect();
        assert_eq!(met, [("CPU-ms per request", true), ("requests/s to nginx's", false)]);
    }

    #[test]
    fn a_scenario_has_the_medians_the_rounds_and_the_others_beside_it() {
        let report = report(vec![
            target(Kind::Nginx, &[(200.0, 1.0), (100.0, 1.0)]),
            target(Kind::Gateway, &[(100.0, 0.5), (80.0, 0.8)]),
        ]);
        let scenarios = report.scenarios();
        assert_eq!(scenarios.len(), 2);
        let gateway = serde_json::to_value(&scenarios[1]).unwrap();
        assert_eq!(gateway["scenario"], "gateway saturation");
        assert_eq!(gateway["size"], 20);
        assert_eq!(gateway["ops_per_s"], 90.0);
        assert_eq!(gateway["ratio_to_nginx"], 0.65);
        assert_eq!(gateway["limits"]["nginx_ops_per_s"], 150.0);
        assert_eq!(gateway["series"]["ops_per_s"], serde_json::json!([100.0, 80.0]));
        assert_eq!(gateway["load"], 2.0);
    }

    #[test]
    fn every_row_stands_in_the_table_once() {
        let mut names: Vec<(Phase, &str)> = ROWS.iter().map(|row| (row.0, row.1)).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ROWS.len());
    }
}
