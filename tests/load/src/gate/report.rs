//! What the gate's benchmark found.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use evo_common::{
    evidence::Trials,
    outcome::{Verdict, codes},
};
use serde::Serialize;

use super::{
    Counts,
    drive::Judged,
    mutants::{Class, Level, Mutant},
    rollback::Rollback,
    servers::Group,
};
use crate::{
    cli::say,
    machine::{self, Machine},
};

/// z of the intervals that are told: 95 %.
const Z: f64 = 1.96;
/// Most wrong decisions that are told one by one.
const MOST_TOLD: usize = 200;

/// A part of something, with Wilson's 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Rate {
    pub rate: f64,
    pub low: f64,
    pub high: f64,
    pub n: u32,
}

impl Rate {
    /// `passed` counts what is told of.
    pub fn of(trials: Trials) -> Self {
        let bounds = trials.wilson(Z);
        let rate = f64::from(trials.passed) / f64::from(trials.total.max(1));
        Self { rate, low: bounds.low, high: bounds.high, n: trials.total }
    }

    fn text(self) -> String {
        let Self { rate, low, high, n } = self;
        format!("{:.2} % [{:.2}..{:.2}] of {n}", rate * 100.0, low * 100.0, high * 100.0)
    }
}

/// What a candidate is in truth.
#[derive(Debug, Clone, Serialize)]
pub struct Entry {
    pub group: Group,
    pub skill: String,
    /// Absent for one that works.
    pub class: Option<Class>,
    pub level: Option<Level>,
    pub what: String,
}

impl Entry {
    /// A skill that works.
    pub fn right(group: Group, skill: &str) -> Self {
        Self { group, skill: skill.to_owned(), class: None, level: None, what: String::new() }
    }

    /// One that does not.
    pub fn mutant(group: Group, skill: &str, mutant: &Mutant) -> Self {
        Self {
            class: Some(mutant.class),
            level: Some(mutant.level),
            what: mutant.what.clone(),
            ..Self::right(group, skill)
        }
    }
}

/// A candidate and what became of it.
#[derive(Debug)]
pub struct Found {
    pub entry: Entry,
    pub judged: Judged,
}

impl Found {
    /// What is wrong about the decision, if anything.
    pub fn wrong(&self) -> Option<String> {
        let Self { entry, judged } = self;
        let wrong = match entry.class {
            Some(_) => judged.is_active(),
            None => is_discard(judged.outcome.decision),
        };
        wrong.then(|| {
            let what = match entry.class {
                Some(class) => format!("{class:?} at {:?}: {}", entry.level, entry.what),
                None => "a skill that works".to_owned(),
            };
            let outcome = &judged.outcome;
            let decision = outcome.decision.as_str();
            format!(
                "WRONG {} ({what}): {decision} {}: {}",
                entry.skill, outcome.code, outcome.reason
            )
        })
    }
}

fn is_discard(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Discarded | Verdict::Failed)
}

/// Everything that was found.
#[derive(Debug, Default)]
pub struct Tally {
    found: Vec<Found>,
    equivalent: Vec<Entry>,
    not_applicable: BTreeMap<Class, u32>,
    left_out: BTreeMap<Group, Counts>,
}

impl Tally {
    pub fn add(&mut self, found: Found) {
        self.found.push(found);
    }

    pub fn equivalent(&mut self, entry: Entry) {
        self.equivalent.push(entry);
    }

    pub fn not_applicable(&mut self, class: Class) {
        *self.not_applicable.entry(class).or_default() += 1;
    }

    pub fn left_out(&mut self, group: Group, skill: &str, why: &str, tell: bool) {
        if tell {
            say(&format!("{skill} is no skill that works: {why}"));
        }
        *self.left_out.entry(group).or_default().entry(why.to_owned()).or_default() += 1;
    }

    /// Skills of a group that work.
    pub fn right(&self, group: Group) -> usize {
        let right = |found: &&Found| found.entry.group == group && found.entry.class.is_none();
        self.found.iter().filter(right).count()
    }

