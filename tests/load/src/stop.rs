//! Ctrl-C: every loop sees it, so that the processes started here are ended in order.

use std::{
    fmt, io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use tokio::signal::unix::{SignalKind, signal};

/// Whether to stop. Clones share one answer.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// One that becomes true at SIGINT, SIGTERM or SIGHUP.
    pub fn on_signals() -> io::Result<Self> {
        let stop = Self::default();
        let flag = stop.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        let mut signals = {
            // Registered before this returns: a signal that comes right after is not lost.
            let _inside = runtime.enter();
            kinds.into_iter().map(signal).collect::<io::Result<Vec<_>>>()?
        };
        // Lives as long as the process does; it holds nothing that has to be given back.
        thread::Builder::new().name("signals".to_owned()).spawn(move || {
            runtime.block_on(std::future::poll_fn(|context| {
                if signals.iter_mut().any(|signal| signal.poll_recv(context).is_ready()) {
                    std::task::Poll::Ready(())
                } else {
                    std::task::Poll::Pending
                }
            }));
            flag.0.store(true, Ordering::Relaxed);
        })?;
        Ok(stop)
    }

    /// Whether a signal came.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// An error once a signal came.
    pub fn check(&self) -> Result<(), Interrupted> {
        if self.is_set() { Err(Interrupted) } else { Ok(()) }
    }
}

/// The run was ended by a signal.
#[derive(Debug, Clone, Copy)]
pub struct Interrupted;

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("interrupted; every process that it started has ended")
    }
}

impl std::error::Error for Interrupted {}
