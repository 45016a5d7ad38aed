//! Splits a task into parts by the form of its text, for when nobody advises. Pure.

use evo_common::messages::TaskSubtaskSpec;
use serde_json::{Map, Value};

use super::MAX_PARTS;

/// Shorter than this, a sentence is no work of its own.
const SHORTEST: usize = 3;
/// Longest text that is looked at.
const LONGEST: usize = 16 * 1024;
/// Names under which a payload holds what is to be done as a list.
const LISTS: [&str; 6] = ["steps", "tasks", "subtasks", "items", "parts", "todo"];
/// Names under which a payload holds it as a text.
const TEXTS: [&str; 6] = ["prompt", "text", "task", "instruction", "question", "description"];

/// The parts that a task has by its payload's lists, its lines, what stands between `and then`, or its
/// sentences: the first of these that gives more than one. Nothing otherwise.
pub(super) fn plain(summary: &str, payload: &Value) -> Vec<TaskSubtaskSpec> {
    let texts = || {
        let named = TEXTS.iter().filter_map(|name| payload.get(name)?.as_str());
        std::iter::once(summary).chain(named).map(|text| super::cut(text, LONGEST))
    };
    let from_list =
        LISTS.iter().filter_map(|name| payload.get(name)?.as_array()).map(|list| items(list));
    let from_text = [lines as fn(&str) -> Vec<String>, joined, sentences]
        .into_iter()
        .flat_map(|cut| texts().map(cut).collect::<Vec<_>>())
        .map(|parts| parts.into_iter().map(part).collect::<Vec<_>>());
    let mut parts = from_list.chain(from_text).find(|parts| parts.len() > 1).unwrap_or_default();
    parts.truncate(MAX_PARTS);
    parts
}

fn part(summary: String) -> TaskSubtaskSpec {
    TaskSubtaskSpec { task_type: "user".to_owned(), summary, payload: Value::Object(Map::new()) }
}

/// The items of a list: texts, or objects that say what is to be done.
fn items(list: &[Value]) -> Vec<TaskSubtaskSpec> {
    list.iter()
        .filter_map(|item| match item {
            Value::String(text) => worth(text).map(part),
            Value::Object(object) => {
                let text =
                    ["summary"].iter().chain(&TEXTS).find_map(|name| object.get(*name)?.as_str());
                let payload = item.clone();
                Some(TaskSubtaskSpec { payload, ..part(worth(text?)?) })
            }
            _ => None,
        })
        .collect()
}

/// A text without what marks it as an item, if there is enough of it.
fn worth(text: &str) -> Option<String> {
    let text = text.trim().trim_end_matches([';', ',']).trim();
    (text.chars().filter(|c| c.is_alphanumeric()).count() >= SHORTEST).then(|| text.to_owned())
}

/// Lines that begin with a mark or a number.
fn lines(text: &str) -> Vec<String> {
    text.lines()
        .filter_map(|line| {
            let line = line.trim_start();
            let rest = line.strip_prefix(['-', '*', '•', '–']).or_else(|| {
                let digits =
                    line.trim_start_matches('(').trim_start_matches(|c: char| c.is_ascii_digit());
                let counted = digits.len() < line.trim_start_matches('(').len();
                counted.then(|| digits.strip_prefix(['.', ')', ':', '、'])).flatten()
            })?;
            // `3.5` and `-x` are no items.
            (rest.starts_with(char::is_whitespace) || !rest.is_ascii())
                .then(|| worth(rest))
                .flatten()
        })
        .collect()
}

/// What stands between `and then`, `then` after a comma or semicolon, and semicolons.
fn joined(text: &str) -> Vec<String> {
    const MARKS: [&str; 6] = [", and then ", " and then ", ", then ", "; then ", "; ", "；"];
    let mut parts = vec![text.to_owned()];
    for mark in MARKS {
        parts = parts.iter().flat_map(|part| part.split(mark)).map(str::to_owned).collect();
    }
    parts.iter().filter_map(|part| worth(part.trim_end_matches('.'))).collect()
}

/// Sentences.
fn sentences(text: &str) -> Vec<String> {
    let mut parts = Vec::new();
    let mut begin = 0;
    let mut marks = text.char_indices().peekable();
    while let Some((at, mark)) = marks.next() {
        let next = marks.peek().map(|(_, next)| *next);
        let wide = matches!(mark, '。' | '！' | '？');
        let ends = wide || matches!(mark, '.' | '!' | '?') && next.is_none_or(char::is_whitespace);
        if ends || mark == '\n' {
            let end = at + mark.len_utf8();
            parts.extend(text.get(begin..end).and_then(worth));
            begin = end;
        }
    }
    parts.extend(text.get(begin..).and_then(worth));
    parts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn summaries(summary: &str, payload: &Value) -> Vec<String> {
        plain(summary, payload).into_iter().map(|part| part.summary).collect()
    }

    #[test]
    fn each_form_of_a_list_gives_its_items() {
        let two = ["List the dogs", "List the cats"];
        for text in [
            "Do this:\n- List the dogs\n- List the cats",
            "1. List the dogs\n2. List the cats",
            "(1) List the dogs\n(2) List the cats",
            "List the dogs and then List the cats.",
            "List the dogs, then List the cats",
            "List the dogs; List the cats",
        ] {
            assert_eq!(summaries(text, &json!({})), two, "{text}");
            assert_eq!(summaries("", &json!({ "prompt": text })), two, "{text}");
        }
        assert_eq!(summaries("List the dogs. Count v3.5 of them!", &json!({})).len(), 2);
        assert_eq!(summaries("列出所有的狗。列出所有的猫。", &json!({})).len(), 2);
        let steps = json!({"steps": ["List the dogs", {"summary": "List the cats", "limit": 3}]});
        assert_eq!(summaries("Pets. And more.", &steps), two);
        assert_eq!(plain("", &steps)[1].payload["limit"], 3);
    }

    #[test]
    fn one_thing_is_not_split() {
        for text in ["List the pets.", "", "-x", "3.5", "a; b"] {
            assert!(plain(text, &json!({"n": 1})).is_empty(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_gives_a_bounded_number_of_parts(text in "[\\PC\\n]{0,200}", lines in 0..40_usize) {
            let many = "- do it\n".repeat(lines);
            for text in [text, many] {
                let parts = plain(&text, &json!({"prompt": text, "steps": [text]}));
                prop_assert!(parts.len() <= MAX_PARTS && parts.len() != 1);
                prop_assert!(parts.iter().all(|part| !part.summary.trim().is_empty()));
            }
        }
    }
}
