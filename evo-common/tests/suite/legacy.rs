//! Older shapes under `tests/golden/legacy`: each file says which type it is, what comes in and
//! what it means today.

use evo_common::messages::{
    AgentHealth, AgentHeartbeat, AgentRegister, AgentRegistration, AgentStatus, DebugPrompt,
    DebugResponse, DecomposeReport, HealthCheck, KingCommand, MemoryQuery, MemoryStore,
    MemoryUpdate, PipelineNext, PipelineStageResult, RecoveryReport, StageReport, SummaryReport,
    TaskChanged, TaskCreate, TaskCreation, TaskEdit, TaskInvite, TaskJoin, TaskList, TaskLog,
    TaskOutput, TaskUpdate,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Legacy {
    r#type: String,
    input: Value,
    expected: Value,
}

fn canonical<T: DeserializeOwned + Serialize>(input: &Value) -> Result<Value, String> {
    let message: T = T::deserialize(input).map_err(|error| error.to_string())?;
    Ok(serde_json::to_value(message).unwrap())
}

#[test]
fn older_shapes_are_understood() {
    let mut faults = Vec::new();
    let mut files: Vec<_> = std::fs::read_dir(super::golden::folder().join("legacy"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(files.len() >= 10);
    for path in files {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let legacy: Legacy =
            serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let read = match legacy.r#type.as_str() {
            "AgentRegister" => canonical::<AgentRegister>,
            "AgentRegistration" => canonical::<AgentRegistration>,
            "AgentStatus" => canonical::<AgentStatus>,
            "AgentHeartbeat" => canonical::<AgentHeartbeat>,
            "AgentHealth" => canonical::<AgentHealth>,
            "HealthCheck" => canonical::<HealthCheck>,
            "KingCommand" => canonical::<KingCommand>,
            "PipelineNext" => canonical::<PipelineNext>,
            "PipelineStageResult" => canonical::<PipelineStageResult>,
            "StageReport" => canonical::<StageReport>,
            "DebugPrompt" => canonical::<DebugPrompt>,
            "DebugResponse" => canonical::<DebugResponse>,
            "DecomposeReport" => canonical::<DecomposeReport>,
            "MemoryQuery" => canonical::<MemoryQuery>,
            "MemoryStore" => canonical::<MemoryStore>,
            "MemoryUpdate" => canonical::<MemoryUpdate>,
            "RecoveryReport" => canonical::<RecoveryReport>,
            "SummaryReport" => canonical::<SummaryReport>,
            "TaskChanged" => canonical::<TaskChanged>,
            "TaskCreate" => canonical::<TaskCreate>,
            "TaskCreation" => canonical::<TaskCreation>,
            "TaskEdit" => canonical::<TaskEdit>,
            "TaskInvite" => canonical::<TaskInvite>,
            "TaskJoin" => canonical::<TaskJoin>,
            "TaskList" => canonical::<TaskList>,
            "TaskLog" => canonical::<TaskLog>,
            "TaskOutput" => canonical::<TaskOutput>,
            "TaskUpdate" => canonical::<TaskUpdate>,
            other => panic!("{name}: no type {other}"),
        };
        match read(&legacy.input) {
            Ok(value) if value == legacy.expected => {}
            Ok(value) => faults.push(format!("{name}: means {value}")),
            Err(error) => faults.push(format!("{name}: {error}")),
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
