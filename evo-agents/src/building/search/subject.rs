//! What a skill is about, in words that may stand in its path.

use std::collections::{BTreeMap, BTreeSet};

use evo_common::skill::SkillManifest;

use super::{evidence::Evidence, knowledge::Knowledge, words};
use crate::sources::openapi::naming;

/// Words of descriptions that say nothing about a subject.
const SMALL: [&str; 46] = [
    "a", "an", "and", "are", "as", "at", "be", "by", "can", "do", "does", "each", "every", "for",
    "from", "get", "gets", "given", "has", "have", "how", "in", "into", "is", "it", "its", "lists",
    "no", "not", "of", "on", "one", "only", "or", "return", "returns", "shows", "some", "than",
    "that", "the", "this", "to", "what", "which", "with",
];
/// Most words that are kept.
const MAX_WORDS: usize = 60;
/// Longest word.
const MAX_WORD: usize = 40;

/// Words with how likely each is to stand in the path, from 0 to 1; the likeliest first.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Subject(Vec<(f64, String)>);

impl Subject {
    pub(super) fn of(manifest: &SkillManifest, evidence: &Evidence, knowledge: &Knowledge) -> Self {
        let mut found: BTreeMap<String, f64> = BTreeMap::new();
        let mut add = |weight: f64, word: &str| {
            let fits = (2..=MAX_WORD).contains(&word.len())
                && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
            if fits {
                let known = found.entry(word.to_owned()).or_default();
                *known = known.max(weight);
            }
        };
        let mut add_all = |weight: f64, word: &str| {
            add(weight, word);
            add(0.85 * weight, &words::plural(word));
        };
        let skills = knowledge.skills.len().max(1) as f64;
        // What many descriptions say tells this skill from none of them.
        let rare = |word: &str| {
            let often = knowledge.said.get(word).copied().unwrap_or_default();
            (1.0 - (f64::from(often) / skills).min(1.0)).powi(2)
        };
        let listed = ordered(&manifest.description);
        let weight = |at: usize| 0.9 * rare(&listed[at]) / (1.0 + 0.06 * at as f64);
        for at in 0..listed.len().min(MAX_WORDS) {
            add_all(weight(at), &listed[at]);
            if at + 1 < listed.len() {
                let both = weight(at).max(weight(at + 1));
                for (share, between) in [(0.6, "-"), (0.4, ""), (0.35, "_"), (0.2, ".")] {
                    add_all(share * both, &format!("{}{between}{}", listed[at], listed[at + 1]));
                }
            }
        }
        for word in naming::words(&manifest.name) {
            add_all(0.6 * rare(&word), &word);
        }
        for word in manifest.capabilities.iter().flat_map(|text| naming::words(text)) {
            add_all(0.6 * rare(&word), &word);
        }
        for input in &manifest.inputs {
            add_all(0.2, &input.name);
            for word in naming::words(&input.name) {
                add_all(0.25, &word);
            }
        }
        for (weight, names) in [0.7, 0.25].into_iter().zip(&evidence.subjects) {
            // One name among many says less.
            let weight = weight / (names.len().max(1) as f64).sqrt();
            for name in names {
                for style in std::iter::once(name.clone())
                    .chain([naming::words(name).join("-"), naming::words(name).join("_")])
                {
                    add_all(weight, &style);
                }
            }
        }
        for media in &evidence.media {
            for word in media.split(['/', '+']) {
                add(if ["application", "json"].contains(&word) { 0.15 } else { 0.4 }, word);
            }
        }
        let mut words: Vec<(f64, String)> = found.into_iter().map(|(w, n)| (n, w)).collect();
        words.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        words.truncate(2 * MAX_WORDS);
        Self(words)
    }

    /// The words.
    pub(super) fn words(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(_, word)| word.as_str())
    }

    /// The words with their weights, the likeliest first.
    pub(super) fn weighted(&self) -> &[(f64, String)] {
        &self.0
    }

    /// How likely a word is to stand in the path, in singular or plural.
    pub(super) fn weight(&self, word: &str) -> f64 {
        let find = |word: &str| self.0.iter().find(|(_, other)| other == word).map(|(w, _)| *w);
        find(word).or_else(|| find(&words::plural(word))).unwrap_or(0.0)
    }
}

/// The words of a text, each once.
pub(super) fn words(text: &str) -> BTreeSet<String> {
    ordered(text).into_iter().collect()
}

/// The words of a text in their order, those left out that say nothing.
fn ordered(text: &str) -> Vec<String> {
    let mut list: Vec<String> = Vec::new();
    for word in text.split(|letter: char| !letter.is_ascii_alphanumeric()) {
        let mut forms = vec![word.to_ascii_lowercase()];
        forms.extend(naming::words(word).into_iter().filter(|part| part.len() > 1));
        for form in forms {
            if !form.is_empty() && !SMALL.contains(&form.as_str()) && !list.contains(&form) {
                list.push(form);
            }
        }
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rare_words_and_the_names_of_answers_come_first() {
        let mut manifest = crate::building::search::tests::package_of_orders().manifest;
        manifest.description = "Returns the open orders of the shop.".to_owned();
        manifest.capabilities = Vec::new();
        manifest.name = "x".to_owned();
        let mut knowledge =
            Knowledge { said: [("shop".to_owned(), 9)].into(), ..Knowledge::default() };
        let part = crate::building::search::tests::part("p", &[], &[], true);
        knowledge.skills = vec![part; 10];
        let evidence = Evidence {
            subjects: [["invoices".to_owned()].into(), BTreeSet::new()],
            ..Evidence::default()
        };
        let subject = Subject::of(&manifest, &evidence, &knowledge);
        let weights = ["open", "orders", "order", "invoices", "shop", "the", "returns"]
            .map(|word| subject.weight(word));
        assert!(weights[..4].iter().all(|weight| *weight > 0.5), "{weights:?}");
        assert!(weights[4..].iter().all(|weight| *weight < 0.1), "{weights:?}");
        assert!(subject.weight("open-orders") > 0.4);
    }
}
