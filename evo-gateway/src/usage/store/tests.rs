use std::{sync::Arc, time::Duration};

use libsql::Value;

use super::*;
use crate::{
    access::{Attempted, Outcome, Text},
    auth::{Caller, key::Key, rules::Rules, spent::Period},
    model::Usage,
};

fn key(name: &str, tags: &[&str]) -> Caller {
    let tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
    let rules = Rules { tags, ..Rules::default() };
    Caller::Key(Arc::new(Key::new(name, rules, None, &Ledger::default())))
}

fn record(at: DateTime<Utc>, caller: Caller, model: &str, cost: Option<u64>) -> Record {
    Record {
        at,
        request_id: Some(Text::new("req_1")),
        caller,
        route: "/v1/messages",
        asked: Text::new(&format!("p:{model}")),
        provider: Some("p".into()),
        model: Some(Text::new(model)),
        usage: Usage { input_tokens: 10, output_tokens: 5, ..Usage::default() },
        estimated: false,
        cost,
        latency: Duration::from_millis(20),
        first_token: Some(Duration::from_micros(1_500)),
        status: Some(200),
        outcome: Outcome::Answered,
        error: None,
        attempts: 1,
        failed: Vec::new(),
        stream: false,
        cache: None,
        run: Some(Text::new("run-1")),
        stage: None,
    }
}

