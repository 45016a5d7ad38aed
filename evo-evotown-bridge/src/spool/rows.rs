//! Rows to values.

use libsql::{Connection, Row, params::IntoParams};
use serde::{Serialize, de::DeserializeOwned};

use super::{Error, Result};

/// Every row of a query.
pub(super) async fn all<T>(
    connection: &Connection,
    sql: &str,
    params: impl IntoParams,
    read: impl Fn(&Row) -> Result<T>,
) -> Result<Vec<T>> {
    let mut rows = connection.query(sql, params).await?;
    let mut values = Vec::new();
    while let Some(row) = rows.next().await? {
        values.push(read(&row)?);
    }
    Ok(values)
}

/// The first row of a query.
pub(super) async fn first<T>(
    connection: &Connection,
    sql: &str,
    params: impl IntoParams,
    read: impl Fn(&Row) -> Result<T>,
) -> Result<Option<T>> {
    let mut rows = connection.query(sql, params).await?;
    rows.next().await?.map(|row| read(&row)).transpose()
}

/// The one number that a query gives.
pub(super) async fn number(connection: &Connection, sql: &str) -> Result<i64> {
    Ok(first(connection, sql, (), |row| Ok(row.get::<Option<i64>>(0)?))
        .await?
        .flatten()
        .unwrap_or(0))
}

/// A value as the text of a JSON column.
pub(super) fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("stored values are plain data")
}

/// The value of a JSON column.
pub(super) fn from_json<T: DeserializeOwned>(text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|e| Error::Corrupt(format!("JSON in a column: {e}")))
}
