//! What a model of OpenAI's takes. A name is all there is to go by.

use crate::model::Effort;

/// The longest name of a user that OpenAI takes.
pub(super) const MAX_USER_CHARS: usize = 64;

/// The word for an effort that the model takes.
pub(super) fn effort(effort: Effort, model: &str) -> &'static str {
    let version = gpt_version(model);
    match effort {
        Effort::None if version >= Some((5, 1)) || !is_openai(model) => "none",
        // What GPT-5 has instead of it, and only that.
        Effort::None | Effort::Minimal if version == Some((5, 0)) => "minimal",
        Effort::None | Effort::Minimal | Effort::Low => "low",
        Effort::Medium => "medium",
        Effort::Highest if takes_highest_effort(model) => "xhigh",
        Effort::High | Effort::Highest => "high",
    }
}

/// The version in a name such as `openai/gpt-5.6-mini`, `gpt-4o` or, as Azure writes it, `gpt-35-turbo`.
fn gpt_version(model: &str) -> Option<(u32, u32)> {
    let name = model.rsplit('/').next().unwrap_or(model);
    let name = name.strip_prefix("chat").unwrap_or(name);
    let version = name.strip_prefix("gpt-")?.split('-').next()?;
    let (major, minor) = version.split_once('.').unwrap_or((version, "0"));
    match (major.trim_end_matches('o'), minor) {
        ("35", _) => Some((3, 5)),
        (major, minor) => Some((major.parse().ok()?, minor.parse().ok()?)),
    }
}

fn is_o_series(model: &str) -> bool {
    let name = model.rsplit('/').next().unwrap_or(model);
    name.strip_prefix('o').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// Whether OpenAI calls this a reasoning model: those take `reasoning_effort` and want
/// `max_completion_tokens` where all other servers know `max_tokens`.
pub(super) fn reasons(model: &str) -> bool {
    is_o_series(model)
        || (gpt_version(model).is_some_and(|(major, _)| major >= 5) && !model.contains("-chat"))
}

/// Whether it may be told how much to think: of models whose names say nothing only their provider knows,
/// and says so.
pub(super) fn may_take_effort(model: &str) -> bool {
    reasons(model) || !is_openai(model)
}

/// Whether this is a model of OpenAI's own, which refuses fields that other servers know.
pub(super) fn is_openai(model: &str) -> bool {
    is_o_series(model) || gpt_version(model).is_some()
}

/// Whether it takes the effort `xhigh`.
fn takes_highest_effort(model: &str) -> bool {
    gpt_version(model).is_some_and(|version| version >= (5, 2))
}

/// Whether it lets callers mark what is to be cached.
pub(super) fn takes_cache_marks(model: &str) -> bool {
    gpt_version(model).is_some_and(|version| version >= (5, 6))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_what_a_model_takes() {
        for model in ["o3", "o4-mini", "gpt-5", "openai/gpt-5.6-sol", "gpt-6-astra"] {
            assert!(reasons(model) && is_openai(model), "{model}");
        }
        for model in [
            "gpt-35-turbo",
            "chatgpt-4o-latest",
            "gpt-4o",
            "gpt-4.1-mini",
            "gpt-5-chat-latest",
            "deepseek-chat",
            "ollama",
            "gpt-oss:20b",
        ] {
            assert!(!reasons(model), "{model}");
        }
        assert!(may_take_effort("qwen3:8b") && !may_take_effort("gpt-4o"));
        assert!(is_openai("gpt-4.1") && !is_openai("kimi-k2") && !is_openai("gpt-oss-120b"));
        let efforts = |model| [Effort::None, Effort::Minimal].map(|wanted| effort(wanted, model));
        assert_eq!(efforts("gpt-5.6"), ["none", "low"]);
        assert_eq!(efforts("gpt-5-mini"), ["minimal", "minimal"]);
        assert_eq!(efforts("o3"), ["low", "low"]);
        assert_eq!(efforts("qwen3:8b"), ["none", "low"]);
        assert!(takes_highest_effort("gpt-5.2") && !takes_highest_effort("gpt-5.1"));
        assert!(takes_cache_marks("gpt-5.6") && !takes_cache_marks("gpt-5"));
    }
}
