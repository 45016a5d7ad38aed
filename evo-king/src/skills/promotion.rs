//! Whether a candidate becomes active. King alone decides, from the counts of its own trials: a
//! runner's proposal and a model's opinion can lower the decision and never raise it.

use evo_common::{
    evidence::{Evidence, FIRST_LOOK, LOOKS, Paired, Scores, THRESHOLD, TRAIN_SHARE, Trials},
    outcome::{Outcome, Verdict, codes},
    stage::{Candidate, CandidateKind},
};

/// A version replaces another one only if the sign test is at least this sure.
pub const SIGNIFICANCE: f64 = 0.005;
/// Trials that must be passed in a row after a failed one.
pub const PASSES_AFTER_FAILURE: u32 = 30;
/// Pairs from which on a version may win by speed alone.
pub const LATENCY_PAIRS: u32 = 40;
/// Upper bound of the ratio of latencies at which a version wins by speed alone.
pub const LATENCY_RATIO: f64 = 0.9;
/// A skill that is less new than this says nothing that another one does not say already.
pub const LEAST_NOVELTY: f64 = 0.1;
/// No evaluation makes more trials than this; more of them are a fault in the report.
const MAX_TRIALS: u32 = 1_000_000;

/// Everything that the decision depends on.
#[derive(Debug, Clone, Copy)]
pub struct PromotionInput<'a> {
    /// What was measured, over all looks so far.
    pub evidence: &'a Evidence,
    /// Whether there is a version in use that this one would replace. The evidence must then be
    /// paired with it, and otherwise must not be.
    pub has_incumbent: bool,
    /// Which look this is, from 1.
    pub look: u32,
    /// Whether it is in use already, and may be what a request asks for. Then only whether it does that
    /// counts, and not what it would be worth as a new skill.
    pub is_answer: bool,
    /// What the runner proposes.
    pub proposal: Option<&'a Outcome>,
    /// Held-out trials that failed in earlier looks.
    pub earlier_failures: u32,
    /// Held-out trials passed in a row in the looks that came after the failure.
    pub passes_since_failure: u32,
    /// Whether the skill that is most like it is in use and of the same source.
    pub nearest_is_rival: bool,
    /// What 95 % of its calls may take, worked out from Pre-load's probes; absent when there were none,
    /// so that only the evaluation can say.
    pub latency_budget_ms: Option<f64>,
}

/// Whether a candidate only reads: an operation by its method, a tool by what its server says.
pub fn is_read(candidate: &Candidate) -> bool {
    match candidate.kind {
        CandidateKind::Mcp => {
            let hint = candidate.definition.pointer("/tool/annotations/readOnlyHint");
            hint == Some(&serde_json::Value::Bool(true))
        }
        _ => matches!(candidate.locator.split_whitespace().next(), Some("GET" | "HEAD")),
    }
}

/// Held-out trials that failed in earlier looks, and how many passed in a row in this one, given all
/// trials and those of this look.
pub fn since_failure(all: Trials, this_look: Trials) -> (u32, u32) {
    let earlier = all.failed().saturating_sub(this_look.failed());
    (earlier, if this_look.failed() == 0 { this_look.passed } else { 0 })
}

/// Whether a hold with this code is worth another look.
pub fn may_look_again(code: &str) -> bool {
    matches!(code, codes::NEED_MORE_EVIDENCE | codes::FLAKY | codes::LATENCY)
}

/// How many trials the next look makes, after one that ended with this code.
pub fn trials_of_next_look(code: &str, usual: u32) -> u32 {
    if code == codes::FLAKY { usual.max(PASSES_AFTER_FAILURE) } else { usual }
}

/// The decision and the score it rests on.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// What becomes of the candidate.
    pub outcome: Outcome,
    /// The score, recomputed from the counts.
    pub scores: Scores,
}

/// Decides about a candidate after a look.
pub fn decide(input: &PromotionInput<'_>) -> Decision {
    let fault = contradiction(input);
    let scores = if fault.is_none() { input.evidence.scores() } else { Scores::default() };
    // A gate stops a candidate; a report whose gate says "active" opens nothing.
    let gate = input.evidence.gate.as_ref().filter(|gate| gate.decision != Verdict::Active);
    let own = match (gate, fault) {
        (Some(gate), _) => gate.clone(),
        (None, Some(fault)) => Outcome::failed(
            codes::STAGE_FAILED,
            format!("The evaluation's report contradicts itself: {fault}. Evaluate it again."),
        ),
        (None, None) => by_rule(input, &scores),
    };
    let outcome = match input.proposal {
        Some(proposal) if rank(proposal.decision) < rank(own.decision) => proposal.clone(),
        _ => own,
    };
    Decision { outcome, scores }
}

/// How good an outcome is for the candidate.
fn rank(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Active => 3,
        Verdict::Held => 2,
        Verdict::Discarded => 1,
        Verdict::Failed => 0,
    }
}

