//! An event log and packages behind HTTP, as king serves them.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::{
    Json, Router,
    extract::{Path, Query, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse as _, Response},
    routing::get,
};
use evo_common::{
    api::{EventList, EventRecord},
    artifact,
    clock::Timestamp,
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::task::JoinSet;

pub(crate) const VIEWER: &str = "viewer-token";
/// When everything happens.
pub(crate) const AT: &str = "2026-01-01T00:00:00.000Z";

/// A king that runs nothing: tests write its log.
pub(crate) struct King {
    log: Arc<Log>,
    url: String,
    // Ends with it.
    _server: JoinSet<()>,
}

#[derive(Default)]
struct Log {
    down: AtomicBool,
    damaged: AtomicBool,
    changing: AtomicBool,
    entries: Mutex<Entries>,
}

#[derive(Default)]
struct Entries {
    events: Vec<EventRecord>,
    archives: BTreeMap<String, Vec<u8>>,
    ended: Vec<String>,
    /// Events up to this one are taken away.
    pruned: i64,
    /// How often the log began anew, which changes the moments in it.
    replaced: i64,
}

impl King {
    pub(crate) async fn start() -> Self {
        let log = Arc::new(Log::default());
        let routes = Router::new()
            .route("/events", get(events))
            .route("/artifacts/{digest}", get(package))
            .with_state(log.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, routes).await.unwrap() });
        Self { log, url, _server: server }
    }

    pub(crate) fn url(&self) -> String {
        self.url.clone()
    }

    pub(crate) fn set_down(&self, down: bool) {
        self.log.down.store(down, Ordering::SeqCst);
    }

    /// Lets the files of all packages be damaged.
    pub(crate) fn damage_packages(&self) {
        self.log.damaged.store(true, Ordering::SeqCst);
    }

    /// From now on the log is another one with each request.
    pub(crate) fn change_moments(&self) {
        self.log.changing.store(true, Ordering::SeqCst);
    }

    /// Runs that have ended, cycles too.
    pub(crate) fn ended(&self) -> Vec<String> {
        self.entries().ended.clone()
    }

    /// Takes away the events up to this one.
    pub(crate) fn prune(&self, last: i64) {
        let mut entries = self.entries();
        entries.events.retain(|event| event.seq > last);
        entries.pruned = last;
    }

    /// The database is replaced by an empty one.
    pub(crate) fn replace_log(&self) {
        let mut entries = self.entries();
        entries.events.clear();
        entries.replaced += 1;
    }

    pub(crate) fn cycle_started(&self, run_id: &str) {
        self.append("cycle.started", run_id, json!({"trigger": {}}));
    }

    pub(crate) fn cycle_ended(&self, run_id: &str) {
        self.append("cycle.ended", run_id, json!({"status": "completed", "outcome": null}));
        self.entries().ended.push(run_id.to_owned());
    }

    pub(crate) fn run_started(&self, run_id: &str, cycle: &str) {
        let payload = json!({"name": run_id, "locator": "GET /x", "parent_run_id": cycle});
        self.append("run.started", run_id, payload);
    }

    /// A whole run with three stages and a package.
    pub(crate) fn run(&self, run_id: &str, cycle: &str, decision: &str) {
        let package = &self.package(&[("SKILL.md", "# A skill"), ("manifest.toml", "name = 1")]);
        self.run_started(run_id, cycle);
        for stage in ["building", "evaluation", "skill_manage"] {
            let output = match stage {
                "evaluation" => json!({"overall_score": 0.7}),
                _ => Value::Null,
            };
            self.stage(run_id, stage, package, &output);
        }
        if decision == "active" {
            let payload = json!({"name": run_id, "version": "0.1.0", "artifact_id": package});
            self.append("skill.activated", run_id, payload);
        }
        self.run_ended(run_id, "completed", decision, "passed");
    }

    /// A run that goes on after a failed stage whose error and output hold these.
    pub(crate) fn run_saying(&self, run_id: &str, error: &str, output: Value) {
        let package = &self.package(&[("SKILL.md", "# A skill"), ("manifest.toml", "name = 1")]);
        self.run_started(run_id, "cycle");
        let payload = json!({
            "run_id": run_id, "stage": "building", "agent_id": "evo-building", "status": "failed",
            "artifact_id": "", "output": output, "error": error, "attempt": 1, "candidate": run_id,
        });
        self.append("stage.failed", run_id, payload);
        let payload = json!({
            "run_id": run_id, "stage": "building", "agent_id": "evo-building",
            "status": "completed", "artifact_id": package, "output": output, "error": null,
            "attempt": 2, "candidate": run_id,
        });
        self.append("stage.completed", run_id, payload);
        self.run_ended(run_id, "completed", "held", "no_oracle");
    }

    /// A version of a skill comes into use by a person.
    pub(crate) fn activate(&self, run_id: &str, skill: &str) {
        let payload = json!({"name": skill, "version": "0.1.0", "artifact_id": "a".repeat(64)});
        self.append("skill.activated", run_id, payload);
    }

    pub(crate) fn run_failed(&self, run_id: &str, cycle: &str) {
        self.run_started(run_id, cycle);
        self.run_ended(run_id, "failed", "failed", "stage_failed");
    }

    fn package(&self, files: &[(&str, &str)]) -> String {
        let files = files
            .iter()
            .map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec()))
            .collect();
        let (id, archive) = artifact::pack(&files).unwrap();
        self.entries().archives.insert(id.to_string(), archive);
        id.to_string()
    }

    fn stage(&self, run_id: &str, stage: &str, package: &str, output: &Value) {
        let payload = json!({
            "run_id": run_id, "stage": stage, "agent_id": format!("evo-{stage}"),
            "status": "completed", "artifact_id": package, "output": output, "error": null,
            "attempt": 1, "candidate": run_id,
        });
        self.append("stage.completed", run_id, payload);
    }

    fn run_ended(&self, run_id: &str, status: &str, decision: &str, code: &str) {
        let outcome = json!({"decision": decision, "code": code, "reason": "because"});
        let payload = json!({"name": run_id, "status": status, "outcome": outcome});
        self.append("run.ended", run_id, payload);
        self.entries().ended.push(run_id.to_owned());
    }

    fn append(&self, kind: &str, run_id: &str, payload: Value) {
        let mut entries = self.entries();
        let at = Timestamp::parse_rfc3339(AT).unwrap();
        let record = EventRecord {
            seq: i64::try_from(entries.events.len()).unwrap() + 1,
            at: Timestamp(at.0 + entries.replaced).to_rfc3339(),
            kind: kind.to_owned(),
            run_id: Some(run_id.to_owned()),
            agent_id: None,
            payload,
        };
        entries.events.push(record);
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.log.entries()
    }
}

