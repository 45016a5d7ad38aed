//! Finished spans on their way to the receiver. They wait, bounded, while there is none yet, and
//! while it does not answer; one thread sends them.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use opentelemetry::{KeyValue, Value};
use opentelemetry_sdk::{
    Resource,
    error::{OTelSdkError, OTelSdkResult},
    trace::{Span, SpanData, SpanProcessor},
};
use tokio::time::Instant;

use super::exporter::{Exporter, Target};
use crate::logging::component::component;

/// Spans that may wait; beyond it the oldest are dropped.
const CAPACITY: usize = 32_768;
/// Spans in one request.
const BATCH: usize = 2_048;
/// Longest wait of a finished span for others.
const DELAY: Duration = Duration::from_secs(1);
/// Longest pause after a failure; the first is [`DELAY`], and each is twice the one before.
const MAX_PAUSE: Duration = Duration::from_secs(30);
/// A batch that failed so often, for two minutes, is given up: perhaps it is what the receiver
/// can't take.
const MAX_FAILURES: u32 = 8;
/// The attribute that says which component made a span. In `evo up` several share one process.
const COMPONENT: &str = "evo.component";

/// The queue. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Queue(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    waiting: VecDeque<SpanData>,
    target: Option<Target>,
    resource: Resource,
    /// Spans that ever came in, and that ever left, by export or loss.
    came: u64,
    left: u64,
    /// Spans that were lost and not told of yet.
    lost: u64,
    /// Attempts that failed in a row, and ever.
    failures: u32,
    failed_ever: u64,
    /// Somebody waits for the spans to be gone.
    urgent: bool,
    /// No more spans come, and the thread ends.
    ended: bool,
    /// The thread has ended, or was never started.
    done: bool,
}

impl Default for State {
    fn default() -> Self {
        Self {
            waiting: VecDeque::new(),
            target: None,
            resource: Resource::builder_empty().build(),
            came: 0,
            left: 0,
            lost: 0,
            failures: 0,
            failed_ever: 0,
            urgent: false,
            ended: false,
            done: true,
        }
    }
}

impl State {
    fn has_work(&self) -> bool {
        self.target.is_some() && !self.waiting.is_empty()
    }

    /// How long the thread waits before it sends.
    fn pause(&self) -> Duration {
        let doubled = 2_u32.saturating_pow(self.failures.saturating_sub(1));
        DELAY.saturating_mul(doubled).min(MAX_PAUSE)
    }

    /// Spans in the next request: half as many after each failure, so that what a receiver can't
    /// take costs few others.
    fn batch(&self) -> usize {
        BATCH >> self.failures.min(MAX_FAILURES)
    }

    /// Drops the oldest beyond what may wait.
    fn bound(&mut self) {
        let excess = self.waiting.len().saturating_sub(CAPACITY);
        self.waiting.drain(..excess);
        self.lose(excess);
    }

    fn lose(&mut self, spans: usize) {
        self.left += spans as u64;
        self.lost += spans as u64;
    }
}

impl Queue {
    /// Starts the thread that sends.
    pub(super) fn start(&self) -> std::io::Result<()> {
        self.state().done = false;
        let queue = self.clone();
        let started = std::thread::Builder::new().name("evo-otel".to_owned()).spawn(move || {
            // Also when sending panics: nobody may wait for a thread that is gone.
            let done = Done(queue.clone());
            queue.send_all();
            drop(done);
        });
        self.state().done = started.is_err();
        started.map(drop)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change of the state is complete in itself.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.0.changed.notify_all();
    }

    /// Sets where spans go; those that wait are sent.
    pub(super) fn send_to(&self, target: Target) {
        self.change(|state| {
            state.target = Some(match &state.target {
                Some(explicit) if explicit.explicit => explicit.with_token_of(&target),
                _ => target,
            });
            state.failures = 0;
        });
    }

    /// Waits until the spans that are there now are gone; at most so long, and not beyond a
    /// failure. Says whether they are gone.
    pub(super) fn flush(&self, timeout: Duration) -> bool {
        let mut state = self.state();
        let (wanted, failed) = (state.came, state.failed_ever);
        if state.target.is_none() || state.done {
            return state.left >= wanted;
        }
        state.urgent = true;
        self.0.changed.notify_all();
        let over = |state: &State| state.left >= wanted || state.failed_ever > failed || state.done;
        let waited = self.0.changed.wait_timeout_while(state, timeout, |state| !over(state));
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.urgent = false;
        state.left >= wanted
    }

