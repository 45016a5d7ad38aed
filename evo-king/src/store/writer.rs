//! The writer thread: one connection, group commit.

use std::{any::Any, sync::Arc};

use futures_util::future::LocalBoxFuture;
use tokio::sync::{mpsc, oneshot, watch};

use super::{
    Connection, Error, Result,
    connect::{self, Access, Opened},
    events, row,
    signals::Later,
};
use crate::failpoints;

/// Jobs that share one commit at most. On a remote server every job has its own: a transaction of
/// many jobs, each with its round trips, would outlast what a server allows.
const GROUP: usize = 256;
/// Jobs that may wait; more make callers wait.
const QUEUE: usize = 1_024;
/// Commits between two checkpoints.
const CHECKPOINT_EVERY: u32 = 500;

/// What a job gives back: a boxed `Result<T, E>` of the caller's types, and whether it is Ok.
type Output = (Box<dyn Any + Send>, bool);
type Work = Box<dyn for<'c> FnOnce(&'c Connection) -> LocalBoxFuture<'c, Output> + Send>;

/// What a job came to, and what is to be done now that it is committed.
type Answered = Result<(Box<dyn Any + Send>, Vec<Later>)>;
type Answer = oneshot::Sender<Answered>;

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
            .map_err(Error::Thread)?;
        std::thread::Builder::new()
            .name("evo-king-writer".to_owned())
            .spawn(move || {
                runtime
                    .block_on(WriterLoop { connection, opened, committed, commits: 0 }.run(queue));
            })
            .map_err(Error::Thread)?;
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
        let (output, later) = answered.await.map_err(|_| Error::Closed)??;
        run_all(later);
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
        let most = if self.opened.local { GROUP } else { 1 };
        while let Some(first) = queue.recv().await {
            let mut group = Vec::new();
            let mut close = None;
            let mut next = Some(first);
            while let Some(job) = next.take() {
                match job {
                    Job::Work { work, answer } => group.push((work, answer)),
                    Job::Close(done) => close = Some(done),
                }
                if close.is_none() && group.len() < most {
                    next = queue.try_recv().ok();
                }
            }
            if !group.is_empty() {
                self.commit(group).await;
            }
            if let Some(done) = close {
                self.checkpoint("TRUNCATE").await;
                drop(self);
                // The receiver is gone when whoever closes has stopped waiting.
                done.send(()).unwrap_or_default();
                return;
            }
        }
    }

    async fn commit(&mut self, group: Vec<(Work, Answer)>) {
        let (works, waiting): (Vec<Work>, Vec<Answer>) = group.into_iter().unzip();
        match self.opened.limited(self.transact(works)).await {
            Ok((last, done)) => {
                // Readers first: whoever is answered next may look at once.
                if let Some(last) = last {
                    self.committed.send_replace(last);
                }
                self.opened.signals.committed(&mut self.connection.left());
                for (answer, output) in waiting.into_iter().zip(done) {
                    // A caller that stopped waiting has no use for the answer, but what was to
                    // follow follows.
                    if let Err(Ok((_, later))) = answer.send(output) {
                        run_all(later);
                    }
                }
            }
            Err(error) => {
                tracing::error!(error = %error, cause = ?error, "A commit failed: {error}");
                let error = Arc::new(error);
                for answer in waiting {
                    // A caller that stopped waiting has no use for the answer.
                    drop(answer.send(Err(Error::NotCommitted(error.clone()))));
                }
            }
        }
        self.commits += 1;
        if self.commits.is_multiple_of(CHECKPOINT_EVERY) {
            self.checkpoint("PASSIVE").await;
        }
    }

    /// Runs jobs in one transaction: the newest event's place if it was committed, and what each
    /// job came to. An error means that nothing of any of them was kept.
    async fn transact(&self, works: Vec<Work>) -> Result<(Option<i64>, Vec<Answered>)> {
        let transaction = self.opened.begin(&self.connection, Access::Write).await?;
        let alone = works.len() == 1;
        let run = async {
            let mut done = Vec::with_capacity(works.len());
            for work in works {
                if !alone {
                    transaction.execute("SAVEPOINT job", ()).await?;
                }
                let (output, ok) = match connect::caught(work(&transaction)).await {
                    Ok((output, ok)) => (Ok(output), ok),
                    Err(panic) => (Err(panic), false),
                };
                let later = std::mem::take(&mut transaction.left().later);
                done.push(output.map(|output| (output, if ok { later } else { Vec::new() })));
                if alone && !ok {
                    return Ok((None, done));
                }
                if !ok {
                    transaction.execute("ROLLBACK TO job", ()).await?;
                }
                if !alone {
                    transaction.execute("RELEASE job", ()).await?;
                }
            }
            Ok((Some(events::last_seq(&transaction).await?), done))
        };
        let result = run.await;
        match result {
            Ok((Some(_), _)) => {
                failpoints::passed("before a commit");
                transaction.commit().await?;
                failpoints::passed("after a commit");
            }
            _ => transaction.roll_back().await,
        }
        result
    }

    async fn checkpoint(&self, mode: &str) {
        if !self.opened.local {
            return;
        }
        let sql = format!("PRAGMA wal_checkpoint({mode})");
        if let Err(error) = row::number(&self.connection, &sql, ()).await {
            tracing::warn!(error = %error, "A checkpoint failed: {error}");
        }
    }
}

fn run_all(later: Vec<Later>) {
    for later in later {
        later();
    }
}
