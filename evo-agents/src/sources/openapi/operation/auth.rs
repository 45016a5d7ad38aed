//! How an operation's callers show who they are.

use evo_common::config::sources::{GATEWAY_LOCATION, KING_LOCATION};
use serde_json::{Map, Value, json};

use super::{Auth, Reader};
use crate::sources::openapi::{document::Version, samples::here};

impl<'d> Reader<'d> {
    /// The first way in that a skill can serve; [`None`] when nobody asks who calls.
    pub(super) fn auth(&self) -> Option<Auth> {
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
