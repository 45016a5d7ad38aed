//! The wire protocols as types: what stands in the JSON, and nothing about what it means.
//!
//! Requests and answers of others are read tolerantly: unknown fields and unknown kinds of blocks
//! parse, and `null` is the same as absent. What to do about them is decided in [`crate::convert`].

pub mod anthropic;
pub mod embeddings;
pub mod gemini;
pub mod ollama;
pub mod openai;
pub mod responses;

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{self, SeqAccess, Visitor, value::SeqAccessDeserializer},
};

/// Content that a protocol writes either as one text or as a list of parts.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Content<P> {
    Text(String),
    Parts(Vec<P>),
}

// Not derived as `untagged`: that buffers whole images, and its errors say only that no variant fits.
impl<'de, P: Deserialize<'de>> Deserialize<'de> for Content<P> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either<P>(PhantomData<P>);

        impl<'de, P: Deserialize<'de>> Visitor<'de> for Either<P> {
            type Value = Content<P>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a string or an array of content parts")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Content::Text(text.to_owned()))
            }

            fn visit_string<E: de::Error>(self, text: String) -> Result<Self::Value, E> {
                Ok(Content::Text(text))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, parts: A) -> Result<Self::Value, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(parts)).map(Content::Parts)
            }
        }

        deserializer.deserialize_any(Either(PhantomData))
    }
}

/// Reads `null` as the default, as providers write it where they mean "nothing".
fn nullable<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
