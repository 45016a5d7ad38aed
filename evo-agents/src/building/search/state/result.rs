//! What a search found, from what it knows at its end.

use evo_common::{evidence::Trials, ids::ArtifactId};

use super::{
    super::{
        Descent, Ended, Found,
        front::{self, Score, Scored},
        world::Seen,
    },
    Search, passes,
};
use crate::evaluation::compare::percentile;

impl Search<'_> {
    fn scored(&self, at: usize) -> Scored {
        let variant = &self.variants[at];
        let mut cases = Trials::default();
        for runs in &variant.seen {
            cases.add(passes(runs));
        }
        let latency = |seen: &Seen| seen.latency_ms;
        let mut latencies: Vec<f64> = variant.seen.iter().flatten().filter_map(latency).collect();
        Scored {
            package: variant.package.clone(),
            digest: variant.digest.clone(),
            score: Score {
                cases,
                p95_ms: percentile(&mut latencies, 95.0).ceil(),
                size: variant.genome.size(),
                confirmed: variant.confirmed,
            },
            operators: variant.operators.clone(),
        }
    }

    /// What came of it.
    pub(in crate::building::search) fn finish(mut self) -> Option<Found> {
        if self.variants.is_empty() {
            return None;
        }
        if self.progress.last().is_none_or(|last| last.calls != self.calls) {
            self.finish_generation();
        }
        let complete: Vec<usize> =
            (0..self.variants.len()).filter(|at| self.variants[*at].complete).collect();
        let all: Vec<Scored> = complete.iter().map(|at| self.scored(*at)).collect();
        let front = front::front(&all);
        let mut archive = self.task.archive.clone();
        // A variant that passes nothing is nothing to go back to.
        for scored in all.iter().filter(|scored| scored.score.cases.passed > 0) {
            archive.offer(scored);
        }
        let best = self.scored(self.best());
        let kept = front
            .iter()
            .map(|scored| &scored.digest)
            .chain(archive.cells().map(|(_, _, scored)| &scored.digest))
            .chain([&best.digest]);
        let lineage = self.lineage(kept);
        Some(Found {
            best,
            front,
            lineage,
            archive,
            calls: self.calls,
            generations: self.generation,
            progress: self.progress,
            ended: self.ended.unwrap_or(Ended::Budget),
        })
    }

    /// These variants and all that they come from.
    fn lineage<'d>(&self, kept: impl Iterator<Item = &'d ArtifactId>) -> Vec<Descent> {
        let mut open: Vec<usize> = kept.filter_map(|id| self.digests.get(id).copied()).collect();
        let mut wanted: Vec<usize> = Vec::new();
        while let Some(at) = open.pop() {
            if !wanted.contains(&at) {
                wanted.push(at);
                open.extend(&self.variants[at].parents);
            }
        }
        wanted.sort_unstable();
        let descent = |at: usize| {
            let variant = &self.variants[at];
            let digest = |at: &usize| self.variants[*at].digest.clone();
            Descent {
                digest: variant.digest.clone(),
                parents: variant.parents.iter().map(digest).collect(),
                operators: variant.made.iter().map(|(_, name, _)| (*name).to_owned()).collect(),
                generation: variant.generation,
            }
        };
        wanted.into_iter().map(descent).collect()
    }
}
