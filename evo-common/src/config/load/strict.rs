//! Reads a type from a tree and finds every fault: when a value doesn't fit, it is noted and left
//! out, and the tree is read again, until nothing is wrong or nothing is left.

use std::{cell::RefCell, collections::BTreeSet, fmt};

use serde::{
    Deserializer,
    de::{
        self, DeserializeOwned, DeserializeSeed, EnumAccess, Expected, IntoDeserializer, MapAccess,
        SeqAccess, Unexpected, VariantAccess, Visitor, value::StrDeserializer,
    },
    forward_to_deserialize_any,
};

use super::{
    Fault,
    tree::{self, Node, Path, Value},
};

/// What came out.
pub(super) struct Found<T> {
    /// The value; absent when a table or list had to be left out.
    pub(super) value: Option<T>,
    pub(super) faults: Vec<Fault>,
}

/// Reads `T` and notes what is unknown or doesn't fit.
pub(super) fn read<T: DeserializeOwned>(tree: &Node, text: &str) -> Found<T> {
    let notes = RefCell::new(Notes::default());
    let value = loop {
        let root = Reader { node: tree, path: &Path::Root, notes: &notes, free: false };
        match T::deserialize(root) {
            Ok(value) => break (!notes.borrow().lost_tables).then_some(value),
            // Each turn leaves out one more value, so this ends.
            Err(error) => {
                if !notes.borrow_mut().leave_out(error) {
                    break None;
                }
            }
        }
    };
    let faults = notes.into_inner().faults.into_iter().map(|(mut fault, at)| {
        fault.position = at.map(|at| tree::position(text, at));
        fault
    });
    Found { value, faults: faults.collect() }
}

/// What was noticed over all turns.
#[derive(Default)]
struct Notes {
    faults: Vec<(Fault, Option<usize>)>,
    /// Key paths of values that are left out.
    left_out: BTreeSet<String>,
    /// Whether one of them is a table or list: what is left may then not make sense as a whole.
    lost_tables: bool,
}

impl Notes {
    fn add(&mut self, fault: Fault, at: Option<usize>) {
        if !self.faults.iter().any(|(known, _)| *known == fault) {
            self.faults.push((fault, at));
        }
    }

    /// Notes an error and leaves its value out. Says whether another turn makes sense.
    fn leave_out(&mut self, error: Error) -> bool {
        let place = error.place.unwrap_or_default();
        match error.kind {
            Kind::Missing(field) => {
                let key = place.child(field);
                // What was left out is missing now.
                if !self.left_out.contains(&key) {
                    self.add(Fault::new(key, "is missing"), place.at);
                }
            }
            Kind::Wrong(message) => self.add(Fault::new(place.key.clone(), message), place.at),
        }
        self.lost_tables |= place.has_parts;
        !place.key.is_empty() && self.left_out.insert(place.key)
    }
}

/// Where an error happened.
#[derive(Debug, Clone, Default)]
struct Place {
    key: String,
    at: Option<usize>,
    has_parts: bool,
}

impl Place {
    fn child(&self, field: &str) -> String {
        if self.key.is_empty() { field.to_owned() } else { format!("{}.{field}", self.key) }
    }
}

#[derive(Debug)]
enum Kind {
    Missing(&'static str),
    Wrong(String),
}

#[derive(Debug)]
struct Error {
    kind: Kind,
    place: Option<Place>,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Missing(field) => write!(f, "`{field}` is missing"),
            Kind::Wrong(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for Error {}

impl de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self { kind: Kind::Wrong(message.to_string()), place: None }
    }

    fn invalid_type(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::custom(format_args!("expected {}, found {}", words(expected), Actual(unexpected)))
    }

    fn invalid_value(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_type(unexpected, expected)
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Self::custom(format_args!("unknown value `{variant}`; {}", hint(variant, expected)))
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Self::custom(format_args!("unknown key `{field}`; {}", hint(field, expected)))
    }

