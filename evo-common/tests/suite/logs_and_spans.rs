//! One test, since a process has one subscriber: the log file, and spans over OTLP.

use std::{collections::HashMap, sync::Arc, time::Duration};

use axum::{Router, body::Bytes, extract::State, http::Uri};
use evo_common::{
    logging::{self, Console, LogOptions},
    tracing_context::{
        extract_context, extract_from_http_headers, inject_context, inject_http_headers,
    },
};
use opentelemetry::trace::TraceContextExt as _;
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest, common::v1::any_value, trace::v1::Span,
};
use prost::Message as _;
use tokio::sync::mpsc;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

const BURST: usize = 10_000;

type Received = mpsc::Sender<(String, ExportTraceServiceRequest)>;

async fn receive(State(received): State<Received>, uri: Uri, body: Bytes) -> &'static str {
    let request = ExportTraceServiceRequest::decode(body).unwrap();
    received.send((uri.path().to_owned(), request)).await.unwrap();
    ""
}

fn span<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    spans.iter().find(|span| span.name == name).unwrap_or_else(|| panic!("no span {name}"))
}

fn attribute<'a>(span: &'a Span, key: &str) -> &'a str {
    let found = span.attributes.iter().find(|attribute| attribute.key == key);
    match found.and_then(|attribute| attribute.value.as_ref()?.value.as_ref()) {
        Some(any_value::Value::StringValue(text)) => text,
        other => panic!("{key}: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_reach_the_file_and_spans_the_receiver() {
    let folder = tempfile::tempdir().unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    // Not /v1/traces: the URL is used exactly as it is given.
    let url = format!("http://{}/custom/otlp", listener.local_addr().unwrap());
    let (sender, mut received) = mpsc::channel(100);
    let app = Router::new().fallback(receive).with_state(sender);
    let server = Arc::new(evo_common::runtime::TaskGroup::default());
    server.spawn("receiver", evo_common::runtime::OnError::Log, async move {
        axum::serve(listener, app).await.map_err(Into::into)
    });

    let options =
        LogOptions::to(folder.path().join("deep/logs")).console(Console::Off).filter("info");
    let (log, otel) = logging::init_logging_with_otel_to("evo-test", &url, options);
    let mut carrier = HashMap::new();
    let mut headers = http::HeaderMap::new();
    tracing::info_span!("king", api.key = "sk-abcdefgh12345678").in_scope(|| {
        tracing::info!(answer = 42, token = "hush", "Started with Bearer abc.def.ghi");
        inject_context(&mut carrier);
        inject_http_headers(&mut headers);
        tracing::info_span!(target: "hyper::client", "noise").in_scope(|| {});
    });
    assert_eq!(carrier["traceparent"], headers["traceparent"].to_str().unwrap());
    for (name, context) in [
        ("over socket", extract_context(&carrier)),
        ("over http", extract_from_http_headers(&headers)),
    ] {
        assert!(context.span().span_context().is_remote());
        let span = tracing::info_span!("runner", via = name);
        span.set_parent(context).unwrap();
        span.in_scope(|| tracing::info!("working"));
    }

    // More than the SDK's own queue holds.
    for _ in 0..BURST {
        drop(tracing::info_span!("burst"));
    }

    // A second set-up joins the first.
    let second = logging::init_logging_to("other", LogOptions::to(folder.path().join("other")));
    drop((second, logging::init_logging_with_otel("third", "not a url")));
    assert!(!folder.path().join("other").exists());

    // Both flush on drop, inside the runtime that also serves the receiver.
    drop(otel);
    drop(log);
    let mut spans = Vec::new();
    while let Ok((path, request)) = received.try_recv() {
        assert_eq!(path, "/custom/otlp");
        for resource in request.resource_spans {
            let attributes = resource.resource.unwrap().attributes;
            let service = attributes.iter().find(|a| a.key == "service.name").unwrap();
            assert_eq!(
                service.value.as_ref().unwrap().value,
                Some(any_value::Value::StringValue("evo-test".to_owned()))
            );
            spans.extend(resource.scope_spans.into_iter().flat_map(|scope| scope.spans));
        }
    }
    let king = span(&spans, "king");
    assert_eq!(attribute(king, "api.key"), "sk-***");
    assert_eq!(king.events[0].name, "Started with Bearer ***");
    assert!(!format!("{king:?}").contains("hush"), "{king:?}");
    let runners: Vec<&Span> = spans.iter().filter(|span| span.name == "runner").collect();
    assert_eq!(runners.len(), 2);
    for runner in runners {
        assert_eq!(runner.trace_id, king.trace_id);
        assert_eq!(runner.parent_span_id, king.span_id);
    }
    assert_eq!(spans.iter().filter(|span| span.name == "burst").count(), BURST);
    assert!(!spans.iter().any(|span| span.name == "noise"), "the export must not export itself");

    check_file(&folder.path().join("deep/logs"));
    assert!(server.shutdown(Duration::ZERO).await || server.token().is_cancelled());
}

/// `{component}.YYYY-MM-DD.log`, one JSON object a line, without secrets.
fn check_file(logs: &std::path::Path) {
    let names: Vec<String> = std::fs::read_dir(logs)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let [name] = names.as_slice() else { panic!("{names:?}") };
    let date = name.strip_prefix("evo-test.").and_then(|rest| rest.strip_suffix(".log")).unwrap();
    chrono::NaiveDate::parse_from_str(date, "%Y-%m-%d").unwrap();
    let text = std::fs::read_to_string(logs.join(name)).unwrap();
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["level"], "INFO");
    assert_eq!(lines[0]["fields"]["message"], "Started with Bearer ***");
    assert_eq!(lines[0]["fields"]["answer"], 42);
    assert_eq!(lines[0]["fields"]["token"], "***");
    assert_eq!(lines[0]["span"]["name"], "king");
    assert!(lines.iter().any(|line| {
        line["fields"]["message"]
            == "Logging of other joins that of evo-test, which was set up before"
    }));
}

#[test]
fn without_a_span_nothing_is_carried() {
    let mut carrier = HashMap::new();
    inject_context(&mut carrier);
    assert!(carrier.is_empty(), "{carrier:?}");
    for malformed in ["", "00-xyz", "00-00000000000000000000000000000000-0000000000000000-01"] {
        let carrier = HashMap::from([("traceparent".to_owned(), malformed.to_owned())]);
        assert!(!extract_context(&carrier).span().span_context().is_valid(), "{malformed}");
    }
}
