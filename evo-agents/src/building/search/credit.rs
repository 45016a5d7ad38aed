//! Which operator is tried next: what a failure is like suggests some, and those that helped are
//! tried more often.

use std::collections::BTreeMap;

use rand::{RngExt as _, rngs::StdRng};

use super::{operators::Operator, world::Class};

/// Tries and successes of each operator, by what the failure was like.
#[derive(Debug, Default)]
pub(super) struct Credit {
    counts: BTreeMap<(Class, Operator), (u32, u32)>,
    /// Whether failures suggest operators; else all are alike at first.
    hints: bool,
}

impl Credit {
    pub(super) fn new(hints: bool) -> Self {
        Self { counts: BTreeMap::new(), hints }
    }

    /// Counts a try.
    pub(super) fn add(&mut self, class: Class, operator: Operator, helped: bool) {
        let (tried, won) = self.counts.entry((class, operator)).or_default();
        *tried += 1;
        *won += u32::from(helped);
    }

    /// An operator for a failure, with chances in proportion to its weight.
    pub(super) fn choose(&self, class: Class, random: &mut StdRng) -> Operator {
        let weights = Operator::ALL.map(|operator| self.weight(class, operator));
        let mut left = random.random::<f64>() * weights.iter().sum::<f64>();
        for (operator, weight) in Operator::ALL.into_iter().zip(weights) {
            left -= weight;
            if left < 0.0 {
                return operator;
            }
        }
        Operator::ALL[Operator::ALL.len() - 1]
    }

    /// How much a failure and what was tried before speak for an operator.
    pub(super) fn weight(&self, class: Class, operator: Operator) -> f64 {
        let (tried, won) = self.counts.get(&(class, operator)).copied().unwrap_or_default();
        // Laplace's rule, so that none is ever given up; ½ without a try.
        let success = (f64::from(won) + 1.0) / (f64::from(tried) + 2.0);
        // Operators have several moves: a few failures say little about the rest of them.
        let success = success.max(0.1);
        if self.hints { hint(class, operator) * success } else { success }
    }
}

/// How much a failure speaks for an operator, before anything was tried.
fn hint(class: Class, operator: Operator) -> f64 {
    use Operator as O;
    let listed: &[(Operator, f64)] = match class {
        Class::Invalid => &[(O::Path, 2.0), (O::Name, 1.0), (O::Omit, 1.0), (O::BaseUrl, 1.0)],
        Class::NoAnswer => &[(O::BaseUrl, 4.0), (O::Timeout, 3.0), (O::Retry, 3.0), (O::Path, 2.0)],
        Class::NotFound => &[(O::Path, 8.0), (O::BaseUrl, 7.0), (O::Location, 1.0), (O::Verb, 1.0)],
        Class::Server => &[
            (O::Location, 2.0),
            (O::Name, 2.0),
            (O::Body, 1.0),
            (O::ContentType, 1.0),
            (O::Retry, 2.0),
            (O::Omit, 1.0),
            (O::Path, 1.0),
        ],
        Class::Verb => &[(O::Verb, 8.0), (O::Path, 3.0)],
        Class::Auth => &[(O::Auth, 8.0), (O::Location, 1.0), (O::Path, 1.0), (O::BaseUrl, 0.5)],
        Class::Media => &[(O::ContentType, 5.0), (O::Accept, 5.0), (O::Body, 1.0)],
        Class::Input => &[
            (O::Name, 4.0),
            (O::Location, 3.0),
            (O::Body, 2.0),
            (O::ContentType, 1.5),
            (O::ListStyle, 1.0),
            (O::Omit, 1.5),
            (O::Path, 1.0),
            (O::Pagination, 1.0),
        ],
        Class::Status => &[(O::Verb, 2.0), (O::Path, 2.0), (O::Success, 2.0), (O::Name, 1.0)],
        Class::Type => &[(O::Accept, 6.0), (O::Path, 2.0), (O::Omit, 1.5), (O::Name, 1.0)],
        Class::Answer | Class::Right => &[
            (O::Name, 4.0),
            (O::Location, 3.0),
            (O::Body, 2.0),
            (O::ContentType, 1.5),
            (O::Omit, 2.0),
            (O::Path, 2.0),
            (O::Output, 2.5),
            (O::ListStyle, 1.5),
            (O::Pagination, 1.0),
            (O::Verb, 1.0),
            (O::Accept, 1.0),
        ],
    };
    listed.iter().find(|(listed, _)| *listed == operator).map_or(0.15, |(_, weight)| *weight)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    fn share(credit: &Credit, class: Class, wanted: Operator) -> f64 {
        let mut random = StdRng::seed_from_u64(7);
        let chosen = (0..4_000).filter(|_| credit.choose(class, &mut random) == wanted).count();
        chosen as f64 / 4_000.0
    }

    #[test]
    fn failures_suggest_operators_and_success_makes_them_likelier() {
        let mut credit = Credit::new(true);
        assert!(share(&credit, Class::Verb, Operator::Verb) > 0.4);
        assert!(share(&credit, Class::Auth, Operator::Verb) < 0.1);
        let before = share(&credit, Class::Auth, Operator::Timeout);
        for _ in 0..20 {
            credit.add(Class::Auth, Operator::Timeout, true);
            credit.add(Class::Auth, Operator::Auth, false);
        }
        assert!(share(&credit, Class::Auth, Operator::Timeout) > before);
        let blind = Credit::new(false);
        assert!((share(&blind, Class::Verb, Operator::Verb) - 1.0 / 17.0).abs() < 0.03);
    }
}
