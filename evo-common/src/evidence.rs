//! What an evaluation measured, and the score that follows from it. Pure: king recomputes the
//! score from the counts and believes no number that a runner could have made up from them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::outcome::Outcome;

/// z of every decision: five looks share α = .05.
pub const Z: f64 = 2.576;
/// A skill is activated when the lower bound of its score reaches this.
pub const THRESHOLD: f64 = 0.6;
/// Trials of the first look.
pub const FIRST_LOOK: u32 = 20;
/// Looks at n = 20, 40, 60, 80, 100.
pub const LOOKS: u32 = 5;
/// Part of the train cases that must pass.
pub const TRAIN_SHARE: f64 = 0.5;
/// Failures that are kept of all looks together.
pub const MAX_FAILURES: usize = 20;
/// The latency budget is never less than this.
pub const LEAST_BUDGET_MS: f64 = 250.0;
/// The latency budget in times of the fastest probe.
pub const BUDGET_FACTOR: f64 = 5.0;
/// Weights of utility, reliability, novelty and integration.
pub const WEIGHTS: [f64; 4] = [0.4, 0.3, 0.2, 0.1];

/// Successes out of trials.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Trials {
    /// Trials that passed.
    pub passed: u32,
    /// All trials.
    pub total: u32,
}

impl Trials {
    /// Counts one more trial.
    pub fn add(&mut self, passed: bool) {
        self.total += 1;
        self.passed += u32::from(passed);
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            passed: self.passed.saturating_add(other.passed),
            total: self.total.saturating_add(other.total),
        }
    }

    /// Trials that did not pass.
    pub fn failed(self) -> u32 {
        self.total.saturating_sub(self.passed)
    }

    /// Wilson's score interval; [0, 1] without a trial.
    pub fn wilson(self, z: f64) -> Bounds {
        if self.total == 0 {
            return Bounds { low: 0.0, high: 1.0 };
        }
        let n = f64::from(self.total);
        let p = f64::from(self.passed.min(self.total)) / n;
        let z2 = z * z;
        let center = p + z2 / (2.0 * n);
        let spread = z * (p * (1.0 - p) / n + z2 / (4.0 * n * n)).sqrt();
        let scale = 1.0 + z2 / n;
        Bounds {
            low: ((center - spread) / scale).clamp(0.0, 1.0),
            high: ((center + spread) / scale).clamp(0.0, 1.0),
        }
    }
}

/// An interval in [0, 1].
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Bounds {
    /// Lower bound.
    pub low: f64,
    /// Upper bound.
    pub high: f64,
}

/// Trials of one declared capability.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CapabilityTrials {
    /// The capability.
    pub capability: String,
    /// How much it is asked for; its weight is ln(1 + demand).
    pub demand: f64,
    /// Its held-out trials.
    pub trials: Trials,
}

/// What the 95th percentile of a skill's calls may take: its source's own budget, or what follows from
/// the fastest of the probes. What disturbs a measurement only ever adds to it, so the fastest call is
/// nearest to what the server takes, on a busy machine as on a quiet one.
pub fn latency_budget_ms(fastest_probe_ms: f64, own: Option<u64>) -> f64 {
    match own {
        Some(own) => own as f64,
        None => LEAST_BUDGET_MS.max(BUDGET_FACTOR * fastest_probe_ms),
    }
}

/// Latency of the held-out trials.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Latency {
    /// The fastest one. What is slow in itself is slow here too, what is slow by a disturbance is not.
    #[serde(default)]
    pub fastest_ms: f64,
    /// Median.
    pub p50_ms: f64,
    /// 95th percentile.
    pub p95_ms: f64,
    /// What p95 may be.
    pub budget_ms: f64,
}

/// One part of the integration dimension.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct IntegrationCheck {
    /// `dependencies_active`, `composes`, `auth_set`, `latency`, `skill_md_valid`.
    pub name: String,
    /// Whether it holds.
    pub holds: bool,
}

/// A trial that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TrialFailure {
    /// The case.
    pub case_id: String,
    /// Stable code: `status`, `content_type`, `schema`, `timeout`, `connect`, …
    pub code: String,
    /// For people.
    pub detail: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// Candidate against the version in use, on the same cases.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Paired {
    /// The version in use passed, the candidate failed.
    pub worse: u32,
    /// The candidate passed, the version in use failed.
    pub better: u32,
    /// All pairs.
    pub total: u32,
    /// Of `total`: on cases pinned after a failure in use.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub pinned: u32,
    /// Of `worse`: on cases pinned after a failure in use.
    pub pinned_worse: u32,
    /// 95 % upper bound of the ratio of p95 latencies, candidate to version in use.
    pub latency_ratio_high: Option<f64>,
}

