//! The tools of an MCP server as a source.
//!
//! Nothing here does I/O: the roles list the tools and store the packages.

pub mod package;

#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashSet};

use evo_common::{
    case::{Case, Expectation},
    config::{SourceConfig, sources::SourceExample},
    ids::sha256_hex,
    outcome::{Outcome, codes},
    skill::SkillIO,
    stage::{Candidate, CandidateKind},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::openapi::{
    canonical, cases,
    document::{Document, Version},
    naming::{Names, words},
    operation::{Parameter, Place},
    samples::{self, kind_of},
    schema::{self, Direction, is_anything},
};
use crate::mcp::{Listing, Tool};

/// Who builds packages from tools, with the version of what it makes.
pub const BUILDER: &str = "mcp/1";

/// First word of a tool's locator.
const LOCATOR: &str = "TOOL";
/// Most words that say what a tool can do.
const MAX_CAPABILITIES: usize = 8;
/// Words of a name that say nothing about what a tool deals with.
const VERBS: [&str; 12] =
    ["get", "list", "show", "read", "fetch", "find", "set", "make", "the", "for", "and", "with"];

/// What a candidate carries as its definition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Definition {
    /// The source whose server has the tool.
    pub server: String,
    /// The tool, as the server lists it.
    pub tool: Tool,
    /// Calls of it that the operator says are right.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub examples: Vec<SourceExample>,
}

/// What a right answer is, as far as the definition says.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Answer {
    /// JSON Schema of the structured answer.
    pub schema: Option<Value>,
    /// What may not always be empty.
    pub non_empty: Vec<String>,
    /// What it gives, for the manifest.
    pub outputs: Vec<SkillIO>,
    /// Why its schema can't be used.
    pub unresolved: Option<String>,
}

/// The candidates of a server, one for each tool.
pub fn candidates(listing: Listing, source: &SourceConfig, names: &mut Names) -> Vec<Candidate> {
    let mut seen = HashSet::new();
    let mut tools = listing.tools;
    // Of two tools with one name, calls reach one only.
    tools.retain(|tool| seen.insert(tool.name.clone()));
    for tool in &tools {
        names.keep(&source.name, Some(&tool.name), LOCATOR, &tool.name);
    }
    tools.into_iter().map(|tool| candidate(tool, source, names)).collect()
}

fn candidate(tool: Tool, source: &SourceConfig, names: &mut Names) -> Candidate {
    let name = names.give(&source.name, Some(&tool.name), LOCATOR, &tool.name);
    let examples = source.examples.iter().filter(|example| example.tool == tool.name);
    let definition =
        Definition { server: source.name.clone(), examples: examples.cloned().collect(), tool };
    let value = serde_json::to_value(&definition).expect("a definition is plain data");
    let tool = &definition.tool;
    Candidate {
        kind: CandidateKind::Mcp,
        request_id: None,
        source: source.name.clone(),
        locator: format!("{LOCATOR} {}", tool.name),
        description: description(tool),
        capabilities: capabilities(&tool.name),
        fingerprint: sha256_hex(format!("{BUILDER}\n{}", canonical(&value)).as_bytes()),
        demand: 1.0,
        deterministic: true,
        cases: definition.cases(&name),
        definition: value,
        name,
        written: Vec::new(),
        past: None,
    }
}

fn description(tool: &Tool) -> String {
    let text = tool.description.as_deref().and_then(|text| samples::shorten(text, 300));
    let title = || tool.title.as_deref().and_then(|text| samples::shorten(text, 300));
    text.or_else(title).unwrap_or_else(|| format!("Calls the tool {}.", tool.name))
}

/// The tool's name, and the words of it that say what it deals with.
fn capabilities(name: &str) -> Vec<String> {
    let words = words(name);
    let mut seen = BTreeSet::new();
    std::iter::once(words.join("-"))
        .chain(
            words.iter().filter(|word| word.len() > 2 && !VERBS.contains(&word.as_str())).cloned(),
        )
        .filter(|word| !word.is_empty() && seen.insert(word.clone()))
        .take(MAX_CAPABILITIES)
        .collect()
}

fn document(schema: &Map<String, Value>, what: &str) -> Document {
    // Its references count from its own root, as those of a 3.1 document do.
    let root = Value::Object(schema.clone());
    Document { location: what.to_owned(), version: Version::V31, root }
}

impl Definition {
    /// Whether the source lets the tool be executed.
    pub fn is_allowed(&self, source: &SourceConfig) -> bool {
        self.tool.reads() || source.allow_operations.contains(&self.tool.name)
    }

    /// What the tool takes.
    pub fn inputs(&self) -> Vec<Parameter> {
        let document = document(&self.tool.input_schema, "inputSchema");
        let schema = &document.root;
        let required = schema.get("required").and_then(Value::as_array).into_iter().flatten();
        let required: Vec<&str> = required.filter_map(Value::as_str).collect();
        let properties = schema.get("properties").and_then(Value::as_object);
        let legal = |name: &str| !name.is_empty() && !name.contains(['{', '}']);
        let properties = properties.into_iter().flatten().filter(|(name, _)| legal(name));
        properties
            .map(|(name, property)| {
                let bundle = schema::bundle(&document, property, Direction::Request);
                let mut samples = samples::of_parameter(&document, &Value::Null, property);
                samples::add_bounds(&document, property, &mut samples);
                // Null is what "not given" looks like.
                samples.retain(|sample| !sample.value.is_null());
                Parameter {
                    name: name.clone(),
                    input: name.clone(),
                    place: Place::Body,
                    required: required.contains(&name.as_str()),
                    r#type: kind_of(&document, property).unwrap_or("any").to_owned(),
                    description: samples::here(&document, property)
                        .and_then(samples::description_of),
                    schema: Some(bundle.schema).filter(|schema| !is_anything(schema)),
                    list_style: None,
                    samples,
                }
            })
            .collect()
    }

