//! The pipeline: work to runners, results back.

use std::{collections::HashMap, fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::{
    ModelPreference,
    text::{accept_text, map_or_text},
};
use crate::ids::Attempt;

/// A stage of the pipeline, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PipelineStage {
    /// Finds candidates.
    Learning,
    /// Makes a package of a candidate.
    Building,
    /// Validates the package.
    PreLoad,
    /// Runs it against its cases.
    Evaluation,
    /// Activates, holds or discards.
    SkillManage,
}

impl PipelineStage {
    /// Every stage, in order.
    pub const ALL: [Self; 5] =
        [Self::Learning, Self::Building, Self::PreLoad, Self::Evaluation, Self::SkillManage];

    /// The name on the wire (`pre_load`).
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Learning => "learning",
            Self::Building => "building",
            Self::PreLoad => "pre_load",
            Self::Evaluation => "evaluation",
            Self::SkillManage => "skill_manage",
        }
    }

    /// The stage that follows.
    pub fn next(self) -> Option<Self> {
        Some(match self {
            Self::Learning => Self::Building,
            Self::Building => Self::PreLoad,
            Self::PreLoad => Self::Evaluation,
            Self::Evaluation => Self::SkillManage,
            Self::SkillManage => return None,
        })
    }
}

impl fmt::Display for PipelineStage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for PipelineStage {
    type Err = String;

    /// Reads `pre_load` and `pre-load`.
    fn from_str(text: &str) -> Result<Self, String> {
        let normal = text.trim().to_lowercase().replace('-', "_");
        Self::ALL.into_iter().find(|stage| stage.as_str() == normal).ok_or_else(|| {
            format!(
                "unknown stage {text:?}: use learning, building, pre_load, evaluation or skill_manage"
            )
        })
    }
}

impl<'de> Deserialize<'de> for PipelineStage {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// State of a stage, and of a run as runners see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PipelineRunStatus {
    /// Not ended.
    Running,
    /// Ended as it should.
    Completed,
    /// Ended by an error.
    Failed,
    /// Ended by its deadline.
    TimedOut,
}

/// Advances the evolution pipeline to the next stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct PipelineNext {
    /// The stage to do.
    pub stage: PipelineStage,
    /// Digest of the package; empty before Building made one.
    pub artifact_id: String,
    /// What the stage needs to know: a [`crate::stage::StageContext`].
    #[serde(deserialize_with = "map_or_text")]
    pub metadata: HashMap<String, Value>,
}

/// W3C trace context that travels in a payload under `_trace`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceContext(pub HashMap<String, String>);

/// `pipeline:next` as this implementation sends it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct StageDispatch {
    /// The published fields.
    #[serde(flatten, deserialize_with = "PipelineNext::deserialize")]
    pub next: PipelineNext,
    /// The run.
    pub run_id: String,
    /// Which try this is; the report must carry it.
    pub attempt: Attempt,
    /// Unix milliseconds after which king gives up on this attempt.
    pub deadline_ms: i64,
    /// The model to work with; the runner's own when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelPreference>,
    /// Carries king's span.
    #[serde(default, rename = "_trace", skip_serializing_if = "Option::is_none")]
    pub trace: Option<TraceContext>,
}

/// `pipeline:accepted`: the runner has the attempt in hand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct AttemptAccepted {
    /// Who.
    pub agent_id: String,
    /// The run.
    pub run_id: String,
    /// The stage.
    pub stage: PipelineStage,
    /// The try.
    pub attempt: Attempt,
}

/// `pipeline:cancel`: the attempt's result is no longer wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct AttemptCancel {
    /// The run.
    pub run_id: String,
    /// The stage.
    pub stage: PipelineStage,
    /// The try.
    pub attempt: Attempt,
    /// For people.
    pub reason: String,
}

/// Agent reports completion of a pipeline stage back to king.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct PipelineStageResult {
    /// The run.
    pub run_id: String,
    /// The stage.
    pub stage: PipelineStage,
    /// Who did it.
    pub agent_id: String,
    /// How it ended.
    pub status: PipelineRunStatus,
    /// Digest of the package.
    pub artifact_id: String,
    /// What came out: the stage's output type in [`crate::stage`].
    pub output: Value,
    /// What went wrong.
    pub error: Option<String>,
}

/// `pipeline:stage_result` as this implementation sends it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct StageReport {
    /// The published fields.
    #[serde(flatten, deserialize_with = "PipelineStageResult::deserialize")]
    pub result: PipelineStageResult,
    /// The try that this result belongs to. Absent for a legacy runner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<Attempt>,
    /// Echoed in king's reply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub req_id: Option<String>,
    /// Whether a failure may pass when tried again (network, rate limit).
    #[serde(default)]
    pub transient: bool,
    /// Place in king's event log; set when king relays the result to observers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<i64>,
    /// Carries the runner's span.
    #[serde(default, rename = "_trace", skip_serializing_if = "Option::is_none")]
    pub trace: Option<TraceContext>,
}

/// `observer:subscribe`: joins room `observers`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct ObserverSubscribe {
    /// Replays stage results after this place in the event log first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_seq: Option<i64>,
}

accept_text!(
    PipelineNext,
    StageDispatch,
    AttemptAccepted,
    AttemptCancel,
    PipelineStageResult,
    StageReport,
    ObserverSubscribe,
);
