//! What operators do with a king: end it, back it up, restore it, look whether it is sound.

use std::{
    io::Write as _,
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt as _,
    time::{Duration, SystemTime},
};

use evo_harness::{Evo, King, Process, eventually};
use nix::sys::signal::Signal;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::evo;

const MINUTE: Duration = Duration::from_secs(60);

/// A king of its own, and where it listens.
fn king(evo: &Evo, settings: &str, sources: &str) -> (Process, String) {
    evo.file("data/config/king.toml", settings);
    evo.file("data/config/sources.toml", sources);
    let mut process = evo.start(&["king", "--port", "0"]);
    let lock = evo.data().join("king.lock");
    let pid = process.pid().to_string();
    let url = eventually("king listens", MINUTE, || {
        assert!(process.exited().is_none(), "{}", process.stderr());
        let text = std::fs::read_to_string(&lock).ok()?;
        let mut lines = text.lines();
        (lines.next()? == pid).then_some(())?;
        lines.next().map(str::to_owned)
    });
    (process, url)
}

/// A king whose learning runner has an attempt in hand that does not end.
struct Busy {
    process: Process,
    url: String,
    _runner: Process,
    /// The source that never answers.
    _silent: TcpListener,
}

async fn busy_king(evo: &Evo, settings: &str) -> Busy {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let origin = format!("http://{}", silent.local_addr().unwrap());
    let sources = format!(
        "[[sources]]\nname = \"silent\"\nkind = \"openapi\"\nlocation = \"{origin}/x.json\"\nallow_origins = [\"{origin}\"]\n"
    );
    let (process, url) = king(evo, settings, &sources);
    evo.file("learner/soul.md", "## Role\nlearning\n");
    let folder = evo.folder().join("learner");
    let args = ["runner", folder.to_str().unwrap(), "--king", &url];
    let mut command = evo.command(&args);
    command.env("EVO_TOKEN_RUNNER", evo.token("runner"));
    let runner = Process::start(command);
    let operator = King::new(&url, &evo.token("operator"));
    let (status, _) = operator.send(Method::POST, "/pipeline/start", Some(&json!({}))).await;
    assert_eq!(status, StatusCode::CREATED);
    let given_out = async {
        while operator.get("/events?kind=stage.dispatched").await["count"] == 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(MINUTE, given_out).await.expect("the work is given out");
    Busy { process, url, _runner: runner, _silent: silent }
}

async fn status_of(url: &str, path: &str) -> (StatusCode, Value) {
    King::new(url, "").send(Method::GET, path, None).await
}

/// Waits until king says that it ends.
async fn drains(url: &str) {
    let draining = async {
        while status_of(url, "/health").await.0 != StatusCode::SERVICE_UNAVAILABLE {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(MINUTE, draining).await.expect("king drains");
}

#[tokio::test]
async fn a_king_that_ends_begins_nothing_and_a_second_signal_ends_it_at_once() {
    for (signal, code) in [(Signal::SIGINT, 130), (Signal::SIGTERM, 143)] {
        let evo = evo();
        let mut busy = busy_king(&evo, "drain_grace_ms = 600000\n").await;
        assert_eq!(status_of(&busy.url, "/ready").await.0, StatusCode::OK);
        busy.process.signal(Signal::SIGTERM);
        drains(&busy.url).await;
        for path in ["/health", "/ready"] {
            let (status, body) = status_of(&busy.url, path).await;
            assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
            assert_eq!(
                (&body["status"], &body["service"]),
                (&json!("draining"), &json!("evo-king"))
            );
        }
        let operator = King::new(&busy.url, &evo.token("operator"));
        let start = operator.send(Method::POST, "/pipeline/start", Some(&json!({}))).await;
        assert_eq!(
            (start.0, &start.1["error"]["code"]),
            (StatusCode::SERVICE_UNAVAILABLE, &json!("draining"))
        );
        // Reading still works, and the attempt is still its runner's.
        let runs = operator.get("/pipeline/runs").await;
        assert_eq!(runs["runs"][0]["status"], "running", "{runs}");
        busy.process.signal(signal);
        drop(evo.finish(busy.process, MINUTE).expect_code(code));
    }
}

#[tokio::test]
async fn a_king_ends_within_its_grace_period_and_the_attempt_goes_on_under_the_next() {
    let evo = evo();
    let mut busy = busy_king(&evo, "drain_grace_ms = 300\n").await;
    busy.process.signal(Signal::SIGTERM);
    let sent = SystemTime::now();
    let answer = evo.finish(busy.process, MINUTE).expect_code(0);
    assert!(sent.elapsed().unwrap() < Duration::from_secs(10), "{answer}");
    let report = evo.run(&["king", "check", "--json"]).expect_code(0).json();
    assert_eq!((&report["ok"], &report["runs"]), (&json!(true), &json!(1)), "{report}");
}

#[tokio::test]
async fn a_backup_is_made_and_restored_while_king_runs_and_while_it_does_not() {
    let evo = evo();
    let (mut process, url) = king(&evo, "", "sources = []\n");
    let operator = King::new(&url, &evo.token("operator"));
    let start = async |key: &str| {
        let body = json!({"trigger": key, "idempotency_key": key});
        operator.send(Method::POST, "/pipeline/start", Some(&body)).await.1["run_id"].clone()
    };
    let first = start("first").await;
    let file = evo.folder().join("king.backup");
    let path = file.to_str().unwrap();
    let made = evo.run(&["king", "backup", path, "--json"]).expect_code(0).json();
    let found = std::fs::metadata(&file).unwrap();
    assert_eq!(made["bytes"], found.len());
    assert_eq!(found.permissions().mode() & 0o777, 0o600);
    evo.run(&["king", "backup", path]).expect_code(1).says(&["exists", "--overwrite"]);

    let second = start("second").await;
    assert_ne!(first, second);
    let bad = evo.file("bad.backup", "no backup");
    evo.run(&["king", "restore", bad.to_str().unwrap()])
        .expect_code(1)
        .says(&["no whole backup", "nothing was changed"]);
    assert_eq!(operator.get("/pipeline/runs").await["count"], 2);
    let restored = evo.run(&["king", "restore", path, "--json"]).expect_code(0).json();
    assert!(process.exited().is_none(), "the same process goes on");
    // The connections of the old one have ended.
    let operator = King::new(&url, &evo.token("operator"));
    let start = async |key: &str| {
        let body = json!({"trigger": key, "idempotency_key": key});
        operator.send(Method::POST, "/pipeline/start", Some(&body)).await.1["run_id"].clone()
    };
    let runs = operator.get("/pipeline/runs").await;
    assert_eq!((&runs["count"], &runs["runs"][0]["run_id"]), (&json!(1), &first), "{runs}");
    let kept = std::path::PathBuf::from(restored["kept"].as_str().unwrap());
    assert!(kept.join("king.db").exists() && kept.join("artifacts").exists());
    start("third").await;
    let report = evo.run(&["king", "check", "--json"]).expect_code(0).json();
    assert_eq!((&report["ok"], &report["runs"]), (&json!(true), &json!(2)), "{report}");

    process.signal(Signal::SIGTERM);
    drop(evo.finish(process, MINUTE).expect_code(0));
    let again = evo.folder().join("again.backup");
    drop(evo.run(&["king", "backup", again.to_str().unwrap()]).expect_code(0));
    drop(evo.run(&["king", "restore", path]).expect_code(0));
    let report = evo.run(&["king", "check", "--json"]).expect_code(0).json();
    assert_eq!(report["runs"], 1, "{report}");
    // What it is doing is told to people, not to programs.
    let told = evo.run(&["king", "check"]).expect_code(0);
    told.says(&["Reading the database …\n", "digests … 0 of "]);
    assert!(told.stdout.starts_with("Nothing wrong") && !told.stderr.contains('\u{1b}'), "{told}");
    let told = evo.run(&["king", "check", "--json"]).expect_code(0);
    assert!(!told.stderr.contains("Reading the database"), "{told}");
    evo.run(&["king", "check", "--data", "/no/such/folder"]).expect_code(2).says(&["--data"]);
}

#[tokio::test]
async fn a_client_that_does_not_read_its_stream_is_cut_and_holds_nobody_up() {
    let evo = evo();
    let settings = "[limits]\nstreams = 1\nslow_reader_ms = 500\n";
    let (_process, url) = king(&evo, settings, "sources = []\n");
    let operator = King::new(&url, &evo.token("operator"));
    // More than the buffers between king and a client hold.
    let text = "x".repeat(900_000);
    for n in 0..24 {
        let body = json!({"trigger": {"n": n, "text": text}, "kind": "direct"});
        let (status, answer) = operator.send(Method::POST, "/pipeline/start", Some(&body)).await;
        assert_eq!(status, StatusCode::CREATED, "{answer}");
    }
    let address = url.strip_prefix("http://").unwrap();
    let mut silent = TcpStream::connect(address).unwrap();
    let token = evo.token("viewer");
    write!(
        silent,
        "GET /events/stream?after=0 HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\n\r\n"
    )
    .unwrap();
    // Its place is taken, and free again although it never reads or leaves.
    let (mut taken, mut free) = (false, false);
    for _ in 0..600 {
        let request = reqwest::Client::builder().no_proxy().build().unwrap();
        let stream = request.get(format!("{url}/events/stream")).bearer_auth(&token);
        let status = stream.send().await.unwrap().status();
        taken |= status == StatusCode::SERVICE_UNAVAILABLE;
        free = status == StatusCode::OK;
        if taken && free {
            break;
        }
        operator.get("/stats").await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(taken && free, "taken: {taken}, free again: {free}");
    drop(silent);
}
