use std::{fs, net::SocketAddr};

use evo_common::{
    api::{RunKind, StartRun},
    ids::RunId,
    tokens::Tokens,
};
use serde_json::json;

use super::*;
use crate::store::{events, row};

const DAY: u64 = 24 * 3_600_000;

struct Server {
    king: King,
    folder: tempfile::TempDir,
}

impl Server {
    async fn start() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::new(folder.path(), Tokens::generate());
        change(&mut config);
        config.logs = Some(folder.path().join("logs"));
        let address = SocketAddr::from(([127, 0, 0, 1], 3000));
        let king = King::open(config, address, Shutdown::new()).await.unwrap();
        Self { king, folder }
    }

    async fn metrics(&self) -> String {
        let king = &self.king;
        let now = king.store.on_the_way().await.unwrap();
        king.metrics.text(&now, &king.registry, king.started_at, 0)
    }

    async fn count(&self, table: &'static str) -> i64 {
        let sql = format!("SELECT COUNT(*) FROM {table}");
        let read = async move |connection: &Connection| row::number(connection, &sql, ()).await;
        self.king.store.read(read).await.unwrap()
    }

    async fn execute(&self, sql: &'static str) {
        let work = async move |connection: &Connection| {
            connection.execute_batch(sql).await?;
            Ok::<_, store::Error>(())
        };
        self.king.store.write(work).await.unwrap();
    }

    async fn run(&self) -> RunId {
        let request = StartRun { kind: RunKind::Direct, ..StartRun::default() };
        let started = self.king.pipeline.start(request).await.unwrap();
        RunId::parse(started.run_id.clone()).unwrap()
    }

    async fn append(&self, count: usize) {
        let work = async move |connection: &Connection| {
            for _ in 0..count {
                let now = Timestamp::now();
                events::append(connection, now, "test", None, None, &json!({})).await?;
            }
            Ok::<_, store::Error>(())
        };
        self.king.store.write(work).await.unwrap();
    }

    async fn sweep_in(&self, days: u64) -> BTreeMap<&'static str, u64> {
        sweep(&self.king, Timestamp::now().plus_ms(days * DAY)).await.unwrap()
    }
}

#[tokio::test]
async fn what_is_young_stays_and_what_is_old_goes() {
    let server = Server::start().await;
    server
        .execute(
            "INSERT INTO audit (at, token_id, token_name, scope, action, target, status, remote, request_id)
                 VALUES (unixepoch() * 1000, 't', 't', 's', 'a', 't', 200, 'r', 'q');
             INSERT INTO agent_history (agent_id, new_status, trigger, detail, created_at)
                 VALUES ('a', 'ready', 't', '', unixepoch() * 1000);
             INSERT INTO socket_events (at, direction, event_name, socket_id, payload)
                 VALUES (unixepoch() * 1000, 'inbound', 'x', 's', '{}');",
        )
        .await;
    assert_eq!(server.sweep_in(0).await, BTreeMap::new());
    assert_eq!(server.sweep_in(8).await, BTreeMap::from([("socket_events", 1)]));
    assert_eq!(server.sweep_in(31).await, BTreeMap::from([("agent_history", 1)]));
    assert_eq!(server.sweep_in(400).await, BTreeMap::from([("audit", 1)]));
    assert_eq!(server.count("memories").await, 1, "they are kept unless somebody says otherwise");
}

#[tokio::test]
async fn runs_that_have_ended_go_with_their_rows_and_open_ones_stay() {
    let server = Server::start().await;
    let (ended, open) = (server.run().await, server.run().await);
    server.king.pipeline.cancel(&ended).await.unwrap();
    assert_eq!(server.sweep_in(1).await, BTreeMap::new());
    let gone = server.sweep_in(100).await;
    assert_eq!(gone["runs"], 1, "{gone:?}");
    assert_eq!(server.count("runs").await, 1);
    assert!(server.king.store.runs_get(&open).await.unwrap().is_some());
    server.king.pipeline.cancel(&open).await.unwrap();
    server.sweep_in(100).await;
    for table in ["runs", "stages", "attempts", "timers"] {
        assert_eq!(server.count(table).await, 0, "{table}");
    }
}

