//! Older clients send `JSON.stringify(message)` instead of the message: every message is accepted
//! as an object and as a JSON text that holds the object.

use std::{collections::HashMap, fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, Visitor, value::MapAccessDeserializer},
};
use serde_json::Value;

/// A message that is read from its object form only.
pub(super) trait FromObject: Sized {
    /// What it is, for error messages.
    const NAME: &'static str;

    fn from_object<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error>;
}

/// Implements serde's traits for types that derive them with `#[serde(remote = "Self")]`, which
/// makes the derived functions inherent ones (object form only). A wrapper that flattens such a
/// type reads it with `deserialize_with = "Type::deserialize"`: a JSON text can't be flattened.
macro_rules! accept_text {
    ($($name:ident),+ $(,)?) => {$(
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                $name::serialize(self, serializer)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                crate::messages::text::object_or_text(deserializer)
            }
        }

        impl crate::messages::text::FromObject for $name {
            const NAME: &'static str = stringify!($name);

            fn from_object<'de, D: serde::Deserializer<'de>>(
                deserializer: D,
            ) -> Result<Self, D::Error> {
                $name::deserialize(deserializer)
            }
        }
    )+};
}
pub(super) use accept_text;

/// Reads a message from an object, or from a text that holds the object.
pub(super) fn object_or_text<'de, T: FromObject, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    deserializer.deserialize_any(ObjectOrText(PhantomData))
}

struct ObjectOrText<T>(PhantomData<T>);

impl<'de, T: FromObject> Visitor<'de> for ObjectOrText<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object ({}), or a JSON text that holds it", T::NAME)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::from_object(MapAccessDeserializer::new(map))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        let mut inner = serde_json::Deserializer::from_str(text);
        T::from_object(&mut inner)
            .and_then(|message| inner.end().map(|()| message))
            .map_err(|error| E::custom(format_args!("in the JSON text: {error}")))
    }
}

/// Reads a map of free values from an object, or from a text that holds one.
pub(super) fn map_or_text<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<HashMap<String, Value>, D::Error> {
    struct MapOrText;

    impl<'de> Visitor<'de> for MapOrText {
        type Value = HashMap<String, Value>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object, or a JSON text that holds one")
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
            HashMap::deserialize(MapAccessDeserializer::new(map))
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
            serde_json::from_str(text)
                .map_err(|error| E::custom(format_args!("in the JSON text: {error}")))
        }
    }

    deserializer.deserialize_any(MapOrText)
}

/// What an absent free object is.
pub(super) fn empty_object() -> Value {
    Value::Object(serde_json::Map::new())
}

/// Reads a free value; a text that holds a JSON object is read as the object.
pub(super) fn object_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::String(text) => {
            match serde_json::from_str::<serde_json::Map<String, Value>>(&text) {
                Ok(object) => Value::Object(object),
                Err(_) => Value::String(text),
            }
        }
        other => other,
    })
}

/// [`object_text`] for a value that may be absent or null.
pub(super) fn object_text_if_any<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Value>, D::Error> {
    object_text(deserializer).map(|value| Some(value).filter(|value| !value.is_null()))
}
