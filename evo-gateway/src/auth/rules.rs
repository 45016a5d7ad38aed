//! What a virtual key may do, as its file holds it.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How long a pattern of models may be, in bytes.
const LONGEST_PATTERN: usize = 256;
/// How many patterns, or tags, a key may have.
const MOST: usize = 64;
/// How long a tag may be, in bytes.
const LONGEST_TAG: usize = 64;

/// What a key may do. What is not set is not limited.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub(crate) struct Rules {
    /// Models that it may ask for, with `*` for any text: `openai:*`, `gpt-4o*`, `hint:fast`. Compared
    /// with `provider:model` and with the model alone; empty allows all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub(crate) models: Vec<String>,
    /// Requests per minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    pub(crate) rpm: Option<u32>,
    /// Tokens per minute, of questions and answers together.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    pub(crate) tpm: Option<u64>,
    /// Requests at the same time.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    pub(crate) concurrency: Option<u32>,
    /// USD that it may spend in a day.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    pub(crate) budget_usd_per_day: Option<f64>,
    /// USD that it may spend in a month.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    pub(crate) budget_usd_per_month: Option<f64>,
    /// Hour (UTC, 0 to 23) at which days, and months, of budgets begin; midnight when it is not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    pub(crate) reset_hour: Option<u32>,
    /// Day (1 to 28) on which months of budgets begin; the first when it is not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    pub(crate) reset_day: Option<u32>,
    /// From when on it is refused (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, value_type = Option<String>)]
    pub(crate) expires_at: Option<DateTime<Utc>>,
    /// Words that its usage can be grouped by.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub(crate) tags: Vec<String>,
}

impl Rules {
    /// The names of all fields.
    pub(crate) const FIELDS: [&str; 10] = [
        "models",
        "rpm",
        "tpm",
        "concurrency",
        "budget_usd_per_day",
        "budget_usd_per_month",
        "reset_hour",
        "reset_day",
        "expires_at",
        "tags",
    ];

    /// The first fault: the field, and what is wrong with it.
    pub(crate) fn check(&self) -> Result<(), (&'static str, String)> {
        let zero = |field, what: &str| {
            Err((field, format!("is 0, so that no {what} could pass; leave it out for no limit")))
        };
        if self.rpm == Some(0) {
            return zero("rpm", "request");
        }
        if self.tpm == Some(0) {
            return zero("tpm", "token");
        }
        if self.concurrency == Some(0) {
            return zero("concurrency", "request");
        }
        for (field, budget) in [
            ("budget_usd_per_day", self.budget_usd_per_day),
            ("budget_usd_per_month", self.budget_usd_per_month),
        ] {
            if budget.is_some_and(|budget| !(0.0..1e9).contains(&budget)) {
                return Err((field, "is no amount of USD: use 0 or more".to_owned()));
            }
        }
        if self.reset_hour.is_some_and(|hour| hour > 23) {
            return Err(("reset_hour", "is no hour of a day: use 0 to 23 (UTC)".to_owned()));
        }
        if self.reset_day.is_some_and(|day| !(1..=28).contains(&day)) {
            return Err(("reset_day", "is no day that every month has: use 1 to 28".to_owned()));
        }
        let plain = |text: &String, longest: usize| {
            !text.is_empty() && text.len() <= longest && !text.chars().any(char::is_control)
        };
        if self.models.len() > MOST || !self.models.iter().all(|it| plain(it, LONGEST_PATTERN)) {
            let message =
                format!("holds more than {MOST} patterns, or one that is empty, or too long");
            return Err(("models", message));
        }
        if self.tags.len() > MOST || !self.tags.iter().all(|tag| plain(tag, LONGEST_TAG)) {
            let message = format!(
                "holds more than {MOST} tags, or one that is empty or longer than {LONGEST_TAG} bytes"
            );
            return Err(("tags", message));
        }
        Ok(())
    }

