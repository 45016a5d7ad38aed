//! Counts for `GET /stats`.

use super::{Connection, Counts, Result, Store, row};

/// What is on its way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct OnTheWay {
    /// Runs that wait for a runner, by stage.
    pub(crate) waiting: Vec<(String, u32)>,
    /// Attempts that agents have.
    pub(crate) leased: u32,
    /// Effects that are still to be delivered.
    pub(crate) outbox: u32,
    /// Size of the database in bytes; absent for a remote one.
    pub(crate) database_bytes: Option<u64>,
}

/// What is on its way: small parts of the tables, by indexes that hold nothing else.
pub(crate) async fn on_the_way(connection: &Connection, local: bool) -> Result<OnTheWay> {
    let waiting = row::all(
        connection,
        "SELECT stage, COUNT(*) FROM runs WHERE phase = 'waiting' GROUP BY stage",
        (),
        |row| Ok((row.get(0)?, row.get(1)?)),
    )
    .await?;
    let number = async |sql: &'static str| row::number(connection, sql, ()).await;
    let count = |number: i64| u32::try_from(number).unwrap_or(u32::MAX);
    let leased = number("SELECT COUNT(*) FROM runs WHERE phase = 'leased'").await?;
    let outbox = number("SELECT COUNT(*) FROM outbox").await?;
    let database_bytes = if local {
        let pages = number("PRAGMA page_count").await?;
        u64::try_from(pages * number("PRAGMA page_size").await?).ok()
    } else {
        None
    };
    Ok(OnTheWay { waiting, leased: count(leased), outbox: count(outbox), database_bytes })
}

impl Store {
    /// What is on its way.
    pub(crate) async fn on_the_way(&self) -> Result<OnTheWay> {
        let local = self.local;
        self.read(async move |connection| on_the_way(connection, local).await).await
    }

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
