//! What Evotown holds and how it answers. No sockets.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::SystemTime,
};

use evo_common::ids::hex;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Map, Value, json};
use sha2::Sha256;

use super::{Complete, Mode, validate};
use crate::llm::Request;

pub(super) const ADMIN_TOKEN: &str = "town-administrator";
pub(super) const INGEST_TOKEN: &str = "town-ingest-for-all-engines";

/// Bodies above this are too large for the published spec.
const SPEC_MAX_BODY: usize = 1024 * 1024;
const LIFECYCLE: [&str; 3] = ["run.started", "run.progress", "run.completed"];

/// What Evotown holds.
pub(super) struct Town {
    pub(super) mode: Mode,
    pub(super) allow_global_scope: bool,
    /// Nothing but `complete` is there.
    pub(super) only_complete: bool,
    /// The secret that requests are signed with and what stands before a signature.
    pub(super) signed: Option<(String, String)>,
    /// The operator's policies, as `GET /policies` shows them.
    pub(super) policies: Vec<Value>,
    /// Skills that were proposed, by their id.
    pub(super) candidates: BTreeMap<String, Value>,
    pub(super) engines: BTreeMap<String, Engine>,
    pub(super) runs: BTreeMap<String, Value>,
    pub(super) events: Vec<Value>,
    pub(super) violations: Vec<Value>,
    pub(super) completes: Vec<Complete>,
    pub(super) disorder: Vec<String>,
    /// Runs whose end has come, by either call.
    closed: BTreeSet<String>,
    tokens: u64,
}

pub(super) struct Engine {
    pub(super) record: Value,
    token: Option<String>,
}

type Answer = (u16, Value);
type Result<T> = std::result::Result<T, Answer>;

/// Who calls.
enum Caller {
    /// With a signature.
    Signed,
    /// With the token for all engines.
    Global,
    /// With the token of this engine.
    Engine(String),
}

impl Town {
    pub(super) fn new(mode: Mode) -> Self {
        Self {
            mode,
            allow_global_scope: mode == Mode::Spec,
            only_complete: false,
            signed: None,
            policies: policies(),
            candidates: BTreeMap::new(),
            engines: BTreeMap::new(),
            runs: BTreeMap::new(),
            events: Vec::new(),
            violations: Vec::new(),
            completes: Vec::new(),
            disorder: Vec::new(),
            closed: BTreeSet::new(),
            tokens: 0,
        }
    }

    /// Answers a request: status and body.
    pub(super) fn answer(&mut self, request: &Request) -> Answer {
        self.route(request).unwrap_or_else(|refusal| refusal)
    }

    /// Gives an engine a new token; the old one is dead.
    pub(super) fn issue_token(&mut self, engine_id: &str) -> String {
        self.tokens += 1;
        let token = format!("evi_{engine_id}_token_number_{}", self.tokens);
        let engine = self.engines.get_mut(engine_id).expect("a registered engine");
        engine.token = Some(token.clone());
        token
    }

