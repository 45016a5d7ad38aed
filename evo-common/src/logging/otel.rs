//! Spans over OTLP.

mod exporter;
mod queue;

use std::time::Duration;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::{Resource, propagation::TraceContextPropagator, trace::SdkTracerProvider};
use tracing::{Level, Metadata};
use tracing_subscriber::{
    Layer as _, Registry,
    filter::{FilterExt as _, filter_fn},
    layer::Filter,
};

use self::{exporter::Target, queue::Queue};
use super::{BoxedLayer, LogOptions, WorkerGuard, already_set_up, init, log_filter};
use crate::{redact::redact, tokens::Secret};

/// How long the end of the process waits for the last spans.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(3);
/// How long [`OtelGuard::flush`] waits.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);
/// What the export itself says would be exported again.
const OWN_TARGETS: [&str; 4] = ["opentelemetry", "hyper", "reqwest", "h2"];

/// Exports the last spans when it is dropped; hold it as long as the process makes spans.
#[must_use = "spans are lost when the guard is dropped early"]
#[derive(Debug)]
pub struct OtelGuard {
    queue: Queue,
    provider: Option<SdkTracerProvider>,
    timeout: Duration,
}

impl OtelGuard {
    fn new(queue: Queue, provider: Option<SdkTracerProvider>) -> Self {
        Self { queue, provider, timeout: SHUTDOWN_TIMEOUT }
    }

    /// Sends spans to king's receiver, from now on and those that were made before, with `token` as
    /// bearer token. `url` is king's address; `/v1/traces` is appended when it has no path. When
    /// `EVO_OTLP_ENDPOINT` names another receiver, spans go there; when it names the same server,
    /// the token is sent along.
    ///
    /// Failures are logged for debugging only: nobody asked for this export. An address that is
    /// not a URL is a warning in the log, and spans stay where they are.
    pub fn export_to(&self, url: &str, token: Option<&Secret>) {
        match Target::king(&otlp_traces_url(url), token) {
            Ok(target) => self.queue.send_to(target),
            Err(error) => {
                tracing::warn!(%error, "No spans are exported to {:?}: {error}", redact(url));
            }
        }
    }

    /// Waits until the spans that have ended are exported, at most a second. Call it while the
    /// receiver still serves; the end of the guard may be too late.
    pub async fn flush(&self) {
        let queue = self.queue.clone();
        let flushed = tokio::task::spawn_blocking(move || queue.flush(FLUSH_TIMEOUT)).await;
        if !matches!(flushed, Ok(true)) {
            tracing::debug!("Some spans are not exported yet");
        }
    }
}

impl Drop for OtelGuard {
    fn drop(&mut self) {
        let Some(provider) = self.provider.take() else { return };
        // The wait is bounded, so that a receiver which only this thread could drive costs the last
        // spans, not the shutdown.
        let wait = || match provider.shutdown_with_timeout(self.timeout) {
            Ok(()) => {}
            Err(error) if self.queue.is_explicit() => {
                tracing::warn!(%error, "The last spans were not exported: {error}");
            }
            Err(error) => tracing::debug!(%error, "The last spans were not exported: {error}"),
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

/// [`init_logging`](super::init_logging) for a service, and spans of Evo's own parts, whatever is
/// logged. Hold both guards.
///
/// Spans go to the receiver that `EVO_OTLP_ENDPOINT` names; without a path in it, `/v1/traces` is
/// meant. Without it they wait, bounded, until [`OtelGuard::export_to`] names king's; `off` makes
/// none.
pub fn init_service_logging(component: &str) -> (WorkerGuard, Option<OtelGuard>) {
    init_service_logging_to(component, LogOptions::default())
}

/// [`init_service_logging`] with another folder, console or filter.
pub fn init_service_logging_to(
    component: &str,
    options: LogOptions,
) -> (WorkerGuard, Option<OtelGuard>) {
    let endpoint = crate::config::env::get("EVO_OTLP_ENDPOINT");
    let endpoint = endpoint.as_deref().map(str::trim);
    if endpoint.is_some_and(|endpoint| endpoint.eq_ignore_ascii_case("off")) {
        return (super::init_logging_to(component, options), None);
    }
    let endpoint = endpoint.map(otlp_traces_url);
    let wanted = filter_fn(is_of_evo).with_max_level_hint(Level::INFO);
    let (log, otel) = init_with_spans(component, endpoint.as_deref(), options, wanted);
    (log, Some(otel))
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
    let (logged, _) = log_filter(&options);
    let wanted = filter_fn(|metadata| !is_own(metadata.target())).and(logged);
    init_with_spans(component, Some(otlp_endpoint), options, wanted)
}

/// Sets up logging and spans. Without an endpoint spans wait until they are told where to go.
fn init_with_spans(
    component: &str,
    endpoint: Option<&str>,
    options: LogOptions,
    wanted: impl Filter<Registry> + Send + Sync + 'static,
) -> (WorkerGuard, OtelGuard) {
    if super::COMPONENT.get().is_some() && already_set_up(component) {
        return (WorkerGuard { file: None }, OtelGuard::new(Queue::default(), None));
    }
    let built = provider(component, endpoint);
    let mut layers: Vec<BoxedLayer> = Vec::new();
    if let Ok((_, provider)) = &built {
        layers.push(
            tracing_opentelemetry::layer()
                .with_tracer(provider.tracer(component.to_owned()))
                .with_location(false)
                .with_threads(false)
                .with_tracked_inactivity(false)
                .with_filter(wanted)
                .boxed(),
        );
        opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
        opentelemetry::global::set_tracer_provider(provider.clone());
    }
    let log = init(component, &options, layers);
    match built {
        Ok((queue, provider)) => (log, OtelGuard::new(queue, Some(provider))),
        Err(error) => {
            tracing::warn!(
                "No spans are exported to {:?}: {error}; use a URL such as http://127.0.0.1:3000/v1/traces",
                redact(endpoint.unwrap_or_default())
            );
            (log, OtelGuard::new(Queue::default(), None))
        }
    }
}

/// Whether a span or event is one of Evo's own that is worth keeping. The span of a task lasts as
/// long as its service: what happens in it would all be one endless trace.
fn is_of_evo(metadata: &Metadata<'_>) -> bool {
    let target = metadata.target();
    let own = target.starts_with("evo_") || target == "evo" || target.starts_with("evo::");
    own && *metadata.level() <= Level::INFO && !target.starts_with("evo_common::runtime")
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

fn provider(component: &str, endpoint: Option<&str>) -> Result<(Queue, SdkTracerProvider), String> {
    let queue = Queue::default();
    if let Some(endpoint) = endpoint {
        queue.send_to(Target::explicit(endpoint)?);
    }
    queue.start().map_err(|error| error.to_string())?;
    let resource = Resource::builder().with_service_name(component.to_owned()).build();
    let provider = SdkTracerProvider::builder()
        .with_span_processor(queue.clone())
        .with_resource(resource)
        .build();
    Ok((queue, provider))
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
        let (queue, provider) = provider("test", Some(endpoint)).unwrap();
        drop(provider.tracer("test").start("span"));
        OtelGuard { queue, provider: Some(provider), timeout: Duration::from_millis(300) }
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
}
