//! Who gets in, what one client may take, and what is written down about it.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use evo_common::king_socket::Incoming;
use evo_harness::{Evo, King, Process, eventually};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{audit::connect, evo};

const MINUTE: Duration = Duration::from_secs(60);

/// A king of its own, and where it listens.
pub(crate) fn king(evo: &Evo, settings: &str) -> (Process, String) {
    evo.file("data/config/king.toml", settings);
    let mut process = evo.start(&["king", "--port", "0"]);
    let lock = evo.data().join("king.lock");
    let url = eventually("king listens", MINUTE, || {
        assert!(process.exited().is_none(), "{}", process.stderr());
        let text = std::fs::read_to_string(&lock).ok()?;
        text.lines().nth(1).map(str::to_owned)
    });
    (process, url)
}

fn token(evo: &Evo, args: &[&str]) -> Value {
    let args: Vec<&str> =
        ["king", "token"].iter().chain(args).chain(&["--json"]).copied().collect();
    evo.run(&args).expect_code(0).json()
}

#[tokio::test]
async fn a_token_is_created_used_and_revoked_while_king_runs_and_while_it_does_not() {
    let evo = evo();
    // Without a king the command opens the folder itself.
    let early = token(&evo, &["create", "--name", "early", "--scope", "viewer"]);
    let (_running, url) = king(&evo, "");
    let early = King::new(&url, early["token"].as_str().unwrap());
    early.get("/agents").await;

    let created = token(&evo, &["create", "--name", "ci", "--scope", "runner", "--roles", "user"]);
    let secret = created["token"].as_str().unwrap().to_owned();
    let ci = King::new(&url, &secret);
    ci.get("/agents").await;
    let (status, answer) = ci.send(Method::POST, "/pipeline/start", Some(&json!({}))).await;
    assert_eq!((status, &answer["error"]["code"]), (StatusCode::FORBIDDEN, &json!("forbidden")));

    let list = evo.run(&["king", "token", "list", "--json"]).expect_code(0);
    assert!(!list.stdout.contains(&secret), "a list shows a token");
    assert_eq!(list.json()["count"], 2);
    let database = std::fs::read(evo.data().join("king.db-wal")).unwrap_or_default();
    let found = database.windows(secret.len()).any(|window| window == secret.as_bytes());
    assert!(!found, "the database holds the token itself");

    evo.run(&["king", "token", "create", "--name", "ci", "--scope", "viewer"])
        .expect_code(1)
        .says(&["ci", "revoke"]);
    evo.run(&["king", "token", "create", "--name", "x", "--scope", "root"])
        .expect_code(1)
        .says(&["scope", "operator, viewer, runner"]);
    evo.run(&["king", "token", "revoke", "nobody"]).expect_code(1).says(&["nobody"]);
    assert_eq!(token(&evo, &["revoke", "ci"])["status"], "revoked");
    let (status, answer) = ci.send(Method::GET, "/agents", None).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED, "{answer}");
    early.get("/agents").await;
    // The name is free again.
    token(&evo, &["create", "--name", "ci", "--scope", "viewer", "--expires-in-days", "1"]);
}

#[tokio::test]
async fn whatever_changes_something_is_in_the_audit_log() {
    let evo = evo();
    let (_running, url) = king(&evo, "");
    let operator = King::new(&url, &evo.token("operator"));
    let viewer = King::new(&url, &evo.token("viewer"));
    operator.get("/agents").await;
    operator.send(Method::POST, "/pipeline/start", Some(&json!({"trigger": "a secret"}))).await;
    viewer.send(Method::POST, "/pipeline/start", Some(&json!({}))).await;
    operator.send(Method::DELETE, "/pipeline/runs/run-none", None).await;
    // A stranger can't fill it.
    King::new(&url, "").send(Method::POST, "/pipeline/start", Some(&json!({}))).await;

    let entries = operator.list("/audit", "entries").await;
    let seen: Vec<_> = entries
        .iter()
        .rev()
        .map(|entry| {
            let text = |name: &str| entry[name].as_str().unwrap().to_owned();
            assert!(text("remote").starts_with("127.0.0.1:"), "{entry}");
            assert!(text("request_id").starts_with("req-"), "{entry}");
            (text("token_id"), text("action"), text("target"), entry["status"].as_u64().unwrap())
        })
        .collect();
    let entry = |token: &str, action: &str, target: &str, status| {
        (token.to_owned(), action.to_owned(), target.to_owned(), status)
    };
    assert_eq!(
        seen,
        [
            entry("file:operator", "POST /pipeline/start", "/pipeline/start", 201),
            entry("file:viewer", "POST /pipeline/start", "/pipeline/start", 403),
            entry(
                "file:operator",
                "DELETE /pipeline/runs/{run_id}",
                "/pipeline/runs/run-none",
                404
            ),
        ]
    );
    let (status, _) = viewer.send(Method::GET, "/audit", None).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(!entries.iter().any(|entry| entry.to_string().contains("a secret")));
}

