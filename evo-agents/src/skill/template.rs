//! Templates with `{input}` placeholders: names, texts and JSON values.

use serde_json::{Map, Value};

/// A piece of a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part<'a> {
    /// Stays as it is.
    Text(&'a str),
    /// The name of an input.
    Placeholder(&'a str),
}

/// Splits a template. A brace without its partner, and `{}`, are plain text.
pub(crate) fn parts(template: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let mut rest = template;
    while let Some(open) = rest.find('{') {
        let Some(length) = rest[open + 1..].find(['{', '}']) else { break };
        let end = open + 1 + length;
        if length == 0 || rest.as_bytes()[end] == b'{' {
            parts.push(Part::Text(&rest[..end]));
            rest = &rest[end..];
            continue;
        }
        if open > 0 {
            parts.push(Part::Text(&rest[..open]));
        }
        parts.push(Part::Placeholder(&rest[open + 1..end]));
        rest = &rest[end + 1..];
    }
    if !rest.is_empty() {
        parts.push(Part::Text(rest));
    }
    parts
}

/// The inputs that a template names.
pub(crate) fn names(template: &str) -> impl Iterator<Item = &str> {
    parts(template).into_iter().filter_map(|part| match part {
        Part::Placeholder(name) => Some(name),
        Part::Text(_) => None,
    })
}

/// The input when the template is exactly one placeholder.
pub(crate) fn single(template: &str) -> Option<&str> {
    match parts(template).as_slice() {
        [Part::Placeholder(name)] => Some(name),
        _ => None,
    }
}

/// A value as text: texts without quotes, everything else as JSON.
pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Fills a text template; `None` when it names an input that was not given.
pub(crate) fn fill(template: &str, input: &Map<String, Value>) -> Option<String> {
    parts(template)
        .into_iter()
        .map(|part| match part {
            Part::Text(text) => Some(text.to_owned()),
            Part::Placeholder(name) => input.get(name).map(text),
        })
        .collect()
}

/// Fills a JSON template; `None` when it is a text that names an input that was not given. Entries
/// of objects and lists that come to `None` are left out. Braces around anything that is no
/// declared input stay as they are: a body may be, say, a GraphQL query.
pub(crate) fn fill_json(
    template: &Value,
    declared: &dyn Fn(&str) -> bool,
    input: &Map<String, Value>,
) -> Option<Value> {
    match template {
        Value::String(text) => match single(text) {
            Some(name) if declared(name) => input.get(name).cloned(),
            _ => {
                let filled: Option<String> = parts(text)
                    .into_iter()
                    .map(|part| match part {
                        Part::Placeholder(name) if declared(name) => {
                            input.get(name).map(self::text)
                        }
                        Part::Placeholder(name) => Some(format!("{{{name}}}")),
                        Part::Text(text) => Some(text.to_owned()),
                    })
                    .collect();
                filled.map(Value::String)
            }
        },
        Value::Array(entries) => Some(Value::Array(
            entries.iter().filter_map(|entry| fill_json(entry, declared, input)).collect(),
        )),
        Value::Object(entries) => Some(Value::Object(
            entries
                .iter()
                .filter_map(|(key, entry)| Some((key.clone(), fill_json(entry, declared, input)?)))
                .collect(),
        )),
        other => Some(other.clone()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn map(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn placeholders_are_found_and_lone_braces_are_text() {
        assert_eq!(names("/a/{b}/c-{d}").collect::<Vec<_>>(), ["b", "d"]);
        assert_eq!(single("{a}"), Some("a"));
        assert_eq!(single("{a}b"), None);
        for plain in ["", "a", "{", "}", "{}", "a{", "a}b{"] {
            assert_eq!(names(plain).count(), 0, "{plain}");
            assert_eq!(fill(plain, &Map::new()).unwrap(), plain);
        }
        assert_eq!(names("{{a}}").collect::<Vec<_>>(), ["a"]);
        assert_eq!(fill("{{a}}", &map(json!({"a": 1}))).unwrap(), "{1}");
    }

    #[test]
    fn json_templates_keep_types_and_drop_what_was_not_given() {
        let template = json!({
            "whole": "{n}", "inside": "n={n}", "gone": "{missing}", "list": ["{n}", "{missing}", 2],
            "query": "query { user(id: {n}) }"
        });
        let declared = |name: &str| ["n", "missing"].contains(&name);
        assert_eq!(
            fill_json(&template, &declared, &map(json!({"n": 7}))),
            Some(json!({
                "whole": 7, "inside": "n=7", "list": [7, 2], "query": "query { user(id: 7) }"
            }))
        );
        assert_eq!(fill_json(&json!("{missing}"), &declared, &Map::new()), None);
    }

    proptest::proptest! {
        #[test]
        fn filling_nothing_changes_nothing(text in "[a-z{} ]{0,40}") {
            let joined: String = parts(&text)
                .iter()
                .map(|part| match part {
                    Part::Text(text) => (*text).to_owned(),
                    Part::Placeholder(name) => format!("{{{name}}}"),
                })
                .collect();
            proptest::prop_assert_eq!(joined, text);
        }
    }
}
