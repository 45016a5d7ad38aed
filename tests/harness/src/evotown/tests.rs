//! The fake against the rows of the list of differences that were measured on the real server.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{Complete, Evotown, Fault, Mode};

/// A caller with one token.
struct Client<'t> {
    town: &'t Evotown,
    http: reqwest::Client,
    token: String,
}

impl<'t> Client<'t> {
    fn new(town: &'t Evotown, token: &str) -> Self {
        evo_common::tls::install();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { town, http, token: token.to_owned() }
    }

    async fn send(&self, method: Method, path: &str, body: &Value) -> (u16, Value) {
        let url = format!("{}/api/v1/{path}", self.town.url());
        let mut request = self.http.request(method.clone(), url).bearer_auth(&self.token);
        if method == Method::POST {
            request = request.json(body);
        }
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap())
    }

    async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        self.send(Method::POST, path, &body).await
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        self.send(Method::GET, path, &Value::Null).await
    }
}

/// A town with one engine, and the engine's token.
async fn registered(town: &Evotown) -> String {
    registered_as(town, "e").await
}

/// The same with an engine of this name.
async fn registered_as(town: &Evotown, engine_id: &str) -> String {
    let bootstrap = Client::new(town, &town.ingest_token());
    let engine = json!({"engine_id": engine_id, "engine_version": "1", "engine_type": "hermes"});
    let (status, answer) = bootstrap.post("engines/register", engine).await;
    assert_eq!(status, 200, "{answer}");
    answer["ingest_token"].as_str().unwrap_or(&town.ingest_token()).to_owned()
}

fn complete() -> Value {
    json!({
        "engine_id": "e", "engine_version": "1", "status": "succeeded", "exit_code": 0,
        "finished_at": "2026-01-01T00:00:00Z", "signals": {"cost_usd": 1.5}, "score": 0.9,
    })
}

fn event(event_type: &str, seq: u64) -> Value {
    json!({"event_type": event_type, "run_id": "r", "engine_id": "e", "ts": "t", "seq": seq})
}

/// Rows 1, 3, 4: one status for every refusal of a token, three kinds of token, and a new one for
/// an engine at every registration.
#[tokio::test]
async fn tokens() {
    let town = Evotown::start().await;
    let first = registered(&town).await;
    assert!(first.starts_with("evi_"));
    let second = registered(&town).await;
    let stranger = json!({"detail": "Invalid or missing bearer token."});
    let old = Client::new(&town, &first);
    assert_eq!(old.post("engines/e/heartbeat", json!({})).await, (403, stranger.clone()));
    assert_eq!(old.post("events", event("run.started", 0)).await, (403, stranger));
    let own = Client::new(&town, &second);
    assert_eq!(own.post("engines/e/heartbeat", json!({})).await.1["ok"], true);
    let (status, answer) = own.post("engines/register", json!({})).await;
    assert_eq!(status, 403);
    assert!(answer["detail"].is_string());
    let mut foreign = complete();
    foreign["engine_id"] = json!("other");
    assert_eq!(own.post("runs/r/complete", foreign.clone()).await.0, 403);

    let global = Client::new(&town, &town.ingest_token());
    assert_eq!(global.post("runs/r/complete", complete()).await.0, 403);
    town.allow_global_scope(true);
    assert_eq!(global.post("runs/r/complete", foreign).await.0, 422, "row 6");
    assert_eq!(global.post("runs/r/complete", complete()).await.0, 200);
}

/// Rows 5, 17, 18, 19, 24: the first complete wins, whoever sends another one.
#[tokio::test]
async fn complete_is_idempotent_and_the_first_wins() {
    let town = Evotown::start().await;
    let own = Client::new(&town, &registered(&town).await);
    let (_, answer) = own.post("runs/r/complete", complete()).await;
    assert_eq!(answer["idempotent"], false);
    assert_eq!(answer["run"]["team_id"], "");
    assert_eq!(answer["run"]["started_at"], answer["run"]["finished_at"]);
    assert_eq!(answer["run"]["score"], Value::Null, "unknown fields are lost");
    let mut other = complete();
    other["status"] = json!("failed");
    let (status, answer) = own.post("runs/r/complete", other).await;
    assert_eq!((status, &answer["idempotent"]), (200, &json!(true)));
    assert_eq!(answer["run"]["status"], "succeeded");
    let completes = town.completes();
    let expected = [false, true].map(|idempotent| Complete { run_id: "r".to_owned(), idempotent });
    assert_eq!(completes, expected);

    // Another engine reads a foreign run so, and its events change it.
    let stranger = Client::new(&town, &registered_as(&town, "other").await);
    let mut foreign = complete();
    foreign["engine_id"] = json!("other");
    let (status, answer) = stranger.post("runs/r/complete", foreign).await;
    assert_eq!((status, &answer["idempotent"]), (200, &json!(true)));
    assert_eq!(answer["run"]["engine_id"], "e");
    assert_eq!(stranger.get("runs/r/status?engine_id=other").await.0, 404);
    let mut event = event("run.progress", 0);
    event["engine_id"] = json!("other");
    assert_eq!(stranger.post("events", event).await.0, 200);
    assert_eq!(town.run("r").unwrap()["status"], "running");
}