fn time(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

struct Bed {
    _folder: tempfile::TempDir,
    file: PathBuf,
    writer: Writer,
    store: Store,
    runtime: tokio::runtime::Runtime,
}

impl Bed {
    fn new(records: &[Record]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("sub/gateway.db");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let mut writer = runtime.block_on(Writer::open(&file)).unwrap();
        runtime.block_on(writer.write(records)).unwrap();
        let store = Store::new(&file);
        Self { _folder: folder, file, writer, store, runtime }
    }
}

#[test]
fn rows_come_back_newest_first_page_by_page() {
    let base = time("2026-03-01T00:00:00Z");
    // Two of each time.
    let records: Vec<Record> = (0..10)
        .map(|n| record(base + TimeDelta::hours(n / 2), key("a", &["t"]), "m", Some(1_500_000_000)))
        .collect();
    let bed = Bed::new(&records);
    let mut query = Query { limit: 3, ..Query::default() };
    let mut seen = Vec::new();
    loop {
        let page = bed.store.rows(&query).unwrap();
        seen.extend(page.rows);
        let Some(next) = page.next else { break };
        query.after = next;
    }
    assert_eq!(seen.len(), 10);
    let row = serde_json::to_value(&seen[0]).unwrap();
    assert_eq!(row["at"], "2026-03-01T04:00:00.000Z");
    assert_eq!((&row["key"], &row["tags"][0]), (&"a".into(), &"t".into()));
    assert_eq!((row["cost_usd"].as_f64(), row["first_token_ms"].as_f64()), (Some(1.5), Some(1.5)));
    let times: Vec<String> =
        seen.iter().map(|row| serde_json::to_value(row).unwrap()["at"].to_string()).collect();
    assert!(times.is_sorted_by(|a, b| a >= b), "{times:?}");
}

#[test]
fn many_rows_at_once_are_the_rows_that_each_alone_would_be() {
    let base = time("2026-03-01T00:00:00Z");
    let keys = [key("a", &["t"]), key("b", &[]), Caller::Operator];
    let records: Vec<Record> = (0..230_u32)
        .map(|n| {
            let caller = keys[n as usize % 3].clone();
            let model = if n % 7 == 0 { "m" } else { "n" };
            let mut record = record(base + TimeDelta::seconds(n.into()), caller, model, None);
            record.request_id = Some(Text::new(&format!("req_{n}")));
            record.usage.output_tokens = n.into();
            record.cost = (n % 2 == 0).then_some(n.into());
            record.latency = Duration::from_micros(n.into());
            record.first_token = (n % 5 == 0).then_some(Duration::from_micros(n.into()));
            record.estimated = n % 11 == 0;
            record.status = (n % 13 != 0).then_some(200);
            record.error = (n % 17 == 0).then_some("upstream_cut");
            record.run = (n % 19 == 0).then(|| Text::new(&format!("run-{n}")));
            record.cache = (n % 23 == 0).then_some("miss");
            if n % 29 == 0 {
                record.failed.push(Attempted {
                    provider: "q".into(),
                    model: Text::new("m"),
                    status: (n % 2 == 0).then_some(503),
                    code: "upstream_error",
                    after: Duration::from_micros(n.into()),
                    counts: n % 3 != 0,
                    used: None,
                });
            }
            record
        })
        .collect();
    let query = Query { limit: 1_000, ..Query::default() };
    let together = Bed::new(&records).store.rows(&query).unwrap();
    let mut alone = Bed::new(&[]);
    for record in &records {
        alone.runtime.block_on(alone.writer.write(std::slice::from_ref(record))).unwrap();
    }
    assert_eq!(together.rows.len(), 230 + 5);
    assert_eq!(together, alone.store.rows(&query).unwrap());
}

#[test]
fn rows_add_up_by_any_group_and_filter() {
    let (monday, tuesday) = (time("2026-03-02T10:00:00Z"), time("2026-03-03T10:00:00Z"));
    let mut failed = record(tuesday, key("b", &["x", "y"]), "n", None);
    failed.status = Some(502);
    failed.run = None;
    let bed = Bed::new(&[
        record(monday, key("a", &["x"]), "m", Some(1_000)),
        record(tuesday, key("a", &["x"]), "n", Some(2_000)),
        failed,
    ]);
    let ask = |groups: &[Group], filter: Filter| {
        let query = Query { groups: groups.to_vec(), filter, limit: 100, after: Vec::new() };
        let groups = bed.store.groups(&query).unwrap().groups;
        let all: Vec<(String, i64, f64)> = groups
            .into_iter()
            .map(|(values, sums)| {
                let values: Vec<String> = values.into_iter().map(|(_, value)| value).collect();
                (values.join("/"), sums.requests, sums.cost_usd * 1e9)
            })
            .collect();
        all
    };
    let of = |name: &str, requests, cost| (name.to_owned(), requests, cost);
    let all = Filter::default;
    assert_eq!(ask(&[], all()), [of("", 3, 3_000.0)]);
    assert_eq!(ask(&[Group::Key], all()), [of("a", 2, 3_000.0), of("b", 1, 0.0)]);
    assert_eq!(ask(&[Group::Tag], all()), [of("x", 3, 3_000.0), of("y", 1, 0.0)]);
    assert_eq!(ask(&[Group::Run], all()), [of("", 1, 0.0), of("run-1", 2, 3_000.0)]);
    assert_eq!(
        ask(&[Group::Day, Group::Model], all()),
        [of("2026-03-02/m", 1, 1_000.0), of("2026-03-03/n", 2, 2_000.0)]
    );
    let filters = [
        Filter { from: Some(tuesday), ..all() },
        Filter { to: Some(tuesday), ..all() },
        Filter { key: Some("b".to_owned()), ..all() },
        Filter { model: Some("p:m".to_owned()), ..all() },
        Filter { provider: Some("p".to_owned()), ..all() },
        Filter { runs: vec!["run-1".to_owned(), "run-none".to_owned()], ..all() },
        Filter { stage: Some("none".to_owned()), ..all() },
        Filter { tag: Some("y".to_owned()), ..all() },
    ];
    let counts: Vec<i64> = filters.map(|filter| ask(&[], filter)[0].1).into();
    assert_eq!(counts, [2, 1, 1, 1, 3, 2, 0, 1]);
    let sums = bed.store.groups(&Query { limit: 1, ..Query::default() }).unwrap().groups;
    let sums = &sums[0].1;
    assert_eq!((sums.errors, sums.unpriced, sums.input_tokens), (1, 1, 30));
    // Groups come page by page too.
    let mut query = Query { groups: vec![Group::Key, Group::Day], limit: 1, ..Query::default() };
    let mut seen = Vec::new();
    loop {
        let report = bed.store.groups(&query).unwrap();
        seen.extend(report.groups.into_iter().map(|(values, _)| values));
        let Some(next) = report.next else { break };
        query.after = next;
    }
    assert_eq!(seen.len(), 3);
}

#[test]
fn sums_that_are_too_large_stop_neither_the_figures_nor_the_start() {
    let mut records = vec![record(Utc::now(), key("a", &[]), "m", Some(u64::MAX)); 3];
    for record in &mut records {
        record.usage.input_tokens = u64::MAX;
        record.usage.output_tokens = u64::MAX;
    }
    let bed = Bed::new(&records);
    let query = Query { groups: vec![Group::Model], limit: 10, ..Query::default() };
    let report = bed.store.groups(&query).unwrap();
    let sums = &report.groups[0].1;
    assert_eq!((sums.requests, sums.input_tokens), (3, i64::MAX));
    let ledger = Ledger::default();
    bed.runtime.block_on(bed.writer.spent(&ledger)).unwrap();
    let spent = ledger.account("a").spent(&Period::month(Utc::now(), 1, 0));
    assert!(spent >= 9_000_000_000_000_000_000, "{spent}");
}

#[test]
fn what_was_spent_is_known_after_a_restart_and_old_rows_go() {
    let now = Utc::now();
    let records = [
        record(now, key("a", &[]), "m", Some(7)),
        record(now - TimeDelta::days(40), key("a", &[]), "m", Some(100)),
        record(now, key("b", &[]), "m", None),
    ];
    let mut bed = Bed::new(&records);
    let ledger = Ledger::default();
    let again = bed.runtime.block_on(Writer::open(&bed.file)).unwrap();
    bed.runtime.block_on(again.spent(&ledger)).unwrap();
    let day = Period::day(now, 0);
    assert_eq!(ledger.account("a").spent(&day), 7);
    assert_eq!(ledger.account("b").spent(&day), 0);
    let before = now - TimeDelta::days(30);
    assert!(!bed.runtime.block_on(bed.writer.delete_before(before)).unwrap());
    let left = bed.store.rows(&Query { limit: 10, ..Query::default() }).unwrap();
    assert_eq!(left.rows.len(), 2);
}

#[cfg(unix)]
#[test]
fn the_file_is_for_its_owner_only() {
    let bed = Bed::new(&[]);
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&bed.file).unwrap());
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn no_query_reads_rows_that_it_does_not_ask_for() {
    let bed = Bed::new(&[]);
    let from = Some(time("2026-03-01T00:00:00Z"));
    let name = || Some("a".to_owned());
    let filters = [
        Filter { from, ..Filter::default() },
        Filter { from, key: name(), ..Filter::default() },
        Filter { runs: vec!["a".to_owned()], ..Filter::default() },
        Filter { runs: vec!["a".to_owned(), "b".to_owned()], ..Filter::default() },
    ];
    let mut texts = vec![(SPENT.to_owned(), 1), (DELETE.to_owned(), 2)];
    for filter in filters {
        for groups in [vec![], vec![Group::Day], vec![Group::Tag, Group::Key]] {
            let query = Query { filter: filter.clone(), groups, limit: 5, after: Vec::new() };
            for sql in [query.sums(), query.rows()] {
                texts.push((sql.text, sql.values.len()));
            }
        }
    }
    for (text, values) in texts {
        let plan = bed.runtime.block_on(async {
            let connection = connect(&bed.file).await.unwrap();
            let values = vec![Value::Integer(1); values];
            let mut rows =
                connection.query(&format!("EXPLAIN QUERY PLAN {text}"), values).await.unwrap();
            let mut plan = String::new();
            while let Some(row) = rows.next().await.unwrap() {
                plan.push_str(&row.get::<String>(3).unwrap());
                plan.push('\n');
            }
            plan
        });
        assert!(!plan.contains("SCAN usage"), "{text}\n{plan}");
    }
}
