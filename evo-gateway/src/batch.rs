//! Work that requests leave behind for a thread of its own, which does it in batches.

use std::{
    io, mem,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use tracing::{Dispatch, dispatcher};

/// Room that is kept between batches.
const KEPT: usize = 1_024;
/// After so many pauses without work the thread sleeps until there is some.
const IDLE_PAUSES: u32 = 40;

/// What the thread does.
pub(crate) trait Sink<T>: Send + 'static {
    /// Does what is left behind, in its order, and empties the batch.
    fn take(&mut self, batch: &mut Vec<T>);
    /// So much was left out since the last time, because too much waited.
    fn dropped(&mut self, count: u64);
}

/// Where work goes. Cheap to clone.
#[derive(Debug)]
pub(crate) struct Queue<T>(Arc<Shared<T>>);

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

#[derive(Debug)]
struct Shared<T> {
    waiting: Mutex<Vec<T>>,
    most: usize,
    pause: Duration,
    dropped: AtomicU64,
    /// The thread waits to be woken.
    asleep: AtomicBool,
    ended: AtomicBool,
    thread: thread::Thread,
}

/// The thread; ends and does what is left when it is dropped.
#[derive(Debug)]
pub(crate) struct Worker<T> {
    queue: Queue<T>,
    thread: Option<JoinHandle<()>>,
}

/// Starts a thread. Batches come at most every `pause`; more than `most` waiting pieces are left out.
/// It logs to the subscriber of the caller.
pub(crate) fn start<T: Send + 'static>(
    name: &str,
    pause: Duration,
    most: usize,
    mut sink: impl Sink<T>,
) -> io::Result<Worker<T>> {
    let (sender, receiver) = mpsc::sync_channel::<Queue<T>>(1);
    let dispatch = dispatcher::get_default(Dispatch::clone);
    let work = move || {
        if let Ok(queue) = receiver.recv() {
            dispatcher::with_default(&dispatch, || queue.0.work_until_the_end(&mut sink));
        }
    };
    let thread = thread::Builder::new().name(name.to_owned()).spawn(work)?;
    let queue = Queue(Arc::new(Shared {
        waiting: Mutex::new(Vec::new()),
        most,
        pause,
        dropped: AtomicU64::new(0),
        asleep: AtomicBool::new(false),
        ended: AtomicBool::new(false),
        thread: thread.thread().clone(),
    }));
    sender.send(queue.clone()).map_err(io::Error::other)?;
    Ok(Worker { queue, thread: Some(thread) })
}

impl<T> Worker<T> {
    /// Where its work goes.
    pub(crate) fn queue(&self) -> Queue<T> {
        self.queue.clone()
    }
}

impl<T> Drop for Worker<T> {
    fn drop(&mut self) {
        self.queue.0.ended.store(true, Ordering::SeqCst);
        self.queue.0.thread.unpark();
        if let Some(thread) = self.thread.take() {
            let name = thread.thread().name().unwrap_or_default().to_owned();
            if thread.join().is_err() {
                tracing::error!("The gateway's thread {name} panicked");
            }
        }
    }
}

impl<T> Queue<T> {
    /// Leaves work behind, to be done within the pause.
    pub(crate) fn push(&self, work: T) {
        let shared = &*self.0;
        {
            let mut waiting = shared.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            if waiting.len() >= shared.most {
                shared.dropped.fetch_add(1, Ordering::Relaxed);
                return;
            }
            waiting.push(work);
        }
        if shared.asleep.swap(false, Ordering::SeqCst) {
            shared.thread.unpark();
        }
    }

    /// Leaves work behind, to be done at once together with all that was left before it.
    pub(crate) fn push_now(&self, work: T) {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(work);
        self.0.thread.unpark();
    }
}

impl<T> Shared<T> {
    fn work_until_the_end(&self, sink: &mut impl Sink<T>) {
        let (mut batch, mut idle) = (Vec::new(), 0);
        loop {
            // Read before the work: none comes after the end.
            let ended = self.ended.load(Ordering::SeqCst);
            mem::swap(
                &mut batch,
                &mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner),
            );
            idle = if batch.is_empty() { idle + 1 } else { 0 };
            sink.take(&mut batch);
            batch.clear();
            // A burst's memory is not kept.
            batch.shrink_to(KEPT);
            let dropped = self.dropped.swap(0, Ordering::Relaxed);
            if dropped > 0 {
                sink.dropped(dropped);
            }
            if ended {
                return;
            }
            if idle < IDLE_PAUSES {
                thread::park_timeout(self.pause);
                continue;
            }
            self.asleep.store(true, Ordering::SeqCst);
            // What came before the flag woke nobody.
            if self.waiting.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
                && !self.ended.load(Ordering::SeqCst)
            {
                thread::park();
            }
            self.asleep.store(false, Ordering::SeqCst);
            idle = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Collect(mpsc::Sender<(Vec<u32>, u64)>);

    impl Sink<u32> for Collect {
        fn take(&mut self, batch: &mut Vec<u32>) {
            if !batch.is_empty() {
                self.0.send((mem::take(batch), 0)).unwrap();
            }
        }

        fn dropped(&mut self, count: u64) {
            self.0.send((Vec::new(), count)).unwrap();
        }
    }

    #[test]
    fn work_is_done_in_order_what_is_too_much_is_counted_and_nothing_is_left_at_the_end() {
        let (sender, receiver) = mpsc::channel();
        let long = Duration::from_secs(3_600);
        let worker = start("test", long, 3, Collect(sender)).unwrap();
        let queue = worker.queue();
        // It has looked once by the time that this comes back.
        queue.push_now(0);
        assert_eq!(receiver.recv().unwrap().0, [0]);
        for number in 1..=5 {
            queue.push(number);
        }
        queue.push_now(6);
        let (mut done, mut dropped) = (Vec::new(), 0);
        while done.last() != Some(&6) {
            let (batch, left_out) = receiver.recv().unwrap();
            done.extend(batch);
            dropped += left_out;
        }
        queue.push_now(7);
        drop(worker);
        for (batch, left_out) in receiver {
            done.extend(batch);
            dropped += left_out;
        }
        assert_eq!((done.last(), done.len() as u64 + dropped), (Some(&7), 7));
        assert!(done.is_sorted(), "{done:?}");
    }
}
