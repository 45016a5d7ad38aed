//! How much is kept of traces, and whose they are.

use evo_common::tracing_context::run_trace_id;
use serde_json::json;
use tempfile::TempDir;

use super::{
    super::{
        TraceFilter,
        traces::{Accept, Keep, NewSpan},
    },
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
        offset: 0,
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
    assert_eq!(store.traces_add(spans, Accept::All).await.unwrap(), 0);
    let purge = async |since_ns, traces, spans| {
        store.traces_purge(Keep { since_ns, traces, spans }).await.unwrap()
    };
    assert_eq!(purge(0, 300, 300).await, 0, "nothing is too old or too much");
    // More than one transaction's worth.
    assert_eq!(purge(251, 300, 300).await, 250);
    assert_eq!(starts(&store).await, (251..=300).rev().collect::<Vec<_>>());
    assert_eq!(purge(0, 10, 300).await, 40);
    // The newest has two spans.
    assert_eq!(store.traces_add(vec![span(300, 2, 301)], Accept::All).await.unwrap(), 0);
    assert_eq!(purge(0, 10, 4).await, 7);
    assert_eq!(starts(&store).await, [300, 299, 298]);
    let left = store
        .read(async |connection| row::number(connection, "SELECT COUNT(*) FROM spans", ()).await)
        .await;
    assert_eq!(left.unwrap(), 4);
}

#[tokio::test]
async fn whoever_may_not_begin_a_trace_only_adds_to_those_that_are_known() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder).await;
    store.traces_add(vec![span(1, 1, 1)], Accept::All).await.unwrap();
    let spans = vec![span(1, 2, 2), span(2, 1, 1), span(2, 2, 2)];
    assert_eq!(store.traces_add(spans, Accept::KnownTraces).await.unwrap(), 2);
    assert_eq!(starts(&store).await, [1]);
    let trace = store.traces_get(format!("{:032x}", 1)).await.unwrap().unwrap();
    assert_eq!(trace.trace.span_count, 2);
}

#[tokio::test]
async fn a_trace_that_is_full_takes_no_more() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder).await;
    let spans: Vec<NewSpan> = (0..2_005).map(|id| span(1, id + 1, 1)).collect();
    assert_eq!(store.traces_add(spans, Accept::All).await.unwrap(), 5);
    assert_eq!(
        store.traces_add(vec![span(2, 1, 1)], Accept::All).await.unwrap(),
        0,
        "others go on"
    );
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
    store.traces_add(vec![own.clone(), claimed], Accept::All).await.unwrap();
    // What comes later does not take it away.
    store.traces_add(vec![NewSpan { run_id: None, ..own }], Accept::All).await.unwrap();
    let run_of = async |id: String| store.traces_get(id).await.unwrap().unwrap().trace.run_id;
    assert_eq!(run_of(run_trace_id("run-1")).await.as_deref(), Some("run-1"));
    assert_eq!(run_of(format!("{:032x}", 2)).await, None);
}
