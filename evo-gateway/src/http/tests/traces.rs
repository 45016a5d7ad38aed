//! Requests of a trace, as OpenTelemetry gets them.

use std::collections::BTreeMap;

use opentelemetry::trace::{SpanKind, Status, TracerProvider as _};
use opentelemetry_sdk::{
    error::OTelSdkResult,
    trace::{SdkTracerProvider, SpanData, SpanExporter},
};
use tracing_subscriber::layer::SubscriberExt as _;

use super::*;

/// Keeps the spans that have ended.
#[derive(Debug, Clone, Default)]
struct Ended(Arc<Mutex<Vec<SpanData>>>);

impl SpanExporter for Ended {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.0.lock().unwrap().extend(batch);
        Ok(())
    }
}

impl Ended {
    /// Takes the two spans of a request: its own, and the one of the provider's call.
    async fn take(&self) -> (SpanData, SpanData) {
        until(|| self.0.lock().unwrap().len() >= 2).await;
        let mut spans = std::mem::take(&mut *self.0.lock().unwrap());
        spans.sort_by_key(|span| span.span_kind == SpanKind::Client);
        let [request, call] = spans.try_into().unwrap();
        (request, call)
    }
}

fn attributes(span: &SpanData) -> BTreeMap<&str, String> {
    let all = span.attributes.iter();
    all.map(|pair| (pair.key.as_str(), pair.value.to_string())).collect()
}

#[tokio::test]
async fn a_call_is_a_span_by_the_conventions_and_the_parent_of_what_the_provider_does() {
    let ended = Ended::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(ended.clone()).build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    let subscriber = tracing_subscriber::registry().with(layer);
    let _guard = tracing::subscriber::set_default(subscriber);

    let answer = r#"{"id":"1","model":"m-2026","choices":[{"message":{"content":"the-answer"},"finish_reason":"length"}],
        "usage":{"prompt_tokens":12,"completion_tokens":5,"prompt_tokens_details":{"cached_tokens":4}}}"#;
    let told = Fake::says(200, &[], answer).await;
    let untold = Fake::says(429, &[], r#"{"error":{"message":"slow down"}}"#).await;
    let mut config = config(&[told.provider("told", OPENAI), untold.provider("untold", ANTHROPIC)]);
    let tracing = evo_common::config::TracingConfig { forward_to: vec!["told".to_owned()] };
    config.gateway.tracing = Some(tracing);
    let bed = Bed::start(config).await;
    let (trace, parent) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
    let send = async |body: &Value| {
        let request = bed
            .request("POST", "/v1/chat/completions")
            .header("traceparent", format!("00-{trace}-{parent}-01"))
            .body(Full::new(body.to_string().into()));
        bed.send(request.unwrap()).await
    };

    assert_eq!(send(&chat("told:m")).await.status, 200);
    let (request, call) = ended.take().await;
    assert_eq!(request.span_context.trace_id().to_string(), trace);
    assert_eq!(request.parent_span_id.to_string(), parent);
    assert_eq!(call.parent_span_id, request.span_context.span_id());
    assert_eq!((&*call.name, &call.span_kind), ("chat m", &SpanKind::Client));
    let span_id = call.span_context.span_id();
    assert_eq!(told.last().header("traceparent"), format!("00-{trace}-{span_id}-01"));
    let found = attributes(&call);
    for (name, value) in [
        ("gen_ai.operation.name", "chat"),
        ("gen_ai.provider.name", "told"),
        ("gen_ai.request.model", "m"),
        ("gen_ai.response.model", "m-2026"),
        ("gen_ai.usage.input_tokens", "12"),
        ("gen_ai.usage.output_tokens", "5"),
        ("gen_ai.usage.cache_read.input_tokens", "4"),
        ("gen_ai.response.finish_reasons", "[\"length\"]"),
        ("server.address", "127.0.0.1"),
    ] {
        assert_eq!(found.get(name).map(String::as_str), Some(value), "{name} in {found:?}");
    }
    assert_eq!((found.get("error.type"), &call.status), (None, &Status::Unset));

    assert_eq!(send(&chat("untold:m")).await.status, 429);
    assert_eq!(untold.last().header("traceparent"), "");
    let (request, call) = ended.take().await;
    let found = attributes(&call);
    assert_eq!((&*found["error.type"], &*found["gen_ai.provider.name"]), ("429", "anthropic"));
    assert!(matches!(call.status, Status::Error { .. }), "{:?}", call.status);
    assert_eq!(attributes(&request)["http.response.status_code"], "429");
    let vectors = bed
        .request("POST", "/v1/embeddings")
        .header("traceparent", format!("00-{trace}-{parent}-01"))
        .body(Full::new(r#"{"model":"told:e","input":"x"}"#.into()));
    assert_eq!(bed.send(vectors.unwrap()).await.status, 200);
    let (_, asked) = ended.take().await;
    let found = attributes(&asked);
    assert_eq!((&*asked.name, &*found["gen_ai.operation.name"]), ("embeddings e", "embeddings"));
    // Nothing of what was said, and no key.
    for span in [&request, &call] {
        let text = format!("{span:?}");
        for secret in ["Hi", "the-answer", &bed.token] {
            assert!(!text.contains(&format!("\"{secret}\"")), "{secret}: {text}");
        }
    }
    bed.stop().await;
}