#[tokio::test]
async fn events_go_from_the_oldest_on_but_not_those_of_open_runs_nor_the_newest() {
    let server = Server::start().await;
    server.append(2_000).await;
    let open = server.run().await;
    server.append(2_000).await;
    let gone = server.sweep_in(100).await;
    assert_eq!(gone["events"], 2_000, "{gone:?}");
    server.king.pipeline.cancel(&open).await.unwrap();
    let all = server.count("events").await;
    let gone = server.sweep_in(100).await;
    assert_eq!(i64::try_from(gone["events"]).unwrap(), all - 1_000, "{gone:?}");
    assert_eq!(server.count("events").await, 1_000);
}

#[tokio::test]
async fn packages_and_log_files_that_nobody_needs_go() {
    let server = Server::start().await;
    let archive = evo_common::artifact::pack(&[("a".to_owned(), b"x".to_vec())].into()).unwrap().1;
    let id = server.king.artifacts.put(archive.clone().into()).await.unwrap();
    let logs = server.folder.path().join("logs");
    fs::create_dir(&logs).unwrap();
    for name in ["evo.2020-01-01.log", "evo.9999-01-01.log", "notes.txt", "evo.log"] {
        fs::write(logs.join(name), "").unwrap();
    }
    let gone = server.sweep_in(0).await;
    assert_eq!(gone, BTreeMap::from([("log_files", 1)]));
    let gone = server.sweep_in(8).await;
    assert_eq!(gone, BTreeMap::from([("artifacts", 1)]));
    assert!(!server.king.artifacts.exists(&id).await.unwrap());
    let always = evo_common::ids::ArtifactId::parse(crate::artifacts::EMPTY_ARCHIVE).unwrap();
    assert!(server.king.artifacts.exists(&always).await.unwrap());
    assert_eq!(fs::read_dir(&logs).unwrap().count(), 3);

    server.king.artifacts.put(archive.into()).await.unwrap();
    let run = server.run().await;
    let (run, package) = (run.as_str().to_owned(), id.to_string());
    let refer = async move |connection: &Connection| {
        let sql = "UPDATE runs SET artifact_id = ? WHERE run_id = ?";
        connection.execute(sql, [package, run]).await?;
        Ok::<_, store::Error>(())
    };
    server.king.store.write(refer).await.unwrap();
    assert_eq!(server.sweep_in(8).await, BTreeMap::new());
    assert!(server.king.artifacts.exists(&id).await.unwrap());
}

#[tokio::test]
async fn agents_of_whom_nothing_is_wanted_go_and_the_tokens_that_they_had() {
    use evo_common::api::CreateToken;
    let server = Server::start().await;
    let king = &server.king;
    let wanted = CreateToken {
        name: "ci".to_owned(),
        scope: "runner".to_owned(),
        roles: Vec::new(),
        expires_in_days: None,
    };
    let token = king.keyring.create(wanted.clone(), "test").await.unwrap().token;
    let identity = king.keyring.identify(Some(&token)).unwrap();
    assert!(king.keyring.claim(&identity, "mine").await.unwrap());
    for agent_id in ["gone", "mine", "chosen", "waited-for"] {
        let agent = json!({"agent_id": agent_id, "role": "user", "capabilities": []});
        king.pipeline.register(serde_json::from_value(agent).unwrap(), 1).await.unwrap();
    }
    server
        .execute(
            "UPDATE agents SET preferred_model = 'm' WHERE agent_id = 'chosen';
             INSERT INTO tasks (task_id, task_type, wanted, phase, status, created_at, updated_at)
                 VALUES ('task-w', 't', 'waited-for', 'waiting', 'pending', 0, 0);",
        )
        .await;
    king.keyring.revoke("ci").await.unwrap();
    assert_eq!(server.sweep_in(0).await, BTreeMap::new());
    // A revoked token stays as long as an agent's name is its own.
    let early = king.keyring.forget(Timestamp::now().plus_ms(100 * DAY)).await.unwrap();
    assert_eq!((early, king.keyring.list().len()), (0, 1));
    let gone = server.sweep_in(91).await;
    assert_eq!((gone["agents"], gone["tokens"]), (2, 1), "{gone:?}");
    assert_eq!(server.count("agents").await, 2);
    for table in ["agent_owners", "tokens"] {
        assert_eq!(server.count(table).await, 0, "{table}");
    }
    assert_eq!(king.keyring.list(), []);
    // What is valid stays, however old.
    king.keyring.create(wanted, "test").await.unwrap();
    server.sweep_in(1_000).await;
    assert_eq!(king.keyring.list().len(), 1);
}

