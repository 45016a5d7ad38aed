//! What a right answer is, as far as the document says.

use evo_common::skill::SkillIO;
use serde_json::{Map, Value, json};

use super::{
    Answer, Reader,
    media::{is_json, is_stream, media_type, pick_answer_type},
};
use crate::sources::openapi::{
    document::{Target, Version},
    samples::{self, kind_of},
    schema::{self, Direction, is_anything},
};

/// Statuses that count as a success when the document declares `2XX` or only `default`.
const ANY_SUCCESS: [u16; 3] = [200, 201, 202];

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

impl<'d> Reader<'d> {
    fn responses(&self) -> impl Iterator<Item = (&'d String, &'d Value)> {
        self.operation.get("responses").and_then(Value::as_object).into_iter().flatten()
    }

    pub(super) fn refuses(&self) -> bool {
        self.responses().any(|(status, _)| {
            matches!(status.to_ascii_uppercase().as_str(), "400" | "422" | "4XX")
        })
    }

    /// What a right answer is, and whether it only streams.
    pub(super) fn answer(&self) -> (Answer, bool) {
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
}

/// Whether a schema for a text can be broken by a text.
fn constrains_text(schema: &Value) -> bool {
    ["enum", "const", "pattern", "minLength"].into_iter().any(|key| schema.get(key).is_some())
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
