//! Skills as MCP tools, and what calls of them came to. Pure.

use std::sync::Arc;

use evo_common::{
    skill::SkillManifest,
    tool::{input_schema, output_schema, structured},
};
use rmcp::model::{CallToolResult, ContentBlock, Tool, ToolAnnotations};
use serde_json::{Value, json};

use crate::store::skills::tools::ToolSkill;

/// Longest description of a tool.
const MAX_DESCRIPTION: usize = 1_024;

/// The tool that a skill is.
pub(super) fn tool(skill: &ToolSkill) -> Tool {
    let manifest = &skill.manifest;
    let description: String = manifest.description.chars().take(MAX_DESCRIPTION).collect();
    let schema = Arc::new(input_schema(manifest));
    Tool::new(manifest.name.clone(), description, schema)
        .with_raw_output_schema(Arc::new(output_schema(manifest)))
        .with_annotations(annotations(skill))
}

/// What a client may expect: a skill that only sends `GET` reads. Of code and of other tools nobody
/// knows that.
fn annotations(skill: &ToolSkill) -> ToolAnnotations {
    let sends = |methods: &[&str]| {
        !skill.manifest.has_code
            && !skill.endpoints.is_empty()
            && skill.endpoints.iter().all(|endpoint| {
                methods.iter().any(|method| endpoint.split(' ').next() == Some(*method))
            })
    };
    let reads = sends(&["GET", "HEAD"]);
    let hints = ToolAnnotations::new().read_only(reads).open_world(true);
    if reads {
        return hints.idempotent(true);
    }
    hints.destructive(!sends(&["POST"])).idempotent(sends(&["PUT", "DELETE"]))
}

/// An output.
pub(super) fn result(manifest: &SkillManifest, output: &Value) -> CallToolResult {
    let text = match output {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let mut result = CallToolResult::success(vec![ContentBlock::text(text)]);
    result.structured_content = Some(Value::Object(structured(manifest, output)));
    result
}

/// A failure, for a model to read and for a program.
pub(super) fn failure(code: &str, message: &str) -> CallToolResult {
    let mut result = CallToolResult::error(vec![ContentBlock::text(format!("{code}: {message}"))]);
    result.structured_content = Some(json!({"error": {"code": code, "message": message}}));
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn skill(endpoints: &[&str], has_code: bool) -> ToolSkill {
        ToolSkill {
            manifest: SkillManifest {
                name: "pets-get".to_owned(),
                version: "0.1.0".to_owned(),
                description: "x".repeat(2_000),
                capabilities: Vec::new(),
                inputs: Vec::new(),
                outputs: Vec::new(),
                dependencies: Vec::new(),
                has_code,
            },
            endpoints: endpoints.iter().map(|text| (*text).to_owned()).collect(),
            artifact_id: "a".to_owned(),
        }
    }

    #[test]
    fn only_what_surely_reads_is_called_so() {
        let table = [
            (skill(&["GET {server}/pets"], false), true),
            (skill(&["GET {server}/pets", "HEAD {server}/pets"], false), true),
            (skill(&["GET {server}/pets", "POST {server}/pets"], false), false),
            (skill(&["GETX {server}/pets"], false), false),
            (skill(&[], false), false),
            (skill(&["GET {server}/pets"], true), false),
        ];
        for (skill, reads) in table {
            let hints = annotations(&skill);
            assert_eq!(hints.read_only_hint, Some(reads), "{:?}", skill.endpoints);
            assert_ne!(hints.destructive_hint, Some(reads), "{:?}", skill.endpoints);
        }
        let post = annotations(&skill(&["POST {server}/pets"], false));
        assert_eq!((post.destructive_hint, post.idempotent_hint), (Some(false), Some(false)));
        let put = annotations(&skill(&["PUT {server}/pets"], false));
        assert_eq!((put.destructive_hint, put.idempotent_hint), (Some(true), Some(true)));
    }

    #[test]
    fn a_tool_has_schemas_and_a_bounded_description() {
        let tool = tool(&skill(&[], false));
        assert_eq!(tool.description.map(|text| text.len()), Some(MAX_DESCRIPTION));
        assert_eq!(tool.input_schema["type"], "object");
        assert_eq!(tool.output_schema.unwrap()["type"], "object");
    }

    #[test]
    fn a_failure_has_its_code_for_people_and_for_programs() {
        let failed = failure("not_active", "Skill \"a\" is held.");
        assert_eq!(failed.is_error, Some(true));
        assert_eq!(failed.structured_content.unwrap()["error"]["code"], "not_active");
        assert_eq!(failed.content[0].as_text().unwrap().text, "not_active: Skill \"a\" is held.");
    }
}
