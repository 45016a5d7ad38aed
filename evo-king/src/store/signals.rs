//! What commits leave to be done by the pipeline's loop, so that it need not look after each of
//! them.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use evo_common::{clock::Timestamp, messages::PipelineStage};
use tokio::sync::Notify;

/// What is done once a job is committed.
pub(super) type Later = Box<dyn FnOnce() + Send>;

/// What the jobs of one transaction leave behind.
#[derive(Default)]
pub(super) struct Left {
    pub(super) later: Vec<Later>,
    work: Work,
}

/// What there may be to do.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Work {
    /// By the order of the stages: whether a run waits for a runner.
    waiting: [bool; PipelineStage::ALL.len()],
    /// Whether an effect is to be delivered.
    pub(crate) outbox: bool,
    /// The earliest timer that was set.
    pub(crate) timer: Option<Timestamp>,
}

impl Work {
    /// Whether a run may wait for a runner of this stage.
    pub(crate) fn waits(&self, stage: PipelineStage) -> bool {
        self.waiting[stage as usize]
    }

    /// The stages of which a run may wait.
    pub(crate) fn stages(self) -> impl Iterator<Item = PipelineStage> {
        PipelineStage::ALL.into_iter().filter(move |stage| self.waits(*stage))
    }

    pub(super) fn add_waiting(&mut self, stage: PipelineStage) {
        self.waiting[stage as usize] = true;
    }

    pub(super) fn add_timer(&mut self, due: Timestamp) {
        self.timer = Some(self.timer.map_or(due, |earliest| earliest.min(due)));
    }

    fn add(&mut self, other: Self) {
        for stage in other.stages() {
            self.add_waiting(stage);
        }
        self.outbox |= other.outbox;
        if let Some(due) = other.timer {
            self.add_timer(due);
        }
    }
}

impl Left {
    pub(super) fn work(&mut self) -> &mut Work {
        &mut self.work
    }
}

/// What committed jobs have left, until it is taken.
#[derive(Default)]
pub(crate) struct Signals {
    work: Mutex<Work>,
    notify: Notify,
    /// Whether there was something since the last [`Signals::take`].
    any: AtomicBool,
}

impl Signals {
    fn lock(&self) -> MutexGuard<'_, Work> {
        // A panic while holding the lock can't leave it half-written.
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A transaction was committed.
    pub(super) fn committed(&self, left: &mut Left) {
        let work = std::mem::take(&mut left.work);
        if work != Work::default() {
            self.give(work);
        }
    }

    /// There is something to do.
    pub(crate) fn give(&self, work: Work) {
        self.lock().add(work);
        self.any.store(true, Ordering::Release);
        self.notify.notify_one();
    }

    /// A run still waits for a runner of this stage; whoever frees a place says so.
    pub(crate) fn still_waits(&self, stage: PipelineStage) {
        self.lock().add_waiting(stage);
    }

    /// Whether a run may wait for a runner of this stage.
    pub(crate) fn waits(&self, stage: PipelineStage) -> bool {
        self.lock().waits(stage)
    }

    /// Takes what there is to do.
    pub(crate) fn take(&self) -> Work {
        self.any.store(false, Ordering::Release);
        std::mem::take(&mut *self.lock())
    }

    /// Waits until there is something to do.
    pub(crate) async fn come(&self) {
        while !self.any.load(Ordering::Acquire) {
            self.notify.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_adds_up_until_it_is_taken() {
        let signals = Signals::default();
        let mut left = Left::default();
        left.work().add_waiting(PipelineStage::Evaluation);
        left.work().add_timer(Timestamp(7));
        left.work().add_timer(Timestamp(9));
        assert!(!signals.waits(PipelineStage::Evaluation), "nothing is committed yet");
        signals.committed(&mut left);
        signals.give(Work { outbox: true, timer: Some(Timestamp(5)), ..Work::default() });
        assert!(signals.waits(PipelineStage::Evaluation));
        let work = signals.take();
        assert_eq!(work.stages().collect::<Vec<_>>(), [PipelineStage::Evaluation]);
        assert_eq!((work.outbox, work.timer), (true, Some(Timestamp(5))));
        assert_eq!(signals.take(), Work::default());
    }
}
