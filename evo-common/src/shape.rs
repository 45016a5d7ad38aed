//! What answers look like, without any value of them: kinds, names, and where there was something.
//! Live data changes its values from call to call, not its shape.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Deepest level that is looked at.
const MAX_DEPTH: usize = 4;
/// An object with more names than this is a map of data, whose names say nothing.
const MAX_NAMES: usize = 48;
/// Items of a list that are looked at.
const MAX_ITEMS: usize = 8;
/// What a message calls the value itself.
const ROOT: &str = "the answer";
/// Longest part of a name in a message.
const MAX_NAME: usize = 60;

/// The kind of a JSON value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// `null`
    Null,
    /// `true` or `false`
    Boolean,
    /// A number, whole or not.
    Number,
    /// A text.
    Text,
    /// A list.
    List,
    /// An object.
    Object,
}

impl Kind {
    fn of(value: &Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(_) => Self::Boolean,
            Value::Number(_) => Self::Number,
            Value::String(_) => Self::Text,
            Value::Array(_) => Self::List,
            Value::Object(_) => Self::Object,
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Boolean => "a boolean",
            Self::Number => "a number",
            Self::Text => "a text",
            Self::List => "a list",
            Self::Object => "an object",
        }
    }
}

/// The shape of several values that stood in the same place.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// How many values.
    pub seen: u32,
    /// Their kinds.
    pub kinds: BTreeSet<Kind>,
    /// How many of them held something: an item, a name, a character, a number.
    pub filled: u32,
    /// How many of them were objects.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub objects: u32,
    /// What stood under each name of the objects.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub fields: BTreeMap<String, Shape>,
    /// What the lists held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub items: Option<Box<Shape>>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl Shape {
    /// Takes a value into account.
    pub fn note(&mut self, value: &Value) {
        self.note_at(value, 0);
    }

    fn note_at(&mut self, value: &Value, depth: usize) {
        self.seen = self.seen.saturating_add(1);
        self.kinds.insert(Kind::of(value));
        self.filled = self.filled.saturating_add(u32::from(holds_something(value)));
        match value {
            Value::Object(map) => {
                self.objects = self.objects.saturating_add(1);
                if depth < MAX_DEPTH && map.len() <= MAX_NAMES {
                    for (name, value) in map {
                        if self.fields.len() < 2 * MAX_NAMES || self.fields.contains_key(name) {
                            self.fields.entry(name.clone()).or_default().note_at(value, depth + 1);
                        }
                    }
                }
            }
            Value::Array(list) if depth < MAX_DEPTH && !list.is_empty() => {
                let items = self.items.get_or_insert_default();
                list.iter().take(MAX_ITEMS).for_each(|item| items.note_at(item, depth + 1));
            }
            _ => {}
        }
    }

    /// Whether a further value is like those before, in kinds. Null is like everything. Where `keeps`
    /// says so, what every object before had must be there, too. It is asked with the names that lead
    /// to an object, `*` for the items of a list.
    ///
    /// # Errors
    ///
    /// Says where it is not, and holds no value.
    pub fn check(&self, value: &Value, keeps: &dyn Fn(&[&str]) -> bool) -> Result<(), String> {
        self.check_at(value, keeps, ROOT, &[])
    }

    fn check_at(
        &self,
        value: &Value,
        keeps: &dyn Fn(&[&str]) -> bool,
        at: &str,
        path: &[&str],
    ) -> Result<(), String> {
        let kind = Kind::of(value);
        let known: Vec<&Kind> = self.kinds.iter().filter(|kind| **kind != Kind::Null).collect();
        if let Some(first) = known.first()
            && kind != Kind::Null
            && !self.kinds.contains(&kind)
        {
            return Err(format!("{at} was {}, then {}", first.text(), kind.text()));
        }
        match value {
            Value::Object(map) => {
                if keeps(path) {
                    let always = |(_, field): &(&String, &Self)| field.seen >= self.objects;
                    let mut always = self.fields.iter().filter(always).map(|(name, _)| name);
                    if let Some(name) = always.find(|name| !map.contains_key(*name)) {
                        return Err(format!("{at} lacks {}, which was always there", short(name)));
                    }
                }
                // Deeper down, an object may be a map of data.
                if at == ROOT
                    && !self.fields.is_empty()
                    && !map.is_empty()
                    && !map.keys().any(|name| self.fields.contains_key(name))
                {
                    return Err(format!("{at} shares no name with those before"));
                }
                for (name, value) in map {
                    if let Some(field) = self.fields.get(name) {
                        field.check_at(
                            value,
                            keeps,
                            short(name),
                            &[path, &[name.as_str()]].concat(),
                        )?;
                    }
                }
                Ok(())
            }
            Value::Array(list) => {
                let Some(items) = &self.items else { return Ok(()) };
                let (at, path) = (format!("an item of {at}"), [path, &["*"]].concat());
                list.iter().take(MAX_ITEMS).try_for_each(|it| items.check_at(it, keeps, &at, &path))
            }
            _ => Ok(()),
        }
    }

    /// JSON pointers of the value itself and of the lists, objects and texts right below that held
    /// something every time.
    pub fn filled_places(&self) -> Vec<String> {
        let always = |shape: &Self| {
            let holds = [Kind::List, Kind::Object, Kind::Text];
            shape.seen > 0
                && shape.filled == shape.seen
                && shape.kinds.iter().all(|kind| holds.contains(kind))
        };
        let below = self.fields.iter().filter(|(_, field)| {
            field.seen == self.seen && always(field) && !field.kinds.contains(&Kind::Text)
        });
        let below =
            below.map(|(name, _)| format!("/{}", name.replace('~', "~0").replace('/', "~1")));
        always(self).then(String::new).into_iter().chain(below).collect()
    }
}