/// Rows 11, 14, 15, 16: events are never told apart, and bring a run back to life.
#[tokio::test]
async fn events_change_runs_that_have_ended() {
    let town = Evotown::start().await;
    let own = Client::new(&town, &registered(&town).await);
    assert_eq!(own.post("runs/r/complete", complete()).await.1["run"]["engine_type"], "hermes");
    for _ in 0..2 {
        let (_, answer) = own.post("events", event("run.progress", 0)).await;
        assert_eq!(answer["run"]["status"], "running");
        assert_eq!(answer["run"]["engine_type"], "custom");
        assert_eq!(answer["run"]["finished_at"], "t");
        assert_eq!(answer["run"]["signals"], json!({"cost_usd": 1.5}), "none were sent");
    }
    assert_eq!(town.events("r").len(), 2);
    let mut end = event("run.completed", 1);
    end["status"] = json!("running");
    end["signals"] = json!({"a": 1});
    let (_, answer) = own.post("events", end.clone()).await;
    assert_eq!(answer["run"]["status"], "succeeded");
    assert_eq!(answer["run"]["signals"], json!({"a": 1}), "replaced, not merged");
    assert_eq!(town.disorder().len(), 2, "what it took after the end is noted");

    end["log_excerpt"] = json!("see task-42");
    end["status"] = json!("failed");
    let (status, answer) = own.post("events", end).await;
    assert_eq!(status, 403);
    assert!(answer["detail"]["policy"].is_object(), "{answer}");
    assert_eq!(town.run("r").unwrap()["status"], "failed", "changed all the same");

    assert_eq!(own.post("events", event("run.progress", 2)).await.0, 200);
    assert_eq!(town.disorder().len(), 3, "after the end");
    let (status, answer) = own
        .post("events", {
            let mut stray = event("tool_call", 0);
            stray["run_id"] = json!("unknown");
            stray
        })
        .await;
    assert_eq!((status, &answer["detail"]), (422, &json!("run not found")));
}

/// Row 13: ordinary content is refused, not stored, and leaves a violation each time.
#[tokio::test]
async fn policies_refuse_files_and_words() {
    let town = Evotown::start().await;
    let own = Client::new(&town, &registered(&town).await);
    let digest = "a".repeat(64);
    let file = |path: &str| json!([{"path": path, "sha256": digest, "bytes": 1}]);
    for path in ["manifest.toml", "a/b.rs", "x.tar.gz", "run.sh"] {
        let mut body = complete();
        body["artifact_manifest"] = file(path);
        let (status, answer) = own.post("runs/r/complete", body).await;
        assert_eq!(status, 403, "{path}");
        assert!(answer["detail"]["policy"].is_object(), "{answer}");
    }
    for log in ["about risk-42", "API_KEY", "Bearer", "evk_", "evi_"] {
        let mut body = complete();
        body["log_excerpt"] = json!(log);
        assert_eq!(own.post("runs/r/complete", body).await.0, 403, "{log}");
    }
    assert_eq!(town.violations().len(), 9);
    assert_eq!(town.run("r"), None, "nothing was stored");
    let mut body = complete();
    body["artifact_manifest"] = file("../../SKILL.md");
    body["signals"] = json!({"secret": "sk-abc"});
    assert_eq!(own.post("runs/r/complete", body).await.0, 200, "signals are not looked at");
}

/// The limits of fields, rows 7 and 12, and the closed sets.
#[tokio::test]
async fn fields_have_limits() {
    let town = Evotown::start().await;
    let own = Client::new(&town, &registered(&town).await);
    let long = "x".repeat(129);
    for (name, value) in [
        ("status", json!("running")),
        ("status", json!("timed_out")),
        ("exit_code", json!(null)),
        ("exit_code", json!("one")),
        ("engine_version", json!(long)),
        ("signals", json!([])),
        ("log_excerpt", json!("字".repeat(65_537))),
        ("artifact_manifest", json!([{"path": "a.md", "sha256": "A".repeat(64), "bytes": 1}])),
    ] {
        let mut body = complete();
        body[name] = value;
        let (status, answer) = own.post("runs/r/complete", body).await;
        assert_eq!(status, 422, "{name}");
        assert_eq!(answer["detail"][0]["loc"][1], name, "{answer}");
    }
    for (name, value) in [
        ("run_id", json!(long)),
        ("event_type", json!("run.paused")),
        ("engine_type", json!("evo")),
        ("seq", json!(-1)),
        ("agent_id", json!(long)),
    ] {
        let mut body = event("run.started", 0);
        body[name] = value;
        let (status, answer) = own.post("events", body).await;
        assert_eq!(status, 422, "{name}");
        assert_eq!(answer["detail"][0]["loc"][1], name, "{answer}");
    }
    let mut body = complete();
    body["exit_code"] = json!("0");
    body["finished_at"] = json!("yesterday");
    body["log_excerpt"] = json!("字".repeat(65_536));
    let (status, answer) = own.post("runs/r/complete", body).await;
    assert_eq!((status, &answer["run"]["exit_code"]), (200, &json!(0)), "{answer}");
}

