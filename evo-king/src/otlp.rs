//! OTLP over HTTP: reads what an exporter sends and makes spans of it that can be stored. Pure; what
//! comes in is not trusted: everything is bounded, and secrets are masked.

use std::io::Read as _;

use evo_common::{ids::hex, redact};
use flate2::read::GzDecoder;
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
    },
    common::v1::{AnyValue, KeyValue, any_value},
    trace::v1::{Span, span::SpanKind, status::StatusCode},
};
use prost::{
    Message as _,
    encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field},
};
use serde_json::{Map, Value, json};

use crate::store::traces::NewSpan;

/// Largest body, also after it is unpacked: 8 MiB.
pub(crate) const MAX_BODY: usize = 8 * 1024 * 1024;
/// Spans that are taken from one request.
const MAX_SPANS: usize = 4_096;
/// Messages in one request, nested ones too. An empty one takes two bytes of a body and a hundred
/// times as much memory once it is read.
const MAX_MESSAGES: usize = 300_000;
/// Attributes of a span or of an event in it.
const MAX_ATTRIBUTES: usize = 64;
/// Events of a span.
const MAX_EVENTS: usize = 32;
/// Longest name or key, in characters.
const MAX_NAME: usize = 128;
/// Longest text in an attribute, in characters.
const MAX_TEXT: usize = 1_024;
/// What all attributes of a span, or all its events, may take as JSON, in bytes.
const MAX_JSON: usize = 16 * 1024;
/// How deep a value may be nested.
const MAX_DEPTH: usize = 4;
/// Entries of a list inside a value.
const MAX_ENTRIES: usize = 32;
/// What stands in the place of something that was too deep.
const CUT: &str = "…";
/// The attribute in which Evo's processes name the component.
const COMPONENT: &str = "evo.component";

/// How a body is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// `application/x-protobuf`.
    Protobuf,
    /// `application/json`.
    Json,
}

impl Encoding {
    /// The encoding of a content type.
    pub(crate) fn of(content_type: &str) -> Option<Self> {
        let kind = content_type.split(';').next().unwrap_or_default().trim();
        if kind.eq_ignore_ascii_case(Self::Protobuf.content_type()) {
            Some(Self::Protobuf)
        } else if kind.eq_ignore_ascii_case(Self::Json.content_type()) {
            Some(Self::Json)
        } else {
            None
        }
    }

    /// Its content type.
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Protobuf => "application/x-protobuf",
            Self::Json => "application/json",
        }
    }
}

/// Why a body can't be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unreadable {
    /// It is not what it should be.
    #[error("{0}")]
    Malformed(String),
    /// Unpacked it is larger than [`MAX_BODY`].
    #[error("the body has more than {MAX_BODY} bytes when it is unpacked")]
    TooLarge,
    /// It has more than [`MAX_MESSAGES`].
    #[error("the body holds more than {MAX_MESSAGES} messages; send fewer spans at once")]
    TooMany,
}

/// What a request brought.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Received {
    /// Spans to store.
    pub(crate) spans: Vec<NewSpan>,
    /// Spans that can't be stored.
    pub(crate) refused: u64,
}

/// Unpacks a gzip body, which may not become too large.
pub(crate) fn unpack(body: &[u8]) -> Result<Vec<u8>, Unreadable> {
    let mut unpacked = Vec::new();
    let limit = MAX_BODY as u64 + 1;
    GzDecoder::new(body).take(limit).read_to_end(&mut unpacked).map_err(|error| {
        Unreadable::Malformed(format!("the body is not what gzip makes: {error}"))
    })?;
    if unpacked.len() > MAX_BODY { Err(Unreadable::TooLarge) } else { Ok(unpacked) }
}

/// Reads a request. No span may begin after `latest_ns` (nanoseconds since 1970): it would stay the
/// newest, whatever comes.
pub(crate) fn read(
    body: &[u8],
    encoding: Encoding,
    latest_ns: i64,
) -> Result<Received, Unreadable> {
    let few = match encoding {
        Encoding::Protobuf => {
            let mut left = MAX_MESSAGES;
            are_few(body, Kind::Request, &mut left, MAX_NESTING)
        }
        Encoding::Json => {
            body.iter().filter(|byte| matches!(byte, b'{' | b'[')).count() <= MAX_MESSAGES
        }
    };
    if !few {
        return Err(Unreadable::TooMany);
    }
    let request = match encoding {
        Encoding::Protobuf => ExportTraceServiceRequest::decode(body).map_err(|error| {
            Unreadable::Malformed(format!("the body is no ExportTraceServiceRequest: {error}"))
        })?,
        // serde would also take a list for a message, field by field.
        Encoding::Json if !body.trim_ascii_start().starts_with(b"{") => {
            return Err(Unreadable::Malformed("the body must be a JSON object".to_owned()));
        }
        Encoding::Json => serde_json::from_slice(body).map_err(|error| {
            Unreadable::Malformed(format!("the body is no OTLP request in JSON: {error}"))
        })?,
    };
    let mut received = Received::default();
    for resource in request.resource_spans {
        let attributes = resource.resource.map(|resource| resource.attributes).unwrap_or_default();
        let service = text_of(&attributes, "service.name").unwrap_or("unknown").to_owned();
        for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            let span = span_of(span, &service, latest_ns);
            match span.filter(|_| received.spans.len() < MAX_SPANS) {
                Some(span) => received.spans.push(span),
                None => received.refused += 1,
            }
        }
    }
    Ok(received)
}

