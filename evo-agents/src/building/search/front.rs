//! What variants are worth: their score, the front of those that none is better than, and the best
//! of each capability and source.

use std::collections::BTreeMap;

use evo_common::{evidence::Trials, ids::ArtifactId};

use crate::skill::package::Package;

/// Most variants of a front.
const MAX_FRONT: usize = 16;

/// What the train cases showed of one variant.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Score {
    /// Train cases that passed, each time that they were run.
    pub cases: Trials,
    /// 95th percentile of the answers' latencies, in whole milliseconds.
    pub p95_ms: f64,
    /// How much there is to the call, in characters.
    pub size: u32,
    /// Whether all cases passed a second time.
    pub confirmed: bool,
}

impl Score {
    /// The part of the train cases that passed.
    pub fn pass_rate(&self) -> f64 {
        f64::from(self.cases.passed) / f64::from(self.cases.total.max(1))
    }

    /// Whether it is nowhere worse than another score, and better somewhere.
    pub fn dominates(&self, other: &Self) -> bool {
        let no_worse = self.pass_rate() >= other.pass_rate()
            && self.p95_ms <= other.p95_ms
            && self.size <= other.size;
        let better = self.pass_rate() > other.pass_rate()
            || self.p95_ms < other.p95_ms
            || self.size < other.size;
        no_worse && better
    }

    /// The better one first: more cases, then faster, then smaller.
    fn order(&self, other: &Self) -> std::cmp::Ordering {
        other
            .pass_rate()
            .total_cmp(&self.pass_rate())
            .then(self.p95_ms.total_cmp(&other.p95_ms))
            .then(self.size.cmp(&other.size))
    }
}

/// A variant that ran all train cases.
#[derive(Debug, Clone, PartialEq)]
pub struct Scored {
    /// The variant.
    pub package: Package,
    /// Its digest.
    pub digest: ArtifactId,
    /// What it is worth.
    pub score: Score,
    /// Everything that was done to the seed, in order: operators, each with what it changed.
    pub operators: Vec<String>,
}

/// Variants of which none is better than another one in everything.
pub(super) fn front(all: &[Scored]) -> Vec<Scored> {
    let mut front: Vec<Scored> = Vec::new();
    for scored in all {
        let same = |other: &Scored| other.score == scored.score;
        let beaten = |other: &Scored| other.score.dominates(&scored.score);
        if all.iter().any(beaten) || front.iter().any(same) {
            continue;
        }
        front.push(scored.clone());
    }
    front.sort_by(|a, b| a.score.order(&b.score));
    front.truncate(MAX_FRONT);
    front
}

/// The best variant of each capability of each source, over many searches.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Archive {
    cells: BTreeMap<(String, String), Scored>,
}

impl Archive {
    /// Keeps a variant wherever it is better than what is there.
    pub fn offer(&mut self, scored: &Scored) {
        let source = source_of(&scored.package);
        for capability in cells_of(&scored.package) {
            let key = (capability, source.clone());
            let better = |old: &Scored| scored.score.order(&old.score).is_lt();
            if self.cells.get(&key).is_none_or(better) {
                self.cells.insert(key, scored.clone());
            }
        }
    }

    /// The best variant of a capability of a source.
    pub fn best(&self, capability: &str, source: &str) -> Option<&Scored> {
        self.cells.get(&(capability.to_owned(), source.to_owned()))
    }

    /// All cells: capability, source, and the best variant.
    pub fn cells(&self) -> impl Iterator<Item = (&str, &str, &Scored)> {
        self.cells
            .iter()
            .map(|((capability, source), best)| (capability.as_str(), source.as_str(), best))
    }

    /// What is kept of a package's own capabilities, each variant once.
    pub(super) fn of_package(&self, package: &Package) -> Vec<&Scored> {
        let source = source_of(package);
        let mut found: Vec<&Scored> = Vec::new();
        for capability in cells_of(package) {
            if let Some(scored) = self.best(&capability, &source)
                && !found.iter().any(|other| other.digest == scored.digest)
            {
                found.push(scored);
            }
        }
        found
    }
}

/// Its capabilities; its name, when it declares none.
fn cells_of(package: &Package) -> Vec<String> {
    let manifest = &package.manifest;
    if manifest.capabilities.is_empty() {
        return vec![manifest.name.clone()];
    }
    manifest.capabilities.clone()
}

fn source_of(package: &Package) -> String {
    package.provenance.as_ref().map(|made| made.source.clone()).unwrap_or_default()
}
