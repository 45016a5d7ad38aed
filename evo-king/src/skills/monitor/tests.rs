use proptest::prelude::*;

use super::*;

fn random(state: &mut u64) -> f64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
}

fn monitor() -> Monitor {
    // 20 of 20 let expect the highest rate.
    Monitor::new(Trials { passed: 20, total: 20 })
}

fn seen(agent: &str, badness: Badness, minute: i64) -> Observation<'_> {
    Observation { agent, badness, minute, baseline: None, beside: None }
}

fn call(state: &mut u64, rate: f64) -> Badness {
    if random(state) < rate { Badness::Good } else { Badness::Bad }
}

/// After how many reports a version that works this often is taken back, if within `most`.
fn until_taken_back(seed: u64, rate: f64, most: u32) -> Option<u32> {
    let (mut state, mut monitor) = (seed, monitor());
    (1..=most).find(|_| monitor.observe(&seen("a", call(&mut state, rate), 0)) == Finding::Worse)
}

fn median(rate: f64) -> u32 {
    let mut found: Vec<u32> =
        (0..2_001).map(|seed| until_taken_back(seed, rate, 10_000).unwrap()).collect();
    found.sort_unstable();
    found[found.len() / 2]
}

#[test]
fn what_fails_is_taken_back_as_soon_as_published() {
    assert_eq!(median(0.0), 6);
    // Half of them need 13 or fewer, by a hair.
    assert!((13..=14).contains(&median(0.5)), "{}", median(0.5));
}

#[test]
fn what_works_as_expected_is_seldom_taken_back() {
    let runs = 2_000;
    let wrong = (0..runs).filter(|seed| until_taken_back(*seed, 0.95, 2_000).is_some()).count();
    let rate = wrong as f64 / runs as f64;
    assert!((0.02..=0.05).contains(&rate), "{rate}");
}

#[test]
fn the_expected_rate_lies_between_its_bounds() {
    for (passed, total, rate) in [(20, 20, 0.95), (0, 20, 0.75), (17, 20, 18.0 / 22.0)] {
        let expected = Monitor::new(Trials { passed, total }).expected;
        assert!((expected - rate).abs() < 1e-12, "{passed}/{total}: {expected}");
    }
}

#[test]
fn after_enough_reports_the_rate_of_the_version_before_is_expected() {
    let of = |reports: u64| {
        let mut monitor = monitor();
        let baseline = Some(Baseline { reports, bad: reports as f64 / 4.0 });
        let one = Observation { baseline, ..seen("a", Badness::Bad, 0) };
        monitor.observe(&one);
        monitor.sum
    };
    // Under p0 = .95 a failure says ln 4, under .75 less: ln 1.6.
    assert!((of(ENOUGH - 1) - 4_f64.ln()).abs() < 1e-9);
    assert!((of(10_000) - 1.6_f64.ln()).abs() < 1e-2, "{}", of(10_000));
}

#[test]
fn a_common_outage_takes_nothing_back() {
    // One call in `every` is the new version's, so many calls a minute.
    for (every, per_minute, failing, most) in
        [(10, 40, 1.0, 0), (10, 40, 0.5, 2), (2, 4, 1.0, 4), (2, 4, 0.5, 20), (2, 20, 0.5, 20)]
    {
        let (mut wrong, mut told) = (0, 0);
        for seed in 0..200 {
            let (mut state, mut monitor, mut beside) = (seed, monitor(), Minute::default());
            let mut found = Vec::new();
            for turn in 0..3_000_i64 {
                let minute = turn / per_minute;
                let rate = if (10..60).contains(&minute) { 1.0 - failing } else { 0.95 };
                if turn % every == every - 1 {
                    let one = Observation {
                        beside: Some(beside),
                        ..seen("a", call(&mut state, rate), minute)
                    };
                    found.push(monitor.observe(&one));
                } else {
                    beside.add(minute, call(&mut state, rate));
                }
            }
            wrong += u32::from(found.contains(&Finding::Worse));
            told += u32::from(found.contains(&Finding::Outage));
        }
        assert!(wrong <= most, "1 in {every}, {per_minute} a minute, {failing}: {wrong} of 200");
        assert!(told >= 190, "1 in {every}, {per_minute} a minute, {failing}: {told} of 200 told");
    }
}

#[test]
fn what_fails_alone_is_taken_back_beside_a_version_that_works() {
    let mut found: Vec<usize> = (0..501)
        .map(|seed| {
            let (mut state, mut monitor, mut beside) = (seed, monitor(), Minute::default());
            (1..1_000)
                .find(|turn| {
                    let minute = i64::from(*turn) / 4;
                    beside.add(minute, call(&mut state, 0.95));
                    let one = Observation {
                        beside: Some(beside),
                        ..seen("a", call(&mut state, 0.5), minute)
                    };
                    monitor.observe(&one) == Finding::Worse
                })
                .map(|turn| usize::try_from(turn).unwrap())
                .unwrap()
        })
        .collect();
    found.sort_unstable();
    assert!(found[found.len() / 2] <= 18, "median {}", found[found.len() / 2]);
}

