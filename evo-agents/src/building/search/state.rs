//! The search itself: which variant runs which case next, and what follows from what was seen. No
//! I/O, no clock: the same seed and the same answers give the same search.

mod breed;
mod result;

use std::collections::{HashMap, HashSet, VecDeque};

use evo_common::{case::Case, ids::ArtifactId};
use rand::{SeedableRng as _, rngs::StdRng};

use super::{
    Budget, Ended, Progress, Strategy, Task, Trace,
    credit::Credit,
    genome::Genome,
    knowledge::Context,
    operators::Operator,
    world::{Class, Seen},
};
use crate::skill::package::Package;

/// A variant and what is known of it.
#[derive(Debug)]
struct Variant {
    package: Package,
    digest: ArtifactId,
    genome: Genome,
    parents: Vec<usize>,
    /// What was done to its parents, and to which kind of failure.
    made: Vec<(Class, &'static str, Option<Operator>)>,
    /// Everything since the seed.
    operators: Vec<String>,
    generation: u32,
    /// By case: what each run of it showed.
    seen: Vec<Vec<Seen>>,
    /// All cases were run.
    complete: bool,
    confirmed: bool,
}

/// The calls that are left of one variant.
#[derive(Debug)]
struct Running {
    variant: usize,
    order: VecDeque<usize>,
    /// Cases that must show something better before the rest is run, and what they showed at the
    /// parent.
    probes: Vec<(usize, f64)>,
    confirms: bool,
}

/// A search under way.
pub(super) struct Search<'a> {
    task: &'a Task<'a>,
    budget: Budget,
    strategy: Strategy,
    context: Context<'a>,
    random: StdRng,
    credit: Credit,
    variants: Vec<Variant>,
    known: HashSet<String>,
    digests: HashMap<ArtifactId, usize>,
    /// Parents of the next generation.
    population: Vec<usize>,
    queue: VecDeque<usize>,
    running: Option<Running>,
    generation: u32,
    calls: u32,
    progress: Vec<Progress>,
    ended: Option<Ended>,
    /// Cases in the order in which they are run: first one that no refusal answers and that takes the
    /// fewest inputs, so that what is right so far shows early.
    cases: Vec<usize>,
    /// Who asks without the right token hears nothing else: a 404 behind it is nearer than a 401.
    token_first: bool,
}

impl<'a> Search<'a> {
    pub(super) fn new(
        task: &'a Task<'a>,
        budget: Budget,
        strategy: Strategy,
        random_seed: u64,
    ) -> Self {
        let mut cases: Vec<usize> = (0..task.cases.len()).collect();
        cases.sort_by_key(|index| {
            let case = &task.cases[*index];
            (case.expect.refusal, case.input.len())
        });
        let mut search = Self {
            budget,
            strategy,
            context: Context::new(task.seed, task.knowledge, task.cases),
            random: StdRng::seed_from_u64(random_seed),
            credit: Credit::new(strategy == Strategy::Evolve),
            variants: Vec::new(),
            known: HashSet::new(),
            digests: HashMap::new(),
            population: Vec::new(),
            queue: VecDeque::new(),
            running: None,
            generation: 0,
            calls: 0,
            progress: Vec::new(),
            ended: None,
            cases,
            token_first: false,
            task,
        };
        search.begin();
        search
    }

    fn begin(&mut self) {
        let Some(genome) = Genome::of(self.task.seed) else {
            self.ended = Some(Ended::NotSearchable);
            return;
        };
        self.known.insert(genome.key());
        let kept = self.task.archive.of_package(self.task.seed);
        let kept: Vec<(Genome, Vec<String>)> = kept
            .into_iter()
            .filter_map(|scored| Some((Genome::of(&scored.package)?, scored.operators.clone())))
            .collect();
        if let Ok((digest, _)) = self.task.seed.pack() {
            self.push(Variant {
                package: self.task.seed.clone(),
                digest,
                genome,
                parents: Vec::new(),
                made: Vec::new(),
                operators: Vec::new(),
                generation: 0,
                seen: vec![Vec::new(); self.task.cases.len()],
                complete: false,
                confirmed: false,
            });
        }
        if self.variants.is_empty() {
            self.ended = Some(Ended::NotSearchable);
        } else if self.task.cases.is_empty() {
            self.ended = Some(Ended::NoCases);
        } else if self.context.knowledge.writes.permit(self.task.seed) {
            self.population.push(0);
            self.queue.push_back(0);
        } else {
            self.ended = Some(Ended::NotAllowed);
        }
        if self.ended.is_none() {
            for (genome, operators) in kept {
                self.add(genome, vec![0], vec![(Class::Invalid, "archive", None)], operators);
            }
        }
    }