fn by_rule(input: &PromotionInput<'_>, scores: &Scores) -> Outcome {
    let evidence = input.evidence;
    let Trials { passed, total } = evidence.holdout;
    let reliability = scores.reliability;
    let score = if input.is_answer { reliability } else { scores.overall };
    if score.high < THRESHOLD || reliability.high < THRESHOLD {
        return Outcome::discarded(
            codes::BELOW_THRESHOLD,
            format!(
                "{passed} of {total} held-out trials passed: the score is at most {:.3} and the \
                 reliability at most {:.3}, so they can't both reach {THRESHOLD}.",
                score.high, reliability.high
            ),
        );
    }
    if let Some(outcome) = too_few_train_cases(evidence.train) {
        return outcome;
    }
    if input.is_answer && evidence.train.failed() > 0 {
        let Trials { passed, total } = evidence.train;
        let reason = format!("It gives {passed} of {total} answers that were asked for.");
        return Outcome::discarded(codes::BELOW_THRESHOLD, reason);
    }
    if let Some(paired) = evidence.paired.filter(|paired| paired.pinned_worse > 0) {
        return Outcome::discarded(
            codes::REGRESSION,
            format!(
                "It fails {} pinned trials that the version in use passes ({} of {} pairs are \
                 worse).",
                paired.pinned_worse, paired.worse, paired.total
            ),
        );
    }
    if let Some(outcome) = flaky(input).or_else(|| breaks_by_faults(evidence.faults)) {
        return outcome;
    }
    if total < FIRST_LOOK {
        return undecided(
            input.look,
            codes::NEED_MORE_EVIDENCE,
            codes::NOT_ENOUGH_EVIDENCE,
            format!("{total} held-out trials were made; at least {FIRST_LOOK} are needed."),
        );
    }
    if let Some(outcome) = slow(input).or_else(|| repeats_another(input)) {
        return outcome;
    }
    if let Some(paired) = &evidence.paired
        && !improves(paired)
    {
        return undecided(
            input.look,
            codes::NEED_MORE_EVIDENCE,
            codes::NO_IMPROVEMENT,
            format!(
                "Of {} pairs with the version in use {} are better and {} are worse (sign test \
                 p = {:.4}, needed is less than {SIGNIFICANCE}): it is not measurably better.",
                paired.total,
                paired.better,
                paired.worse,
                sign_test(paired.better, paired.worse)
            ),
        );
    }
    let measured = format!(
        "{passed} of {total} held-out trials passed: score {:.3} to {:.3}, reliability {:.3} to \
         {:.3}",
        score.low, score.high, reliability.low, reliability.high
    );
    if score.low >= THRESHOLD && reliability.low >= THRESHOLD {
        return Outcome::active(format!("{measured}; both lower bounds reach {THRESHOLD}."));
    }
    undecided(
        input.look,
        codes::NEED_MORE_EVIDENCE,
        codes::NOT_ENOUGH_EVIDENCE,
        format!("{measured}; a lower bound is still under {THRESHOLD}."),
    )
}

/// What fails sometimes: one failure must be followed by many passes, a second one ends it. That holds
/// for what writes as for what reads: after a write that failed nobody knows whether it happened, so
/// that it can be repeated even less.
fn flaky(input: &PromotionInput<'_>) -> Option<Outcome> {
    let Trials { total, .. } = input.evidence.holdout;
    let failures = input.evidence.holdout.failed().max(input.earlier_failures);
    if failures == 0 {
        return None;
    }
    if failures > 1 {
        return Some(Outcome::discarded(
            codes::FLAKY,
            format!("{failures} of {total} held-out trials failed; one is the most."),
        ));
    }
    let failed_in_this_look = input.earlier_failures == 0;
    if !failed_in_this_look && input.passes_since_failure >= PASSES_AFTER_FAILURE {
        return None;
    }
    let passes = if failed_in_this_look { 0 } else { input.passes_since_failure };
    Some(undecided(
        input.look,
        codes::FLAKY,
        codes::NOT_ENOUGH_EVIDENCE,
        format!(
            "1 of {total} held-out trials failed and {passes} passed in the looks after it; \
             {PASSES_AFTER_FAILURE} in a row are needed."
        ),
    ))
}

/// A skill that says that it tries again, and does not get over what that is meant for.
fn breaks_by_faults(faults: Trials) -> Option<Outcome> {
    let Trials { passed, total } = faults;
    (faults.failed() > 1).then(|| {
        let reason = format!(
            "It declares retries and survived {passed} of {total} calls that were broken on purpose; \
             one may fail."
        );
        Outcome::discarded(codes::FLAKY, reason)
    })
}

fn too_few_train_cases(train: Trials) -> Option<Outcome> {
    let Trials { passed, total } = train;
    let too_few = total > 0 && f64::from(passed) < TRAIN_SHARE * f64::from(total);
    too_few.then(|| {
        let reason = format!("It passes only {passed} of {total} trials of train cases.");
        Outcome::discarded(codes::BELOW_THRESHOLD, reason)
    })
}

