use evo_common::evidence::{CapabilityTrials, IntegrationCheck, Latency};
use proptest::prelude::*;
use rand::{SeedableRng as _, rngs::StdRng};

use super::*;

fn evidence(passed: u32, total: u32) -> Evidence {
    Evidence {
        holdout: Trials { passed, total },
        novelty: 1.0,
        integration: vec![IntegrationCheck { name: "composes".to_owned(), holds: true }],
        ..Evidence::default()
    }
}

fn paired(better: u32, worse: u32, total: u32) -> Paired {
    Paired { worse, better, total, ..Paired::default() }
}

fn input(evidence: &Evidence, look: u32) -> PromotionInput<'_> {
    PromotionInput {
        evidence,
        has_incumbent: evidence.paired.is_some(),
        look,
        proposal: None,
        is_answer: false,
        earlier_failures: 0,
        passes_since_failure: 0,
        nearest_is_rival: false,
        latency_budget_ms: None,
    }
}

fn code(input: &PromotionInput<'_>) -> (Verdict, String) {
    let outcome = decide(input).outcome;
    assert!(outcome.reason.ends_with('.') || outcome.reason == "r", "{}", outcome.reason);
    (outcome.decision, outcome.code)
}

fn check(input: &PromotionInput<'_>, verdict: Verdict, expected: &str) {
    assert_eq!(code(input), (verdict, expected.to_owned()), "{input:?}");
}

#[test]
fn the_table_of_first_versions() {
    use Verdict::{Active, Discarded, Held};
    let table = [
        (20, 20, 1, Active, codes::PASSED),
        (18, 20, 1, Discarded, codes::FLAKY),
        (7, 20, 1, Discarded, codes::FLAKY),
        (6, 20, 1, Discarded, codes::BELOW_THRESHOLD),
        (20, 48, 2, Discarded, codes::BELOW_THRESHOLD),
        (0, 0, 1, Held, codes::NEED_MORE_EVIDENCE),
        (19, 19, 1, Held, codes::NEED_MORE_EVIDENCE),
        (19, 19, 5, Discarded, codes::NOT_ENOUGH_EVIDENCE),
    ];
    for (passed, total, look, verdict, expected) in table {
        check(&input(&evidence(passed, total), look), verdict, expected);
    }
}

#[test]
fn one_trial_may_fail_and_thirty_in_a_row_must_follow() {
    use Verdict::{Active, Discarded, Held};
    let table = [
        // passed, total, look, earlier failures, passes since
        (20, 20, 1, 0, 0, Active, codes::PASSED),
        (19, 20, 1, 0, 0, Held, codes::FLAKY),
        (19, 20, 1, 0, 99, Held, codes::FLAKY),
        (39, 40, 2, 1, 20, Held, codes::FLAKY),
        (49, 50, 2, 1, 30, Active, codes::PASSED),
        (59, 60, 3, 1, 40, Active, codes::PASSED),
        (48, 50, 2, 1, 12, Discarded, codes::FLAKY),
        (18, 20, 1, 0, 0, Discarded, codes::FLAKY),
        (5, 20, 1, 0, 0, Discarded, codes::BELOW_THRESHOLD),
        (99, 100, 5, 0, 0, Discarded, codes::NOT_ENOUGH_EVIDENCE),
        // A look that forgot the failure of an earlier one.
        (20, 20, 2, 1, 20, Held, codes::FLAKY),
    ];
    for (passed, total, look, earlier_failures, passes_since_failure, verdict, expected) in table {
        let evidence = evidence(passed, total);
        let input =
            PromotionInput { earlier_failures, passes_since_failure, ..input(&evidence, look) };
        check(&input, verdict, expected);
    }
}

