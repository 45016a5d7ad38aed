//! The whole surface: every operation that the document names is called, without a token, with
//! every wrong one and with the right one, and every answer must be the one that the document
//! promises.

mod agents;
mod gone;
mod memories;
mod operations;
mod traces;

use axum::{
    Router,
    body::Body,
    http::{HeaderMap, Method, Request, StatusCode, header},
};
use bytes::Bytes;
use evo_common::{
    api::{ErrorBody, EventRecord},
    artifact,
    evidence::{Evidence, Paired, Trials},
    ids::ArtifactId,
    messages::AgentRegistration,
    outcome::Outcome,
    runtime::Shutdown,
    skill::SkillManifest,
    stage::Candidate,
    tokens::{Scope, Tokens},
};
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::*;
use crate::{
    artifacts::EMPTY_ARCHIVE,
    config::Config,
    store::{self, Connection, skills},
};

const SKILL: &str = "evo-king-get-health";

struct Server {
    king: King,
    router: Router,
    host: String,
    _folder: tempfile::TempDir,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {:?}", self.body))
    }

    /// The error code, after checking that the answer is the envelope and nothing else.
    fn code(&self) -> String {
        let body: ErrorBody = serde_json::from_slice(&self.body).unwrap_or_else(|_| {
            panic!("{} is no envelope: {:?}", self.status, self.body);
        });
        assert_eq!(self.headers[header::CONTENT_TYPE], "application/json");
        assert!(body.error.message.ends_with('.'), "{}", body.error.message);
        body.error.code
    }
}

impl Server {
    async fn start() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::new(folder.path(), Tokens::generate());
        change(&mut config);
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], 3000));
        let king = King::open(config, address, Shutdown::new()).await.unwrap();
        let host = format!("127.0.0.1:{}", king.address.port());
        let router = router_around(king.clone(), |routes| routes);
        Self { king, router, host, _folder: folder }
    }

    /// A server with an agent, a cycle and an active skill.
    async fn seeded() -> Self {
        let server = Self::start().await;
        let agent: AgentRegistration = serde_json::from_value(json!({
            "agent_id": "evo-learning", "role": "learning", "capabilities": ["learn"],
            "pid": 7, "anything": {"else": true},
        }))
        .unwrap();
        server.king.pipeline.register(agent, 1).await.unwrap();
        let started = server.post("/pipeline/start", &json!({"trigger": "test"})).await;
        assert_eq!(started.status, StatusCode::CREATED);
        let run_id = started.json()["run_id"].as_str().unwrap().to_owned();
        server.king.store.write(async move |c| seed_skill(c, &run_id).await).await.unwrap();
        server
    }

    fn token(&self, scope: Scope) -> String {
        self.king.config.tokens.get(scope).expose().to_owned()
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        Answer { status: parts.status, headers: parts.headers, body }
    }

    fn request(&self, method: Method, path: &str) -> http::request::Builder {
        Request::builder().method(method).uri(path).header(header::HOST, &self.host)
    }

    /// As the operator.
    async fn call(&self, method: Method, path: &str, body: impl Into<Body>) -> Answer {
        let token = format!("Bearer {}", self.token(Scope::Operator));
        let request = self.request(method, path).header(header::AUTHORIZATION, token);
        self.send(request.body(body.into()).unwrap()).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, Body::empty()).await
    }

    async fn post(&self, path: &str, body: &Value) -> Answer {
        self.call(Method::POST, path, body.to_string()).await
    }
}

async fn seed_skill(connection: &Connection, run_id: &str) -> store::Result<()> {
    let now = evo_common::clock::Timestamp::now();
    let candidate: Candidate = serde_json::from_value(json!({
        "name": SKILL, "source": "evo-king", "locator": "GET /health", "description": "Health.",
        "capabilities": ["health"], "fingerprint": "f", "demand": 1.0, "deterministic": true,
        "definition": {},
    }))
    .unwrap();
    skills::start_candidate(connection, now, &candidate, run_id, 1).await?;
    let manifest = SkillManifest {
        name: SKILL.to_owned(),
        version: "0.1.0".to_owned(),
        description: "Health.".to_owned(),
        capabilities: vec!["health".to_owned()],
        inputs: vec![],
        outputs: vec![],
        dependencies: vec![],
        has_code: false,
    };
    let version = skills::NewVersion {
        candidate: &candidate,
        artifact_id: EMPTY_ARCHIVE,
        parent: None,
        run_id,
        manifest: &manifest,
        endpoints: &["GET {server}/health".to_owned()],
    };
    skills::insert_version(connection, now, version).await?;
    let evidence = Evidence {
        holdout: Trials { passed: 20, total: 20 },
        novelty: 1.0,
        paired: Some(Paired::default()),
        gate: Some(Outcome::held("unreachable", "r")),
        ..Evidence::default()
    };
    let scores = evidence.scores();
    skills::save_evidence(connection, SKILL, EMPTY_ARCHIVE, &evidence, &scores).await?;
    skills::decide(connection, now, SKILL, EMPTY_ARCHIVE, &Outcome::active("20 of 20.")).await?;
    skills::activate(connection, now, SKILL, EMPTY_ARCHIVE, "0.1.0", run_id, "20 of 20.").await
}