#[tokio::test]
async fn tasks_that_people_never_ended_go_when_they_are_old() {
    let server = Server::start().await;
    server
        .execute(
            "INSERT INTO tasks (task_id, parent_id, task_type, phase, status, created_at, updated_at)
             VALUES
                 ('task-000000000001', NULL, 't', 'by_hand', 'pending', 1, 1),
                 ('task-000000000002', NULL, 't', 'by_hand', 'in_progress', 1, 1),
                 ('task-000000000003', NULL, 't', 'split', 'decomposed', 1, 1),
                 ('task-000000000004', 'task-000000000003', 't', 'by_hand', 'pending', 1, 1),
                 ('task-000000000005', NULL, 't', 'by_hand', 'pending', 1, unixepoch() * 1000);",
        )
        .await;
    let gone = server.sweep_in(0).await;
    assert_eq!(gone, BTreeMap::from([("tasks", 2)]));
    assert_eq!(server.count("tasks").await, 3);
}

#[tokio::test]
async fn it_is_told_when_an_open_run_keeps_more_events_than_there_should_be() {
    let server = Server::with(|config| config.retention.events_rows = 1_500).await;
    let open = server.run().await;
    server.append(2_000).await;
    server.sweep_in(0).await;
    let over = async || {
        let read = async |connection: &Connection| tables::events_over(connection, 1_500).await;
        server.king.store.read(read).await.unwrap()
    };
    let (count, run_id) = over().await.unwrap();
    assert_eq!(run_id, open.as_str());
    let all = server.count("events").await;
    assert_eq!(i64::try_from(count).unwrap(), all - 1_500);
    let text = server.metrics().await;
    assert!(text.contains(&format!("evo_king_events_over_limit {count}\n")), "{text}");
    server.king.pipeline.cancel(&open).await.unwrap();
    server.sweep_in(0).await;
    assert_eq!(over().await, None);
    assert_eq!(server.count("events").await, 1_500);
    assert!(server.metrics().await.contains("evo_king_events_over_limit 0\n"));
}

/// Requests that are over go with all that belongs to them; open ones stay, and so does what a person
/// has said no to and failing calls would ask for again.
#[tokio::test]
async fn requests_that_are_over_go_when_they_are_old() {
    let server = Server::start().await;
    for (name, kind, origin, status) in [
        ("open", "new", "person", "open"),
        ("answered", "new", "person", "answered"),
        ("rejected", "repair", "telemetry", "rejected"),
        ("taken-back", "new", "person", "cancelled"),
        ("unwanted", "repair", "telemetry", "cancelled"),
    ] {
        let work = async move |connection: &Connection| {
            let now = Timestamp::now();
            let id = format!("req-{:012x}-{name}", now.0);
            let sql = format!(
                "INSERT INTO requests (request_id, kind, origin, text, same, rank, status, created_at, updated_at)
                     VALUES ('{id}', '{kind}', '{origin}', 'x', '{name}', 1, '{status}', {at}, {at});
                 INSERT INTO request_examples VALUES ('{id}', 'c', 'train', '{{}}');
                 INSERT INTO request_keys VALUES ('{name}', 'd', '{id}', 1, NULL);
                 INSERT INTO request_runs VALUES ('run-{name}', '{id}', 'n', 'ended', NULL, NULL, NULL, {at});
                 INSERT INTO request_history (request_id, at, action) VALUES ('{id}', {at}, 'opened');
                 INSERT INTO failure_clusters VALUES ('{name}', 's', NULL, 'c', 'e', 'x', 1, 1, '[]', '{id}', {at}, {at});",
                at = now.0
            );
            connection.execute_batch(&sql).await?;
            Ok::<_, store::Error>(())
        };
        server.king.store.write(work).await.unwrap();
    }
    assert_eq!(server.sweep_in(170).await.get("requests"), None);
    assert_eq!(server.sweep_in(190).await.get("requests"), Some(&3));
    for table in ["requests", "request_examples", "request_keys", "request_runs", "request_history"]
    {
        assert_eq!(server.count(table).await, 2, "{table}");
    }
    assert_eq!(server.count("failure_clusters").await, 5, "what failed is still counted");
    assert_eq!(server.count("failure_clusters WHERE request_id IS NULL").await, 3);
    assert_eq!(server.count("requests WHERE status = 'open' OR same = 'unwanted'").await, 2);
}
