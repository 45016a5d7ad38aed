//! What is noted on a request's way from one protocol to another.

use serde_json::{Map, Value};

use super::{Context, ConvertError};

/// What could not be carried over, and what the answer's way back has to know.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// Whether the caller prefers an answer without a field to no answer.
    lenient: bool,
    dropped: Vec<String>,
    /// What the caller calls what the neutral model names otherwise; the first that fits counts.
    names: Vec<(&'static str, &'static str)>,
    /// The question has been read: fields are named as in the neutral model.
    is_read: bool,
    pub(super) context: Context,
}

impl Notes {
    pub(super) fn new(lenient: bool, context: Context) -> Self {
        Self { lenient, context, ..Self::default() }
    }

    /// What the neutral model calls `neutral` is `name` in this question.
    pub(super) fn call(&mut self, neutral: &'static str, name: &'static str) {
        self.names.push((neutral, name));
    }

    /// The question has been read. From here on fields have the neutral model's names, and callers are
    /// told their own: those that the reader noted, else those of this table.
    pub(super) fn read(&mut self, names: &[(&'static str, &'static str)]) {
        self.names.extend(names);
        self.is_read = true;
    }

    /// A field as the caller knows it.
    pub(super) fn name(&self, field: String) -> String {
        if !self.is_read {
            return field;
        }
        let known = |field: &str| {
            self.names.iter().find(|(neutral, _)| *neutral == field).map(|(_, name)| *name)
        };
        if let Some(name) = known(&field) {
            return name.to_owned();
        }
        // A place in a list, such as `messages[2].content`.
        let place = field
            .split_once('[')
            .and_then(|(list, rest)| rest.split_once(']').map(|(at, rest)| (list, at, rest)));
        place
            .and_then(|(list, at, rest)| {
                let name = known(&format!("{list}[]{rest}"))?;
                Some(name.replacen("[]", &format!("[{at}]"), 1))
            })
            .unwrap_or(field)
    }

    /// An error as the caller knows the field.
    pub(super) fn named(&self, error: ConvertError) -> ConvertError {
        ConvertError { field: self.name(error.field), ..error }
    }

    /// A field that changes the answer and cannot be carried over: refused, unless the caller is
    /// lenient. `message` says what the field can be instead.
    pub(super) fn lose(
        &mut self,
        field: impl Into<String>,
        message: impl Into<String>,
    ) -> Result<(), ConvertError> {
        if !self.lenient {
            return Err(ConvertError::new(field, message));
        }
        self.drop(field);
        Ok(())
    }

    /// A field that is only a hint, so that an answer without it is still a right answer: dropped,
    /// and told.
    pub(super) fn drop(&mut self, field: impl Into<String>) {
        let field = self.name(field.into());
        if !self.dropped.contains(&field) {
            self.dropped.push(field);
        }
    }

    /// Drops those of these fields that say something.
    pub(super) fn drop_hints(&mut self, rest: &Map<String, Value>, hints: &[&str]) {
        for hint in hints {
            if rest.get(*hint).is_some_and(|value| !value.is_null()) {
                self.drop(*hint);
            }
        }
    }

    /// Fields that neither the protocol's own list nor the gateway knows: whether an answer is right
    /// without them cannot be told.
    pub(super) fn lose_unknown(
        &mut self,
        within: &str,
        rest: &Map<String, Value>,
        known: &[&[&str]],
    ) -> Result<(), ConvertError> {
        let is_known = |field: &String| known.iter().any(|list| list.contains(&field.as_str()));
        for (field, _) in rest.iter().filter(|(field, value)| !value.is_null() && !is_known(field))
        {
            let message = "is no field that the gateway knows how to translate; leave it out, or \
                           send `x-evo-lenient: true` for an answer without it";
            self.lose(format!("{within}{field}"), message)?;
        }
        Ok(())
    }

    /// A hint that is kept only on a condition.
    pub(super) fn keep_if<T>(
        &mut self,
        condition: bool,
        field: &str,
        value: Option<T>,
    ) -> Option<T> {
        if value.is_some() && !condition {
            self.drop(field);
        }
        value.filter(|_| condition)
    }

    pub(super) fn into_parts(self) -> (Vec<String>, Context) {
        (self.dropped, self.context)
    }
}