/// The answer to a request.
pub(crate) fn answer(refused: u64, encoding: Encoding) -> Vec<u8> {
    let partial_success = (refused > 0).then(|| ExportTracePartialSuccess {
        rejected_spans: i64::try_from(refused).unwrap_or(i64::MAX),
        error_message: "spans without valid ids, of the future, of a run that is not known, or \
                        beyond the limit of a request or of a trace"
            .to_owned(),
    });
    let response = ExportTraceServiceResponse { partial_success };
    match (encoding, &response.partial_success) {
        (Encoding::Protobuf, _) => response.encode_to_vec(),
        (Encoding::Json, None) => b"{}".to_vec(),
        (Encoding::Json, Some(_)) => {
            serde_json::to_vec(&response).expect("an answer is plain data")
        }
    }
}

/// How deep messages may be nested; prost reads none that are deeper.
const MAX_NESTING: u32 = 100;

/// The messages of a request that may repeat, or that others may repeat in.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Request,
    ResourceSpans,
    Resource,
    EntityRef,
    ScopeSpans,
    Scope,
    Span,
    Event,
    Link,
    KeyValue,
    AnyValue,
    ArrayValue,
    KeyValueList,
    /// A text or bytes: nothing is in it.
    Text,
}

impl Kind {
    /// What stands in a field.
    fn of_field(self, field: u32) -> Option<Self> {
        Some(match (self, field) {
            (Self::Request, 1) => Self::ResourceSpans,
            (Self::ResourceSpans, 1) => Self::Resource,
            (Self::ResourceSpans, 2) => Self::ScopeSpans,
            (Self::Resource, 3) => Self::EntityRef,
            (Self::EntityRef, 3 | 4) => Self::Text,
            (Self::ScopeSpans, 1) => Self::Scope,
            (Self::ScopeSpans, 2) => Self::Span,
            (Self::Span, 11) => Self::Event,
            (Self::Span, 13) => Self::Link,
            (Self::Resource | Self::KeyValueList, 1)
            | (Self::Scope | Self::Event, 3)
            | (Self::Link, 4)
            | (Self::Span, 9) => Self::KeyValue,
            (Self::KeyValue, 2) | (Self::ArrayValue, 1) => Self::AnyValue,
            (Self::AnyValue, 5) => Self::ArrayValue,
            (Self::AnyValue, 6) => Self::KeyValueList,
            _ => return None,
        })
    }
}

/// Whether a message holds no more messages than are `left`, which is counted down. Whatever can't
/// be read is left to the reader.
fn are_few(mut message: &[u8], kind: Kind, left: &mut usize, depth: u32) -> bool {
    while let Ok((field, wire)) = decode_key(&mut message) {
        let Some(inside) = kind.of_field(field).filter(|_| wire == WireType::LengthDelimited)
        else {
            if skip_field(wire, field, &mut message, DecodeContext::default()).is_err() {
                return true;
            }
            continue;
        };
        let length = decode_varint(&mut message).ok().and_then(|n| usize::try_from(n).ok());
        let Some((part, rest)) = length.and_then(|length| message.split_at_checked(length)) else {
            return true;
        };
        let Some(fewer) = left.checked_sub(1) else { return false };
        *left = fewer;
        if depth > 0 && !matches!(inside, Kind::Text) && !are_few(part, inside, left, depth - 1) {
            return false;
        }
        message = rest;
    }
    true
}

