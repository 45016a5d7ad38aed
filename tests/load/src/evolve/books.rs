//! What the searches of one strategy came to, with intervals.

use std::collections::BTreeMap;

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use super::starts::Kind;
use crate::scenario::Scenario;

/// Resamples of a bootstrap.
const RESAMPLES: usize = 2_000;
/// Generations that are told.
const GENERATIONS: u32 = 20;
/// Points of a curve over calls.
const POINTS: u32 = 20;

/// One search.
#[derive(Debug, Clone)]
pub struct Course {
    pub skill: usize,
    pub kind: Kind,
    /// Generation, calls until its end, and the part of the held-out cases that its best variant
    /// passes.
    pub steps: Vec<(u32, u32, f64)>,
    pub calls: u32,
    /// All train cases passed, twice.
    pub solved: bool,
    /// The part of the train cases that the last best variant passes.
    pub train: f64,
}

impl Course {
    /// What was there before the search.
    fn start(&self) -> f64 {
        self.steps.first().map_or(0.0, |step| step.2)
    }

    fn end(&self) -> f64 {
        self.steps.last().map_or(0.0, |step| step.2)
    }

    /// After so many calls.
    fn after_calls(&self, calls: u32) -> f64 {
        let until = self.steps.iter().take_while(|step| step.1 <= calls);
        until.last().map_or(self.start(), |step| step.2)
    }

    /// At the end of a generation.
    fn after_generation(&self, generation: u32) -> f64 {
        let until = self.steps.iter().take_while(|step| step.0 <= generation);
        until.last().map_or(self.start(), |step| step.2)
    }
}

/// A mean with its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mean {
    pub mean: f64,
    pub low: f64,
    pub high: f64,
}

/// All searches of one strategy.
#[derive(Debug, Clone, Default)]
pub struct Books {
    courses: Vec<Course>,
}

impl Books {
    pub fn new(mut courses: Vec<Course>) -> Self {
        courses.sort_by_key(|course| (course.skill, course.kind));
        Self { courses }
    }

    pub fn len(&self) -> usize {
        self.courses.len()
    }

    /// The mean of a figure. The interval is over skills: searches of one skill are much alike, so
    /// skills are drawn, each with all of its searches.
    fn mean(&self, figure: impl Fn(&Course) -> f64) -> Mean {
        let mut by_skill: BTreeMap<usize, (f64, f64)> = BTreeMap::new();
        for course in &self.courses {
            let (sum, count) = by_skill.entry(course.skill).or_default();
            *sum += figure(course);
            *count += 1.0;
        }
        bootstrap(&by_skill.into_values().collect::<Vec<_>>())
    }

    /// Generations: the curve, until nothing changes any more.
    pub fn by_generation(&self) -> Vec<Mean> {
        let most = self.courses.iter().flat_map(|course| &course.steps).map(|step| step.0).max();
        let most = most.unwrap_or_default().min(GENERATIONS);
        (0..=most).map(|at| self.mean(|course| course.after_generation(at))).collect()
    }

    /// Calls: points of the curve, with the calls of each.
    pub fn by_calls(&self, most: u32) -> Vec<(u32, Mean)> {
        let at = |point: u32| most * point / POINTS;
        (0..=POINTS)
            .map(|point| (at(point), self.mean(|course| course.after_calls(at(point)))))
            .collect()
    }

    /// Everything that is told of one strategy.
    pub fn describe(&self, calls: u32, scenario: &mut Scenario) {
        let start = self.mean(Course::start);
        let end = self.mean(Course::end);
        let whole = self.mean(|course| f64::from(u8::from(course.end() >= 1.0)));
        let fooled = |course: &Course| course.solved && course.end() < 1.0;
        let fooled = self.mean(|course| f64::from(u8::from(fooled(course))));
        scenario.more.extend([
            ("start", start.mean),
            ("end", end.mean),
            ("end_low", end.low),
            ("end_high", end.high),
            ("train_end", self.mean(|course| course.train).mean),
            ("all_held_out_pass", whole.mean),
            ("all_held_out_pass_low", whole.low),
            ("all_held_out_pass_high", whole.high),
            ("train_passes_held_out_not", fooled.mean),
            ("calls_per_search", self.mean(|course| f64::from(course.calls)).mean),
        ]);
        for (kind, key, count) in [
            (Kind::One, "end_one_fault", "searches_one_fault"),
            (Kind::More, "end_more_faults", "searches_more_faults"),
            (Kind::Renamed, "end_renamed", "searches_renamed"),
            (Kind::Naive, "end_naive", "searches_naive"),
        ] {
            let of_kind = |course: &&Course| course.kind == kind;
            let part = Self { courses: self.courses.iter().filter(of_kind).cloned().collect() };
            if part.len() > 0 {
                scenario.more.insert(key, part.mean(Course::end).mean);
                scenario.more.insert(count, part.len() as f64);
            }
        }
        let generations = self.by_generation();
        scenario.series.insert("by_generation", generations.iter().map(|m| m.mean).collect());
        scenario.series.insert("by_generation_low", generations.iter().map(|m| m.low).collect());
        scenario.series.insert("by_generation_high", generations.iter().map(|m| m.high).collect());
        let points = self.by_calls(calls);
        scenario.series.insert("calls", points.iter().map(|p| f64::from(p.0)).collect());
        scenario.series.insert("by_calls", points.iter().map(|p| p.1.mean).collect());
        scenario.series.insert("by_calls_low", points.iter().map(|p| p.1.low).collect());
        scenario.series.insert("by_calls_high", points.iter().map(|p| p.1.high).collect());
    }

