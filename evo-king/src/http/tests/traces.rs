//! Spans come in as OpenTelemetry's exporters send them, and are shown as traces.

use std::collections::HashMap;

use evo_common::tracing_context::{run_span_id, run_trace_id};
use opentelemetry::trace::{SpanContext, TraceContextExt as _, Tracer as _, TracerProvider as _};
use opentelemetry_otlp::{Protocol, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::{Resource, trace::SdkTracerProvider};

use super::*;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PROTOBUF: &str = "application/x-protobuf";
const JSON: &str = "application/json";

/// A request with these spans. Times are milliseconds.
fn spans(service: &str, spans: &[(&str, &str, Option<&str>, u64, u64)]) -> Value {
    let spans: Vec<Value> = spans
        .iter()
        .map(|(trace, id, parent, start, end)| {
            json!({
                "traceId": trace, "spanId": id, "parentSpanId": parent.unwrap_or_default(),
                "name": format!("span {id}"), "kind": 1,
                "startTimeUnixNano": (start * 1_000_000).to_string(),
                "endTimeUnixNano": (end * 1_000_000).to_string(),
            })
        })
        .collect();
    json!({"resourceSpans": [{
        "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": service}}]},
        "scopeSpans": [{"spans": spans}],
    }]})
}

impl Server {
    async fn send_spans(&self, kind: &str, coding: Option<&str>, body: Vec<u8>) -> Answer {
        let mut request = self
            .request(Method::POST, "/v1/traces")
            .header("x-api-key", self.token(Scope::Runner))
            .header(header::CONTENT_TYPE, kind);
        if let Some(coding) = coding {
            request = request.header(header::CONTENT_ENCODING, coding);
        }
        self.send(request.body(body.into()).unwrap()).await
    }

    async fn take(&self, body: &Value) {
        let answer = self.send_spans(JSON, None, body.to_string().into_bytes()).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(answer.headers[header::CONTENT_TYPE], JSON);
        assert_eq!(answer.json(), json!({}));
    }

    async fn listed(&self, query: &str) -> Vec<String> {
        let list = self.get(&format!("/traces?{query}")).await.json();
        let traces = list["traces"].as_array().unwrap_or_else(|| panic!("{query}: {list}"));
        assert_eq!(list["count"], traces.len(), "{query}");
        traces.iter().map(|trace| trace["trace_id"].as_str().unwrap().to_owned()).collect()
    }
}

#[tokio::test]
async fn spans_become_traces_in_any_order_and_repeats_change_nothing() {
    let server = Server::start().await;
    let (a, b, c) = ("aaaaaaaaaaaaaaaa", "bbbbbbbbbbbbbbbb", "cccccccccccccccc");
    // A child comes before its parent.
    server.take(&spans("worker", &[(TRACE, c, Some(b), 30, 40)])).await;
    let trace = server.get(&format!("/traces/{TRACE}")).await.json();
    assert_eq!(trace["trace"]["root_span_name"], format!("span {c}"));
    let rest = spans("front", &[(TRACE, b, Some(a), 20, 50), (TRACE, a, None, 10, 60)]);
    server.take(&rest).await;
    server.take(&rest).await;
    server.take(&spans("worker", &[(TRACE, c, Some(b), 30, 40)])).await;
    // The id also in upper case.
    let trace = server.get(&format!("/traces/{}", TRACE.to_uppercase())).await.json();
    assert_eq!(
        trace["trace"],
        json!({
            "trace_id": TRACE, "run_id": null, "root_span_name": format!("span {a}"),
            "services": ["front", "worker"], "status": "ok", "span_count": 3,
            "start_time": "1970-01-01T00:00:00.010000Z",
            "end_time": "1970-01-01T00:00:00.060000Z", "duration_ms": 50.0,
        })
    );
    let ids: Vec<&Value> =
        trace["spans"].as_array().unwrap().iter().map(|span| &span["span_id"]).collect();
    assert_eq!(ids, [a, b, c]);
    assert_eq!(trace["spans"][1]["parent_span_id"], a);
    assert_eq!(trace["spans"][2]["duration_ms"], 10.0);
}

#[tokio::test]
async fn lists_are_filtered_and_paged() {
    let server = Server::start().await;
    let id = |n: u64| format!("{n:032x}");
    for n in 1..=5 {
        let service = if n % 2 == 0 { "even" } else { "odd" };
        let trace = id(n);
        let one = [(trace.as_str(), "aaaaaaaaaaaaaaaa", None, n * 100, n * 100 + n)];
        server.take(&spans(service, &one)).await;
    }
    let ids = |ns: &[u64]| ns.iter().map(|n| id(*n)).collect::<Vec<_>>();
    assert_eq!(server.listed("").await, ids(&[5, 4, 3, 2, 1]));
    assert_eq!(server.listed("service=even").await, ids(&[4, 2]));
    assert_eq!(server.listed("min_duration_ms=4").await, ids(&[5, 4]));
    assert_eq!(server.listed(&format!("min_duration_ms={}", u64::MAX)).await, ids(&[]));
    assert_eq!(server.listed("status=ok&service=odd").await, ids(&[5, 3, 1]));
    assert_eq!(server.listed("status=error").await, ids(&[]));
    assert_eq!(server.listed("run_id=run-1").await, ids(&[]));
    assert_eq!(server.listed("run_id=latest").await, ids(&[]));
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = server.get(&format!("/traces?limit=2{cursor}")).await.json();
        let traces = page["traces"].as_array().unwrap();
        seen.extend(traces.iter().map(|trace| trace["trace_id"].as_str().unwrap().to_owned()));
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(seen, ids(&[5, 4, 3, 2, 1]));
    assert_eq!(server.get("/traces/latest").await.json()["trace"]["trace_id"], id(5));
}

