//! The table of what was seen to work: front × provider's protocol × capability.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    path::PathBuf,
};

use crate::config;

/// What a client said of its checks; see `sdk_checks.py`.
pub(crate) struct Seen {
    pub(crate) front: &'static str,
    pub(crate) client: &'static str,
    pub(crate) family: &'static str,
    pub(crate) told: String,
}

/// The first lines of the document.
const HEAD: &str = "\
# What the gateway translates

Written by the test `interop every_front_at_every_family_of_providers` from the checks that ran, and
compared with this file on every run; `EVO_REWRITE_MATRIX=1` writes it anew. The checks use the
vendors' own SDKs as clients and fake providers that those SDKs take for the real ones.

- `works`: at least one check used it from this front at a provider of this protocol, and all passed.
- `refused`: the provider's protocol cannot do it; the gateway answers with a clear error that names
  the field, which a check saw. What it says stands below the tables.
- `ignored`: the provider passes over the field and answers without it, which a check saw; the gateway
  cannot know.
- `-`: no check.

The family `OpenAI Responses` is a provider with `wire_api = \"responses\"`. An Ollama server is an
`open_ai_compatible` provider, and has part of OpenAI's protocol.
";

/// Compares the table with the committed file, or writes it.
pub(crate) fn agrees(seen: &[&Seen]) {
    let text = document(seen);
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/gateway-matrix.md");
    if config::rewrites_the_matrix() {
        std::fs::write(&path, text).unwrap();
        return;
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(committed, text, "docs/gateway-matrix.md is not what the checks showed");
}

fn document(seen: &[&Seen]) -> String {
    let mut text = HEAD.to_owned();
    let mut reasons = BTreeSet::new();
    let fronts: Vec<(&str, &str)> = distinct(seen.iter().map(|it| (it.front, it.client)));
    for (front, client) in fronts {
        let runs: Vec<&Seen> = seen.iter().copied().filter(|it| it.front == front).collect();
        let families: Vec<&str> = distinct(runs.iter().map(|it| it.family));
        let cells: BTreeMap<&str, BTreeMap<&str, &str>> =
            runs.iter().map(|run| (run.family, cells(run, front, &mut reasons))).collect();
        let capabilities: BTreeSet<&str> =
            cells.values().flat_map(|it| it.keys().copied()).collect();
        writeln!(text, "\n## {front}\n\nClient: {client}. Providers by their protocol:\n").unwrap();
        writeln!(text, "| capability | {} |", families.join(" | ")).unwrap();
        writeln!(text, "|---|{}", "---|".repeat(families.len())).unwrap();
        for capability in capabilities {
            let row: Vec<&str> = families
                .iter()
                .map(|family| cells[family].get(capability).copied().unwrap_or("-"))
                .collect();
            writeln!(text, "| {capability} | {} |", row.join(" | ")).unwrap();
        }
    }
    text.push_str("\n## What is refused\n\n");
    for reason in reasons {
        writeln!(text, "- {reason}").unwrap();
    }
    text
}

/// In the order of their first appearance.
fn distinct<T: PartialEq>(all: impl Iterator<Item = T>) -> Vec<T> {
    let mut found = Vec::new();
    for one in all {
        if !found.contains(&one) {
            found.push(one);
        }
    }
    found
}

fn cells<'a>(
    run: &'a Seen,
    front: &str,
    reasons: &mut BTreeSet<String>,
) -> BTreeMap<&'a str, &'static str> {
    let mut cells = BTreeMap::new();
    for line in run.told.lines() {
        if let Some(capability) = line.strip_prefix("works: ") {
            cells.entry(capability).or_insert("works");
        } else if let Some(capability) = line.strip_prefix("ignored: ") {
            cells.insert(capability, "ignored");
        } else if let Some((capability, words)) =
            line.strip_prefix("refused: ").and_then(|it| it.split_once(": "))
        {
            cells.insert(capability, "refused");
            reasons.insert(format!("{front} → {}: {capability}: {words}", run.family));
        }
    }
    cells
}
