//! What is known of a run so far.

use std::collections::BTreeMap;

use evo_common::{
    api::RunKind,
    messages::{PipelineRunStatus, PipelineStage},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{limits::text, stage_of, string};

/// One file of a package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PackageFile {
    /// Its path in the package.
    pub(crate) path: String,
    /// Digest of its content in lower-case hex; absent when the package could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) sha256: Option<String>,
    /// Its size.
    pub(crate) bytes: u64,
}

/// One stage result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stage {
    pub(crate) stage: PipelineStage,
    pub(crate) status: PipelineRunStatus,
    pub(crate) attempt: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) agent_id: Option<String>,
    /// Without secrets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
    /// What came of it as text, without secrets; for the log only.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) output: String,
    /// When (RFC 3339).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) at: String,
    /// Of a cycle that tells of its candidates: which one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) candidate: Option<String>,
}

impl Stage {
    /// What goes into the signals: what happened, without what is long.
    pub(super) fn brief(&self) -> Value {
        let mut brief = json!({
            "stage": self.stage, "status": self.status, "attempt": self.attempt,
        });
        let more =
            [("agent_id", &self.agent_id), ("error", &self.error), ("candidate", &self.candidate)];
        for (name, value) in more {
            if let Some(value) = value {
                brief[name] = json!(value);
            }
        }
        brief
    }
}

/// The four dimensions of a score: the lower bounds of the first two.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Dimensions {
    pub(crate) utility: f64,
    pub(crate) reliability: f64,
    pub(crate) novelty: f64,
    pub(crate) integration: f64,
}

/// What is known of a run so far. Kept in the queue between two events.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Facts {
    pub(crate) kind: RunKind,
    /// The candidate, without secrets.
    pub(crate) name: Option<String>,
    /// Its operation, without secrets.
    pub(crate) locator: Option<String>,
    pub(crate) look: u64,
    /// The cycle's run.
    pub(crate) task_id: Option<String>,
    /// Who had the last stage.
    pub(crate) agent_id: Option<String>,
    /// RFC 3339.
    pub(crate) started_at: String,
    pub(crate) stages: Vec<Stage>,
    pub(crate) retries: u64,
    pub(crate) input_tokens: u64,
    pub(crate) output_tokens: u64,
    pub(crate) cost_usd: f64,
    /// Lower bound of the score.
    pub(crate) score: f64,
    /// What the score is made of; absent until Evaluation has measured it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) dimensions: Option<Dimensions>,
    /// What the skill does, without secrets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) description: Option<String>,
    /// Digest of the package.
    pub(crate) artifact_id: Option<String>,
    pub(crate) artifacts: Vec<PackageFile>,
    /// The skill that became active.
    pub(crate) activated: Option<String>,
    /// Of a cycle that tells of its candidates: the skills that became active.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) new_skills: Vec<String>,
    /// The cycle that tells of this run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) folded_into: Option<String>,
    /// Of a cycle: what Learning found.
    pub(crate) candidates: u64,
    pub(crate) failed_sources: u64,
    /// The `seq` of the last event of this run.
    pub(crate) events: u64,
    /// How it ended.
    pub(crate) decision: Option<String>,
    pub(crate) ended: bool,
}

impl Facts {
    pub(super) fn new(kind: RunKind, started_at: &str) -> Self {
        Self {
            kind,
            name: None,
            locator: None,
            look: 1,
            task_id: None,
            agent_id: None,
            started_at: started_at.to_owned(),
            stages: Vec::new(),
            retries: 0,
            input_tokens: 0,
            output_tokens: 0,
            cost_usd: 0.0,
            score: 0.0,
            dimensions: None,
            description: None,
            artifact_id: None,
            artifacts: Vec::new(),
            activated: None,
            new_skills: Vec::new(),
            folded_into: None,
            candidates: 0,
            failed_sources: 0,
            events: 0,
            decision: None,
            ended: false,
        }
    }

    /// Drops what only the end needed. That the run has ended stays known for ever.
    pub(super) fn forget(&mut self) {
        self.stages.clear();
        self.artifacts.clear();
        self.locator = None;
    }

