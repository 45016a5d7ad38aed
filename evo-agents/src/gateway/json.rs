//! JSON in the answer of a model: among prose, in code fences, or alone.

use serde::de::DeserializeOwned;
use serde_json::Value;

/// Longest answer that is looked through.
const MAX_TEXT: usize = 1024 * 1024;
/// Most places at which a value may begin that are tried.
const MAX_STARTS: usize = 500;

/// The first JSON value in a text that is a `T`; the error tells the model what is wrong.
///
/// ```
/// use evo_agents::gateway::extract_json;
///
/// let answer = "Sure, here it is:\n```json\n{\"name\": \"lamp\"}\n```\nAnything else?";
/// let value: std::collections::BTreeMap<String, String> = extract_json(answer).unwrap();
/// assert_eq!(value["name"], "lamp");
/// ```
pub fn extract<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    let text = text.trim().trim_start_matches('\u{feff}');
    if text.len() > MAX_TEXT {
        return Err(format!("the answer is longer than {MAX_TEXT} bytes"));
    }
    // An answer that is nothing but JSON may also be a plain text or a number.
    if let Ok(value) = serde_json::from_str(text) {
        return Ok(value);
    }
    let mut problem = None;
    let mut at = 0;
    for _ in 0..MAX_STARTS {
        let Some(start) = text[at..].find(['{', '[']).map(|found| at + found) else { break };
        let mut values = serde_json::Deserializer::from_str(&text[start..]).into_iter::<Value>();
        match values.next() {
            Some(Ok(value)) => match serde_json::from_value(value) {
                Ok(value) => return Ok(value),
                Err(error) => {
                    problem.get_or_insert_with(|| {
                        format!("the JSON is not what was asked for: {error}")
                    });
                    at = start + values.byte_offset();
                }
            },
            Some(Err(error)) => {
                problem.get_or_insert_with(|| format!("the JSON can't be read: {error}"));
                at = start + 1;
            }
            None => break,
        }
    }
    Err(problem.unwrap_or_else(|| "the answer holds no JSON".to_owned()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn json_is_found_wherever_it_stands() {
        for text in [
            r#"[{"locator":"GET /a"}]"#,
            "\u{feff} [{\"locator\":\"GET /a\"}]\n",
            "```json\n[{\"locator\": \"GET /a\"}]\n```",
            "```\n[{\"locator\": \"GET /a\"}]```",
            "~~~json\r\n[{\"locator\": \"GET /a\"}]\r\n~~~",
            "Here are the [3] descriptions {as asked}:\n\n[{\"locator\": \"GET /a\"}]\n\nDone.",
            "<think>maybe [1, 2]?</think>\n[{\"locator\":\"GET /a\"}] [{\"locator\":\"GET /b\"}]",
        ] {
            let value: Vec<BTreeMap<String, String>> = extract(text).unwrap();
            assert_eq!(value, [BTreeMap::from([("locator".into(), "GET /a".into())])], "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let problem = |text: &str| extract::<Vec<u32>>(text).unwrap_err();
        assert_eq!(problem("I can't do that."), "the answer holds no JSON");
        assert_eq!(problem(""), "the answer holds no JSON");
        assert!(
            problem("[1, 2").starts_with("the JSON can't be read: EOF"),
            "{}",
            problem("[1, 2")
        );
        assert!(problem(r#"{"a": 1}"#).contains("expected a sequence"));
        assert!(problem(&"[".repeat(100_000)).contains("recursion limit"));
        assert!(problem(&"x".repeat(MAX_TEXT + 1)).contains("longer than"));
    }

    /// Objects and lists: what stands in an answer among other text.
    fn documents() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".{0,20}".prop_map(Value::from),
        ];
        let value = leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map(".{0,8}", inner, 0..6).prop_map(|map| json!(map)),
            ]
        });
        prop_oneof![
            prop::collection::vec(value.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(".{0,8}", value, 0..6).prop_map(|map| json!(map)),
        ]
    }

    proptest! {
        #[test]
        fn fences_and_prose_never_change_the_value(
            value in documents(),
            pretty in any::<bool>(),
            fence in prop::sample::select(vec![("", ""), ("```json\n", "\n```"), ("```", "```"), ("~~~\n", "\n~~~")]),
            before in r"[^\[{]{0,60}",
            after in ".{0,60}",
        ) {
            let json = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) };
            let text = format!("{before}\n{}{}{}\n{after}", fence.0, json.unwrap(), fence.1);
            prop_assert_eq!(extract::<Value>(&text).unwrap(), value);
        }

        #[test]
        fn no_text_is_too_odd(text in r#"[\[\]{}",:a1\\ ]{0,200}"#) {
            let _found: Result<Vec<u8>, String> = extract(&text);
        }
    }
}
