//! The thread that owns the connection: jobs in, one commit for whatever is queued.

use std::{any::Any, os::unix::fs::OpenOptionsExt as _, path::Path, sync::Arc};

use evo_common::runtime::panic_message;
use futures_util::{FutureExt as _, future::LocalBoxFuture};
use libsql::{Builder, Connection, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};

use super::{Error, Result, lock::Lock};

/// Jobs that share one commit at most.
const GROUP: usize = 128;
/// Jobs that may wait; more make callers wait.
const QUEUE: usize = 256;

/// What a job gives back: a boxed `Result<T>` of the caller's type, and whether it is Ok.
type Output = (Box<dyn Any + Send>, bool);
type Work = Box<dyn for<'c> FnOnce(&'c Connection) -> LocalBoxFuture<'c, Output> + Send>;
type Answer = oneshot::Sender<Result<Box<dyn Any + Send>>>;

enum Job {
    Work(Work, Answer),
    Close(oneshot::Sender<()>),
}

/// The thread's handle. Cheap to clone.
#[derive(Clone)]
pub(super) struct Thread {
    jobs: mpsc::Sender<Job>,
}

/// A connection that writes.
pub(super) async fn connect(path: &Path) -> Result<Connection> {
    // Whatever the folder allows: what is in here is for its owner. What is wrong with the path is
    // told below.
    let made = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    if let Err(error) = made {
        tracing::trace!(%error, "{} is not new", path.display());
    }
    let connection = open(path).await?;
    connection
        .execute_batch(
            "PRAGMA busy_timeout = 5000; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
             PRAGMA foreign_keys = ON;",
        )
        .await
        .map_err(|error| opening(path, &error))?;
    Ok(connection)
}

/// A connection that only looks, also while a bridge writes.
pub(super) async fn connect_for_reading(path: &Path) -> Result<Connection> {
    let connection = open(path).await?;
    connection
        .execute_batch("PRAGMA busy_timeout = 5000; PRAGMA query_only = ON;")
        .await
        .map_err(|error| opening(path, &error))?;
    Ok(connection)
}

async fn open(path: &Path) -> Result<Connection> {
    let database = Builder::new_local(path).build().await.map_err(|error| opening(path, &error))?;
    database.connect().map_err(|error| opening(path, &error))
}

fn opening(path: &Path, error: &libsql::Error) -> Error {
    let reason =
        format!("{error}; check that it is a queue of the bridge's and that you may write it");
    Error::Open { path: path.display().to_string(), reason }
}

impl Thread {
    /// The lock is freed when the connection is closed, and not before.
    pub(super) fn start(connection: Connection, lock: Lock) -> Result<Self> {
        let (jobs, queue) = mpsc::channel(QUEUE);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(Error::Thread)?;
        std::thread::Builder::new()
            .name("evo-bridge-spool".to_owned())
            .spawn(move || {
                let closed = runtime.block_on(serve(connection, queue));
                drop(lock);
                if let Some(closed) = closed {
                    // The receiver is gone when whoever closes has stopped waiting.
                    closed.send(()).unwrap_or_default();
                }
            })
            .map_err(Error::Thread)?;
        Ok(Self { jobs })
    }

    /// Runs `work` in a transaction and answers after the commit. When `work` fails, nothing that
    /// it wrote remains.
    pub(super) async fn submit<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'c> AsyncFnOnce(&'c Connection) -> Result<T> + Send + 'static,
    {
        let work: Work = Box::new(move |connection| {
            Box::pin(async move {
                let result = work(connection).await;
                let ok = result.is_ok();
                (Box::new(result) as Box<dyn Any + Send>, ok)
            })
        });
        let (answer, answered) = oneshot::channel();
        self.jobs.send(Job::Work(work, answer)).await.map_err(|_| Error::Closed)?;
        let output = answered.await.map_err(|_| Error::Closed)??;
        *output
            .downcast::<Result<T>>()
            .expect("a job's output has the type that its caller asked for")
    }

    pub(super) async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.jobs.send(Job::Close(done)).await.is_ok() {
            // An error means that the thread had ended already.
            closed.await.unwrap_or_default();
        }
    }
}

/// Works until nobody holds the handle any more, or somebody closes it and waits for that.
async fn serve(
    connection: Connection,
    mut queue: mpsc::Receiver<Job>,
) -> Option<oneshot::Sender<()>> {
    while let Some(first) = queue.recv().await {
        let mut group = Vec::new();
        let mut close = None;
        let mut next = Some(first);
        while let Some(job) = next.take() {
            match job {
                Job::Work(work, answer) => group.push((work, answer)),
                Job::Close(done) => close = Some(done),
            }
            if close.is_none() && group.len() < GROUP {
                next = queue.try_recv().ok();
            }
        }
        if !group.is_empty() {
            commit(&connection, group).await;
        }
        if close.is_some() {
            return close;
        }
    }
    None
}

async fn commit(connection: &Connection, group: Vec<(Work, Answer)>) {
    let (works, waiting): (Vec<Work>, Vec<Answer>) = group.into_iter().unzip();
    match transact(connection, works).await {
        Ok(done) => {
            for (answer, output) in waiting.into_iter().zip(done) {
                // A caller that stopped waiting has no use for the answer.
                answer.send(output).unwrap_or_default();
            }
        }
        Err(error) => {
            tracing::error!(error = %error, cause = ?error, "A commit of the queue failed: {error}");
            let error = Arc::new(error);
            for answer in waiting {
                answer.send(Err(Error::NotCommitted(error.clone()))).unwrap_or_default();
            }
        }
    }
}

async fn transact(
    connection: &Connection,
    works: Vec<Work>,
) -> Result<Vec<Result<Box<dyn Any + Send>>>> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).await?;
    let mut done = Vec::with_capacity(works.len());
    for work in works {
        transaction.execute("SAVEPOINT job", ()).await?;
        let (output, ok) = match std::panic::AssertUnwindSafe(work(&transaction))
            .catch_unwind()
            .await
        {
            Ok((output, ok)) => (Ok(output), ok),
            Err(panic) => (Err(Error::Panicked(panic_message(panic.as_ref()).to_owned())), false),
        };
        done.push(output);
        if !ok {
            transaction.execute("ROLLBACK TO job", ()).await?;
        }
        transaction.execute("RELEASE job", ()).await?;
    }
    transaction.commit().await?;
    Ok(done)
}