#[test]
fn a_new_version_must_be_better_or_equal_and_faster() {
    use Verdict::{Active, Discarded, Held};
    let fast = Paired { latency_ratio_high: Some(0.9), ..paired(0, 0, 40) };
    let table = [
        (paired(8, 0, 20), 1, Active, codes::PASSED),
        (paired(7, 0, 20), 1, Held, codes::NEED_MORE_EVIDENCE),
        (paired(0, 0, 20), 1, Held, codes::NEED_MORE_EVIDENCE),
        (paired(0, 0, 20), 5, Discarded, codes::NO_IMPROVEMENT),
        (paired(0, 20, 20), 5, Discarded, codes::NO_IMPROVEMENT),
        (Paired { pinned_worse: 1, ..paired(15, 1, 20) }, 1, Discarded, codes::REGRESSION),
        (fast, 1, Active, codes::PASSED),
        (Paired { total: 39, ..fast }, 1, Held, codes::NEED_MORE_EVIDENCE),
        (Paired { worse: 1, ..fast }, 1, Held, codes::NEED_MORE_EVIDENCE),
        (Paired { latency_ratio_high: Some(0.91), ..fast }, 1, Held, codes::NEED_MORE_EVIDENCE),
        (Paired { latency_ratio_high: Some(f64::NAN), ..fast }, 1, Held, codes::NEED_MORE_EVIDENCE),
    ];
    for (paired, look, verdict, expected) in table {
        let evidence = Evidence { paired: Some(paired), ..evidence(40, 40) };
        check(&input(&evidence, look), verdict, expected);
    }
    let better_but_bad = Evidence { paired: Some(paired(10, 0, 20)), ..evidence(12, 20) };
    check(&input(&better_but_bad, 1), Discarded, codes::FLAKY);
}

#[test]
fn a_few_slow_calls_are_looked_at_again_and_slow_ones_end_it() {
    use Verdict::{Active, Discarded, Held};
    let table = [
        // fastest, half, 95 %, budget of king, look
        (5.0, 10.0, 250.0, None, 1, Active, codes::PASSED),
        (5.0, 10.0, 300.0, None, 1, Held, codes::LATENCY),
        (5.0, 10.0, 300.0, None, 5, Discarded, codes::LATENCY),
        // A machine that was busy in most of the calls.
        (240.0, 260.0, 300.0, None, 1, Held, codes::LATENCY),
        (260.0, 270.0, 300.0, None, 1, Discarded, codes::LATENCY),
        // What the evaluation says of the budget counts only when king knows nothing.
        (5.0, 10.0, 200.0, Some(100.0), 1, Held, codes::LATENCY),
        (150.0, 160.0, 200.0, Some(100.0), 1, Discarded, codes::LATENCY),
        (260.0, 270.0, 300.0, Some(400.0), 1, Active, codes::PASSED),
    ];
    for (fastest_ms, p50_ms, p95_ms, latency_budget_ms, look, verdict, expected) in table {
        let latency = Latency { fastest_ms, p50_ms, p95_ms, budget_ms: 250.0 };
        let slow = Evidence { latency, ..evidence(20, 20) };
        check(&PromotionInput { latency_budget_ms, ..input(&slow, look) }, verdict, expected);
    }
    assert!(may_look_again(codes::LATENCY) && !may_look_again(codes::NO_ORACLE));
}

#[test]
fn who_declares_retries_must_survive_faults() {
    use Verdict::{Active, Discarded};
    let table = [
        (5, 5, Active, codes::PASSED),
        (0, 0, Active, codes::PASSED),
        (4, 5, Active, codes::PASSED),
        (3, 5, Discarded, codes::FLAKY),
        (0, 5, Discarded, codes::FLAKY),
    ];
    for (passed, total, verdict, expected) in table {
        let faults = Evidence { faults: Trials { passed, total }, ..evidence(20, 20) };
        check(&input(&faults, 1), verdict, expected);
    }
    let few = Evidence { faults: Trials { passed: 4, total: 5 }, ..evidence(20, 20) };
    assert!(
        few.scores().reliability.low < evidence(20, 20).scores().reliability.low,
        "R counts them"
    );
}

