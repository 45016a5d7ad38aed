//! One operation in one shape, whichever version its document has: what a candidate carries as
//! its definition, and all that the builder sees.

use std::collections::HashSet;

use evo_common::{
    config::{
        SourceConfig,
        sources::{GATEWAY_LOCATION, KING_LOCATION},
    },
    outcome::{Outcome, codes},
    skill::SkillIO,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use url::Url;

use super::{
    document::{Document, Target, Version},
    naming::input_name,
    samples::{self, Sample, here, kind_of},
    schema::{self, Direction, is_anything},
};

/// Methods that a path item may have.
const METHODS: [&str; 8] = ["get", "put", "post", "delete", "options", "head", "patch", "trace"];
/// Most body properties that become inputs of their own.
const MAX_BODY_INPUTS: usize = 40;
/// Media type of an HTML form.
const FORM: &str = "application/x-www-form-urlencoded";
/// Statuses that count as a success when the document declares `2XX` or only `default`.
const ANY_SUCCESS: [u16; 3] = [200, 201, 202];

/// Where an input goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// Into the path.
    Path,
    /// Into the query.
    Query,
    /// Into a header.
    Header,
    /// Into the `Cookie` header.
    Cookie,
    /// Into the body: the whole of it, or one property.
    Body,
}

impl Place {
    fn as_str(self) -> &'static str {
        match self {
            Self::Path => "path",
            Self::Query => "query",
            Self::Header => "header",
            Self::Cookie => "cookie",
            Self::Body => "body",
        }
    }
}

/// One input of an operation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Parameter {
    /// Its name on the wire.
    pub name: String,
    /// Its name as an input of the skill.
    pub input: String,
    /// Where it goes.
    pub place: Place,
    /// Whether it must be given.
    pub required: bool,
    /// JSON type, `any` when the document doesn't say.
    pub r#type: String,
    /// What it means.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Its schema, if it says more than the type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<Value>,
    /// How a list is joined: `csv`, `multi`, `ssv`, `pipes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub list_style: Option<String>,
    /// Values that the document declares, best first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub samples: Vec<Sample>,
}

/// The body of a request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Body {
    /// Media type.
    pub content_type: String,
    /// Whether its properties are inputs of their own; else there is one input for all of it.
    pub by_property: bool,
}

/// What a right answer is, as far as the document says.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// Every declared success status.
    pub success: Vec<u16>,
    /// Those of them whose answers look like the rest of this.
    pub status: Vec<u16>,
    /// Media type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// JSON Schema of the body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<Value>,
    /// JSON pointers of lists and objects that have something in them in the document's example.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub non_empty: Vec<String>,
    /// What it gives, for the manifest.
    pub outputs: Vec<SkillIO>,
    /// Why the schema could not be followed everywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unresolved: Option<String>,
}

/// How callers show who they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Auth {
    /// Name of the security scheme in the document.
    pub scheme: String,
    /// `bearer`, `basic`, `header:<Name>` or `query:<name>`; [`None`] for kinds that a skill can't
    /// serve.
    pub kind: Option<String>,
    /// The environment variable that holds the token.
    pub auth_ref: String,
}

/// An operation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Operation {
    /// Upper case.
    pub method: String,
    /// Path template, as in the document.
    pub path: String,
    /// The document's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation_id: Option<String>,
    /// What it does, in a sentence.
    pub description: String,
    /// What it does, at length.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<String>,
    /// The document's tags.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// URL with `{input}` placeholders; starts with `{server}` when [`Operation::server`] is set.
    pub url: String,
    /// The source whose current base URL replaces `{server}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// What it takes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parameters: Vec<Parameter>,
    /// How the body is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<Body>,
    /// What a right answer is.
    pub answer: Answer,
    /// Whether the document declares that bad input is refused with 400 or 422.
    #[serde(default)]
    pub refuses: bool,
    /// How callers show who they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<Auth>,
    /// `x-evo-safe`: may be executed although it is no GET.
    #[serde(default)]
    pub safe: bool,
    /// Marked as going away.
    #[serde(default)]
    pub deprecated: bool,
    /// Only answers with a stream of events.
    #[serde(default)]
    pub streaming: bool,
    /// Why no package can be made of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Outcome>,
}

