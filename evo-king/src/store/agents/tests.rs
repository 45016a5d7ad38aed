//! What becomes of an agent's row and its history.

use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::store::{Database, agent_history::HistoryFilter};

async fn open(folder: &TempDir) -> Store {
    Store::open(Database::File(folder.path().join("king.db"))).await.unwrap()
}

fn agent(session: &str) -> AgentRegistration {
    let agent = json!({
        "agent_id": "a", "role": "building", "capabilities": ["build"], "skills": ["s"],
        "session_id": session, "pid": 7, "version": "1.0", "soul_content": "the soul",
        "binary_path": "/bin/a", "strange": {"deep": [1]},
    });
    serde_json::from_value(agent).unwrap()
}

async fn say(store: &Store, now: i64, what: &str) {
    let what = what.to_owned();
    store
        .write(async move |connection: &Connection| {
            let now = Timestamp(now);
            match what.split_once(' ') {
                Some(("register", session)) => register(connection, now, &agent(session), 2).await,
                Some(("status", status)) => heard_of(connection, now, "a", status).await,
                _ if what == "gone" => offline(connection, now, "a").await,
                _ if what == "lost" => lost_attempt(connection, now, "a").await,
                _ if what == "king" => all_offline(connection, now).await,
                _ => crashed(connection, now, "a", &what).await.map(drop),
            }
        })
        .await
        .unwrap();
}

async fn shown(store: &Store, silent_since: i64) -> AgentView {
    store.agents_get("a", Timestamp(silent_since)).await.unwrap().unwrap()
}

async fn history(store: &Store) -> Vec<String> {
    let filter = HistoryFilter { agent_id: "a".to_owned(), cursor: None, limit: 500, offset: 0 };
    let mut history = store.agents_history(filter).await.unwrap().history;
    history.reverse();
    history
        .into_iter()
        .map(|change| {
            let before = change.prev_status.unwrap_or_default();
            format!("{}: {before}>{}", change.trigger, change.new_status)
        })
        .collect()
}

#[tokio::test]
async fn every_change_is_in_the_history_and_nothing_else() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder).await;
    for (now, what) in [
        (1, "register s1"),
        (2, "status ready"),
        (3, "status busy"),
        (4, "status busy"),
        (5, "gone"),
        (6, "register s1"),
        (7, "status shutting"),
        (8, "gone"),
        (9, "king"),
    ] {
        say(&store, now, what).await;
    }
    assert_eq!(
        history(&store).await,
        [
            "register: >ready",
            "heartbeat: ready>busy",
            "disconnect: busy>offline",
            "register: offline>ready",
            "heartbeat: ready>shutting",
            "disconnect: shutting>offline",
        ]
    );
    let agent = shown(&store, 0).await;
    assert_eq!((agent.crash_count, agent.registration_count), (0, 2));
    assert_eq!(agent.last_heartbeat, Timestamp(7).to_rfc3339(), "being gone is no heartbeat");
    assert_eq!(agent.extra["strange"], json!({"deep": [1]}));
    assert_eq!(agent.soul_content.as_deref(), Some("the soul"));
}

#[tokio::test]
async fn what_is_left_out_of_a_registration_stays() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder).await;
    say(&store, 1, "register s1").await;
    let bare = AgentRegistration {
        register: evo_common::messages::AgentRegister {
            capabilities: Vec::new(),
            ..agent("s1").register
        },
        skills: Vec::new(),
        soul_content: None,
        version: None,
        binary_path: None,
        pid: None,
        ..agent("s1")
    };
    store
        .write(async move |connection: &Connection| {
            register(connection, Timestamp(2), &bare, 2).await
        })
        .await
        .unwrap();
    let agent = shown(&store, 0).await;
    assert_eq!(
        (&*agent.capabilities, &*agent.skills),
        (&["build".to_owned()][..], &["s".to_owned()][..])
    );
    assert_eq!((agent.version.as_deref(), agent.pid), (Some("1.0"), Some(7)));
    assert_eq!(agent.soul_content.as_deref(), Some("the soul"));
}

