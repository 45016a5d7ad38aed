//! Memories over a real database.

use evo_common::{
    clock::Timestamp,
    messages::{MemoryCategory, MemoryScope, MemoryStore, MemoryTierEntry, MemoryUpdate},
};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::Error;
use crate::store::{Connection, Database, MemoryFilter, Store, memories};

async fn open(folder: &TempDir) -> Store {
    Store::open(Database::File(folder.path().join("king.db"))).await.unwrap()
}

fn memory(key: &str, line: &str) -> MemoryStore {
    MemoryStore {
        scope: MemoryScope::System,
        category: MemoryCategory::Fact,
        key: key.to_owned(),
        metadata: json!({}),
        tags: Vec::new(),
        agent_id: String::new(),
        run_id: String::new(),
        skill_id: String::new(),
        relevance_score: 0.0,
        tiers: vec![tier("l0", line)],
        task_id: None,
    }
}

fn tier(tier: &str, content: &str) -> MemoryTierEntry {
    MemoryTierEntry { tier: tier.to_owned(), content: content.to_owned() }
}

async fn put(store: &Store, memory: MemoryStore) -> Result<memories::Stored, Error> {
    store
        .write(async move |connection: &Connection| {
            super::store(connection, Timestamp::now(), memory).await
        })
        .await
}

async fn put_all(store: &Store, lines: &[&str]) -> Vec<String> {
    let mut ids = Vec::new();
    for line in lines {
        ids.push(put(store, memory("", line)).await.unwrap().memory_id);
    }
    ids
}

fn all() -> MemoryFilter {
    MemoryFilter { limit: 50, ..MemoryFilter::default() }
}

/// The lines of what a query finds, best first.
async fn found(store: &Store, query: &str) -> Vec<String> {
    let page = store.memories_search(query.to_owned(), all()).await.unwrap();
    assert_eq!(page.count, page.memories.len());
    page.memories.into_iter().map(|hit| hit.memory.tiers[0].content.clone()).collect()
}

async fn show(store: &Store, memory_id: &str) -> evo_common::api::MemoryView {
    store.memories_get(memory_id).await.unwrap().unwrap().memory
}

/// What a refusal names.
async fn refused(store: &Store, memory: MemoryStore) -> String {
    match put(store, memory).await {
        Err(Error::Invalid { field, .. }) => field,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_key_is_there_once_and_writing_it_again_replaces_it() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder).await;
    let first = memory("k", "one kestrel");
    let first = MemoryStore { tags: vec!["a, b".to_owned(), "c".to_owned()], ..first };
    let first = MemoryStore { tiers: vec![tier("l0", "one kestrel"), tier("l2", "old")], ..first };
    let before = put(&store, first.clone()).await.unwrap();
    assert!(before.created);
    let again = MemoryStore {
        run_id: "run-7".to_owned(),
        tags: vec!["a, b".to_owned()],
        ..memory("k", "two herons")
    };
    let after = put(&store, again).await.unwrap();
    assert_eq!(after, memories::Stored { created: false, ..before.clone() });
    let kept = show(&store, &before.memory_id).await;
    assert_eq!(kept.version, 2);
    assert_eq!(kept.memory.run_id, "run-7");
    assert_eq!(kept.memory.tags, ["a, b"]);
    let tiers: Vec<_> = kept.memory.tiers.iter().map(|t| (&*t.tier, &*t.content)).collect();
    assert_eq!(tiers, [("l0", "two herons")]);
    assert_eq!(found(&store, "kestrel").await, [""; 0]);
    assert_eq!(found(&store, "heron").await, ["two herons"]);

    // Another agent, another scope and no key are other memories.
    let mine = MemoryStore { agent_id: "a".to_owned(), ..memory("k", "mine") };
    assert!(put(&store, mine.clone()).await.unwrap().created);
    assert!(!put(&store, mine).await.unwrap().created);
    let other = MemoryStore { scope: MemoryScope::Skill, ..memory("k", "other") };
    assert!(put(&store, other).await.unwrap().created);
    for _ in 0..2 {
        assert!(put(&store, memory("", "without")).await.unwrap().created);
    }
    let stats = store.memories_stats().await.unwrap();
    assert_eq!(
        stats.into_iter().collect::<Vec<_>>(),
        [
            ("agent".to_owned(), 0),
            ("pipeline".to_owned(), 0),
            ("skill".to_owned(), 1),
            // With the one that every database begins with.
            ("system".to_owned(), 5),
        ]
    );
}