    fn those(&self, wanted: impl Fn(&Entry) -> bool) -> Vec<&Found> {
        self.found.iter().filter(|found| wanted(&found.entry)).collect()
    }
}

/// How the decisions about some candidates were.
#[derive(Debug, Clone, Serialize)]
pub struct Decisions {
    pub n: usize,
    pub active: usize,
    pub discarded: usize,
    pub held: usize,
    /// By code, without those that became active.
    pub ended_by: Counts,
}

impl Decisions {
    fn of(found: &[&Found]) -> Self {
        let count = |wanted: fn(Verdict) -> bool| {
            found.iter().filter(|found| wanted(found.judged.outcome.decision)).count()
        };
        let mut ended_by = Counts::new();
        for found in found.iter().filter(|found| !found.judged.is_active()) {
            let outcome = &found.judged.outcome;
            let name = format!("{} {}", outcome.decision.as_str(), outcome.code);
            *ended_by.entry(name).or_default() += 1;
        }
        Self {
            n: found.len(),
            active: count(|verdict| verdict == Verdict::Active),
            discarded: count(is_discard),
            held: count(|verdict| verdict == Verdict::Held),
            ended_by,
        }
    }
}

/// One class of mutants.
#[derive(Debug, Clone, Serialize)]
pub struct ClassReport {
    pub class: Class,
    pub level: Level,
    pub false_activation: Rate,
    pub decisions: Decisions,
    /// Mutants that answer as the right skill does, which were not counted.
    pub equivalent: usize,
    /// Calls per decision.
    pub calls: f64,
}

/// One group of skills.
#[derive(Debug, Clone, Serialize)]
pub struct GroupReport {
    pub group: Group,
    /// Skills that work.
    pub correct: Decisions,
    pub mutants: usize,
    pub false_discard: Rate,
    pub false_activation: Rate,
    /// Operations that were not counted as skills that work, and why.
    pub left_out: Counts,
}

/// Another way to decide, on the same candidates.
#[derive(Debug, Clone, Serialize)]
pub struct Baseline {
    pub false_activation: Rate,
    pub false_discard: Rate,
}

/// Calls per decision.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Calls {
    pub mean: f64,
    pub p50: u32,
    pub p95: u32,
    pub mean_of_correct: f64,
    pub looks_mean: f64,
}

/// A goal, and what was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Goal {
    pub goal: &'static str,
    pub wanted: f64,
    pub measured: f64,
    pub met: bool,
}

/// The whole run.
#[derive(Debug, Serialize)]
pub struct Report {
    pub seed: u64,
    pub false_activation: Rate,
    pub false_discard: Rate,
    pub groups: Vec<GroupReport>,
    pub classes: Vec<ClassReport>,
    /// Skills to which a class does not apply.
    pub not_applicable: BTreeMap<String, u32>,
    pub calls_per_decision: Calls,
    pub rollback: Rollback,
    pub baselines: BTreeMap<&'static str, Baseline>,
    pub goals: Vec<Goal>,
    pub wrong: Vec<String>,
    pub seconds: f64,
    pub load: [f64; 3],
    pub machine: String,
    pub build: &'static str,
}

fn false_activation(found: &[&Found], active: impl Fn(&Found) -> bool) -> Rate {
    let mut trials = Trials::default();
    found.iter().filter(|found| found.entry.class.is_some()).for_each(|it| trials.add(active(it)));
    Rate::of(trials)
}

/// Of the skills that work and were decided about: how many were thrown away. A hold is no decision.
fn false_discard(found: &[&Found]) -> Rate {
    let mut trials = Trials::default();
    for found in found.iter().filter(|found| found.entry.class.is_none()) {
        let verdict = found.judged.outcome.decision;
        if verdict != Verdict::Held {
            trials.add(is_discard(verdict));
        }
    }
    Rate::of(trials)
}

