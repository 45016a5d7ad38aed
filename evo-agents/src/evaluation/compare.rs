//! Candidate against the version in use, on the same cases.

use evo_common::evidence::Paired;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

/// Resamples of a bootstrap.
const RESAMPLES: usize = 1_000;
/// Fewest latencies on each side for a bound that means anything.
const FEWEST: usize = 10;

/// Counts pairs and collects their latencies.
#[derive(Debug, Default)]
pub struct Pairs {
    counts: Paired,
    candidate_ms: Vec<f64>,
    incumbent_ms: Vec<f64>,
}

/// How one side of a pair did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Side {
    /// Whether it passed.
    pub passed: bool,
    /// How long it took, when there was an answer.
    pub latency_ms: Option<f64>,
}

impl Pairs {
    /// Counts one pair. `pinned`: on a case kept from a failure in use.
    pub fn add(&mut self, candidate: Side, incumbent: Side, pinned: bool) {
        self.counts.total += 1;
        self.counts.pinned += u32::from(pinned);
        match (candidate.passed, incumbent.passed) {
            (true, false) => self.counts.better += 1,
            (false, true) => {
                self.counts.worse += 1;
                self.counts.pinned_worse += u32::from(pinned);
            }
            _ => {}
        }
        self.candidate_ms.extend(candidate.latency_ms);
        self.incumbent_ms.extend(incumbent.latency_ms);
    }

    /// The counts, with the 95 % upper bound of the ratio of p95 latencies. The same latencies
    /// give the same bound.
    pub fn finish(self) -> Paired {
        let enough = self.candidate_ms.len() >= FEWEST && self.incumbent_ms.len() >= FEWEST;
        let bound = || ratio_bound(&self.candidate_ms, &self.incumbent_ms);
        Paired { latency_ratio_high: enough.then(bound), ..self.counts }
    }
}

fn ratio_bound(candidate: &[f64], incumbent: &[f64]) -> f64 {
    let mut random = StdRng::seed_from_u64(0);
    let mut sample = |from: &[f64]| -> f64 {
        let mut drawn: Vec<f64> =
            (0..from.len()).map(|_| from[random.random_range(0..from.len())]).collect();
        percentile(&mut drawn, 95.0)
    };
    let mut ratios: Vec<f64> = (0..RESAMPLES)
        .map(|_| sample(candidate) / sample(incumbent).max(f64::MIN_POSITIVE))
        .collect();
    percentile(&mut ratios, 95.0)
}

/// The nearest-rank percentile; 0 of nothing.
pub fn percentile(values: &mut [f64], percent: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rank is a small number that is not negative"
    )]
    let rank = (percent / 100.0 * values.len() as f64).ceil() as usize;
    values.get(rank.max(1) - 1).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(passed: bool, latency_ms: f64) -> Side {
        Side { passed, latency_ms: Some(latency_ms) }
    }

    #[test]
    fn percentiles_are_nearest_rank() {
        let mut values: Vec<f64> = (1..=20).rev().map(f64::from).collect();
        let ranks = [
            percentile(&mut values, 95.0),
            percentile(&mut values, 50.0),
            percentile(&mut [7.0], 95.0),
            percentile(&mut [], 95.0),
        ];
        assert_eq!(ranks.map(|rank| rank.to_string()), ["19", "10", "7", "0"]);
    }

    #[test]
    fn pairs_are_counted_both_ways() {
        let mut pairs = Pairs::default();
        pairs.add(side(true, 1.0), side(false, 1.0), false);
        pairs.add(side(false, 1.0), side(true, 1.0), true);
        pairs.add(side(true, 1.0), side(true, 1.0), false);
        assert_eq!(
            pairs.finish(),
            Paired {
                worse: 1,
                better: 1,
                total: 3,
                pinned: 1,
                pinned_worse: 1,
                latency_ratio_high: None
            }
        );
    }

    #[test]
    fn a_clearly_faster_candidate_has_a_low_bound() {
        let mut faster = Pairs::default();
        let mut equal = Pairs::default();
        for i in 0..40 {
            let jitter = f64::from(i % 7);
            faster.add(side(true, 50.0 + jitter), side(true, 100.0 + jitter), false);
            equal.add(side(true, 100.0 + jitter), side(true, 100.0 + jitter), false);
        }
        assert!(faster.finish().latency_ratio_high.unwrap() < 0.6);
        assert!(equal.finish().latency_ratio_high.unwrap() >= 0.95);
    }
}