#[tokio::test]
async fn who_is_silent_counts_as_offline() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder).await;
    say(&store, 10, "register s1").await;
    assert_eq!(shown(&store, 10).await.status, "ready");
    assert_eq!(shown(&store, 11).await.status, "offline");
    say(&store, 12, "broken").await;
    assert_eq!(shown(&store, 99).await.status, "crashed");
}

#[tokio::test]
async fn a_crash_is_counted_once() {
    for (story, crashes) in [
        // Another process without a goodbye of the first.
        (&["register s1", "register s2"][..], 1),
        (&["register s1", "gone", "register s2"], 1),
        (&["register s1", "gone", "register s2", "gone", "register s3"], 2),
        // With a goodbye, or the same process.
        (&["register s1", "status shutting", "gone", "register s2"], 0),
        (&["register s1", "gone", "register s1"], 0),
        // Work that was in hand is given up while the agent is away.
        (&["register s1", "gone", "lost"], 1),
        (&["register s1", "gone", "lost", "lost", "register s2"], 1),
        (&["register s1", "lost"], 0),
        (&["register s1", "status shutting", "gone", "lost"], 0),
        // The supervisor saw it first.
        (&["register s1", "exit status 101", "gone", "register s2"], 1),
        // Nobody knows what happened while king was away.
        (&["register s1", "king", "register s2"], 0),
        (&["register s1", "king", "register s1", "gone", "register s2"], 1),
    ] {
        let folder = TempDir::new().unwrap();
        let store = open(&folder).await;
        for (now, what) in (1..).zip(story) {
            say(&store, now, what).await;
        }
        let agent = shown(&store, 0).await;
        assert_eq!(agent.crash_count, crashes, "{story:?}");
        let told = history(&store).await.iter().filter(|line| line.starts_with("crash")).count();
        assert_eq!(told as u64, crashes, "{story:?}");
    }
}

#[tokio::test]
async fn the_history_is_paged_and_bounded() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder).await;
    say(&store, 1, "register s1").await;
    store
        .write(async |connection: &Connection| {
            for now in 0..1_200 {
                let status = if now % 2 == 0 { "busy" } else { "ready" };
                heard_of(connection, Timestamp(now), "a", status).await?;
            }
            Ok::<_, crate::store::Error>(())
        })
        .await
        .unwrap();
    let page = |cursor, offset| {
        let filter = HistoryFilter { agent_id: "a".to_owned(), cursor, limit: 400, offset };
        store.agents_history(filter)
    };
    let mut ids = Vec::new();
    let mut cursor = None;
    loop {
        let page = page(cursor, 0).await.unwrap();
        ids.extend(page.history.iter().map(|change| change.id));
        match page.next_cursor {
            Some(next) => cursor = Some(next.parse().unwrap()),
            None => break,
        }
    }
    assert_eq!(ids.len(), 1_000);
    assert!(ids.is_sorted_by(|a, b| a > b));
    assert_eq!(page(None, 990).await.unwrap().count, 10);
}

#[tokio::test]
async fn a_chosen_model_outlives_registrations() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder).await;
    say(&store, 1, "register s1").await;
    let choice =
        ModelPreference { model: "m".to_owned(), reasoning_effort: Some("low".to_owned()) };
    let set = |agent_id: &'static str, choice: Option<ModelPreference>| {
        store.write(async move |connection: &Connection| {
            set_model(connection, agent_id, choice.as_ref()).await
        })
    };
    assert!(set("a", Some(choice.clone())).await.unwrap());
    assert!(!set("b", Some(choice.clone())).await.unwrap());
    say(&store, 2, "register s1").await;
    assert_eq!(store.agents_models().await.unwrap(), [("a".to_owned(), choice)]);
    assert!(set("a", None).await.unwrap());
    assert_eq!(store.agents_models().await.unwrap(), []);
}