    /// What a right answer is.
    pub fn answer(&self) -> Answer {
        let result = |kind: &str| SkillIO {
            name: "result".to_owned(),
            r#type: kind.to_owned(),
            required: false,
            description: None,
        };
        let Some(declared) = &self.tool.output_schema else {
            return Answer { outputs: vec![result("any")], ..Answer::default() };
        };
        let document = document(declared, "outputSchema");
        let bundle = schema::bundle(&document, &document.root, Direction::Response);
        let fields = samples::fields(&document, &document.root);
        let outputs = fields
            .unwrap_or_else(|| vec![result(kind_of(&document, &document.root).unwrap_or("any"))]);
        let schema = Some(bundle.schema)
            .filter(|schema| bundle.unresolved.is_none() && !is_anything(schema));
        // A schema that names a type and nothing more: then there is something in it.
        let says_little = schema
            .as_ref()
            .and_then(Value::as_object)
            .is_some_and(|schema| schema.keys().all(|keyword| keyword == "type"));
        Answer {
            non_empty: says_little.then(String::new).into_iter().collect(),
            schema,
            outputs,
            unresolved: bundle.unresolved,
        }
    }

    /// The cases of a candidate of this name: the operator's examples, then what the declared
    /// values of its inputs give if the definition says what a right answer is.
    pub fn cases(&self, name: &str) -> Vec<Case> {
        let answer = self.answer();
        let declared =
            Expectation { declared_schema: answer.schema.is_some(), ..Expectation::default() };
        let inputs = self.inputs();
        let complete = without_sample(&inputs).is_none();
        let expect = Some(&declared).filter(|expect| complete && expect.has_oracle());
        let examples = self.examples.iter().map(|example| {
            let expect = match &example.expect {
                Some(expect) => {
                    let mut expect = expect.clone();
                    expect.declared_schema |=
                        declared.declared_schema && expect.schema.is_none() && !expect.refusal;
                    expect
                }
                None if declared.has_oracle() => declared.clone(),
                None => something(),
            };
            (example.input.clone(), expect)
        });
        cases::of_samples(name, examples, &inputs, expect, &answer.non_empty)
    }

    /// What is known against it before anything is called. The order is that of Pre-load's gates.
    pub fn forecast(&self, source: &SourceConfig) -> Result<(), Outcome> {
        self.write(source)?;
        self.with_cases()
    }

    /// Whether it may be executed.
    pub fn write(&self, source: &SourceConfig) -> Result<(), Outcome> {
        if self.is_allowed(source) {
            return Ok(());
        }
        let name = &self.tool.name;
        let hints = self.tool.annotations.clone().unwrap_or_default();
        let says = if hints.destructive_hint == Some(true) {
            "says that it may destroy something"
        } else {
            "does not say that it only reads (readOnlyHint)"
        };
        Err(Outcome::held(
            codes::WRITE_NOT_ALLOWED,
            format!(
                "the tool {name:?} {says}; to let it be executed, add {name:?} to allow_operations of the source {:?}",
                source.name
            ),
        ))
    }

    /// Whether there is something to try it with, and something that tells a right answer.
    pub fn with_cases(&self) -> Result<(), Outcome> {
        let name = &self.tool.name;
        let how = format!(
            "give calls that are known to be right: [[sources.examples]] with tool = {name:?}, input and expect"
        );
        if self.examples.iter().any(|example| {
            example.expect.as_ref().is_none_or(|expect| !expect.refusal && expect.has_oracle())
        }) {
            return Ok(());
        }
        let answer = self.answer();
        if let Some(reason) = &answer.unresolved {
            let reason = format!("its outputSchema can't be used ({reason}); {how}");
            return Err(Outcome::held(codes::NO_ORACLE, reason));
        }
        if answer.schema.is_none() && self.examples.is_empty() {
            let reason = format!(
                "the tool declares no outputSchema, so nothing tells a right answer from a wrong one; {how}"
            );
            return Err(Outcome::held(codes::NO_ORACLE, reason));
        }
        if let Some(input) = without_sample(&self.inputs()) {
            let reason = format!(
                "the required input {:?} has no example, default or enum, so there is nothing to try it with; {how}",
                input.name
            );
            return Err(Outcome::held(codes::NO_EXAMPLE_FOR_PARAMETER, reason));
        }
        Ok(())
    }
}

fn without_sample(inputs: &[Parameter]) -> Option<&Parameter> {
    inputs.iter().find(|input| input.required && input.samples.is_empty())
}

/// The least that an answer has to be: no error, something, and of one shape over all repeats.
fn something() -> Expectation {
    let kinds = ["object", "array", "string", "number", "boolean"];
    Expectation {
        schema: Some(json!({ "type": kinds })),
        non_empty: vec![String::new()],
        ..Expectation::default()
    }
}