impl Operation {
    /// `GET /agents/{agent_id}`.
    pub fn locator(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    /// Whether it only reads, by its method.
    pub fn reads(&self) -> bool {
        matches!(self.method.as_str(), "GET" | "HEAD")
    }

    /// Whether the source lets it be executed.
    pub fn is_allowed(&self, source: &SourceConfig) -> bool {
        let listed =
            |entry: &String| self.operation_id.as_ref() == Some(entry) || *entry == self.locator();
        self.reads() || self.safe || source.allow_operations.iter().any(listed)
    }

    /// The required input that has no value to try it with.
    pub fn without_sample(&self) -> Option<&Parameter> {
        self.parameters.iter().find(|parameter| parameter.required && parameter.samples.is_empty())
    }
}

/// Every operation of a document, in its order.
pub fn operations(document: &Document, source: &SourceConfig) -> Vec<Operation> {
    let mut operations = Vec::new();
    for (path, item) in document.paths() {
        if path.starts_with("x-") {
            continue;
        }
        let Some(item) = here(document, item) else {
            tracing::warn!(
                location = %document.location,
                path,
                "The path {path} of {} refers to another document, which is not read",
                document.location
            );
            continue;
        };
        for (method, operation) in item.as_object().into_iter().flatten() {
            let known = METHODS.contains(&method.to_ascii_lowercase().as_str());
            if known && operation.is_object() {
                let reader =
                    Reader { document, source, path, method, item, operation, problem: None };
                operations.push(reader.read());
            }
        }
    }
    operations
}

struct Reader<'d> {
    document: &'d Document,
    source: &'d SourceConfig,
    path: &'d str,
    method: &'d str,
    item: &'d Value,
    operation: &'d Value,
    problem: Option<Outcome>,
}

impl<'d> Reader<'d> {
    fn read(mut self) -> Operation {
        let method = self.method.to_ascii_uppercase();
        let auth = self.auth();
        let mut taken = HashSet::new();
        let mut parameters = self.parameters(auth.as_ref(), &mut taken);
        let body = self.body(&method, &mut parameters, &mut taken);
        let base = self.base();
        let (path, implied) = self.path_template(&parameters, &mut taken);
        parameters.splice(0..0, implied);
        parameters.retain(|parameter| {
            parameter.place != Place::Path || path.contains(&format!("{{{}}}", parameter.input))
        });
        let (base, server) = match base {
            Some(base) => (base, None),
            None => ("{server}".to_owned(), Some(self.source.name.clone())),
        };
        if !["GET", "POST", "PUT", "DELETE", "PATCH"].contains(&method.as_str()) {
            self.problem(Outcome::held(
                codes::NO_ORACLE,
                format!("{method} answers without a body, so nothing tells a right answer from a wrong one"),
            ));
        }
        let (answer, streaming) = self.answer();
        let text = |key: &str| self.operation.get(key).and_then(Value::as_str);
        let summary = text("summary").or_else(|| self.item.get("summary")?.as_str());
        let details = text("description").or_else(|| self.item.get("description")?.as_str());
        let description = [summary, details]
            .into_iter()
            .flatten()
            .find_map(|text| samples::shorten(text, 300))
            .unwrap_or_else(|| format!("Calls {method} {}.", self.path));
        let tags = self.operation.get("tags").and_then(Value::as_array).into_iter().flatten();
        Operation {
            url: format!("{base}{path}"),
            path: self.path.to_owned(),
            operation_id: text("operationId").map(str::to_owned),
            details: details
                .and_then(|text| samples::shorten(text, 1_000))
                .filter(|details| *details != description),
            description,
            tags: tags.filter_map(Value::as_str).map(str::to_owned).take(8).collect(),
            server,
            body,
            answer,
            refuses: self.refuses(),
            auth,
            safe: self.flag("x-evo-safe"),
            deprecated: self.flag("deprecated"),
            streaming,
            problem: self.problem,
            parameters,
            method,
        }
    }

    fn flag(&self, key: &str) -> bool {
        self.operation.get(key).and_then(Value::as_bool) == Some(true)
    }

    /// The first problem counts.
    fn problem(&mut self, outcome: Outcome) {
        self.problem.get_or_insert(outcome);
    }

    fn unresolved(&mut self, what: &str, reason: &str) {
        self.problem(Outcome::held(codes::NO_ORACLE, format!("{what} can't be read: {reason}")));
    }