/// A skill that is slower than its budget. When some calls are within it, the others may be slow by the
/// machine's fault, which only ever adds to what a call takes: another look tells.
fn slow(input: &PromotionInput<'_>) -> Option<Outcome> {
    let latency = input.evidence.latency;
    let budget_ms = input.latency_budget_ms.unwrap_or(latency.budget_ms);
    if latency.p95_ms <= budget_ms {
        return None;
    }
    let measured = format!(
        "The fastest call takes {:.0} ms, half of them up to {:.0} ms, 95 % up to {:.0} ms; its budget \
         is {budget_ms:.0} ms.",
        latency.fastest_ms, latency.p50_ms, latency.p95_ms
    );
    if latency.fastest_ms > budget_ms {
        return Some(Outcome::discarded(codes::LATENCY, measured));
    }
    Some(undecided(input.look, codes::LATENCY, codes::LATENCY, measured))
}

/// A skill that does what another one of its source does already is a version of that one.
fn repeats_another(input: &PromotionInput<'_>) -> Option<Outcome> {
    let Evidence { novelty, nearest, .. } = input.evidence;
    let is_new = !input.has_incumbent && !input.is_answer;
    let repeats = is_new && input.nearest_is_rival && *novelty < LEAST_NOVELTY;
    repeats.then(|| {
        let nearest = nearest.as_deref().unwrap_or("another one");
        let reason = format!(
            "It does what {nearest} does, which is in use (novelty {novelty:.2}): that is a version \
             of it and no new skill."
        );
        Outcome::discarded(codes::DUPLICATE, reason)
    })
}

/// Held for another look, or discarded after the last one.
fn undecided(look: u32, hold: &str, discard: &str, measured: String) -> Outcome {
    if look < LOOKS {
        Outcome::held(hold, format!("{measured} Look {look} of {LOOKS}; more trials follow."))
    } else {
        Outcome::discarded(discard, format!("{measured} That was the last of {LOOKS} looks."))
    }
}

/// Whether a version is measurably better than the one in use: in its answers, or equal in them
/// and faster.
pub fn improves(paired: &Paired) -> bool {
    let faster = paired.worse == 0
        && paired.total >= LATENCY_PAIRS
        && paired.latency_ratio_high.is_some_and(|high| high <= LATENCY_RATIO);
    faster || sign_test(paired.better, paired.worse) < SIGNIFICANCE
}

/// The exact one-sided sign test: how likely `better` or more of `better + worse` coin tosses are
/// heads.
pub fn sign_test(better: u32, worse: u32) -> f64 {
    let tosses = better.saturating_add(worse);
    if better > worse {
        upper_tail(better, tosses)
    } else {
        // By symmetry; sums the short tail, where nothing is lost to rounding.
        1.0 - upper_tail(worse.saturating_add(1), tosses)
    }
}

/// Σ over i ≥ `from` of C(n, i) / 2ⁿ, for `from` beyond the middle.
fn upper_tail(from: u32, n: u32) -> f64 {
    if from > n {
        return 0.0;
    }
    let ln_term = (1..=n - from)
        .map(|k| (f64::from(n - k + 1) / f64::from(k)).ln())
        .fold(-f64::from(n) * std::f64::consts::LN_2, |sum, ln| sum + ln);
    let mut term = ln_term.exp();
    let mut sum = term;
    for i in from..n {
        term *= f64::from(n - i) / f64::from(i + 1);
        sum += term;
        if term < sum * f64::EPSILON {
            break;
        }
    }
    sum
}

/// What can't be true of a report, if anything.
fn contradiction(input: &PromotionInput<'_>) -> Option<String> {
    let evidence = input.evidence;
    let parts =
        [("train", evidence.train), ("holdout", evidence.holdout), ("faults", evidence.faults)];
    for (name, trials) in parts {
        if trials.passed > trials.total || trials.total > MAX_TRIALS {
            return Some(format!(
                "`{name}` counts {} of {} trials as passed",
                trials.passed, trials.total
            ));
        }
    }
    for part in &evidence.capabilities {
        let Trials { passed, total } = part.trials;
        let all = evidence.holdout;
        if passed > total
            || total > all.total
            || passed > all.passed
            || total - passed > all.failed()
        {
            return Some(format!(
                "capability `{}` has {passed} of {total} trials passed, all together {} of {}",
                part.capability, all.passed, all.total
            ));
        }
    }
    if input.has_incumbent != evidence.paired.is_some() {
        return Some(if input.has_incumbent {
            "there is a version in use and no trial is paired with it".to_owned()
        } else {
            "trials are paired with a version in use and there is none".to_owned()
        });
    }
    evidence.paired.and_then(|paired| {
        let differing = u64::from(paired.better) + u64::from(paired.worse);
        let legal = differing <= u64::from(paired.total)
            && paired.total <= MAX_TRIALS
            && paired.pinned_worse <= paired.worse;
        (!legal).then(|| {
            format!(
                "{} better, {} worse and {} worse pinned of {} pairs",
                paired.better, paired.worse, paired.pinned_worse, paired.total
            )
        })
    })
}

#[cfg(test)]
mod tests;