#[tokio::test]
async fn words_of_every_language_are_found() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder).await;
    let lines = [
        "The gateway failed to answer in time",
        "网关没有及时回答，所以任务失败了",
        "昨天的API错误码是500",
        "ゲートウェイがエラーを返しました",
        "게이트웨이가 응답하지 않습니다",
        "𠮷野家は閉まっている",
        "Über den Café-Server in Zürich",
        "GET /agents/{agent_id}: write_not_allowed (evo-king)",
    ];
    put_all(&store, &lines).await;
    for (query, wanted) in [
        ("failed", vec![0]),
        ("FAILING gateways", vec![0]),
        ("answ", vec![0]),
        // One, two and more characters, from the middle too.
        ("败", vec![1]),
        ("网", vec![1]),
        ("任务", vec![1]),
        ("及时回答", vec![1]),
        ("任务失败了", vec![1]),
        ("网关 失败", vec![1]),
        ("回答，所以", vec![1]),
        ("错误码", vec![2]),
        ("API错误", vec![2]),
        ("500", vec![2]),
        ("ＡＰＩ", vec![2]),
        ("エ", vec![3]),
        ("エラー", vec![3]),
        ("ｴﾗｰ", vec![3]),
        ("返しました", vec![3]),
        ("응", vec![4]),
        ("응답", vec![4]),
        ("게이트웨이", vec![4]),
        ("\u{110b}\u{1173}\u{11bc}답", vec![4]),
        ("𠮷野", vec![5]),
        ("𠮷", vec![5]),
        ("cafe zurich", vec![6]),
        ("CAFÉ", vec![6]),
        ("Cafe\u{301}", vec![6]),
        ("write_not_allowed", vec![7]),
        ("evo-king", vec![7]),
        ("/agents/{agent_id}", vec![7]),
        ("天气很好", vec![]),
        ("heron", vec![]),
    ] {
        let hits = found(&store, query).await;
        let wanted: Vec<_> = wanted.into_iter().map(|index: usize| lines[index]).collect();
        assert_eq!(hits, wanted, "{query:?}");
    }
    // Without a memory that has all words, those with some of them.
    assert_eq!(found(&store, "gateway heron").await, [lines[0]]);
    assert_eq!(found(&store, "任务没有完成").await, [lines[1]]);
}

#[tokio::test]
async fn no_query_is_an_error() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder).await;
    put_all(&store, &["plain words", "普通的文字"]).await;
    let pieces = [
        "\"",
        "'",
        "(",
        ")",
        "*",
        ":",
        "-",
        "+",
        "^",
        "{",
        "}",
        "AND",
        "OR",
        "NOT",
        "NEAR",
        "a:b",
        "l0:",
        "NEAR(a b)",
        "key : x",
        "--",
        "/*",
        ";",
        "%",
        "_",
        "\\",
        "\0",
        "\u{7f}",
        "，",
        "。",
        "🦀",
        "क्षि",
        "\u{301}",
        "²",
        "①",
        "words\"",
        "文*",
        "\u{feff}",
        "\u{202e}",
        "x\"*\"y",
    ];
    for first in pieces {
        for second in pieces {
            for query in [format!("{first}{second}"), format!("{first} {second} words")] {
                for tier in [None, Some("l1".to_owned())] {
                    let filter = MemoryFilter { tier, ..all() };
                    let page = store.memories_search(query.clone(), filter).await;
                    assert!(page.is_ok(), "{query:?}: {page:?}");
                }
            }
        }
    }
    for nothing in ["?", "*", "\"\"", "，", "🦀"] {
        assert_eq!(found(&store, nothing).await, [""; 0], "{nothing:?}");
    }
    // Operators are words like others.
    assert_eq!(found(&store, "words AND plain").await, ["plain words"]);
    assert_eq!(found(&store, "  ").await.len(), 3, "an empty query lists");
}

