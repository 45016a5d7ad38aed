//! How much is kept of traces, and whose they are.

use evo_common::tracing_context::run_trace_id;
use serde_json::json;
use tempfile::TempDir;

use super::{
    super::{TraceFilter, traces::NewSpan},
    *,
};

fn span(trace: u64, id: u64, start_ns: i64) -> NewSpan {
    NewSpan {
        trace_id: format!("{trace:032x}"),
        span_id: format!("{id:016x}"),
        parent_span_id: None,
        name: "work".to_owned(),
        service: "test".to_owned(),
        kind: "internal",
        start_ns,
        end_ns: Some(start_ns),
        status: "unset",
        status_message: None,
        attributes: json!({}),
        events: json!([]),
        run_id: None,
    }
}

async fn starts(store: &Store) -> Vec<i64> {
    let filter = TraceFilter {
        limit: 500,
        cursor: None,
        service: None,
        status: None,
        min_duration_ms: None,
        run_id: None,
    };
    let list = store.traces_list(filter).await.unwrap();
    let id = |trace: &evo_common::api::TraceSummary| i64::from_str_radix(&trace.trace_id, 16);
    list.traces.iter().map(|trace| id(trace).unwrap()).collect()
}

#[tokio::test]
async fn old_traces_and_those_beyond_the_limit_go_with_their_spans() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder).await;
    let spans = (1..=300).map(|n| span(n, 1, i64::try_from(n).unwrap())).collect();
    assert_eq!(store.traces_add(spans).await.unwrap(), 0);
    assert_eq!(store.traces_purge(0, 300).await.unwrap(), 0, "nothing is too old or too much");
    // More than one transaction's worth.
    assert_eq!(store.traces_purge(251, 300).await.unwrap(), 250);
    assert_eq!(starts(&store).await, (251..=300).rev().collect::<Vec<_>>());
    assert_eq!(store.traces_purge(0, 3).await.unwrap(), 47);
    assert_eq!(starts(&store).await, [300, 299, 298]);
    let left = store
        .read(async |connection| row::number(connection, "SELECT COUNT(*) FROM spans", ()).await)
        .await;
    assert_eq!(left.unwrap(), 3);
}

#[tokio::test]
async fn a_trace_that_is_full_takes_no_more() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder).await;
    let spans: Vec<NewSpan> = (0..2_005).map(|id| span(1, id + 1, 1)).collect();
    assert_eq!(store.traces_add(spans.clone()).await.unwrap(), 5);
    assert_eq!(store.traces_add(vec![span(2, 1, 1)]).await.unwrap(), 0, "others go on");
    let trace = store.traces_get(format!("{:032x}", 1)).await.unwrap().unwrap();
    assert_eq!((trace.trace.span_count, trace.spans.len()), (2_000, 2_000));
}

#[tokio::test]
async fn nobody_can_claim_the_trace_of_another_run() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder).await;
    let own = NewSpan {
        trace_id: run_trace_id("run-1"),
        run_id: Some("run-1".to_owned()),
        ..span(1, 1, 1)
    };
    let claimed = NewSpan { run_id: Some("run-1".to_owned()), ..span(2, 1, 1) };
    store.traces_add(vec![own.clone(), claimed]).await.unwrap();
    // What comes later does not take it away.
    store.traces_add(vec![NewSpan { run_id: None, ..own }]).await.unwrap();
    let run_of = async |id: String| store.traces_get(id).await.unwrap().unwrap().trace.run_id;
    assert_eq!(run_of(run_trace_id("run-1")).await.as_deref(), Some("run-1"));
    assert_eq!(run_of(format!("{:032x}", 2)).await, None);
}