    /// Path-level parameters and the operation's own, which replace those of the same name and
    /// place.
    fn parameters(&mut self, auth: Option<&Auth>, taken: &mut HashSet<String>) -> Vec<Parameter> {
        let listed = |object: &'d Value| {
            object.get("parameters").and_then(Value::as_array).into_iter().flatten()
        };
        let mut raw: Vec<(&str, &str, &Value)> = Vec::new();
        for entry in listed(self.item).chain(listed(self.operation)) {
            let parameter = match self.document.resolve(entry) {
                Target::Here(parameter) => parameter,
                Target::External => {
                    self.unresolved("a parameter", "its reference is external");
                    continue;
                }
                Target::Nothing => {
                    self.unresolved("a parameter", "its reference leads nowhere");
                    continue;
                }
            };
            let text = |key: &str| parameter.get(key).and_then(Value::as_str);
            let (Some(name), Some(place)) = (text("name"), text("in")) else { continue };
            raw.retain(|(other, elsewhere, _)| (*other, *elsewhere) != (name, place));
            raw.push((name, place, parameter));
        }
        // Names in the path are given first: they are the ones that people type.
        raw.sort_by_key(|(_, place, _)| *place != "path");
        let mut parameters = Vec::new();
        for (name, place, parameter) in raw {
            let place = match place {
                "path" => Place::Path,
                "query" => Place::Query,
                "header" => Place::Header,
                "cookie" => Place::Cookie,
                _ => continue,
            };
            if place == Place::Header && is_managed_header(name, auth) {
                continue;
            }
            if let Some(parameter) = self.parameter(name, place, parameter, taken) {
                parameters.push(parameter);
            }
        }
        parameters
    }

    fn parameter(
        &mut self,
        name: &str,
        place: Place,
        parameter: &Value,
        taken: &mut HashSet<String>,
    ) -> Option<Parameter> {
        let content = parameter
            .get("content")
            .and_then(Value::as_object)
            .and_then(|map| map.values().next().filter(|media| media.is_object()));
        let schema = match (self.document.version, content) {
            (Version::V2, _) => parameter,
            (_, Some(media)) => media.get("schema").unwrap_or(&Value::Null),
            (_, None) => parameter.get("schema").unwrap_or(&Value::Null),
        };
        let required = place == Place::Path || parameter.get("required") == Some(&json!(true));
        let kind = kind_of(self.document, schema);
        let list_style = match list_style(self.document.version, place, parameter, kind) {
            Ok(style) => style,
            Err(reason) if required => {
                let reason =
                    format!("the parameter {name} {reason}, which an http skill can't send");
                self.problem(Outcome::discarded(codes::INVALID_PACKAGE, reason));
                None
            }
            Err(_) => return None,
        };
        let bundle = schema::bundle(self.document, schema, Direction::Request);
        if let (true, Some(reason)) = (required, &bundle.unresolved) {
            self.unresolved(&format!("the parameter {name}"), reason);
        }
        let mut samples = samples::of_parameter(self.document, parameter, schema);
        if let Some(media) = content {
            samples.splice(0..0, samples::of_parameter(self.document, media, &Value::Null));
        }
        if place == Place::Query {
            samples::add_bounds(self.document, schema, &mut samples);
        }
        if place != Place::Body {
            samples.retain(|sample| sample.value != "" && !sample.value.is_null());
        }
        Some(Parameter {
            name: name.to_owned(),
            input: input_name(name, taken, place.as_str()),
            place,
            required,
            r#type: kind.unwrap_or("any").to_owned(),
            description: samples::description_of(parameter)
                .or_else(|| here(self.document, schema).and_then(samples::description_of)),
            schema: Some(bundle.schema).filter(|schema| !is_anything(schema)),
            list_style,
            samples,
        })
    }

    /// How the body is sent; its inputs join the parameters.
    fn body(
        &mut self,
        method: &str,
        parameters: &mut Vec<Parameter>,
        taken: &mut HashSet<String>,
    ) -> Option<Body> {
        let raw = match self.document.version {
            Version::V2 => self.body_v2()?,
            Version::V30 | Version::V31 => self.body_v3()?,
        };
        let RawBody { content_type, schema, media, required } = raw;
        if matches!(method, "GET" | "HEAD") && !required {
            return None;
        }
        let Some(content_type) = content_type else {
            if required {
                self.problem(Outcome::discarded(
                    codes::INVALID_PACKAGE,
                    "its body is neither JSON, a plain form nor a text, which an http skill can't send",
                ));
            }
            return None;
        };
        let bundle = schema::bundle(self.document, &schema, Direction::Request);
        if let Some(reason) = &bundle.unresolved {
            self.unresolved("the body's schema", reason);
        }
        let whole = samples::of_media(self.document, &media, Some(&schema))
            .or_else(|| samples::of_schema(self.document, &schema));
        let properties = plain_properties(self.document, &schema);
        if let Some(properties) = properties.filter(|_| !is_text(&content_type)) {
            let names = schema_required(self.document, &schema);
            for (name, property) in properties {
                let resolved = here(self.document, property).unwrap_or(&Value::Null);
                if resolved.get("readOnly") == Some(&json!(true)) {
                    continue;
                }
                let mut samples = samples::of_parameter(self.document, &Value::Null, property);
                if let Some(value) = whole.as_ref().and_then(|whole| whole.get(name)) {
                    samples.retain(|one| one.value != *value && one.origin != "example");
                    let origin = "example".to_owned();
                    samples.insert(0, Sample { value: value.clone(), origin });
                }
                let converted = schema::bundle(self.document, property, Direction::Request).schema;
                parameters.push(Parameter {
                    name: name.clone(),
                    input: input_name(name, taken, "body"),
                    place: Place::Body,
                    required: required && names.contains(&name.as_str()),
                    r#type: kind_of(self.document, property).unwrap_or("any").to_owned(),
                    description: samples::description_of(resolved),
                    schema: Some(converted).filter(|schema| !is_anything(schema)),
                    list_style: None,
                    samples,
                });
            }
            return Some(Body { content_type, by_property: true });
        }
        let sample = |value| Sample { value, origin: "example".to_owned() };
        parameters.push(Parameter {
            name: "body".to_owned(),
            input: input_name("body", taken, "body"),
            place: Place::Body,
            required,
            r#type: if is_text(&content_type) {
                "string".to_owned()
            } else {
                kind_of(self.document, &schema).unwrap_or("any").to_owned()
            },
            description: here(self.document, &schema)
                .and_then(samples::description_of)
                .or_else(|| Some("The request's body.".to_owned())),
            schema: Some(bundle.schema).filter(|schema| !is_anything(schema)),
            list_style: None,
            samples: whole
                .filter(|value| value.is_string() || !is_text(&content_type))
                .map(sample)
                .into_iter()
                .collect(),
        });
        Some(Body { content_type, by_property: false })
    }

    fn body_v2(&mut self) -> Option<RawBody> {
        let listed = |object: &'d Value| {
            object.get("parameters").and_then(Value::as_array).into_iter().flatten()
        };
        let entries: Vec<&Value> = listed(self.item)
            .chain(listed(self.operation))
            .filter_map(|entry| here(self.document, entry))
            .collect();
        let place = |entry: &Value, place: &str| entry.get("in").is_some_and(|v| *v == place);
        let consumes = self.v2_list("consumes");
        if let Some(body) = entries.iter().rev().find(|entry| place(entry, "body")) {
            let supported = if consumes.is_empty() {
                Some("application/json".to_owned())
            } else {
                pick_request_type(consumes.iter().map(String::as_str))
            };
            return Some(RawBody {
                content_type: supported,
                schema: body.get("schema").cloned().unwrap_or(Value::Null),
                media: (*body).clone(),
                required: body.get("required") == Some(&json!(true)),
            });
        }
        let mut properties = Map::new();
        let mut required = Vec::new();
        let mut has_file = false;
        for entry in entries.iter().filter(|entry| place(entry, "formData")) {
            let Some(name) = entry.get("name").and_then(Value::as_str) else { continue };
            properties.insert(name.to_owned(), (*entry).clone());
            has_file |= entry.get("type").is_some_and(|kind| kind == "file");
            if entry.get("required") == Some(&json!(true)) {
                required.push(name);
            }
        }
        if properties.is_empty() {
            return None;
        }
        let multipart = consumes.iter().any(|kind| kind == "multipart/form-data");
        let urlencoded = consumes.iter().any(|kind| kind == FORM);
        let only_multipart = has_file || (multipart && !urlencoded);
        Some(RawBody {
            content_type: (!only_multipart).then(|| FORM.to_owned()),
            required: !required.is_empty(),
            schema: json!({ "type": "object", "properties": properties, "required": required }),
            media: Value::Null,
        })
    }

    fn body_v3(&mut self) -> Option<RawBody> {
        let raw = self.operation.get("requestBody")?;
        let body = match self.document.resolve(raw) {
            Target::Here(body) => body,
            Target::External => {
                self.unresolved("the body", "its reference is external");
                return None;
            }
            Target::Nothing => {
                self.unresolved("the body", "its reference leads nowhere");
                return None;
            }
        };
        let content = body.get("content").and_then(Value::as_object)?;
        let chosen = pick_request_type(content.keys().map(String::as_str));
        let media = content
            .iter()
            .find(|(name, _)| Some(media_type(name)) == chosen || chosen.is_none())
            .or_else(|| content.iter().find(|(name, _)| is_wildcard(name)))
            .map(|(_, media)| media);
        Some(RawBody {
            content_type: chosen,
            schema: media.and_then(|media| media.get("schema")).cloned().unwrap_or(Value::Null),
            media: media.cloned().unwrap_or(Value::Null),
            required: body.get("required") == Some(&json!(true)),
        })
    }

    /// `consumes` or `produces`: the operation's own, else the document's.
    fn v2_list(&self, key: &str) -> Vec<String> {
        let list = self.operation.get(key).or_else(|| self.document.root.get(key));
        let list = list.and_then(Value::as_array).into_iter().flatten();
        list.filter_map(Value::as_str).map(media_type).collect()
    }

    fn responses(&self) -> impl Iterator<Item = (&'d String, &'d Value)> {
        self.operation.get("responses").and_then(Value::as_object).into_iter().flatten()
    }

    fn refuses(&self) -> bool {
        self.responses().any(|(status, _)| {
            matches!(status.to_ascii_uppercase().as_str(), "400" | "422" | "4XX")
        })
    }

    /// What a right answer is, and whether it only streams.
    fn answer(&self) -> (Answer, bool) {
        let mut declared: Vec<Declared> = Vec::new();
        for (status, response) in self.responses() {
            let statuses = match status.to_ascii_uppercase().as_str() {
                "2XX" => ANY_SUCCESS.to_vec(),
                text => match text.parse::<u16>() {
                    Ok(status @ 200..=299) => vec![status],
                    _ => continue,
                },
            };
            declared.push(self.response(statuses, response));
        }
        let only_default = || self.responses().find(|(status, _)| *status == "default");
        if declared.is_empty()
            && !self.responses().any(|(status, _)| status.starts_with('3'))
            && let Some((_, response)) = only_default()
        {
            declared.push(self.response(ANY_SUCCESS.to_vec(), response));
        }
        let streaming = !declared.is_empty() && declared.iter().all(|response| response.streams);
        let mut success: Vec<u16> =
            declared.iter().flat_map(|response| response.statuses.clone()).collect();
        success.sort_unstable();
        success.dedup();
        let rank = |response: &Declared| {
            (response.schema.is_some(), response.content_type.is_some(), response.json)
        };
        // The best described one; of equals, the first.
        let best = declared.iter().rev().max_by_key(|response| rank(response)).cloned();
        let Some(best) = best else { return (Answer::default(), streaming) };
        let status: Vec<u16> = declared
            .iter()
            .filter(|other| {
                (&other.schema, &other.content_type) == (&best.schema, &best.content_type)
            })
            .flat_map(|response| response.statuses.clone())
            .collect();
        let mut answer = Answer {
            success,
            status,
            content_type: best.content_type,
            schema: best.schema,
            non_empty: best.example.as_ref().map(samples::non_empty_places).unwrap_or_default(),
            outputs: best.outputs,
            unresolved: best.unresolved,
        };
        if answer.schema.is_none() && answer.unresolved.is_none() && best.json {
            match &best.example {
                Some(example) => answer.schema = Some(samples::infer_schema(example)),
                // Declared as JSON and nothing more: then it is some object or list with
                // something in it, and Evaluation compares the answers with each other.
                None if !best.bodiless => {
                    answer.schema = Some(json!({ "type": ["object", "array"] }));
                    answer.non_empty = vec![String::new()];
                }
                None => {}
            }
        }
        (answer, streaming)
    }

    fn response(&self, statuses: Vec<u16>, response: &'d Value) -> Declared {
        let bodiless = statuses.iter().all(|status| matches!(status, 204 | 205));
        let mut declared = Declared { statuses, bodiless, ..Declared::default() };
        let response = match self.document.resolve(response) {
            Target::Here(response) => response,
            Target::External => {
                declared.unresolved = Some("the answer's reference is external".to_owned());
                return declared;
            }
            Target::Nothing => {
                declared.unresolved = Some("the answer's reference leads nowhere".to_owned());
                return declared;
            }
        };
        let (schema, media) = match self.document.version {
            Version::V2 => {
                let produces = self.v2_list("produces");
                let schema = response.get("schema");
                let examples = response.get("examples").and_then(Value::as_object);
                declared.streams =
                    !produces.is_empty() && produces.iter().all(|kind| is_stream(kind));
                declared.content_type = match pick_answer_type(produces.iter().map(String::as_str))
                {
                    None if schema.is_some() || examples.is_some() => {
                        Some("application/json".to_owned())
                    }
                    found => found,
                };
                let is_file =
                    schema.and_then(|schema| schema.get("type")).is_some_and(|t| t == "file");
                let example = examples.and_then(|examples| {
                    examples
                        .iter()
                        .find(|(kind, _)| Some(media_type(kind)) == declared.content_type)
                });
                let media = example.map(|(_, value)| json!({ "example": value }));
                if is_file && declared.content_type.as_deref() == Some("application/json") {
                    declared.content_type = None;
                }
                (schema.filter(|_| !is_file), media.unwrap_or(Value::Null))
            }
            Version::V30 | Version::V31 => {
                let content = response.get("content").and_then(Value::as_object);
                let Some(content) = content.filter(|content| !content.is_empty()) else {
                    declared.bodiless = true;
                    return declared;
                };
                declared.streams = content.keys().all(|kind| is_stream(&media_type(kind)));
                declared.content_type = pick_answer_type(content.keys().map(String::as_str));
                let found = content.iter().find(|(kind, _)| {
                    declared.content_type.is_none()
                        || Some(media_type(kind)) == declared.content_type
                });
                let media = found.map_or(&Value::Null, |(_, media)| media);
                (media.get("schema"), media.clone())
            }
        };
        let kind = declared.content_type.as_deref();
        declared.json = kind.is_some_and(is_json);
        declared.example = samples::of_media(self.document, &media, schema);
        if let Some(schema) = schema {
            let bundle = schema::bundle(self.document, schema, Direction::Response);
            declared.unresolved = bundle.unresolved;
            let says_something = match kind {
                // A text is always a text: only a constraint on it can be broken.
                Some(kind) if !is_json(kind) => constrains_text(&bundle.schema),
                _ => !is_anything(&bundle.schema),
            };
            if says_something && declared.unresolved.is_none() {
                declared.schema = Some(bundle.schema);
            }
            let fields = samples::fields(self.document, schema);
            declared.outputs = fields.unwrap_or_else(|| {
                let kind = kind_of(self.document, schema).unwrap_or("any");
                vec![result_output(kind, response)]
            });
        } else {
            let kind = if declared.json || kind.is_none() { "any" } else { "string" };
            declared.outputs = match &declared.example {
                Some(Value::Object(map)) => example_outputs(map),
                _ => vec![result_output(kind, response)],
            };
        }
        declared
    }

    /// The first way in that a skill can serve; [`None`] when nobody asks who calls.
    fn auth(&self) -> Option<Auth> {
        let own = match self.source.location.as_str() {
            KING_LOCATION => Some(crate::skill::execute::VIEWER_TOKEN),
            GATEWAY_LOCATION => Some(crate::skill::execute::GATEWAY_TOKEN),
            _ => None,
        };
        let requirements =
            self.operation.get("security").or_else(|| self.document.root.get("security"));
        let requirements = requirements.and_then(Value::as_array);
        if let Some(own) = own {
            // The built-in documents ask for a token everywhere but where they say otherwise.
            let is_open = self.operation.get("security").is_some_and(|list| *list == json!([]));
            return (!is_open).then(|| Auth {
                scheme: "bearer".to_owned(),
                kind: Some("bearer".to_owned()),
                auth_ref: own.to_owned(),
            });
        }
        let auth_ref = self.source.auth_ref.clone().unwrap_or_else(|| {
            let name = self
                .source
                .name
                .to_ascii_uppercase()
                .replace(|c: char| !c.is_ascii_alphanumeric(), "_");
            format!("{name}_TOKEN")
        });
        let requirements = requirements?;
        let optional = requirements.iter().any(|one| one.as_object().is_some_and(Map::is_empty));
        if requirements.is_empty() || (optional && self.source.auth_ref.is_none()) {
            return None;
        }
        let mut first = None;
        for requirement in requirements {
            let names: Vec<&String> =
                requirement.as_object().into_iter().flatten().map(|(name, _)| name).collect();
            let [name] = names.as_slice() else {
                if !names.is_empty() {
                    let all =
                        names.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(" and ");
                    first.get_or_insert((all, None));
                }
                continue;
            };
            let kind = self.scheme(name).and_then(scheme_kind);
            if kind.is_some() {
                return Some(Auth { scheme: (*name).clone(), kind, auth_ref });
            }
            first.get_or_insert(((*name).clone(), None));
        }
        first.map(|(scheme, kind)| Auth { scheme, kind, auth_ref })
    }

    fn scheme(&self, name: &str) -> Option<&'d Value> {
        let schemes = match self.document.version {
            Version::V2 => self.document.root.get("securityDefinitions"),
            Version::V30 | Version::V31 => {
                self.document.root.get("components").and_then(|all| all.get("securitySchemes"))
            }
        };
        here(self.document, schemes?.get(name)?)
    }

    /// The absolute base URL, without a slash at its end. [`None`] when the source's current
    /// address is filled in at call time: for the built-in sources, for those with a `base_url`,
    /// and for documents that name no address at all.
    fn base(&self) -> Option<String> {
        let built_in = [KING_LOCATION, GATEWAY_LOCATION].contains(&self.source.location.as_str());
        if built_in || self.source.base_url.is_some() {
            return None;
        }
        let location = Url::parse(&self.document.location)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https"));
        let base = match self.document.version {
            Version::V2 => self.base_v2(location.as_ref())?,
            Version::V30 | Version::V31 => self.base_v3(location.as_ref())?,
        };
        let is_web = matches!(base.scheme(), "http" | "https") && base.host().is_some();
        let text = base.as_str().split(['?', '#']).next().unwrap_or_default();
        is_web.then(|| text.trim_end_matches('/').to_owned())
    }

    fn base_v2(&self, location: Option<&Url>) -> Option<Url> {
        let root = &self.document.root;
        let text =
            |key: &str| root.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
        let path = text("basePath").unwrap_or("/");
        let Some(host) = text("host") else {
            // Served from where the document is. One port speaks one scheme, so the document's
            // own is right whatever `schemes` says.
            let mut base = location?.clone();
            base.set_path(path);
            base.set_query(None);
            base.set_fragment(None);
            return Some(base);
        };
        let schemes = self.operation.get("schemes").or_else(|| root.get("schemes"));
        let schemes: Vec<&str> = schemes
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .filter(|scheme| matches!(*scheme, "http" | "https"))
            .collect();
        let is_local = host.starts_with("localhost") || host.starts_with("127.");
        let scheme = match (schemes.contains(&"https"), schemes.first(), location) {
            (true, _, _) => "https",
            (false, Some(first), _) => first,
            (false, None, Some(location)) => location.scheme(),
            (false, None, None) if is_local => "http",
            (false, None, None) => "https",
        };
        Url::parse(&format!("{scheme}://{host}/{}", path.trim_start_matches('/'))).ok()
    }

    fn base_v3(&self, location: Option<&Url>) -> Option<Url> {
        let server = [self.operation, self.item, &self.document.root]
            .into_iter()
            .find_map(|owner| owner.get("servers")?.as_array()?.first());
        let Some(server) = server else {
            let mut base = location?.clone();
            base.set_path("/");
            base.set_query(None);
            return Some(base);
        };
        let mut url = server.get("url").and_then(Value::as_str).unwrap_or("/").to_owned();
        for (name, variable) in
            server.get("variables").and_then(Value::as_object).into_iter().flatten()
        {
            let value = variable.get("default").or_else(|| variable.get("enum")?.get(0)).and_then(
                |value| {
                    value
                        .as_str()
                        .map(str::to_owned)
                        .or_else(|| value.as_i64().map(|n| n.to_string()))
                },
            );
            if let Some(value) = value {
                url = url.replace(&format!("{{{name}}}"), &value);
            }
        }
        if url.contains(['{', '}']) {
            return None;
        }
        match location {
            Some(location) => location.join(&url).ok(),
            None => Url::parse(&url).ok(),
        }
    }

    /// The path with the inputs' names between its braces, and parameters that it names and
    /// nobody declares.
    fn path_template(
        &self,
        parameters: &[Parameter],
        taken: &mut HashSet<String>,
    ) -> (String, Vec<Parameter>) {
        let mut implied: Vec<Parameter> = Vec::new();
        let mut out = String::new();
        let mut rest = self.path;
        while let Some(open) = rest.find('{') {
            out.push_str(&rest[..open].replace('}', "%7D"));
            let Some(length) = closing(&rest[open..]) else {
                out.push_str("%7B");
                rest = &rest[open + 1..];
                continue;
            };
            let inside = &rest[open + 1..open + length];
            rest = &rest[open + length + 1..];
            // `{path:.*}`, `{+path}` and `{path*}` are how routers and RFC 6570 write `{path}`.
            let plain = inside.split(':').next().unwrap_or_default();
            let plain = plain.trim_start_matches(['+', '#', '.', '/', ';', '?', '&']);
            let plain = plain.trim_end_matches('*').trim();
            if plain.is_empty() {
                out.push_str("%7B%7D");
                continue;
            }
            let declared = parameters
                .iter()
                .chain(&implied)
                .find(|p| p.place == Place::Path && (p.name == inside || p.name == plain));
            let input = match declared {
                Some(parameter) => parameter.input.clone(),
                None => {
                    let input = input_name(plain, taken, "path");
                    implied.push(Parameter {
                        name: plain.to_owned(),
                        input: input.clone(),
                        place: Place::Path,
                        required: true,
                        r#type: "string".to_owned(),
                        description: None,
                        schema: None,
                        list_style: None,
                        samples: Vec::new(),
                    });
                    input
                }
            };
            out.push_str(&format!("{{{input}}}"));
        }
        out.push_str(&rest.replace('}', "%7D"));
        if !out.starts_with('/') {
            out.insert(0, '/');
        }
        (out, implied)
    }
}

