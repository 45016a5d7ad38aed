//! The rules that are a pattern over text. What needs more than a pattern is a function of its own
//! beside this folder; [`super::codes`] lists the codes of both.

#[macro_use]
mod hosts;
mod agent;
mod control;
mod deeds;
mod drain;
mod encoded;
mod install;
mod orders;
mod send;
mod theft;
mod wired;

use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, AhoCorasickKind};
use evo_common::stage::Severity;
use regex::bytes::{Regex, RegexBuilder};

/// How much text around a line a rule looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// The line alone.
    Line,
    /// The line and so many before and after it.
    Around(usize, usize),
}

/// In which files a rule looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Where {
    /// In all texts.
    Anywhere,
    /// In what an agent or a person reads.
    Prose,
    /// In what a machine runs: scripts, and fenced blocks of documents.
    Code,
    /// In scripts only.
    Script,
}

/// One pattern over the prepared text: lower case, quotes and escapes undone beside it.
pub(super) struct Rule {
    pub(super) code: &'static str,
    pub(super) severity: Severity,
    /// What the finding says; continues "it …" or names what is there.
    pub(super) message: &'static str,
    /// One of these stands in a line, or the pattern is not tried on it.
    pub(super) needs: &'static [&'static str],
    pub(super) pattern: &'static str,
    /// What matches this as well is ordinary.
    pub(super) unless: &'static str,
    /// Whether `unless` looks at the whole lines of the match, for words such as "never" before it.
    pub(super) nearby: bool,
    pub(super) reach: Reach,
    pub(super) place: Where,
    /// The severity where a document describes the behaviour rather than asks for it.
    pub(super) described: Severity,
}

/// What most rules have in common.
const BASE: Rule = Rule {
    code: "",
    severity: Severity::High,
    message: "",
    needs: &[],
    pattern: "",
    unless: "",
    nearby: false,
    reach: Reach::Line,
    place: Where::Anywhere,
    described: Severity::Warning,
};

/// A rule with its patterns compiled.
pub(super) struct Compiled {
    pub(super) rule: &'static Rule,
    pub(super) pattern: Regex,
    pub(super) unless: Option<Regex>,
}

/// All rules, and what finds the lines on which they are tried.
pub(super) struct Rules {
    pub(super) all: Vec<Compiled>,
    pub(super) words: AhoCorasick,
    /// For each word that is searched, the rules that need it.
    pub(super) needed_by: Vec<Vec<usize>>,
}

fn tables() -> impl Iterator<Item = &'static Rule> {
    [
        install::RULES,
        encoded::RULES,
        send::RULES,
        theft::RULES,
        control::RULES,
        agent::RULES,
        orders::RULES,
        wired::RULES,
        drain::RULES,
        deeds::RULES,
    ]
    .into_iter()
    .flatten()
}

/// An address of a place that shares texts, hides where it leads or belongs to nobody in particular.
pub(super) static SHADY: LazyLock<Regex> = LazyLock::new(|| compile(shady_url!()));
/// What sends data, in any language.
pub(super) static SENDS: LazyLock<Regex> = LazyLock::new(|| compile(sender!()));

/// Whether an address is one of hosts whose programs everybody runs without looking.
pub(super) fn is_vendor(address: &[u8]) -> bool {
    static KNOWN: LazyLock<Regex> = LazyLock::new(|| compile(install::VENDORS));
    KNOWN.is_match(address)
}

/// A pattern over bytes that are UTF-8: `.`, `\w` and the like are of ASCII, which is much faster.
pub(super) fn compile(pattern: &str) -> Regex {
    RegexBuilder::new(pattern)
        .unicode(false)
        .size_limit(32 * 1024 * 1024)
        // With less the automaton of a large pattern is thrown away and built anew all the time.
        .dfa_size_limit(8 * 1024 * 1024)
        .build()
        .expect("the patterns are constants, compiled by every test")
}

/// Finds words with one step per byte, whatever their number.
pub(super) fn words_of(words: &[&str]) -> AhoCorasick {
    AhoCorasick::builder()
        .kind(Some(AhoCorasickKind::DFA))
        .build(words)
        .expect("the words are constants, compiled by every test")
}

pub(super) static RULES: LazyLock<Rules> = LazyLock::new(|| {
    let mut words: Vec<&'static str> = Vec::new();
    let mut needed_by: Vec<Vec<usize>> = Vec::new();
    let mut all = Vec::new();
    for (index, rule) in tables().enumerate() {
        for word in rule.needs {
            let at = words.iter().position(|known| known == word).unwrap_or_else(|| {
                words.push(word);
                needed_by.push(Vec::new());
                words.len() - 1
            });
            needed_by[at].push(index);
        }
        all.push(Compiled {
            rule,
            pattern: compile(rule.pattern),
            unless: (!rule.unless.is_empty()).then(|| compile(rule.unless)),
        });
    }
    let words = words_of(&words);
    Rules { all, words, needed_by }
});
