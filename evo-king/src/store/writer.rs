//! The writer thread: one connection, group commit.

use std::any::Any;

use futures_util::future::LocalBoxFuture;
use libsql::{Connection, TransactionBehavior};
use tokio::sync::{mpsc, oneshot, watch};

use super::{Error, Result, connect::Opened, events};

/// Jobs that share one commit at most.
const GROUP: usize = 256;
/// Jobs that may wait; more make callers wait.
const QUEUE: usize = 1_024;
/// Commits between two checkpoints.
const CHECKPOINT_EVERY: u32 = 500;

/// What a job gives back: a boxed `Result<T, E>` of the caller's types, and whether it is Ok.
type Output = (Box<dyn Any + Send>, bool);
type Work = Box<dyn for<'c> FnOnce(&'c Connection) -> LocalBoxFuture<'c, Output> + Send>;

type Answer = oneshot::Sender<Result<Box<dyn Any + Send>>>;

enum Job {
    Work { work: Work, answer: Answer },
    Close(oneshot::Sender<()>),
}

#[derive(Clone)]
pub(super) struct Writer {
    jobs: mpsc::Sender<Job>,
}

impl Writer {
    pub(super) fn start(
        connection: Connection,
        opened: Opened,
        committed: watch::Sender<i64>,
    ) -> Result<Self> {
        let (jobs, queue) = mpsc::channel(QUEUE);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| Error::Corrupt(format!("no runtime for the writer: {e}")))?;
        std::thread::Builder::new()
            .name("evo-king-writer".to_owned())
            .spawn(move || {
                runtime.block_on(WriterLoop { connection, opened, committed, commits: 0 }.run(queue));
            })
            .map_err(|e| Error::Corrupt(format!("no thread for the writer: {e}")))?;
        Ok(Self { jobs })
    }

    pub(super) async fn submit<T, E, F>(&self, work: F) -> std::result::Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
        F: for<'c> AsyncFnOnce(&'c Connection) -> std::result::Result<T, E> + Send + 'static,
    {
        let work: Work = Box::new(move |connection| {
            Box::pin(async move {
                let result = work(connection).await;
                let ok = result.is_ok();
                (Box::new(result) as Box<dyn Any + Send>, ok)
            })
        });
        let (answer, answered) = oneshot::channel();
        self.jobs.send(Job::Work { work, answer }).await.map_err(|_| Error::Closed)?;
        let output = answered.await.map_err(|_| Error::Closed)??;
        *output
            .downcast::<std::result::Result<T, E>>()
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

struct WriterLoop {
    connection: Connection,
    opened: Opened,
    committed: watch::Sender<i64>,
    commits: u32,
}

impl WriterLoop {
    async fn run(mut self, mut queue: mpsc::Receiver<Job>) {
        while let Some(first) = queue.recv().await {
            let mut group = Vec::new();
            let mut close = None;
            let mut next = Some(first);
            while let Some(job) = next.take() {
                match job {
                    Job::Work { work, answer } => group.push((work, answer)),
                    Job::Close(done) => close = Some(done),
                }
                if close.is_none() && group.len() < GROUP {
                    next = queue.try_recv().ok();
                }
            }
            if !group.is_empty() {
                self.commit(group).await;
            }
            if let Some(done) = close {
                self.checkpoint("TRUNCATE").await;
                // The receiver is gone when whoever closes has stopped waiting.
                done.send(()).unwrap_or_default();
                return;
            }
        }
    }

    async fn commit(&mut self, group: Vec<(Work, Answer)>) {
        let mut done = Vec::with_capacity(group.len());
        let mut waiting = Vec::with_capacity(group.len());
        let result: Result<i64> = async {
            let transaction =
                self.connection.transaction_with_behavior(TransactionBehavior::Immediate).await?;
            for (work, answer) in group {
                waiting.push(answer);
                transaction.execute("SAVEPOINT job", ()).await?;
                let (output, ok) = work(&transaction).await;
                if !ok {
                    transaction.execute("ROLLBACK TO job", ()).await?;
                }
                transaction.execute("RELEASE job", ()).await?;
                done.push(output);
            }
            let last = events::last_seq(&transaction).await?;
            transaction.commit().await?;
            Ok(last)
        }
        .await;
        match result {
            Ok(last) => {
                // Readers first: whoever is answered next may look at once.
                self.committed.send_replace(last);
                for (answer, output) in waiting.into_iter().zip(done) {
                    // A caller that stopped waiting has no use for the answer.
                    answer.send(Ok(output)).unwrap_or_default();
                }
            }
            Err(error) => {
                tracing::error!(error = %error, cause = ?error, "A commit failed: {error}");
                for answer in waiting {
                    let error = Error::Corrupt(format!("the commit failed: {error}"));
                    answer.send(Err(error)).unwrap_or_default();
                }
            }
        }
        self.commits += 1;
        if self.commits.is_multiple_of(CHECKPOINT_EVERY) {
            self.checkpoint("PASSIVE").await;
        }
    }

    async fn checkpoint(&self, mode: &str) {
        if !self.opened.local {
            return;
        }
        let sql = format!("PRAGMA wal_checkpoint({mode})");
        if let Err(error) = self.connection.query(&sql, ()).await {
            tracing::warn!(error = %error, "A checkpoint failed: {error}");
        }
    }
}
