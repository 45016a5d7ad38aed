//! Rows to values.

use std::ops::ControlFlow;

use libsql::{Row, Value, params::IntoParams};
use serde::{Serialize, de::DeserializeOwned};

use super::{Connection, Error, Result};

/// Every row of a query.
pub(crate) async fn all<T>(
    connection: &Connection,
    sql: &str,
    params: impl IntoParams,
    read: impl Fn(&Row) -> Result<T>,
) -> Result<Vec<T>> {
    let mut values = Vec::new();
    let each = |row: &Row| {
        values.push(read(row)?);
        Ok(ControlFlow::Continue(()))
    };
    connection.query(sql, params, each).await?;
    Ok(values)
}

/// Every row of a query that can be read. Those that can't be are left to whoever sets them aside.
pub(crate) async fn readable<T>(
    connection: &Connection,
    sql: &str,
    params: impl IntoParams,
    read: impl Fn(&Row) -> Result<T>,
) -> Result<Vec<T>> {
    let read = |row: &Row| match read(row) {
        Err(Error::Corrupt(_) | Error::Unreadable(_)) => Ok(None),
        other => other.map(Some),
    };
    Ok(all(connection, sql, params, read).await?.into_iter().flatten().collect())
}

/// The first row of a query.
pub(crate) async fn first<T>(
    connection: &Connection,
    sql: &str,
    params: impl IntoParams,
    read: impl Fn(&Row) -> Result<T>,
) -> Result<Option<T>> {
    let mut value = None;
    let each = |row: &Row| {
        value = Some(read(row)?);
        Ok(ControlFlow::Break(()))
    };
    connection.query(sql, params, each).await?;
    Ok(value)
}

/// The one number that a query gives.
pub(crate) async fn number(
    connection: &Connection,
    sql: &str,
    params: impl IntoParams,
) -> Result<i64> {
    Ok(first(connection, sql, params, |row| Ok(row.get::<Option<i64>>(0)?))
        .await?
        .flatten()
        .unwrap_or(0))
}

/// A JSON column.
pub(crate) fn json<T: DeserializeOwned>(row: &Row, column: i32) -> Result<T> {
    let text: String = row.get(column)?;
    from_json(&text)
}

/// A JSON column that may be null.
pub(crate) fn optional_json<T: DeserializeOwned>(row: &Row, column: i32) -> Result<Option<T>> {
    row.get::<Option<String>>(column)?.as_deref().map(from_json).transpose()
}

/// A text column that holds an enum's name.
pub(crate) fn parsed<T: std::str::FromStr>(row: &Row, column: i32) -> Result<T> {
    let text: String = row.get(column)?;
    text.parse().map_err(|_| Error::Corrupt(format!("{text:?} in column {column}")))
}

/// A text column that holds a snake_case enum.
pub(crate) fn named<T: DeserializeOwned>(row: &Row, column: i32) -> Result<T> {
    let text: String = row.get(column)?;
    serde_json::from_value(serde_json::Value::String(text.clone()))
        .map_err(|_| Error::Corrupt(format!("{text:?} in column {column}")))
}

/// The text of a snake_case enum.
pub(crate) fn name_of(value: &impl Serialize) -> String {
    match serde_json::to_value(value).expect("an enum's name is plain data") {
        serde_json::Value::String(text) => text,
        other => other.to_string(),
    }
}

/// A value as the text of a JSON column.
pub(crate) fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("stored values are plain data")
}

/// A moment as RFC 3339.
pub(crate) fn moment(row: &Row, column: i32) -> Result<String> {
    Ok(evo_common::clock::Timestamp(row.get(column)?).to_rfc3339())
}

fn from_json<T: DeserializeOwned>(text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|e| Error::Corrupt(format!("JSON in a column: {e}")))
}

/// How many rows are to be read for a page, so that it is known whether there are more.
pub(crate) fn wanted(offset: u32, limit: u32) -> i64 {
    i64::from(offset) + i64::from(limit) + 1
}

/// Makes a page of as many rows as were [`wanted`]; says whether there are more.
pub(crate) fn cut<T>(rows: &mut Vec<T>, offset: u32, limit: u32) -> bool {
    rows.drain(..rows.len().min(offset as usize));
    let more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    more
}

/// What a list is filtered by. A condition exists only when its filter does: `?1 IS NULL OR …` would
/// keep every index out of use.
#[derive(Debug, Default)]
pub(crate) struct Conditions {
    sql: String,
    params: Vec<Value>,
}

impl Conditions {
    /// Adds a condition with one `?` when there is a value for it.
    pub(crate) fn and(mut self, condition: &str, value: Option<impl Into<Value>>) -> Self {
        if let Some(value) = value {
            self.sql.push_str(if self.sql.is_empty() { " WHERE " } else { " AND " });
            self.sql.push_str(condition);
            self.params.push(value.into());
        }
        self
    }

    /// Adds a condition with as many `?` as there are values.
    pub(crate) fn and_all<const N: usize>(mut self, condition: &str, values: [Value; N]) -> Self {
        self.sql.push_str(if self.sql.is_empty() { " WHERE " } else { " AND " });
        self.sql.push_str(condition);
        self.params.extend(values);
        self
    }

    /// The whole query, and its parameters.
    pub(crate) fn query(mut self, select: &str, order: &str, limit: i64) -> (String, Vec<Value>) {
        self.params.push(limit.into());
        (format!("{select}{} ORDER BY {order} LIMIT ?", self.sql), self.params)
    }
}
