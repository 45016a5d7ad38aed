//! How variants come about: who goes on, and what their children are.

use std::{
    collections::{BTreeMap, HashMap},
    iter::Peekable,
    vec::IntoIter,
};

use rand::RngExt as _;

use super::{
    super::{
        Ended, Strategy,
        genome::Genome,
        moves::{self, Move},
        operators::Operator,
        told::told,
        world::{Class, Seen},
    },
    Rank, Search, Variant,
};
use crate::skill::package::Package;

/// How often a new variant is tried for before the search is taken to be exhausted.
const PATIENCE: usize = 200;
/// How many operators more a variant may have to be taken instead of an equal one.
const DRIFT: f64 = 1.5;
/// The share of children by chance that have two parents.
const RECOMBINED: f64 = 0.15;
/// One of so many children comes about by chance.
const ROLLED: usize = 4;
/// What a parent's changes are worth beside those of the parent before it.
const STANDING: f64 = 0.6;
/// What one more change of the same kind is worth in one generation.
const AGAIN: f64 = 0.85;

impl Search<'_> {
    /// Makes the next generation. Says whether there is anything new to run.
    pub(in crate::building::search) fn breed(&mut self) -> bool {
        if self.ended.is_some() {
            return false;
        }
        self.finish_generation();
        self.select();
        self.generation += 1;
        if self.generation > self.budget.generations {
            self.ended = Some(Ended::Generations);
            return false;
        }
        if self.strategy != Strategy::Random {
            self.likely_children();
        }
        let mut tries = 0;
        while self.queue.len() < self.budget.children {
            tries += 1;
            if tries > PATIENCE {
                break;
            }
            self.child();
        }
        if self.queue.is_empty() {
            self.ended = Some(Ended::Exhausted);
        }
        !self.queue.is_empty()
    }

    /// The μ best so far. Of equal ones, those nearest to the seed have better chances, and those that
    /// a server answers unlike the others: a 404 of another form may be one from within the right
    /// path. But no more than chances: where nothing tells variants apart, the search still moves on.
    fn select(&mut self) {
        if self.strategy == Strategy::Random {
            return;
        }
        let first = self.cases[0];
        let form = |variant: &Variant| variant.seen[first].first().map(Seen::form);
        let mut forms: HashMap<String, u32> = HashMap::new();
        for form in self.variants.iter().filter_map(form) {
            *forms.entry(form).or_default() += 1;
        }
        let mut all: Vec<(Rank, f64, usize)> = Vec::new();
        for at in 0..self.variants.len() {
            let variant = &self.variants[at];
            if variant.complete || !variant.seen[first].is_empty() {
                let alike = form(variant).and_then(|form| forms.get(&form)).copied().unwrap_or(1);
                let far = variant.operators.len() as f64
                    + f64::from(alike).ln()
                    + DRIFT * self.random.random::<f64>();
                all.push((self.rank(at), far, at));
            }
        }
        all.sort_by(|a, b| b.0.order(&a.0).then(a.1.total_cmp(&b.1)));
        all.truncate(self.budget.parents);
        self.population = all.into_iter().map(|(_, _, at)| at).collect();
    }

    /// The changes that are worth most, of all parents: by what the failure is like, by what helped so
    /// far, and by how likely each is among its own kind.
    fn likely_children(&mut self) {
        let mut lists: Vec<(f64, usize, Class, Peekable<IntoIter<Move>>)> = Vec::new();
        for (place, parent) in self.population.iter().copied().enumerate() {
            let class = self.class(parent);
            let variant = &self.variants[parent];
            let runs = self.cases.iter().flat_map(|case| &variant.seen[*case]);
            let seen = runs.into_iter().find(|seen| !seen.passed());
            let standing = STANDING.powi(i32::try_from(place).unwrap_or(i32::MAX));
            for operator in Operator::ALL {
                let worth = standing * self.credit.weight(class, operator);
                let moves = moves::of(operator, &variant.genome, seen, &self.context);
                lists.push((worth, parent, class, moves.into_iter().peekable()));
            }
        }
        let wanted = self.budget.children - self.budget.children / ROLLED;
        let mut taken: BTreeMap<Operator, i32> = BTreeMap::new();
        while self.queue.len() < wanted {
            // The next one of the same kind is worth less, so that a generation tries several.
            let worth = |(worth, _, _, moves): &mut (f64, _, _, Peekable<IntoIter<Move>>)| {
                let next = moves.peek()?;
                let again = taken.get(&next.operator).copied().unwrap_or_default();
                Some(*worth * next.weight * AGAIN.powi(again))
            };
            let best = lists
                .iter_mut()
                .enumerate()
                .filter_map(|(at, list)| Some((worth(list)?, at)))
                .max_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(&a.1)));
            let Some((_, at)) = best else { break };
            let (_, parent, class, moves) = &mut lists[at];
            let (parent, class) = (*parent, *class);
            let Some(Move { operator, genome, .. }) = moves.next() else { break };
            let mut operators = self.variants[parent].operators.clone();
            operators.push(told(operator.name(), &self.variants[parent].genome, &genome));
            let made = vec![(class, operator.name(), Some(operator))];
            if self.add(genome, vec![parent], made, operators) {
                *taken.entry(operator).or_default() += 1;
            }
        }
    }

    /// A child by chance.
    fn child(&mut self) {
        let parent = if self.strategy == Strategy::Random {
            0
        } else {
            // The first one half of the time, the second one half of the rest, …
            let passed = self.population.iter().position(|_| self.random.random_bool(0.5));
            self.population[passed.unwrap_or(0)]
        };
        let class = self.class(parent);
        let mut genome = self.variants[parent].genome.clone();
        let mut parents = vec![parent];
        let (mut made, mut words) = (Vec::new(), Vec::new());
        if self.strategy != Strategy::Random
            && self.population.len() > 1
            && self.random.random_bool(RECOMBINED)
        {
            let other = self.population[self.random.random_range(0..self.population.len())];
            if other != parent
                && let Some(both) = self.recombined(parent, other)
            {
                words.push(told("recombine", &genome, &both));
                genome = both;
                parents.push(other);
                made.push((class, "recombine", None));
            }
        }
        let steps = match self.random.random_range(0..10) {
            0..=5 => 1,
            6..=8 => 2,
            _ => 3,
        };
        for _ in 0..steps {
            let operator = if self.strategy == Strategy::Random {
                Operator::ALL[self.random.random_range(0..Operator::ALL.len())]
            } else {
                self.credit.choose(class, &mut self.random)
            };
            if let Some(next) = operator.apply(&genome, &self.context, &mut self.random) {
                words.push(told(operator.name(), &genome, &next));
                genome = next;
                made.push((class, operator.name(), Some(operator)));
            }
        }
        if !made.is_empty() {
            let mut operators = self.variants[parent].operators.clone();
            operators.append(&mut words);
            self.add(genome, parents, made, operators);
        }
    }

    /// Each part from one of two parents.
    fn recombined(&mut self, one: usize, other: usize) -> Option<Genome> {
        let mut both = self.variants[one].genome.clone();
        let other = &self.variants[other].genome;
        if both.is_composed() || other.is_composed() {
            return None;
        }
        let mut take = || self.random.random_bool(0.5);
        if take() {
            both.method = other.method;
        }
        if take() {
            (both.base, both.path) = (other.base.clone(), other.path.clone());
            both.call.server.clone_from(&other.call.server);
        }
        if take() {
            both.headers.clone_from(&other.headers);
        }
        if take() {
            both.auth_ref.clone_from(&other.auth_ref);
            both.call.auth_scheme.clone_from(&other.call.auth_scheme);
        }
        if take() {
            both.call.query.clone_from(&other.call.query);
            both.call.headers.clone_from(&other.call.headers);
            both.call.body.clone_from(&other.call.body);
            both.call.content_type.clone_from(&other.call.content_type);
        }
        if take() {
            both.call.output.clone_from(&other.call.output);
        }
        Some(both)
    }

    /// Takes up a genome that is new and may be tried; it is run after the others. Says whether it was.
    pub(super) fn add(
        &mut self,
        genome: Genome,
        parents: Vec<usize>,
        made: Vec<(Class, &'static str, Option<Operator>)>,
        operators: Vec<String>,
    ) -> bool {
        if !self.context.allows(&genome) || !self.known.insert(genome.key()) {
            return false;
        }
        let root = &self.variants[0];
        let replaced = root.package.provenance.as_ref().and_then(|made| made.parent.clone());
        let origin = replaced.unwrap_or_else(|| root.digest.as_str().to_owned());
        let Ok(package) = genome.package(self.task.seed, vec![origin], operators.clone()) else {
            return false;
        };
        let Ok((digest, _)) = package.pack() else { return false };
        let at = self.push(Variant {
            package,
            digest,
            genome,
            parents,
            made,
            operators,
            generation: self.generation,
            seen: vec![Vec::new(); self.task.cases.len()],
            complete: false,
            confirmed: false,
        });
        self.queue.push_back(at);
        true
    }

    pub(super) fn push(&mut self, variant: Variant) -> usize {
        self.digests.insert(variant.digest.clone(), self.variants.len());
        self.variants.push(variant);
        self.variants.len() - 1
    }

    /// Variants that somebody else thought of: their calls only, nothing else of them is taken over.
    pub(in crate::building::search) fn offer(&mut self, proposals: &[Package]) {
        let parent = self.population.first().copied().unwrap_or_default();
        let class = self.class(parent);
        for package in proposals.iter().take(self.budget.children) {
            if let Some(genome) = Genome::of(package) {
                let mut operators = self.variants[parent].operators.clone();
                operators.push(told("model", &self.variants[parent].genome, &genome));
                self.add(genome, vec![parent], vec![(class, "model", None)], operators);
            }
        }
    }
}
