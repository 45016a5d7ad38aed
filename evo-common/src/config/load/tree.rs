//! TOML and JSON as one tree of values that know where they stand.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, SeqAccess, Visitor},
};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{Fault, Format};

/// A value, and the byte offset where it (or its key) stands.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) value: Value,
    pub(super) at: Option<usize>,
}

#[derive(Debug, Clone)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Table(Vec<(String, Node)>),
}

/// Line and column, from 1, of a byte offset.
pub(super) fn position(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at.min(text.len())).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (1 + before.matches('\n').count(), 1 + before[line_start..].chars().count())
}

/// Every syntax error, or the tree.
pub(super) fn parse(text: &str, format: Format) -> Result<Node, Vec<Fault>> {
    match format {
        Format::Toml => parse_toml(text),
        Format::Json => parse_json(text).map_err(|fault| vec![fault]),
    }
}

fn parse_toml(text: &str) -> Result<Node, Vec<Fault>> {
    let (table, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        return Ok(from_table(table.get_ref(), Some(0)));
    }
    let mut faults: Vec<Fault> = errors
        .iter()
        .map(|error| Fault {
            key: String::new(),
            message: format!("this is not TOML: {}", error.message().replace('\n', ", ")),
            position: error.span().map(|span| position(text, span.start)),
        })
        .collect();
    faults.dedup();
    Err(faults)
}

fn from_table(table: &DeTable<'_>, at: Option<usize>) -> Node {
    let entries = table
        .iter()
        .map(|(key, value)| {
            let node = Node { at: Some(key.span().start), ..from_toml(value) };
            (key.get_ref().clone().into_owned(), node)
        })
        .collect();
    Node { value: Value::Table(entries), at }
}

fn from_toml(spanned: &Spanned<DeValue<'_>>) -> Node {
    let at = Some(spanned.span().start);
    let value = match spanned.get_ref() {
        DeValue::String(text) => Value::Text(text.clone().into_owned()),
        DeValue::Integer(number) => i128::from_str_radix(number.as_str(), number.radix())
            .map_or_else(|_| Value::Text(number.to_string()), Value::Integer),
        DeValue::Float(number) => number
            .as_str()
            .parse()
            .map_or_else(|_| Value::Text(number.as_str().to_owned()), Value::Float),
        DeValue::Boolean(flag) => Value::Bool(*flag),
        DeValue::Datetime(moment) => Value::Text(moment.to_string()),
        DeValue::Array(list) => Value::List(list.iter().map(from_toml).collect()),
        DeValue::Table(table) => return from_table(table, at),
    };
    Node { value, at }
}

fn parse_json(text: &str) -> Result<Node, Fault> {
    serde_json::from_str(text).map_err(|error| {
        let message = error.to_string();
        // The position is told apart.
        let message = message.split(" at line ").next().unwrap_or(&message);
        Fault {
            key: String::new(),
            message: format!("this is not JSON: {message}"),
            position: Some((error.line(), error.column())),
        }
    })
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor).map(|value| Self { value, at: None })
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Value, E> {
        Ok(Value::Bool(flag))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Integer(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(Value::Integer(number.into()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(Value::Float(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(node) = seq.next_element()? {
            list.push(node);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut table: Vec<(String, Node)> = Vec::new();
        while let Some((key, node)) = map.next_entry::<String, Node>()? {
            if table.iter().any(|(known, _)| *known == key) {
                return Err(de::Error::custom(format_args!("the key `{key}` stands here twice")));
            }
            table.push((key, node));
        }
        Ok(Value::Table(table))
    }
}

/// Where a value stands in the tree.
#[derive(Clone, Copy)]
pub(super) enum Path<'a> {
    Root,
    Key(&'a Path<'a>, &'a str),
    Index(&'a Path<'a>, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Key(parent, key) => {
                parent.fmt(f)?;
                if !matches!(parent, Self::Root) {
                    f.write_str(".")?;
                }
                let plain = !key.is_empty()
                    && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
                if plain { f.write_str(key) } else { write!(f, "{key:?}") }
            }
            Self::Index(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

impl Node {
    /// Where the value with this key path stands, or else the nearest table around it.
    pub(super) fn find(&self, key: &str) -> Option<usize> {
        let mut best = (0, self.at);
        self.nearest(&Path::Root, key, &mut best);
        best.1
    }

    fn nearest(&self, path: &Path<'_>, key: &str, best: &mut (usize, Option<usize>)) {
        let own = path.to_string();
        let inside = key
            .strip_prefix(&own)
            .is_some_and(|rest| own.is_empty() || rest.is_empty() || rest.starts_with(['.', '[']));
        if !inside {
            return;
        }
        if own.len() >= best.0 && self.at.is_some() {
            *best = (own.len(), self.at);
        }
        match &self.value {
            Value::List(list) => {
                for (index, node) in list.iter().enumerate() {
                    node.nearest(&Path::Index(path, index), key, best);
                }
            }
            Value::Table(table) => {
                for (name, node) in table {
                    node.nearest(&Path::Key(path, name), key, best);
                }
            }
            _ => {}
        }
    }
}
