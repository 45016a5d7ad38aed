//! Parameters outside of the path: where they stand, and how they are moved.

use serde_json::{Map, Value};

use super::genome::Genome;

/// A place of a parameter: a table of names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// After the `?` of the address.
    Query,
    /// A header.
    Header,
    /// An entry of the body.
    Body,
}

impl Place {
    /// All of them.
    pub(super) const ALL: [Self; 3] = [Self::Query, Self::Header, Self::Body];
}

impl Genome {
    /// Every parameter outside of the path, with its place.
    pub(super) fn slots(&self) -> Vec<(Place, String)> {
        let mut slots: Vec<(Place, String)> = Vec::new();
        slots.extend(self.call.query.keys().map(|name| (Place::Query, name.clone())));
        slots.extend(self.call.headers.keys().map(|name| (Place::Header, name.clone())));
        if let Some(Value::Object(body)) = &self.call.body {
            slots.extend(body.keys().map(|name| (Place::Body, name.clone())));
        }
        slots
    }

    /// The template of a parameter.
    pub(super) fn slot(&self, place: Place, name: &str) -> Option<&str> {
        match place {
            Place::Query => self.call.query.get(name).map(String::as_str),
            Place::Header => self.call.headers.get(name).map(String::as_str),
            Place::Body => self.call.body.as_ref()?.get(name)?.as_str(),
        }
    }

    /// Takes a parameter out; gives its template.
    pub(super) fn take(&mut self, place: Place, name: &str) -> Option<Value> {
        match place {
            Place::Query => self.call.query.remove(name).map(Value::String),
            Place::Header => self.call.headers.remove(name).map(Value::String),
            Place::Body => {
                let Some(Value::Object(body)) = &mut self.call.body else { return None };
                let value = body.shift_remove(name);
                if body.is_empty() {
                    self.call.body = None;
                }
                value
            }
        }
    }

    /// Puts a parameter in; [`None`] when its place can't hold it or is taken.
    pub(super) fn put(&mut self, place: Place, name: &str, value: Value) -> Option<()> {
        let table = match place {
            Place::Query => &mut self.call.query,
            Place::Header => &mut self.call.headers,
            Place::Body => {
                let body = self.call.body.get_or_insert_with(|| Value::Object(Map::new()));
                let Value::Object(body) = body else { return None };
                if body.contains_key(name) {
                    return None;
                }
                body.insert(name.to_owned(), value);
                return Some(());
            }
        };
        let Value::String(text) = value else { return None };
        if table.contains_key(name) || (place == Place::Header && !is_token(name)) {
            return None;
        }
        table.insert(name.to_owned(), text);
        Some(())
    }
}

/// Whether a text can be the name of a header.
fn is_token(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
}