#[tokio::test]
async fn the_best_come_first_and_pages_do_not_overlap() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder).await;
    let lines: Vec<String> = (0..25).map(|number| format!("the heron number {number}")).collect();
    put_all(&store, &lines.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let tagged = MemoryStore { tags: vec!["heron".to_owned()], ..memory("", "a bird") };
    put(&store, tagged).await.unwrap();
    let weighty = MemoryStore { relevance_score: 1.0, ..memory("", "the heron number 99") };
    put(&store, weighty).await.unwrap();
    let hits = found(&store, "heron").await;
    assert_eq!(hits.len(), 27);
    assert!(hits[..2].contains(&"a bird".to_owned()), "{hits:?}");
    assert!(hits[..2].contains(&"the heron number 99".to_owned()), "{hits:?}");
    let mut paged = Vec::new();
    let mut cursor = None;
    loop {
        let filter = MemoryFilter { limit: 4, cursor, ..MemoryFilter::default() };
        let page = store.memories_search("heron".to_owned(), filter).await.unwrap();
        paged.extend(page.memories.into_iter().map(|hit| hit.memory.tiers[0].content.clone()));
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(paged, hits);
    let mut listed = Vec::new();
    loop {
        let filter = MemoryFilter { limit: 10, cursor, ..MemoryFilter::default() };
        let page = store.memories_list(filter).await.unwrap();
        listed.extend(page.memories.into_iter().map(|hit| hit.memory.id));
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(listed.len(), 28);
    assert!(listed[..27].is_sorted_by(|a, b| a > b), "the newest first");
    let filter = MemoryFilter { limit: 10, offset: 20, ..MemoryFilter::default() };
    let page = store.memories_list(filter).await.unwrap();
    assert_eq!(
        page.memories.iter().map(|hit| &hit.memory.id).collect::<Vec<_>>(),
        listed[20..].iter().collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn filters_leave_out_what_does_not_fit() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder).await;
    let one = MemoryStore {
        scope: MemoryScope::Agent,
        category: MemoryCategory::Case,
        agent_id: "evo-learning".to_owned(),
        run_id: "run-1".to_owned(),
        skill_id: "skill".to_owned(),
        tags: vec!["a, b".to_owned()],
        tiers: vec![tier("l0", "heron line"), tier("l1", "kestrel page")],
        task_id: Some("task-1".to_owned()),
        ..memory("one", "")
    };
    let nowhere = put(&store, one.clone()).await.unwrap_err();
    assert!(nowhere.to_string().starts_with("field `task_id`: there is no task"), "{nowhere}");
    store
        .write(async |connection: &Connection| {
            let sql = "INSERT INTO tasks (task_id, task_type, created_at, updated_at)
                       VALUES ('task-1', 'user', 1, 1)";
            connection.execute(sql, ()).await?;
            Ok::<_, crate::store::Error>(())
        })
        .await
        .unwrap();
    let one = put(&store, one).await.unwrap().memory_id;
    put(&store, MemoryStore { tags: vec!["a".to_owned()], ..memory("two", "heron") })
        .await
        .unwrap();
    let filters: [fn(&mut MemoryFilter); 8] = [
        |filter| filter.scope = Some(MemoryScope::Agent),
        |filter| filter.category = Some(MemoryCategory::Case),
        |filter| filter.agent_id = Some("evo-learning".to_owned()),
        |filter| filter.run_id = Some("run-1".to_owned()),
        |filter| filter.skill_id = Some("skill".to_owned()),
        |filter| filter.tag = Some("a, b".to_owned()),
        |filter| filter.tier = Some("l1".to_owned()),
        |filter| filter.task_id = Some("task-1".to_owned()),
    ];
    let ids = |page: evo_common::api::MemoryList| {
        page.memories.into_iter().map(|hit| hit.memory.id).collect::<Vec<_>>()
    };
    let mut together = all();
    for change in filters {
        let mut filter = all();
        change(&mut filter);
        change(&mut together);
        assert_eq!(ids(store.memories_list(filter.clone()).await.unwrap()), [&*one], "{filter:?}");
        let page = store.memories_search("one".to_owned(), filter.clone()).await.unwrap();
        assert_eq!(ids(page), [&*one], "{filter:?}");
        let page = store.memories_search(String::new(), filter).await.unwrap();
        assert_eq!(ids(page), [&*one]);
    }
    assert_eq!(ids(store.memories_list(together.clone()).await.unwrap()), [&*one]);
    let page = store.memories_search("kestrel".to_owned(), together.clone()).await.unwrap();
    assert_eq!(ids(page), [&*one]);
    // The line is in another tier.
    let page = store.memories_search("heron".to_owned(), together).await.unwrap();
    assert_eq!(ids(page), [""; 0]);
    for part in ["a", "b", "a, b, c"] {
        let filter = MemoryFilter { tag: Some(part.to_owned()), ..all() };
        assert!(!ids(store.memories_list(filter).await.unwrap()).contains(&one), "{part}");
    }
    let list = store.memories_list(all()).await.unwrap();
    let shown = &list.memories[1].memory;
    assert_eq!(shown.tiers.iter().map(|tier| &*tier.tier).collect::<Vec<_>>(), ["l0"]);
}

#[tokio::test]
async fn reading_changes_nothing_and_use_counts() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder).await;
    let id = put(&store, memory("k", "heron")).await.unwrap().memory_id;
    let before = show(&store, &id).await;
    store.memories_list(all()).await.unwrap();
    found(&store, "heron").await;
    assert_eq!(show(&store, &id).await, before);
    let used = vec![id.clone()];
    store
        .write(async move |connection: &Connection| {
            memories::touch(connection, Timestamp::now(), &used).await
        })
        .await
        .unwrap();
    let after = show(&store, &id).await;
    assert_eq!(after.memory.access_count, 1);
    assert!(after.last_accessed_at.is_some());
    assert_eq!(after.memory.updated_at, before.memory.updated_at);
    assert_eq!(after.version, before.version);
}

