//! What this Evotown refuses, and how to stay within it. Pure, but for asking what holds now (`in_use`).
//!
//! Evotown compares every artifact of a run with the rules of its category `artifact`, and the log with
//! the words of its category `security`. A hit refuses the whole run and stays on the operator's risk
//! page, so what is sent is brought into shape before it is sent.

mod in_use;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use evo_common::redact::redact;
use serde::Deserialize;
use serde_json::Value;

pub(crate) use in_use::InUse;

/// Longest log that Evotown takes, in characters (Unicode code points, not bytes).
pub(crate) const MAX_LOG: usize = 65_536;
/// Kept free for the note about what is left out, and for what masking adds.
const SLACK: usize = 256;
/// Masking one word may show another; rarely, and never more than a few times.
const ROUNDS: usize = 8;
/// Stands in a word so that it is not one: a letter that no token has.
const BREAK: char = '·';

/// The rules of an Evotown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Policies {
    artifacts: Vec<Artifacts>,
    /// What a log must not hold, in lower case, with the policy that says so.
    words: BTreeMap<String, String>,
}

/// One policy for artifacts.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Artifacts {
    policy_id: String,
    /// Largest file in bytes; 0 for any.
    max_bytes: u64,
    /// Extensions with their dot, in lower case; empty for any. A file without one always passes.
    allowed: BTreeSet<String>,
    blocked: BTreeSet<String>,
}

/// What an Evotown answers to `GET /policies`.
#[derive(Deserialize)]
struct Listed {
    policies: Vec<Policy>,
}

#[derive(Deserialize)]
struct Policy {
    #[serde(default)]
    policy_id: String,
    #[serde(default)]
    category: String,
    #[serde(default = "yes")]
    enabled: bool,
    #[serde(default)]
    rules: Value,
}

fn yes() -> bool {
    true
}

impl Default for Policies {
    /// Those that an Evotown begins with.
    fn default() -> Self {
        let extensions = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect();
        let words = ["api_key", "bearer", "sk-", "evk_", "evi_"];
        let word = |word: &str| (word.to_owned(), "secret-redaction".to_owned());
        Self {
            artifacts: vec![Artifacts {
                policy_id: "artifact-limits".to_owned(),
                max_bytes: 50 * 1024 * 1024,
                allowed: extensions(&[".txt", ".md", ".json", ".zip", ".pdf", ".png"]),
                blocked: extensions(&[".exe", ".dll", ".sh"]),
            }],
            words: words.into_iter().map(word).collect(),
        }
    }
}

impl Policies {
    /// Reads the answer to `GET /policies`; `None` when it is none. A rule that can't be read refuses
    /// nothing here, as it does there.
    pub(crate) fn read(answer: &Value) -> Option<Self> {
        let listed = Listed::deserialize(answer).ok()?;
        let mut all = Self { artifacts: Vec::new(), words: BTreeMap::new() };
        for policy in listed.policies.into_iter().filter(|policy| policy.enabled) {
            let list = |name: &str| -> BTreeSet<String> {
                let entries = policy.rules.get(name).and_then(Value::as_array);
                let entries = entries.into_iter().flatten().filter_map(Value::as_str);
                entries.filter(|entry| !entry.is_empty()).map(str::to_lowercase).collect()
            };
            // A log is read by both categories, a file by the first only.
            if policy.category == "artifact" {
                all.artifacts.push(Artifacts {
                    policy_id: policy.policy_id.clone(),
                    max_bytes: policy.rules.get("max_bytes").and_then(Value::as_u64).unwrap_or(0),
                    allowed: list("allowed_extensions"),
                    blocked: list("blocked_extensions"),
                });
            }
            if matches!(policy.category.as_str(), "artifact" | "security") {
                for word in list("redact_patterns") {
                    all.words.entry(word).or_insert_with(|| policy.policy_id.clone());
                }
            }
        }
        Some(all)
    }

    /// Why a file may not be in a manifest; `None` when it may.
    pub(crate) fn refuses(&self, path: &str, bytes: u64) -> Option<String> {
        let extension = extension(path);
        self.artifacts.iter().find_map(|rules| {
            let id = &rules.policy_id;
            if rules.max_bytes > 0 && bytes > rules.max_bytes {
                return Some(format!("{id} takes at most {} bytes", rules.max_bytes));
            }
            let extension = extension.as_ref()?;
            let allowed = rules.allowed.is_empty() || rules.allowed.contains(extension);
            (rules.blocked.contains(extension) || !allowed)
                .then(|| format!("{id} takes no {extension}"))
        })
    }

    /// The text as a log that is taken: without secrets and without words that a policy refuses, head
    /// and tail of at most [`MAX_LOG`] characters. What it gives it leaves as it is.
    pub(crate) fn log(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for _ in 0..ROUNDS {
            let next = cut(&self.mask(&redact(&text)), MAX_LOG);
            if next == text {
                return text;
            }
            text = next;
        }
        // Rules that no text can meet.
        String::new()
    }

