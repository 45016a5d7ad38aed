//! Test cases: an input and what a right answer looks like.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// One test of a candidate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Case {
    /// Stable: derived from candidate and input.
    pub case_id: String,
    /// Inputs by name.
    pub input: serde_json::Map<String, Value>,
    /// What a right answer looks like.
    pub expect: Expectation,
    /// Where the input comes from: `example`, `default`, `enum`, `boundary`, `none` (no inputs), or
    /// `pinned`.
    pub origin: String,
    /// Kept from a failure of a version in use. Every later version is compared with the one in use
    /// on it, and a builder never sees it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pinned: bool,
}

/// What a right answer looks like; every given part must hold.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Expectation {
    /// Acceptable HTTP statuses; empty for the package's declared success statuses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub status: Vec<u16>,
    /// A refusal (any 4xx) is the right answer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub refusal: bool,
    /// Media type of the answer, without parameters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// The answer equals this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exact: Option<Value>,
    /// The answer contains this (objects by key, lists by position).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subset: Option<Value>,
    /// The answer is valid against this JSON Schema (2020-12, references resolved inside).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<Value>,
    /// The answer is valid against the candidate's declared answer schema, which so stands in the
    /// definition once and not in every case. A `schema` of the case's own takes its place.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub declared_schema: bool,
    /// The answer, as text, matches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub regex: Option<String>,
    /// Numbers of `exact` and `subset` may differ by this much.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tolerance: Option<f64>,
    /// JSON pointers of lists and objects that are not always empty (the document's example has
    /// something there).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub non_empty: Vec<String>,
}

impl Expectation {
    /// Whether anything but the status tells a right answer from a wrong one.
    pub fn has_oracle(&self) -> bool {
        self.refusal
            || self.exact.is_some()
            || self.subset.is_some()
            || self.schema.is_some()
            || self.declared_schema
            || self.regex.is_some()
    }
}

/// `tests.toml`: the train cases of a package. Inputs and expectations are JSON texts, since TOML
/// has no null.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CaseFile {
    /// The cases.
    #[serde(default)]
    pub cases: Vec<CaseEntry>,
}

impl CaseFile {
    /// The file of these cases.
    pub fn of(cases: &[Case]) -> Self {
        let entry = |case: &Case| CaseEntry {
            id: case.case_id.clone(),
            origin: case.origin.clone(),
            input: serde_json::to_string(&case.input).expect("JSON can be written"),
            expect: serde_json::to_string(&case.expect).expect("an expectation is plain data"),
        };
        Self { cases: cases.iter().map(entry).collect() }
    }
}

/// One case in `tests.toml`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CaseEntry {
    /// [`Case::case_id`].
    pub id: String,
    /// [`Case::origin`].
    pub origin: String,
    /// [`Case::input`] as JSON.
    pub input: String,
    /// [`Case::expect`] as JSON.
    pub expect: String,
}

/// Which part of the evidence a case serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// Builders may see it.
    Train,
    /// Only Evaluation may see it.
    Holdout,
    /// Both, when the builder was deterministic and could not have learned it by heart.
    Both,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_declared_schema_tells_right_from_wrong_and_is_only_written_when_set() {
        let expect = Expectation { declared_schema: true, ..Expectation::default() };
        assert!(expect.has_oracle());
        assert_eq!(serde_json::to_value(&expect).unwrap(), json!({"declared_schema": true}));
        let old: Expectation = serde_json::from_value(json!({})).unwrap();
        assert_eq!((old.declared_schema, old.has_oracle()), (false, false));
        assert_eq!(serde_json::to_value(old).unwrap(), json!({}));
    }
}