#[test]
fn what_another_skill_of_the_source_does_already_is_no_new_skill() {
    let all = Evidence {
        novelty: 0.09,
        nearest: Some("api-list".to_owned()),
        integration: (0..5)
            .map(|part| IntegrationCheck { name: part.to_string(), holds: true })
            .collect(),
        ..evidence(20, 20)
    };
    check(&input(&all, 1), Verdict::Active, codes::PASSED);
    let rival = PromotionInput { nearest_is_rival: true, ..input(&all, 1) };
    check(&rival, Verdict::Discarded, codes::DUPLICATE);
    let version = Evidence { paired: Some(paired(20, 0, 20)), ..all };
    let rival = PromotionInput { nearest_is_rival: true, ..input(&version, 1) };
    check(&rival, Verdict::Active, codes::PASSED);
}

#[test]
fn half_of_the_train_cases_must_pass_whatever_the_runner_says() {
    let train = |passed| Evidence { train: Trials { passed, total: 8 }, ..evidence(20, 20) };
    check(&input(&train(4), 1), Verdict::Active, codes::PASSED);
    check(&input(&train(3), 1), Verdict::Discarded, codes::BELOW_THRESHOLD);
}

#[test]
fn what_followed_a_failure_is_counted_from_the_looks() {
    let trials = |passed, total| Trials { passed, total };
    assert_eq!(since_failure(trials(20, 20), trials(20, 20)), (0, 20));
    assert_eq!(since_failure(trials(19, 20), trials(19, 20)), (0, 0));
    assert_eq!(since_failure(trials(49, 50), trials(30, 30)), (1, 30));
    assert_eq!(since_failure(trials(48, 50), trials(29, 30)), (1, 0));
    assert_eq!(trials_of_next_look(codes::FLAKY, 20), 30);
    assert_eq!(trials_of_next_look(codes::NEED_MORE_EVIDENCE, 20), 20);
}

#[test]
fn a_gate_ends_it_and_opens_nothing() {
    let gate = Outcome::discarded(codes::LATENCY, "r");
    let gated = Evidence { gate: Some(gate.clone()), ..evidence(20, 20) };
    assert_eq!(decide(&input(&gated, 1)).outcome, gate);
    let opened = Evidence { gate: Some(Outcome::active("r")), ..evidence(3, 20) };
    check(&input(&opened, 1), Verdict::Discarded, codes::BELOW_THRESHOLD);
}

#[test]
fn a_proposal_only_lowers() {
    let good = evidence(20, 20);
    let hold = Outcome::held(codes::NEED_MORE_EVIDENCE, "r");
    assert_eq!(decide(&PromotionInput { proposal: Some(&hold), ..input(&good, 1) }).outcome, hold);
    let bad = evidence(2, 20);
    let active = Outcome::active("r");
    for proposal in [&active, &hold] {
        let input = PromotionInput { proposal: Some(proposal), ..input(&bad, 1) };
        check(&input, Verdict::Discarded, codes::BELOW_THRESHOLD);
    }
}

#[test]
fn a_report_that_contradicts_itself_breaks_the_run() {
    let capability = |passed, total| CapabilityTrials {
        capability: "read".to_owned(),
        demand: 1.0,
        trials: Trials { passed, total },
    };
    let faults = [
        evidence(21, 20),
        evidence(u32::MAX, u32::MAX),
        Evidence { faults: Trials { passed: 1, total: 0 }, ..evidence(20, 20) },
        Evidence { capabilities: vec![capability(40, 40)], ..evidence(20, 20) },
        Evidence { capabilities: vec![capability(10, 10)], ..evidence(8, 20) },
        Evidence { paired: Some(paired(u32::MAX, u32::MAX, 20)), ..evidence(20, 20) },
        Evidence { paired: Some(paired(11, 10, 20)), ..evidence(20, 20) },
        Evidence {
            paired: Some(Paired { pinned_worse: 2, ..paired(10, 1, 20) }),
            ..evidence(20, 20)
        },
    ];
    for evidence in &faults {
        check(&input(evidence, 1), Verdict::Failed, codes::STAGE_FAILED);
    }
    let unpaired = evidence(20, 20);
    let version = PromotionInput { has_incumbent: true, ..input(&unpaired, 1) };
    check(&version, Verdict::Failed, codes::STAGE_FAILED);
    let versioned = Evidence { paired: Some(paired(20, 0, 20)), ..evidence(20, 20) };
    let first = PromotionInput { has_incumbent: false, ..input(&versioned, 1) };
    check(&first, Verdict::Failed, codes::STAGE_FAILED);
}

