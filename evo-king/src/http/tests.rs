//! The HTTP API, called as a client does, without a network between.

mod agents;
mod calls;
mod gone;
mod memories;
mod operations;
mod refusals;
mod resources;
mod surface;
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
    rollout::VersionRef,
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
    config::{Config, SkillsConfig},
    skills::lifecycle,
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
        let folder = folder();
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
        Self::with_seed(|_| {}).await
    }

    /// The same with another configuration.
    async fn with_seed(change: impl FnOnce(&mut Config)) -> Self {
        let server = Self::with(change).await;
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

/// A folder in memory where the machine has such: opening a king waits for the disk several times, and
/// nothing here has to outlive a crash.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
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
        provenance: None,
        classes: &[],
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
    skills::state::passed(connection, SKILL, EMPTY_ARCHIVE).await?;
    let version = VersionRef { artifact_id: EMPTY_ARCHIVE.to_owned(), version: "0.1.0".to_owned() };
    let config = SkillsConfig::default();
    lifecycle::start(connection, now, &config, SKILL, &version, None, "20 of 20.").await?;
    Ok(())
}

/// A value as it stands in an address.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
