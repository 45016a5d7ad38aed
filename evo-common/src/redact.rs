//! Secrets are taken out of everything that leaves the process: logs, events, traces, memories.
//!
//! Masking works on text, also on JSON text, which stays valid JSON. It knows how secrets look
//! (Evo's own tokens, provider keys, `Bearer …`, URLs with a password) and how they are named
//! (`password=`, `"api_key": "…"`). It is a safety net: code that holds a secret uses
//! [`crate::tokens::Secret`].

use std::{borrow::Cow, sync::LazyLock};

use regex::{Captures, Regex};

/// What stands in the place of a secret.
pub const MASK: &str = "***";

/// One kind of secret: `before` is kept, what follows it is masked.
struct Rule {
    pattern: Regex,
    /// Words that are prose in the place of a secret ("a bearer token").
    prose: &'static [&'static str],
}

/// Start of a word in plain text, or after an escape such as `\n` in JSON text. Of ASCII, because the
/// search for one of Unicode is a hundred times slower in texts that are not ASCII.
const START: &str = r"(?:(?-u:\b)|\\[bfnrt])";
/// End of a word.
const END: &str = r"(?-u:\b)";

static RULES: LazyLock<Vec<Rule>> = LazyLock::new(|| {
    let rule = |pattern: &str, prose| Rule {
        pattern: Regex::new(pattern).expect("the patterns are constants, compiled by every test"),
        prose,
    };
    // What stands behind the name, up to the closing parenthesis of `before`, and the value.
    let named = |tail: &str| rule(&format!("(?i)(?<before>{NAMED}{tail}"), &[]);
    let authorization = |between: &str| {
        let scheme = r"(?:basic\s+|token\s+)?";
        rule(
            &format!("(?i)(?<before>authorization{between}{scheme})(?<value>[A-Za-z0-9._~+/=-]+)"),
            &["basic", "token", "bearer"],
        )
    };
    vec![
        // user:password in a URL, before any rule that could cut the password in two.
        rule(r#"(?<before>[A-Za-z][A-Za-z0-9+.-]*://)[^\s/?#@:"]*:[^\s/?#"]+@"#, &[]),
        // Evo's own tokens and the original's gateway keys.
        rule(r"(?<before>evo_(?:op|vw|rn|iv|gw)_)[A-Za-z0-9_]+", &[]),
        rule(&format!(r"(?<before>{START}evo-)[0-9a-f]{{48}}{END}"), &[]),
        // Tokens of Evotown.
        rule(&format!(r"(?<before>{START}ev[ik]_)[A-Za-z0-9_-]{{8,}}"), &[]),
        // Keys of providers and forges.
        rule(&format!(r"(?<before>{START}sk-)[A-Za-z0-9_-]{{8,}}"), &[]),
        rule(&format!(r"(?<before>{START}gh[pousr]_)[A-Za-z0-9]{{20,}}"), &[]),
        rule(&format!(r"(?<before>{START}github_pat_)[A-Za-z0-9_]{{20,}}"), &[]),
        rule(&format!(r"(?<before>{START}AIza)[A-Za-z0-9_-]{{30,}}"), &[]),
        rule(&format!(r"(?<before>{START}A(?:KIA|SIA))[A-Z0-9]{{16}}{END}"), &[]),
        rule(&format!(r"(?<before>{START}xox[abprs]-)[A-Za-z0-9-]{{10,}}"), &[]),
        rule(
            &format!(
                r"(?<before>{START}(?:gsk_|hf_|r8_|npm_|[rs]k_(?:live|test)_|xai-|pplx-|nvapi-|glpat-))[A-Za-z0-9_-]{{16,}}"
            ),
            &[],
        ),
        // JSON Web Tokens, and keys as files hold them.
        rule(
            &format!(
                r"(?<before>{START}eyJ)[A-Za-z0-9_-]{{8,}}\.[A-Za-z0-9_-]{{8,}}[A-Za-z0-9_.-]*"
            ),
            &[],
        ),
        rule(
            r"(?<before>-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----)(?:[A-Za-z0-9+/=\s]|\\[nr])+",
            &[],
        ),
        // Headers that authenticate.
        rule(
            &format!(r"(?<before>{START}(?i:bearer)\s+)(?<value>[A-Za-z0-9._~+/=-]{{6,}})"),
            &["token", "tokens", "authentication", "authorization", "scheme", "header"],
        ),
        authorization(r#"\s*[:=]\s*(?:\\*["'])?"#),
        authorization(r#"\\*["']\s*[:=]\s*\\*["']"#),
        rule(r#"(?i)(?<before>x-(?:goog-)?api-key\s*:\s*)[^\s"'\\,;)\]}]+"#, &[]),
        // Named values. With a colon the value must be quoted ("wrong token: use …" is prose).
        // A plain double quote may also be the end of the JSON text in which the name stands: then
        // what follows it is no value.
        named(r#""\s*:\s*")(?:[^"\\]|\\.)+"#),
        named(r#"(?:\\*["'])?\s*[=:]\s*\\(?:\\\\)*")[^"\\]+"#),
        named(r#"(?:\\*["'])?\s*[=:]\s*\\*')[^"'\\]+"#),
        named(r#"(?:\\*["'])?\s*[=:]\s*")[^\s",:\]}\\](?:[^"\\]|\\.)*"#),
        named(r#"(?:\\*["'])?\s*=\s*)[^\s"'\\&,;)\]}]+"#),
        // The key in a query, as Google's APIs take it.
        rule(r#"(?<before>[?&]key=)[^\s"'\\&#]+"#, &[]),
    ]
});

/// Names whose value is a secret: `password`, `OPENAI_API_KEY`, `access_token`, `EVO_TOKEN_RUNNER`.
const NAMED: &str = r"(?:password|passwd|secret|api[_-]?key|access[_-]?key|private[_-]?key|token|evo_token_(?:operator|viewer|runner|invoke|gateway))";

/// Matches where any rule does. Nearly all texts hold no secret, and one search finds that out at
/// a fraction of the cost of one for each rule.
static ANY: LazyLock<Regex> = LazyLock::new(|| {
    let patterns: Vec<String> = RULES
        .iter()
        .map(|rule| {
            // A name of a group may stand once only.
            let plain =
                rule.pattern.as_str().replace("(?<before>", "(?:").replace("(?<value>", "(?:");
            format!("(?:{plain})")
        })
        .collect();
    Regex::new(&patterns.join("|")).expect("the patterns are constants, compiled by every test")
});

thread_local! {
    /// A thread's own, because threads that share one wait for its scratch space.
    static ANY_HERE: Regex = ANY.clone();
}

/// The text with every recognised secret replaced by [`MASK`].
pub fn redact(text: &str) -> Cow<'_, str> {
    // A thread that is ending has no locals any more; it still logs.
    let may_hold_one = ANY_HERE.try_with(|any| any.is_match(text)).unwrap_or(true);
    if !may_hold_one {
        return Cow::Borrowed(text);
    }
    masked(text)
}

fn masked(text: &str) -> Cow<'_, str> {
    RULES.iter().fold(Cow::Borrowed(text), |text, rule| {
        let masked = rule.pattern.replace_all(&text, |found: &Captures<'_>| {
            let value = found.name("value").map_or("", |value| value.as_str());
            if rule.prose.iter().any(|word| word.eq_ignore_ascii_case(value)) {
                return found[0].to_owned();
            }
            let end = if found[0].ends_with('@') { "@" } else { "" };
            format!("{}{MASK}{end}", &found["before"])
        });
        match masked {
            Cow::Borrowed(_) => text,
            Cow::Owned(masked) => Cow::Owned(masked),
        }
    })
}

/// Whether a value of this name is a secret, however it looks: `password`, `access_token`,
/// `Authorization`.
pub fn is_secret_name(name: &str) -> bool {
    static SECRET_NAME: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(&format!("(?i)(?:{NAMED}|authorization|cookie)$"))
            .expect("the pattern is a constant, compiled by every test")
    });
    SECRET_NAME.is_match(name)
}

/// Masks every text inside a JSON value, and whole texts under a name such as `password`.
pub fn redact_json(value: &mut serde_json::Value) {
    use serde_json::Value;
    match value {
        Value::String(text) => {
            if let Cow::Owned(masked) = redact(text) {
                *text = masked;
            }
        }
        Value::Array(list) => list.iter_mut().for_each(redact_json),
        Value::Object(map) => {
            for (name, value) in map.iter_mut() {
                match value {
                    Value::String(text) if !text.is_empty() && is_secret_name(name) => {
                        MASK.clone_into(text);
                    }
                    other => redact_json(other),
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn secrets_are_masked() {
        let hex = "0123456789abcdef".repeat(4);
        for (text, expected) in [
            (format!("token evo_op_{hex} is"), "token evo_op_*** is".to_owned()),
            (format!("key evo-{}", &hex[..48]), "key evo-***".to_owned()),
            (
                "Authorization: Bearer abc.def-ghi".to_owned(),
                "Authorization: Bearer ***".to_owned(),
            ),
            ("authorization: Basic dXNlcjpwYXNz".to_owned(), "authorization: Basic ***".to_owned()),
            ("with sk-proj-abcDEF_123456 now".to_owned(), "with sk-*** now".to_owned()),
            ("password=hunter2&user=a".to_owned(), "password=***&user=a".to_owned()),
            ("db token=abc, api_key='xyz'".to_owned(), "db token=***, api_key='***'".to_owned()),
            ("OPENAI_API_KEY=abc".to_owned(), "OPENAI_API_KEY=***".to_owned()),
            ("EVO_TOKEN_RUNNER=abc".to_owned(), "EVO_TOKEN_RUNNER=***".to_owned()),
            (r#"{"api_key":"abc d","n":1}"#.to_owned(), r#"{"api_key":"***","n":1}"#.to_owned()),
            (
                r#"{"m":"Config { token: \"abc\" }"}"#.to_owned(),
                r#"{"m":"Config { token: \"***\" }"}"#.to_owned(),
            ),
            (r#"{"m":"a\nsk-abcdefgh12"}"#.to_owned(), r#"{"m":"a\nsk-***"}"#.to_owned()),
            (
                "libsql://u:p4ss@db.example/x?authToken=ey.J".to_owned(),
                "libsql://***@db.example/x?authToken=***".to_owned(),
            ),
            (
                "GET https://g.example/v1?key=AIzaX&alt=sse".to_owned(),
                "GET https://g.example/v1?key=***&alt=sse".to_owned(),
            ),
            (format!("ghp_{}", &hex[..36]), "ghp_***".to_owned()),
            (format!("an evi_{} token", &hex[..32]), "an evi_*** token".to_owned()),
            ("http://u:p@ss@host/a".to_owned(), "http://***@host/a".to_owned()),
            (format!("hf_{} gsk_{}", &hex[..32], &hex[..20]), "hf_*** gsk_***".to_owned()),
            (format!("jwt eyJhbGciOiJIUzI1NiJ9.{hex}.{hex}!"), "jwt eyJ***!".to_owned()),
            (
                "-----BEGIN RSA PRIVATE KEY-----\nMIIE+/=\nab\n-----END".to_owned(),
                "-----BEGIN RSA PRIVATE KEY-----***-----END".to_owned(),
            ),
            ("x-api-key: abc, accept: d".to_owned(), "x-api-key: ***, accept: d".to_owned()),
            // Values with spaces, quotes and escapes go as a whole.
            (r#"password="a b's \"c" next"#.to_owned(), r#"password="***" next"#.to_owned()),
            (
                r#"{"password":"it's \"it\"","n":1}"#.to_owned(),
                r#"{"password":"***","n":1}"#.to_owned(),
            ),
            (
                r#"{"m":"{\"password\":\"it's it\"}"}"#.to_owned(),
                r#"{"m":"{\"password\":\"***\"}"}"#.to_owned(),
            ),
            (
                r#"{"authorization":"Basic abc"}"#.to_owned(),
                r#"{"authorization":"Basic ***"}"#.to_owned(),
            ),
        ] {
            assert_eq!(redact(&text), expected);
        }
    }

    #[test]
    fn plain_text_is_left_alone() {
        for text in [
            "wrong token: use the operator token of tokens.toml",
            "max_tokens=100, tokens: 5, the Bearer token is missing",
            "task-management-skill at http://127.0.0.1:3000/agents/evo-learning?limit=5",
            "user@example.com wrote http://example.com:80/a@b",
            "auth_ref = \"EVO_VIEWER_TOKEN\", risk-assessment-report",
            // The quote behind the name is the end of a text.
            r#"{"message":"wrong token:","n":"x"}"#,
            r#"{"message":"send api_key=","n":"x"}"#,
            r#"{"message":"a path token: \\","n":"x"}"#,
            r#"{"authorization":true,"password":5}"#,
        ] {
            assert!(
                matches!(redact(text), Cow::Borrowed(same) if same == text),
                "{}",
                redact(text)
            );
        }
    }

    #[test]
    fn json_values_are_masked_by_name_too() {
        let mut value = serde_json::json!({
            "password": "x", "count": 1, "list": ["Bearer abcdefgh", {"client_secret": "y"}],
            "max_tokens": 5, "access_token": "", "authorization": "Basic dTpw"
        });
        redact_json(&mut value);
        assert_eq!(
            value,
            serde_json::json!({
                "password": "***", "count": 1, "list": ["Bearer ***", {"client_secret": "***"}],
                "max_tokens": 5, "access_token": "", "authorization": "***"
            })
        );
    }

    /// Texts in which the rules have something to find.
    fn hostile_text() -> impl Strategy<Value = String> {
        let part = prop_oneof![
            any::<String>(),
            Just("token=".to_owned()),
            Just("\"password\": \"".to_owned()),
            Just("Bearer ".to_owned()),
            Just("https://u:".to_owned()),
            Just("@".to_owned()),
            Just("sk-".to_owned()),
            Just("evo_op_".to_owned()),
            Just("\\\"".to_owned()),
            Just("Authorization: ".to_owned()),
            Just("token: ".to_owned()),
            Just("api_key:".to_owned()),
            Just("'".to_owned()),
            Just("\"".to_owned()),
            Just("\\".to_owned()),
            Just(", \"n\": ".to_owned()),
            Just("-----BEGIN PRIVATE KEY-----".to_owned()),
            "[a-z0-9]{0,20}",
        ];
        proptest::collection::vec(part, 0..8).prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn never_panics(text in hostile_text()) {
            prop_assert!(redact(&text).len() <= text.len() * (MASK.len() + 1));
        }

        #[test]
        fn no_rule_finds_what_the_search_for_all_of_them_misses(text in hostile_text()) {
            prop_assert_eq!(redact(&text), masked(&text));
        }

        #[test]
        fn json_stays_json(
            text in hostile_text(), name in "[a-z_]{1,12}|token|password|authorization", n in any::<i32>(),
        ) {
            let line = serde_json::json!({
                "message": text, name.clone(): text, "nested": [{ name: n, "token": text }, text],
            })
            .to_string();
            let masked = redact(&line);
            prop_assert!(serde_json::from_str::<serde_json::Value>(&masked).is_ok(), "{}", masked);
        }

        #[test]
        fn our_tokens_never_survive(before in hostile_text(), after in "[^a-zA-Z0-9].{0,20}|") {
            let secret = "c0ffee".repeat(10);
            let text = format!("{before}evo_rn_{secret}{after}");
            prop_assert!(!redact(&text).contains(&secret));
        }
    }
}