#[tokio::test]
async fn updates_replace_what_they_name_and_nothing_else() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder).await;
    let new = MemoryStore {
        metadata: json!({"a": 1}),
        tags: vec!["t".to_owned()],
        relevance_score: 0.5,
        ..memory("k", "line")
    };
    let id = put(&store, new).await.unwrap().memory_id;
    let change = |update: MemoryUpdate| {
        store.write(async move |connection: &Connection| {
            super::update(connection, Timestamp::now(), update).await
        })
    };
    let nothing = MemoryUpdate {
        memory_id: id.clone(),
        metadata: None,
        tags: None,
        relevance_score: None,
        tiers: None,
    };
    change(MemoryUpdate { tiers: Some(vec![tier("l1", "kestrel")]), ..nothing.clone() })
        .await
        .unwrap();
    let after = show(&store, &id).await;
    assert_eq!(after.memory.tiers.len(), 2);
    assert_eq!(after.memory.metadata, json!({"a": 1}));
    assert_eq!((&*after.memory.tags, after.memory.relevance_score), (&["t".to_owned()][..], 0.5));
    assert_eq!(found(&store, "kestrel").await, ["line"]);
    change(MemoryUpdate { tags: Some(Vec::new()), metadata: Some(json!({})), ..nothing.clone() })
        .await
        .unwrap();
    let after = show(&store, &id).await;
    assert_eq!((after.memory.tags.len(), after.memory.metadata), (0, json!({})));
    let missing = MemoryUpdate { memory_id: "mem-0".to_owned(), ..nothing };
    assert!(matches!(change(missing).await, Err(Error::NotFound(_))));

    let gone = id.clone();
    let forget = store.write(async move |connection: &Connection| {
        super::delete_tier(connection, Timestamp::now(), &gone, "l1").await
    });
    assert!(forget.await.unwrap());
    assert_eq!(found(&store, "kestrel").await, [""; 0]);
    let gone = id.clone();
    let forget = store.write(async move |connection: &Connection| {
        super::delete(connection, Timestamp::now(), &gone).await
    });
    forget.await.unwrap();
    assert_eq!(
        found(&store, "line").await,
        ["Evo remembers here how every operation that it tried to learn turned out."][1..]
    );
    assert_eq!(store.memories_get(&id).await.unwrap(), None);
    assert_eq!(store.memories_stats().await.unwrap()["system"], 1);
}

#[tokio::test]
async fn secrets_are_taken_out_before_anything_is_stored() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder).await;
    let secret = "sk-abcdefghijklmnop1234";
    let new = MemoryStore {
        metadata: json!({"note": format!("key {secret}"), "password": "swordfish"}),
        tags: vec![secret.to_owned()],
        tiers: vec![tier("l0", &format!("Use {secret}"))],
        ..memory(secret, "")
    };
    let id = put(&store, new).await.unwrap().memory_id;
    let kept = show(&store, &id).await;
    let text = serde_json::to_string(&kept).unwrap();
    assert!(!text.contains("abcdefghijklmnop") && !text.contains("swordfish"), "{text}");
    assert_eq!(found(&store, "abcdefghijklmnop1234").await, [""; 0]);
}

