use evo_common::api::{NewRequest as Asked, RequestExample};
use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::{
    config::TelemetryConfig,
    skills::telemetry,
    store::{
        Database, Store,
        requests::views::{self, RequestFilter},
    },
};

const DAY: i64 = 24 * 3_600_000;

async fn store(folder: &TempDir) -> Store {
    Store::open(Database::File(folder.path().join("king.db"))).await.unwrap()
}

/// A pipeline that nobody drives.
fn pipeline(folder: &TempDir, store: &Store) -> crate::pipeline::Coordinator {
    let config = crate::Config::new(folder.path(), evo_common::tokens::Tokens::generate());
    crate::pipeline::Coordinator::new(
        store.clone(),
        crate::artifacts::ArtifactStore::open(&folder.path().join("artifacts")).unwrap(),
        crate::registry::Registry::default(),
        crate::sources::Sources::new(Vec::new(), "http://127.0.0.1:1", None),
        std::sync::Arc::new(config),
    )
}

fn example(input: Value, output: Value) -> RequestExample {
    RequestExample { input: input.as_object().unwrap().clone(), output: Some(output), expect: None }
}

fn asked(text: &str) -> Asked {
    Asked { text: text.to_owned(), ..Asked::default() }
}

#[tokio::test]
async fn the_same_once_more_raises_the_demand_and_adds_examples() {
    let folder = TempDir::new().unwrap();
    let store = store(&folder).await;
    let pipeline = pipeline(&folder, &store);
    let ask = async |new: Asked| ask(&store, &pipeline, new, "Ada").await;
    let first = Asked {
        examples: (0..5).map(|n| example(json!({"n": n}), json!(n))).collect(),
        idempotency_key: Some("k".to_owned()),
        ..asked("  Add one\nto a NUMBER ")
    };
    let made = ask(first.clone()).await.unwrap();
    assert!(made.created);
    assert_eq!((made.request.examples, made.request.held_out), (5, 2));
    // A repeat with its key changes nothing.
    let repeated = ask(first.clone()).await.unwrap();
    assert_eq!((repeated.created, repeated.request.asked), (true, 1));
    let other = ask(Asked { text: "another".to_owned(), ..first.clone() }).await;
    assert!(matches!(other, Err(Error::KeyReused { .. })), "{other:?}");
    let split = |request_id: String| {
        let store = store.clone();
        async move {
            let read = async move |connection: &Connection| {
                requests::examples(connection, &request_id).await
            };
            let mut examples = store.read(read).await.unwrap();
            examples.sort_by(|(a, _), (b, _)| a.case_id.cmp(&b.case_id));
            examples
        }
    };
    let before = split(made.request.request_id.clone()).await;
    let more = Asked {
        examples: (3..9).map(|n| example(json!({"n": n}), json!(n))).collect(),
        ..asked("add one to a number")
    };
    let again = ask(more).await.unwrap();
    assert!(!again.created);
    assert_eq!(again.request.request_id, made.request.request_id);
    assert_eq!((again.request.asked, again.request.examples), (2, 9));
    assert!((again.request.demand - 2.0).abs() < 0.01, "{}", again.request.demand);
    // What builders have seen stays seen, and what was held out stays held out.
    let after = split(again.request.request_id.clone()).await;
    assert!(before.iter().all(|case| after.contains(case)));
    let against = ask(Asked {
        examples: vec![example(json!({"n": 1}), json!(7))],
        ..asked("add one to a number")
    })
    .await;
    assert!(matches!(against, Err(Error::Invalid { .. })), "{against:?}");
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_told_by_field() {
    let folder = TempDir::new().unwrap();
    let store = store(&folder).await;
    let pipeline = pipeline(&folder, &store);
    let with = |expect: Value| {
        let input = serde_json::Map::new();
        let expect = expect.as_object().cloned();
        Asked { examples: vec![RequestExample { input, output: None, expect }], ..asked("x") }
    };
    let many = (0..201).map(|n| example(json!({"n": n}), json!(n))).collect();
    let table = [
        (asked("  "), "text"),
        (asked(&"x".repeat(4_001)), "text"),
        (asked("a\u{7}b"), "text"),
        (Asked { skill: Some("none".to_owned()), ..asked("x") }, "skill"),
        (Asked { idempotency_key: Some(String::new()), ..asked("x") }, "idempotency_key"),
        (Asked { examples: many, ..asked("x") }, "examples"),
        (with(Value::Null), "examples[0]"),
        (with(json!({"exakt": 1})), "examples[0].expect.exakt"),
        (with(json!({"tolerance": 1})), "examples[0].expect"),
        (with(json!({"regex": "("})), "examples[0].expect.regex"),
        (with(json!({"schema": 7})), "examples[0].expect.schema"),
        (
            Asked {
                examples: vec![example(json!({}), json!(1)), example(json!({}), json!(2))],
                ..asked("x")
            },
            "examples[1]",
        ),
        (
            Asked {
                examples: vec![example(json!({"long": "x".repeat(70_000)}), json!(1))],
                ..asked("x")
            },
            "examples[0]",
        ),
    ];
    for (new, wanted) in table {
        match ask(&store, &pipeline, new, "Ada").await {
            Err(Error::Invalid { field, .. }) => assert_eq!(field, wanted),
            other => panic!("{wanted}: {other:?}"),
        }
    }
    for fine in [json!({"exact": null}), json!({"regex": "^a"}), json!({"subset": {}})] {
        let new = Asked { text: fine.to_string(), ..with(fine.clone()) };
        ask(&store, &pipeline, new, "Ada").await.unwrap_or_else(|e| panic!("{fine}: {e}"));
    }
}

#[tokio::test]
async fn what_is_wanted_most_comes_first_and_old_wishes_fade() {
    let folder = TempDir::new().unwrap();
    let store = store(&folder).await;
    let start = 1_790_000_000_000;
    let want = async |same: &'static str, day: i64, weight: f64| {
        store
            .write(async move |connection: &Connection| {
                let wanted = Wanted {
                    kind: RequestKind::New,
                    origin: "telemetry",
                    text: same,
                    skill: None,
                    artifact_id: None,
                    cluster: None,
                    same,
                    weight,
                    rest_ms: DAY.cast_unsigned(),
                };
                want(connection, Timestamp(start + day * DAY), wanted).await
            })
            .await
            .unwrap()
    };
    want("old", 0, 3.0).await;
    want("new", 14, 1.0).await;
    want("often", 13, 1.0).await;
    want("often", 14, 1.0).await;
    let told = async |trigger: Value| {
        let read = async move |connection: &Connection| {
            for_learning(connection, Timestamp(start + 14 * DAY), &trigger).await
        };
        store.read(read).await.unwrap()
    };
    let all = told(json!({})).await;
    let texts: Vec<&str> = all.iter().map(|request| request.text.as_str()).collect();
    assert_eq!(texts, ["often", "new", "old"]);
    assert!((all[2].demand - 3.0 * (-2.0_f64).exp()).abs() < 1e-6);
    assert_eq!(told(json!({"sources": ["api"]})).await.len(), 0);
    assert_eq!(told(json!({"sources": ["api", "requests"]})).await.len(), 3);
    let one = json!({"requests": [all[1].request_id]});
    assert_eq!(told(one).await[0].text, "new");
}

