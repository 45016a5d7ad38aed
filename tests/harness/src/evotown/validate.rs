//! What Evotown's models take. A refusal lists every field with what is wrong with it.

use serde_json::{Map, Value, json};

const ENGINE_TYPES: &[&str] =
    &["openclaw", "hermes", "skilllite", "custom", "hosted_coding", "agent-doctor"];
const DEPLOYMENTS: &[&str] = &["laptop", "server", "ci", "container"];
const TERMINAL: &[&str] = &["succeeded", "failed", "cancelled"];
const STATUSES: &[&str] = &["running", "succeeded", "failed", "cancelled"];
const EVENT_TYPES: &[&str] = &[
    "run.started",
    "run.progress",
    "run.completed",
    "run_started",
    "step_started",
    "user_message",
    "assistant_message",
    "tool_call",
    "tool_result",
    "model_call",
    "artifact_written",
    "policy_violation",
    "run_finished",
];
const MAX_ID: usize = 128;
const MAX_LOG: usize = 65_536;

/// Reads fields and gathers what is wrong with them.
struct Check<'b> {
    body: &'b Map<String, Value>,
    faults: Vec<Value>,
}

/// `POST /engines/register`.
pub(super) fn register(body: &Value) -> Result<(), Value> {
    let mut check = Check::of(body)?;
    check.id("engine_id", true);
    check.id("engine_version", true);
    check.one_of("engine_type", ENGINE_TYPES, false);
    check.one_of("deployment_kind", DEPLOYMENTS, false);
    check.text("display_name", usize::MAX, false);
    check.text("owner_team", usize::MAX, false);
    check.object("capabilities");
    check.done()
}

/// `POST /runs/{run_id}/complete`.
pub(super) fn complete(body: &Value) -> Result<(), Value> {
    let mut check = Check::of(body)?;
    check.id("engine_id", true);
    check.id("engine_version", true);
    check.one_of("status", TERMINAL, true);
    check.integer("exit_code", true, i64::MIN);
    check.text("finished_at", usize::MAX, true);
    check.outcome();
    check.done()
}

/// `POST /events`.
pub(super) fn event(body: &Value) -> Result<(), Value> {
    let mut check = Check::of(body)?;
    check.id("run_id", true);
    check.id("engine_id", true);
    check.one_of("event_type", EVENT_TYPES, true);
    check.text("ts", usize::MAX, true);
    check.integer("seq", false, 0);
    for id in ["tenant_id", "team_id", "agent_id", "task_id", "engine_version"] {
        check.text(id, MAX_ID, false);
    }
    check.one_of("engine_type", ENGINE_TYPES, false);
    if !check.body.get("status").is_some_and(Value::is_null) {
        check.one_of("status", STATUSES, false);
    }
    if !check.body.get("exit_code").is_some_and(Value::is_null) {
        check.integer("exit_code", false, i64::MIN);
    }
    check.outcome();
    check.object("payload");
    check.done()
}

/// `POST /skill-candidates`.
pub(super) fn candidate(body: &Value) -> Result<(), Value> {
    let mut check = Check::of(body)?;
    for id in ["candidate_id", "source_run_id", "engine_id", "name"] {
        check.id(id, true);
    }
    for id in ["tenant_id", "team_id", "agent_id"] {
        check.text(id, MAX_ID, false);
    }
    check.one_of("runtime_target", &["openclaw", "hermes", "skilllite", "custom"], true);
    check.text("description", 2_000, false);
    check.object("inline_manifest");
    check.object("signals");
    check.done()
}

impl<'b> Check<'b> {
    fn of(body: &'b Value) -> Result<Self, Value> {
        match body.as_object() {
            Some(body) => Ok(Self { body, faults: Vec::new() }),
            None => Err(json!([{"loc": ["body"], "msg": "Input should be a valid dictionary"}])),
        }
    }

    fn fault(&mut self, name: &str, message: &str) {
        self.faults.push(json!({"type": "value_error", "loc": ["body", name], "msg": message}));
    }

    /// The field, if it is there; a needed one that is not is a fault.
    fn field(&mut self, name: &str, needed: bool) -> Option<&'b Value> {
        let value = self.body.get(name);
        if value.is_none() && needed {
            self.fault(name, "Field required");
        }
        value
    }

    fn id(&mut self, name: &str, needed: bool) {
        if self.field(name, needed).and_then(Value::as_str) == Some("") {
            self.fault(name, "String should have at least 1 character");
        }
        self.text(name, MAX_ID, false);
    }

    /// Lengths count characters, not bytes.
    fn text(&mut self, name: &str, most: usize, needed: bool) {
        match self.field(name, needed).map(Value::as_str) {
            None => {}
            Some(None) => self.fault(name, "Input should be a valid string"),
            Some(Some(text)) if text.chars().count() > most => {
                self.fault(name, &format!("String should have at most {most} characters"));
            }
            Some(Some(_)) => {}
        }
    }

    fn one_of(&mut self, name: &str, known: &[&str], needed: bool) {
        let Some(value) = self.field(name, needed) else { return };
        if !value.as_str().is_some_and(|text| known.contains(&text)) {
            self.fault(name, &format!("Input should be one of {}", known.join(", ")));
        }
    }

    /// A text of digits is taken as a number.
    fn integer(&mut self, name: &str, needed: bool, least: i64) {
        let Some(value) = self.field(name, needed) else { return };
        let number = value.as_i64().or_else(|| value.as_str().and_then(|text| text.parse().ok()));
        match number {
            None => self.fault(name, "Input should be a valid integer"),
            Some(number) if number < least => {
                self.fault(name, &format!("Input should be greater than or equal to {least}"));
            }
            Some(_) => {}
        }
    }

    fn object(&mut self, name: &str) {
        if self.field(name, false).is_some_and(|value| !value.is_object()) {
            self.fault(name, "Input should be a valid dictionary");
        }
    }

    /// What a complete and an event have in common.
    fn outcome(&mut self) {
        self.text("log_excerpt", MAX_LOG, false);
        self.object("signals");
        let Some(manifest) = self.field("artifact_manifest", false) else { return };
        let Some(files) = manifest.as_array() else {
            return self.fault("artifact_manifest", "Input should be a valid list");
        };
        for file in files {
            let path = file["path"].as_str().is_some_and(|path| !path.is_empty());
            let digest = file["sha256"].as_str().is_some_and(|text| {
                let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
                text.len() == 64 && text.bytes().all(hex)
            });
            if !path || !digest || file["bytes"].as_u64().is_none() {
                self.fault("artifact_manifest", "every file needs path, sha256 and bytes");
            }
        }
    }

    fn done(self) -> Result<(), Value> {
        if self.faults.is_empty() { Ok(()) } else { Err(Value::Array(self.faults)) }
    }
}