impl Log {
    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why a request is not answered as asked.
    fn refusal(&self, headers: &HeaderMap) -> Option<StatusCode> {
        let bearer = headers.get("authorization").and_then(|value| value.to_str().ok());
        if self.down.load(Ordering::SeqCst) {
            Some(StatusCode::SERVICE_UNAVAILABLE)
        } else if bearer != Some(&format!("Bearer {VIEWER}")) {
            Some(StatusCode::UNAUTHORIZED)
        } else {
            None
        }
    }
}

#[derive(Deserialize)]
struct Page {
    after: i64,
    limit: usize,
}

async fn events(
    State(log): State<Arc<Log>>,
    Query(page): Query<Page>,
    headers: HeaderMap,
) -> Response {
    if let Some(status) = log.refusal(&headers) {
        return status.into_response();
    }
    assert!((1..=500).contains(&page.limit), "king takes no other limit");
    let mut entries = log.entries();
    if page.after > 0 && page.after < entries.pruned {
        let details = json!({"oldest_seq": entries.pruned + 1});
        let error = json!({"code": "events_pruned", "message": "Gone.", "details": details});
        return (StatusCode::GONE, Json(json!({"error": error}))).into_response();
    }
    let after = entries.events.iter().filter(|event| event.seq > page.after);
    let mut events: Vec<EventRecord> = after.take(page.limit).cloned().collect();
    if log.changing.load(Ordering::SeqCst) {
        entries.replaced += 1;
        let at = Timestamp(entries.replaced).to_rfc3339();
        for event in &mut events {
            event.at.clone_from(&at);
        }
    }
    let last_seq = events.last().map_or(page.after, |event| event.seq);
    Json(EventList { count: events.len(), events, last_seq }).into_response()
}

async fn package(
    State(log): State<Arc<Log>>,
    Path(digest): Path<String>,
    headers: HeaderMap,
) -> Response {
    if let Some(status) = log.refusal(&headers) {
        return status.into_response();
    }
    if log.damaged.load(Ordering::SeqCst) {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    match log.entries().archives.get(&digest) {
        Some(archive) => archive.clone().into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}
