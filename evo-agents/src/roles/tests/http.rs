//! A small API on loopback whose operations behave in known ways.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    extract::{Path, Query},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use evo_common::runtime::{OnError, TaskGroup};
use serde_json::{Value, json};

/// The server; it ends when this is dropped.
pub(super) struct Api {
    pub(super) address: SocketAddr,
    pub(super) writes: Arc<AtomicU32>,
    tasks: TaskGroup,
}

impl Drop for Api {
    fn drop(&mut self) {
        self.tasks.token().cancel();
    }
}

impl Api {
    pub(super) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let writes = Arc::new(AtomicU32::new(0));
        let tasks = TaskGroup::default();
        let cancel = tasks.token().clone();
        let router = routes(writes.clone());
        tasks.spawn("api", OnError::Log, async move {
            let stop = async move { cancel.cancelled().await };
            Ok(axum::serve(listener, router).with_graceful_shutdown(stop).await?)
        });
        Self { address, writes, tasks }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

fn items() -> Value {
    json!({"items": [{"id": 1, "name": "Lamp"}], "count": 1})
}

fn routes(writes: Arc<AtomicU32>) -> Router {
    let calls = Arc::new(AtomicU32::new(0));
    let drifts = Arc::new(AtomicU32::new(0));
    Router::new()
        .route("/openapi.json", get(|| async { Json(document()) }))
        .route("/good", get(|| async { Json(items()) }))
        .route(
            "/flaky",
            get(move || async move {
                if calls.fetch_add(1, Ordering::Relaxed) % 3 == 2 {
                    return StatusCode::INTERNAL_SERVER_ERROR.into_response();
                }
                Json(items()).into_response()
            }),
        )
        .route("/down", get(|| async { StatusCode::SERVICE_UNAVAILABLE }))
        .route(
            "/slow",
            get(|| async {
                tokio::time::sleep(Duration::from_millis(60)).await;
                Json(items())
            }),
        )
        .route(
            "/delay",
            get(|| async {
                tokio::time::sleep(Duration::from_secs(20)).await;
                Json(items())
            }),
        )
        .route("/empty", get(|| async { Json(json!({"items": [], "count": 0})) }))
        .route("/wrong", get(|| async { Json(json!({"items": "none"})) }))
        .route("/loose", get(|| async { Json(json!({"origin": "127.0.0.1"})) }))
        .route(
            "/drift",
            get(move || async move {
                match drifts.fetch_add(1, Ordering::Relaxed) % 2 {
                    0 => Json(json!({"origin": "127.0.0.1"})),
                    _ => Json(json!({"error": "later"})),
                }
            }),
        )
        .route("/text", get(|| async { "hello" }))
        .route("/login", get(|| async { StatusCode::UNAUTHORIZED }))
        .route("/token", get(token))
        .route("/pets/{kind}", get(pets))
        .route(
            "/write",
            post(move || async move {
                writes.fetch_add(1, Ordering::Relaxed);
                (StatusCode::CREATED, Json(json!({"id": 7})))
            }),
        )
}

async fn token(headers: HeaderMap) -> Response {
    match headers.get("x-key").and_then(|key| key.to_str().ok()) {
        Some("k-1") => Json(items()).into_response(),
        _ => StatusCode::UNAUTHORIZED.into_response(),
    }
}

async fn pets(Path(kind): Path<String>, Query(query): Query<Vec<(String, String)>>) -> Response {
    if kind != "cat" && kind != "dog" {
        return StatusCode::BAD_REQUEST.into_response();
    }
    Json(json!([{"kind": kind, "query": query.len()}])).into_response()
}

/// What the API says of itself.
pub(super) fn document() -> Value {
    let list = json!({"$ref": "#/components/schemas/List"});
    let answer = |schema: &Value| json!({"200": {"description": "An answer.", "content": {"application/json": {"schema": schema}}}});
    let plain = |id: &str| json!({"get": {"operationId": id, "summary": format!("Calls {id}."), "tags": [id], "responses": answer(&list)}});
    let example = json!({"items": [{"id": 1, "name": "Lamp"}], "count": 1});
    let mut empty = plain("empty");
    empty["get"]["responses"]["200"]["content"]["application/json"]["example"] = example.clone();
    let mut good = plain("good");
    good["get"]["responses"]["200"]["content"]["application/json"]["example"] = example;
    let mut token = plain("token");
    token["get"]["security"] = json!([{"key": []}]);
    let loose = |id: &str| json!({"get": {"operationId": id, "responses": {"200": {"description": "x", "content": {"application/json": {}}}}}});
    json!({
        "openapi": "3.0.3",
        "info": {"title": "Fake", "version": "1"},
        "paths": {
            "/good": good,
            "/flaky": plain("flaky"),
            "/down": plain("down"),
            "/slow": plain("slow"),
            "/delay": plain("delay"),
            "/empty": empty,
            "/wrong": plain("wrong"),
            "/loose": loose("loose"),
            "/drift": loose("drift"),
            "/text": {"get": {"operationId": "text", "responses": {"200": {"description": "x", "content": {"text/plain": {}}}}}},
            "/login": plain("login"),
            "/token": token,
            "/external": {"get": {"operationId": "good_too", "responses": {"200": {"description": "x", "content": {"application/json": {"schema": {"$ref": "elsewhere.json#/X"}}}}}}},
            "/pets/{kind}": {"get": {
                "operationId": "pets",
                "parameters": [
                    {"name": "kind", "in": "path", "required": true, "schema": {"type": "string", "enum": ["cat", "dog"]}},
                    {"name": "limit", "in": "query", "schema": {"type": "integer", "default": 5}},
                ],
                "responses": {
                    "200": {"description": "x", "content": {"application/json": {"schema": {"type": "array", "items": {"type": "object", "required": ["kind"]}}}}},
                    "400": {"description": "Unknown kind."},
                },
            }},
            "/needs": {"get": {"operationId": "needs", "parameters": [{"name": "q", "in": "query", "required": true, "schema": {"type": "string"}}], "responses": answer(&list)}},
            "/events": {"get": {"operationId": "events", "responses": {"200": {"description": "x", "content": {"text/event-stream": {}}}}}},
            "/write": {"post": {"operationId": "write", "responses": {"201": {"description": "x", "content": {"application/json": {"schema": {"type": "object", "required": ["id"]}}}}}}},
        },
        "components": {
            "securitySchemes": {"key": {"type": "apiKey", "in": "header", "name": "X-Key"}},
            "schemas": {"List": {
                "type": "object",
                "required": ["items", "count"],
                "properties": {"items": {"type": "array", "items": {"type": "object", "required": ["id"]}}, "count": {"type": "integer"}},
            }},
        },
    })
}