/// Sends bytes as they are; the status line of the answer.
fn raw(url: &str, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(url.trim_start_matches("http://")).unwrap();
    stream.set_read_timeout(Some(MINUTE)).unwrap();
    stream.write_all(request).unwrap();
    let mut answer = [0; 32];
    let length = stream.read(&mut answer).unwrap();
    let text = String::from_utf8_lossy(&answer[..length]).into_owned();
    text.lines().next().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_request_may_have_so_much_head_body_and_depth() {
    let evo = evo();
    let (_running, url) = king(&evo, "");
    let head = |headers: &str| {
        raw(&url, format!("GET /health HTTP/1.1\r\nhost: 127.0.0.1\r\n{headers}\r\n").as_bytes())
    };
    assert!(head("").contains("200"));
    let long = head(&format!("x-long: {}\r\n", "a".repeat(300_000)));
    assert!(long.contains("431"), "{long}");
    assert!(head(&"x-many: 1\r\n".repeat(150)).contains("431"));

    let operator = King::new(&url, &evo.token("operator"));
    let deep = |levels: usize| {
        let nested = (0..levels).fold(json!(1), |inner, _| json!([inner]));
        json!({ "trigger": nested })
    };
    let (status, _) = operator.send(Method::POST, "/pipeline/start", Some(&deep(50))).await;
    assert_eq!(status, StatusCode::CREATED);
    let (status, answer) = operator.send(Method::POST, "/pipeline/start", Some(&deep(200))).await;
    assert_eq!(
        (status, &answer["error"]["code"]),
        (StatusCode::BAD_REQUEST, &json!("invalid_json"))
    );
    let large = json!({ "trigger": "a".repeat(2 * 1024 * 1024) });
    let (status, answer) = operator.send(Method::POST, "/pipeline/start", Some(&large)).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE, "{answer}");
}

#[test]
fn more_connections_than_allowed_are_told_to_come_back() {
    let evo = evo();
    let (_running, url) = king(&evo, "[limits]\nconnections = 2\n");
    let request = b"GET /health HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n";
    let address = url.trim_start_matches("http://").to_owned();
    let held: Vec<TcpStream> = (0..2)
        .map(|_| {
            let mut stream = TcpStream::connect(&address).unwrap();
            stream.write_all(request).unwrap();
            stream.read_exact(&mut [0; 12]).unwrap();
            stream
        })
        .collect();
    assert!(raw(&url, request).contains("503"));
    drop(held);
    eventually("a place is free again", MINUTE, || {
        raw(&url, request).contains("200").then_some(())
    });
}

#[tokio::test]
async fn pages_of_listed_origins_only_may_read_answers() {
    let evo = evo();
    let (_running, url) = king(&evo, "cors_origins = [\"https://app.example\"]\n");
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    for (origin, allowed) in [("https://app.example", true), ("https://evil.example", false)] {
        let preflight = client
            .request(Method::OPTIONS, format!("{url}/agents"))
            .header("origin", origin)
            .header("access-control-request-method", "GET")
            .header("access-control-request-headers", "authorization")
            .send()
            .await
            .unwrap();
        let header = preflight.headers().get("access-control-allow-origin");
        assert_eq!(header.map(|value| value == origin), allowed.then_some(true), "{origin}");
    }
    evo.file("wrong/config/king.toml", "cors_origins = [\"*\"]\n");
    evo.run(&["king", "--data", evo.folder().join("wrong").to_str().unwrap(), "--port", "0"])
        .expect_code(2)
        .says(&["cors_origins", "https://dashboard.example"]);
}

#[tokio::test]
async fn what_a_token_has_opened_ends_when_it_is_revoked() {
    let evo = evo();
    let (_running, url) = king(&evo, "");
    let created = token(&evo, &["create", "--name", "guest", "--scope", "viewer"]);
    let secret = created["token"].as_str().unwrap();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let open = async |token: &str| {
        let request = client.get(format!("{url}/events/stream")).bearer_auth(token);
        let stream = request.send().await.unwrap();
        assert_eq!(stream.status(), StatusCode::OK);
        stream
    };
    let mut stream = open(secret).await;
    let mut kept = open(&evo.token("viewer")).await;
    let mut socket = connect(&url, secret).await;

    assert_eq!(token(&evo, &["revoke", "guest"])["status"], "revoked");
    let ended = async {
        while stream.chunk().await.unwrap().is_some() {}
        while !matches!(socket.next().await, Incoming::Broken(_)) {}
    };
    tokio::time::timeout(MINUTE, ended).await.unwrap();
    // Whoever has another token hears on.
    let operator = King::new(&url, &evo.token("operator"));
    operator.send(Method::POST, "/pipeline/start", Some(&json!({}))).await;
    assert!(tokio::time::timeout(MINUTE, kept.chunk()).await.unwrap().unwrap().is_some());
}
