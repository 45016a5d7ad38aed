//! One line per request, and nothing in it that should not be there.

use tracing_subscriber::{fmt::MakeWriter, layer::SubscriberExt as _};

use super::*;

/// Collects what is logged.
#[derive(Debug, Clone, Default)]
pub(super) struct Lines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Lines {
    /// All of it.
    pub(super) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    /// The lines about requests.
    fn requests(&self) -> Vec<Value> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.filter(|line| line["fields"].get("http.method").is_some()).collect()
    }
}

/// Logs as the services do, into memory, for as long as the guard lives.
pub(super) fn capture() -> (Lines, tracing::subscriber::DefaultGuard) {
    let lines = Lines::default();
    let layer = tracing_subscriber::fmt::layer()
        .json()
        .with_thread_ids(true)
        .with_file(true)
        .with_line_number(true)
        .with_writer(lines.clone());
    let filter = tracing_subscriber::filter::LevelFilter::INFO;
    let subscriber = tracing_subscriber::registry().with(layer).with(filter);
    (lines, tracing::subscriber::set_default(subscriber))
}

#[tokio::test]
async fn sixty_four_at_once_write_one_short_line_each() {
    let (lines, _guard) = capture();
    let fake = Fake::start(|_| async {
        tokio::time::sleep(Duration::from_millis(2)).await;
        Response::new(Body::from("{}"))
    })
    .await;
    let bed = Arc::new(Bed::before(&fake).await);
    let before = lines.0.lock().unwrap().len();
    let mut callers = JoinSet::new();
    for _ in 0..64 {
        let bed = bed.clone();
        callers.spawn(async move {
            for _ in 0..10 {
                assert_eq!(bed.chat(&chat("p:gpt-4o-mini-2024-07-18")).await.status, 200);
            }
        });
    }
    while let Some(caller) = callers.join_next().await {
        caller.unwrap();
    }
    Arc::into_inner(bed).unwrap().stop().await;
    let bytes = lines.0.lock().unwrap().len() - before;
    assert_eq!(lines.requests().len(), 640);
    assert!(bytes / 640 < 700, "{} bytes for each request", bytes / 640);
}

#[tokio::test]
async fn the_line_tells_what_happened() {
    let (lines, _guard) = capture();
    let fake = Fake::start(|seen| async move {
        if seen.json()["stream"] == true {
            tokio::time::sleep(GIVE_UP * 2).await;
        }
        Response::builder().header("x-request-id", "up-1").body(Body::from("{\"a\":1}")).unwrap()
    })
    .await;
    let bed = Bed::before(&fake).await;
    let request = bed
        .request("POST", "/v1/chat/completions?secret=in-the-query")
        .header("x-evo-run-id", "run-1")
        .header("x-evo-stage", "building")
        .body(Full::new(chat("p:m").to_string().into()))
        .unwrap();
    bed.send(request).await;
    bed.get("/health").await;
    bed.post("/v1/chat/completions", "{").await;
    let head = bed.request("HEAD", &format!("/v1/messages/{}", "ä".repeat(200)));
    bed.send(head.body(Full::default()).unwrap()).await;
    let caller = bed.raw("/v1/chat/completions", &streamed(chat("p:m")).to_string()).await;
    until(|| fake.seen().len() == 2).await;
    drop(caller);
    let seen = lines.clone();
    until(move || seen.requests().len() == 4).await;
    let token = bed.token.clone();
    bed.stop().await;

    let requests = lines.requests();
    let fields = |index: usize| requests[index]["fields"].clone();
    let first = fields(0);
    for (key, value) in [
        ("message", json!("POST /v1/chat/completions 200")),
        ("http.method", json!("POST")),
        ("http.path", json!("/v1/chat/completions")),
        ("http.status", json!(200)),
        ("provider.name", json!("p")),
        ("model", json!("m")),
        ("bytes", json!(7)),
        ("run.id", json!("run-1")),
        ("stage", json!("building")),
        ("request.id", json!("up-1")),
        ("caller", json!("gateway")),
        ("outcome", json!("answered")),
    ] {
        assert_eq!(first[key], value, "{key}");
    }
    assert!(first["duration_ms"].as_f64() >= first["first_byte_ms"].as_f64(), "{first}");
    assert!(first["first_byte_ms"].is_f64(), "{first}");
    assert_eq!(fields(1)["error.code"], "invalid_request");
    assert_eq!(fields(2)["http.path"].as_str().unwrap().len(), 127);
    assert_eq!(fields(2)["outcome"], "answered");
    let left = fields(3);
    assert_eq!((&left["outcome"], &left["stream"]), (&json!("cancelled"), &json!(true)));
    assert!(left.get("http.status").is_none(), "{left}");
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    for secret in [&*token, "in-the-query", "\"Hi\""] {
        assert!(!text.contains(secret), "{secret}");
    }
}

/// Counts spans.
#[derive(Clone, Default)]
struct Spans(Arc<Mutex<Vec<&'static str>>>);

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Spans {
    fn on_new_span(
        &self,
        attributes: &tracing::span::Attributes<'_>,
        _: &tracing::span::Id,
        _: tracing_subscriber::layer::Context<'_, S>,
    ) {
        if attributes.metadata().target().starts_with("evo_gateway") {
            self.0.lock().unwrap().push(attributes.metadata().name());
        }
    }
}

#[tokio::test]
async fn only_requests_of_a_run_make_a_span() {
    let spans = Spans::default();
    let subscriber = tracing_subscriber::registry().with(spans.clone());
    let _guard = tracing::subscriber::set_default(subscriber);
    let fake = Fake::says(200, &[], "{}").await;
    let bed = Bed::before(&fake).await;
    let send = async |parent: &str| {
        let request = bed
            .request("POST", "/v1/chat/completions")
            .header("traceparent", parent)
            .body(Full::new(chat("p:m").to_string().into()))
            .unwrap();
        assert_eq!(bed.send(request).await.status, 200);
        assert_eq!(fake.last().header("traceparent"), "");
        std::mem::take(&mut *spans.0.lock().unwrap())
    };
    let run = evo_common::tracing_context::run_carrier("run-1");
    let both = ["gateway.request", "gateway.call"];
    assert_eq!(send(&run["traceparent"]).await, both);
    let stranger = Request::post(format!("http://{}/v1/chat/completions", bed.address))
        .header("traceparent", &run["traceparent"])
        .body(Full::default())
        .unwrap();
    assert_eq!(bed.send(stranger).await.status, 401);
    assert_eq!(*spans.0.lock().unwrap(), Vec::<&str>::new());
    let (zeros, ids) = ("0".repeat(32), "1".repeat(32));
    for wrong in ["", "00", &format!("00-{zeros}-{}-01", &ids[..16]), &format!("00-{ids}-x-01")] {
        assert_eq!(send(wrong).await, Vec::<&str>::new(), "{wrong}");
    }
    bed.stop().await;
}
