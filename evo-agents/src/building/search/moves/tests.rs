//! What is tried first.

use evo_common::skill::HttpMethod;

use super::*;
use crate::building::search::{
    tests::{Bench, broken},
    world::Seen,
};

/// The likeliest change of an operator for the right package with these faults.
fn first(operator: Operator, faults: &[usize], seen: &Seen) -> Option<Move> {
    let (bench, seed) = (Bench::new(), broken(faults));
    let context = Context::new(&seed, &bench.knowledge, &bench.cases);
    let genome = Genome::of(&seed).unwrap();
    let moves = of(operator, &genome, Some(seen), &context);
    assert!(moves.iter().all(|one| one.genome != genome && (0.0..=1.0).contains(&one.weight)));
    assert!(moves.is_sorted_by(|a, b| a.weight >= b.weight));
    moves.into_iter().next()
}

#[test]
fn a_prefix_that_the_other_paths_have_comes_first() {
    let prefixed = first(Operator::BaseUrl, &[0], &Seen::default()).unwrap();
    assert_eq!(prefixed.genome.path, "/api/customers/{customer}/orders");
}

#[test]
fn a_word_that_is_nearly_a_known_one_and_a_link_come_first() {
    let word = first(Operator::Path, &[3], &Seen::default()).unwrap();
    assert_eq!(word.genome.path, "/api/customers/{customer}/orders");
    let moved = Seen { moved_to: Some("/v2/orders".to_owned()), ..Seen::default() };
    let moved = first(Operator::Path, &[3], &moved).unwrap();
    assert_eq!(moved.genome.path, "/v2/orders");
    assert_eq!(moved.genome.call.query["customer"], "{customer}", "what the path held has a place");
}

#[test]
fn the_names_that_answers_tell_come_first() {
    // The train cases' answers repeat the input under this name.
    let named = first(Operator::Name, &[2], &Seen::default()).unwrap();
    assert!(named.genome.call.query.contains_key("limit"), "{:?}", named.genome.call.query);
}

#[test]
fn a_token_of_the_other_skills_comes_first_and_no_forbidden_method_at_all() {
    let shown = first(Operator::Auth, &[1], &Seen::default()).unwrap();
    assert_eq!(shown.genome.auth_ref.as_deref(), Some("SHOP_TOKEN"));
    let allow = Seen { allow: vec![HttpMethod::Post], ..Seen::default() };
    assert!(first(Operator::Verb, &[0], &allow).is_none());
}