#[derive(Debug, Clone, Default)]
struct Declared {
    statuses: Vec<u16>,
    content_type: Option<String>,
    json: bool,
    bodiless: bool,
    streams: bool,
    schema: Option<Value>,
    example: Option<Value>,
    outputs: Vec<SkillIO>,
    unresolved: Option<String>,
}

struct RawBody {
    /// [`None`] when no kind is supported.
    content_type: Option<String>,
    schema: Value,
    media: Value,
    required: bool,
}

/// The distance to the brace that closes the one at the start.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 0;
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(at);
        }
    }
    None
}

/// Headers that OpenAPI says to ignore as parameters, and the one that carries the token.
fn is_managed_header(name: &str, auth: Option<&Auth>) -> bool {
    let token = auth.and_then(|auth| auth.kind.as_deref()?.strip_prefix("header:"));
    ["accept", "content-type", "authorization"].iter().any(|other| name.eq_ignore_ascii_case(other))
        || token.is_some_and(|token| name.eq_ignore_ascii_case(token))
}

fn scheme_kind(scheme: &Value) -> Option<String> {
    let text = |key: &str| scheme.get(key).and_then(Value::as_str);
    match text("type")?.to_ascii_lowercase().as_str() {
        "basic" => Some("basic".to_owned()),
        "http" => match text("scheme")?.to_ascii_lowercase().as_str() {
            "basic" => Some("basic".to_owned()),
            "bearer" => Some("bearer".to_owned()),
            _ => None,
        },
        "oauth2" | "openidconnect" => Some("bearer".to_owned()),
        "apikey" => {
            let name = text("name")?;
            let legal = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
            match text("in")? {
                "header" if !name.is_empty() && name.chars().all(legal) => {
                    Some(format!("header:{name}"))
                }
                "query" if !name.is_empty() => Some(format!("query:{name}")),
                _ => None,
            }
        }
        _ => None,
    }
}