    /// Takes in a stage result. `None` when it was there before, or names no stage.
    pub(super) fn take_stage(
        &mut self,
        payload: &Value,
        at: &str,
        package: Option<&[PackageFile]>,
    ) -> Option<Stage> {
        let stage = Stage {
            stage: stage_of(payload)?,
            status: PipelineRunStatus::deserialize(payload.get("status")?).ok()?,
            attempt: payload.get("attempt").and_then(Value::as_u64).unwrap_or(1),
            agent_id: string(payload, "agent_id").filter(|id| !id.is_empty()),
            error: string(payload, "error").map(|error| text(&error)),
            output: match payload.get("output") {
                None | Some(Value::Null) => String::new(),
                Some(Value::String(output)) => text(output),
                Some(output) => text(&output.to_string()),
            },
            at: at.to_owned(),
            candidate: None,
        };
        let same = |other: &Stage| {
            other.candidate.is_none()
                && (other.stage, other.attempt) == (stage.stage, stage.attempt)
        };
        if self.stages.iter().any(same) {
            return None;
        }
        self.stages.push(stage.clone());
        if stage.agent_id.is_some() {
            self.agent_id.clone_from(&stage.agent_id);
        }
        let candidate = || string(payload, "candidate").map(|name| text(&name));
        self.name = self.name.take().or_else(candidate);
        let output = payload.get("output").unwrap_or(&Value::Null);
        self.take_usage(output);
        if let Some(score) = output.get("overall_score").and_then(Value::as_f64) {
            self.score = finite(score);
        }
        self.dimensions = dimensions(output).or(self.dimensions);
        let description = output.pointer("/manifest/description").and_then(Value::as_str);
        self.description = description.map(text).or_else(|| self.description.take());
        if let Some(id) = string(payload, "artifact_id").filter(|id| !id.is_empty()) {
            self.artifact_id = Some(id);
        }
        match package {
            Some(files) => self.artifacts = files.to_vec(),
            // Names and sizes are in Building's result too.
            None if self.artifacts.is_empty() => {
                let files: BTreeMap<String, u64> = output
                    .get("files")
                    .and_then(|files| BTreeMap::deserialize(files).ok())
                    .unwrap_or_default();
                self.artifacts = files
                    .into_iter()
                    .map(|(path, bytes)| PackageFile { path, sha256: None, bytes })
                    .collect();
            }
            None => {}
        }
        Some(stage)
    }

    /// Adds what the stage's model calls used.
    pub(super) fn take_usage(&mut self, output: &Value) {
        let Some(usage) = output.get("usage") else { return };
        let count = |name: &str| usage.get(name).and_then(Value::as_u64).unwrap_or(0);
        self.input_tokens = self.input_tokens.saturating_add(count("input_tokens"));
        self.output_tokens = self.output_tokens.saturating_add(count("output_tokens"));
        let cost = usage.get("cost_usd").and_then(Value::as_f64).unwrap_or(0.0);
        self.cost_usd = finite(self.cost_usd + finite(cost).max(0.0));
    }

    /// The four numbers that Evotown adds up. They are there in any case: a run without them shows
    /// as empty, and one with a text in their place breaks the costs page for everybody.
    pub(super) fn numbers(&self, now: &str) -> Map<String, Value> {
        let mut numbers = Map::new();
        numbers.insert("cost_usd".to_owned(), json!(finite(self.cost_usd)));
        numbers.insert("latency_ms".to_owned(), json!(elapsed_ms(&self.started_at, now)));
        numbers.insert("input_tokens".to_owned(), json!(self.input_tokens));
        numbers.insert("output_tokens".to_owned(), json!(self.output_tokens));
        numbers
    }

    /// The files with their digests, in path order. What of it Evotown takes is looked at when it is sent.
    pub(super) fn manifest(&self) -> Vec<Value> {
        let mut files: Vec<&PackageFile> = self.artifacts.iter().collect();
        files.sort_by(|a, b| a.path.cmp(&b.path));
        files
            .into_iter()
            .filter_map(|file| {
                let sha256 = file.sha256.as_ref()?;
                Some(json!({"path": file.path, "sha256": sha256, "bytes": file.bytes}))
            })
            .collect()
    }

    pub(super) fn new_skill_paths(&self) -> Vec<String> {
        let names = self.activated.iter().chain(&self.new_skills);
        names.map(|name| format!("skills/{name}/SKILL.md")).collect()
    }
}

/// The dimensions in what Evaluation gives; those of the original are plain numbers.
fn dimensions(output: &Value) -> Option<Dimensions> {
    let scores = output.get("scores")?;
    let number = |name: &str| {
        let score = scores.get(name)?;
        score.get("low").unwrap_or(score).as_f64().map(finite)
    };
    Some(Dimensions {
        utility: number("utility")?,
        reliability: number("reliability")?,
        novelty: number("novelty")?,
        integration: number("integration")?,
    })
}

/// The number, or 0 for what JSON can't hold.
pub(super) fn finite(number: f64) -> f64 {
    if number.is_finite() { number } else { 0.0 }
}

/// Milliseconds between two moments in RFC 3339; 0 when one can't be read.
fn elapsed_ms(from: &str, to: &str) -> u64 {
    match (moment(from), moment(to)) {
        (Some(from), Some(to)) => u64::try_from(to.saturating_sub(from)).unwrap_or(0),
        _ => 0,
    }
}

fn moment(text: &str) -> Option<i64> {
    evo_common::clock::Timestamp::parse_rfc3339(text).map(|moment| moment.0)
}