#[tokio::test]
async fn what_is_too_large_or_wrong_is_refused_by_name() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder).await;
    let ok = || memory("k", "line");
    let long = |length: usize| "x".repeat(length);
    for (wrong, field) in [
        (MemoryStore { key: long(513), ..ok() }, "key"),
        (MemoryStore { key: "a\nb".to_owned(), ..ok() }, "key"),
        (MemoryStore { agent_id: long(129), ..ok() }, "agent_id"),
        (MemoryStore { task_id: Some(long(129)), ..ok() }, "task_id"),
        (MemoryStore { relevance_score: 1.1, ..ok() }, "relevance_score"),
        (MemoryStore { relevance_score: f64::NAN, ..ok() }, "relevance_score"),
        (MemoryStore { tags: vec!["a".to_owned(); 51], ..ok() }, "tags"),
        (MemoryStore { tags: vec!["a".to_owned(), " ".to_owned()], ..ok() }, "tags[1]"),
        (MemoryStore { metadata: json!({"a": long(40_000)}), ..ok() }, "metadata"),
        (MemoryStore { metadata: json!([1]), ..ok() }, "metadata"),
        (MemoryStore { tiers: vec![tier("l3", "")], ..ok() }, "tiers[0].tier"),
        (MemoryStore { tiers: vec![tier("l0", ""), tier("l0", "")], ..ok() }, "tiers[1].tier"),
        (MemoryStore { tiers: vec![tier("l0", &long(4_097))], ..ok() }, "tiers[0].content"),
    ] {
        assert_eq!(refused(&store, wrong).await, field);
    }
    let text = MemoryStore { metadata: Value::String(r#"{"a": 1}"#.to_owned()), ..ok() };
    let id = put(&store, text).await.unwrap().memory_id;
    let kept = show(&store, &id).await;
    assert_eq!(kept.memory.metadata, json!({"a": 1}));
}

/// As clients store: within the bounds.
async fn put_within(
    store: &Store,
    keep: &crate::config::Retention,
    memory: MemoryStore,
) -> Result<memories::Stored, Error> {
    let keep = keep.clone();
    store
        .write(async move |connection: &Connection| {
            let now = Timestamp::now();
            super::bounds::make_room(connection, now, &keep, &memory).await?;
            super::store(connection, now, memory).await
        })
        .await
}

#[tokio::test]
async fn there_are_no_more_memories_than_there_may_be_and_the_useful_ones_stay() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder).await;
    let mut keep = crate::config::Retention { memories_scope_rows: 4, ..Default::default() };
    let pinned = MemoryStore { metadata: json!({"pinned": true}), ..memory("pinned", "a") };
    put_within(&store, &keep, pinned).await.unwrap();
    let used = put_within(&store, &keep, memory("used", "b")).await.unwrap().memory_id;
    let touched = used.clone();
    let touch = async move |connection: &Connection| {
        memories::touch(connection, Timestamp::now(), &[touched]).await
    };
    store.write(touch).await.unwrap();
    for line in ["c", "d", "e"] {
        put_within(&store, &keep, memory(line, line)).await.unwrap();
    }
    let keys = async || {
        let page = store.memories_list(all()).await.unwrap();
        let mut keys: Vec<_> = page.memories.into_iter().map(|hit| hit.memory.key).collect();
        keys.sort_unstable();
        keys
    };
    // King's own first memory and the first that nobody has used are gone.
    assert_eq!(keys().await, ["d", "e", "pinned", "used"]);
    assert_eq!(found(&store, "c").await, Vec::<String>::new());
    assert_eq!(found(&store, "e").await, ["e"]);

    keep.memories_when_full = crate::config::WhenFull::Refuse;
    let full = put_within(&store, &keep, memory("f", "f")).await.unwrap_err();
    assert!(matches!(full, Error::Full { scope: Some("system"), most: 4 }), "{full:?}");
    assert!(full.to_string().contains("retention.memories_scope_rows"), "{full}");
    put_within(&store, &keep, memory("e", "again")).await.unwrap();
    let other = MemoryStore { scope: MemoryScope::Skill, ..memory("other", "g") };
    put_within(&store, &keep, other).await.unwrap();

    // What is too much at once goes in small parts, and what is pinned stays.
    let bound = super::bounds::Bound { scope: None, most: 1 };
    let sweep = async move |connection: &Connection| {
        super::bounds::sweep(connection, Timestamp::now(), bound).await
    };
    assert_eq!(store.write(sweep).await.unwrap(), 4);
    assert_eq!(store.write(sweep).await.unwrap(), 0);
    assert_eq!(keys().await, ["pinned"]);
    keep.memories_when_full = crate::config::WhenFull::Evict;
    keep.memories_rows = 1;
    let full = put_within(&store, &keep, memory("h", "h")).await.unwrap_err();
    assert!(matches!(full, Error::Full { scope: None, most: 1 }), "{full:?}");
}