    /// The next call: a package and the case that it has to run. [`None`] when a new generation is
    /// due, or the search is over.
    pub(super) fn next_call(&mut self) -> Option<(&Package, &'a Case)> {
        if self.ended.is_some() {
            return None;
        }
        if self.calls >= self.budget.calls {
            self.ended = Some(Ended::Budget);
            return None;
        }
        while self.running.as_ref().is_none_or(|running| running.order.is_empty()) {
            if self.running.take().is_some() {
                continue;
            }
            let variant = self.queue.pop_front()?;
            self.running = Some(self.plan(variant));
        }
        let running = self.running.as_ref()?;
        let case = *running.order.front()?;
        Some((&self.variants[running.variant].package, &self.task.cases[case]))
    }

    /// Which cases of a variant are run, in which order.
    fn plan(&self, variant: usize) -> Running {
        let all: VecDeque<usize> = self.cases.iter().copied().collect();
        let plain = Running { variant, order: all, probes: Vec::new(), confirms: false };
        let Some(parent) = self.variants[variant].parents.first().map(|at| &self.variants[*at])
        else {
            return plain;
        };
        let first = self.cases[0];
        if !(parent.complete && passes(&parent.seen[first])) {
            return plain;
        }
        // What the parent fails comes first: a child that does no better there is given up.
        let fails = |case: &usize| !passes(&parent.seen[*case]);
        let probes: Vec<(usize, f64)> = self
            .cases
            .iter()
            .copied()
            .filter(fails)
            .take(2)
            .map(|case| (case, self.grade(&parent.seen[case])))
            .collect();
        let mut order: VecDeque<usize> = probes.iter().map(|(case, _)| *case).collect();
        order.extend(self.cases.iter().filter(|case| !probes.iter().any(|(p, _)| p == *case)));
        Running { variant, order, probes, confirms: false }
    }

    /// What the last call showed.
    pub(super) fn tell(&mut self, seen: Seen) {
        let Some(mut running) = self.running.take() else { return };
        let Some(case) = running.order.pop_front() else { return };
        self.calls += 1;
        self.context.learn(&seen);
        let passed = seen.passed();
        let at = running.variant;
        self.variants[at].seen[case].push(seen);
        if running.confirms {
            if running.order.is_empty() {
                let variant = &mut self.variants[at];
                variant.confirmed = variant.seen.iter().all(|runs| passes(runs));
                if variant.confirmed {
                    self.finish_generation();
                    self.ended = Some(Ended::Solved);
                }
            } else {
                self.running = Some(running);
            }
            return;
        }
        let variant = &self.variants[at];
        let is_first = case == self.cases[0] && variant.seen.iter().flatten().count() == 1;
        let hopeless = at != 0
            && if running.probes.is_empty() {
                is_first && !passed
            } else {
                let tried = |(case, _): &&(usize, f64)| !variant.seen[*case].is_empty();
                running.probes.iter().all(|probe| tried(&probe))
                    && running.probes.iter().all(|(case, before)| {
                        self.grade(&variant.seen[*case]) <= *before + f64::EPSILON
                    })
            };
        if hopeless {
            self.settle(at);
            return;
        }
        if running.order.is_empty() {
            self.variants[at].complete = true;
            self.settle(at);
            if self.variants[at].seen.iter().all(|runs| passes(runs)) {
                running.confirms = true;
                running.order = self.cases.iter().copied().collect();
                self.running = Some(running);
            }
        } else {
            self.running = Some(running);
        }
    }