impl Paired {
    /// Two looks together. The ratio of latencies is the worse one: by chance alone an equal version
    /// looks faster in one look in twenty, and seldom in every look.
    #[must_use]
    pub fn then(self, newer: Self) -> Self {
        let ratios = self.latency_ratio_high.zip(newer.latency_ratio_high);
        Self {
            worse: self.worse.saturating_add(newer.worse),
            better: self.better.saturating_add(newer.better),
            total: self.total.saturating_add(newer.total),
            pinned: self.pinned.saturating_add(newer.pinned),
            pinned_worse: self.pinned_worse.saturating_add(newer.pinned_worse),
            latency_ratio_high: ratios.map(|(earlier, newer)| earlier.max(newer)),
        }
    }
}

/// What an evaluation measured.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Evidence {
    /// Cases that were run.
    pub cases_run: u32,
    /// Trials on train cases.
    pub train: Trials,
    /// Held-out trials.
    pub holdout: Trials,
    /// Faults injected into held-out trials that the skill should survive.
    #[serde(default)]
    pub faults: Trials,
    /// Held-out trials by capability.
    pub capabilities: Vec<CapabilityTrials>,
    /// 1 − similarity to the nearest other skill.
    pub novelty: f64,
    /// That skill.
    pub nearest: Option<String>,
    /// Parts of the integration dimension.
    pub integration: Vec<IntegrationCheck>,
    /// Latency of the held-out trials.
    pub latency: Latency,
    /// Against the version in use, if there is one.
    pub paired: Option<Paired>,
    /// Digest of the version that it was compared with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incumbent: Option<String>,
    /// The first failures, at most 20.
    pub failures: Vec<TrialFailure>,
    /// Set when the cascade ended before enough trials: smoke, train or latency gate.
    pub gate: Option<Outcome>,
}

/// The four dimensions and their weighted sum.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Scores {
    /// Does what it is for.
    pub utility: Bounds,
    /// Does it again and again.
    pub reliability: Bounds,
    /// Does what nothing else does.
    pub novelty: f64,
    /// Fits in.
    pub integration: f64,
    /// Weighted sum. For a new version of a skill novelty is left out.
    pub overall: Bounds,
}

impl Evidence {
    /// The score that follows from the counts.
    pub fn scores(&self) -> Scores {
        let reliability = self.holdout.plus(self.faults).wilson(Z);
        let utility = self.utility();
        let novelty = if self.novelty.is_finite() { self.novelty.clamp(0.0, 1.0) } else { 0.0 };
        let holds = self.integration.iter().filter(|check| check.holds).count();
        let integration = if self.integration.is_empty() {
            0.0
        } else {
            holds as f64 / self.integration.len() as f64
        };
        let [u, r, mut n, i] = WEIGHTS;
        if self.paired.is_some() {
            n = 0.0;
        }
        let sum = |utility: f64, reliability: f64| {
            (u * utility + r * reliability + n * novelty + i * integration) / (u + r + n + i)
        };
        Scores {
            utility,
            reliability,
            novelty,
            integration,
            overall: Bounds {
                low: sum(utility.low, reliability.low),
                high: sum(utility.high, reliability.high),
            },
        }
    }

    /// What two looks at the same package came to: counts add up, all else is the newer look's.
    #[must_use]
    pub fn then(&self, newer: &Self) -> Self {
        let mut capabilities = newer.capabilities.clone();
        for part in &mut capabilities {
            let old = self.capabilities.iter().find(|old| old.capability == part.capability);
            if let Some(old) = old {
                part.trials = part.trials.plus(old.trials);
            }
        }
        // What was measured against another version says nothing about this one.
        let earlier = self.paired.filter(|_| self.incumbent == newer.incumbent);
        let mut failures = self.failures.clone();
        failures.extend(newer.failures.iter().cloned());
        failures.truncate(MAX_FAILURES);
        Self {
            cases_run: newer.cases_run.max(self.cases_run),
            train: self.train.plus(newer.train),
            holdout: self.holdout.plus(newer.holdout),
            faults: self.faults.plus(newer.faults),
            capabilities,
            paired: match (earlier, newer.paired) {
                (Some(earlier), Some(newer)) => Some(earlier.then(newer)),
                (_, newer) => newer,
            },
            failures,
            ..newer.clone()
        }
    }

