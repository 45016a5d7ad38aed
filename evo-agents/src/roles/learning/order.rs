//! Which candidates come first, and which are there twice. Pure.

use std::collections::{BTreeSet, HashMap};

use evo_common::{
    config::SourceConfig,
    outcome::{Verdict, codes},
    stage::{Candidate, DuplicateCandidate, KnownName, KnownSkill, PastOutcome},
};

use crate::sources::{self, Interface};

/// From this likeness on, two definitions of one server are the same thing.
const SAME: f64 = 0.95;

/// At most as many candidates as the source allows. Those that can be measured come first, and of
/// them those that were not tried as they are; what failed often comes late, so that a limited
/// cycle does not try the same again and again.
pub(super) fn within_source(
    mut candidates: Vec<Candidate>,
    source: &SourceConfig,
) -> Vec<Candidate> {
    let Some(most) = source.max_candidates else {
        candidates.sort_by_key(|candidate| tried(candidate.past.as_ref()));
        return candidates;
    };
    candidates.sort_by_cached_key(|candidate| {
        let blocked = sources::forecast(candidate, source).is_some();
        (blocked, tried(candidate.past.as_ref()))
    });
    candidates.truncate(most as usize);
    candidates
}

/// How little can be hoped of another try with the same definition.
fn tried(past: Option<&PastOutcome>) -> (u8, u32) {
    let Some(past) = past else { return (0, 0) };
    match past.decision {
        // It waits for more trials, which the next try makes.
        Verdict::Held
            if [codes::NEED_MORE_EVIDENCE, codes::FLAKY, codes::LATENCY].contains(&&*past.code) =>
        {
            (0, 0)
        }
        // What it lacks may be there by now.
        Verdict::Held | Verdict::Failed => (1, past.count),
        // It is in use.
        Verdict::Active => (2, 0),
        Verdict::Discarded => (3, past.count),
    }
}

/// Puts those first that can be measured, then those of which most can be hoped, then by priority:
/// demand × (1 − coverage) × trust. Equals keep their order.
pub(super) fn by_priority(
    mut candidates: Vec<Candidate>,
    sources: &[SourceConfig],
    known: &[KnownSkill],
) -> Vec<Candidate> {
    let active: Vec<Known> = known.iter().filter(|skill| skill.active).map(Known::of).collect();
    candidates.sort_by_cached_key(|candidate| {
        let source = sources.iter().find(|source| source.name == candidate.source);
        let blocked = source.is_some_and(|source| sources::forecast(candidate, source).is_some());
        let trust = source.map_or(1.0, |source| source.trust);
        let priority = candidate.demand * (1.0 - coverage(candidate, &active)) * trust;
        let tried = tried(candidate.past.as_ref());
        // A rank instead of the number itself, so that it can be a key of a sort.
        #[expect(clippy::cast_possible_truncation, reason = "a cast from a float saturates")]
        let rank = -(priority * 1e6) as i64;
        (blocked, tried.0, rank, tried.1)
    });
    candidates
}

/// A skill in use, ready to be compared.
struct Known {
    name: String,
    fingerprint: String,
    words: BTreeSet<String>,
}