#[tokio::test]
async fn a_run_has_a_trace_with_its_root_from_the_beginning() {
    let server = Server::start().await;
    assert_eq!(server.get("/traces/latest").await.status, StatusCode::NOT_FOUND);
    let started = server.post("/pipeline/start", &json!({"trigger": "test"})).await.json();
    let run_id = started["run_id"].as_str().unwrap();
    let (trace_id, root) = (run_trace_id(run_id), run_span_id(run_id));
    for id in [run_id, trace_id.as_str(), "latest"] {
        let trace = server.get(&format!("/traces/{id}")).await.json();
        assert_eq!(trace["trace"]["trace_id"], trace_id, "{id}");
        assert_eq!(trace["trace"]["status"], "running");
        assert_eq!(trace["trace"]["run_id"], run_id);
        assert_eq!(trace["spans"][0]["span_id"], root);
        assert_eq!(trace["spans"][0]["end_time"], Value::Null);
    }
    // The root of a run is king's, whatever others send; their spans descend from it.
    let work = "bbbbbbbbbbbbbbbb";
    let others = [
        (trace_id.as_str(), root.as_str(), None, 10, 20),
        (trace_id.as_str(), work, Some(root.as_str()), 12, 14),
    ];
    server.take(&spans("forger", &others)).await;
    // Nor do they change when it began: old traces are taken away.
    let trace = server.get(&format!("/traces/{run_id}")).await.json();
    assert!(trace["trace"]["duration_ms"].as_f64().unwrap() < 60_000.0, "{trace}");
    server.call(Method::DELETE, &format!("/pipeline/runs/{run_id}"), Body::empty()).await;
    let trace = server.get(&format!("/traces/{run_id}")).await.json();
    assert_eq!(trace["trace"]["status"], "error", "a cancelled run failed");
    assert_eq!(trace["trace"]["root_span_name"], "cycle");
    assert_eq!(trace["trace"]["span_count"], 2);
    let spans = trace["spans"].as_array().unwrap();
    let root_span = spans.iter().find(|span| span["span_id"] == root.as_str()).unwrap();
    assert_eq!(root_span["service"], "evo-king");
    assert_eq!(root_span["attributes"]["run.id"], run_id);
    assert_eq!(root_span["attributes"]["code"], "cancelled");
    assert!(root_span["duration_ms"].as_f64().unwrap() >= 0.0);
    assert_eq!(server.listed(&format!("run_id={run_id}")).await, [trace_id]);
    assert_eq!(server.listed("service=evo-king&status=error").await.len(), 1);
}

#[tokio::test]
async fn what_is_no_request_is_refused_with_the_envelope() {
    use std::io::Write as _;
    let server = Server::start().await;
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    packer.write_all(&vec![0; crate::otlp::MAX_BODY + 1]).unwrap();
    let bomb = packer.finish().unwrap();
    let table = [
        ("text/plain", None, b"{}".to_vec(), 415, "unsupported_media_type"),
        (JSON, Some("br"), b"{}".to_vec(), 415, "unsupported_media_type"),
        (JSON, None, b"{".to_vec(), 400, "invalid_otlp"),
        (JSON, None, br#"{"resourceSpans": [7]}"#.to_vec(), 400, "invalid_otlp"),
        (PROTOBUF, None, vec![0xff; 9], 400, "invalid_otlp"),
        (PROTOBUF, Some("gzip"), b"no gzip".to_vec(), 400, "invalid_otlp"),
        (PROTOBUF, Some("gzip"), bomb, 413, "body_too_large"),
        (JSON, None, vec![b' '; crate::otlp::MAX_BODY + 1], 413, "body_too_large"),
    ];
    for (kind, coding, body, status, code) in table {
        let answer = server.send_spans(kind, coding, body).await;
        assert_eq!((answer.status.as_u16(), &*answer.code()), (status, code), "{kind} {coding:?}");
    }
    let bad_id = spans("x", &[("00", "aaaaaaaaaaaaaaaa", None, 1, 2)]).to_string();
    let answer = server.send_spans(JSON, None, bad_id.into_bytes()).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.json()["partialSuccess"]["rejectedSpans"], json!(1));
    for (path, status, code) in [
        ("/traces/run-1", 404, "not_found"),
        ("/traces/0af7651916cd43dd8448eb211c80319c", 404, "not_found"),
        ("/traces/a%2Fb", 400, "invalid_parameter"),
        ("/traces?cursor=x", 400, "invalid_parameter"),
        ("/traces?cursor=1-x", 400, "invalid_parameter"),
        ("/traces?status=bird", 400, "invalid_parameter"),
        ("/traces?min_duration_ms=-1", 400, "invalid_parameter"),
        ("/traces?limit=501", 400, "invalid_parameter"),
    ] {
        let answer = server.get(path).await;
        assert_eq!((answer.status.as_u16(), &*answer.code()), (status, code), "{path}");
    }
}

