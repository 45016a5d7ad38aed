//! The gateway's benchmark for programs: one object for each target and measurement, as for every
//! other scenario.

use super::{Phase, Report, TargetReport};
use crate::{scenario::Scenario, stats::Spread, targets::Kind};

/// Figures that have a field of their own.
const OWN: [&str; 11] = [
    "size",
    "ops_per_s",
    "p50_ms",
    "p99_ms",
    "cpu_ms_per_op",
    "rss_mb",
    "failed",
    "lost",
    "doubled",
    "ratio_to_nginx",
    "ratio_to_direct",
];
/// Figures that are told round by round too.
const SERIES: [&str; 5] =
    ["ops_per_s", "cpu_ms_per_op", "ratio_to_nginx", "ratio_to_direct", "others_cpu_percent"];

impl Report {
    /// Every measurement of every target.
    pub fn scenarios(&self) -> Vec<Scenario> {
        let mut scenarios = Vec::new();
        for target in &self.targets {
            for phase in Phase::ALL {
                if !target.values(phase, "ops_per_s").is_empty() {
                    scenarios.push(self.scenario(target, phase));
                }
            }
        }
        scenarios
    }

    fn scenario(&self, target: &TargetReport, phase: Phase) -> Scenario {
        let median = |figure| target.spread(phase, figure).map(|spread| spread.median);
        let sum = |figure| target.values(phase, figure).iter().sum::<f64>();
        let mut scenario = Scenario {
            scenario: format!("{} {}", target.name.name(), phase.name()),
            size: usize::try_from(count(sum("size"))).unwrap_or(usize::MAX),
            ops_per_s: median("ops_per_s").unwrap_or_default(),
            p50_ms: median("p50_ms").unwrap_or_default(),
            p99_ms: median("p99_ms").unwrap_or_default(),
            cpu_ms_per_op: median("cpu_ms_per_op").unwrap_or_default(),
            rss_mb: median("rss_mb").unwrap_or_default(),
            failed: count(sum("failed")),
            lost: count(sum("lost")),
            doubled: count(sum("doubled")),
            load: Spread::of(self.loads.iter().copied()).map_or(0.0, |spread| spread.median),
            ratio_to_nginx: median("ratio_to_nginx"),
            ratio_to_direct: median("ratio_to_direct"),
            first_failure: self.failures.get(&(target.name, phase)).cloned(),
            ..Scenario::default()
        };
        let figures = target.rounds.iter().filter_map(|round| round.get(&phase));
        for figure in figures.flat_map(|figures| figures.keys()) {
            if !OWN.contains(figure)
                && let Some(median) = median(figure)
            {
                scenario.more.insert(figure, median);
            }
        }
        for figure in SERIES {
            let values = target.values(phase, figure);
            if values.len() > 1 {
                scenario.series.insert(figure, values);
            }
        }
        for other in self.targets.iter().filter(|other| other.name < target.name) {
            for (figure, name) in limits(other.name) {
                if let Some(spread) = other.spread(phase, figure) {
                    scenario.limits.insert(name, spread.median);
                }
            }
        }
        scenario
    }
}

/// What is told of another target as a limit: its figures and their names.
fn limits(target: Kind) -> &'static [(&'static str, &'static str)] {
    match target {
        Kind::Direct => &[
            ("ops_per_s", "direct_ops_per_s"),
            ("p50_ms", "direct_p50_ms"),
            ("p99_ms", "direct_p99_ms"),
            ("over_nominal_percent", "direct_over_nominal_percent"),
        ],
        Kind::Nginx => &[
            ("ops_per_s", "nginx_ops_per_s"),
            ("p50_ms", "nginx_p50_ms"),
            ("p99_ms", "nginx_p99_ms"),
            ("cpu_ms_per_op", "nginx_cpu_ms_per_op"),
            ("rss_mb", "nginx_rss_mb"),
            ("over_nominal_percent", "nginx_over_nominal_percent"),
        ],
        Kind::NginxLog => {
            &[("ops_per_s", "nginx_log_ops_per_s"), ("cpu_ms_per_op", "nginx_log_cpu_ms_per_op")]
        }
        Kind::Gateway => &[],
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts are whole and small; what is no number is 0"
)]
fn count(value: f64) -> u64 {
    value as u64
}
