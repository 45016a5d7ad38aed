//! Spans over OTLP.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use opentelemetry::{KeyValue, StringValue, Value, trace::TracerProvider as _};
use opentelemetry_otlp::{Protocol, WithExportConfig as _};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    propagation::TraceContextPropagator,
    trace::{BatchConfigBuilder, BatchSpanProcessor, SdkTracerProvider, SpanData, SpanExporter},
};
use tracing_subscriber::{Layer as _, filter::filter_fn};

use super::{BoxedLayer, LogOptions, WorkerGuard, already_set_up, init};
use crate::redact::redact;

/// Spans that may wait for export. The SDK's 2,048 lose more than half of a burst of 20,000.
const QUEUE: usize = 65_536;
/// Spans in one request.
const BATCH: usize = 2_048;
/// Longest wait of a finished span.
const DELAY: Duration = Duration::from_secs(1);
/// How long one request may take.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long the end of the process waits for the last spans.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(3);
/// What the export itself says would be exported again.
const OWN_TARGETS: [&str; 4] = ["opentelemetry", "hyper", "reqwest", "h2"];

/// Exports the last spans when it is dropped; hold it as long as the process makes spans.
#[must_use = "spans are lost when the guard is dropped early"]
#[derive(Debug)]
pub struct OtelGuard {
    provider: Option<SdkTracerProvider>,
    timeout: Duration,
}

impl OtelGuard {
    fn new(provider: Option<SdkTracerProvider>) -> Self {
        Self { provider, timeout: SHUTDOWN_TIMEOUT }
    }
}

impl Drop for OtelGuard {
    fn drop(&mut self) {
        let Some(provider) = self.provider.take() else { return };
        // A thread of its own: the SDK must not wait, nor drop its blocking HTTP client, on a
        // thread that drives a runtime. The wait is bounded, so that a receiver which only this
        // thread could drive costs the last spans, not the shutdown.
        let timeout = self.timeout;
        let work = move || {
            if let Err(error) = provider.shutdown_with_timeout(timeout) {
                tracing::warn!(%error, "The last spans were not exported: {error}");
            }
        };
        let wait = || match std::thread::Builder::new().name("evo-otel-end".into()).spawn(work) {
            Ok(thread) => {
                if thread.join().is_err() {
                    tracing::warn!("The last spans were not exported: the exporter panicked");
                }
            }
            Err(error) => tracing::warn!(%error, "The last spans were not exported: {error}"),
        };
        let runtime = tokio::runtime::Handle::try_current().map(|handle| handle.runtime_flavor());
        if matches!(runtime, Ok(tokio::runtime::RuntimeFlavor::MultiThread)) {
            // Lets the runtime's other tasks, perhaps the receiver itself, go on meanwhile.
            tokio::task::block_in_place(wait);
        } else {
            wait();
        }
    }
}

/// [`init_logging`](super::init_logging) for a service: spans are exported too when
/// `EVO_OTLP_ENDPOINT` names a receiver; without a path in it, `/v1/traces` is meant. Hold both
/// guards.
pub fn init_service_logging(component: &str) -> (WorkerGuard, Option<OtelGuard>) {
    init_service_logging_to(component, LogOptions::default())
}

/// [`init_service_logging`] with another folder, console or filter.
pub fn init_service_logging_to(
    component: &str,
    options: LogOptions,
) -> (WorkerGuard, Option<OtelGuard>) {
    match crate::config::env::get("EVO_OTLP_ENDPOINT") {
        Some(endpoint) => {
            let url = otlp_traces_url(&endpoint);
            let (log, otel) = init_logging_with_otel_to(component, &url, options);
            (log, Some(otel))
        }
        None => (super::init_logging_to(component, options), None),
    }
}

/// [`init_logging`](super::init_logging), and spans exported over OTLP (HTTP, protobuf) to
/// exactly `otlp_endpoint`, for example `http://localhost:3300/v1/traces`. Hold both guards.
///
/// An address that is not a URL is a warning in the log; logging itself works without it.
pub fn init_logging_with_otel(component: &str, otlp_endpoint: &str) -> (WorkerGuard, OtelGuard) {
    init_logging_with_otel_to(component, otlp_endpoint, LogOptions::default())
}

/// [`init_logging_with_otel`] with another folder, console or filter.
pub fn init_logging_with_otel_to(
    component: &str,
    otlp_endpoint: &str,
    options: LogOptions,
) -> (WorkerGuard, OtelGuard) {
    if super::COMPONENT.get().is_some() && already_set_up(component) {
        return (WorkerGuard { file: None }, OtelGuard::new(None));
    }
    let built = provider(component, otlp_endpoint);
    let mut layers: Vec<BoxedLayer> = Vec::new();
    if let Ok(provider) = &built {
        layers.push(
            tracing_opentelemetry::layer()
                .with_tracer(provider.tracer(component.to_owned()))
                .with_filter(filter_fn(|metadata| !is_own(metadata.target())))
                .boxed(),
        );
        opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
        opentelemetry::global::set_tracer_provider(provider.clone());
    }
    let log = init(component, &options, layers);
    match built {
        Ok(provider) => (log, OtelGuard::new(Some(provider))),
        Err(error) => {
            tracing::warn!(
                "No spans are exported to {:?}: {error}; use a URL such as http://127.0.0.1:3000/v1/traces",
                redact(otlp_endpoint)
            );
            (log, OtelGuard::new(None))
        }
    }
}

/// Whether a span or event is about the export itself.
fn is_own(target: &str) -> bool {
    OWN_TARGETS.iter().any(|own| {
        target.strip_prefix(own).is_some_and(|rest| {
            rest.is_empty() || rest.starts_with("::") || rest.starts_with(['_', '-'])
        })
    })
}

