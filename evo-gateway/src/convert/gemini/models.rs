//! What a model of Google's takes. A name is all there is to go by.

/// The first version that is told a level of thinking; those before are told a budget of tokens.
const FIRST_WITH_LEVELS: (u32, u32) = (3, 0);
/// The first version that thinks.
const FIRST_THINKING: (u32, u32) = (2, 5);

/// The name without what a list of models puts in front of it.
fn bare(model: &str) -> &str {
    model.rsplit('/').next().unwrap_or(model)
}

/// The version in a name such as `gemini-2.5-flash`.
fn version(model: &str) -> Option<(u32, u32)> {
    let version = bare(model).strip_prefix("gemini-")?.split('-').next()?;
    let (major, minor) = version.split_once('.').unwrap_or((version, "0"));
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// How a model is told how much to think.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Thinks {
    Not,
    /// A number of tokens. The larger models can't be kept from thinking.
    Budget {
        always: bool,
    },
    /// A word. Some of the larger models know fewer of them.
    Level {
        only_low_and_high: bool,
        always: bool,
    },
}

/// Names of Google's models that do not think, by how they begin and by what is in them. Some of a
/// version that does draw or speak instead.
const NOT_THINKING: [&str; 7] =
    ["gemma-1", "gemma-2", "gemma-3", "gemma3", "learnlm", "text-bison", "chat-bison"];
const OTHER_THAN_TEXT: [&str; 2] = ["-image", "-tts"];

/// How this one is. A name without a version may mean any version, and one that says nothing any model;
/// all of these take a budget.
pub(super) fn thinks(model: &str) -> Thinks {
    let name = bare(model);
    let is_known = NOT_THINKING.iter().any(|known| name.starts_with(known));
    let is_other = version(model) == Some(FIRST_THINKING)
        && OTHER_THAN_TEXT.iter().any(|other| name.contains(other));
    if is_known || is_other {
        return Thinks::Not;
    }
    let always = name.contains("-pro");
    match version(model) {
        Some(version) if version >= FIRST_WITH_LEVELS => {
            Thinks::Level { only_low_and_high: always && version == FIRST_WITH_LEVELS, always }
        }
        Some(version) if version >= FIRST_THINKING => Thinks::Budget { always },
        None => Thinks::Budget { always },
        Some(_) => Thinks::Not,
    }
}

/// Whether it refuses a call in the conversation without its signature, and takes JSON next to tools.
pub(super) fn is_third(model: &str) -> bool {
    version(model).is_some_and(|version| version >= FIRST_WITH_LEVELS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_how_a_model_thinks() {
        for (model, expected) in [
            ("gemini-2.0-flash", Thinks::Not),
            ("gemini-1.5-pro", Thinks::Not),
            ("gemma-3-27b-it", Thinks::Not),
            ("gemini-2.5-flash-image", Thinks::Not),
            ("tunedModels/our-own", Thinks::Budget { always: false }),
            ("gemini-2.5-flash", Thinks::Budget { always: false }),
            ("models/gemini-2.5-pro", Thinks::Budget { always: true }),
            ("gemini-flash-latest", Thinks::Budget { always: false }),
            ("gemini-3-pro-preview", Thinks::Level { only_low_and_high: true, always: true }),
            ("gemini-3.1-pro", Thinks::Level { only_low_and_high: false, always: true }),
            ("gemini-3-flash", Thinks::Level { only_low_and_high: false, always: false }),
        ] {
            assert_eq!(thinks(model), expected, "{model}");
        }
        assert!(is_third("gemini-3.5-flash") && !is_third("gemini-2.5-pro"));
    }
}