#[test]
fn the_sign_test_is_exact() {
    let table = [
        (0, 0, 1.0),
        (1, 0, 0.5),
        (8, 0, 1.0 / 256.0),
        (7, 0, 1.0 / 128.0),
        (9, 1, 11.0 / 1_024.0),
        (1, 1, 0.75),
        (0, 3, 1.0),
        (1, 2, 0.875),
    ];
    for (better, worse, expected) in table {
        let p = sign_test(better, worse);
        assert!((p - expected).abs() < 1e-12, "{better}:{worse} gives {p}");
    }
    assert!((sign_test(500_500, 499_500) - 0.158_8).abs() < 1e-3);
}

/// C(n, k) pᵏ (1 − p)ⁿ⁻ᵏ.
fn binomial(n: u32, k: u32, p: f64) -> f64 {
    let choose: f64 = (1..=k).map(|i| f64::from(n - k + i) / f64::from(i)).product();
    choose * p.powf(f64::from(k)) * (1.0 - p).powf(f64::from(n - k))
}

/// P(activate) at the first look: .95 92 %, .9 68 %, .8 21 %, .7 3.6 %, .6 .4 %, .5 .02 %.
#[test]
fn the_first_look_activates_as_often_as_published() {
    let table =
        [(0.95, 0.92), (0.9, 0.68), (0.8, 0.21), (0.7, 0.036), (0.6, 0.004), (0.5, 0.000_2)];
    for (p, published) in table {
        let active: f64 = (0..=20)
            .filter(|k| {
                let scores = evidence(*k, 20).scores();
                scores.overall.low >= THRESHOLD && scores.reliability.low >= THRESHOLD
            })
            .map(|k| binomial(20, k, p))
            .sum();
        let digits = if published >= 0.1 { 0.01 } else { published * 0.15 };
        assert!((active - published).abs() < digits, "p = {p}: {active} against {published}");
    }
}

/// Goes through the looks with a skill that passes each trial with probability `p`.
fn evolve(rng: &mut StdRng, p: f64) -> Verdict {
    let mut total = Trials::default();
    let (mut earlier_failures, mut passes_since_failure) = (0, 0);
    for look in 1..=LOOKS {
        let mut now = Trials::default();
        for _ in 0..FIRST_LOOK {
            now.add(rng.random_bool(p));
        }
        total = total.plus(now);
        if earlier_failures > 0 {
            passes_since_failure += now.passed;
        }
        let evidence = evidence(total.passed, total.total);
        let verdict = decide(&PromotionInput {
            earlier_failures,
            passes_since_failure,
            ..input(&evidence, look)
        });
        let verdict = verdict.outcome.decision;
        if verdict != Verdict::Held {
            return verdict;
        }
        earlier_failures += now.failed();
    }
    panic!("held after the last look");
}

fn activation_rate(p: f64) -> f64 {
    let mut rng = StdRng::seed_from_u64(7);
    let runs = 20_000;
    let active = (0..runs).filter(|_| evolve(&mut rng, p) == Verdict::Active).count();
    active as f64 / f64::from(runs)
}

/// What passes with p = .7 activates in less than .1 %, one with p = .99 in 94 %.
#[test]
fn the_rule_for_what_is_flaky_simulates_as_published() {
    assert!(activation_rate(0.7) < 0.001);
    // Looks of 20 ask for 40 passes where 30 are enough, which costs a little.
    let reliable = activation_rate(0.99);
    assert!((reliable - 0.94).abs() < 0.03, "{reliable}");
}

