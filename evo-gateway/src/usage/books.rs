//! The thread that writes down what requests took. Requests leave a record behind and go on.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use chrono::{TimeDelta, Utc};
use tokio::{runtime, sync::oneshot, time::Instant};

use super::{
    record::Record,
    store::{Page, Query, Report, Store, StoreError, Writer},
};
use crate::{
    Error,
    auth::spent::Ledger,
    batch::{self, Queue, Sink, Worker},
    metrics::Metrics,
};

/// Records that may wait; more are left out of the table and counted.
const QUEUE: usize = 65_536;
/// How long they may wait, so that they are written in batches.
const PAUSE: Duration = Duration::from_millis(250);
/// How often old rows are deleted.
const RETENTION_INTERVAL: Duration = Duration::from_secs(3_600);
/// Pause between small deletions.
const LOST_INTERVAL: Duration = Duration::from_secs(60);

/// What is left behind for the thread.
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are records, and allocators don't like what one thread makes and another drops"
)]
enum Work {
    Record(Record),
    /// Answer once all that came before is written.
    Flush(oneshot::Sender<()>),
}

/// Where records go, and what they add up to. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Books {
    queue: Queue<Work>,
    store: Option<Store>,
    retention_days: Arc<AtomicU32>,
}

impl std::fmt::Debug for Books {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Books").field("store", &self.store).finish_non_exhaustive()
    }
}

/// The thread; writes what is left when it is dropped.
pub(crate) struct Keeper {
    worker: Worker<Work>,
    store: Option<Store>,
    retention_days: Arc<AtomicU32>,
}

impl std::fmt::Debug for Keeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keeper").field("store", &self.store).finish_non_exhaustive()
    }
}

impl Keeper {
    /// Where records go.
    pub(crate) fn books(&self) -> Books {
        Books {
            queue: self.worker.queue(),
            store: self.store.clone(),
            retention_days: self.retention_days.clone(),
        }
    }
}

/// Opens the table, reads what keys have spent and starts the thread. Without a file the records only
/// go into the figures.
pub(crate) fn start(
    file: Option<&Path>,
    retention_days: u32,
    metrics: Arc<Metrics>,
) -> Result<(Keeper, Ledger), Error> {
    let process = |source: io::Error| Error::Process {
        what: "the thread for usage can't be started",
        source,
    };
    let runtime = runtime::Builder::new_current_thread().enable_time().build().map_err(process)?;
    let ledger = Ledger::default();
    let retention_days = Arc::new(AtomicU32::new(retention_days));
    let mut store = None;
    let mut writer = None;
    if let Some(file) = file {
        let wrong = |error: StoreError| Error::Usage { path: PathBuf::from(file), source: error };
        let opened = runtime.block_on(Writer::open(file)).map_err(wrong)?;
        runtime.block_on(opened.spent(&ledger)).map_err(wrong)?;
        store = Some(Store::new(file));
        writer = Some(opened);
    }
    let keeping = Keeping {
        runtime,
        writer,
        metrics,
        retention_days: retention_days.clone(),
        deleted: None,
        lost: None,
    };
    let worker = batch::start("evo-usage", PAUSE, QUEUE, keeping).map_err(process)?;
    Ok((Keeper { worker, store, retention_days }, ledger))
}

impl Books {
    /// Leaves a record behind.
    pub(crate) fn enter(&self, record: Record) {
        self.queue.push(Work::Record(record));
    }

    /// Keeps rows for so long from now on.
    pub(crate) fn keep_for(&self, days: u32) {
        self.retention_days.store(days, Ordering::Relaxed);
    }

    /// Single rows, the newest first, of all requests that are over by now.
    pub(crate) async fn rows(&self, query: Query) -> Result<Page, StoreError> {
        let store = self.written().await?;
        blocking(move || store.rows(&query)).await
    }

    /// What the rows add up to, by group.
    pub(crate) async fn groups(&self, query: Query) -> Result<Report, StoreError> {
        let store = self.written().await?;
        blocking(move || store.groups(&query)).await
    }

    /// The table, once all that was left behind is in it.
    async fn written(&self) -> Result<Store, StoreError> {
        let store = self.store.clone().ok_or(StoreError::Off)?;
        let (done, written) = oneshot::channel();
        self.queue.push_now(Work::Flush(done));
        // The thread ends with the gateway; the table is still there.
        written.await.unwrap_or_default();
        Ok(store)
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(StoreError::Process(io::Error::other(error))),
    }
}

/// What the thread works with.
struct Keeping {
    runtime: runtime::Runtime,
    writer: Option<Writer>,
    metrics: Arc<Metrics>,
    retention_days: Arc<AtomicU32>,
    deleted: Option<Instant>,
    /// When it was last told that rows are lost.
    lost: Option<Instant>,
}

impl Sink<Work> for Keeping {
    fn take(&mut self, batch: &mut Vec<Work>) {
        let mut records = Vec::with_capacity(batch.len());
        let mut waiting = Vec::new();
        for work in batch.drain(..) {
            match work {
                Work::Record(record) => records.push(record),
                Work::Flush(done) => waiting.push(done),
            }
        }
        for record in &records {
            self.metrics.used(record);
        }
        if let Some(writer) = self.writer.as_mut().filter(|_| !records.is_empty())
            && let Err(error) = self.runtime.block_on(writer.write(&records))
        {
            self.metrics.lost_usage(records.len() as u64);
            if self.lost.is_none_or(|told| told.elapsed() >= LOST_INTERVAL) {
                self.lost = Some(Instant::now());
                let rows = records.len();
                tracing::error!(%error, rows, "{rows} rows of usage are lost: {error}");
            }
        }
        for done in waiting {
            // Whoever asked may have gone.
            done.send(()).unwrap_or_default();
        }
        self.delete_old();
    }

    fn dropped(&mut self, count: u64) {
        self.metrics.lost_usage(count);
        tracing::warn!(rows = count, "{count} rows of usage were left out: too many at once");
    }
}

impl Keeping {
    /// Deletes a few old rows now and then; soon again while there are more.
    fn delete_old(&mut self) {
        let Some(writer) = &mut self.writer else { return };
        if self.deleted.is_some_and(|at| at.elapsed() < RETENTION_INTERVAL) {
            return;
        }
        let days = TimeDelta::days(self.retention_days.load(Ordering::Relaxed).into());
        match self.runtime.block_on(writer.delete_before(Utc::now() - days)) {
            Ok(more) => self.deleted = (!more).then(Instant::now),
            Err(error) => {
                self.deleted = Some(Instant::now());
                tracing::error!(%error, "Old rows of usage can't be deleted: {error}");
            }
        }
    }
}