    /// Ends the thread after one more attempt to send what waits.
    fn end(&self, timeout: Duration) -> OTelSdkResult {
        self.change(|state| {
            state.ended = true;
            state.failures = 0;
        });
        let waited = self.0.changed.wait_timeout_while(self.state(), timeout, |state| !state.done);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        // Without a target nobody wanted the spans.
        match &state.target {
            Some(_) if !state.done => Err(OTelSdkError::Timeout(timeout)),
            Some(_) if !state.waiting.is_empty() => Err(OTelSdkError::InternalFailure(format!(
                "{} spans could not be sent",
                state.waiting.len()
            ))),
            _ => Ok(()),
        }
    }

    /// Whether failures of the receiver are told.
    pub(super) fn is_explicit(&self) -> bool {
        self.state().target.as_ref().is_some_and(|target| target.explicit)
    }

    /// The thread.
    fn send_all(&self) {
        let mut exporter: Option<Exporter> = None;
        while let Some((batch, target, resource)) = self.next() {
            let result = match exporter.take_if(|known| known.target == target) {
                Some(known) => Ok(known),
                None => Exporter::new(&target, &resource),
            };
            let sent = result.and_then(|made| {
                let sent = made.export(batch.clone());
                exporter = Some(made);
                sent
            });
            self.after(batch, &target, sent);
        }
    }

    /// Waits for spans to send. `None` when there will be none.
    fn next(&self) -> Option<(Vec<SpanData>, Target, Resource)> {
        let changed = &self.0.changed;
        let idle = |state: &mut State| !state.ended && !state.has_work();
        let state = changed.wait_while(self.state(), idle).unwrap_or_else(PoisonError::into_inner);
        let begun = Instant::now();
        // Others may join, and a receiver that failed gets time.
        let pause = state.pause();
        let resting = |state: &mut State| {
            let full = state.failures == 0 && state.waiting.len() >= BATCH;
            let over = begun.elapsed() >= state.pause();
            !state.ended && !state.urgent && !full && !over
        };
        let rested = changed.wait_timeout_while(state, pause, resting);
        let (mut state, _) = rested.unwrap_or_else(PoisonError::into_inner);
        let target = state.target.clone()?;
        // At the end each span is tried once.
        if state.ended && (state.waiting.is_empty() || state.failures > 0) {
            return None;
        }
        let count = state.waiting.len().min(state.batch());
        let batch = state.waiting.drain(..count).collect();
        Some((batch, target, state.resource.clone()))
    }

    /// What follows from an attempt.
    fn after(&self, batch: Vec<SpanData>, target: &Target, sent: Result<(), String>) {
        let (failures, lost) = {
            let mut state = self.state();
            let failures = state.failures;
            if sent.is_ok() {
                state.left += batch.len() as u64;
                state.failures = 0;
            } else {
                state.failures += 1;
                state.failed_ever += 1;
                state.urgent = false;
                if state.failures >= MAX_FAILURES {
                    state.lose(batch.len());
                    state.failures = 1;
                } else {
                    batch.into_iter().rev().for_each(|span| state.waiting.push_front(span));
                    state.bound();
                }
            }
            (failures, std::mem::take(&mut state.lost))
        };
        self.0.changed.notify_all();
        let shown = target.shown();
        match sent {
            Err(error) if failures == 0 && target.explicit => tracing::warn!(
                %error,
                "Spans can't be exported to {shown}: {error}; further failures are not logged"
            ),
            Err(error) => tracing::debug!(%error, "Spans can't be exported to {shown}: {error}"),
            Ok(()) if failures > 0 && target.explicit => {
                tracing::info!("Spans are exported to {shown} again");
            }
            Ok(()) => {}
        }
        if lost > 0 {
            tracing::debug!(lost, "{lost} spans were dropped: {shown} did not take them in time");
        }
    }
}

/// Says at the end of the thread that it has ended.
struct Done(Queue);

impl Drop for Done {
    fn drop(&mut self) {
        self.0.change(|state| state.done = true);
    }
}

