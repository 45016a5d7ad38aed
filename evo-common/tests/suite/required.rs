//! A missing or malformed required field is an error that names it, never a default.

use evo_common::messages::{
    AgentHeartbeat, AgentRegistration, CommandProgress, CommandResult, DebugPrompt, DebugResponse,
    DebugStream, DecodeError, DecomposeDispatch, DecomposeReport, EvaluateDispatch, KingWelcome,
    MemoryQuery, MemoryStore, PipelineNext, PipelineStageResult, RecoveryDispatch, RecoveryReport,
    SkillCall, StageDispatch, StageReport, SummaryReport, TaskCancel, TaskCreation, TaskDispatch,
    TaskEdit, TaskJoin, TaskList, TaskOutput, TaskReport, decode, events,
};
use proptest::prelude::*;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

fn golden(name: &str) -> Value {
    let path = super::golden::folder().join(format!("{name}.json"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn check<T: DeserializeOwned>(name: &str, required: &[&str]) {
    let message = golden(name);
    decode::<T>("x", message.clone()).unwrap_or_else(|error| panic!("{name}: {error}"));
    for field in required {
        let mut broken = message.clone();
        assert!(broken.as_object_mut().unwrap().remove(*field).is_some(), "{name}.{field}");
        let error = match decode::<T>("x", broken) {
            Ok(_) => panic!("{name} is accepted without {field}"),
            Err(error) => error.to_string(),
        };
        assert!(error.contains(&format!("missing field `{field}`")), "{name}.{field}: {error}");
        let mut broken = message.clone();
        broken[*field] = Value::Null;
        let null = decode::<T>("x", broken);
        assert!(null.is_err() || *field == "output", "{name} is accepted with {field} = null");
    }
}

#[test]
fn required_fields_have_no_default() {
    check::<AgentRegistration>("agent_registration", &["agent_id", "role", "capabilities"]);
    check::<AgentHeartbeat>("agent_heartbeat", &["agent_id", "status"]);
    check::<SkillCall>("skill_call", &["agent_id", "skill_id", "result"]);
    check::<PipelineNext>("pipeline_next", &["stage", "artifact_id", "metadata"]);
    check::<StageDispatch>(
        "stage_dispatch",
        &["stage", "artifact_id", "metadata", "run_id", "attempt", "deadline_ms"],
    );
    let result = ["run_id", "stage", "agent_id", "status", "artifact_id", "output"];
    check::<PipelineStageResult>("pipeline_stage_result.completed", &result);
    check::<StageReport>("stage_report.completed", &result);
    check::<KingWelcome>("king_welcome", &["king_version", "protocol", "heartbeat_ms"]);
    check::<CommandResult>("command_result.output", &["req_id", "agent_id"]);
    check::<CommandProgress>("command_progress", &["req_id", "agent_id", "step", "message"]);
}

#[test]
fn required_fields_of_extended_messages_have_no_default() {
    check::<TaskCreation>("task_creation", &["task_type"]);
    check::<TaskEdit>("task_edit", &["task_id"]);
    check::<TaskReport>("task_report.completed", &["task_id", "attempt"]);
    check::<TaskDispatch>(
        "task_dispatch",
        &["task_id", "task_type", "agent_id", "attempt", "deadline_ms"],
    );
    check::<TaskJoin>("task_join", &["task_id"]);
    check::<TaskCancel>("task_cancel", &["task_id", "attempt", "reason"]);
    check::<TaskOutput>("task_output", &["task_id", "request_id", "delta", "chunk_index"]);
    check::<EvaluateDispatch>("evaluate_dispatch", &["task_id", "request_id", "deadline_ms"]);
    check::<SummaryReport>("summary_report", &["task_id", "agent_id", "summary"]);
    check::<RecoveryDispatch>(
        "recovery_dispatch",
        &["request_id", "run_id", "task_id", "failed_stage", "error_message", "deadline_ms"],
    );
    check::<RecoveryReport>("recovery_report", &["request_id", "run_id", "task_id", "action"]);
    check::<DecomposeDispatch>(
        "decompose_dispatch",
        &["request_id", "task_id", "task_type", "summary", "deadline_ms"],
    );
    check::<DecomposeReport>("decompose_report", &["request_id", "task_id"]);
    check::<MemoryStore>("memory_store", &["scope", "category"]);
    check::<MemoryQuery>("memory_query", &["query"]);
    check::<DebugPrompt>("debug_prompt", &["request_id", "model", "prompt"]);
    check::<DebugStream>("debug_stream", &["request_id", "delta", "chunk_index"]);
    check::<DebugResponse>("debug_response", &["request_id", "agent_id", "model"]);
}

#[test]
fn errors_say_where_and_what() {
    let error = |payload: Value| -> DecodeError {
        decode::<AgentRegistration>(events::AGENT_REGISTER, payload).unwrap_err()
    };
    let wrong = error(json!({"agent_id": "a", "role": "teacher", "capabilities": []}));
    assert!(wrong.to_string().contains("unknown role \"teacher\": use learning,"), "{wrong}");
    let wrong = error(json!({
        "agent_id": "a", "role": "learning", "capabilities": [],
        "in_hand": [{"run_id": "r", "stage": "cooking", "attempt": 1}]
    }));
    assert_eq!(wrong.path, "in_hand[0].stage");
    assert!(wrong.message.starts_with("unknown stage \"cooking\""), "{wrong}");
    assert_eq!(
        error(json!("{not json")).to_string(),
        "agent:register: field `.`: a text that is not JSON: key must be a string at line 1 column 2"
    );
    let wrong = error(json!([1]));
    assert!(wrong.message.contains("expected"), "{wrong}");
}

#[test]
fn what_a_wrapper_flattens_is_not_kept_twice() {
    let registration: AgentRegistration =
        decode(events::AGENT_REGISTER, golden("agent_registration")).unwrap();
    assert_eq!(registration.extra.keys().collect::<Vec<_>>(), ["preferred_model"]);
}

fn any_json() -> impl Strategy<Value = Value> {
    let names = prop_oneof![
        Just("agent_id".to_owned()),
        Just("role".to_owned()),
        Just("status".to_owned()),
        Just("stage".to_owned()),
        Just("metadata".to_owned()),
        Just("url".to_owned()),
        Just("user".to_owned()),
        Just("task_id".to_owned()),
        Just("payload".to_owned()),
        Just("attempt".to_owned()),
        any::<String>(),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        Just(Value::from("learning")),
        Just(Value::from("{\"agent_id\":1}")),
    ];
    leaf.prop_recursive(4, 64, 8, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            proptest::collection::hash_map(names.clone(), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn decoding_never_panics(payload in any_json()) {
        let text = Value::String(payload.to_string());
        for payload in [payload, text] {
            drop(decode::<AgentRegistration>(events::AGENT_REGISTER, payload.clone()));
            drop(decode::<AgentHeartbeat>(events::AGENT_STATUS, payload.clone()));
            drop(decode::<evo_common::messages::AgentHealth>(events::AGENT_HEALTH, payload.clone()));
            drop(decode::<SkillCall>(events::AGENT_SKILL_REPORT, payload.clone()));
            drop(decode::<StageDispatch>(events::PIPELINE_NEXT, payload.clone()));
            drop(decode::<StageReport>(events::PIPELINE_STAGE_RESULT, payload.clone()));
            drop(decode::<TaskCreation>(events::TASK_CREATE, payload.clone()));
            drop(decode::<TaskReport>(events::TASK_UPDATE, payload.clone()));
            drop(decode::<TaskList>(events::TASK_LIST, payload.clone()));
            drop(decode::<RecoveryReport>(events::ERROR_RECOVERY_RESPONSE, payload.clone()));
            drop(decode::<MemoryStore>(events::MEMORY_STORE, payload.clone()));
            drop(decode::<evo_common::messages::Reply>(events::KING_REPLY, payload));
        }
    }
}