    /// Brings the body of a `complete` into shape. Gives what was left out of it and why, for people;
    /// the list of all files stays in the signals, which no policy looks at.
    pub(crate) fn shape(&self, body: &mut Value) -> Option<String> {
        if let Some(Value::String(log)) = body.get_mut("log_excerpt") {
            *log = self.log(log);
        }
        let files = body.get_mut("artifact_manifest").and_then(Value::as_array_mut)?;
        let mut left_out: BTreeMap<String, Vec<String>> = BTreeMap::new();
        files.retain(|file| {
            let path = file.get("path").and_then(Value::as_str).unwrap_or_default();
            let bytes = file.get("bytes").and_then(Value::as_u64).unwrap_or(0);
            let refused = self.refuses(path, bytes);
            let taken = refused.is_none();
            if let Some(reason) = refused {
                left_out.entry(reason).or_default().push(path.to_owned());
            }
            taken
        });
        if left_out.is_empty() {
            return None;
        }
        let mut note = "not in the manifest, since ".to_owned();
        for (place, (reason, paths)) in left_out.iter().enumerate() {
            let and = if place == 0 { "" } else { "; " };
            // Writing to a String can't fail.
            write!(note, "{and}{reason}: {}", paths.join(", ")).expect("a String grows");
        }
        Some(note)
    }

    /// Breaks every word that a log must not hold, so that people can still read it: `task-1` keeps its
    /// look with another hyphen, `bearer` becomes `b·earer`.
    fn mask(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for _ in 0..ROUNDS {
            let breaks = self.breaks(&text);
            if breaks.is_empty() {
                return text;
            }
            let mut broken = String::with_capacity(text.len() + breaks.len() * 2);
            let mut rest = 0;
            for (place, length) in breaks {
                broken.push_str(&text[rest..place]);
                broken.push(match &text[place..place + length] {
                    "-" => '\u{2011}',
                    "_" => '\u{02CD}',
                    _ => BREAK,
                });
                rest = place + length;
            }
            broken.push_str(&text[rest..]);
            text = broken;
        }
        if self.breaks(&text).is_empty() { text } else { String::new() }
    }

    /// Where something has to be put in the place of something else (its length in bytes, perhaps 0).
    fn breaks(&self, text: &str) -> BTreeMap<usize, usize> {
        let lower = text.to_lowercase();
        let mut breaks = BTreeMap::new();
        if !self.words.keys().any(|word| lower.contains(word.as_str())) {
            return breaks;
        }
        // A letter may have another length in lower case, and the end of a word another form.
        let origin = origins(text, &lower);
        for word in self.words.keys() {
            for (at, _) in lower.match_indices(word.as_str()) {
                let from = origin[at];
                let to = origin[at + word.len() - 1];
                let to = to + text[to..].chars().next().map_or(0, char::len_utf8);
                let found = &text[from..to];
                let separator = found.char_indices().find(|(_, c)| matches!(c, '-' | '_'));
                let mut letters = found.char_indices();
                let first = letters.next();
                let (place, length) = match (separator, letters.next(), first) {
                    (Some((at, c)), ..) => (at, c.len_utf8()),
                    (None, Some((second, _)), _) => (second, 0),
                    (None, None, Some((at, c))) => (at, c.len_utf8()),
                    (None, None, None) => continue,
                };
                breaks.insert(from + place, length);
            }
        }
        breaks
    }
}

/// For each byte of the text in lower case where the letter began that it comes from.
fn origins(text: &str, lower: &str) -> Vec<usize> {
    let mut origins = Vec::with_capacity(lower.len());
    for (place, letter) in text.char_indices() {
        let bytes: usize = letter.to_lowercase().map(char::len_utf8).sum();
        origins.extend(std::iter::repeat_n(place, bytes));
    }
    // Both forms of a final sigma are two bytes long, so that the lengths agree.
    debug_assert_eq!(origins.len(), lower.len());
    origins.resize(lower.len(), text.len());
    origins
}

/// A path's extension with its dot, in lower case, as Python's `pathlib` has it.
fn extension(path: &str) -> Option<String> {
    let name = path.split('/').rfind(|part| !matches!(*part, "" | "."))?;
    let (stem, extension) = name.rsplit_once('.')?;
    let has_one = !extension.is_empty() && !stem.trim_start_matches('.').is_empty();
    has_one.then(|| format!(".{}", extension.to_lowercase()))
}

/// Head and tail of a text that is longer than `most` characters; more of the tail, where the end of
/// what happened stands.
fn cut(text: &str, most: usize) -> String {
    let length = text.chars().count();
    if length <= most {
        return text.to_owned();
    }
    let kept = most - SLACK;
    let head = kept / 4;
    let tail = kept - head;
    let at = |place: usize| text.char_indices().nth(place).map_or(text.len(), |(at, _)| at);
    let left_out = length - kept;
    format!(
        "{}\n[{left_out} characters left out]\n{}",
        &text[..at(head)],
        &text[at(length - tail)..]
    )
}
