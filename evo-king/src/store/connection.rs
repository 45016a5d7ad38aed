//! A connection that keeps its statements prepared: parsing and planning one costs more than
//! most of them do.

use std::{
    collections::HashMap,
    ops::ControlFlow,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use libsql::{Row, Rows, Statement, params::IntoParams};

use evo_common::{clock::Timestamp, messages::PipelineStage};

use super::{
    Result,
    signals::{Left, Signals},
};

/// Statements that are kept. The texts of king's statements are few; those of filtered lists have
/// as many variants as there are combinations of filters.
const KEPT: usize = 160;

/// A connection to the database.
pub struct Connection {
    raw: libsql::Connection,
    /// None on a remote database, whose server forgets them with the transaction.
    kept: Option<Mutex<Kept>>,
    /// What the jobs of this transaction leave behind.
    left: Arc<Mutex<Left>>,
    signals: Arc<Signals>,
}

/// Prepared statements by their text; one that is in use is not in its place.
type Kept = HashMap<Box<str>, Option<Statement>>;

impl Connection {
    /// A connection to a file.
    pub(super) fn local(raw: libsql::Connection) -> Self {
        Self { raw, kept: Some(Mutex::default()), left: Arc::default(), signals: Arc::default() }
    }

    /// A connection to a server.
    #[cfg(feature = "remote")]
    pub(super) fn remote(raw: libsql::Connection) -> Self {
        Self { raw, kept: None, left: Arc::default(), signals: Arc::default() }
    }

    /// The same, where others hear of what it leaves to be done.
    pub(super) fn telling(self, signals: Arc<Signals>) -> Self {
        Self { signals, ..self }
    }

    /// A transaction on a server.
    #[cfg(feature = "remote")]
    pub(super) fn stream(&self, raw: libsql::Connection) -> Self {
        Self { raw, kept: None, left: self.left.clone(), signals: self.signals.clone() }
    }

    /// What the jobs of this transaction leave behind.
    pub(super) fn left(&self) -> MutexGuard<'_, Left> {
        // A panic while holding the lock can't leave it half-written.
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something once this job is committed, and never otherwise: right before whoever asked
    /// for the job gets its answer. A crash in between loses it, so it must follow from what the job
    /// writes.
    pub(crate) fn after_commit(&self, later: impl FnOnce() + Send + 'static) {
        self.left().later.push(Box::new(later));
    }

    /// A run will wait for a runner of this stage.
    pub(crate) fn leaves_waiting(&self, stage: PipelineStage) {
        self.left().work().add_waiting(stage);
    }

    /// An effect will have to be delivered.
    pub(super) fn leaves_effect(&self) {
        self.left().work().outbox = true;
    }

    /// A timer will be due.
    pub(super) fn leaves_timer(&self, due: Timestamp) {
        self.left().work().add_timer(due);
    }

    /// Whether a run may wait for a runner of this stage, as of this transaction.
    pub(crate) fn waits(&self, stage: PipelineStage) -> bool {
        self.left().work().waits(stage) || self.signals.waits(stage)
    }

    /// Executes a statement that gives no rows; says how many rows it changed.
    pub async fn execute(&self, sql: &str, params: impl IntoParams) -> libsql::Result<u64> {
        let Some(kept) = &self.kept else { return self.raw.execute(sql, params).await };
        #[cfg(test)]
        super::tests::plans::look(&self.raw, sql).await;
        let statement = self.take(kept, sql).await?;
        // One that failed is dropped.
        let changed = statement.execute(params).await?;
        keep(kept, sql, statement);
        Ok(changed as u64)
    }

    /// Executes statements without parameters.
    pub async fn execute_batch(&self, sql: &str) -> libsql::Result<()> {
        self.raw.execute_batch(sql).await.map(drop)
    }

    /// The place of the row that was inserted last.
    pub fn last_insert_rowid(&self) -> i64 {
        self.raw.last_insert_rowid()
    }

    /// Gives the rows of a query to `each` until it has enough.
    pub(super) async fn query(
        &self,
        sql: &str,
        params: impl IntoParams,
        each: impl FnMut(&Row) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        let Some(kept) = &self.kept else {
            return walk(self.raw.query(sql, params).await?, each).await;
        };
        #[cfg(test)]
        super::tests::plans::look(&self.raw, sql).await;
        let statement = self.take(kept, sql).await?;
        walk(statement.query(params).await?, each).await?;
        keep(kept, sql, statement);
        Ok(())
    }

    /// Begins a transaction that is not tied to this value's life.
    #[cfg(feature = "remote")]
    pub(super) async fn transaction(
        &self,
        behavior: libsql::TransactionBehavior,
    ) -> libsql::Result<libsql::Transaction> {
        self.raw.transaction_with_behavior(behavior).await
    }

    /// The prepared statement; nobody else uses it until it is kept again.
    async fn take(&self, kept: &Mutex<Kept>, sql: &str) -> libsql::Result<Statement> {
        let known = lock(kept).get_mut(sql).and_then(Option::take);
        match known {
            Some(statement) => Ok(statement),
            None => self.raw.prepare(sql).await,
        }
    }
}

async fn walk(mut rows: Rows, mut each: impl FnMut(&Row) -> Result<ControlFlow<()>>) -> Result<()> {
    while let Some(row) = rows.next().await? {
        if each(&row)?.is_break() {
            break;
        }
    }
    Ok(())
}

/// Makes a statement ready for its next use. Until it is reset, a query pins what its transaction
/// saw.
fn keep(kept: &Mutex<Kept>, sql: &str, statement: Statement) {
    statement.reset();
    let mut kept = lock(kept);
    if let Some(place) = kept.get_mut(sql) {
        *place = Some(statement);
    } else if kept.len() < KEPT {
        kept.insert(sql.into(), Some(statement));
    }
}

fn lock(kept: &Mutex<Kept>) -> MutexGuard<'_, Kept> {
    // A panic while holding the lock can't leave the map half-written.
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use libsql::params;

    use super::*;
    use crate::store::row;

    #[tokio::test]
    async fn a_statement_can_be_used_again_after_an_error_and_inside_itself() {
        let database = libsql::Builder::new_local(":memory:").build().await.unwrap();
        let connection = Connection::local(database.connect().unwrap());
        connection.execute_batch("CREATE TABLE t (n INTEGER PRIMARY KEY) STRICT").await.unwrap();
        let insert = "INSERT INTO t (n) VALUES (?)";
        assert_eq!(connection.execute(insert, params![1]).await.unwrap(), 1);
        assert!(connection.execute(insert, params![1]).await.is_err());
        assert_eq!(connection.execute(insert, params![2]).await.unwrap(), 1);
        let select = "SELECT n FROM t WHERE n > ? ORDER BY n";
        let kept = connection.kept.as_ref().unwrap();
        let outer = connection.take(kept, select).await.unwrap();
        let mut rows = outer.query(params![0]).await.unwrap();
        assert_eq!(rows.next().await.unwrap().unwrap().get::<i64>(0).unwrap(), 1);
        let inner = row::all(&connection, select, params![1], |row| Ok(row.get::<i64>(0)?)).await;
        assert_eq!(inner.unwrap(), [2]);
        assert_eq!(rows.next().await.unwrap().unwrap().get::<i64>(0).unwrap(), 2);
        drop(rows);
        keep(kept, select, outer);
        let first = row::first(&connection, select, params![0], |row| Ok(row.get::<i64>(0)?)).await;
        assert_eq!(first.unwrap(), Some(1), "a kept statement begins at the first row");
        // A query that was left half-way pins nothing.
        connection.execute("DROP TABLE t", ()).await.unwrap();
    }
}
