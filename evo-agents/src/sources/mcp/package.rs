//! From a tool to the files of a skill package. Pure: the same candidate gives the same bytes on
//! every machine.

use evo_common::{
    case::Case,
    skill::{HttpCall, McpCall, SkillIO, SkillManifest},
    stage::Candidate,
};
use serde::Serialize;

use super::{BUILDER, Definition};
use crate::sources::{
    openapi::cases::with_declared_schema,
    package::{Built, Error, Parts, SkillMd},
};

/// Longest text about a tool in its SKILL.md.
const MAX_DETAILS: usize = 1_000;

/// `config.toml`.
#[derive(Serialize)]
struct ConfigFile {
    mcp: McpCall,
}

/// Compiles a candidate's tool.
pub fn build(
    candidate: &Candidate,
    definition: &Definition,
    version: &str,
    train_cases: &[Case],
    parent: Option<&str>,
) -> Result<Built, Error> {
    let (tool, answer) = (&definition.tool, definition.answer());
    let input = |input: super::Parameter| SkillIO {
        name: input.input,
        r#type: input.r#type,
        required: input.required,
        description: input.description,
    };
    let manifest = SkillManifest {
        name: candidate.name.clone(),
        version: version.to_owned(),
        description: candidate.description.clone(),
        capabilities: candidate.capabilities.clone(),
        inputs: definition.inputs().into_iter().map(input).collect(),
        outputs: answer.outputs,
        dependencies: Vec::new(),
        has_code: false,
    };
    let config = ConfigFile {
        mcp: McpCall {
            server: definition.server.clone(),
            tool: tool.name.clone(),
            timeout_ms: HttpCall::default_timeout_ms(),
            max_response_bytes: HttpCall::default_max_response_bytes(),
        },
    };
    // A package has no definition beside it, so its cases hold the schema themselves.
    let own_cases = with_declared_schema(train_cases, answer.schema.as_ref());
    let details = tool.description.as_deref().map(str::trim).filter(|text| {
        let words: Vec<&str> = text.split_whitespace().collect();
        !words.is_empty() && words.join(" ") != manifest.description
    });
    let details: Option<String> = details.map(|text| text.chars().take(MAX_DETAILS).collect());
    let skill_md = SkillMd {
        locator: &candidate.locator,
        details: details.as_deref().into_iter().collect(),
        usage: vec![format!(
            "Calls the tool `{}` of the MCP server of the source `{}`.",
            tool.name, definition.server
        )],
        cases: train_cases,
    };
    Parts {
        candidate,
        manifest,
        config: &config,
        endpoints: vec![format!("mcp {}/{}", definition.server, tool.name)],
        builder: BUILDER,
        parent,
        cases: &own_cases,
        skill_md,
    }
    .write()
}
