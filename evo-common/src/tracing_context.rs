//! W3C trace propagation: a span's context travels in Socket.IO payloads (a map under `_trace`)
//! and in HTTP headers (`traceparent`, `tracestate`).
//!
//! What is injected is the context of the current `tracing` span, or else OpenTelemetry's current
//! context. What is extracted comes from somebody else and only ever links spans; it is never a
//! reason to trust the sender.

use std::collections::HashMap;

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::{
    Array, Context, StringValue, Value,
    propagation::{Extractor, Injector, TextMapPropagator as _},
    trace::TraceContextExt as _,
};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use sha2::{Digest as _, Sha256};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use crate::ids::hex;

/// Writes the current context into a map; nothing when there is none.
#[expect(clippy::implicit_hasher, reason = "the published signature")]
pub fn inject_context(carrier: &mut HashMap<String, String>) {
    inject(carrier);
}

/// Reads a context from a map; an empty context when it holds none, or a malformed one.
#[expect(clippy::implicit_hasher, reason = "the published signature")]
pub fn extract_context(carrier: &HashMap<String, String>) -> Context {
    extract(carrier)
}

/// Writes the current context into HTTP headers; nothing when there is none.
pub fn inject_http_headers(headers: &mut HeaderMap) {
    inject(&mut Headers(headers));
}

/// Reads a context from HTTP headers; an empty context when they hold none, or a malformed one.
pub fn extract_from_http_headers(headers: &HeaderMap) -> Context {
    extract(&HeadersRef(headers))
}

/// Makes the context in a map the parent of a span; does nothing when the map holds none.
#[expect(clippy::implicit_hasher, reason = "the same carrier as the published functions")]
pub fn set_parent(span: &tracing::Span, carrier: &HashMap<String, String>) {
    let parent = extract_context(carrier);
    if parent.span().span_context().is_valid()
        && let Err(error) = span.set_parent(parent)
    {
        tracing::debug!(?error, "The span keeps its own trace");
    }
}

/// Gives a span an attribute that is a list of texts, which the fields of spans can't be.
pub fn set_list(span: &tracing::Span, name: &'static str, values: Vec<String>) {
    let values: Vec<StringValue> = values.into_iter().map(StringValue::from).collect();
    span.set_attribute(name, Value::Array(Array::String(values)));
}

/// The context that every span of a run descends from, as a map: the same in every process and
/// after every restart, so that a run is one trace wherever its parts are done. Trace and root
/// span id are the first 16 and the next 8 bytes of the SHA-256 of `evo-run:` and the run's id.
pub fn run_carrier(run_id: &str) -> HashMap<String, String> {
    let digest = Sha256::digest(format!("evo-run:{run_id}"));
    let (trace, span) = (hex(&digest[..16]), hex(&digest[16..24]));
    HashMap::from([("traceparent".to_owned(), format!("00-{trace}-{span}-01"))])
}

/// [`run_carrier`] of a run that is not traced: whoever goes by it makes no spans.
pub fn untraced_carrier(run_id: &str) -> HashMap<String, String> {
    let mut carrier = run_carrier(run_id);
    for traceparent in carrier.values_mut() {
        traceparent.truncate(traceparent.len() - 1);
        traceparent.push('0');
    }
    carrier
}

/// The id of a run's trace: 32 hex digits. See [`run_carrier`].
pub fn run_trace_id(run_id: &str) -> String {
    hex(&Sha256::digest(format!("evo-run:{run_id}"))[..16])
}

/// The id of the root span of a run's trace: 16 hex digits. See [`run_carrier`].
pub fn run_span_id(run_id: &str) -> String {
    hex(&Sha256::digest(format!("evo-run:{run_id}"))[16..24])
}

fn inject(carrier: &mut dyn Injector) {
    let of_span = tracing::Span::current().context();
    let context =
        if of_span.span().span_context().is_valid() { of_span } else { Context::current() };
    TraceContextPropagator::new().inject_context(&context, carrier);
}

fn extract(carrier: &dyn Extractor) -> Context {
    TraceContextPropagator::new().extract_with_context(&Context::new(), carrier)
}

struct Headers<'a>(&'a mut HeaderMap);

impl Injector for Headers<'_> {
    fn set(&mut self, key: &str, value: String) {
        // The propagator's names and values are plain ASCII; an empty tracestate says nothing.
        if let (Ok(name), Ok(value)) = (key.parse::<HeaderName>(), HeaderValue::try_from(value))
            && !value.is_empty()
        {
            self.0.insert(name, value);
        }
    }
}

struct HeadersRef<'a>(&'a HeaderMap);

impl Extractor for HeadersRef<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(|value| value.to_str().ok())
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}
