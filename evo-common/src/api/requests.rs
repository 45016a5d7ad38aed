//! What somebody wants of Learning, and what became of it.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::{outcome::Verdict, stage::RequestKind};

/// How far a request has come.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum RequestStatus {
    /// The next cycle takes it.
    Open,
    /// A run is about it.
    Taken,
    /// A skill that does it is in use.
    Answered,
    /// What was made of it did not pass; the reason is kept.
    Rejected,
    /// Nobody wants it any more.
    Cancelled,
}

impl RequestStatus {
    /// Every one.
    pub const ALL: [Self; 5] =
        [Self::Open, Self::Taken, Self::Answered, Self::Rejected, Self::Cancelled];

    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Taken => "taken",
            Self::Answered => "answered",
            Self::Rejected => "rejected",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether something may still come of it by itself.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Open | Self::Taken)
    }
}

/// An input with what is expected of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RequestExample {
    /// The inputs by name.
    #[schema(value_type = Object)]
    pub input: Map<String, Value>,
    /// The right answer, exactly. Either this or `expect`.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub output: Option<Value>,
    /// What a right answer looks like: `exact`, `subset` (objects by key, lists by position), `schema`,
    /// `regex`, and `tolerance` for the numbers of `exact` and `subset`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub expect: Option<Map<String, Value>>,
}

/// A field that is there, also when it is `null`.
fn present<'de, D: serde::Deserializer<'de>>(value: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(value).map(Some)
}

/// `POST /skills/requests`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewRequest {
    /// What is wanted, in words.
    pub text: String,
    /// Inputs with what is expected of them. A part of them is kept from whoever builds the skill, to
    /// judge it by; without any, nothing can be measured.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub examples: Vec<RequestExample>,
    /// The skill that is to become better. Without it a new one is wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skill: Option<String>,
    /// A repeat with the same key and the same request changes nothing; with another request it is
    /// refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
    /// Whether to start a cycle about it at once. Else the next one takes it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub start: bool,
    /// Who asks, for the record; without it the name of the token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// What a request is answered by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RequestAnswer {
    /// The skill.
    pub skill: String,
    /// Its version.
    pub version: String,
    /// Digest of that version.
    pub artifact_id: String,
}

/// A request in short.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RequestSummary {
    /// Its id.
    pub request_id: String,
    /// What is wanted: a new skill, or a better version of one.
    pub kind: RequestKind,
    /// Who asked: `person`, `telemetry` (failing calls), or `rollback` (a version was taken back).
    pub origin: String,
    /// How far it has come.
    pub status: RequestStatus,
    /// What is wanted, in words.
    pub text: String,
    /// The skill that is to become better.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skill: Option<String>,
    /// The version of it that is to be repaired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_id: Option<String>,
    /// What most of the failures have in common.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// How much it is asked for now: the sum of exp(−age / 7 days) over each time.
    pub demand: f64,
    /// How often it was asked for.
    pub asked: u64,
    /// How many examples it has.
    pub examples: u64,
    /// How many of them are kept from whoever builds the skill.
    pub held_out: u64,
    /// Whether a cycle had no budget left for it. The next one takes it first.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub over_budget: bool,
    /// Tries that came to nothing without saying that it can't be done.
    pub tries: u32,
    /// The newest run about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_id: Option<String>,
    /// What it is answered by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<RequestAnswer>,
    /// Stable code of the last thing that came of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When it was first asked for (RFC 3339).
    pub created_at: String,
    /// When it last changed (RFC 3339).
    pub updated_at: String,
}

/// A page of requests.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RequestList {
    /// Newest first.
    pub requests: Vec<RequestSummary>,
    /// How many are in this page.
    pub count: usize,
    /// Pass it as `cursor` for the next page; absent on the last one.
    pub next_cursor: Option<String>,
}

/// A run about a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RequestRun {
    /// The run.
    pub run_id: String,
    /// What the candidate was called.
    pub name: String,
    /// `running`, `waiting` (for more evidence or a person) or `ended`.
    pub state: String,
    /// What was decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<Verdict>,
    /// Stable code of the decision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When it last changed (RFC 3339).
    pub at: String,
}

/// Something that happened to a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RequestStep {
    /// When (RFC 3339).
    pub at: String,
    /// `opened`, `asked_again`, `taken`, `passed_over`, `reopened`, `goes_on` (with a cycle of its own),
    /// `answered`, `rejected` or `cancelled`.
    pub action: String,
    /// The run that did it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_id: Option<String>,
    /// Who did it, when it was not king.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Stable code of the reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Failing calls that have their error and the shape of their inputs in common.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FailureCluster {
    /// The skill that was called.
    pub skill: String,
    /// Stable code of the failures.
    pub code: String,
    /// Their message, without what differs from call to call.
    pub error: String,
    /// Names and types of the inputs.
    pub shape: String,
    /// How many calls failed so.
    pub failures: u64,
    /// How much they weigh now: the sum of exp(−age / 7 days) over each.
    pub demand: f64,
    /// When the last one failed (RFC 3339).
    pub last_at: String,
}

/// One request with everything that is known of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RequestView {
    /// The request.
    #[serde(flatten)]
    pub request: RequestSummary,
    /// The examples that builders see, each with `input` and `expect`.
    #[schema(value_type = Vec<Object>)]
    pub shown_examples: Vec<Value>,
    /// The runs about it, oldest first.
    pub runs: Vec<RequestRun>,
    /// The failures that it is about, the heaviest first.
    pub clusters: Vec<FailureCluster>,
    /// What happened to it, oldest first: the last 200 steps.
    pub history: Vec<RequestStep>,
}

/// The answer to `GET /skills/requests/{request_id}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RequestDetail {
    /// The request; null for `latest` when there is none.
    pub request: Option<RequestView>,
}

/// The answer to `POST /skills/requests`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RequestAsked {
    /// Always true.
    pub success: bool,
    /// Whether it is a new request; false when the same was asked for before.
    pub created: bool,
    /// The cycle that was started about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cycle_id: Option<String>,
    /// The request.
    pub request: RequestSummary,
}

/// `POST /skills/requests/{request_id}/cancel`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CancelRequest {
    /// Why, for the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Who, for the record; without it the name of the token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// The answer to it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RequestCancelled {
    /// Always true.
    pub success: bool,
    /// False when it was cancelled before.
    pub changed: bool,
    /// The request.
    pub request: RequestSummary,
}
