//! The counts of one answer, in the words of any protocol.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};

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

/// The fields that count, in the object that holds them.
#[derive(Clone, Copy)]
enum Field {
    PromptTokens,
    PromptTokenCount,
    InputTokens,
    CompletionTokens,
    OutputTokens,
    CandidatesTokenCount,
    PromptDetails,
    InputDetails,
    CompletionDetails,
    OutputDetails,
    CachedContentTokenCount,
    PromptCacheHitTokens,
    CacheReadInputTokens,
    CacheCreationInputTokens,
    CacheCreation,
    ThoughtsTokenCount,
    ToolUsePromptTokenCount,
    Other,
}

const FIELDS: usize = Field::Other as usize + 1;

impl<'de> Deserialize<'de> for Field {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Name;

        impl Visitor<'_> for Name {
            type Value = Field;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("the name of a field")
            }

            fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Field, E> {
                Ok(match name {
                    "prompt_tokens" => Field::PromptTokens,
                    "promptTokenCount" => Field::PromptTokenCount,
                    "input_tokens" => Field::InputTokens,
                    "completion_tokens" => Field::CompletionTokens,
                    "output_tokens" => Field::OutputTokens,
                    "candidatesTokenCount" => Field::CandidatesTokenCount,
                    "prompt_tokens_details" => Field::PromptDetails,
                    "input_tokens_details" => Field::InputDetails,
                    "completion_tokens_details" => Field::CompletionDetails,
                    "output_tokens_details" => Field::OutputDetails,
                    "cachedContentTokenCount" => Field::CachedContentTokenCount,
                    "prompt_cache_hit_tokens" => Field::PromptCacheHitTokens,
                    "cache_read_input_tokens" => Field::CacheReadInputTokens,
                    "cache_creation_input_tokens" => Field::CacheCreationInputTokens,
                    "cache_creation" => Field::CacheCreation,
                    "thoughtsTokenCount" => Field::ThoughtsTokenCount,
                    "toolUsePromptTokenCount" => Field::ToolUsePromptTokenCount,
                    _ => Field::Other,
                })
            }
        }

        deserializer.deserialize_identifier(Name)
    }
}

/// Most tokens that are believed of one answer, a thousand times what models take today: a server that
/// counts wrongly must not use up a budget for good.
const MOST: u64 = 1_000_000_000;

/// A value: a count, or an object with counts of its own. Anything else says nothing.
#[derive(Clone, Copy, Default)]
struct Item {
    number: Option<u64>,
    cached: Option<u64>,
    reasoning: Option<u64>,
    hour: Option<u64>,
}

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Anything;

        impl<'de> Visitor<'de> for Anything {
            type Value = Item;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("anything")
            }

            fn visit_u64<E>(self, number: u64) -> Result<Item, E> {
                Ok(Item { number: (number <= MOST).then_some(number), ..Item::default() })
            }

            fn visit_i64<E>(self, _: i64) -> Result<Item, E> {
                Ok(Item::default())
            }

            fn visit_f64<E>(self, _: f64) -> Result<Item, E> {
                Ok(Item::default())
            }

            fn visit_bool<E>(self, _: bool) -> Result<Item, E> {
                Ok(Item::default())
            }

            fn visit_str<E>(self, _: &str) -> Result<Item, E> {
                Ok(Item::default())
            }

            fn visit_unit<E>(self) -> Result<Item, E> {
                Ok(Item::default())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Item, A::Error> {
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Item::default())
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Item, A::Error> {
                let mut item = Item::default();
                while let Some(detail) = map.next_key()? {
                    let value: Item = map.next_value()?;
                    match detail {
                        Detail::Cached => item.cached = value.number,
                        Detail::Reasoning => item.reasoning = value.number,
                        Detail::Hour => item.hour = value.number,
                        Detail::Other => {}
                    }
                }
                Ok(item)
            }
        }

        deserializer.deserialize_any(Anything)
    }
}

/// A field of such an object.
#[derive(Deserialize)]
enum Detail {
    #[serde(rename = "cached_tokens")]
    Cached,
    #[serde(rename = "reasoning_tokens")]
    Reasoning,
    #[serde(rename = "ephemeral_1h_input_tokens")]
    Hour,
    #[serde(other)]
    Other,
}

/// Reads the object that holds the counts; they are all absent if there are none.
impl<'de> Deserialize<'de> for Counts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Counts;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object with counts")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Counts, A::Error> {
                let mut items = [Item::default(); FIELDS];
                while let Some(field) = map.next_key::<Field>()? {
                    items[field as usize] = map.next_value()?;
                }
                Ok(Counts::of(&items))
            }
        }

        deserializer.deserialize_map(Object)
    }
}

