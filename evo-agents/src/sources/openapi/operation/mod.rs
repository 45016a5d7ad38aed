//! One operation in one shape, whichever version its document has: what a candidate carries as
//! its definition, and all that the builder sees.

mod address;
mod answer;
mod auth;
mod body;
mod forecast;
mod media;
mod parameters;

use std::collections::HashSet;

use evo_common::{
    config::SourceConfig,
    outcome::{Outcome, codes},
    skill::SkillIO,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    document::Document,
    samples::{self, Sample, here},
};

/// Methods that a path item may have.
const METHODS: [&str; 8] = ["get", "put", "post", "delete", "options", "head", "patch", "trace"];

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
        let Some(methods) = item.as_object() else {
            skipped(document, path);
            continue;
        };
        for (method, operation) in methods {
            if !METHODS.contains(&method.to_ascii_lowercase().as_str()) {
                continue;
            }
            if !operation.is_object() {
                skipped(document, &format!("{} {path}", method.to_ascii_uppercase()));
                continue;
            }
            let reader = Reader { document, source, path, method, item, operation, problem: None };
            operations.push(reader.read());
        }
    }
    operations
}

/// A part of the document that is not what it should be; the rest goes on.
fn skipped(document: &Document, what: &str) {
    tracing::warn!(
        location = %document.location,
        what,
        "{what} of {} is not an object and was left out; correct the document",
        document.location
    );
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

impl Reader<'_> {
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

    /// `consumes` or `produces`: the operation's own, else the document's.
    fn v2_list(&self, key: &str) -> Vec<String> {
        let list = self.operation.get(key).or_else(|| self.document.root.get(key));
        let list = list.and_then(Value::as_array).into_iter().flatten();
        list.filter_map(Value::as_str).map(media::media_type).collect()
    }
}
