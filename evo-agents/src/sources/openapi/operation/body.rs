//! The body of a request.

use std::collections::HashSet;

use evo_common::outcome::{Outcome, codes};
use serde_json::{Map, Value, json};

use super::{
    Body, Parameter, Place, Reader,
    media::{FORM, is_text, is_wildcard, media_type, pick_request_type},
};
use crate::sources::openapi::{
    document::{Document, Target, Version},
    naming::input_name,
    samples::{self, Sample, here, kind_of},
    schema::{self, Direction, is_anything},
};

/// Most body properties that become inputs of their own.
const MAX_BODY_INPUTS: usize = 40;

struct RawBody {
    /// [`None`] when no kind is supported.
    content_type: Option<String>,
    schema: Value,
    media: Value,
    required: bool,
}

impl<'d> Reader<'d> {
    /// How the body is sent; its inputs join the parameters.
    pub(super) fn body(
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