/// Whether a value is something: no null, no empty list, object or text.
pub fn holds_something(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
        Value::Bool(_) | Value::Number(_) => true,
    }
}

fn short(name: &str) -> &str {
    let end = name.char_indices().nth(MAX_NAME).map_or(name.len(), |(end, _)| end);
    &name[..end]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shape(values: &[Value]) -> Shape {
        let mut shape = Shape::default();
        for value in values {
            shape.note(value);
        }
        shape
    }

    #[test]
    fn kinds_are_compared_and_values_are_not() {
        let seen = shape(&[json!({"a": 1, "b": null, "c": [{"d": "x"}]})]);
        for same in [
            json!({"a": 2.5, "b": "now", "c": [], "new": true}),
            json!({"a": null, "c": [{"d": ""}, {"d": "y", "e": 1}]}),
        ] {
            assert_eq!(seen.check(&same, &|_| false), Ok(()), "{same}");
        }
        for (other, said) in [
            (json!([]), "the answer was an object, then a list"),
            (json!({"a": "1"}), "a was a number, then a text"),
            (json!({"c": [{"d": 1}]}), "d was a text, then a number"),
            (json!({"error": "x"}), "the answer shares no name with those before"),
        ] {
            assert_eq!(seen.check(&other, &|_| false).unwrap_err(), said);
        }
    }

    #[test]
    fn a_name_that_was_always_there_may_be_asked_for() {
        let seen = shape(&[json!({"a": 1, "b": 2}), json!({"a": 1})]);
        assert_eq!(seen.check(&json!({"a": 3}), &|_| true), Ok(()));
        assert_eq!(seen.check(&json!({"b": 3}), &|_| false), Ok(()));
        let said = seen.check(&json!({"b": 3}), &|_| true).unwrap_err();
        assert_eq!(said, "the answer lacks a, which was always there");
        let list = shape(&[json!([{"id": 1}, {"id": 2}])]);
        assert!(
            list.check(&json!([{"name": 1}]), &|_| true).unwrap_err().starts_with("an item of")
        );
    }

    #[test]
    fn places_that_were_always_filled_are_known() {
        let seen = shape(&[
            json!({"a/b": [1], "c": [], "d": {"e": 1}, "f": "x", "g": 1}),
            json!({"a/b": [2], "c": [1], "d": {"e": 1}}),
        ]);
        assert_eq!(seen.filled_places(), ["", "/a~1b", "/d"]);
        assert_eq!(shape(&[json!([])]).filled_places(), [""; 0]);
        assert_eq!(shape(&[json!("text")]).filled_places(), [""]);
        assert_eq!(shape(&[json!(7)]).filled_places(), [""; 0]);
    }

    #[test]
    fn a_map_of_data_has_no_names() {
        let map: serde_json::Map<String, Value> =
            (0..100).map(|i| (format!("id-{i}"), json!(i))).collect();
        let seen = shape(&[Value::Object(map)]);
        assert_eq!(seen.fields.len(), 0);
        assert_eq!(seen.check(&json!({"id-7": "x"}), &|_| true), Ok(()));
    }
}
