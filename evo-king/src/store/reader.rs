//! Threads that read, so that a long query never stalls the runtime or the writer.

use std::{any::Any, sync::Arc};

use futures_util::future::LocalBoxFuture;
use tokio::sync::{Mutex, mpsc, oneshot};

use super::{
    Connection, Error, Result,
    connect::{self, Access, Opened},
};

const THREADS: usize = 2;
const QUEUE: usize = 1_024;

type Work =
    Box<dyn for<'c> FnOnce(&'c Connection) -> LocalBoxFuture<'c, Box<dyn Any + Send>> + Send>;
type Answered = Result<Box<dyn Any + Send>>;

enum Job {
    Work(Work, oneshot::Sender<Answered>),
    /// Ends one thread; answered when its connection is closed.
    Close(oneshot::Sender<()>),
}

#[derive(Clone)]
pub(super) struct Readers {
    jobs: mpsc::Sender<Job>,
}

impl Readers {
    pub(super) fn start(opened: &Opened) -> Result<Self> {
        let (jobs, queue) = mpsc::channel::<Job>(QUEUE);
        let queue = Arc::new(Mutex::new(queue));
        for number in 0..THREADS {
            let (queue, opened) = (queue.clone(), opened.clone());
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(Error::Thread)?;
            std::thread::Builder::new()
                .name(format!("evo-king-reader-{number}"))
                .spawn(move || runtime.block_on(serve(&opened, &queue)))
                .map_err(Error::Thread)?;
        }
        Ok(Self { jobs })
    }

    pub(super) async fn submit<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'c> AsyncFnOnce(&'c Connection) -> Result<T> + Send + 'static,
    {
        let work: Work = Box::new(move |connection| {
            Box::pin(async move { Box::new(work(connection).await) as Box<dyn Any + Send> })
        });
        let (answer, answered) = oneshot::channel();
        self.jobs.send(Job::Work(work, answer)).await.map_err(|_| Error::Closed)?;
        let output = answered.await.map_err(|_| Error::Closed)??;
        *output
            .downcast::<Result<T>>()
            .expect("a job's output has the type that its caller asked for")
    }

    /// Ends the threads after what is queued.
    pub(super) async fn close(&self) {
        for _ in 0..THREADS {
            let (done, closed) = oneshot::channel();
            if self.jobs.send(Job::Close(done)).await.is_ok() {
                // An error means that the thread had ended already.
                closed.await.unwrap_or_default();
            }
        }
    }
}

async fn serve(opened: &Opened, queue: &Mutex<mpsc::Receiver<Job>>) {
    let mut connection = None;
    loop {
        let job = queue.lock().await.recv().await;
        let (work, answer) = match job {
            None => return,
            Some(Job::Work(work, answer)) => (work, answer),
            Some(Job::Close(done)) => {
                drop(connection);
                // The receiver is gone when whoever closes has stopped waiting.
                return done.send(()).unwrap_or_default();
            }
        };
        let output = opened.limited(run(opened, &mut connection, work)).await;
        // A caller that stopped waiting has no use for the answer.
        answer.send(output).unwrap_or_default();
    }
}

async fn run(opened: &Opened, connection: &mut Option<Connection>, work: Work) -> Answered {
    let connection = match connection {
        Some(connection) => connection,
        None => connection.insert(opened.connect_for_reading().await?),
    };
    if opened.local {
        return connect::caught(work(connection)).await;
    }
    // A remote server forgets a stream that is idle for some seconds, and the client would go on
    // with it for ever. A transaction has a stream of its own, which its end closes.
    let transaction = opened.begin(connection, Access::Read).await?;
    let output = connect::caught(work(&transaction)).await;
    transaction.roll_back().await;
    output
}
