//! The database: the only place that holds SQL.
//!
//! One thread owns the only write connection (libSQL runs synchronously and would stall the
//! runtime; a cloned connection shares its transaction). It groups whatever is queued into one
//! transaction and answers every waiter after the commit. Reads run on a few threads of their own.
//! On a remote database every job, a read too, is a transaction of its own.

pub(crate) mod agent_history;
pub(crate) mod agents;
pub(crate) mod audit;
pub(crate) mod cases;
pub(crate) mod config_history;
mod connect;
mod connection;
pub(crate) mod cron;
pub(crate) mod damaged;
pub(crate) mod events;
mod filters;
pub(crate) mod inspect;
pub(crate) mod memories;
pub(crate) mod messages;
mod meta;
mod migrate;
pub(crate) mod outbox;
mod reader;
pub(crate) mod recoveries;
pub(crate) mod requests;
pub(crate) mod retention;
pub(crate) mod row;
pub(crate) mod runs;
pub(crate) mod signals;
pub(crate) mod skills;
pub(crate) mod stats;
mod supervisor;
pub(crate) mod tasks;
pub(crate) mod timers;
pub(crate) mod tokens;
pub(crate) mod traces;
mod writer;

use connect::Access;
pub use connect::Database;
pub use connection::Connection;
pub use filters::{
    AuditFilter, Counts, EventFilter, MemoryFilter, RunFilter, SkillFilter, TraceFilter,
};

use tokio::sync::watch;

use crate::failpoints;

/// Why the database did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database refused a statement or can't be reached.
    #[error("the database failed")]
    Database(#[from] libsql::Error),
    /// The commit failed; of a remote one only the answer may be lost.
    #[error("the database did not confirm the commit")]
    NotCommitted(#[source] std::sync::Arc<Error>),
    /// A remote database takes too long.
    #[error("the remote database gave no answer within {seconds} s")]
    Slow {
        /// How long it was waited for.
        seconds: u64,
    },
    /// The job panicked; nothing that it wrote remains.
    #[error("work on the database panicked: {0}")]
    Panicked(String),
    /// The system gives no thread.
    #[error("can't start a thread for the database")]
    Thread(#[source] std::io::Error),
    /// A stored value is not what it should be.
    #[error("the database holds a value that can't be read: {0}")]
    Corrupt(String),
    /// The same, and it is known in which row.
    #[error("{0}")]
    Unreadable(Unreadable),
    /// The database was made by a newer king.
    #[error(
        "the database {path} has schema {found}, newer than {known} which this version knows; \
         start the newer version, or go back to a backup of this one: evo-king restore FILE"
    )]
    Newer {
        /// Where it is.
        path: String,
        /// Its schema.
        found: i64,
        /// The newest schema known.
        known: i64,
    },
    /// A migration was changed after it had been applied.
    #[error(
        "migration {number} of {path} is not the one that this version holds; start the version \
         that made the database, or go back to a backup: evo-king restore FILE"
    )]
    Migration {
        /// Where it is.
        path: String,
        /// Which migration.
        number: i64,
    },
    /// A migration can't be applied; nothing of it remains.
    #[error(
        "migration {number} can't be applied to {path}, which is as it was before: somebody has \
         changed its schema; go back to a backup: evo-king restore FILE"
    )]
    MigrationFailed {
        /// Where it is.
        path: String,
        /// Which migration.
        number: i64,
        /// What the database said.
        source: libsql::Error,
    },
    /// The database file can't be opened.
    #[error("can't open the database {path}: {reason}")]
    Open {
        /// Where it should be.
        path: String,
        /// Why not, and what to do.
        reason: String,
    },
    /// The store was closed.
    #[error("the database is closed")]
    Closed,
}

/// A row that is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// Its table.
    pub table: &'static str,
    /// Which row.
    pub id: String,
    /// Why it can't be read.
    pub reason: String,
}

impl Unreadable {
    /// Stable code of whatever was set aside because of such a row.
    pub const CODE: &'static str = "unreadable";
}

impl std::fmt::Display for Unreadable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { table, id, reason } = self;
        write!(f, "the row {id} of {table} can't be read: {reason}")
    }
}

/// Result of a store function.
pub type Result<T> = std::result::Result<T, Error>;

/// The database. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    writer: writer::Writer,
    readers: reader::Readers,
    committed: watch::Sender<i64>,
    facts: meta::Facts,
    signals: std::sync::Arc<signals::Signals>,
    /// Whether it is a file on this machine.
    local: bool,
}

impl Store {
    /// Opens the database, brings its schema up to date and counts this start.
    pub async fn open(database: Database) -> Result<Self> {
        let opened = database.open().await?;
        let start = async {
            let connection = opened.connect_for_writing().await?;
            let transaction = opened.begin(&connection, Access::Write).await?;
            migrate::run(&transaction, &database.describe()).await?;
            let facts = meta::start(&transaction).await?;
            let last = events::last_seq(&transaction).await?;
            failpoints::passed("before the first commit");
            transaction.commit().await?;
            failpoints::passed("after the first commit");
            Ok((facts, last))
        };
        let (facts, last) = opened.limited(start).await.map_err(|error| opened.opening(error))?;
        let (committed, _) = watch::channel(last);
        // A connection of the writer's own: a remote one's sockets belong to the thread that opens
        // them.
        let connection = opened.connect_for_writing().await?;
        Ok(Self {
            local: opened.local,
            signals: opened.signals.clone(),
            readers: reader::Readers::start(&opened)?,
            writer: writer::Writer::start(connection, opened, committed.clone())?,
            committed,
            facts,
        })
    }

    /// Runs `work` in the writer's transaction and answers after the commit. When `work` fails,
    /// nothing that it wrote remains.
    pub async fn write<T, E, F>(&self, work: F) -> std::result::Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
        F: for<'c> AsyncFnOnce(&'c Connection) -> std::result::Result<T, E> + Send + 'static,
    {
        self.writer.submit(work).await
    }

    /// Runs `work` on a read connection.
    pub async fn read<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'c> AsyncFnOnce(&'c Connection) -> Result<T> + Send + 'static,
    {
        self.readers.submit(work).await
    }

    /// The newest event's `seq`, after every commit.
    pub fn committed(&self) -> watch::Receiver<i64> {
        self.committed.subscribe()
    }

    /// What commits leave to be done.
    pub(crate) fn signals(&self) -> &signals::Signals {
        &self.signals
    }

    /// How often king has started on this database, this time included.
    pub fn boots(&self) -> i64 {
        self.facts.boots
    }

    /// King's secret for splitting cases; no runner ever learns it.
    pub fn split_key(&self) -> &[u8] {
        &self.facts.split_key
    }

    /// Whether the database answers.
    pub async fn is_well(&self) -> Result<()> {
        self.read(async |connection| events::last_seq(connection).await.map(|_| ())).await
    }

    /// Ends writer and readers after what is queued; the last checkpoint is made, and no connection
    /// to the database is left.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

#[cfg(test)]
pub(crate) mod tests;
