//! What the documents say is what the code does.

use std::{collections::BTreeSet, fs};

use regex::Regex;

use crate::{root, source::production_text};

/// Environment variables that the code names: `"EVO_HOME"` in production code.
pub(crate) fn variables_in_code() -> BTreeSet<String> {
    let name = Regex::new(
        r#""((?:EVO|KING|KERNEL|GATEWAY|AGENT|RUNNER|EVOTOWN|SKILLLITE|RUST)_[A-Z0-9_]+)""#,
    )
    .unwrap();
    name.captures_iter(&production_text()).map(|found| found[1].to_owned()).collect()
}

/// Variables of the first column of the tables in a document.
fn variables_in_tables(path: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(root().join(path)).unwrap();
    let name = Regex::new(r"`([A-Z][A-Z0-9]*_[A-Z0-9_]+)`").unwrap();
    text.lines()
        .filter(|line| line.starts_with('|'))
        .filter_map(|line| line.split('|').nth(1))
        .flat_map(|cell| {
            name.captures_iter(cell).map(|found| found[1].to_owned()).collect::<Vec<_>>()
        })
        .collect()
}

#[test]
fn every_variable_is_in_the_configuration_reference_and_no_other() {
    // Names that a skill's `auth_ref` may have; nothing reads them from the environment.
    let not_read = ["EVO_VIEWER_TOKEN", "EVO_GATEWAY_TOKEN"].map(str::to_owned);
    let code: BTreeSet<String> =
        variables_in_code().into_iter().filter(|name| !not_read.contains(name)).collect();
    let documented = variables_in_tables("docs/configuration.md");
    let missing: Vec<_> = code.difference(&documented).collect();
    let invented: Vec<_> = documented.difference(&code).collect();
    assert!(missing.is_empty(), "docs/configuration.md lacks {missing:?}");
    assert!(invented.is_empty(), "docs/configuration.md names {invented:?}, which no code reads");
}

#[test]
fn links_between_documents_lead_somewhere() {
    let link = Regex::new(r"\]\(([^)#:\s]+)(#[^)]*)?\)").unwrap();
    let mut documents = vec![];
    for folder in [".", "docs", "tests/load", "tests/small-llm"] {
        let Ok(entries) = fs::read_dir(root().join(folder)) else { continue };
        documents.extend(entries.map(|entry| entry.unwrap().path()));
    }
    documents.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    assert!(documents.len() > 5, "the documents were not found");
    for document in documents {
        let text = fs::read_to_string(&document).unwrap();
        for found in link.captures_iter(&text) {
            let target = document.parent().unwrap().join(&found[1]);
            assert!(target.exists(), "{}: {} leads nowhere", document.display(), &found[1]);
        }
    }
}