impl Report {
    /// Puts together what was found.
    pub fn new(seed: u64, took: Duration, tally: Tally, rollback: Rollback) -> Self {
        let all = tally.those(|_| true);
        let wrong_in = false_activation(&all, |found| found.judged.is_active());
        let wrong_out = false_discard(&all);
        let goal =
            |goal, wanted, measured: f64| Goal { goal, wanted, measured, met: measured <= wanted };
        let goals = vec![
            goal("false activation", 0.01, wrong_in.rate),
            goal("false discard", 0.05, wrong_out.rate),
            goal(
                "reports until a skill that fails half of the time is rolled back, median",
                18.0,
                f64::from(rollback.half.median),
            ),
            goal("false rollback in 2,000 reports", 0.05, rollback.false_rollback.rate),
        ];
        let Machine { cores, processor, memory_mib, kernel, .. } = Machine::look();
        Self {
            seed,
            false_activation: wrong_in,
            false_discard: wrong_out,
            groups: groups(&tally),
            classes: classes(&tally),
            not_applicable: tally
                .not_applicable
                .iter()
                .map(|(class, count)| (name_of(class), *count))
                .collect(),
            calls_per_decision: calls(&all),
            baselines: baselines(&all),
            goals,
            wrong: all.iter().filter_map(|found| found.wrong()).take(MOST_TOLD).collect(),
            rollback,
            seconds: took.as_secs_f64(),
            load: machine::load_average(),
            machine: format!("{cores} cores ({processor}), {memory_mib} MiB, Linux {kernel}"),
            build: if cfg!(debug_assertions) { "debug" } else { "release" },
        }
    }

    /// Whether every goal was reached.
    pub fn is_met(&self) -> bool {
        self.goals.iter().all(|goal| goal.met)
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let mut line = |line: String| writeln!(text, "{line}").expect("a String takes it");
        line(format!(
            "{}; {} build; seed {}; {:.0} s",
            self.machine, self.build, self.seed, self.seconds
        ));
        line(format!("false activation: {}", self.false_activation.text()));
        line(format!("false discard:    {}", self.false_discard.text()));
        for group in &self.groups {
            let Decisions { n, active, discarded, held, ended_by } = &group.correct;
            line(format!(
                "{}: {n} skills that work ({active} active, {discarded} discarded, {held} held), {} mutants; \
                 false activation {}, false discard {}",
                name_of(&group.group),
                group.mutants,
                group.false_activation.text(),
                group.false_discard.text()
            ));
            line(format!("  not active: {ended_by:?}"));
            line(format!("  left out: {:?}", group.left_out));
        }
        for class in &self.classes {
            line(format!(
                "{:16} {:9} active {:3} of {:4}  equivalent {:3}  calls {:6.1}  {:?}",
                name_of(&class.class),
                name_of(&class.level),
                class.decisions.active,
                class.decisions.n,
                class.equivalent,
                class.calls,
                class.decisions.ended_by
            ));
        }
        line(format!("not applicable: {:?}", self.not_applicable));
        let Calls { mean, p50, p95, mean_of_correct, looks_mean } = self.calls_per_decision;
        line(format!(
            "calls per decision: mean {mean:.1}, p50 {p50}, p95 {p95}; of a skill that works {mean_of_correct:.1}; looks {looks_mean:.2}"
        ));
        let Rollback { half, always, false_rollback, reports } = &self.rollback;
        line(format!(
            "rollback after reports (median, p95): fails half of the time {} {}, always {} {}; false within {reports}: {}",
            half.median,
            half.p95,
            always.median,
            always.p95,
            false_rollback.text()
        ));
        for (name, baseline) in &self.baselines {
            line(format!(
                "{name}: false activation {}, false discard {}",
                baseline.false_activation.text(),
                baseline.false_discard.text()
            ));
        }
        for Goal { goal, wanted, measured, met } in &self.goals {
            let met = if *met { "met" } else { "NOT met" };
            line(format!("goal: {goal} at most {wanted}: {measured:.4}, {met}"));
        }
        text
    }
}