impl Counts {
    fn of(items: &[Item; FIELDS]) -> Self {
        let of = |field: Field| items[field as usize];
        let at = |field: Field| of(field).number;
        Self {
            input: at(Field::PromptTokens)
                .or(at(Field::PromptTokenCount))
                .or(at(Field::InputTokens)),
            output: at(Field::CompletionTokens)
                .or(at(Field::OutputTokens))
                .or(at(Field::CandidatesTokenCount)),
            cached_within: of(Field::PromptDetails)
                .cached
                .or(of(Field::InputDetails).cached)
                .or(at(Field::CachedContentTokenCount))
                .or(at(Field::PromptCacheHitTokens)),
            cache_read: at(Field::CacheReadInputTokens),
            cache_write: at(Field::CacheCreationInputTokens),
            hour_write: of(Field::CacheCreation).hour,
            reasoning: of(Field::CompletionDetails)
                .reasoning
                .or(of(Field::OutputDetails).reasoning),
            thoughts: at(Field::ThoughtsTokenCount),
            tool_input: at(Field::ToolUsePromptTokenCount),
        }
    }

    /// Adds what was told later. Says whether it was anything.
    pub(super) fn add(&mut self, found: Self) -> bool {
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn read(usage: &Value) -> Counts {
        serde_json::from_str(&usage.to_string()).unwrap()
    }

    #[test]
    fn what_is_no_count_says_nothing() {
        let found = read(&json!({
            "prompt_tokens": null, "promptTokenCount": "5", "input_tokens": -1, "completion_tokens": 1.5,
            "output_tokens": [1, {"a": 2}], "candidatesTokenCount": true, "thoughtsTokenCount": {"x": {}},
            "prompt_tokens_details": 7, "cache_read_input_tokens": u64::MAX, "prompt_cache_hit_tokens": MOST + 1,
            "cache_creation": {"ephemeral_1h_input_tokens": "x"},
        }));
        assert_eq!(found, Counts::default());
        // The first name that counts has it.
        let found = read(&json!({"input_tokens": 3, "prompt_tokens": 2, "promptTokenCount": null}));
        assert_eq!(found.input, Some(2));
    }

    /// Field by field out of a tree, the plain way.
    fn of_tree(usage: &Value) -> Counts {
        let known = |number: &u64| *number <= MOST;
        let at = |path: &str| usage.pointer(path).and_then(Value::as_u64).filter(known);
        let first = |paths: &[&str]| paths.iter().find_map(|path| at(path));
        Counts {
            input: first(&["/prompt_tokens", "/promptTokenCount", "/input_tokens"]),
            output: first(&["/completion_tokens", "/output_tokens", "/candidatesTokenCount"]),
            cached_within: first(&[
                "/prompt_tokens_details/cached_tokens",
                "/input_tokens_details/cached_tokens",
                "/cachedContentTokenCount",
                "/prompt_cache_hit_tokens",
            ]),
            cache_read: at("/cache_read_input_tokens"),
            cache_write: at("/cache_creation_input_tokens"),
            hour_write: at("/cache_creation/ephemeral_1h_input_tokens"),
            reasoning: first(&[
                "/completion_tokens_details/reasoning_tokens",
                "/output_tokens_details/reasoning_tokens",
            ]),
            thoughts: at("/thoughtsTokenCount"),
            tool_input: at("/toolUsePromptTokenCount"),
        }
    }

    fn value() -> impl Strategy<Value = Value> {
        let details =
            vec!["cached_tokens", "reasoning_tokens", "ephemeral_1h_input_tokens", "other"];
        let plain = prop_oneof![
            any::<u32>().prop_map(Value::from),
            any::<i8>().prop_map(Value::from),
            any::<f32>().prop_map(Value::from),
            Just(Value::Null),
            Just(json!(["x", 1])),
            Just(json!("5")),
        ];
        let object =
            prop::collection::btree_map(prop::sample::select(details), plain.clone(), 0..4);
        prop_oneof![plain, object.prop_map(|object| json!(object))]
    }

    proptest! {
        #[test]
        fn they_are_those_of_a_tree(
            usage in prop::collection::btree_map(
                prop::sample::select(vec![
                    "prompt_tokens", "promptTokenCount", "input_tokens", "completion_tokens", "output_tokens",
                    "candidatesTokenCount", "prompt_tokens_details", "input_tokens_details",
                    "completion_tokens_details", "output_tokens_details", "cachedContentTokenCount",
                    "prompt_cache_hit_tokens", "cache_read_input_tokens", "cache_creation_input_tokens",
                    "cache_creation", "thoughtsTokenCount", "toolUsePromptTokenCount", "total_tokens",
                ]),
                value(),
                0..12,
            ),
        ) {
            let usage = json!(usage);
            prop_assert_eq!(read(&usage), of_tree(&usage));
        }
    }
}
