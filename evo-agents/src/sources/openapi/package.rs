//! From an operation to the files of a skill package. Pure: the same candidate gives the same
//! bytes on every machine.

use std::collections::BTreeMap;

use evo_common::{
    case::Case,
    skill::{HttpCall, HttpMethod, SkillIO, SkillManifest},
    stage::Candidate,
};
use serde::Serialize;
use serde_json::{Map, Value};

use super::{
    BUILDER, cases,
    operation::{Operation, Parameter, Place},
};
pub use crate::sources::package::{Built, Error};
use crate::sources::package::{Parts, SkillMd};

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
    // A package has no definition beside it, so its cases hold the schema themselves.
    let own_cases = cases::with_declared_schema(train_cases, operation.answer.schema.as_ref());
    let locator = operation.locator();
    let deprecated = operation.deprecated.then_some("Its publisher marks it as deprecated.");
    let mut usage = vec![format!("Calls `{} {}`.", operation.method, operation.url)];
    usage.extend(operation.auth.as_ref().map(|auth| {
        format!("The auth token is read from the environment variable `{}`.", auth.auth_ref)
    }));
    let skill_md = SkillMd {
        locator: &locator,
        details: operation.details.as_deref().into_iter().chain(deprecated).collect(),
        usage,
        cases: train_cases,
    };
    Parts {
        candidate,
        manifest,
        config: &config,
        endpoints: vec![format!("{} {}", operation.method, operation.url)],
        builder: BUILDER,
        parent,
        cases: &own_cases,
        skill_md,
    }
    .write()
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
