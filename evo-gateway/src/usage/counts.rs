//! The counts of one answer, in the words of any protocol.

use serde_json::Value;

use crate::model::Usage;

/// What an answer said, field by field. Later words take the place of earlier ones: a stream may tell
/// its input first and its output last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// All input, or all that is counted apart from the caches.
    input: Option<u64>,
    output: Option<u64>,
    /// Input from the cache that `input` contains.
    cached_within: Option<u64>,
    /// Input from the cache, and into it, that `input` does not contain.
    cache_read: Option<u64>,
    cache_write: Option<u64>,
    /// How much of `cache_write` stays for an hour.
    hour_write: Option<u64>,
    reasoning: Option<u64>,
    /// Reasoning that `output` does not contain.
    thoughts: Option<u64>,
    tool_input: Option<u64>,
}

impl Counts {
    /// Reads the object that holds the counts. Says whether there was one.
    pub(super) fn read(&mut self, usage: &Value) -> bool {
        let at = |path: &[&str]| {
            let value = path.iter().try_fold(usage, |value, name| value.get(name))?;
            value.as_u64()
        };
        let either = |a: &[&str], b: &[&str]| at(a).or_else(|| at(b));
        let prompt = either(&["prompt_tokens"], &["promptTokenCount"]);
        let found = Self {
            input: prompt.or_else(|| at(&["input_tokens"])),
            output: either(&["completion_tokens"], &["output_tokens"])
                .or_else(|| at(&["candidatesTokenCount"])),
            cached_within: either(
                &["prompt_tokens_details", "cached_tokens"],
                &["input_tokens_details", "cached_tokens"],
            )
            .or_else(|| either(&["cachedContentTokenCount"], &["prompt_cache_hit_tokens"])),
            cache_read: at(&["cache_read_input_tokens"]),
            cache_write: at(&["cache_creation_input_tokens"]),
            hour_write: at(&["cache_creation", "ephemeral_1h_input_tokens"]),
            reasoning: either(
                &["completion_tokens_details", "reasoning_tokens"],
                &["output_tokens_details", "reasoning_tokens"],
            ),
            thoughts: at(&["thoughtsTokenCount"]),
            tool_input: at(&["toolUsePromptTokenCount"]),
        };
        if found == Self::default() {
            return false;
        }
        *self = Self {
            input: found.input.or(self.input),
            output: found.output.or(self.output),
            cached_within: found.cached_within.or(self.cached_within),
            cache_read: found.cache_read.or(self.cache_read),
            cache_write: found.cache_write.or(self.cache_write),
            hour_write: found.hour_write.or(self.hour_write),
            reasoning: found.reasoning.or(self.reasoning),
            thoughts: found.thoughts.or(self.thoughts),
            tool_input: found.tool_input.or(self.tool_input),
        };
        true
    }

    /// Whether input and output are both known.
    pub(super) fn is_whole(&self) -> bool {
        // An embedding has no output.
        self.input.is_some()
    }

    /// The counts without overlaps.
    pub(super) fn usage(&self) -> Usage {
        let all = self.input.unwrap_or(0).saturating_add(self.tool_input.unwrap_or(0));
        let within = self.cached_within.unwrap_or(0).min(all);
        let thoughts = self.thoughts.unwrap_or(0);
        Usage {
            input_tokens: all - within,
            cache_read_tokens: within.saturating_add(self.cache_read.unwrap_or(0)),
            cache_write_tokens: self.cache_write.unwrap_or(0),
            cache_write_hour_tokens: self.hour_write.unwrap_or(0),
            output_tokens: self.output.unwrap_or(0).saturating_add(thoughts),
            reasoning_tokens: self.reasoning.or(self.thoughts),
        }
    }
}