/// The address for traces at an OTLP endpoint: `/v1/traces` is appended when it has no path. A
/// text that is not a URL is left as it is, for the exporter to name it in its error.
pub fn otlp_traces_url(endpoint: &str) -> String {
    match url::Url::parse(endpoint.trim()) {
        Ok(mut url) if url.has_host() && matches!(url.path(), "" | "/") => {
            url.set_path("/v1/traces");
            url.into()
        }
        _ => endpoint.trim().to_owned(),
    }
}

fn provider(component: &str, endpoint: &str) -> Result<SdkTracerProvider, String> {
    // The exporter would take an empty or relative address and fail with every batch.
    match url::Url::parse(endpoint) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => {}
        Ok(_) => return Err("this is no http or https address".to_owned()),
        Err(error) => return Err(error.to_string()),
    }
    // The exporter's HTTP client is built without a TLS provider of its own.
    crate::tls::install();
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_endpoint(endpoint)
        .with_protocol(Protocol::HttpBinary)
        .with_timeout(EXPORT_TIMEOUT)
        .build()
        .map_err(|error| error.to_string())?;
    let exporter = Exporter {
        inner: exporter,
        endpoint: redact(endpoint).into_owned(),
        failing: AtomicBool::new(false),
    };
    let config = BatchConfigBuilder::default()
        .with_max_queue_size(QUEUE)
        .with_max_export_batch_size(BATCH)
        .with_scheduled_delay(DELAY)
        .build();
    let processor = BatchSpanProcessor::builder(exporter).with_batch_config(config).build();
    let resource = Resource::builder().with_service_name(component.to_owned()).build();
    Ok(SdkTracerProvider::builder().with_span_processor(processor).with_resource(resource).build())
}

/// Masks secrets in what leaves the process, and says once when the receiver fails and once when
/// it works again; the SDK itself would lose spans in silence.
#[derive(Debug)]
struct Exporter {
    inner: opentelemetry_otlp::SpanExporter,
    endpoint: String,
    failing: AtomicBool,
}

impl SpanExporter for Exporter {
    async fn export(&self, mut batch: Vec<SpanData>) -> OTelSdkResult {
        batch.iter_mut().for_each(redact_span);
        let result = self.inner.export(batch).await;
        let failed_before = self.failing.swap(result.is_err(), Ordering::Relaxed);
        match &result {
            Err(error) if !failed_before => tracing::warn!(
                %error,
                "Spans can't be exported to {}: {error}; further failures are not logged",
                self.endpoint
            ),
            Ok(()) if failed_before => {
                tracing::info!("Spans are exported to {} again", self.endpoint);
            }
            _ => {}
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

fn redact_span(span: &mut SpanData) {
    let events = span.events.events.iter_mut().flat_map(|event| event.attributes.iter_mut());
    for KeyValue { value, .. } in span.attributes.iter_mut().chain(events) {
        if let Value::String(text) = value
            && let std::borrow::Cow::Owned(masked) = redact(text.as_str())
        {
            *value = Value::String(StringValue::from(masked));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_for_traces_is_appended_only_when_there_is_none() {
        for (endpoint, expected) in [
            ("http://127.0.0.1:3000", "http://127.0.0.1:3000/v1/traces"),
            ("http://127.0.0.1:3000/", "http://127.0.0.1:3000/v1/traces"),
            (" https://otel.example?x=1 ", "https://otel.example/v1/traces?x=1"),
            ("http://127.0.0.1:3000/v1/traces", "http://127.0.0.1:3000/v1/traces"),
            ("http://127.0.0.1:3000/custom", "http://127.0.0.1:3000/custom"),
            ("not a url", "not a url"),
            ("", ""),
        ] {
            assert_eq!(otlp_traces_url(endpoint), expected, "{endpoint}");
        }
    }

    #[test]
    fn the_export_does_not_export_itself() {
        for own in ["hyper::client", "hyper_util::client", "opentelemetry-otlp", "h2", "reqwest::x"]
        {
            assert!(is_own(own), "{own}");
        }
        for other in ["evo_king::http", "h2o", "hyperdrive", "reqwested"] {
            assert!(!is_own(other), "{other}");
        }
    }

    /// A guard whose provider has one span to export to `endpoint`.
    fn guard_with_a_span(endpoint: &str) -> OtelGuard {
        use opentelemetry::trace::Tracer as _;
        let provider = provider("test", endpoint).unwrap();
        drop(provider.tracer("test").start("span"));
        OtelGuard { provider: Some(provider), timeout: Duration::from_millis(300) }
    }

    /// Nobody ever answers at this address: the system accepts, and no program reads.
    fn silent_receiver() -> (std::net::TcpListener, String) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/v1/traces", listener.local_addr().unwrap());
        (listener, url)
    }

    fn drop_in_time(guard: OtelGuard) {
        let before = tokio::time::Instant::now();
        drop(guard);
        assert!(before.elapsed() < Duration::from_secs(2), "{:?}", before.elapsed());
    }

    #[tokio::test(flavor = "current_thread")]
    async fn dropping_in_a_single_threaded_runtime_ends() {
        let (_listener, url) = silent_receiver();
        drop_in_time(guard_with_a_span(&url));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn dropping_in_a_multi_threaded_runtime_ends() {
        let (_listener, url) = silent_receiver();
        drop_in_time(guard_with_a_span(&url));
    }

    #[test]
    fn dropping_outside_a_runtime_ends() {
        let (_listener, url) = silent_receiver();
        drop_in_time(guard_with_a_span(&url));
    }

    #[test]
    fn an_address_that_is_no_url_is_an_error() {
        for endpoint in ["", "not a url", "http://"] {
            assert!(provider("test", endpoint).is_err(), "{endpoint:?}");
        }
    }
}