/// An equal candidate passes the sign test in .9 %, one that is better by .2 in 83 % by n = 100.
#[test]
fn the_sign_test_over_five_looks_simulates_as_published() {
    let rate = |incumbent: f64, candidate: f64| {
        let mut rng = StdRng::seed_from_u64(11);
        let runs = 20_000;
        let passes = (0..runs).filter(|_| {
            let (mut better, mut worse) = (0, 0);
            (1..=LOOKS).any(|look| {
                for _ in 0..FIRST_LOOK {
                    match (rng.random_bool(incumbent), rng.random_bool(candidate)) {
                        (false, true) => better += 1,
                        (true, false) => worse += 1,
                        _ => {}
                    }
                }
                improves(&paired(better, worse, look * FIRST_LOOK))
            })
        });
        passes.count() as f64 / f64::from(runs)
    };
    let equal = rate(0.7, 0.7);
    assert!(equal < 0.013, "{equal}");
    let better = rate(0.7, 0.9);
    assert!(better > 0.8, "{better}");
}

fn any_evidence() -> impl Strategy<Value = Evidence> {
    (
        0_u32..150,
        0_u32..150,
        -1.0_f64..2.0,
        proptest::collection::vec(any::<bool>(), 0..6),
        proptest::option::of((0_u32..40, 0_u32..40, 0_u32..3, proptest::option::of(0.0_f64..2.0))),
    )
        .prop_map(|(passed, failed, novelty, checks, pairs)| Evidence {
            holdout: Trials { passed, total: passed + failed },
            novelty,
            integration: checks
                .into_iter()
                .map(|holds| IntegrationCheck { name: "check".to_owned(), holds })
                .collect(),
            paired: pairs.map(|(better, worse, pinned_worse, latency_ratio_high)| Paired {
                pinned_worse: pinned_worse.min(worse),
                latency_ratio_high,
                ..paired(better, worse, better + worse + 5)
            }),
            ..Evidence::default()
        })
}

proptest! {
    /// What must hold of every activation, whatever the runner says.
    #[test]
    fn nothing_activates_without_its_evidence(
        evidence in any_evidence(), look in 1_u32..8, earlier_failures in 0_u32..3,
        passes_since_failure in 0_u32..60,
    ) {
        let propose = Outcome::active("r");
        let input = PromotionInput {
            earlier_failures, passes_since_failure, proposal: Some(&propose),
            ..input(&evidence, look)
        };
        let Decision { outcome, scores } = decide(&input);
        prop_assert_eq!(&scores, &evidence.scores());
        if outcome.decision == Verdict::Active {
            prop_assert!(evidence.holdout.total >= FIRST_LOOK);
            prop_assert!(scores.overall.low >= THRESHOLD && scores.reliability.low >= THRESHOLD);
            prop_assert!(evidence.paired.is_none_or(|p| p.pinned_worse == 0 && improves(&p)));
            prop_assert!(evidence.holdout.failed() <= 1);
        }
        if look >= LOOKS {
            prop_assert_ne!(outcome.decision, Verdict::Held);
        }
    }

    /// One trial more that passed instead of failed never makes the decision worse.
    #[test]
    fn more_passes_never_hurt(passed in 0_u32..100, failed in 1_u32..100, look in 1_u32..6) {
        let total = passed + failed;
        let less = evidence(passed, total);
        let more = evidence(passed + 1, total);
        let rank_of = |evidence: &Evidence| {
            rank(decide(&input(evidence, look)).outcome.decision)
        };
        prop_assert!(rank_of(&more) >= rank_of(&less));
    }

    #[test]
    fn the_sign_test_falls_with_every_win(better in 0_u32..300, worse in 0_u32..300) {
        let p = sign_test(better, worse);
        prop_assert!((0.0..=1.0).contains(&p));
        prop_assert!(sign_test(better + 1, worse) <= p + 1e-12);
        prop_assert!(sign_test(better, worse + 1) >= p - 1e-12);
    }
}
