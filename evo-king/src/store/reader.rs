//! Threads that read, so that a long query never stalls the runtime or the writer.

use std::{any::Any, sync::Arc};

use futures_util::future::LocalBoxFuture;
use libsql::Connection;
use tokio::sync::{Mutex, mpsc, oneshot};

use super::{Error, Result, connect::Opened};

const THREADS: usize = 2;
const QUEUE: usize = 1_024;

type Work = Box<dyn for<'c> FnOnce(&'c Connection) -> LocalBoxFuture<'c, Box<dyn Any + Send>> + Send>;
type Job = (Work, oneshot::Sender<Box<dyn Any + Send>>);

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
                .map_err(|e| Error::Corrupt(format!("no runtime for a reader: {e}")))?;
            std::thread::Builder::new()
                .name(format!("evo-king-reader-{number}"))
                .spawn(move || runtime.block_on(serve(&opened, &queue)))
                .map_err(|e| Error::Corrupt(format!("no thread for a reader: {e}")))?;
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
        self.jobs.send((work, answer)).await.map_err(|_| Error::Closed)?;
        let output = answered.await.map_err(|_| Error::Closed)?;
        *output.downcast::<Result<T>>().expect("a job's output has the type that its caller asked for")
    }
}

async fn serve(opened: &Opened, queue: &Mutex<mpsc::Receiver<Job>>) {
    let mut connection = None;
    loop {
        let job = queue.lock().await.recv().await;
        let Some((work, answer)) = job else { return };
        if connection.is_none() {
            match opened.connect_for_reading().await {
                Ok(opened) => connection = Some(opened),
                Err(error) => {
                    tracing::error!(error = %error, "A reader can't connect: {error}");
                    // The job is dropped, its caller sees that the store is closed.
                    continue;
                }
            }
        }
        if let Some(connection) = &connection {
            // A caller that stopped waiting has no use for the answer.
            answer.send(work(connection).await).unwrap_or_default();
        }
    }
}
