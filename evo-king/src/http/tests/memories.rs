//! Memories over HTTP.

use super::*;

#[tokio::test]
async fn a_memory_lives_from_its_store_to_its_end() {
    let server = Server::start().await;
    let new = json!({
        "scope": "skill", "category": "general", "key": "k", "tags": ["a, b"],
        "metadata": {"x": 1}, "tiers": [{"tier": "l0", "content": "错误码 heron"}],
    });
    let stored = server.post("/memories", &new).await;
    assert_eq!(stored.status, StatusCode::CREATED);
    let memory = stored.json()["memory"].clone();
    assert_eq!(stored.json()["success"], true);
    assert_eq!((&memory["category"], &memory["tags"]), (&json!("fact"), &json!(["a, b"])));
    let id = memory["id"].as_str().unwrap().to_owned();
    let again = server.post("/memories", &new).await;
    assert_eq!((again.status, &again.json()["memory"]["id"]), (StatusCode::OK, &json!(id)));
    assert_eq!(again.json()["memory"]["version"], 2);

    let path = format!("/memories/{id}");
    let change = json!({"relevance_score": 0.5, "tiers": [{"tier": "l1", "content": "kestrel"}]});
    let changed = server.call(Method::PUT, &path, change.to_string()).await.json();
    assert_eq!(changed["memory"]["relevance_score"], 0.5);
    assert_eq!(changed["memory"]["tiers"].as_array().unwrap().len(), 2);
    let tier = json!({"tier": "l1", "content": "a page"});
    let written = server.post(&format!("{path}/tiers"), &tier).await.json();
    assert_eq!(written["memory"]["tiers"].as_array().unwrap().len(), 2, "each tier once");
    let tier = server.get(&format!("{path}/tiers/l1")).await.json();
    assert_eq!(tier["tier"]["content"], "a page");
    let nowhere = server.post(&format!("{path}/tasks"), &json!({"task_id": "task-1"})).await;
    assert_eq!(nowhere.json()["error"]["code"], "invalid_field");
    let made = server.post("/tasks", &json!({"task_type": "note"})).await.json();
    let task = made["task"]["id"].as_str().unwrap().to_owned();
    let tasks = server.post(&format!("{path}/tasks"), &json!({"task_id": task})).await.json();
    assert_eq!(tasks, json!({"task_ids": [task], "count": 1}));

    let before = server.get(&path).await.json();
    assert_eq!(before["memory"]["task_ids"], json!([task]));
    for search in [json!({"query": "错误"}), json!({"query": "heron", "task_id": task})] {
        let found = server.post("/memories/search", &search).await.json();
        assert_eq!((&found["count"], &found["memories"][0]["id"]), (&json!(1), &json!(id)));
    }
    let listed = server.get("/memories?scope=skill&tag=a,%20b").await.json();
    assert_eq!(listed["count"], 1);
    assert_eq!(server.get(&path).await.json(), before, "reading changes nothing");
    server.post("/memories/search", &json!({"query": "heron", "touch": true})).await;
    assert_eq!(server.get(&path).await.json()["memory"]["access_count"], 1);
    let stats = server.get("/memories/stats").await.json();
    assert_eq!((&stats["stats"]["skill"], &stats["count"]), (&json!(1), &json!(2)));

    let gone = server.call(Method::DELETE, &format!("{path}/tiers/l1"), Body::empty()).await;
    assert_eq!(gone.status, StatusCode::OK);
    assert_eq!(server.get(&format!("{path}/tiers/l1")).await.status, StatusCode::NOT_FOUND);
    let gone = server.call(Method::DELETE, &path, Body::empty()).await;
    assert_eq!(gone.json(), json!({"success": true, "memory_id": id}));
    let events: evo_common::api::EventList =
        serde_json::from_slice(&server.get("/events?kind=memory.changed").await.body).unwrap();
    let actions: Vec<_> =
        events.events.iter().map(|event| plain(&event.payload["action"])).collect();
    assert_eq!(
        actions,
        ["stored", "updated", "updated", "updated", "updated", "deleted"],
        "what changes is told: {actions:?}"
    );
    for (method, path) in [
        (Method::GET, path.clone()),
        (Method::PUT, path.clone()),
        (Method::DELETE, path.clone()),
        (Method::GET, format!("{path}/tiers")),
        (Method::GET, format!("{path}/tasks")),
        (Method::DELETE, format!("{path}/tiers/l0")),
    ] {
        let answer = server.call(method.clone(), &path, Body::empty()).await;
        assert_eq!(
            (answer.status.as_u16(), &*answer.code()),
            (404, "not_found"),
            "{method} {path}"
        );
    }
}

#[tokio::test]
async fn wrong_memories_are_refused_by_field() {
    let server = Server::start().await;
    let long = "x".repeat(5_000);
    for (body, field) in [
        (json!({"scope": "nowhere"}), "scope"),
        (json!({"category": "bird"}), "category"),
        (json!({"relevance_score": 2}), "relevance_score"),
        (json!({"tiers": [{"tier": "l9", "content": ""}]}), "tiers[0].tier"),
        (json!({"tiers": [{"tier": "l0", "content": long}]}), "tiers[0].content"),
        (json!({"tags": [""]}), "tags[0]"),
        (json!({"metadata": 7}), "metadata"),
    ] {
        let answer = server.post("/memories", &body).await;
        assert_eq!((answer.status.as_u16(), &*answer.code()), (422, "invalid_field"), "{body}");
        assert_eq!(answer.json()["error"]["details"]["field"], field);
    }
    for (body, field) in [
        (json!({"limit": 0}), "limit"),
        (json!({"limit": 101}), "limit"),
        (json!({"query": long}), "query"),
        (json!({"tier": "l9"}), "tier"),
    ] {
        let answer = server.post("/memories/search", &body).await;
        assert_eq!(answer.json()["error"]["details"]["field"], field);
    }
    for path in
        ["/memories?tier=l9", "/memories?limit=0", "/memories?scope=x", "/memories?offset=-1"]
    {
        let answer = server.get(path).await;
        assert_eq!((answer.status.as_u16(), &*answer.code()), (400, "invalid_parameter"), "{path}");
    }
    let answer =
        server.post("/memories/search", &json!({"query": "\"AND ( NEAR * : ^ 错\""})).await;
    assert_eq!(answer.status, StatusCode::OK);
}