impl SpanProcessor for Queue {
    fn on_start(&self, _span: &mut Span, _parent: &opentelemetry::Context) {}

    fn on_end(&self, mut span: SpanData) {
        if !span.span_context.is_sampled() {
            return;
        }
        name_component(&mut span);
        let wake = {
            let mut state = self.state();
            if state.ended {
                return;
            }
            state.came += 1;
            state.waiting.push_back(span);
            state.bound();
            matches!(state.waiting.len(), 1 | BATCH)
        };
        if wake {
            self.0.changed.notify_all();
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        let flushed = self.flush(MAX_PAUSE);
        if flushed { Ok(()) } else { Err(OTelSdkError::Timeout(MAX_PAUSE)) }
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.end(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.state().resource = resource.clone();
    }
}

/// Names the component after the crate that made the span, unless the span names its own.
fn name_component(span: &mut SpanData) {
    let has = |key: &str| span.attributes.iter().find(|attribute| attribute.key.as_str() == key);
    if has(COMPONENT).is_some() {
        return;
    }
    if let Some(KeyValue { value: Value::String(target), .. }) = has("target")
        && let Some(component) = component(target.as_str())
    {
        span.attributes.push(KeyValue::new(COMPONENT, component));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use axum::{
        Router,
        body::Bytes,
        extract::State,
        http::{HeaderMap, StatusCode, Uri},
    };
    use opentelemetry::trace::{Tracer as _, TracerProvider as _};
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_sdk::trace::SdkTracerProvider;
    use prost::Message as _;

    use super::*;
    use crate::{
        runtime::{OnError, TaskGroup},
        tokens::Secret,
    };

    const PATIENCE: Duration = Duration::from_secs(20);

    /// Path, token and names of the spans of one request.
    type Request = (String, Option<String>, Vec<String>);

    /// A receiver that refuses requests without a token.
    struct Receiver {
        url: String,
        requests: mpsc::Receiver<Request>,
        _tasks: TaskGroup,
    }

    impl Receiver {
        async fn start() -> Self {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("http://{}/v1/traces", listener.local_addr().unwrap());
            let (sender, requests) = mpsc::channel();
            let app = Router::new().fallback(take).with_state(sender);
            let tasks = TaskGroup::default();
            tasks.spawn("receiver", OnError::Log, async move {
                axum::serve(listener, app).await.map_err(Into::into)
            });
            Self { url, requests, _tasks: tasks }
        }

        fn target(&self) -> Target {
            Target::king(&self.url, Some(&Secret::new("the-token"))).unwrap()
        }

        /// Names of the spans of all requests so far.
        fn names(&self) -> Vec<String> {
            self.requests.try_iter().flat_map(|(_, _, names)| names).collect()
        }
    }

    async fn take(
        State(sender): State<mpsc::Sender<Request>>,
        uri: Uri,
        headers: HeaderMap,
        body: Bytes,
    ) -> StatusCode {
        let Some(token) = headers.get("authorization") else { return StatusCode::UNAUTHORIZED };
        let request = ExportTraceServiceRequest::decode(body).unwrap();
        let scopes = request.resource_spans.into_iter().flat_map(|spans| spans.scope_spans);
        let names = scopes.flat_map(|scope| scope.spans).map(|span| span.name).collect();
        let token = token.to_str().unwrap().to_owned();
        sender.send((uri.path().to_owned(), Some(token), names)).unwrap();
        StatusCode::OK
    }

    fn queue() -> (Queue, SdkTracerProvider) {
        let queue = Queue::default();
        queue.start().unwrap();
        let provider = SdkTracerProvider::builder().with_span_processor(queue.clone()).build();
        (queue, provider)
    }

    fn make(provider: &SdkTracerProvider, names: &[&'static str]) {
        let tracer = provider.tracer("test");
        for name in names {
            drop(tracer.start(*name));
        }
    }

    /// A target where nobody listens.
    fn nowhere() -> Target {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        Target::king(&format!("http://{}", listener.local_addr().unwrap()), None).unwrap()
    }

    async fn flush(queue: &Queue) -> bool {
        let queue = queue.clone();
        tokio::task::spawn_blocking(move || queue.flush(PATIENCE)).await.unwrap()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn spans_wait_until_they_are_told_where_to_go() {
        let receiver = Receiver::start().await;
        let (queue, provider) = queue();
        make(&provider, &["early"]);
        assert!(!flush(&queue).await, "there is nowhere to go yet");
        queue.send_to(receiver.target());
        make(&provider, &["late"]);
        assert!(flush(&queue).await);
        let requests: Vec<Request> = receiver.requests.try_iter().collect();
        let names: Vec<&str> =
            requests.iter().flat_map(|(_, _, names)| names.iter().map(String::as_str)).collect();
        assert_eq!(names, ["early", "late"]);
        assert_eq!(requests[0].0, "/v1/traces");
        assert_eq!(requests[0].1.as_deref(), Some("Bearer the-token"));
        assert!(flush(&queue).await, "nothing is left");
        provider.shutdown().unwrap();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn spans_outlive_a_receiver_that_is_away() {
        let receiver = Receiver::start().await;
        let (queue, provider) = queue();
        queue.send_to(nowhere());
        make(&provider, &["kept"]);
        assert!(!flush(&queue).await);
        // Without its token the receiver answers 401.
        queue.send_to(Target::king(&receiver.url, None).unwrap());
        assert!(!flush(&queue).await);
        queue.send_to(receiver.target());
        assert!(flush(&queue).await);
        assert_eq!(receiver.names(), ["kept"]);
        provider.shutdown().unwrap();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_address_that_was_asked_for_stays() {
        let (asked, king) = (Receiver::start().await, Receiver::start().await);
        let (queue, provider) = queue();
        queue.send_to(Target::explicit(&asked.url).unwrap());
        queue.send_to(king.target());
        make(&provider, &["span"]);
        // It gets no token of another server, and asks for one.
        assert!(!flush(&queue).await);
        assert!(king.names().is_empty());
        // The same server: the token is its own.
        queue.send_to(asked.target());
        assert!(flush(&queue).await);
        assert_eq!(asked.names(), ["span"]);
        provider.shutdown().unwrap();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_end_sends_what_waits_and_takes_no_more() {
        let receiver = Receiver::start().await;
        let (queue, provider) = queue();
        queue.send_to(receiver.target());
        make(&provider, &["last"]);
        let ending = queue.clone();
        let ended = tokio::task::spawn_blocking(move || ending.end(PATIENCE)).await.unwrap();
        assert!(ended.is_ok(), "{ended:?}");
        assert_eq!(receiver.names(), ["last"]);
        make(&provider, &["too late"]);
        assert!(queue.state().waiting.is_empty());
    }

    #[test]
    fn without_a_receiver_the_end_is_immediate_and_silent() {
        let (queue, provider) = queue();
        make(&provider, &["span"]);
        let begun = Instant::now();
        assert!(queue.end(PATIENCE).is_ok());
        assert!(begun.elapsed() < PATIENCE / 4);
    }

    #[test]
    fn after_a_failure_fewer_are_sent_at_once() {
        // Nobody sends: the test takes the batches itself.
        let queue = Queue::default();
        let provider = SdkTracerProvider::builder().with_span_processor(queue.clone()).build();
        for _ in 0..BATCH * 2 {
            make(&provider, &["span"]);
        }
        queue.send_to(nowhere());
        queue.state().urgent = true;
        let mut sizes = Vec::new();
        for _ in 0..3 {
            let (batch, target, _) = queue.next().unwrap();
            sizes.push(batch.len());
            queue.after(batch, &target, Err("no".to_owned()));
            queue.state().urgent = true;
        }
        let (batch, target, _) = queue.next().unwrap();
        sizes.push(batch.len());
        queue.after(batch, &target, Ok(()));
        sizes.push(queue.next().unwrap().0.len());
        assert_eq!(sizes, [BATCH, BATCH / 2, BATCH / 4, BATCH / 8, BATCH]);
    }

    #[test]
    fn the_oldest_are_dropped_when_too_many_wait() {
        let (queue, provider) = queue();
        make(&provider, &["oldest"]);
        for _ in 0..CAPACITY {
            make(&provider, &["span"]);
        }
        let state = queue.state();
        assert_eq!((state.waiting.len(), state.lost), (CAPACITY, 1));
        assert_eq!(state.waiting[0].name, "span");
    }
}