    /// A variant was run: its operators get what they deserve.
    fn settle(&mut self, at: usize) {
        let Some(parent) = self.variants[at].parents.first().copied() else { return };
        let made = &self.variants[at].made;
        let only_token = made
            .iter()
            .all(|(class, _, operator)| (*class, *operator) == (Class::Auth, Some(Operator::Auth)));
        self.token_first |= only_token && self.class(at) == Class::NotFound;
        let helped = self.rank(at) > self.rank(parent);
        for (class, _, operator) in self.variants[at].made.clone() {
            if let Some(operator) = operator {
                self.credit.add(class, operator, helped);
            }
        }
    }

    /// The best variant so far, and what it fails.
    pub(super) fn failing(&self) -> (&Package, Vec<Trace>) {
        let best = &self.variants[self.best()];
        let trace = |(case, runs): (&Case, &Vec<Seen>)| {
            let seen = runs.iter().find(|seen| !seen.passed())?;
            let failure = seen.failure.as_ref()?;
            Some(Trace {
                input: case.input.clone(),
                status: seen.status,
                code: failure.code.clone(),
                detail: failure.detail.clone(),
            })
        };
        let traces = self.task.cases.iter().zip(&best.seen).filter_map(trace).collect();
        (&best.package, traces)
    }

    pub(super) fn is_over(&self) -> bool {
        self.ended.is_some()
    }

    /// The search is called off.
    pub(super) fn cancel(&mut self) {
        self.ended = Some(Ended::Cancelled);
    }

    fn class(&self, at: usize) -> Class {
        let first = self.cases.iter().flat_map(|case| &self.variants[at].seen[*case]);
        first.map(Class::of).find(|class| *class != Class::Right).unwrap_or(Class::Right)
    }

    /// How near the worst run of a case came to a right answer; 0 when it was not run.
    fn grade(&self, runs: &[Seen]) -> f64 {
        let grade = |seen: &Seen| match Class::of(seen) {
            Class::Auth if self.token_first => Class::Invalid.grade(0.0),
            class => class.grade(seen.close),
        };
        runs.iter().map(grade).min_by(f64::total_cmp).unwrap_or(0.0)
    }

    fn rank(&self, at: usize) -> Rank {
        let variant = &self.variants[at];
        let first = &variant.seen[self.cases[0]];
        let works = passes(first);
        let passed = variant.seen.iter().filter(|runs| passes(runs)).count();
        let grades: f64 = if works && variant.complete {
            variant.seen.iter().map(|runs| self.grade(runs)).sum()
        } else {
            self.grade(first)
        };
        Rank {
            works: works && variant.complete,
            passed: if works && variant.complete { passed } else { 0 },
            grades,
            confirmed: variant.confirmed,
        }
    }

    /// The variant that passes most; of equal ones the one with the fewest changes.
    fn best(&self) -> usize {
        let mut best = 0;
        for at in 1..self.variants.len() {
            let (new, old) = (self.rank(at), self.rank(best));
            let simpler = || {
                let size = |at: usize| (self.variants[at].operators.len(), at);
                size(at) < size(best)
            };
            let order = new.order(&old);
            // Only what ran all cases can be handed on.
            if self.variants[at].complete && (order.is_gt() || (order.is_eq() && simpler())) {
                best = at;
            }
        }
        best
    }

    fn finish_generation(&mut self) {
        let best = &self.variants[self.best()];
        self.progress.push(Progress {
            generation: self.generation,
            calls: self.calls,
            best: best.digest.clone(),
            package: best.package.clone(),
        });
    }
}

/// What orders variants.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
struct Rank {
    /// The first case passes. Without it a variant that answers nothing would be praised for its
    /// refusals.
    works: bool,
    passed: usize,
    grades: f64,
    confirmed: bool,
}

impl Rank {
    fn order(&self, other: &Self) -> std::cmp::Ordering {
        self.partial_cmp(other).unwrap_or(std::cmp::Ordering::Equal)
    }
}

/// Whether a case was run and passed each time.
fn passes(runs: &[Seen]) -> bool {
    !runs.is_empty() && runs.iter().all(Seen::passed)
}