    fn route(&mut self, request: &Request) -> Result<Answer> {
        // As in the real server a slash that was encoded is one again, and so finds no route.
        let path = decode(&request.path);
        let Some(path) = path.strip_prefix("/api/v1/") else { return Err(not_found()) };
        let parts: Vec<&str> = path.split('/').collect();
        let real = self.mode == Mode::Real;
        if !real && request.body.len() > SPEC_MAX_BODY {
            return Err((413, json!({"detail": "payload too large"})));
        }
        if self.only_complete && !matches!(parts.as_slice(), ["runs", _, "complete"]) {
            return Err(not_found());
        }
        let method = request.method.as_str();
        match parts.as_slice() {
            ["engines", "register"] => {
                only(method, "POST")?;
                self.register(request)
            }
            ["engines", engine_id, "heartbeat"] if real => {
                only(method, "POST")?;
                self.caller(request, engine_id)?;
                let engine = self
                    .engines
                    .get(*engine_id)
                    .ok_or_else(|| refused(404, "engine not registered"))?;
                let mut record = engine.record.clone();
                record["online"] = json!(true);
                Ok((200, json!({"ok": true, "engine": record})))
            }
            ["runs", run_id, "complete"] => {
                only(method, "POST")?;
                self.complete(request, run_id)
            }
            ["events"] => {
                only(method, "POST")?;
                self.event(request, None)
            }
            ["runs", run_id, "events"] if method == "POST" => self.event(request, Some(run_id)),
            ["runs", run_id, "status"] if real => {
                only(method, "GET")?;
                self.status(request, run_id)
            }
            ["engines"] => {
                self.admin(request, method)?;
                let engines: Vec<&Value> = self.engines.values().map(|e| &e.record).collect();
                Ok((200, json!({"engines": engines})))
            }
            ["runs"] => {
                self.admin(request, method)?;
                let limit = query(request, "limit").and_then(|text| text.parse::<i64>().ok());
                let limit = usize::try_from(limit.unwrap_or(100).clamp(1, 500)).unwrap_or(1);
                let runs: Vec<&Value> = self.runs.values().take(limit).collect();
                Ok((200, json!({"runs": runs})))
            }
            ["runs", run_id] => {
                self.admin(request, method)?;
                let run = self.runs.get(*run_id).ok_or_else(|| refused(404, "run not found"))?;
                Ok((200, run.clone()))
            }
            ["runs", run_id, "events"] => {
                self.admin(request, method)?;
                if !self.runs.contains_key(*run_id) {
                    return Err(refused(404, "run not found"));
                }
                let mut events: Vec<&Value> =
                    self.events.iter().filter(|event| event["run_id"] == *run_id).collect();
                events.sort_by_key(|event| event["seq"].as_u64());
                Ok((200, json!({"events": events})))
            }
            ["policies"] if real => {
                only(method, "GET")?;
                self.known_bearer(request)?;
                let enabled = query(request, "enabled_only").as_deref() == Some("true");
                let shown: Vec<&Value> = self
                    .policies
                    .iter()
                    .filter(|policy| !enabled || policy["enabled"] == true)
                    .collect();
                Ok((200, json!({"version": 1, "policies": shown})))
            }
            ["skill-candidates"] if real => {
                only(method, "POST")?;
                self.candidate(request)
            }
            ["policy", "violations"] if real => {
                self.admin(request, method)?;
                Ok((200, json!({"violations": self.violations})))
            }
            ["costs", "summary"] if real => {
                self.admin(request, method)?;
                self.costs()
            }
            _ => Err(not_found()),
        }
    }

    fn register(&mut self, request: &Request) -> Result<Answer> {
        let admin = request.header("x-admin-token") == Some(ADMIN_TOKEN);
        if !admin && bearer(request) != Some(INGEST_TOKEN) && !self.is_signed(request) {
            let text = "Register requires X-Admin-Token or IT EVOTOWN_ENGINE_INGEST_TOKEN bearer.";
            return Err(self.unauthorized(text));
        }
        let body = json_body(request)?;
        validate::register(&body).map_err(|faults| (422, json!({"detail": faults})))?;
        let engine_id = text(&body, "engine_id");
        // Everything is reset to what this call says.
        let record = json!({
            "engine_id": engine_id,
            "engine_type": body.get("engine_type").cloned().unwrap_or_else(|| json!("custom")),
            "engine_version": body["engine_version"],
            "display_name": text(&body, "display_name"),
            "owner_team": text(&body, "owner_team"),
            "deployment_kind": body.get("deployment_kind").cloned().unwrap_or_else(|| json!("server")),
            "dispatch_url": body.get("dispatch_url"),
            "capabilities": body.get("capabilities").cloned().unwrap_or_else(|| json!({})),
        });
        let engine = Engine { record: record.clone(), token: None };
        self.engines.insert(engine_id.clone(), engine);
        if self.mode == Mode::Spec {
            return Ok((200, json!({"registered": true, "engine": record})));
        }
        let token = self.issue_token(&engine_id);
        let warning = "Store ingest_token on this machine; shown once.";
        let answer = json!({
            "registered": true, "engine": record,
            "ingest_token": token, "ingest_token_warning": warning,
        });
        Ok((200, answer))
    }

