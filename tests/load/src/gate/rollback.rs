//! How soon king takes back what fails, and how often what works: reports to king's real monitor.

use evo_common::evidence::Trials;
use evo_king::monitor::{Badness, Finding, Monitor, Observation};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde::Serialize;

use super::report::Rate;

/// Reports of a skill that works as expected.
pub const REPORTS: u32 = 2_000;
/// Who reports.
const AGENTS: [&str; 3] = ["hall-user", "attic-user", "cellar-user"];
/// Reports in a minute.
const PER_MINUTE: u32 = 6;

/// What came out.
#[derive(Debug, Clone, Serialize)]
pub struct Rollback {
    /// Reports until a skill that fails half of the time is taken back.
    pub half: Reports,
    /// The same of one that always fails.
    pub always: Reports,
    /// How often a skill that works as expected is taken back within 2,000 reports.
    pub false_rollback: Rate,
    /// The reports that is told of.
    pub reports: u32,
}

/// How many reports it takes.
#[derive(Debug, Clone, Serialize)]
pub struct Reports {
    pub median: u32,
    pub p95: u32,
    /// Skills that were not taken back at all.
    pub missed: u32,
    pub n: u32,
}

/// Drives the monitor of `skills` skills of each kind. One, two or three agents report in turn; of the
/// skills that work, some were measured less well than others.
pub fn measure(seed: u64, skills: u32) -> Rollback {
    let mut random = StdRng::seed_from_u64(seed);
    let mut reports = |rate: f64| {
        let taken: Vec<Option<u32>> =
            (0..skills).map(|skill| taken_back(&mut random, skill, evidence(0), rate)).collect();
        let mut found: Vec<u32> = taken.iter().flatten().copied().collect();
        found.sort_unstable();
        let at = |part: f64| -> u32 {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a small rank"
            )]
            let rank = (part * found.len() as f64).ceil() as usize;
            found.get(rank.max(1) - 1).copied().unwrap_or(REPORTS)
        };
        let missed = skills - u32::try_from(found.len()).unwrap_or(skills);
        Reports { median: at(0.5), p95: at(0.95), missed, n: skills }
    };
    let (half, always) = (reports(0.5), reports(0.0));
    let mut rolled_back = Trials::default();
    for skill in 0..skills {
        let evidence = evidence(skill);
        let expected = Monitor::new(evidence).expected;
        rolled_back.add(taken_back(&mut random, skill, evidence, expected).is_some());
    }
    Rollback { half, always, false_rollback: Rate::of(rolled_back), reports: REPORTS }
}

/// Of a first look that all or some of its trials passed.
fn evidence(skill: u32) -> Trials {
    let failed = [0, 0, 0, 1, 2][skill as usize % 5];
    Trials { passed: 20 - failed, total: 20 }
}

/// After how many reports a skill that works so often is taken back.
fn taken_back(random: &mut StdRng, skill: u32, evidence: Trials, rate: f64) -> Option<u32> {
    let mut monitor = Monitor::new(evidence);
    let agents = 1 + skill % 3;
    (1..=REPORTS).find(|report| {
        let badness = if random.random_bool(rate) { Badness::Good } else { Badness::Bad };
        let agent = AGENTS[(report % agents) as usize];
        let minute = i64::from(report / PER_MINUTE);
        let seen = Observation { agent, badness, minute, baseline: None, beside: None };
        monitor.observe(&seen) == Finding::Worse
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_goals_are_met() {
        let measured = measure(1, 400);
        assert!(measured.half.median <= 18 && measured.half.missed == 0, "{measured:?}");
        assert!(measured.always.median <= 8, "{measured:?}");
        assert!(measured.false_rollback.rate <= 0.05, "{measured:?}");
    }
}
