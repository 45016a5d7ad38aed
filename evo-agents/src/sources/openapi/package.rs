//! From an operation to the files of a skill package. Pure: the same candidate gives the same
//! bytes on every machine.

use std::collections::BTreeMap;

use evo_common::{
    artifact::Files,
    case::{Case, CaseEntry, CaseFile},
    skill::{HttpCall, HttpMethod, Provenance, SkillIO, SkillManifest, files},
    stage::Candidate,
};
use serde::Serialize;
use serde_json::{Map, Value};

use super::{
    BUILDER, cases,
    operation::{Operation, Parameter, Place},
};

/// Longest description in a SKILL.md, by the agentskills.io format.
const MAX_SKILL_DESCRIPTION: usize = 1_024;

/// A compiled package.
#[derive(Debug, Clone, PartialEq)]
pub struct Built {
    /// `manifest.toml`.
    pub manifest: SkillManifest,
    /// What it calls: `GET {server}/agents`.
    pub endpoints: Vec<String>,
    /// All files.
    pub files: Files,
}

/// Why an operation can't be compiled.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No http skill can send it.
    #[error("an http skill can't send the method {0}")]
    Method(String),
    /// A value that TOML can't hold.
    #[error("{file} can't be written: {message}")]
    Write {
        /// The file.
        file: &'static str,
        /// Why.
        message: String,
    },
}

/// `config.toml`, with its maps in order.
#[derive(Serialize)]
struct ConfigFile<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    auth_ref: Option<&'a str>,
    endpoints: [EndpointFile<'a>; 1],
    extra: &'a HttpCall,
}

#[derive(Serialize)]
struct EndpointFile<'a> {
    name: &'a str,
    url: &'a str,
    method: HttpMethod,
    headers: BTreeMap<&'a str, String>,
}

/// Compiles a candidate's operation.
pub fn build(
    candidate: &Candidate,
    operation: &Operation,
    version: &str,
    train_cases: &[Case],
    parent: Option<&str>,
) -> Result<Built, Error> {
    let method = match operation.method.as_str() {
        "GET" => HttpMethod::Get,
        "POST" => HttpMethod::Post,
        "PUT" => HttpMethod::Put,
        "DELETE" => HttpMethod::Delete,
        "PATCH" => HttpMethod::Patch,
        other => return Err(Error::Method(other.to_owned())),
    };
    let manifest = SkillManifest {
        name: candidate.name.clone(),
        version: version.to_owned(),
        description: candidate.description.clone(),
        capabilities: candidate.capabilities.clone(),
        inputs: operation.parameters.iter().filter(|p| is_sent(operation, p)).map(input).collect(),
        outputs: operation.answer.outputs.clone(),
        dependencies: Vec::new(),
        has_code: false,
    };
    let call = call(operation);
    let mut headers = BTreeMap::new();
    if let Some(kind) = &operation.answer.content_type {
        headers.insert("Accept", kind.clone());
    }
    let name = operation.operation_id.as_deref().unwrap_or("call");
    let config = ConfigFile {
        auth_ref: operation.auth.as_ref().map(|auth| auth.auth_ref.as_str()),
        endpoints: [EndpointFile { name, url: &operation.url, method, headers }],
        extra: &call,
    };
    let provenance = Provenance {
        source: candidate.source.clone(),
        locator: candidate.locator.clone(),
        fingerprint: candidate.fingerprint.clone(),
        builder: BUILDER.to_owned(),
        parent: parent.map(str::to_owned),
        model: candidate.written.last().map(|written| written.model.clone()),
        written: candidate.written.clone(),
        parents: Vec::new(),
        operators: Vec::new(),
    };
    let endpoints = vec![format!("{} {}", operation.method, operation.url)];
    // A package has no definition beside it, so its cases hold the schema themselves.
    let own_cases = cases::with_declared_schema(train_cases, operation);
    let skill_md = skill_md(&manifest, operation, train_cases);
    let mut all = Files::new();
    for (file, text) in [
        (files::MANIFEST, toml_text(files::MANIFEST, &manifest)?),
        (files::CONFIG, toml_text(files::CONFIG, &config)?),
        (files::TESTS, toml_text(files::TESTS, &case_file(&own_cases))?),
        (files::PROVENANCE, toml_text(files::PROVENANCE, &provenance)?),
        (files::SKILL_MD, skill_md),
    ] {
        all.insert(file.to_owned(), text.into_bytes());
    }
    Ok(Built { manifest, endpoints, files: all })
}

fn toml_text(file: &'static str, value: &impl Serialize) -> Result<String, Error> {
    toml::to_string_pretty(value).map_err(|error| Error::Write { file, message: error.to_string() })
}

fn input(parameter: &Parameter) -> SkillIO {
    SkillIO {
        name: parameter.input.clone(),
        r#type: parameter.r#type.clone(),
        required: parameter.required,
        description: parameter.description.clone(),
    }
}

