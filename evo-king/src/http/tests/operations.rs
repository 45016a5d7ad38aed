//! What operators ask for: jobs, logs, streams, the end of king.

use super::*;

/// Takes away the events up to this one.
async fn prune(server: &Server, last: i64) {
    let work = async move |connection: &Connection| {
        connection.execute("DELETE FROM events WHERE seq <= ?", [last]).await?;
        Ok::<_, store::Error>(())
    };
    server.king.store.write(work).await.unwrap();
}

#[tokio::test]
async fn what_the_retention_has_taken_away_is_told() {
    let server = Server::seeded().await;
    for key in ["a", "b", "c"] {
        server.post("/pipeline/start", &json!({"trigger": key})).await;
    }
    prune(&server, 3).await;
    for path in ["/events", "/events?after=0", "/events?after=3"] {
        assert_eq!(server.get(path).await.json()["events"][0]["seq"], 4, "{path}");
    }
    let gone = server.get("/events?after=2").await;
    assert_eq!((gone.status, &*gone.code()), (StatusCode::GONE, "events_pruned"));
    assert_eq!(gone.json()["error"]["details"], json!({"oldest_seq": 4}));

    let request = server
        .request(Method::GET, "/events/stream")
        .header("x-api-key", server.token(Scope::Viewer))
        .header("Last-Event-ID", 1);
    let response = server.router.clone().oneshot(request.body(Body::empty()).unwrap()).await;
    let mut body = response.unwrap().into_body().into_data_stream();
    let first = body.next().await.unwrap().unwrap();
    let first = std::str::from_utf8(&first).unwrap();
    assert!(
        first.contains("event: events.pruned") && first.contains("\"oldest_seq\":4"),
        "{first}"
    );
    assert!(!first.contains("id:"), "{first}");
    let next = body.next().await.unwrap().unwrap();
    assert!(std::str::from_utf8(&next).unwrap().contains("id: 4"));
}

#[tokio::test]
async fn several_kinds_are_listed_in_the_order_of_the_log() {
    let server = Server::seeded().await;
    let list = server.get("/events?kind=cycle.started,agent.registered,no.such").await.json();
    let kinds: Vec<_> = list["events"].as_array().unwrap().iter().map(|e| &e["kind"]).collect();
    assert_eq!(kinds, ["agent.registered", "cycle.started"]);
    let many = format!("/events?kind={}", vec!["k"; 21].join(","));
    assert_eq!(server.get(&many).await.code(), "invalid_parameter");
}