/// One operation of the document.
struct Operation {
    method: Method,
    route: String,
    /// With the examples of its path parameters.
    path: String,
    /// The examples of its query parameters.
    query: Vec<(String, String)>,
    scope: Option<Scope>,
    value: Value,
}

fn document_value() -> Value {
    serde_json::to_value(document()).unwrap()
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn operations() -> Vec<Operation> {
    let document = document_value();
    let mut operations = Vec::new();
    for (route, item) in document["paths"].as_object().unwrap() {
        for (method, value) in item.as_object().unwrap() {
            let method: Method = method.to_uppercase().parse().unwrap();
            let (mut path, mut query) = (route.clone(), Vec::new());
            for parameter in value["parameters"].as_array().into_iter().flatten() {
                let name = parameter["name"].as_str().unwrap();
                let Some(example) = parameter.get("example") else { continue };
                match parameter["in"].as_str().unwrap() {
                    "path" => path = path.replace(&format!("{{{name}}}"), &plain(example)),
                    _ => query.push((name.to_owned(), plain(example))),
                }
            }
            let scope = auth::needed_scope(&method, route);
            let (route, value) = (route.clone(), value.clone());
            operations.push(Operation { method, route, path, query, scope, value });
        }
    }
    assert!(operations.len() >= 20, "the document lost operations");
    operations
}

impl Operation {
    fn name(&self) -> String {
        format!("{} {}", self.method, self.route)
    }

    fn lets_in(&self, scope: Scope, needed: Scope) -> bool {
        auth::is_enough(scope, needed, &self.method, &self.route)
    }

    fn streams(&self) -> bool {
        self.value["responses"]["200"]["content"].get("text/event-stream").is_some()
    }

    /// Checks that an answer is one that the document promises: its status, its content type and
    /// its shape.
    fn check(&self, answer: &Answer) {
        let name = self.name();
        let response = &self.value["responses"][answer.status.as_str()];
        assert!(response.is_object(), "{name} answers {} without saying so", answer.status);
        let kind = answer.headers[header::CONTENT_TYPE].to_str().unwrap();
        let schema = &response["content"][kind]["schema"];
        assert!(schema.is_object(), "{name} answers {} as {kind}", answer.status);
        if kind != "application/json" {
            return;
        }
        let body = answer.json();
        let faults = faults_of(schema, &body);
        assert!(faults.is_empty(), "{name} answers {} with {faults:?}: {body}", answer.status);
    }
}

/// What is wrong with a value by one of the document's schemas.
fn faults_of(schema: &Value, value: &Value) -> Vec<String> {
    let mut schema = schema.clone();
    schema["components"] = document_value()["components"].clone();
    let validator = jsonschema::draft202012::new(&schema).unwrap();
    validator.iter_errors(value).map(|e| format!("{}: {e}", e.instance_path())).collect()
}

#[test]
fn every_operation_has_an_example_and_the_examples_are_true() {
    for operation in operations() {
        let (name, value) = (operation.name(), &operation.value);
        // Its body is a file, and nothing else is asked for.
        if operation.route == "/admin/restore" {
            continue;
        }
        let parameters = value["parameters"].as_array().into_iter().flatten();
        let mut examples = parameters.filter(|p| p.get("example").is_some()).count();
        let answers = &value["responses"]["200"]["content"];
        let (text, answer) =
            (&answers[evo_common::metrics::CONTENT_TYPE], &answers["application/json"]);
        examples += usize::from(text.get("example").is_some());
        for content in [&value["requestBody"]["content"]["application/json"], answer] {
            if let Some(example) = content.get("example") {
                examples += 1;
                let faults = faults_of(&content["schema"], example);
                assert!(faults.is_empty(), "{name}: {faults:?} in {example}");
            }
        }
        assert!(examples > 0, "{name} has no example");
    }
}

#[test]
fn the_document_is_complete() {
    let document = document_value();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    assert_eq!(document["security"], json!([{"bearer": []}]));
    assert_eq!(document["components"]["securitySchemes"]["bearer"]["scheme"], "bearer");
    let tags: Vec<_> = document["tags"].as_array().unwrap().iter().map(|t| &t["name"]).collect();
    let mut ids = std::collections::BTreeSet::new();
    for operation in operations() {
        let (name, value) = (operation.name(), &operation.value);
        let id = value["operationId"].as_str().unwrap_or_else(|| panic!("{name} has no id"));
        assert!(ids.insert(id.to_owned()), "{id} is there twice");
        assert!(id.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{id}");
        let own = value["tags"].as_array().unwrap_or_else(|| panic!("{name} has no tag"));
        assert!(own.len() == 1 && tags.contains(&&own[0]), "{name} has the tags {own:?}");
        for text in ["summary", "description"] {
            assert!(!value[text].as_str().unwrap_or_default().is_empty(), "{name} has no {text}");
        }
        for parameter in value["parameters"].as_array().into_iter().flatten() {
            let parameter_name = &parameter["name"];
            assert!(!parameter["description"].as_str().unwrap_or_default().is_empty());
            if parameter["required"] == json!(true) {
                assert!(parameter.get("example").is_some(), "{name} {parameter_name}");
            }
        }
        let responses = value["responses"].as_object().unwrap();
        assert!(responses.keys().any(|status| status.starts_with('2')), "{name}");
        for (status, response) in responses {
            let content = response["content"].as_object().unwrap();
            assert!(content.values().all(|c| c["schema"].is_object()), "{name} {status}");
            if !status.starts_with('2') {
                let schema = &content["application/json"]["schema"]["$ref"];
                assert_eq!(schema, "#/components/schemas/ErrorBody", "{name} {status}");
            }
        }
        match operation.scope {
            Some(scope) => assert_eq!(value["x-evo-scope"], scope.as_str(), "{name}"),
            None => assert_eq!(value["security"], json!([]), "{name}"),
        }
    }
    assert_eq!(
        operations().iter().filter(|o| o.scope.is_none()).count(),
        2,
        "only /health, /ready"
    );
}

/// Every reference leads somewhere, and every schema is one.
#[test]
fn the_document_refers_to_what_is_there() {
    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                if let Some(Value::String(reference)) = map.get("$ref") {
                    found.push(reference.clone());
                }
                map.values().for_each(|value| references(value, found));
            }
            Value::Array(list) => list.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }
    let document = document_value();
    let mut found = Vec::new();
    references(&document, &mut found);
    assert!(!found.is_empty());
    for reference in found {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
}

/// What a call with the operation's examples looks like.
fn example_call(server: &Server, operation: &Operation) -> http::request::Builder {
    let query: Vec<_> = operation.query.iter().map(|(k, v)| format!("{k}={v}")).collect();
    let path = if query.is_empty() {
        operation.path.clone()
    } else {
        format!("{}?{}", operation.path, query.join("&"))
    };
    server.request(operation.method.clone(), &path)
}

fn example_body(operation: &Operation) -> Body {
    match operation.route.as_str() {
        "/artifacts/{digest}" if operation.method == Method::PUT => {
            artifact::pack(&artifact::Files::new()).unwrap().1.into()
        }
        _ => Body::empty(),
    }
}

#[tokio::test]
async fn every_operation_refuses_strangers_and_wrong_tokens() {
    let server = Server::seeded().await;
    for operation in operations() {
        let name = operation.name();
        let Some(needed) = operation.scope else { continue };
        let refused = async |token: Option<&str>| {
            let mut request = example_call(&server, &operation);
            if let Some(token) = token {
                request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
            }
            let answer = server.send(request.body(example_body(&operation)).unwrap()).await;
            operation.check(&answer);
            (answer.status, answer.code(), answer.headers)
        };
        for token in [None, Some(""), Some("evo_op_0000"), Some("nonsense")] {
            let (status, code, headers) = refused(token).await;
            assert_eq!((status, &*code), (StatusCode::UNAUTHORIZED, "unauthorized"), "{name}");
            assert_eq!(headers[header::WWW_AUTHENTICATE], "Bearer realm=\"evo-king\"", "{name}");
        }
        for scope in Scope::ALL.into_iter().filter(|scope| !operation.lets_in(*scope, needed)) {
            let (status, code, _) = refused(Some(&server.token(scope))).await;
            assert_eq!((status, &*code), (StatusCode::FORBIDDEN, "forbidden"), "{name}");
        }
    }
}

#[tokio::test]
async fn every_operation_lets_the_right_token_in_and_answers_as_documented() {
    for operation in operations() {
        let allowed: Vec<Option<Scope>> = match operation.scope {
            Some(needed) => Scope::ALL
                .into_iter()
                .filter(|scope| operation.lets_in(*scope, needed))
                .map(Some)
                .collect(),
            None => [None].into_iter().chain(Scope::ALL.map(Some)).collect(),
        };
        for scope in allowed {
            for server in [Server::start().await, Server::seeded().await] {
                let mut request = example_call(&server, &operation);
                if let Some(scope) = scope {
                    request = request.header("x-api-key", server.token(scope));
                }
                let request = request.body(example_body(&operation)).unwrap();
                if operation.streams() {
                    // It has no end of its own.
                    server.king.shutdown.cancel();
                }
                let answer = server.send(request).await;
                let refusals = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN];
                assert!(!refusals.contains(&answer.status), "{}", operation.name());
                assert!(answer.status != StatusCode::INTERNAL_SERVER_ERROR, "{}", operation.name());
                operation.check(&answer);
            }
        }
    }
}

