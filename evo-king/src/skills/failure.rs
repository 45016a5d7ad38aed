//! What failing calls have in common. Pure: messages without what differs from call to call, and the
//! shape of inputs.

use std::sync::LazyLock;

use evo_common::redact::redact;
use regex::{Captures, Regex};
use serde_json::{Map, Value};

/// Characters of a message that are looked at, and that are left of it.
const LOOKED_AT: usize = 2_000;
const KEPT: usize = 200;
/// Inputs that a shape names, and characters of a name.
const MAX_INPUTS: usize = 40;
const MAX_NAME: usize = 40;

/// What differs from call to call, each part by its name. What stands earlier counts; the status of an
/// answer is kept, for a server that refuses is another thing than one that breaks.
static PARTS: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r#"(?x)
        (?P<status> \b (?: status | http (?:/[\d.]+)? | code) [\s:=]+ [1-5]\d\d \b )
        | (?P<host> \b [a-z][a-z0-9+.-]* :// [^\s"'`<>)\]]+
            | \b (?:\d{1,3}\.){3}\d{1,3} (?: :\d+ )? \b
            | \[ [0-9a-f:]* :: [0-9a-f:.]* \] (?: :\d+ )?
            | \b localhost (?: :\d+ )? \b
            | \b (?: [a-z0-9] [a-z0-9-]* \. )+ [a-z]{2,24} (?: :\d+ )? \b )
        | (?P<text> "[^"]*" | '[^'\s][^']*' | `[^`]*` )
        | (?P<time> \b \d{4}-\d\d-\d\d (?: [t\x20] \d\d:\d\d (?: :\d\d (?:\.\d+)? )? (?: z | [+-]\d\d:?\d\d )? )?
            | \b \d\d?:\d\d (?: :\d\d (?:\.\d+)? )? \b )
        | (?P<id> \b [0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12} \b
            | \b (?: [a-z]+[-_] )? [0-9a-f]* \d [0-9a-f]* [a-f0-9]{7,} \b )
        | (?P<n> [-+]? \b \d[\d_,.]* (?: e[-+]?\d+ )? \s? (?: ms | us | µs | ns | s | kib | mib | gib | kb | mb | gb | b | % )? (?: \b | $ ) )
        "#,
    )
    .expect("a constant pattern")
});

/// A message without numbers, ids, quoted texts, hosts and times; in lower case, on one line.
pub(crate) fn normalised(message: &str) -> String {
    let message: String = redact(message).chars().take(LOOKED_AT).collect();
    let message = message.to_lowercase();
    let plain = PARTS.replace_all(&message, |parts: &Captures<'_>| {
        if let Some(status) = parts.name("status") {
            let digits = status.as_str();
            return format!("status_{}", &digits[digits.len() - 3..]);
        }
        let name =
            ["host", "text", "time", "id"].into_iter().find(|name| parts.name(name).is_some());
        format!("<{}>", name.unwrap_or("n"))
    });
    let words: Vec<&str> = plain.split_whitespace().collect();
    words.join(" ").chars().take(KEPT).collect()
}

/// Names and types of inputs: `city: string, limit: integer`.
pub(crate) fn shape(input: Option<&Map<String, Value>>) -> String {
    let Some(input) = input else { return "unknown".to_owned() };
    if input.is_empty() {
        return "nothing".to_owned();
    }
    let mut parts: Vec<String> = input
        .iter()
        .map(|(name, value)| {
            let name: String = name.chars().take(MAX_NAME).collect();
            format!("{name}: {}", kind(value))
        })
        .collect();
    parts.sort_unstable();
    parts.truncate(MAX_INPUTS);
    parts.join(", ")
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "list",
        Value::Object(_) => "object",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_differs_from_call_to_call_is_left_out() {
        let table = [
            ("Timed out after 1503 ms", "timed out after <n>"),
            ("timed out after 2.5s", "timed out after <n>"),
            ("no pet \"Rex\" at 10.0.0.7:8080", "no pet <text> at <host>"),
            ("no pet 'Bo b' at example.org", "no pet <text> at <host>"),
            ("GET https://api.example.com/v1/pets?id=7 failed", "get <host> failed"),
            ("run 01890a5d-ac96-774b-bcce-b302099a8057 is gone", "run <id> is gone"),
            ("order 5f3a9c01d2e4 is unknown", "order <id> is unknown"),
            ("since 2026-11-22T12:34:56Z", "since <time>"),
            ("at 12:34:56 nothing", "at <time> nothing"),
            ("the server said: HTTP 503", "the server said: status_503"),
            ("answered with status 404 after 12 ms", "answered with status_404 after <n>"),
            ("[::1]:3000 refuses", "<host> refuses"),
            ("it can't be done", "it can't be done"),
            ("line one\n  line two", "line one line two"),
        ];
        for (message, expected) in table {
            assert_eq!(normalised(message), expected, "{message}");
        }
    }

    #[test]
    fn another_status_is_another_kind_of_failure() {
        assert_ne!(normalised("status 404"), normalised("status 500"));
        assert_eq!(normalised("status: 500"), normalised("HTTP 500"));
    }

    #[test]
    fn a_shape_has_names_and_types() {
        let input =
            json!({"city": "Bern", "limit": 3, "ratio": 0.5, "deep": {"x": 1}, "none": null});
        assert_eq!(
            shape(input.as_object()),
            "city: string, deep: object, limit: integer, none: null, ratio: number"
        );
        assert_eq!(shape(json!({}).as_object()), "nothing");
        assert_eq!(shape(None), "unknown");
    }

    proptest! {
        #[test]
        fn numbers_make_no_difference(a in 0_u32..1_000_000, b in 0_u32..1_000_000) {
            let message = |n: u32| format!("row {n} of {} is broken", n / 2);
            prop_assert_eq!(normalised(&message(a)), normalised(&message(b)));
        }

        #[test]
        fn any_message_is_bounded_and_stays_as_it_is_once_normalised(message in ".{0,400}") {
            let once = normalised(&message);
            prop_assert!(once.chars().count() <= KEPT);
            prop_assert!(!once.contains('\n'));
        }
    }
}