    fn complete(&mut self, request: &Request, run_id: &str) -> Result<Answer> {
        self.known_bearer(request)?;
        let body = json_body(request)?;
        validate::complete(&body).map_err(|faults| (422, json!({"detail": faults})))?;
        let engine_id = text(&body, "engine_id");
        self.caller(request, &engine_id)?;
        self.registered(&engine_id)?;
        if self.mode == Mode::Real {
            self.check_log(&body, run_id)?;
            for file in body["artifact_manifest"].as_array().into_iter().flatten() {
                self.check_file(file, run_id, &engine_id)?;
            }
        }
        let stored = self.runs.get(run_id).cloned();
        let terminal = stored.as_ref().is_some_and(|run| run["status"] != "running");
        if terminal && self.mode == Mode::Spec {
            return Err(refused(409, "run is already terminal"));
        }
        self.completes.push(Complete { run_id: run_id.to_owned(), idempotent: terminal });
        self.closed.insert(run_id.to_owned());
        if let Some(run) = stored.clone().filter(|_| terminal) {
            // The first one wins, whoever sent it and whatever this one says.
            let answer =
                json!({"accepted": true, "idempotent": true, "run_id": run_id, "run": run});
            return Ok((200, answer));
        }
        let mut run = stored.unwrap_or_else(|| {
            let mut run = self.new_run(run_id, &engine_id);
            run["started_at"] = body["finished_at"].clone();
            if let Some(engine) = self.engines.get(&engine_id) {
                run["engine_type"] = engine.record["engine_type"].clone();
            }
            run
        });
        for name in ["engine_version", "status", "finished_at"] {
            run[name] = body[name].clone();
        }
        run["exit_code"] = integer(&body["exit_code"]);
        run["log_excerpt"] = json!(text(&body, "log_excerpt"));
        run["artifact_manifest"] =
            body.get("artifact_manifest").cloned().unwrap_or_else(|| json!([]));
        run["signals"] = body.get("signals").cloned().unwrap_or_else(|| json!({}));
        self.runs.insert(run_id.to_owned(), run.clone());
        Ok((200, json!({"accepted": true, "idempotent": false, "run_id": run_id, "run": run})))
    }

    fn event(&mut self, request: &Request, path_run: Option<&str>) -> Result<Answer> {
        self.known_bearer(request)?;
        let body = json_body(request)?;
        validate::event(&body).map_err(|faults| (422, json!({"detail": faults})))?;
        let (run_id, engine_id) = (text(&body, "run_id"), text(&body, "engine_id"));
        if path_run.is_some_and(|path| path != run_id) {
            return Err(refused(422, "run_id mismatch"));
        }
        self.caller(request, &engine_id)?;
        self.registered(&engine_id)?;
        let event_type = text(&body, "event_type");
        let run = if LIFECYCLE.contains(&event_type.as_str()) {
            self.note_disorder(&run_id, &event_type, body["seq"].as_u64().unwrap_or(0));
            self.upsert(&body, &run_id, &engine_id, &event_type)
        } else if self.runs.contains_key(&run_id) {
            Value::Null
        } else {
            return Err(refused(422, "run not found"));
        };
        if self.mode == Mode::Real {
            // Only now: the run is changed even when the event is refused.
            if event_type == "run.completed" {
                self.check_log(&body, &run_id)?;
            }
            if event_type == "artifact_written" {
                self.check_file(&body["payload"], &run_id, &engine_id)?;
            }
        }
        // Never told apart from an earlier one.
        let mut event = body;
        event["id"] = json!(self.events.len() + 1);
        self.events.push(event.clone());
        Ok((200, json!({"accepted": true, "event": event, "run": run})))
    }

