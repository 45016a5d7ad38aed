//! The few fields of a request that decide about its way, read in one pass over its bytes.

use std::{borrow::Cow, fmt, ops::Range};

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::convert::Task;

/// What the gateway needs to know of a request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Peek<'a> {
    /// The model that is asked for.
    pub(crate) model: Cow<'a, str>,
    /// Where the model stands in the body, quotes included.
    pub(crate) model_at: Range<usize>,
    /// Whether the answer is to come in pieces.
    pub(crate) stream: bool,
    /// Whether such a stream is to tell its usage at the end.
    pub(crate) include_usage: bool,
}

/// Which answers come in pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Streams {
    /// As the field `stream` says.
    Field {
        /// Without the field.
        unasked: bool,
    },
    Always,
    Never,
}

impl Default for Streams {
    fn default() -> Self {
        Self::Field { unasked: false }
    }
}

/// What is known of a request before its body is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Aim {
    /// The model, if the address names it and the body does not.
    pub(crate) model: Option<String>,
    pub(crate) streams: Streams,
    /// What is asked there.
    pub(crate) task: Task,
}

/// What is wrong with a body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// The field; `None` when it is the body as a whole.
    pub(crate) field: Option<&'static str>,
    /// For people.
    pub(crate) message: String,
}

impl Fault {
    fn of(field: &'static str, message: &str) -> Self {
        Self { field: Some(field), message: format!("`{field}`: {message}") }
    }
}

/// How long a model's name may be, in bytes: it stands in error messages.
const LONGEST_MODEL: usize = 1_024;
/// How errors about a field like `Model` begin.
const LOOKALIKE: &str = "lookalike";

#[derive(Default)]
struct Head<'a> {
    model: Option<&'a RawValue>,
    stream: Option<&'a RawValue>,
    stream_options: Option<&'a RawValue>,
}

enum Field {
    Model,
    Stream,
    StreamOptions,
    Other,
}

impl<'de> Deserialize<'de> for Field {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Name;

        impl Visitor<'_> for Name {
            type Value = Field;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("the name of a field")
            }

            fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Field, E> {
                match name {
                    "model" => Ok(Field::Model),
                    "stream" => Ok(Field::Stream),
                    "stream_options" => Ok(Field::StreamOptions),
                    // Some servers take it for `model`, and would serve another one than was asked
                    // for here.
                    name if name.eq_ignore_ascii_case("model") => Err(E::custom(LOOKALIKE)),
                    _ => Ok(Field::Other),
                }
            }
        }

        deserializer.deserialize_identifier(Name)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Head<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;

        impl<'de> Visitor<'de> for Fields {
            type Value = Head<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Head<'de>, A::Error> {
                let mut head = Head::default();
                while let Some(field) = map.next_key()? {
                    let (slot, name) = match field {
                        Field::Model => (&mut head.model, "model"),
                        Field::Stream => (&mut head.stream, "stream"),
                        Field::StreamOptions => (&mut head.stream_options, "stream_options"),
                        Field::Other => {
                            map.next_value::<IgnoredAny>()?;
                            continue;
                        }
                    };
                    if slot.replace(map.next_value()?).is_some() {
                        return Err(A::Error::duplicate_field(name));
                    }
                }
                Ok(head)
            }
        }

        deserializer.deserialize_map(Fields)
    }
}

#[derive(Default, Deserialize)]
struct StreamOptions {
    include_usage: Option<bool>,
}

/// Reads a request body. Where the address tells everything, the body is not looked at: its place for
/// the model is empty then.
pub(crate) fn peek<'a>(body: &'a [u8], aim: &Aim) -> Result<Peek<'a>, Fault> {
    if let Some(model) = &aim.model {
        check_model(model)?;
        let (model, stream) = (Cow::Owned(model.clone()), aim.streams == Streams::Always);
        return Ok(Peek { model, model_at: 0..0, stream, include_usage: true });
    }
    let head: Head<'_> = serde_json::from_slice(body).map_err(|error| not_json(body, &error))?;
    let raw = head.model.map(RawValue::get).filter(|raw| *raw != "null").ok_or_else(|| {
        Fault::of("model", "it is missing; name a model, for example \"provider:model\".")
    })?;
    let model = text(raw)
        .ok_or_else(|| Fault::of("model", "it must be a text, for example \"provider:model\"."))?;
    if model.is_empty() {
        return Err(Fault::of("model", "it is empty; name a model."));
    }
    check_model(&model)?;
    // The raw value is a part of the body, so the distance is its place there.
    let start = raw.as_ptr().addr() - body.as_ptr().addr();
    let stream = match head.stream.map(RawValue::get) {
        _ if aim.streams == Streams::Never => false,
        None | Some("null") => matches!(aim.streams, Streams::Field { unasked: true }),
        Some("false") => false,
        Some("true") => true,
        Some(_) => return Err(Fault::of("stream", "it must be true or false.")),
    };
    let options = match head.stream_options {
        Some(raw) if stream => serde_json::from_str::<Option<StreamOptions>>(raw.get())
            .map_err(|_| {
                Fault::of(
                    "stream_options",
                    "it must be an object such as {\"include_usage\": true}.",
                )
            })?
            .unwrap_or_default(),
        _ => StreamOptions::default(),
    };
    Ok(Peek {
        model,
        model_at: start..start + raw.len(),
        stream,
        include_usage: options.include_usage.unwrap_or(false),
    })
}

/// Whether this can name a model. It stands in errors, logs, figures and addresses.
fn check_model(model: &str) -> Result<(), Fault> {
    if model.len() > LONGEST_MODEL {
        let message = format!("it is longer than {LONGEST_MODEL} bytes.");
        return Err(Fault::of("model", &message));
    }
    if model.bytes().any(|byte| byte.is_ascii_control()) {
        return Err(Fault::of("model", "it holds a control character; leave that out."));
    }
    Ok(())
}