/// Rows 8, 9, 20, 22 and the slash in an id.
#[tokio::test]
async fn what_is_not_there_and_who_may_read() {
    let town = Evotown::start().await;
    let token = registered(&town).await;
    let own = Client::new(&town, &token);
    assert_eq!(own.post("runs/a%2Fb/complete", complete()).await.0, 404);
    assert_eq!(own.post("runs/r/artifacts", json!({})).await.0, 404);
    assert_eq!(own.post("runs/lease", json!({})).await.0, 405);
    own.post("runs/r/complete", complete()).await;
    for path in ["runs", "runs/r", "runs/r/events", "engines", "policy/violations", "costs/summary"]
    {
        let (status, answer) = own.get(path).await;
        assert_eq!(status, 403, "{path}");
        assert!(answer["detail"].is_string());
        let url = format!("{}/api/v1/{path}?limit=0", town.url());
        let admin = own.http.get(url).header("x-admin-token", town.admin_token());
        assert_eq!(admin.send().await.unwrap().status(), StatusCode::OK, "{path}");
    }
    let (status, answer) = own.get("runs/r/status?engine_id=e").await;
    assert_eq!((status, &answer["signals"]["cost_usd"]), (200, &json!(1.5)));
    assert_eq!(own.get("runs/none/status?engine_id=e").await.0, 404);

    let url = format!("{}/api/v1/events", town.url());
    let zipped = own.http.post(url).bearer_auth(&token).header("content-encoding", "gzip");
    let answer = zipped.body(vec![0x1f, 0x8b, 8, 0]).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
}

/// A text where a number should be breaks the costs of everybody.
#[tokio::test]
async fn one_wrong_cost_breaks_the_summary() {
    let town = Evotown::start().await;
    let own = Client::new(&town, &registered(&town).await);
    let mut body = complete();
    body["signals"] = json!({"cost_usd": "cheap"});
    own.post("runs/r/complete", body).await;
    let url = format!("{}/api/v1/costs/summary", town.url());
    let admin = own.http.get(url).header("x-admin-token", town.admin_token());
    assert_eq!(admin.send().await.unwrap().status(), StatusCode::INTERNAL_SERVER_ERROR);
}

/// The published spec: 401, 409 and 413, and one token for everything.
#[tokio::test]
async fn the_published_spec() {
    let town = Evotown::like(Mode::Spec);
    let token = registered(&town).await;
    assert_eq!(token, town.ingest_token(), "there is no other one");
    let stranger = Client::new(&town, "who");
    assert_eq!(stranger.post("runs/r/complete", complete()).await.0, 401);
    let own = Client::new(&town, &token);
    assert_eq!(own.post("runs/r/complete", complete()).await.0, 200);
    assert_eq!(own.post("runs/r/complete", complete()).await.0, 409);
    assert_eq!(own.get("runs/r/status?engine_id=e").await.0, 404);
    assert_eq!(own.post("engines/e/heartbeat", json!({})).await.0, 404);
    let mut large = complete();
    large["signals"] = json!({"a": "x".repeat(1024 * 1024)});
    assert_eq!(own.post("runs/r2/complete", large).await.0, 413);
}

#[tokio::test]
async fn it_fails_when_it_is_told_to() {
    let town = Evotown::start().await;
    let own = Client::new(&town, &registered(&town).await);
    let url = format!("{}/api/v1/events", town.url());
    let send = || own.http.post(&url).bearer_auth(&own.token).json(&event("run.started", 0)).send();
    town.fault("/events", 1, Fault::Status(503));
    town.fault("/events", 1, Fault::RetryAfter(7));
    assert_eq!(send().await.unwrap().status(), 503);
    assert_eq!(send().await.unwrap().headers()["retry-after"], "7");
    town.fault("/events", 1, Fault::CutBefore);
    assert!(send().await.is_err());
    assert!(town.events("r").is_empty());
    town.fault("/events", 1, Fault::CutAfter);
    assert!(send().await.is_err());
    assert_eq!(town.events("r").len(), 1);
    town.fault("/events", 1, Fault::Page(200));
    assert_eq!(send().await.unwrap().text().await.unwrap(), "<html>Please sign in</html>");
    assert_eq!(town.events("r").len(), 1);
    town.fault("/events", 1, Fault::LateStatus(500));
    assert_eq!(send().await.unwrap().status(), 500);
    assert_eq!(town.events("r").len(), 2);

    town.set_down(true);
    // The first one may still go out over the connection that was open.
    assert!(send().await.is_err());
    assert!(send().await.unwrap_err().is_connect());
    town.set_down(false);
    assert_eq!(send().await.unwrap().status(), 200);
    assert_eq!(town.events("r").len(), 3, "what it holds stays");
    town.forget();
    assert_eq!(send().await.unwrap().status(), 403);
}