/// Learning runs the examples of operations that only read; each must succeed where a cycle runs.
#[tokio::test]
async fn every_example_of_a_read_works_once_a_cycle_runs() {
    let server = Server::seeded().await;
    for operation in operations() {
        // There is no gateway here.
        let of_gateway = operation.path.starts_with("/gateway/");
        if operation.method != Method::GET || operation.streams() || of_gateway {
            continue;
        }
        for query in [true, false] {
            let request = if query {
                example_call(&server, &operation)
            } else {
                server.request(Method::GET, &operation.path)
            };
            let token = server.token(operation.scope.unwrap_or(Scope::Viewer));
            let request = request.header("x-api-key", token);
            let answer = server.send(request.body(Body::empty()).unwrap()).await;
            assert_eq!(answer.status, StatusCode::OK, "{}", operation.name());
            operation.check(&answer);
        }
    }
}

#[tokio::test]
async fn every_refusal_has_the_envelope() {
    let server = Server::seeded().await;
    let json = "application/json";
    let post = |body: &str, kind: &str| {
        server
            .request(Method::POST, "/pipeline/start")
            .header("x-api-key", server.token(Scope::Operator))
            .header(header::CONTENT_TYPE, kind)
            .body(Body::from(body.to_owned()))
            .unwrap()
    };
    let get = |path: &str| {
        server
            .request(Method::GET, path)
            .header("x-api-key", server.token(Scope::Viewer))
            .body(Body::empty())
            .unwrap()
    };
    let large = "x".repeat(BODY_LIMIT + 1);
    let long_id = format!("/pipeline/runs/{}", "x".repeat(200));
    let table = [
        (get("/nothing/here"), 404, "no_such_route"),
        (get("/skills/evo-king-nothing"), 404, "not_found"),
        (get("/skills/Not%20a%20name"), 400, "invalid_parameter"),
        (get("/agents/nobody"), 404, "not_found"),
        (get("/pipeline/runs/run-1"), 404, "not_found"),
        (get(&long_id), 400, "invalid_parameter"),
        (get("/pipeline/cycles/run-1/report"), 404, "not_found"),
        (get("/pipeline/runs/a%2Fb"), 400, "invalid_parameter"),
        (get("/pipeline/runs/%ff"), 400, "invalid_parameter"),
        (get("/pipeline/runs?limit=0"), 400, "invalid_parameter"),
        (get("/pipeline/runs?limit=501"), 400, "invalid_parameter"),
        (get("/pipeline/runs?limit=-1"), 400, "invalid_parameter"),
        (get("/pipeline/runs?kind=bird"), 400, "invalid_parameter"),
        (get("/events?after=-1"), 400, "invalid_parameter"),
        (get("/events?after=x"), 400, "invalid_parameter"),
        (get("/skills?status=bird"), 400, "invalid_parameter"),
        (get("/artifacts/abc"), 400, "invalid_parameter"),
        (get(&format!("/artifacts/{}", "0".repeat(64))), 404, "not_found"),
        (get("/pipeline/start"), 405, "method_not_allowed"),
        (post("{", json), 400, "invalid_json"),
        (post("[]", json), 422, "invalid_field"),
        (post("\"{}\"", json), 422, "invalid_field"),
        (post(r#"{"idempotency_key": 7}"#, json), 422, "invalid_field"),
        (post(r#"{"trigger": {"sources": ["nowhere"]}}"#, json), 422, "invalid_field"),
        (post("{}", "text/plain"), 415, "unsupported_media_type"),
        (post(&large, json), 413, "body_too_large"),
    ];
    for (request, status, code) in table {
        let call = format!("{} {}", request.method(), request.uri());
        let answer = server.send(request).await;
        assert_eq!((answer.status.as_u16(), &*answer.code()), (status, code), "{call}");
    }
    let answer = server.send(post(r#"{"idempotency_key": 7}"#, json)).await;
    assert_eq!(answer.json()["error"]["details"], json!({"field": "idempotency_key"}));
    let answer = server.get("/pipeline/runs?limit=x").await;
    assert_eq!(answer.json()["error"]["details"], json!({"parameter": "limit"}));
    let answer = server.get("/pipeline/start").await;
    assert_eq!(answer.headers[header::ALLOW], "POST");
    let strange = server.request(Method::GET, "/nothing/here").body(Body::empty()).unwrap();
    assert_eq!(server.send(strange).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_panic_becomes_a_fault_without_its_text() {
    async fn broken() -> &'static str {
        panic!("the secret reason")
    }
    let router = Router::new()
        .route("/", axum::routing::get(broken))
        .layer(CatchPanicLayer::custom(error::panicked));
    let response = router.oneshot(Request::new(Body::empty())).await.unwrap();
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
    let body: ErrorBody = serde_json::from_slice(&body).unwrap();
    assert_eq!(body.error.code, "internal");
    assert!(!body.error.message.contains("secret"));
}

#[tokio::test]
async fn an_answer_that_does_not_come_is_a_timeout() {
    let never = std::future::pending::<axum::response::Response>();
    let response = middleware::within(std::time::Duration::from_millis(1), never).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn without_tokens_no_web_page_gets_in() {
    let server = Server::with(|config| config.open = true).await;
    let port = server.king.address.port();
    let call = async |host: String, origin: Option<String>| {
        let mut request = Request::builder().uri("/agents").header(header::HOST, host);
        if let Some(origin) = origin {
            request = request.header(header::ORIGIN, origin);
        }
        let answer = server.send(request.body(Body::empty()).unwrap()).await;
        assert!(answer.headers.get(header::ACCESS_CONTROL_ALLOW_ORIGIN).is_none());
        let code = if answer.status == StatusCode::OK { String::new() } else { answer.code() };
        (answer.status.as_u16(), code)
    };
    let own = format!("localhost:{port}");
    let forbidden = |code: &str| (403, code.to_owned());
    assert_eq!(call(own.clone(), None).await, (200, String::new()));
    assert_eq!(call(own.clone(), Some(format!("http://{own}"))).await, (200, String::new()));
    let evil = || Some("https://evil.example".to_owned());
    assert_eq!(call(own, evil()).await, forbidden("origin_not_allowed"));
    let rebound = format!("evil.example:{port}");
    assert_eq!(call(rebound, None).await, forbidden("host_not_allowed"));
}

#[tokio::test]
async fn the_guard_also_covers_what_is_wrapped_around_the_routes() {
    let server = Server::with(|config| config.open = true).await;
    let router = router_around(server.king.clone(), |routes| {
        routes.layer(layer::from_fn(|request: axum::extract::Request, next: layer::Next| async {
            match request.uri().path() {
                "/socket.io/" => axum::response::IntoResponse::into_response("sockets"),
                _ => next.run(request).await,
            }
        }))
    });
    for (host, status) in [(&*server.host, 200), ("evil.example", 403)] {
        let request = Request::builder().uri("/socket.io/").header(header::HOST, host);
        let response = router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(response.status().as_u16(), status);
    }
}

#[tokio::test]
async fn requests_keep_their_id_and_answers_are_not_stored() {
    let server = Server::start().await;
    let request = server.request(Method::GET, "/health").header("x-request-id", "abc");
    let answer = server.send(request.body(Body::empty()).unwrap()).await;
    assert_eq!(answer.headers["x-request-id"], "abc");
    assert_eq!(answer.headers[header::CACHE_CONTROL], "no-store");
    assert_eq!(answer.headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
    let answer = server.get("/nothing").await;
    assert!(answer.headers["x-request-id"].to_str().unwrap().starts_with("req-"));
}

#[tokio::test]
async fn health_says_when_king_drains() {
    let server = Server::start().await;
    assert_eq!(server.get("/health").await.json()["status"], "ok");
    server.king.shutdown.cancel();
    assert_eq!(server.get("/health").await.json()["status"], "draining");
}

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
