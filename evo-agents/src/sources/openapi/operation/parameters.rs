//! Parameters in path, query, headers and cookies.

use std::collections::HashSet;

use evo_common::outcome::{Outcome, codes};
use serde_json::{Value, json};

use super::{Auth, Parameter, Place, Reader};
use crate::sources::openapi::{
    document::{Target, Version},
    naming::input_name,
    samples::{self, here, kind_of},
    schema::{self, Direction, is_anything},
};

impl<'d> Reader<'d> {
    /// Path-level parameters and the operation's own, which replace those of the same name and
    /// place.
    pub(super) fn parameters(
        &mut self,
        auth: Option<&Auth>,
        taken: &mut HashSet<String>,
    ) -> Vec<Parameter> {
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
}

/// Headers that OpenAPI says to ignore as parameters, and the one that carries the token.
fn is_managed_header(name: &str, auth: Option<&Auth>) -> bool {
    let token = auth.and_then(|auth| auth.kind.as_deref()?.strip_prefix("header:"));
    ["accept", "content-type", "authorization"].iter().any(|other| name.eq_ignore_ascii_case(other))
        || token.is_some_and(|token| name.eq_ignore_ascii_case(token))
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