    fn missing_field(field: &'static str) -> Self {
        Self { kind: Kind::Missing(field), place: None }
    }
}

/// What was expected, in words that don't assume Rust.
fn words(expected: &dyn Expected) -> String {
    let text = expected.to_string();
    match text.as_str() {
        "u8" => "a whole number from 0 to 255".to_owned(),
        "u16" => "a whole number from 0 to 65535".to_owned(),
        "u32" | "u64" | "usize" => "a whole number, 0 or more".to_owned(),
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number".to_owned(),
        "f32" | "f64" => "a number".to_owned(),
        "a string" => "a text".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a sequence" => "a list".to_owned(),
        "a map" => "a table".to_owned(),
        _ if text.starts_with("struct ") => "a table".to_owned(),
        _ if text.starts_with("enum ") || text.starts_with("variant identifier") => {
            "one of the names that are known here".to_owned()
        }
        _ => text,
    }
}

/// What was found, in words that don't assume Rust.
struct Actual<'a>(Unexpected<'a>);

impl fmt::Display for Actual<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Unexpected::Bool(flag) => write!(f, "{flag}"),
            Unexpected::Unsigned(number) => write!(f, "the number {number}"),
            Unexpected::Signed(number) => write!(f, "the number {number}"),
            Unexpected::Float(number) => write!(f, "the number {number}"),
            Unexpected::Str(text) => write!(f, "the text {text:?}"),
            Unexpected::Unit | Unexpected::Option => f.write_str("null"),
            Unexpected::Seq => f.write_str("a list"),
            Unexpected::Map => f.write_str("a table"),
            other => other.fmt(f),
        }
    }
}

/// The nearest known name, or all of them.
fn hint(name: &str, known: &[&str]) -> String {
    let plain = |text: &str| text.to_lowercase().replace('-', "_");
    let nearest = known
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(&plain(name), &plain(candidate)), candidate))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len().min(name.len()) / 4);
    match nearest {
        Some((_, candidate)) => format!("did you mean `{candidate}`?"),
        None if known.is_empty() => "nothing is known here".to_owned(),
        None => format!("use one of `{}`", known.join("`, `")),
    }
}

/// Reads one value of the tree.
#[derive(Clone, Copy)]
struct Reader<'a> {
    node: &'a Node,
    path: &'a Path<'a>,
    notes: &'a RefCell<Notes>,
    /// Under a table named `extra`, where unknown keys are nobody's business.
    free: bool,
}

impl<'a> Reader<'a> {
    /// Gives an error the place where it happened, unless it has one from further inside.
    fn here(&self, mut error: Error) -> Error {
        error.place.get_or_insert_with(|| Place {
            key: self.path.to_string(),
            at: self.node.at,
            has_parts: matches!(self.node.value, Value::List(_) | Value::Table(_)),
        });
        error
    }

    fn is_left_out(&self, path: &Path<'_>) -> bool {
        let notes = self.notes.borrow();
        !notes.left_out.is_empty() && notes.left_out.contains(&path.to_string())
    }

    fn mismatch<'de, V: Visitor<'de>>(&self, visitor: &V) -> Error {
        let unexpected = match &self.node.value {
            Value::Null => Unexpected::Unit,
            Value::Bool(flag) => Unexpected::Bool(*flag),
            Value::Integer(number) => match i64::try_from(*number) {
                Ok(number) => Unexpected::Signed(number),
                Err(_) => Unexpected::Other("a number that is too large"),
            },
            Value::Float(number) => Unexpected::Float(*number),
            Value::Text(text) => Unexpected::Str(text),
            Value::List(_) => Unexpected::Seq,
            Value::Table(_) => Unexpected::Map,
        };
        self.here(de::Error::invalid_type(unexpected, visitor))
    }