#[tokio::test]
async fn many_calls_of_a_skill_that_there_is_not_ask_for_it_within_bounds() {
    let folder = TempDir::new().unwrap();
    let store = store(&folder).await;
    let config = TelemetryConfig {
        failures: 3,
        window_ms: 1_000,
        max_clusters: 5,
        ..TelemetryConfig::default()
    };
    let miss = async |name: String, at: i64| {
        let config = config.clone();
        store
            .write(async move |connection: &Connection| {
                let input = json!({"city": "Bern"});
                let (now, code, input) = (Timestamp(at), telemetry::NOT_FOUND, input.as_object());
                telemetry::missing(connection, now, &config, code, &name, input).await
            })
            .await
            .unwrap();
    };
    let list = async || {
        let read = async |connection: &Connection| {
            let filter = RequestFilter { limit: 10, ..RequestFilter::default() };
            views::list(connection, Timestamp::now(), filter).await
        };
        store.read(read).await.unwrap().requests
    };
    for at in [0, 10] {
        miss("weather".to_owned(), at).await;
    }
    assert_eq!(list().await.len(), 0);
    for at in [20, 30, 40, 50] {
        miss("weather".to_owned(), at).await;
    }
    let found = list().await;
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].kind, found[0].origin.as_str()), (RequestKind::New, "telemetry"));
    assert_eq!(found[0].asked, 2);
    assert!(found[0].text.contains("\"weather\""), "{}", found[0].text);
    // Whoever calls many names fills no table.
    for number in 0..30 {
        miss(format!("name-{number}"), 60 + number).await;
    }
    let count = async |connection: &Connection| {
        store::row::number(connection, "SELECT COUNT(*) FROM failure_clusters", ()).await
    };
    assert_eq!(store.read(count).await.unwrap(), 5);
    let id = found[0].request_id.clone();
    let view = store
        .read(async move |connection: &Connection| views::get(connection, Timestamp(60), &id).await)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(view.clusters[0].shape, "city: string");
    assert_eq!(view.clusters[0].failures, 6);
}