/// A span that can be stored; none when its ids are not valid, or when it begins too late.
fn span_of(span: Span, service: &str, latest_ns: i64) -> Option<NewSpan> {
    let trace_id = id_of::<16>(&span.trace_id)?;
    let span_id = id_of::<8>(&span.span_id)?;
    let parent_span_id = id_of::<8>(&span.parent_span_id);
    let ns = |ns: u64| i64::try_from(ns).unwrap_or(i64::MAX);
    let start_ns = Some(ns(span.start_time_unix_nano)).filter(|start| *start <= latest_ns)?;
    let status = span.status.clone().unwrap_or_default();
    let own = text_of(&span.attributes, COMPONENT);
    let service = redacted(own.unwrap_or(service), MAX_NAME);
    let run_id = text_of(&span.attributes, "run.id").map(|id| short(id, MAX_NAME));
    let events: Vec<Value> = span.events.iter().take(MAX_EVENTS).map(event_of).collect();
    Some(NewSpan {
        trace_id,
        span_id,
        parent_span_id,
        name: redacted(&span.name, MAX_NAME),
        service,
        kind: match span.kind() {
            SpanKind::Unspecified => "unspecified",
            SpanKind::Internal => "internal",
            SpanKind::Server => "server",
            SpanKind::Client => "client",
            SpanKind::Producer => "producer",
            SpanKind::Consumer => "consumer",
        },
        start_ns,
        end_ns: Some(ns(span.end_time_unix_nano).clamp(start_ns, latest_ns)),
        status: match status.code() {
            StatusCode::Unset => "unset",
            StatusCode::Ok => "ok",
            StatusCode::Error => "error",
        },
        status_message: Some(redacted(&status.message, MAX_TEXT)).filter(|text| !text.is_empty()),
        attributes: attributes_of(&span.attributes),
        events: within_limit(Value::Array(events), json!([])),
        run_id,
    })
}

/// An id in hex; none when it has another length or is all zeros.
fn id_of<const N: usize>(bytes: &[u8]) -> Option<String> {
    (bytes.len() == N && bytes.iter().any(|byte| *byte != 0)).then(|| hex(bytes))
}

fn event_of(event: &opentelemetry_proto::tonic::trace::v1::span::Event) -> Value {
    let at = i64::try_from(event.time_unix_nano).unwrap_or(i64::MAX);
    json!({
        "name": redacted(&event.name, MAX_TEXT),
        "time": chrono::DateTime::<chrono::Utc>::from_timestamp_nanos(at)
            .to_rfc3339_opts(chrono::SecondsFormat::Micros, true),
        "attributes": attributes_of(&event.attributes),
    })
}

fn attributes_of(attributes: &[KeyValue]) -> Value {
    within_limit(object_of(attributes, MAX_ATTRIBUTES, 0), json!({}))
}

fn object_of(entries: &[KeyValue], limit: usize, depth: usize) -> Value {
    let entries = entries.iter().take(limit).map(|entry| {
        let value = entry.value.as_ref().map_or(Value::Null, |value| value_of(value, depth + 1));
        (short(&entry.key, MAX_NAME), value)
    });
    let mut object = Value::Object(entries.collect::<Map<_, _>>());
    // By the name too: a value under `password` looks like any other text.
    redact::redact_json(&mut object);
    object
}

fn value_of(value: &AnyValue, depth: usize) -> Value {
    let Some(value) = &value.value else { return Value::Null };
    if depth > MAX_DEPTH {
        return CUT.into();
    }
    match value {
        // Masked before it is cut: half of a secret does not look like one.
        any_value::Value::StringValue(text) => redacted(text, MAX_TEXT).into(),
        any_value::Value::BoolValue(value) => (*value).into(),
        any_value::Value::IntValue(value) => (*value).into(),
        any_value::Value::DoubleValue(value) => (*value).into(),
        any_value::Value::ArrayValue(list) => {
            let values = list.values.iter().take(MAX_ENTRIES);
            Value::Array(values.map(|value| value_of(value, depth + 1)).collect())
        }
        any_value::Value::KvlistValue(list) => object_of(&list.values, MAX_ENTRIES, depth),
        any_value::Value::BytesValue(bytes) => format!("{} bytes", bytes.len()).into(),
        // An index into a table that traces don't have.
        any_value::Value::StringValueStrindex(_) => Value::Null,
    }
}

/// The value, or `instead` when it would take too much room.
fn within_limit(value: Value, instead: Value) -> Value {
    let size = serde_json::to_vec(&value).map_or(usize::MAX, |json| json.len());
    if size > MAX_JSON { instead } else { value }
}

/// The text of an attribute.
fn text_of<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a str> {
    let attribute = attributes.iter().find(|attribute| attribute.key == key)?;
    match attribute.value.as_ref()?.value.as_ref()? {
        any_value::Value::StringValue(text) if !text.is_empty() => Some(text),
        _ => None,
    }
}

fn redacted(text: &str, limit: usize) -> String {
    // Masking reads a text several times: a long one is cut first, with room for the secret that
    // the final cut could split.
    let end = text.char_indices().nth(limit * 4).map_or(text.len(), |(end, _)| end);
    short(&redact::redact(&text[..end]), limit)
}

fn short(text: &str, limit: usize) -> String {
    match text.char_indices().nth(limit) {
        Some((end, _)) => format!("{}{CUT}", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests;
