//! Direct runs: king keeps what each stage says and passes it on, and makes nothing of it.

use std::collections::HashMap;

use evo_common::{
    messages::{PipelineRunStatus, PipelineStage, PipelineStageResult},
    stage::StageContext,
};
use serde_json::{Value, json};

use super::{ReadResult, state::StageEnd};
use crate::store::{self, Connection, runs};

/// Largest output of a stage, as JSON. All of a run's outputs travel with its last dispatch.
const MAX_OUTPUT: usize = 256 * 1024;
/// Longest `artifact_id`.
const MAX_ARTIFACT_ID: usize = 256;

/// Reads a stage's result.
pub(super) fn read(run: &runs::Run, result: &PipelineStageResult, transient: bool) -> ReadResult {
    let output = (!result.output.is_null()).then(|| result.output.clone());
    let too_large = too_large(result);
    let (end, output) = match (result.status, too_large) {
        (_, Some(error)) => (StageEnd::Failed { error, transient: false }, None),
        (PipelineRunStatus::Completed, None) => (StageEnd::Advance, output),
        (PipelineRunStatus::TimedOut, None) => {
            let error = result.error.clone().unwrap_or_else(|| "the stage timed out".to_owned());
            (StageEnd::Failed { error, transient: true }, output)
        }
        (PipelineRunStatus::Failed | PipelineRunStatus::Running, None) => {
            let error = result.error.clone().unwrap_or_else(|| "no reason was given".to_owned());
            (StageEnd::Failed { error, transient }, output)
        }
    };
    let artifact_id = match &end {
        StageEnd::Advance if !result.artifact_id.is_empty() => result.artifact_id.clone(),
        _ => run.artifact_id.clone(),
    };
    ReadResult { end, output, artifact_id }
}

fn too_large(result: &PipelineStageResult) -> Option<String> {
    if result.artifact_id.len() > MAX_ARTIFACT_ID {
        return Some(format!(
            "field `artifact_id` has {} bytes; the most is {MAX_ARTIFACT_ID}",
            result.artifact_id.len()
        ));
    }
    let size = result.output.to_string().len();
    (size > MAX_OUTPUT).then(|| {
        format!(
            "field `output` has {size} bytes; the most is {MAX_OUTPUT}: store more of it elsewhere \
             and put where into the output"
        )
    })
}

/// What a stage is told: trigger and the outputs of all earlier stages. A runner of the original
/// looks for both at the top of `metadata`, where the last output that has a field decides.
pub(super) async fn metadata(
    connection: &Connection,
    run: &runs::Run,
    stage: PipelineStage,
    legacy: bool,
) -> store::Result<HashMap<String, Value>> {
    let outputs = match stage {
        PipelineStage::Learning => Vec::new(),
        _ => runs::outputs(connection, &run.run_id).await?,
    };
    let trigger = run.trigger.clone();
    if !legacy {
        let outputs = outputs.into_iter().collect();
        return Ok(StageContext { trigger, outputs, ..StageContext::default() }.into_metadata());
    }
    let mut metadata = HashMap::new();
    let parts = std::iter::once(("trigger", trigger))
        .chain(outputs.into_iter().map(|(stage, output)| (stage.as_str(), output)));
    for (name, part) in parts {
        match part {
            Value::Object(fields) => metadata.extend(fields),
            other => metadata.extend([(name.to_owned(), json!(other))]),
        }
    }
    Ok(metadata)
}