#[tokio::test]
async fn the_gateways_token_adds_to_the_traces_of_runs_only() {
    let server = Server::start().await;
    let started = server.post("/pipeline/start", &json!({"trigger": "test"})).await.json();
    let run_id = started["run_id"].as_str().unwrap();
    let known = run_trace_id(run_id);
    let body = spans(
        "gateway",
        &[
            (known.as_str(), "aaaaaaaaaaaaaaaa", Some(&*run_span_id(run_id)), 10, 20),
            (TRACE, "bbbbbbbbbbbbbbbb", None, 10, 20),
        ],
    );
    let request = server
        .request(Method::POST, "/v1/traces")
        .header("x-api-key", server.token(Scope::Gateway))
        .header(header::CONTENT_TYPE, JSON);
    let answer = server.send(request.body(body.to_string().into()).unwrap()).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.json()["partialSuccess"]["rejectedSpans"], json!(1));
    assert_eq!(server.listed("").await, [known]);
    assert_eq!(server.listed("service=gateway").await.len(), 1);
}

#[tokio::test]
async fn a_span_of_the_future_is_refused() {
    let server = Server::start().await;
    let day_ms = 24 * 3_600_000;
    let now_ms = u64::try_from(evo_common::clock::Timestamp::now().0).unwrap();
    for (start, refused) in [(now_ms, Value::Null), (now_ms + day_ms, json!(1))] {
        let body = spans("x", &[(TRACE, "aaaaaaaaaaaaaaaa", None, start, start)]).to_string();
        let answer = server.send_spans(JSON, None, body.into_bytes()).await;
        assert_eq!(answer.json()["partialSuccess"]["rejectedSpans"], refused);
    }
}

/// OpenTelemetry's own exporter, over a real connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_exporter_of_opentelemetry_is_understood() {
    let server = Server::start().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1/traces", listener.local_addr().unwrap());
    let stop = Shutdown::new();
    let tasks = evo_common::runtime::TaskGroup::new(stop.clone());
    let limits = crate::config::Limits { connections: 16, ..crate::config::Limits::default() };
    let router = server.router.clone();
    tasks.spawn("king", evo_common::runtime::OnError::Log, async move {
        serve(listener, router, &limits, stop).await;
        Ok(())
    });

    let token = format!("Bearer {}", server.token(Scope::Runner));
    let run_id = "run-of-the-exporter";
    let export = move || {
        evo_common::tls::install();
        let exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_http()
            .with_endpoint(url)
            .with_protocol(Protocol::HttpBinary)
            .with_headers(HashMap::from([("authorization".to_owned(), token)]))
            .build()
            .unwrap();
        let provider = SdkTracerProvider::builder()
            .with_simple_exporter(exporter)
            .with_resource(Resource::builder().with_service_name("evo-elsewhere").build())
            .build();
        let tracer = provider.tracer("test");
        let carrier = evo_common::tracing_context::run_carrier(run_id);
        let parent = evo_common::tracing_context::extract_context(&carrier);
        let mut outer = tracer.start_with_context("outer", &parent);
        let context: SpanContext = opentelemetry::trace::Span::span_context(&outer).clone();
        let inside = opentelemetry::Context::new().with_remote_span_context(context);
        let attribute = opentelemetry::KeyValue::new("run.id", run_id);
        opentelemetry::trace::Span::set_attribute(&mut outer, attribute);
        drop(tracer.start_with_context("inner", &inside));
        drop(outer);
        provider.shutdown().unwrap();
    };
    tokio::task::spawn_blocking(export).await.unwrap();

    let trace = server.get(&format!("/traces/{run_id}")).await.json();
    assert_eq!(trace["trace"]["span_count"], 2, "{trace}");
    assert_eq!(trace["trace"]["run_id"], run_id);
    assert_eq!(trace["trace"]["services"], json!(["evo-elsewhere"]));
    assert_eq!(trace["trace"]["root_span_name"], "outer", "its parent is not known");
    let (outer, inner) = (&trace["spans"][0], &trace["spans"][1]);
    assert_eq!(outer["parent_span_id"], run_span_id(run_id));
    assert_eq!(inner["parent_span_id"], outer["span_id"]);
    assert!(tasks.shutdown(std::time::Duration::from_secs(5)).await);
}
