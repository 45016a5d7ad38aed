//! Calls of skills in use with examples, each made once.

use std::collections::HashMap;

use evo_common::case::Case;
use serde_json::{Map, Value};
use tokio::time::Instant;

use crate::{
    evaluation::oracle::Oracle,
    handler::{StageError, StageJob},
    skill::{
        execute::{CallAnswer, CallPolicy},
        package::{Kind, Package},
        snapshot::Chosen,
    },
};

/// Longest call.
const CALL_TIMEOUT_MS: u64 = 5_000;

/// What was called for one request, and what may still be called.
pub(super) struct Trial<'j> {
    job: &'j StageJob,
    calls: u32,
    ends: Instant,
    /// By skill and input: the answer, if there was one.
    known: HashMap<(String, String), Option<CallAnswer>>,
}

impl<'j> Trial<'j> {
    pub(super) fn new(job: &'j StageJob, calls: u32, ends: Instant) -> Self {
        Self { job, calls, ends, known: HashMap::new() }
    }

    /// Calls that are left.
    pub(super) fn left(&self) -> u32 {
        self.calls
    }

    /// Whether nothing more may be called.
    pub(super) fn is_over(&self) -> bool {
        self.calls == 0 || self.ends <= Instant::now()
    }

    /// The answer of a skill; [`None`] when it has none, or when too much was called already.
    pub(super) async fn call(
        &mut self,
        skill: &Chosen,
        input: &Map<String, Value>,
    ) -> Result<Option<CallAnswer>, StageError> {
        let name = skill.package.manifest.name.clone();
        let key = (name, Value::Object(input.clone()).to_string());
        if let Some(known) = self.known.get(&key) {
            return Ok(known.clone());
        }
        let services = &self.job.services;
        if self.is_over() || services.executor.check(&skill.package, input, &skill.policy).is_err()
        {
            return Ok(None);
        }
        // A composed one calls each of its parts.
        let cost = match &skill.package.kind {
            Kind::Composed(composition) => u32::try_from(composition.steps.len()).unwrap_or(1),
            _ => 1,
        };
        self.calls = self.calls.saturating_sub(cost.max(1));
        let policy = CallPolicy { timeout_cap_ms: Some(CALL_TIMEOUT_MS), ..skill.policy.clone() };
        let answer = tokio::select! {
            () = services.cancel.cancelled() => {
                return Err(StageError::transient("Learning was cancelled"));
            }
            answer = services.executor.call(&skill.package, input, &policy) => answer.ok(),
        };
        self.known.insert(key, answer.clone());
        Ok(answer)
    }

    /// Whether a skill answers every case.
    pub(super) async fn answers(
        &mut self,
        skill: &Chosen,
        cases: &[Case],
    ) -> Result<bool, StageError> {
        for case in cases {
            let Ok(oracle) = Oracle::new(case, &skill.package.call.success) else {
                return Ok(false);
            };
            match self.call(skill, &case.input).await? {
                Some(answer) if oracle.check(&answer).is_ok() => {}
                _ => return Ok(false),
            }
        }
        Ok(true)
    }
}

/// Whether an answer is a success of a skill.
pub(super) fn is_success(package: &Package, answer: &CallAnswer) -> bool {
    let declared = &package.call.success;
    if package.kind == Kind::Http && !declared.is_empty() {
        return declared.contains(&answer.status);
    }
    (200..300).contains(&answer.status)
}