/// The text of a JSON string.
fn text(raw: &str) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        return serde_json::from_str(raw).ok().map(Cow::Owned);
    }
    Some(Cow::Borrowed(inner))
}

fn not_json(body: &[u8], error: &serde_json::Error) -> Fault {
    let text = error.to_string();
    if body.trim_ascii().is_empty() {
        let message = "The body is empty; send a JSON object.".to_owned();
        return Fault { field: None, message };
    }
    if text.starts_with(LOOKALIKE) {
        return Fault::of("model", "the body has it in capital letters as well; send it once.");
    }
    for field in ["model", "stream", "stream_options"] {
        if text.starts_with(&format!("duplicate field `{field}`")) {
            return Fault::of(field, "it stands in the body twice; send it once.");
        }
    }
    let message = if error.is_data() {
        "The body must be a JSON object.".to_owned()
    } else {
        format!("The body is not valid JSON: {text}.")
    };
    Fault { field: None, message }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    const AIM: Aim =
        Aim { model: None, streams: Streams::Field { unasked: false }, task: Task::Generate };

    fn peek(body: &[u8]) -> Result<Peek<'_>, Fault> {
        super::peek(body, &AIM)
    }

    #[test]
    fn the_fields_are_found() {
        let body =
            br#" {"messages":[{"role":"user","content":"{\"model\":\"no\"}"}],"stream" : true,
            "model" : "openai:gpt-4o", "stream_options":{"include_usage":true,"x":1},"n":1.50} "#;
        let peek = super::peek(body, &AIM).unwrap();
        assert_eq!(peek.model, "openai:gpt-4o");
        assert_eq!(&body[peek.model_at.clone()], br#""openai:gpt-4o""#);
        assert!(peek.stream && peek.include_usage);
        let other = super::peek(br#"{"model":"a\u0062\/","stream":null,"stream_options":5}"#, &AIM)
            .unwrap();
        assert_eq!((&*other.model, other.stream), ("ab/", false));
    }

    #[test]
    fn what_the_address_says_counts() {
        let path = Aim { model: Some("m".to_owned()), streams: Streams::Always, ..AIM };
        let found = super::peek(b"{}", &path).unwrap();
        assert_eq!((&*found.model, found.stream, found.model_at.is_empty()), ("m", true, true));
        let odd = Aim { model: Some("a\r\nb".to_owned()), ..AIM };
        assert_eq!(super::peek(b"{}", &odd).unwrap_err().field, Some("model"));
        let unless = Aim { streams: Streams::Field { unasked: true }, ..AIM };
        for (body, stream) in [
            (r#"{"model":"m"}"#, true),
            (r#"{"model":"m","stream":null}"#, true),
            (r#"{"model":"m","stream":false}"#, false),
        ] {
            assert_eq!(super::peek(body.as_bytes(), &unless).unwrap().stream, stream, "{body}");
        }
    }

    #[test]
    fn faults_name_the_field() {
        for (body, field, says) in [
            ("", None, "empty"),
            ("{", None, "line 1"),
            (r#"{"model":"x",}"#, None, "not valid JSON"),
            (r#"{"model":"x"} x"#, None, "trailing characters"),
            ("[1]", None, "JSON object"),
            ("\"x\"", None, "JSON object"),
            ("{}", Some("model"), "missing"),
            (r#"{"model":null}"#, Some("model"), "missing"),
            (r#"{"model":5}"#, Some("model"), "text"),
            (r#"{"model":""}"#, Some("model"), "empty"),
            (r#"{"model":"a","model":"b"}"#, Some("model"), "twice"),
            (r#"{"model":"a","mod\u0065l":"b"}"#, Some("model"), "twice"),
            (r#"{"model":null,"model":"b"}"#, Some("model"), "twice"),
            (r#"{"model":"a","MoDel":"b"}"#, Some("model"), "capital letters"),
            (r#"{"M\u006fdel":"b"}"#, Some("model"), "capital letters"),
            (&format!(r#"{{"model":"{}"}}"#, "m".repeat(1_025)), Some("model"), "longer than 1024"),
            ("\u{feff}{\"model\":\"a\"}", None, "not valid JSON"),
            (r#"{"model":"\ud800"}"#, Some("model"), "text"),
            (r#"{"model":"a\nb"}"#, Some("model"), "control character"),
            (r#"{"model":"a","stream":"yes"}"#, Some("stream"), "true or false"),
            (r#"{"model":"a","stream":true,"stream_options":5}"#, Some("stream_options"), "object"),
        ] {
            let fault = peek(body.as_bytes()).unwrap_err();
            assert_eq!(fault.field, field, "{body}: {fault:?}");
            assert!(fault.message.contains(says), "{body}: {fault:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_can_be_a_model(model in "\\PC{1,20}", before in any::<bool>()) {
            let other = json!({"messages": [{"content": model}], "x": {"model": 1}}).to_string();
            let named = json!({ "model": model }).to_string();
            let body = if before {
                format!("{},{}", &named[..named.len() - 1], &other[1..])
            } else {
                format!("{},{}", &other[..other.len() - 1], &named[1..])
            };
            let peek = peek(body.as_bytes()).unwrap();
            prop_assert_eq!(&*peek.model, &model);
            let at: Value = serde_json::from_str(&body[peek.model_at]).unwrap();
            prop_assert_eq!(at, Value::from(model));
        }

        #[test]
        fn never_panics(body in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _found = peek(&body);
        }
    }
}