    /// Whether a model may be asked for. `asked` is what the caller named: a hint that is allowed
    /// covers whatever its route leads to.
    pub(crate) fn allows(&self, asked: &str, provider: &str, model: &str) -> bool {
        self.models.is_empty()
            || self.models.iter().any(|pattern| {
                matches(pattern, &[provider, ":", model])
                    || matches(pattern, &[model])
                    || (asked.starts_with("hint:") && matches(pattern, &[asked]))
            })
    }
}

/// Whether a text, given in pieces, is what a pattern with `*` says.
fn matches(pattern: &str, text: &[&str]) -> bool {
    let text: Vec<u8> = text.iter().flat_map(|piece| piece.bytes()).collect();
    let pattern = pattern.as_bytes();
    // Where the last star stands, and how much of the text it has taken.
    let (mut at, mut seen, mut star) = (0, 0, None);
    while seen < text.len() {
        if pattern.get(at) == Some(&b'*') {
            star = Some((at, seen));
            at += 1;
        } else if pattern.get(at) == Some(&text[seen]) {
            at += 1;
            seen += 1;
        } else if let Some((stood, taken)) = star {
            star = Some((stood, taken + 1));
            at = stood + 1;
            seen = taken + 1;
        } else {
            return false;
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_name_models() {
        let may = |patterns: &[&str], asked: &str, provider: &str, model: &str| {
            let models = patterns.iter().map(|it| (*it).to_owned()).collect();
            Rules { models, ..Rules::default() }.allows(asked, provider, model)
        };
        for (pattern, yes) in [
            ("*", true),
            ("openai:*", true),
            ("openai:gpt-4o", true),
            ("gpt-4o", true),
            ("gpt-*", true),
            ("*4*", true),
            ("g*t-*o", true),
            ("gpt-4", false),
            ("pt-4o", false),
            ("anthropic:*", false),
            ("openai", false),
            ("GPT-4o", false),
        ] {
            assert_eq!(may(&[pattern], "gpt-4o", "openai", "gpt-4o"), yes, "{pattern}");
        }
        assert!(may(&[], "x", "p", "x"));
        assert!(may(&["no", "x"], "x", "p", "x"));
        assert!(may(&["hint:fast"], "hint:fast", "p", "x"));
        // What a caller calls a model does not make it another one.
        assert!(!may(&["cheap*"], "cheap", "p", "dear"));
        assert!(may(&["llama3.2:*"], "llama3.2:latest", "ollama", "llama3.2:latest"));
    }

    #[test]
    fn wrong_rules_are_named() {
        let with = |text: &str| serde_json::from_str::<Rules>(text).unwrap().check();
        assert_eq!(with("{}"), Ok(()));
        assert_eq!(with(r#"{"reset_hour": 23, "reset_day": 28, "rpm": 1, "tags": ["a"]}"#), Ok(()));
        for (text, field) in [
            (r#"{"rpm": 0}"#, "rpm"),
            (r#"{"tpm": 0}"#, "tpm"),
            (r#"{"concurrency": 0}"#, "concurrency"),
            (r#"{"budget_usd_per_day": -1}"#, "budget_usd_per_day"),
            (r#"{"reset_hour": 24}"#, "reset_hour"),
            (r#"{"reset_day": 29}"#, "reset_day"),
            (r#"{"models": [""]}"#, "models"),
            (r#"{"tags": ["a\u0007"]}"#, "tags"),
        ] {
            assert_eq!(with(text).unwrap_err().0, field, "{text}");
        }
        let all = serde_json::json!({
            "models": ["a"], "rpm": 1, "tpm": 1, "concurrency": 1, "budget_usd_per_day": 1.0,
            "budget_usd_per_month": 1.0, "reset_hour": 1, "reset_day": 1,
            "expires_at": "2026-01-01T00:00:00Z", "tags": ["a"],
        });
        let rules: Rules = serde_json::from_value(all.clone()).unwrap();
        assert_eq!(serde_json::to_value(&rules).unwrap(), all);
        let names: Vec<&String> = all.as_object().unwrap().keys().collect();
        assert_eq!(names, Rules::FIELDS);
    }
}