/// How a list parameter is joined; the error says how it would have to be sent.
fn list_style(
    version: Version,
    place: Place,
    parameter: &Value,
    kind: Option<&str>,
) -> Result<Option<String>, &'static str> {
    let text = |key: &str| parameter.get(key).and_then(Value::as_str);
    let style = match (version, kind) {
        (Version::V2, Some("array")) => match text("collectionFormat").unwrap_or("csv") {
            "multi" if place == Place::Query => "multi",
            "ssv" => "ssv",
            "pipes" => "pipes",
            "tsv" => return Err("is joined by tabs"),
            _ => "csv",
        },
        (Version::V2, _) => return Ok(None),
        (_, Some("array")) => {
            let explode = parameter.get("explode").and_then(Value::as_bool);
            match (text("style"), place) {
                (Some("spaceDelimited"), _) => "ssv",
                (Some("pipeDelimited"), _) => "pipes",
                (Some("matrix" | "label"), _) => return Err("is in matrix or label style"),
                (_, Place::Query | Place::Cookie) if explode.unwrap_or(true) => "multi",
                _ => "csv",
            }
        }
        (_, Some("object")) if parameter.get("content").is_none() && place != Place::Body => {
            return Err("is an object spread over the URL");
        }
        _ => match text("style") {
            Some("matrix" | "label") => return Err("is in matrix or label style"),
            Some("deepObject") => return Err("is an object spread over the URL"),
            _ => return Ok(None),
        },
    };
    Ok(Some(style.to_owned()))
}