#[tokio::test]
async fn there_is_room_for_a_number_of_streams() {
    let server = Server::with(|config| config.limits.streams = 1).await;
    let open = async || {
        let request = server
            .request(Method::GET, "/events/stream")
            .header("x-api-key", server.token(Scope::Viewer));
        server.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
    };
    let first = open().await;
    assert_eq!(first.status(), StatusCode::OK);
    let second = open().await;
    assert_eq!(second.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(second.headers().contains_key(header::RETRY_AFTER));
    drop(first);
    assert_eq!(open().await.status(), StatusCode::OK);
}

#[tokio::test]
async fn messages_are_listed_by_what_they_are() {
    let server = Server::start().await;
    let log = &server.king.messages;
    let agent = Some("a".to_owned());
    log.inbound(r#"["agent:register",{"agent_id":"a"}]"#, agent.clone(), "s1");
    log.inbound(r#"["agent:status",{"agent_id":"a"}]"#, agent.clone(), "s1");
    log.outbound("king:command", &json!({"command": "drain"}), agent, "s1");
    log.inbound(r#"["observer:subscribe",{}]"#, None, "s2");
    server.king.shutdown.cancel();
    crate::message_log::run(server.king.clone()).await;
    let names = async |query: &str| -> Vec<String> {
        let list = server.get(&format!("/logs/events{query}")).await.json();
        let events = list["events"].as_array().unwrap().iter();
        events.map(|e| e["event_name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names("").await, ["observer:subscribe", "king:command", "agent:register"]);
    assert_eq!(names("?agent_id=a").await, ["king:command", "agent:register"]);
    assert_eq!(names("?direction=outbound").await, ["king:command"]);
    assert_eq!(names("?limit=1&offset=1").await, ["king:command"]);
    assert_eq!(names("?until=2020-01-01T00:00:00Z").await, [""; 0]);
    let page = server.get("/logs/events?limit=2").await.json();
    let rest = names(&format!("?cursor={}", page["next_cursor"].as_str().unwrap())).await;
    assert_eq!(rest, ["agent:register"]);
    for query in ["direction=up", "since=yesterday", "cursor=x", "offset=99999"] {
        let answer = server.get(&format!("/logs/events?{query}")).await;
        assert_eq!(answer.code(), "invalid_parameter", "{query}");
    }
    for query in ["component=../etc", "component=", "lines=0", "lines=1001"] {
        let answer = server.get(&format!("/logs/system?{query}")).await;
        assert_eq!(answer.code(), "invalid_parameter", "{query}");
    }
}

#[tokio::test]
async fn nothing_begins_while_king_drains() {
    let server = Server::seeded().await;
    crate::drain::begin(&server.king);
    for path in ["/health", "/ready"] {
        let answer = server.get(path).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(answer.json()["status"], "draining");
    }
    let refused = server.post("/pipeline/start", &json!({})).await;
    assert_eq!((refused.status, &*refused.code()), (StatusCode::SERVICE_UNAVAILABLE, "draining"));
    assert!(refused.headers.contains_key(header::RETRY_AFTER));
    assert_eq!(server.get("/pipeline/runs").await.status, StatusCode::OK);
    let empty = artifact::pack(&artifact::Files::new()).unwrap().1;
    let path = format!("/artifacts/{EMPTY_ARCHIVE}");
    assert_eq!(server.call(Method::PUT, &path, empty).await.status, StatusCode::OK);
}

#[tokio::test]
async fn jobs_are_made_changed_run_and_deleted() {
    let server = Server::start().await;
    let list = server.get("/admin/crons").await.json();
    assert_eq!(list["count"], 6, "{list}");
    let job = json!({"name": "n", "job": "gateway_health", "schedule": "*/5 * * * *"});
    let made = server.post("/admin/crons", &job).await;
    assert_eq!((made.status, &made.json()["cron"]["enabled"]), (StatusCode::CREATED, &json!(true)));
    assert_eq!(server.post("/admin/crons", &job).await.code(), "cron_exists");
    let body = json!({"enabled": false}).to_string();
    let off = server.call(Method::PATCH, "/admin/crons/n", body).await.json();
    assert_eq!((&off["cron"]["enabled"], &off["cron"]["next_run"]), (&json!(false), &json!(null)));
    let ran = server.post("/admin/crons/n/run", &json!({})).await.json();
    assert_eq!((&ran["cron"]["last_status"], &ran["cron"]["run_count"]), (&json!("ok"), &json!(1)));
    let gone = server.call(Method::DELETE, "/admin/crons/n", Body::empty()).await;
    assert_eq!(gone.status, StatusCode::OK);
    let missing = server.post("/admin/crons/n/run", &json!({})).await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
    let own = server.call(Method::DELETE, "/admin/crons/backup", Body::empty()).await;
    assert_eq!(own.code(), "cron_builtin");
    let bad = server.post("/admin/crons", &json!({"name": "x", "job": "x", "schedule": "x"})).await;
    assert_eq!(bad.status, StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test]
async fn a_stream_ends_with_its_token() {
    let server = Server::seeded().await;
    let token = json!({"name": "reader", "scope": "viewer"});
    let token = server.post("/tokens", &token).await.json()["token"].as_str().unwrap().to_owned();
    let open = async |token: &str| {
        let request = server.request(Method::GET, "/events/stream?after=0");
        let request = request.header("x-api-key", token).body(Body::empty()).unwrap();
        let response = server.router.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        response.into_body().into_data_stream()
    };
    let mut stream = open(&token).await;
    let mut other = open(&server.token(Scope::Viewer)).await;
    assert!(stream.next().await.unwrap().is_ok());
    let gone = server.call(Method::DELETE, "/tokens/reader", Body::empty()).await;
    assert_eq!(gone.status, StatusCode::OK);
    // What it had been given by then is all that comes.
    while let Some(event) = stream.next().await {
        event.unwrap();
    }
    server.post("/pipeline/start", &json!({"trigger": "afterwards"})).await;
    let mut text = String::new();
    while !text.contains("afterwards") {
        text.push_str(std::str::from_utf8(&other.next().await.unwrap().unwrap()).unwrap());
    }
}

#[tokio::test]
async fn lists_of_the_original_take_an_offset_beside_the_cursor() {
    let server = Server::seeded().await;
    for trigger in ["a", "b", "c"] {
        server.post("/pipeline/start", &json!({"trigger": trigger})).await;
    }
    for (path, field, id) in [
        ("/pipeline/runs?", "runs", "run_id"),
        ("/pipeline/runs?stage=learning&", "runs", "run_id"),
        ("/pipeline/runs?q=test&", "runs", "run_id"),
        ("/tasks?", "tasks", "id"),
        ("/tasks?status=in_progress&", "tasks", "id"),
        ("/traces?", "traces", "trace_id"),
        ("/memories?", "memories", "id"),
        ("/agents/evo-learning/history?", "history", "id"),
        ("/logs/events?", "events", "id"),
        ("/task/latest/logs?", "logs", "id"),
    ] {
        let ids = async |query: &str| -> Vec<String> {
            let list = server.get(&format!("{path}{query}")).await.json();
            let entries = list[field].as_array().unwrap_or_else(|| panic!("{path}: {list}"));
            entries.iter().map(|entry| entry[id].to_string()).collect()
        };
        let all = ids("limit=100").await;
        let some: Vec<String> = all.iter().skip(1).take(2).cloned().collect();
        assert_eq!(ids("limit=2&offset=1").await, some, "{path}");
        assert_eq!(ids("limit=2&offset=1000").await, [""; 0], "{path}");
        for offset in ["-1", "10001", "x"] {
            let answer = server.get(&format!("{path}offset={offset}")).await;
            assert_eq!(answer.code(), "invalid_parameter", "{path}offset={offset}");
        }
    }
    let page = server.get("/pipeline/runs?limit=1&offset=1").await.json();
    let cursor = page["next_cursor"].as_str().unwrap();
    let next = server.get(&format!("/pipeline/runs?limit=1&cursor={cursor}")).await.json();
    let third = server.get("/pipeline/runs?limit=1&offset=2").await.json();
    assert_eq!(next["runs"], third["runs"]);
}

/// The rows of the original, of which there was one for each stage.
#[tokio::test]
async fn a_client_of_the_original_can_read_runs() {
    let server = Server::seeded().await;
    let keys = [
        "id",
        "run_id",
        "stage",
        "artifact_id",
        "status",
        "agent_id",
        "result",
        "error",
        "created_at",
        "updated_at",
    ];
    let list = server.get("/pipeline/runs").await.json();
    let run = server.get("/pipeline/runs/latest").await.json();
    assert_eq!(
        (&list["count"], &run["count"]),
        (&json!(1), &json!(run["stages"].as_array().unwrap().len()))
    );
    for row in list["runs"].as_array().unwrap().iter().chain(run["stages"].as_array().unwrap()) {
        for key in keys {
            assert!(row.get(key).is_some(), "{key} is not in {row}");
        }
        assert_eq!((&row["stage"], &row["status"]), (&json!("learning"), &json!("running")));
    }
}
