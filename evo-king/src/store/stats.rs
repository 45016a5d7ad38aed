//! Counts for `GET /stats`.

use super::{Counts, Result, Store, row};

impl Store {
    /// How many there are of everything.
    pub async fn counts(&self) -> Result<Counts> {
        let local = self.local;
        self.read(async move |connection| {
            let pairs = async |sql: &'static str| {
                let pairs: Vec<(String, u64)> =
                    row::all(connection, sql, (), |row| Ok((row.get(0)?, row.get(1)?))).await?;
                Ok::<_, super::Error>(pairs.into_iter().collect())
            };
            let number = async |sql: &'static str| row::number(connection, sql, ()).await;
            let database_bytes = if local {
                let pages = number("PRAGMA page_count").await?;
                u64::try_from(pages * number("PRAGMA page_size").await?).ok()
            } else {
                None
            };
            Ok(Counts {
                runs: pairs("SELECT status, COUNT(*) FROM runs GROUP BY status").await?,
                skills: pairs("SELECT status, COUNT(*) FROM skills GROUP BY status").await?,
                agents_online: u64::try_from(
                    number(
                        "SELECT COUNT(*) FROM agents WHERE status NOT IN ('offline', 'crashed')",
                    )
                    .await?,
                )
                .unwrap_or_default(),
                database_bytes,
            })
        })
        .await
    }
}