fn name_of(value: &impl Serialize) -> String {
    let name = serde_json::to_value(value).unwrap_or_default();
    name.as_str().unwrap_or_default().to_owned()
}

fn groups(tally: &Tally) -> Vec<GroupReport> {
    [Group::Real, Group::Mock, Group::Code]
        .into_iter()
        .map(|group| {
            let found = tally.those(|entry| entry.group == group);
            let correct = tally.those(|entry| entry.group == group && entry.class.is_none());
            GroupReport {
                group,
                mutants: found.len() - correct.len(),
                correct: Decisions::of(&correct),
                false_discard: false_discard(&found),
                false_activation: false_activation(&found, |found| found.judged.is_active()),
                left_out: tally.left_out.get(&group).cloned().unwrap_or_default(),
            }
        })
        .collect()
}

fn classes(tally: &Tally) -> Vec<ClassReport> {
    let key = |entry: &Entry| entry.class.zip(entry.level);
    let mut all: Vec<(Class, Level)> = tally.found.iter().filter_map(|it| key(&it.entry)).collect();
    all.extend(tally.equivalent.iter().filter_map(key));
    all.sort_unstable();
    all.dedup();
    let report = |(class, level): (Class, Level)| {
        let found = tally.those(|entry| key(entry) == Some((class, level)));
        let same = |entry: &&Entry| key(entry) == Some((class, level));
        ClassReport {
            class,
            level,
            false_activation: false_activation(&found, |found| found.judged.is_active()),
            decisions: Decisions::of(&found),
            equivalent: tally.equivalent.iter().filter(same).count(),
            calls: calls(&found).mean,
        }
    };
    all.into_iter().map(report).collect()
}

fn calls(found: &[&Found]) -> Calls {
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len().max(1) as f64;
    let of = |found: &&&Found| f64::from(found.judged.calls);
    // Code makes no calls of a server.
    let called: Vec<&Found> =
        found.iter().copied().filter(|found| found.entry.group != Group::Code).collect();
    let right: Vec<f64> =
        called.iter().filter(|found| found.entry.class.is_none()).map(|it| of(&it)).collect();
    let looks: Vec<f64> = called
        .iter()
        .filter(|found| found.judged.looks > 0)
        .map(|found| f64::from(found.judged.looks))
        .collect();
    let mut sorted: Vec<u32> = called.iter().map(|found| found.judged.calls).collect();
    sorted.sort_unstable();
    let at = |percent: usize| sorted.get((sorted.len() * percent).div_ceil(100).max(1) - 1);
    Calls {
        mean: mean(&called.iter().map(|it| of(&it)).collect::<Vec<_>>()),
        p50: at(50).copied().unwrap_or_default(),
        p95: at(95).copied().unwrap_or_default(),
        mean_of_correct: mean(&right),
        looks_mean: mean(&looks),
    }
}

/// The plain mean of the first look's trials, and no gate at all. What is held for a reason that has
/// nothing to do with how good it is counts for no baseline.
fn baselines(found: &[&Found]) -> BTreeMap<&'static str, Baseline> {
    let mut discards = Trials::default();
    let undecided = |found: &&&Found| {
        let outcome = &found.judged.outcome;
        let evidence = found.judged.evidence.is_some();
        outcome.decision == Verdict::Held
            && !(evidence && outcome.code == codes::NEED_MORE_EVIDENCE)
    };
    for found in found.iter().filter(|it| it.entry.class.is_none()).filter(|it| !undecided(it)) {
        discards.add(!found.judged.mean_accepts);
    }
    let decided = discards.total;
    [
        (
            "mean_at_least_0.6",
            Baseline {
                false_activation: false_activation(found, |found| found.judged.mean_accepts),
                false_discard: Rate::of(discards),
            },
        ),
        (
            "always_accept",
            Baseline {
                false_activation: false_activation(found, |_| true),
                false_discard: Rate::of(Trials { passed: 0, total: decided }),
            },
        ),
    ]
    .into()
}