    /// The first one of an id stays.
    fn candidate(&mut self, request: &Request) -> Result<Answer> {
        self.known_bearer(request)?;
        let body = json_body(request)?;
        validate::candidate(&body).map_err(|faults| (422, json!({"detail": faults})))?;
        self.caller(request, &text(&body, "engine_id"))?;
        let id = text(&body, "candidate_id");
        let created = !self.candidates.contains_key(&id);
        let stored = self.candidates.entry(id).or_insert(body);
        Ok((200, json!({"accepted": true, "created": created, "candidate": stored})))
    }

    /// A run as an event makes it: whatever was, it runs again unless the event says otherwise.
    fn upsert(&mut self, body: &Value, run_id: &str, engine_id: &str, event_type: &str) -> Value {
        let completed = event_type == "run.completed";
        let status = match body.get("status").and_then(Value::as_str) {
            Some("running") | None if completed => "succeeded",
            Some(status) => status,
            None => "running",
        };
        let mut run =
            self.runs.get(run_id).cloned().unwrap_or_else(|| self.new_run(run_id, engine_id));
        // Left out it is `custom`, not the type that the engine was registered with.
        run["engine_type"] = body.get("engine_type").cloned().unwrap_or_else(|| json!("custom"));
        for name in ["engine_version", "tenant_id", "team_id", "agent_id", "task_id", "log_excerpt"]
        {
            if !text(body, name).is_empty() {
                run[name] = body[name].clone();
            }
        }
        run["status"] = json!(status);
        if !body["exit_code"].is_null() {
            run["exit_code"] = integer(&body["exit_code"]);
        }
        if event_type == "run.started" {
            run["started_at"] = body["ts"].clone();
        }
        run["finished_at"] = body["ts"].clone();
        for (name, empty) in [("signals", json!({})), ("artifact_manifest", json!([]))] {
            if let Some(value) = body.get(name).filter(|value| **value != empty) {
                run[name] = value.clone();
            }
        }
        self.runs.insert(run_id.to_owned(), run.clone());
        run
    }

    fn new_run(&self, run_id: &str, engine_id: &str) -> Value {
        json!({
            "run_id": run_id, "engine_id": engine_id, "engine_type": "custom",
            "engine_version": self.engines.get(engine_id).map(|e| &e.record["engine_version"]),
            "tenant_id": "", "team_id": "", "agent_id": "", "task_id": "",
            "status": "running", "exit_code": 0, "started_at": "", "finished_at": "",
            "log_excerpt": "", "artifact_manifest": [], "signals": {},
        })
    }

    fn status(&self, request: &Request, run_id: &str) -> Result<Answer> {
        let engine_id = query(request, "engine_id").ok_or_else(|| {
            (422, json!({"detail": [{"loc": ["query", "engine_id"], "msg": "Field required"}]}))
        })?;
        self.caller(request, &engine_id)?;
        let run = self.runs.get(run_id).filter(|run| run["engine_id"] == engine_id);
        let run = run.ok_or_else(|| refused(404, "run not found"))?;
        let fields =
            ["run_id", "engine_id", "status", "exit_code", "log_excerpt", "signals", "finished_at"];
        let shown: Map<String, Value> =
            fields.into_iter().map(|name| (name.to_owned(), run[name].clone())).collect();
        Ok((200, Value::Object(shown)))
    }

    /// One text where a number should be breaks the page for everybody.
    fn costs(&self) -> Result<Answer> {
        let mut total = 0.0;
        for run in self.runs.values() {
            match &run["signals"]["cost_usd"] {
                Value::Null => {}
                cost => {
                    total += cost.as_f64().ok_or_else(|| (500, json!("Internal Server Error")))?;
                }
            }
        }
        Ok((200, json!({"total_cost_usd": total})))
    }

    /// A call must carry some token that is known; whose it is, is looked at later.
    fn known_bearer(&self, request: &Request) -> Result<Caller> {
        if self.is_signed(request) {
            return Ok(Caller::Signed);
        }
        let unknown = || self.unauthorized("Invalid or missing bearer token.");
        let token = bearer(request).ok_or_else(unknown)?;
        if token == INGEST_TOKEN {
            return Ok(Caller::Global);
        }
        let engine = self.engines.iter().find(|(_, engine)| engine.token.as_deref() == Some(token));
        engine.map(|(id, _)| Caller::Engine(id.clone())).ok_or_else(unknown)
    }

