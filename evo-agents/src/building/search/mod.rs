//! Evolution without a model: better variants of a package, found by running them.
//!
//! A (μ+λ) search: of μ parents come λ children by typed operators ([`operators`]), all of them run
//! the train cases for real, the μ best go on. What a failure is like suggests operators, and those
//! that helped are tried more often. It counts calls, not time; the same seed and the same answers
//! give the same search. Nothing that it finds is in use: a variant is a package like any other, and
//! goes through Pre-load, Evaluation with cases that nobody here has seen, and Skill-Manage.
//!
//! `state` decides and makes no call; [`world`] makes the calls. A variant that may change something
//! is run only if its very call is one that the source allows ([`knowledge::Writes`]), whatever
//! operator made it.

pub(crate) mod changes;
mod credit;
mod evidence;
mod front;
mod genome;
pub mod knowledge;
mod moves;
pub mod operators;
pub mod slots;
mod state;
mod subject;
mod told;
pub(crate) mod words;
pub mod world;

#[cfg(test)]
mod tests;

use evo_common::{case::Case, ids::ArtifactId};
use futures_util::future::BoxFuture;
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

pub use self::{
    front::{Archive, Score, Scored},
    genome::{BUILDER, renewed},
};
use self::{knowledge::Knowledge, state::Search, world::Evaluate};
use crate::skill::package::Package;

/// How much a search may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Most calls of skills, the only thing that costs others anything.
    pub calls: u32,
    /// Most generations.
    pub generations: u32,
    /// Parents of a generation (μ).
    pub parents: usize,
    /// Children of a generation (λ).
    pub children: usize,
}

impl Budget {
    /// Four parents, eight children, and so many calls.
    pub const fn of_calls(calls: u32) -> Self {
        Self { calls, generations: 100, parents: 4, children: 8 }
    }
}

/// What is to be improved, and with what.
#[derive(Debug, Clone, Copy)]
pub struct Task<'a> {
    /// Where it begins: an http or a composed package.
    pub seed: &'a Package,
    /// Train cases, with their schemas in them. Held-out cases have no place here.
    pub cases: &'a [Case],
    /// What may be used, and what may be done.
    pub knowledge: &'a Knowledge,
    /// What earlier searches kept.
    pub archive: &'a Archive,
    /// Ends the search between two calls.
    pub cancel: &'a CancellationToken,
}

/// How variants are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strategy {
    /// Selection, recombination, operators by what failures suggest and by what helped.
    Evolve,
    /// The same, but failures suggest nothing at first.
    EvolveBlind,
    /// Each variant is the seed with one to three operators, all alike: what selection has to beat.
    Random,
}

/// Somebody who thinks of variants: a model, say. It is an operator like the others: what it says
/// is run, and counts for nothing else.
pub trait Propose: Send + Sync {
    /// Variants of a package, given what it fails. Only their calls are taken over.
    fn propose<'a>(
        &'a self,
        package: &'a Package,
        failing: &'a [Trace],
    ) -> BoxFuture<'a, Vec<Package>>;
}

/// A train case that fails.
#[derive(Debug, Clone, PartialEq)]
pub struct Trace {
    /// What was given.
    pub input: Map<String, Value>,
    /// HTTP status, when there was an answer.
    pub status: Option<u16>,
    /// Stable code of what went wrong.
    pub code: String,
    /// For people.
    pub detail: String,
}

/// Where a variant comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descent {
    /// The variant.
    pub digest: ArtifactId,
    /// The variants that it was made from; none for the seed.
    pub parents: Vec<ArtifactId>,
    /// What was done to them: names of operators.
    pub operators: Vec<String>,
    /// In which generation, from 1; the seed is of generation 0.
    pub generation: u32,
}

/// The best variant at the end of a generation.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    /// Which generation; 0 is the seed alone.
    pub generation: u32,
    /// Calls made until then.
    pub calls: u32,
    /// The variant.
    pub best: ArtifactId,
    /// The variant itself.
    pub package: Package,
}

/// Why a search ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// A variant passed all train cases twice.
    Solved,
    /// All calls are spent.
    Budget,
    /// All generations are over.
    Generations,
    /// The operators make nothing new.
    Exhausted,
    /// The seed may change something, and its source does not allow that: nothing was executed.
    NotAllowed,
    /// There is nothing to measure by.
    NoCases,
    /// Neither an http nor a composed skill.
    NotSearchable,
    /// It was called off.
    Cancelled,
}

/// What a search found.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// The variant that passes most train cases; of equal ones the one with the fewest changes, and
    /// so the seed itself when nothing is better.
    pub best: Scored,
    /// Variants of which none is better than another in pass rate, latency and size together.
    pub front: Vec<Scored>,
    /// The best of each capability of each source, earlier searches included.
    pub archive: Archive,
    /// Where each variant that was kept comes from.
    pub lineage: Vec<Descent>,
    /// Calls that were made.
    pub calls: u32,
    /// Generations that were made.
    pub generations: u32,
    /// The best variant, generation by generation.
    pub progress: Vec<Progress>,
    /// Why it ended.
    pub ended: Ended,
}

impl Found {
    /// Whether the best variant is better than the seed.
    pub fn is_better(&self) -> bool {
        !self.best.operators.is_empty()
    }
}

/// Looks for a better variant. `models` is asked for variants, at most once in a generation.
///
/// [`None`] when the seed can't even be packed.
pub async fn improve(
    task: &Task<'_>,
    world: &impl Evaluate,
    budget: Budget,
    random_seed: u64,
    models: Option<&dyn Propose>,
) -> Option<Found> {
    run(task, world, budget, random_seed, Strategy::Evolve, models).await
}

/// The same budget without selection: what the search is compared with.
pub async fn random_search(
    task: &Task<'_>,
    world: &impl Evaluate,
    budget: Budget,
    random_seed: u64,
) -> Option<Found> {
    run(task, world, budget, random_seed, Strategy::Random, None).await
}

/// A search of a given strategy.
pub async fn run(
    task: &Task<'_>,
    world: &impl Evaluate,
    budget: Budget,
    random_seed: u64,
    strategy: Strategy,
    models: Option<&dyn Propose>,
) -> Option<Found> {
    let mut search = Search::new(task, budget, strategy, random_seed);
    loop {
        while let Some((package, case)) = search.next_call() {
            let seen = tokio::select! {
                biased;
                () = task.cancel.cancelled() => None,
                seen = world.run(package, case) => Some(seen),
            };
            match seen {
                Some(seen) => search.tell(seen),
                None => search.cancel(),
            }
        }
        if search.is_over() {
            break;
        }
        if let Some(models) = models {
            let (package, failing) = search.failing();
            let proposals = models.propose(package, &failing).await;
            search.offer(&proposals);
        }
        if !search.breed() {
            break;
        }
    }
    search.finish()
}