    /// How much more of the held-out cases pass than with another strategy, on the same starts with
    /// the same calls.
    pub fn describe_gain(&self, other: &Self, scenario: &mut Scenario) {
        let mut by_skill: BTreeMap<usize, (f64, f64)> = BTreeMap::new();
        for course in &self.courses {
            let (sum, count) = by_skill.entry(course.skill).or_default();
            *sum += course.end();
            *count += 1.0;
        }
        for course in &other.courses {
            by_skill.entry(course.skill).or_default().0 -= course.end();
        }
        let gain = bootstrap(&by_skill.into_values().collect::<Vec<_>>());
        scenario.more.extend([
            ("over_random", gain.mean),
            ("over_random_low", gain.low),
            ("over_random_high", gain.high),
        ]);
    }
}

/// The mean of sums and counts, and its 95 % interval over draws of them.
fn bootstrap(parts: &[(f64, f64)]) -> Mean {
    let mean = |parts: &mut dyn Iterator<Item = (f64, f64)>| {
        let (sum, count) = parts.fold((0.0, 0.0), |(s, c), (sum, count)| (s + sum, c + count));
        if count == 0.0 { 0.0 } else { sum / count }
    };
    if parts.is_empty() {
        return Mean { mean: 0.0, low: 0.0, high: 0.0 };
    }
    let mut random = StdRng::seed_from_u64(0);
    let mut means: Vec<f64> = (0..RESAMPLES)
        .map(|_| mean(&mut (0..parts.len()).map(|_| parts[random.random_range(0..parts.len())])))
        .collect();
    means.sort_by(f64::total_cmp);
    Mean {
        mean: mean(&mut parts.iter().copied()),
        low: means[RESAMPLES / 40],
        high: means[RESAMPLES - 1 - RESAMPLES / 40],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn course(skill: usize, end: f64) -> Course {
        let steps = vec![(0, 3, 0.0), (1, 20, 0.5), (3, 50, end)];
        Course { skill, kind: Kind::One, steps, calls: 50, solved: true, train: 1.0 }
    }

    #[test]
    fn curves_hold_what_was_best_until_then() {
        let one = course(0, 1.0);
        for (calls, expected) in [(0, 0.0), (19, 0.0), (20, 0.5), (49, 0.5), (50, 1.0), (90, 1.0)] {
            assert!((one.after_calls(calls) - expected).abs() < 1e-9, "{calls}");
        }
        assert!((one.after_generation(2) - 0.5).abs() < 1e-9);
    }

    #[test]
    fn intervals_are_over_skills_and_differences_are_paired() {
        let all = |end: f64| {
            Books::new(
                (0..30).map(|i| course(i, end - 0.5 * f64::from(u8::from(i % 2 == 0)))).collect(),
            )
        };
        let (better, worse) = (all(1.0), all(0.75));
        let mean = better.mean(Course::end);
        assert!((mean.mean - 0.75).abs() < 1e-9 && mean.low < 0.72 && mean.high > 0.78, "{mean:?}");
        let mut scenario = Scenario::default();
        better.describe_gain(&worse, &mut scenario);
        assert!((scenario.more["over_random_low"] - 0.25).abs() < 1e-9, "{:?}", scenario.more);
        better.describe(100, &mut scenario);
        assert_eq!(scenario.series["by_generation"].len(), 4);
        assert_eq!(scenario.series["by_calls"].len(), 21);
    }
}
