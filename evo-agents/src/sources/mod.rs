//! Where candidates come from.

pub mod feed;
pub mod look;
pub mod mcp;
pub mod openapi;
pub mod package;
pub mod requests;
pub mod skill_md;

use evo_common::{
    config::SourceConfig,
    ids::sha256_hex,
    outcome::{Outcome, codes},
    skill::SkillIO,
    stage::{Candidate, CandidateKind},
};
use serde::Deserialize;
use serde_json::Value;
use url::Url;

use self::{
    openapi::operation::{Operation, Parameter},
    requests::Broken,
};

/// What a candidate looks like to whoever calls it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Interface {
    /// Where it is: what is at two places is two things, however alike. [`None`] when that is not
    /// known.
    pub place: Option<String>,
    /// What it takes.
    pub inputs: Vec<SkillIO>,
    /// What it gives.
    pub outputs: Vec<SkillIO>,
}

/// What a candidate looks like to whoever calls it, as far as its definition says.
pub fn interface(candidate: &Candidate, source: Option<&SourceConfig>) -> Interface {
    let definition = &candidate.definition;
    let input = |input: Parameter| SkillIO {
        name: input.input,
        r#type: input.r#type,
        required: input.required,
        description: None,
    };
    match candidate.kind {
        CandidateKind::Openapi => match serde_json::from_value::<Operation>(definition.clone()) {
            Ok(operation) => Interface {
                // An address that is filled in at call time is the source's own.
                place: Url::parse(&operation.url).ok().map(|url| {
                    format!("{} {}", operation.method, url.origin().ascii_serialization())
                }),
                inputs: operation.parameters.into_iter().map(input).collect(),
                outputs: operation.answer.outputs,
            },
            Err(_) => Interface::default(),
        },
        CandidateKind::Mcp => match serde_json::from_value::<mcp::Definition>(definition.clone()) {
            Ok(tool) => Interface {
                // One program with other arguments serves something else.
                place: source.map(|source| {
                    format!("{:?} {} {}", source.command, source.location, tool.tool.name)
                }),
                inputs: tool.inputs().into_iter().map(input).collect(),
                outputs: tool.answer().outputs,
            },
            Err(_) => Interface::default(),
        },
        CandidateKind::SkillMd => {
            // The same folder is the same skill wherever it lies; others are never compared.
            Interface {
                place: Some(format!("SKILL {}", digest(candidate))),
                ..Interface::default()
            }
        }
        CandidateKind::Request
        | CandidateKind::Repair
        | CandidateKind::Composed
        | CandidateKind::InUse => Interface::default(),
    }
}

/// Digest of a candidate's definition without the name of its source.
pub(crate) fn digest(candidate: &Candidate) -> String {
    let mut definition = candidate.definition.clone();
    if let Some(map) = definition.as_object_mut() {
        map.remove("server");
        map.remove("folder");
    }
    sha256_hex(openapi::canonical(&definition).as_bytes())
}

/// JSON Schema of a right answer that a candidate's definition declares.
pub fn answer_schema(candidate: &Candidate) -> Result<Option<Value>, serde_json::Error> {
    declared_schema(candidate.kind, &candidate.definition)
}

fn declared_schema(
    kind: CandidateKind,
    definition: &Value,
) -> Result<Option<Value>, serde_json::Error> {
    match kind {
        CandidateKind::Openapi => {
            Operation::deserialize(definition).map(|operation| operation.answer.schema)
        }
        CandidateKind::Mcp => {
            mcp::Definition::deserialize(definition).map(|tool| tool.answer().schema)
        }
        // It gives what the skill that it repairs should give.
        CandidateKind::Repair => match Broken::deserialize(definition)?.of {
            Some(of) => declared_schema(of.kind, &of.definition),
            None => Ok(None),
        },
        CandidateKind::SkillMd
        | CandidateKind::Request
        | CandidateKind::Composed
        | CandidateKind::InUse => Ok(None),
    }
}

/// What is known against a candidate before anything is called: how it would end today. Nothing
/// means that it would be measured, as far as its definition says.
pub fn forecast(candidate: &Candidate, source: &SourceConfig) -> Option<Outcome> {
    match candidate.kind {
        CandidateKind::Openapi => {
            let operation = serde_json::from_value::<Operation>(candidate.definition.clone());
            operation.ok()?.forecast(candidate, source)
        }
        CandidateKind::Mcp => {
            let tool = serde_json::from_value::<mcp::Definition>(candidate.definition.clone());
            tool.ok()?.forecast(source).err()
        }
        CandidateKind::SkillMd => {
            let folder =
                serde_json::from_value::<skill_md::Definition>(candidate.definition.clone());
            folder.ok()?.forecast(candidate, source)
        }
        // It is judged by the cases of the version that it repairs, or by examples, which king keeps.
        CandidateKind::Repair | CandidateKind::InUse => None,
        CandidateKind::Request | CandidateKind::Composed => {
            let tells = candidate.cases.iter().any(|case| case.expect.has_oracle());
            let reason = "no case says what a right answer is";
            (!tells).then(|| Outcome::held(codes::NO_ORACLE, reason))
        }
    }
}
