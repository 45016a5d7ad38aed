//! OpenAPI documents as a source: Swagger 2.0, OpenAPI 3.0 and 3.1, as JSON or YAML.
//!
//! [`document`] reads the bytes, [`operation`] brings each operation into one shape, [`cases`]
//! makes test cases from what the document declares, and [`package`] compiles an operation to the
//! files of a skill. Nothing here does I/O: the roles fetch and store.

pub mod cases;
pub mod document;
pub mod naming;
pub mod operation;
pub mod package;
pub mod samples;
pub mod schema;

#[cfg(test)]
mod tests;

use evo_common::{
    config::SourceConfig,
    ids::sha256_hex,
    stage::{Candidate, CandidateKind},
};
use serde_json::Value;

use self::{document::Document, naming::Names, operation::Operation};

/// Who builds packages from OpenAPI documents, with the version of what it makes.
pub const BUILDER: &str = "openapi/1";

/// The candidates of a document, one for each operation.
pub fn candidates(document: &Document, source: &SourceConfig, names: &mut Names) -> Vec<Candidate> {
    let operations = operation::operations(document, source);
    for operation in &operations {
        names.keep(
            &source.name,
            operation.operation_id.as_deref(),
            &operation.method,
            &operation.path,
        );
    }
    operations.into_iter().map(|operation| candidate(&operation, source, names)).collect()
}

fn candidate(operation: &Operation, source: &SourceConfig, names: &mut Names) -> Candidate {
    let definition = serde_json::to_value(operation).expect("an operation is plain data");
    let name = names.give(
        &source.name,
        operation.operation_id.as_deref(),
        &operation.method,
        &operation.path,
    );
    Candidate {
        kind: CandidateKind::Openapi,
        request_id: None,
        cases: cases::cases(&name, operation),
        source: source.name.clone(),
        locator: operation.locator(),
        description: operation.description.clone(),
        capabilities: naming::capabilities(&operation.tags, &operation.method, &operation.path),
        fingerprint: fingerprint(&definition),
        demand: 1.0,
        deterministic: true,
        definition,
        name,
        written: Vec::new(),
        past: None,
    }
}

/// Digest of a definition and of who would build it: the same definition gives the same package.
pub fn fingerprint(definition: &Value) -> String {
    sha256_hex(format!("{BUILDER}\n{}", canonical(definition)).as_bytes())
}

/// JSON with sorted keys, the same text for the same value.
pub fn canonical(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<(&String, &Value)> = map.iter().collect();
            entries.sort_unstable_by_key(|(name, _)| *name);
            let entries: Vec<String> = entries
                .into_iter()
                .map(|(name, value)| format!("{}:{}", Value::from(name.as_str()), canonical(value)))
                .collect();
            format!("{{{}}}", entries.join(","))
        }
        Value::Array(list) => {
            let items: Vec<String> = list.iter().map(canonical).collect();
            format!("[{}]", items.join(","))
        }
        other => other.to_string(),
    }
}