/// Whether an input has a place in the call: of optional cookies only the first one has, since one
/// header holds them all.
fn is_sent(operation: &Operation, parameter: &Parameter) -> bool {
    parameter.place != Place::Cookie
        || cookies(operation).iter().any(|cookie| cookie.input == parameter.input)
}

fn cookies(operation: &Operation) -> Vec<&Parameter> {
    let all = || operation.parameters.iter().filter(|p| p.place == Place::Cookie);
    let required: Vec<&Parameter> = all().filter(|parameter| parameter.required).collect();
    if required.is_empty() { all().take(1).collect() } else { required }
}

fn placeholder(parameter: &Parameter) -> String {
    format!("{{{}}}", parameter.input)
}

fn call(operation: &Operation) -> HttpCall {
    let at = |place: Place| operation.parameters.iter().filter(move |p| p.place == place);
    let entry = |parameter: &Parameter| (parameter.name.clone(), placeholder(parameter));
    let mut headers: BTreeMap<String, String> = at(Place::Header).map(entry).collect();
    let cookies: Vec<String> = cookies(operation)
        .into_iter()
        .map(|cookie| format!("{}={}", cookie.name, placeholder(cookie)))
        .collect();
    if !cookies.is_empty() {
        headers.insert("Cookie".to_owned(), cookies.join("; "));
    }
    let body = operation.body.as_ref().map(|body| {
        let inputs = at(Place::Body);
        if body.by_property {
            let properties: Map<String, Value> = inputs
                .map(|parameter| (parameter.name.clone(), Value::String(placeholder(parameter))))
                .collect();
            Value::Object(properties)
        } else {
            inputs.map(placeholder).map(Value::String).next().unwrap_or(Value::Null)
        }
    });
    HttpCall {
        server: operation.server.clone(),
        operation: operation.locator(),
        query: at(Place::Query).map(entry).collect(),
        headers,
        content_type: operation.body.as_ref().map(|body| body.content_type.clone()),
        body: body.filter(|body| !body.is_null()),
        auth_scheme: operation.auth.as_ref().and_then(|auth| auth.kind.clone()),
        success: operation.answer.success.clone(),
        list_style: at(Place::Query)
            .filter_map(|parameter| Some((parameter.name.clone(), parameter.list_style.clone()?)))
            .filter(|(_, style)| style != "multi")
            .collect(),
        timeout_ms: HttpCall::default_timeout_ms(),
        max_response_bytes: HttpCall::default_max_response_bytes(),
        retries: 0,
        output: None,
    }
}

fn case_file(cases: &[Case]) -> CaseFile {
    let entry = |case: &Case| CaseEntry {
        id: case.case_id.clone(),
        origin: case.origin.clone(),
        input: serde_json::to_string(&case.input).expect("JSON can be written"),
        expect: serde_json::to_string(&case.expect).expect("an expectation is plain data"),
    };
    CaseFile { cases: cases.iter().map(entry).collect() }
}

/// The package in the agentskills.io format, so that other agents can load the same folder.
fn skill_md(manifest: &SkillManifest, operation: &Operation, cases: &[Case]) -> String {
    let quoted = |text: &str| Value::from(text).to_string();
    let description: String = format!("{} ({})", manifest.description, operation.locator())
        .chars()
        .take(MAX_SKILL_DESCRIPTION)
        .collect();
    let mut text = format!(
        "---\nname: {}\ndescription: {}\nmetadata:\n  evo-version: {}\n---\n\n# {}\n\n## Description\n\n{}\n",
        manifest.name,
        quoted(&description),
        quoted(&manifest.version),
        manifest.name,
        manifest.description,
    );
    let mut line = |line: String| {
        text.push_str(&line);
        text.push('\n');
    };
    if let Some(details) = &operation.details {
        line(format!("\n{details}"));
    }
    if operation.deprecated {
        line("\nIts publisher marks it as deprecated.".to_owned());
    }
    line("\n## Inputs\n".to_owned());
    if manifest.inputs.is_empty() {
        line("None.".to_owned());
    }
    for input in &manifest.inputs {
        let required = if input.required { "required" } else { "optional" };
        let description = input.description.as_deref().unwrap_or_default();
        let dash = if description.is_empty() { "" } else { " — " };
        line(format!("- `{}` ({}, {required}){dash}{description}", input.name, input.r#type));
    }
    line("\n## Usage\n".to_owned());
    line(format!("Calls `{} {}`.", operation.method, operation.url));
    if let Some(auth) = &operation.auth {
        line(format!("The auth token is read from the environment variable `{}`.", auth.auth_ref));
    }
    line(format!("\nWith Evo: `evo skill run {}`", manifest.name));
    line("\n## Example\n".to_owned());
    let example = cases.iter().find(|case| !case.expect.refusal);
    match example {
        Some(case) => line(format!(
            "```json\n{}\n```",
            serde_json::to_string_pretty(&case.input).expect("JSON can be written")
        )),
        None => line("The source declares no example input.".to_owned()),
    }
    text
}
