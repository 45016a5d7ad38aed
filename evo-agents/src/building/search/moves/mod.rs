//! The single changes that are worth a try, with how likely each is: what operators do when they
//! don't roll dice. Everything comes from what is known (other skills of the source, the skill's own
//! texts, its train cases) and from what the last answer said.

pub(super) mod address;
mod inputs;
mod protocol;
#[cfg(test)]
mod tests;

use super::{genome::Genome, knowledge::Context, operators::Operator, world::Seen};

/// Most changes of one kind that are listed.
const MAX_LISTED: usize = 200;

/// A change, and what comes of it.
#[derive(Debug, Clone)]
pub(super) struct Move {
    pub(super) operator: Operator,
    /// From 0 to 1: how likely it is the right one, among those of its operator.
    pub(super) weight: f64,
    pub(super) genome: Genome,
}

/// Collects changes of one operator.
struct List<'a> {
    start: &'a Genome,
    found: Vec<(f64, Genome)>,
}

impl List<'_> {
    fn add(&mut self, weight: f64, genome: Genome) {
        if weight > 0.0 && genome != *self.start {
            self.found.push((weight.min(1.0), genome));
        }
    }

    /// Adds the start with something changed.
    fn set(&mut self, weight: f64, change: impl FnOnce(&mut Genome)) {
        let mut genome = self.start.clone();
        change(&mut genome);
        self.add(weight, genome);
    }

    /// Adds the start with something changed; nothing when it can't be.
    fn change(&mut self, weight: f64, change: impl FnOnce(&mut Genome) -> Option<()>) {
        let mut genome = self.start.clone();
        if change(&mut genome).is_some() {
            self.add(weight, genome);
        }
    }
}

/// The changes that an operator has for a genome, the likeliest first. `seen` is an answer that was
/// not right.
pub(super) fn of(
    operator: Operator,
    genome: &Genome,
    seen: Option<&Seen>,
    context: &Context<'_>,
) -> Vec<Move> {
    if genome.is_composed() {
        return Vec::new();
    }
    let nothing = Seen::default();
    let seen = seen.unwrap_or(&nothing);
    let mut list = List { start: genome, found: Vec::new() };
    match operator {
        Operator::BaseUrl => address::base_url(&mut list, context),
        Operator::Path => address::path(&mut list, seen, context),
        Operator::Verb => address::verb(&mut list, seen, context),
        Operator::Location => inputs::location(&mut list, seen, context),
        Operator::Name => inputs::name(&mut list, seen, context),
        Operator::Body => inputs::body(&mut list, seen, context),
        Operator::Omit => inputs::omit(&mut list, seen, context),
        Operator::ListStyle => inputs::list_style(&mut list, context),
        Operator::ContentType => protocol::content_type(&mut list, context),
        Operator::Accept => protocol::accept(&mut list, context),
        Operator::Auth => protocol::auth(&mut list, context),
        Operator::Timeout => protocol::timeout(&mut list),
        Operator::Retry => protocol::retry(&mut list),
        Operator::Output => protocol::output(&mut list, seen, context),
        Operator::Success => protocol::success(&mut list, context),
        Operator::Pagination | Operator::Compose => {}
    }
    let mut found = list.found;
    found.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut moves: Vec<Move> = Vec::new();
    for (weight, mut genome) in found {
        genome.name_inputs(context.seed);
        let is_new = moves.iter().all(|known| known.genome != genome);
        if is_new && moves.len() < MAX_LISTED {
            moves.push(Move { operator, weight, genome });
        }
    }
    moves
}
