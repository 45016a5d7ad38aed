//! Cycles, skills, packages and the stream of events.

use super::*;

#[tokio::test]
async fn a_cycle_is_started_once_per_key_and_can_be_cancelled_once() {
    let server = Server::start().await;
    let start = json!({"trigger": "test", "idempotency_key": "k"});
    let first = server.post("/pipeline/start", &start).await;
    let second = server.post("/pipeline/start", &start).await;
    assert_eq!((first.status.as_u16(), second.status.as_u16()), (201, 200));
    assert_eq!(first.json()["run_id"], second.json()["run_id"]);
    let run = server.get("/pipeline/runs/latest").await.json();
    assert_eq!(run["run_id"], first.json()["run_id"]);
    let cancelled = server.call(Method::DELETE, "/pipeline/runs/latest", Body::empty()).await;
    assert_eq!(cancelled.status, StatusCode::OK);
    assert_eq!(cancelled.json()["status"], "failed");
    let again = server.call(Method::DELETE, "/pipeline/runs/latest", Body::empty()).await;
    assert_eq!((again.status, &*again.code()), (StatusCode::CONFLICT, "run_ended"));
    let missing = server.call(Method::DELETE, "/pipeline/runs/run-1", Body::empty()).await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn an_active_skill_without_a_runner_is_unavailable() {
    let server = Server::seeded().await;
    let path = format!("/skills/{SKILL}/invoke");
    let answer = server.post(&path, &json!({"input": {}})).await;
    assert_eq!((answer.status.as_u16(), &*answer.code()), (503, "no_runner"));
    let answer = server.post("/skills/nothing/invoke", &json!({})).await;
    assert_eq!((answer.status.as_u16(), &*answer.code()), (404, "not_found"));
}

#[tokio::test]
async fn packages_are_stored_under_their_digest_only() {
    let server = Server::start().await;
    let files = artifact::Files::from([("SKILL.md".to_owned(), b"x".to_vec())]);
    let (id, archive) = artifact::pack(&files).unwrap();
    let path = format!("/artifacts/{id}");
    for status in [201, 200] {
        let answer = server.call(Method::PUT, &path, archive.clone()).await;
        assert_eq!(answer.status.as_u16(), status);
        assert_eq!(answer.json()["artifact_id"], id.as_str());
    }
    let answer = server.get(&path).await;
    assert_eq!(answer.headers[header::CONTENT_TYPE], "application/x-tar");
    assert_eq!(answer.body, archive);
    let other = format!("/artifacts/{}", "0".repeat(64));
    let answer = server.call(Method::PUT, &other, archive).await;
    assert_eq!((answer.status.as_u16(), &*answer.code()), (422, "digest_mismatch"));
    let garbage = vec![7; 2_048];
    let path = format!("/artifacts/{}", ArtifactId::of(&garbage));
    let answer = server.call(Method::PUT, &path, garbage).await;
    assert_eq!((answer.status.as_u16(), &*answer.code()), (422, "invalid_archive"));
    let large = vec![0; artifact::MAX_ARCHIVE_BYTES + 1];
    let path = format!("/artifacts/{}", ArtifactId::of(&large));
    let answer = server.call(Method::PUT, &path, large).await;
    assert_eq!((answer.status.as_u16(), &*answer.code()), (422, "invalid_archive"));
    let larger = vec![0; ARTIFACT_LIMIT + 1];
    let answer = server.call(Method::PUT, &path, larger).await;
    assert_eq!((answer.status.as_u16(), &*answer.code()), (413, "body_too_large"));
}

#[tokio::test]
async fn a_damaged_package_is_a_fault_that_says_no_path() {
    let server = Server::start().await;
    let file = format!("artifacts/{}/{EMPTY_ARCHIVE}.tar", &EMPTY_ARCHIVE[..2]);
    std::fs::write(server.king.config.data.join(file), "x").unwrap();
    let answer = server.get(&format!("/artifacts/{EMPTY_ARCHIVE}")).await;
    assert_eq!((answer.status.as_u16(), &*answer.code()), (500, "artifact_damaged"));
    let folder = server.king.config.data.display().to_string();
    assert!(!String::from_utf8_lossy(&answer.body).contains(&folder));
}

/// Reads events of a stream until `count` have come.
async fn follow(
    server: &Server,
    path: &str,
    last_event_id: Option<i64>,
    count: usize,
) -> Vec<EventRecord> {
    let mut request =
        server.request(Method::GET, path).header("x-api-key", server.token(Scope::Viewer));
    if let Some(id) = last_event_id {
        request = request.header("Last-Event-ID", id);
    }
    let request = request.body(Body::empty()).unwrap();
    let response = server.router.clone().oneshot(request).await.unwrap();
    assert_eq!(response.headers()[header::CONTENT_TYPE], "text/event-stream");
    let mut body = response.into_body().into_data_stream();
    let mut text = String::new();
    while text.matches("\n\n").count() < count {
        text.push_str(std::str::from_utf8(&body.next().await.unwrap().unwrap()).unwrap());
    }
    let mut records = Vec::new();
    for event in text.split_terminator("\n\n") {
        let field = |name: &str| {
            event.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned()
        };
        let record: EventRecord = serde_json::from_str(&field("data:")).unwrap();
        assert_eq!(field("id:"), record.seq.to_string());
        assert_eq!(field("event:"), record.kind);
        records.push(record);
    }
    records
}

#[tokio::test]
async fn the_stream_begins_where_the_client_was_and_goes_on() {
    let server = Server::seeded().await;
    let page: evo_common::api::EventList =
        serde_json::from_slice(&server.get("/events?after=0").await.body).unwrap();
    let all = page.events.clone();
    assert!(all.len() >= 2);
    assert_eq!(follow(&server, "/events/stream?after=0", None, all.len()).await, all);
    let first = all[0].seq;
    let rest = follow(&server, "/events/stream?after=999", Some(first), all.len() - 1).await;
    assert_eq!(rest, all[1..]);
    let only = follow(&server, "/events/stream?after=0&kind=cycle.started", None, 1).await;
    assert_eq!(only[0].kind, "cycle.started");
    // Without a place it begins with what comes next.
    let (next, _) = tokio::join!(follow(&server, "/events/stream", None, 1), async {
        tokio::task::yield_now().await;
        server.post("/pipeline/start", &json!({"trigger": "next"})).await
    });
    assert!(next[0].seq > page.last_seq);
}

#[tokio::test]
async fn the_stream_ends_with_king() {
    let server = Server::seeded().await;
    let request = server
        .request(Method::GET, "/events/stream")
        .header("x-api-key", server.token(Scope::Viewer))
        .body(Body::empty())
        .unwrap();
    let response = server.router.clone().oneshot(request).await.unwrap();
    let (body, ()) = tokio::join!(axum::body::to_bytes(response.into_body(), 1_000), async {
        tokio::task::yield_now().await;
        server.king.shutdown.cancel();
    });
    assert_eq!(body.unwrap(), "");
}