impl Known {
    fn of(skill: &KnownSkill) -> Self {
        let fields = skill
            .inputs
            .iter()
            .map(|io| (true, io))
            .chain(skill.outputs.iter().map(|io| (false, io)));
        let words = words(
            &skill.capabilities,
            fields.map(|(input, io)| (input, io.name.as_str(), io.r#type.as_str())),
        );
        Self { name: skill.name.clone(), fingerprint: skill.fingerprint.clone(), words }
    }
}

fn words<'a>(
    capabilities: &[String],
    fields: impl Iterator<Item = (bool, &'a str, &'a str)>,
) -> BTreeSet<String> {
    let capabilities = capabilities.iter().map(|text| format!("can {text}"));
    let field = |(input, name, kind): (bool, &str, &str)| {
        format!("{} {name} {kind}", if input { "takes" } else { "gives" })
    };
    capabilities.chain(fields.map(field)).collect()
}

fn words_of(candidate: &Candidate) -> BTreeSet<String> {
    let Interface { inputs, outputs, .. } = sources::interface(candidate, None);
    let fields = inputs.iter().map(|io| (true, io)).chain(outputs.iter().map(|io| (false, io)));
    words(
        &candidate.capabilities,
        fields.map(|(input, io)| (input, io.name.as_str(), io.r#type.as_str())),
    )
}

/// How much of what a candidate offers there is already: all of it when its very definition is in
/// use, else the likeness to the skill in use that is most like it. A new definition of a skill is
/// not compared with that skill, since it may be better.
fn coverage(candidate: &Candidate, active: &[Known]) -> f64 {
    if active.iter().any(|known| known.fingerprint == candidate.fingerprint) {
        return 1.0;
    }
    if active.is_empty() {
        return 0.0;
    }
    let words = words_of(candidate);
    let others = active.iter().filter(|known| known.name != candidate.name);
    others.map(|known| likeness(&words, &known.words)).fold(0.0, f64::max)
}

fn likeness(a: &BTreeSet<String>, b: &BTreeSet<String>) -> f64 {
    let shared = a.intersection(b).count();
    let all = a.len() + b.len() - shared;
    if all == 0 { 0.0 } else { shared as f64 / all as f64 }
}

/// Takes out what another source offers too. Of two, the one that king has a skill of stays, else
/// the one from the source that is trusted more, else the first. What two servers offer alike is
/// not the same thing: one may be there when the other is not.
pub(super) fn without_duplicates(
    candidates: Vec<Candidate>,
    sources: &[SourceConfig],
    known: &[KnownName],
) -> (Vec<Candidate>, Vec<DuplicateCandidate>) {
    let source_of =
        |candidate: &Candidate| sources.iter().find(|source| source.name == candidate.source);
    let trust = |candidate: &Candidate| source_of(candidate).map_or(1.0, |source| source.trust);
    let has_skill = |candidate: &Candidate| {
        known
            .iter()
            .any(|known| known.source == candidate.source && known.locator == candidate.locator)
    };
    let mut order: Vec<usize> = (0..candidates.len()).collect();
    order.sort_by(|a, b| {
        let (a, b) = (&candidates[*a], &candidates[*b]);
        let by_trust = trust(b).total_cmp(&trust(a));
        has_skill(b).cmp(&has_skill(a)).then(by_trust)
    });
    // Only candidates of one place are compared, so that this stays linear in practice.
    let mut by_place: HashMap<String, Vec<usize>> = HashMap::new();
    let mut original: Vec<Option<(usize, String)>> = vec![None; candidates.len()];
    for index in order {
        let candidate = &candidates[index];
        let interface = sources::interface(candidate, source_of(candidate));
        let Some(place) = interface.place else { continue };
        let others = by_place.entry(place).or_default();
        let found = others.iter().find_map(|other| {
            let other_one = &candidates[*other];
            if other_one.source == candidate.source {
                return None;
            }
            same(candidate, other_one).map(|why| (*other, why))
        });
        match found {
            Some(found) => original[index] = Some(found),
            None => others.push(index),
        }
    }
    let duplicates = original
        .iter()
        .enumerate()
        .filter_map(|(index, found)| {
            let (of, reason) = found.as_ref()?;
            let (candidate, of) = (&candidates[index], &candidates[*of]);
            Some(DuplicateCandidate {
                name: candidate.name.clone(),
                source: candidate.source.clone(),
                locator: candidate.locator.clone(),
                duplicate_of: of.name.clone(),
                reason: format!("{reason}, found in the source {:?} too", of.source),
            })
        })
        .collect();
    let mut kept = original.iter().map(Option::is_none);
    let candidates = candidates.into_iter().filter(|_| kept.next() == Some(true)).collect();
    (candidates, duplicates)
}

/// Why two candidates of one place are the same thing, if they are.
fn same(a: &Candidate, b: &Candidate) -> Option<String> {
    if a.kind == b.kind && sources::digest(a) == sources::digest(b) {
        return Some("it is the same definition".to_owned());
    }
    let likeness = likeness(&words_of(a), &words_of(b));
    (likeness >= SAME)
        .then(|| format!("it can do, takes and gives the same ({:.0} % alike)", likeness * 100.0))
}

#[cfg(test)]
mod tests;