/// A media type without parameters, in lower case.
fn media_type(text: &str) -> String {
    text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Whether a media type holds JSON.
pub fn is_json(kind: &str) -> bool {
    kind == "application/json" || kind == "text/json" || kind.ends_with("+json")
}

fn is_stream(kind: &str) -> bool {
    kind == "text/event-stream"
}

fn is_wildcard(kind: &str) -> bool {
    matches!(media_type(kind).as_str(), "*/*" | "application/*" | "")
}

/// The kind of body to send: JSON, else a form, else a text; [`None`] when none of them is taken.
fn pick_request_type<'a>(kinds: impl Iterator<Item = &'a str>) -> Option<String> {
    let kinds: Vec<String> = kinds.map(media_type).collect();
    let find = |test: &dyn Fn(&str) -> bool| kinds.iter().find(|kind| test(kind)).cloned();
    find(&|kind| kind == "application/json")
        .or_else(|| find(&is_json))
        .or_else(|| find(&|kind| kind == FORM))
        .or_else(|| find(&is_text))
        .or_else(|| find(&is_wildcard).map(|_| "application/json".to_owned()))
}

/// Whether a body of this type is one text.
fn is_text(kind: &str) -> bool {
    (kind.starts_with("text/") && !kind.contains('*'))
        || kind == "application/xml"
        || kind.ends_with("+xml")
}

