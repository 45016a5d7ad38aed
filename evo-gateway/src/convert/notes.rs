//! What is noted on a request's way from one protocol to another.

use serde_json::{Map, Value};

use super::{Context, ConvertError};

/// What could not be carried over, and what the answer's way back has to know.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// Whether the caller prefers an answer without a field to no answer.
    lenient: bool,
    dropped: Vec<String>,
    pub(super) context: Context,
}

impl Notes {
    pub(super) fn new(lenient: bool, context: Context) -> Self {
        Self { lenient, dropped: Vec::new(), context }
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
        let field = field.into();
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