    /// Capabilities weighted by ln(1 + demand); all trials together when none is declared.
    fn utility(&self) -> Bounds {
        let weight = |part: &CapabilityTrials| part.demand.max(0.0).ln_1p();
        let total: f64 = self.capabilities.iter().map(weight).sum();
        if total <= 0.0 || !total.is_finite() {
            return self.holdout.wilson(Z);
        }
        self.capabilities.iter().fold(Bounds::default(), |sum, part| {
            let share = weight(part) / total;
            let bounds = part.trials.wilson(Z);
            Bounds { low: sum.low + share * bounds.low, high: sum.high + share * bounds.high }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trials(passed: u32, total: u32) -> Trials {
        Trials { passed, total }
    }

    /// The table of `W− ≥ .6` and `W+ < .6`: 18/20, 25/30, 30/36, 38/48; 6/20, 11/30, 20/48.
    #[test]
    fn wilson_crosses_the_threshold_where_it_should() {
        for (passed, total) in [(18, 20), (25, 30), (30, 36), (38, 48)] {
            assert!(trials(passed, total).wilson(Z).low >= THRESHOLD, "{passed}/{total}");
            assert!(trials(passed - 1, total).wilson(Z).low < THRESHOLD, "{}/{total}", passed - 1);
        }
        for (passed, total) in [(6, 20), (11, 30), (20, 48)] {
            assert!(trials(passed, total).wilson(Z).high < THRESHOLD, "{passed}/{total}");
            assert!(
                trials(passed + 1, total).wilson(Z).high >= THRESHOLD,
                "{}/{total}",
                passed + 1
            );
        }
        assert_eq!(trials(0, 0).wilson(Z), Bounds { low: 0.0, high: 1.0 });
    }

    fn perfect(novelty: f64, checks: usize) -> Evidence {
        Evidence {
            holdout: trials(20, 20),
            novelty,
            integration: (0..5)
                .map(|i| IntegrationCheck { name: i.to_string(), holds: i < checks })
                .collect(),
            ..Evidence::default()
        }
    }

    #[test]
    fn twenty_of_twenty_reach_the_threshold_with_little_novelty() {
        assert!(perfect(0.1, 3).scores().overall.low >= THRESHOLD);
        assert!(perfect(0.0, 0).scores().overall.low < THRESHOLD);
    }

    #[test]
    fn a_new_version_is_scored_without_novelty() {
        let mut evidence = perfect(0.0, 5);
        evidence.paired = Some(Paired::default());
        let scores = evidence.scores();
        let expected = (0.7 * scores.reliability.low + 0.1) / 0.8;
        assert!((scores.overall.low - expected).abs() < 1e-12);
    }

    #[test]
    fn looks_add_up_and_the_worse_ratio_counts() {
        let look = |passed, ratio, incumbent: &str| Evidence {
            holdout: trials(passed, 20),
            incumbent: Some(incumbent.to_owned()),
            paired: Some(Paired { total: 20, latency_ratio_high: ratio, ..Paired::default() }),
            ..Evidence::default()
        };
        let both = look(19, Some(0.8), "a").then(&look(20, Some(1.1), "a"));
        assert_eq!(both.holdout, trials(39, 40));
        let paired = both.paired.unwrap();
        assert_eq!((paired.total, paired.latency_ratio_high), (40, Some(1.1)));
        let unknown = look(20, None, "a").then(&look(20, Some(0.5), "a"));
        assert_eq!(unknown.paired.unwrap().latency_ratio_high, None);
        let other = look(20, Some(0.5), "a").then(&look(20, Some(0.6), "b"));
        assert_eq!(other.paired.unwrap().total, 20);
    }

    #[test]
    fn the_budget_follows_from_the_fastest_probe_or_is_the_sources_own() {
        let budgets = [(10.0, None), (80.0, None), (f64::NAN, None), (80.0, Some(20))];
        let budgets = budgets.map(|(fastest, own)| latency_budget_ms(fastest, own).to_string());
        assert_eq!(budgets, ["250", "400", "250", "20"]);
    }

    #[test]
    fn a_number_that_is_not_finite_counts_as_nothing() {
        assert!(perfect(f64::NAN, 5).scores().overall.low.is_finite());
    }
}
