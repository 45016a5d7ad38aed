//! How a candidate's run ends.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What became of a candidate.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// In use from now on.
    Active,
    /// Not now; the code says what is missing.
    Held,
    /// Not wanted; the code says why.
    Discarded,
    /// The run broke.
    Failed,
}

impl Verdict {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Held => "held",
            Self::Discarded => "discarded",
            Self::Failed => "failed",
        }
    }
}

impl std::str::FromStr for Verdict {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Active, Self::Held, Self::Discarded, Self::Failed]
            .into_iter()
            .find(|verdict| verdict.as_str() == text)
            .ok_or_else(|| format!("unknown verdict {text:?}"))
    }
}

/// The one outcome of a run, with its reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Outcome {
    /// What became of it.
    pub decision: Verdict,
    /// Stable code, one of [`codes`].
    pub code: String,
    /// For people, with what to do about it.
    pub reason: String,
}

impl Outcome {
    /// In use from now on.
    pub fn active(reason: impl Into<String>) -> Self {
        Self { decision: Verdict::Active, code: codes::PASSED.to_owned(), reason: reason.into() }
    }

    /// Not now.
    pub fn held(code: &str, reason: impl Into<String>) -> Self {
        Self { decision: Verdict::Held, code: code.to_owned(), reason: reason.into() }
    }

    /// Not wanted.
    pub fn discarded(code: &str, reason: impl Into<String>) -> Self {
        Self { decision: Verdict::Discarded, code: code.to_owned(), reason: reason.into() }
    }

    /// The run broke.
    pub fn failed(code: &str, reason: impl Into<String>) -> Self {
        Self { decision: Verdict::Failed, code: code.to_owned(), reason: reason.into() }
    }
}

/// Stable codes of outcomes.
pub mod codes {
    /// Passed every gate and the threshold.
    pub const PASSED: &str = "passed";
    /// The operation may change something and the source does not allow it (held).
    pub const WRITE_NOT_ALLOWED: &str = "write_not_allowed";
    /// A required parameter has no example, default or enum (held).
    pub const NO_EXAMPLE_FOR_PARAMETER: &str = "no_example_for_parameter";
    /// The operation only answers with an endless stream (discarded).
    pub const STREAMING_ONLY: &str = "streaming_only";
    /// The server can't be reached (held).
    pub const UNREACHABLE: &str = "unreachable";
    /// Neither schema nor example says what a right answer is (held).
    pub const NO_ORACLE: &str = "no_oracle";
    /// The auth token is not set or not allowed for this host (held).
    pub const AUTH_MISSING: &str = "auth_missing";
    /// The same definition is active already, or was decided before (discarded).
    pub const DUPLICATE: &str = "duplicate";
    /// Slower than its budget (discarded).
    pub const LATENCY: &str = "latency";
    /// Passes sometimes (held at first, then discarded).
    pub const FLAKY: &str = "flaky";
    /// The package is not valid (discarded).
    pub const INVALID_PACKAGE: &str = "invalid_package";
    /// The address is private and not listed under `allow_origins` (held).
    pub const ORIGIN_NOT_ALLOWED: &str = "origin_not_allowed";
    /// Its code did not answer the first of its own cases (discarded).
    pub const DRY_RUN_FAILED: &str = "dry_run_failed";
    /// The machine of the stage has no sandbox for code (held).
    pub const SANDBOX_UNAVAILABLE: &str = "sandbox_unavailable";
    /// Nothing here can build it: no active skill answers it, and there is no model to ask (held).
    pub const NO_BUILDER: &str = "no_builder";
    /// The model that was to write it refused, or can't be asked (held).
    pub const NO_MODEL: &str = "no_model";
    /// The tokens, the money or the time that may be spent on building it are used up (held).
    pub const BUILD_BUDGET: &str = "build_budget";
    /// The model's answers hold no code that can be used (discarded).
    pub const MODEL_GARBAGE: &str = "model_garbage";
    /// What was built does not answer its own train cases, after every repair (discarded).
    pub const TRAIN_FAILED: &str = "train_failed";
    /// The scan found something dangerous (discarded).
    pub const UNSAFE: &str = "unsafe";
    /// It can't reach the threshold any more (discarded).
    pub const BELOW_THRESHOLD: &str = "below_threshold";
    /// Good so far, not enough trials to be sure (held).
    pub const NEED_MORE_EVIDENCE: &str = "need_more_evidence";
    /// After five looks still not sure (discarded).
    pub const NOT_ENOUGH_EVIDENCE: &str = "not_enough_evidence";
    /// Worse than the version in use (discarded).
    pub const REGRESSION: &str = "regression";
    /// Not measurably better than the version in use (discarded).
    pub const NO_IMPROVEMENT: &str = "no_improvement";
    /// A stage failed and could not be recovered (failed).
    pub const STAGE_FAILED: &str = "stage_failed";
    /// A stage ran into its deadline too often (failed).
    pub const TIMED_OUT: &str = "timed_out";
    /// A stage failed and its task was split into others (failed).
    pub const DECOMPOSED: &str = "decomposed";
    /// Evaluation was skipped after it had failed, and nothing becomes active unmeasured (held).
    pub const EVALUATION_SKIPPED: &str = "evaluation_skipped";
    /// Skill-Manage was skipped after it had failed (held).
    pub const DECISION_SKIPPED: &str = "decision_skipped";
    /// What is stored of the run can't be read any more (failed).
    pub const UNREADABLE: &str = "unreadable";
    /// Passed, and gets a part of the calls beside the version in use (active).
    pub const CANARY: &str = "canary";
    /// Passed, and waits for a person to approve it (held).
    pub const NEEDS_APPROVAL: &str = "needs_approval";
    /// Passed, and the policy allows nothing of its kind (discarded).
    pub const DENIED_BY_POLICY: &str = "denied_by_policy";
    /// Passed, and a person said no (discarded).
    pub const DENIED: &str = "denied";
    /// Passed, and a person wants the skill to stay on another version (held).
    pub const PINNED: &str = "pinned";
    /// A person wants nothing new of the skill (held).
    pub const FROZEN: &str = "frozen";
    /// The skill was put into the archive (held).
    pub const ARCHIVED: &str = "archived";
    /// It failed in use and was taken back (discarded).
    pub const ROLLED_BACK: &str = "rolled_back";
    /// The request that it answers is answered, cancelled or being answered already (discarded).
    pub const REQUEST_CLOSED: &str = "request_closed";
    /// A skill in use does what the request asks for, on examples that nobody had seen (active).
    pub const ANSWERS: &str = "answers";
    /// The skill that might have answered a request is not in use any more (held).
    pub const NOT_IN_USE: &str = "not_in_use";
    /// The cycle had no budget left for it; the next one takes it first (held).
    pub const OVER_BUDGET: &str = "over_budget";
    /// A person cancelled the run (failed).
    pub const CANCELLED: &str = "cancelled";
}
