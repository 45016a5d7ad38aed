//! What differs between two packages.

use std::collections::BTreeSet;

use evo_common::{api::FileDiff, artifact::Files};
use similar::TextDiff;

/// Longest diff of one file.
const MAX_DIFF: usize = 64 * 1024;
/// Lines around a change.
const CONTEXT: usize = 3;

/// The files that differ, in the order of their paths.
pub(crate) fn of(from: &Files, to: &Files) -> Vec<FileDiff> {
    let paths: BTreeSet<&String> = from.keys().chain(to.keys()).collect();
    paths
        .into_iter()
        .filter_map(|path| {
            let (old, new) = (from.get(path), to.get(path));
            let change = match (old, new) {
                (None, _) => "added",
                (_, None) => "removed",
                (Some(old), Some(new)) if old == new => return None,
                _ => "changed",
            };
            let bytes = |file: Option<&Vec<u8>>| file.cloned().unwrap_or_default();
            let diff = unified(path, &bytes(old), &bytes(new), old.is_some(), new.is_some());
            Some(FileDiff { path: path.clone(), change: change.to_owned(), diff })
        })
        .collect()
}

fn unified(path: &str, old: &[u8], new: &[u8], had: bool, has: bool) -> String {
    let (Ok(before), Ok(after)) = (std::str::from_utf8(old), std::str::from_utf8(new)) else {
        return format!("no text: {} bytes before, {} bytes after", old.len(), new.len());
    };
    let name = |there: bool, side: &str| {
        if there { format!("{side}/{path}") } else { "/dev/null".to_owned() }
    };
    let mut text = TextDiff::from_lines(before, after)
        .unified_diff()
        .context_radius(CONTEXT)
        .header(&name(had, "a"), &name(has, "b"))
        .to_string();
    if text.len() > MAX_DIFF {
        text.truncate(text.floor_char_boundary(MAX_DIFF));
        text.push_str("\n… the rest is left out\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(list: &[(&str, &str)]) -> Files {
        list.iter().map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec())).collect()
    }

    #[test]
    fn changed_added_and_removed_files_are_told_as_unified_diffs() {
        let from = files(&[("a", "1\n2\n3\n"), ("gone", "x\n"), ("same", "s")]);
        let mut to = files(&[("a", "1\ntwo\n3\n"), ("new", "n\n"), ("same", "s")]);
        to.insert("raw".to_owned(), vec![0xff]);
        let found = of(&from, &to);
        let short: Vec<_> = found.iter().map(|f| (f.path.as_str(), f.change.as_str())).collect();
        assert_eq!(
            short,
            [("a", "changed"), ("gone", "removed"), ("new", "added"), ("raw", "added")]
        );
        assert_eq!(found[0].diff, "--- a/a\n+++ b/a\n@@ -1,3 +1,3 @@\n 1\n-2\n+two\n 3\n");
        assert!(found[1].diff.starts_with("--- a/gone\n+++ /dev/null\n"), "{}", found[1].diff);
        assert_eq!(found[3].diff, "no text: 0 bytes before, 1 bytes after");
    }
}