    /// Whether a request carries a good signature, where signatures are taken.
    fn is_signed(&self, request: &Request) -> bool {
        let Some((secret, prefix)) = &self.signed else { return false };
        let moment = request.header("x-evotown-timestamp").and_then(|at| at.parse::<u64>().ok());
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let (Some(moment), Ok(now)) = (moment, now) else { return false };
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("any key is taken");
        mac.update(format!("{moment}.").as_bytes());
        mac.update(&request.body);
        let wanted = format!("{prefix}{}", hex(&mac.finalize().into_bytes()));
        now.as_secs().abs_diff(moment) <= 300
            && request.header("x-evotown-signature") == Some(wanted.as_str())
    }

    /// Whether the caller may speak for an engine.
    fn caller(&self, request: &Request, engine_id: &str) -> Result<()> {
        match self.known_bearer(request)? {
            Caller::Signed => Ok(()),
            Caller::Global if self.allow_global_scope => Ok(()),
            Caller::Global => {
                Err(refused(403, "IT global ingest token cannot call per-engine APIs."))
            }
            Caller::Engine(own) if own == engine_id => Ok(()),
            Caller::Engine(_) => Err(refused(
                403,
                &format!("ingest token is not authorized for engine_id '{engine_id}'"),
            )),
        }
    }

    fn registered(&self, engine_id: &str) -> Result<()> {
        if self.only_complete || self.engines.contains_key(engine_id) {
            return Ok(());
        }
        Err(refused(422, &format!("engine_id '{engine_id}' is not registered")))
    }

    fn unauthorized(&self, detail: &str) -> Answer {
        match self.mode {
            Mode::Real => refused(403, detail),
            Mode::Spec => refused(401, "Missing or invalid auth"),
        }
    }

    /// The spec shows no auth for these, the real server asks for the administrator's token.
    fn admin(&self, request: &Request, method: &str) -> Result<()> {
        only(method, "GET")?;
        let admin = request.header("x-admin-token") == Some(ADMIN_TOKEN);
        if admin || self.mode == Mode::Spec {
            return Ok(());
        }
        Err(refused(403, "Invalid or missing credentials."))
    }

    /// The rules of the enabled policies of some categories, with their ids.
    fn rules(&self, categories: &[&str]) -> Vec<(String, Value)> {
        self.policies
            .iter()
            .filter(|policy| policy["enabled"] == true)
            .filter(|policy| categories.contains(&text(policy, "category").as_str()))
            .map(|policy| (text(policy, "policy_id"), policy["rules"].clone()))
            .collect()
    }

    fn check_log(&mut self, body: &Value, run_id: &str) -> Result<()> {
        let log = text(body, "log_excerpt").to_lowercase();
        for (policy, rules) in self.rules(&["security", "artifact"]) {
            if let Some(word) =
                list(&rules, "redact_patterns").into_iter().find(|w| log.contains(w))
            {
                let message = format!("log_excerpt holds {word}");
                return Err(self.violation(&policy, run_id, &text(body, "engine_id"), &message));
            }
        }
        Ok(())
    }

    fn check_file(&mut self, file: &Value, run_id: &str, engine_id: &str) -> Result<()> {
        let path = text(file, "path");
        let name = path.trim_end_matches('/').rsplit('/').next().unwrap_or(&path);
        let extension = match name.trim_start_matches('.').rsplit_once('.') {
            Some((_, extension)) if !extension.is_empty() => {
                Some(format!(".{}", extension.to_lowercase()))
            }
            _ => None,
        };
        for (policy, rules) in self.rules(&["artifact"]) {
            let (allowed, blocked) =
                (list(&rules, "allowed_extensions"), list(&rules, "blocked_extensions"));
            let most = rules["max_bytes"].as_u64().unwrap_or(0);
            let message = match &extension {
                _ if most > 0 && file["bytes"].as_u64().unwrap_or(0) > most => {
                    format!("artifact is too large: {path}")
                }
                Some(extension)
                    if blocked.contains(extension)
                        || !(allowed.is_empty() || allowed.contains(extension)) =>
                {
                    format!("artifact extension {extension} is not allowed: {path}")
                }
                _ => continue,
            };
            return Err(self.violation(&policy, run_id, engine_id, &message));
        }
        Ok(())
    }

