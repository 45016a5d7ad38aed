//! Facts about this database.

use libsql::params;

use super::{Connection, Error, Result, row};

#[derive(Clone)]
pub(super) struct Facts {
    pub(super) boots: i64,
    pub(super) split_key: std::sync::Arc<[u8]>,
}

/// Counts this start and makes king's secret at the first one.
pub(super) async fn start(connection: &Connection) -> Result<Facts> {
    let secret = evo_common::ids::hex(&rand::random::<[u8; 32]>());
    connection
        .execute("INSERT OR IGNORE INTO meta (key, value) VALUES ('split_key', ?)", params![secret])
        .await?;
    connection
        .execute(
            "INSERT INTO meta (key, value) VALUES ('boots', '1')
             ON CONFLICT (key) DO UPDATE SET value = CAST(CAST(value AS INTEGER) + 1 AS TEXT)",
            (),
        )
        .await?;
    let value = async |key: &'static str| {
        row::first(connection, "SELECT value FROM meta WHERE key = ?", params![key], |row| {
            Ok(row.get::<String>(0)?)
        })
        .await?
        .ok_or_else(|| Error::Corrupt(format!("meta has no {key}")))
    };
    let boots = value("boots").await?;
    let boots = boots.parse().map_err(|_| Error::Corrupt(format!("meta.boots is {boots:?}")))?;
    Ok(Facts { boots, split_key: value("split_key").await?.into_bytes().into() })
}
