//! The end of the gateway, as streams in hand learn of it.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Waker},
};

use evo_common::runtime::Shutdown;

/// Whether streams in hand have to end, because the gateway does and has waited as long as it may.
#[derive(Debug, Default)]
pub(crate) struct Ending {
    is_now: AtomicBool,
    wakes: Shutdown,
}

impl Ending {
    /// Tells all streams.
    pub(crate) fn begin(&self) {
        self.is_now.store(true, Ordering::Release);
        self.wakes.cancel();
    }
}

type Wait = Pin<Box<dyn Future<Output = ()> + Send>>;

/// How one stream learns of it. After the first time it costs no lock, as long as the same task asks.
pub(super) struct Ear {
    ending: Arc<Ending>,
    waits: Option<(Waker, Wait)>,
}

impl fmt::Debug for Ear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ear").finish_non_exhaustive()
    }
}

impl Ear {
    pub(super) fn new(ending: &Arc<Ending>) -> Self {
        Self { ending: ending.clone(), waits: None }
    }

    /// Whether it is the end; else the task is woken when it comes.
    pub(super) fn hears(&mut self, context: &mut Context<'_>) -> bool {
        if self.ending.is_now.load(Ordering::Acquire) {
            return true;
        }
        if self.waits.as_ref().is_some_and(|(waker, _)| waker.will_wake(context.waker())) {
            return false;
        }
        let mut wait: Wait = Box::pin(self.ending.wakes.clone().cancelled_owned());
        let is_now = wait.as_mut().poll(context).is_ready();
        self.waits = Some((context.waker().clone(), wait));
        is_now
    }
}