#[test]
fn one_agent_is_at_most_half_of_the_evidence() {
    let mut monitor = monitor();
    let mut worse = 0;
    for turn in 0..2_000 {
        let (agent, badness) =
            if turn % 10 == 0 { ("good", Badness::Good) } else { ("bad", Badness::Bad) };
        worse += u32::from(monitor.observe(&seen(agent, badness, 0)) == Finding::Worse);
        assert!(monitor.sum <= THRESHOLD * LARGEST_PART + 1e-9, "{}", monitor.sum);
    }
    assert_eq!(worse, 0);
    // Two that both see it fail are enough.
    let told: Vec<Finding> = (0..20)
        .map(|turn| monitor.observe(&seen(["good", "bad"][turn % 2], Badness::Bad, 0)))
        .collect();
    assert!(told.contains(&Finding::Worse));
}

#[test]
fn the_only_one_who_reports_is_believed() {
    let mut monitor = monitor();
    monitor.observe(&seen("gone", Badness::Good, 0));
    let told = (0..60).find(|_| monitor.observe(&seen("left", Badness::Bad, 0)) == Finding::Worse);
    assert!(told.is_some_and(|turn| turn < 40), "{told:?}");
}

#[test]
fn it_is_told_once_and_told_again_when_it_is_over() {
    let mut monitor = monitor();
    let bad: Vec<Finding> = (0..50).map(|_| monitor.observe(&seen("a", Badness::Bad, 0))).collect();
    assert_eq!(bad.iter().filter(|found| **found == Finding::Worse).count(), 1);
    let good: Vec<Finding> =
        (0..100).map(|_| monitor.observe(&seen("a", Badness::Good, 0))).collect();
    assert_eq!(good.iter().filter(|found| **found == Finding::Recovered).count(), 1);
    assert_eq!(monitor.recent(), Trials { passed: 100, total: 100 });
}

fn badness() -> impl Strategy<Value = Badness> {
    prop_oneof![Just(Badness::Good), Just(Badness::Half), Just(Badness::Bad)]
}

proptest! {
    /// With one agent and nothing beside it, it is the textbook's sum.
    #[test]
    fn alone_it_is_the_plain_cumulative_sum(calls in proptest::collection::vec(badness(), 1..300)) {
        let (mut monitor, mut plain, mut over) = (monitor(), 0.0_f64, false);
        for badness in calls {
            let x = badness.value();
            let told = monitor.observe(&seen("a", badness, 0));
            plain = (plain + x * 4_f64.ln() + (1.0 - x) * (0.8_f64 / 0.95).ln()).max(0.0);
            // Beyond the threshold the sum stands still.
            plain = plain.min(THRESHOLD);
            prop_assert!((monitor.sum - plain).abs() < 1e-6, "{} {}", monitor.sum, plain);
            prop_assert_eq!(told == Finding::Worse, plain >= THRESHOLD && !over);
            over = if told == Finding::Recovered { false } else { over || plain >= THRESHOLD };
        }
    }

    /// Whatever is reported, by whomever: the sum is a number that is not negative, what is kept stays
    /// small and can be stored and read.
    #[test]
    fn any_reports_keep_it_in_bounds(
        calls in proptest::collection::vec((0_u8..60, badness(), 0_i64..20, proptest::option::of((0_i64..20, 0.0_f64..9.0, 0.0_f64..9.0))), 1..400),
    ) {
        let mut monitor = monitor();
        for (agent, badness, minute, beside) in calls {
            let agent = format!("agent-{agent}");
            let beside = beside.map(|(minute, reports, bad)| Minute { minute, reports, bad: bad.min(reports) });
            monitor.observe(&Observation { beside, ..seen(&agent, badness, minute) });
            prop_assert!(monitor.sum.is_finite() && monitor.sum >= 0.0);
            prop_assert!(monitor.parts.len() <= MAX_AGENTS + 1);
            prop_assert!(monitor.recent.len() <= RECENT);
        }
        let text = serde_json::to_string(&monitor).unwrap();
        let read: Monitor = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(read.reports, monitor.reports);
        prop_assert!((read.sum - monitor.sum).abs() < 1e-9);
    }

    /// A success is never evidence against a version, and a failure alone never one for it.
    #[test]
    fn evidence_has_the_right_sign(rate in 0.75_f64..=0.95) {
        prop_assert!(step(1.0, rate) > 0.0);
        prop_assert!(step(0.0, rate) < 0.0);
        // At the expected rate the sum tends to nothing, at the rate that is too low it grows.
        prop_assert!(rate * step(0.0, rate) + (1.0 - rate) * step(1.0, rate) < 0.0);
        let low = rate - DROP;
        prop_assert!(low * step(0.0, rate) + (1.0 - low) * step(1.0, rate) > 0.0);
    }
}