    /// Every refusal stays open on the operator's risk page.
    fn violation(&mut self, policy: &str, run_id: &str, engine_id: &str, message: &str) -> Answer {
        self.violations.push(json!({
            "policy_id": policy, "run_id": run_id, "engine_id": engine_id, "severity": "critical",
            "action": "blocked", "status": "open", "message": message,
        }));
        let policy = json!({"policy_id": policy, "allowed": false, "action": "blocked"});
        (403, json!({"detail": {"policy": policy, "message": message}}))
    }

    fn note_disorder(&mut self, run_id: &str, event_type: &str, seq: u64) {
        let last = self
            .events
            .iter()
            .filter(|event| event["run_id"] == run_id)
            .filter_map(|event| event["seq"].as_u64())
            .max();
        if self.closed.contains(run_id) && event_type != "run.completed" {
            self.disorder.push(format!("{event_type} {seq} of {run_id} after its end"));
        }
        if event_type == "run.completed" {
            self.closed.insert(run_id.to_owned());
        }
        let expected = last.map_or(0, |last| last + 1);
        // A repeat of the last one is what "at least once" allows.
        if seq != expected && Some(seq) != last {
            self.disorder.push(format!("{event_type} {seq} of {run_id}, expected was {expected}"));
        }
    }
}

/// What an Evotown begins with.
fn policies() -> Vec<Value> {
    let policy = |id: &str, category: &str, rules: Value| {
        json!({
            "policy_id": id, "category": category, "name": id, "description": "",
            "enabled": true, "rules": rules,
        })
    };
    vec![
        policy(
            "artifact-limits",
            "artifact",
            json!({
                "max_bytes": 52_428_800,
                "allowed_extensions": [".txt", ".md", ".json", ".zip", ".pdf", ".png"],
                "blocked_extensions": [".exe", ".dll", ".sh"],
            }),
        ),
        policy("network-domains", "network", json!({"deny_domains": []})),
        policy(
            "secret-redaction",
            "security",
            json!({
                "redact_patterns": ["api_key", "bearer", "sk-", "evk_", "evi_"],
                "block_secret_in_artifacts": true,
            }),
        ),
    ]
}

/// A list of texts in lower case.
fn list(rules: &Value, name: &str) -> Vec<String> {
    let entries = rules[name].as_array().into_iter().flatten();
    entries.filter_map(Value::as_str).map(str::to_lowercase).collect()
}

fn only(method: &str, allowed: &str) -> Result<()> {
    if method == allowed { Ok(()) } else { Err(refused(405, "Method Not Allowed")) }
}

fn refused(status: u16, detail: &str) -> Answer {
    (status, json!({"detail": detail}))
}

fn not_found() -> Answer {
    refused(404, "Not Found")
}

fn bearer(request: &Request) -> Option<&str> {
    request.header("authorization")?.strip_prefix("Bearer ")
}

/// Compressed bodies are not supported.
fn json_body(request: &Request) -> Result<Value> {
    serde_json::from_slice(&request.body)
        .map_err(|_| refused(400, "There was an error parsing the body"))
}

fn text(body: &Value, name: &str) -> String {
    body.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn integer(value: &Value) -> Value {
    match value.as_str() {
        Some(text) => json!(text.parse::<i64>().unwrap_or(0)),
        None => value.clone(),
    }
}

fn query(request: &Request, name: &str) -> Option<String> {
    let pair = request.query.split('&').find_map(|pair| pair.strip_prefix(&format!("{name}=")));
    pair.map(decode)
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = match tail {
            [a, b, ..] if *first == b'%' => {
                std::str::from_utf8(&[*a, *b]).ok().and_then(|hex| u8::from_str_radix(hex, 16).ok())
            }
            _ => None,
        };
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