    fn entries(&self, table: &'a [(String, Node)]) -> Entries<'a> {
        let path = self.path;
        let entries = table
            .iter()
            .filter(|(key, _)| !self.is_left_out(&Path::Key(path, key)))
            .map(|(key, node)| (key.as_str(), node))
            .collect::<Vec<_>>();
        Entries { reader: *self, rest: entries.into_iter(), value: None }
    }

    /// The entries whose keys are fields; notes the others.
    fn fields(&self, table: &'a [(String, Node)], fields: &'static [&'static str]) -> Entries<'a> {
        let mut entries = self.entries(table);
        let mut known = Vec::new();
        for (key, node) in entries.rest {
            if fields.contains(&key) {
                known.push((key, node));
            } else if !(self.free || key.starts_with("x-") || key == "extra") {
                let absent: Vec<&str> = fields
                    .iter()
                    .copied()
                    .filter(|field| !table.iter().any(|(present, _)| present == field))
                    .collect();
                let candidates = if absent.is_empty() { fields } else { &absent };
                let fault = Fault::new(
                    Path::Key(self.path, key).to_string(),
                    format!("unknown key; {}", hint(key, candidates)),
                );
                self.notes.borrow_mut().add(fault, node.at);
            }
        }
        entries.rest = known.into_iter();
        entries
    }
}

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.node.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(flag) => visitor.visit_bool(*flag),
            Value::Integer(number) => match (i64::try_from(*number), u64::try_from(*number)) {
                (Ok(number), _) => visitor.visit_i64(number),
                (_, Ok(number)) => visitor.visit_u64(number),
                _ => return Err(self.mismatch(&visitor)),
            },
            Value::Float(number) => visitor.visit_f64(*number),
            Value::Text(text) => visitor.visit_str(text),
            Value::List(list) => visitor.visit_seq(Items { reader: self, list, next: 0 }),
            Value::Table(table) => visitor.visit_map(self.entries(table)),
        }
        .map_err(|error| self.here(error))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.node.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
        .map_err(|error| self.here(error))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self).map_err(|error| self.here(error))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match &self.node.value {
            Value::Table(table) => {
                visitor.visit_map(self.fields(table, fields)).map_err(|error| self.here(error))
            }
            _ => Err(self.mismatch(&visitor)),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match &self.node.value {
            Value::Text(name) => {
                let name: StrDeserializer<'_, Error> = name.as_str().into_deserializer();
                visitor.visit_enum(name)
            }
            Value::Table(table) => match table.as_slice() {
                [(name, node)] => visitor.visit_enum(Variant {
                    name,
                    content: Reader { node, path: &Path::Key(self.path, name), ..self },
                }),
                _ => return Err(self.mismatch(&visitor)),
            },
            _ => return Err(self.mismatch(&visitor)),
        }
        .map_err(|error| self.here(error))
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct map identifier
    }
}

/// The entries of a table.
struct Entries<'a> {
    reader: Reader<'a>,
    rest: std::vec::IntoIter<(&'a str, &'a Node)>,
    value: Option<(&'a str, &'a Node)>,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Error> {
        self.value = self.rest.next();
        let Some((key, node)) = self.value else { return Ok(None) };
        let name: StrDeserializer<'_, Error> = key.into_deserializer();
        seed.deserialize(name).map(Some).map_err(|error| {
            Reader { node, path: &Path::Key(self.reader.path, key), ..self.reader }.here(error)
        })
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Error> {
        let (key, node) = self.value.take().expect("serde asks for a key before its value");
        let reader = self.reader;
        let path = Path::Key(reader.path, key);
        let inner = Reader { node, path: &path, free: reader.free || key == "extra", ..reader };
        seed.deserialize(inner).map_err(|error| inner.here(error))
    }
}

/// The items of a list.
struct Items<'a> {
    reader: Reader<'a>,
    list: &'a [Node],
    next: usize,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Error> {
        while let Some(node) = self.list.get(self.next) {
            let path = Path::Index(self.reader.path, self.next);
            self.next += 1;
            if !self.reader.is_left_out(&path) {
                let inner = Reader { node, path: &path, ..self.reader };
                return seed.deserialize(inner).map(Some).map_err(|error| inner.here(error));
            }
        }
        Ok(None)
    }
}

/// A variant with content: `{name: content}`.
struct Variant<'a> {
    name: &'a str,
    content: Reader<'a>,
}

impl<'de, 'a> EnumAccess<'de> for Variant<'a> {
    type Error = Error;
    type Variant = Reader<'a>;

    fn variant_seed<V: DeserializeSeed<'de>>(
        self,
        seed: V,
    ) -> Result<(V::Value, Reader<'a>), Error> {
        let name: StrDeserializer<'_, Error> = self.name.into_deserializer();
        Ok((seed.deserialize(name)?, self.content))
    }
}

impl<'de> VariantAccess<'de> for Reader<'_> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        match self.node.value {
            Value::Null => Ok(()),
            _ => Err(self.here(de::Error::custom("this name takes no value: write it as a text"))),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Error> {
        seed.deserialize(self)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _len: usize, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_any(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_struct("", fields, visitor)
    }
}
