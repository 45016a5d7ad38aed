//! Where an operation is called: the base URL and the path template.

use std::collections::HashSet;

use evo_common::config::sources::{GATEWAY_LOCATION, KING_LOCATION};
use serde_json::Value;
use url::Url;

use super::{Parameter, Place, Reader};
use crate::sources::openapi::{document::Version, naming::input_name};

impl Reader<'_> {
    /// The absolute base URL, without a slash at its end. [`None`] when the source's current
    /// address is filled in at call time: for the built-in sources, for those with a `base_url`,
    /// and for documents that name no address at all.
    pub(super) fn base(&self) -> Option<String> {
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
        let base = self.as_served(base, location.as_ref());
        let is_web = matches!(base.scheme(), "http" | "https") && base.host().is_some();
        let text = base.as_str().split(['?', '#']).next().unwrap_or_default();
        // A brace in the host would be a placeholder.
        (is_web && !text.contains(['{', '}'])).then(|| text.trim_end_matches('/').to_owned())
    }

    /// A server that is run privately often names its public twin in its document (httpbin does).
    /// When the operator allows the origin that the document was loaded from, and not the one that
    /// it names, the former is meant.
    fn as_served(&self, base: Url, location: Option<&Url>) -> Url {
        let allowed = |url: &Url| {
            let origin = url.origin().ascii_serialization();
            self.source.allow_origins.iter().any(|allowed| allowed.trim_end_matches('/') == origin)
        };
        match location {
            Some(location) if allowed(location) && !allowed(&base) => {
                let mut served = location.clone();
                served.set_path(base.path());
                served.set_query(None);
                served.set_fragment(None);
                served
            }
            _ => base,
        }
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
    pub(super) fn path_template(
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