/// The kind of answer to ask for: JSON, else the first; [`None`] for any.
fn pick_answer_type<'a>(kinds: impl Iterator<Item = &'a str>) -> Option<String> {
    let kinds: Vec<String> = kinds.map(media_type).collect();
    let find = |test: &dyn Fn(&str) -> bool| kinds.iter().find(|kind| test(kind)).cloned();
    find(&|kind| kind == "application/json")
        .or_else(|| find(&is_json))
        .or_else(|| find(&|kind| !kind.contains('*') && kind.contains('/') && !is_stream(kind)))
}

/// Whether a schema for a text can be broken by a text.
fn constrains_text(schema: &Value) -> bool {
    ["enum", "const", "pattern", "minLength"].into_iter().any(|key| schema.get(key).is_some())
}

/// The properties of a body that is a plain object, so that each can be an input.
fn plain_properties<'d>(
    document: &'d Document,
    schema: &'d Value,
) -> Option<&'d Map<String, Value>> {
    let schema = here(document, schema)?;
    let combined = ["allOf", "anyOf", "oneOf", "not", "if", "patternProperties"]
        .into_iter()
        .any(|key| schema.get(key).is_some());
    let open = schema.get("additionalProperties").is_some_and(|extra| *extra != json!(false));
    let properties = schema.get("properties")?.as_object()?;
    let legal = |name: &String| !name.is_empty() && !name.contains(['{', '}']);
    let plain = !combined
        && !open
        && (1..=MAX_BODY_INPUTS).contains(&properties.len())
        && properties.keys().all(legal);
    plain.then_some(properties)
}

fn schema_required<'d>(document: &'d Document, schema: &'d Value) -> Vec<&'d str> {
    let required = here(document, schema).and_then(|schema| schema.get("required")?.as_array());
    required.into_iter().flatten().filter_map(Value::as_str).collect()
}

fn result_output(kind: &str, response: &Value) -> SkillIO {
    SkillIO {
        name: "result".to_owned(),
        r#type: kind.to_owned(),
        required: false,
        description: samples::description_of(response),
    }
}

fn example_outputs(example: &Map<String, Value>) -> Vec<SkillIO> {
    let output = |(name, value): (&String, &Value)| SkillIO {
        name: name.clone(),
        r#type: match value {
            Value::Null => "any",
            Value::Bool(_) => "boolean",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        }
        .to_owned(),
        required: false,
        description: None,
    };
    let legal = |name: &str| !name.is_empty() && !name.contains(['{', '}']);
    example.iter().filter(|(name, _)| legal(name)).take(20).map(output).collect()
}
