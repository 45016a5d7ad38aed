//! Tasks: what people and agents want done, and what came of it.
//!
//! Every command is one transaction of the store: load the task, [`state::decide`], write its new
//! state with its log line and event-log row. What leaves king (an invitation, a cancellation, a
//! question) follows from what is stored and is sent by [`reconcile`], at least once; receivers
//! take repeats. A run's task has no state: how it is, is read from the run.

mod change;
mod create;
mod lifecycle;
mod output;
mod questions;
mod reconcile;
mod set_aside;
mod split;
pub mod state;
mod summary;
#[cfg(test)]
mod tests;
mod work;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use evo_common::{
    api::{TaskResult, TaskView},
    messages::TaskLimits,
};
use serde_json::Value;
use tokio::{sync::Notify, time::Instant};

use crate::{
    config::Config,
    pipeline::Coordinator,
    registry::Registry,
    store::{self, Store},
};
pub(crate) use change::Who;
pub(crate) use create::{NewTask, create_subtasks_of_run};
pub(crate) use output::NOTED;
use state::{Policy, Rejection};

/// Most bytes of a task's payload and of its result, as JSON.
const MAX_PAYLOAD: usize = 256 * 1024;
/// Most subtasks that one split gives.
const MAX_PARTS: usize = 20;

/// Why a task was not made or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such task.
    #[error("there is no task {0:?}; GET /tasks lists them")]
    Unknown(String),
    /// A part of the request is not what it should be.
    #[error("field `{field}`: {message}")]
    Invalid {
        /// Which.
        field: &'static str,
        /// What is wrong and what to do.
        message: String,
    },
    /// The command does not fit the task's state.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// How a run's task is follows from the run.
    #[error(
        "task {task_id} is that of run {run_id} and is as the run is; only `cancelled` ends it by hand"
    )]
    OfRun {
        /// The task.
        task_id: String,
        /// Its run.
        run_id: String,
    },
    /// An agent spoke of a task that it does not have.
    #[error("task {task_id} is not with {agent}")]
    NotYours {
        /// The task.
        task_id: String,
        /// Who spoke.
        agent: String,
    },
    /// Nobody was asked, somebody else was, or it is too late.
    #[error("{0}")]
    NotAsked(String),
    /// The idempotency key was used for another task.
    #[error("the idempotency key {key:?} made task {task_id} with another request; take a new key")]
    KeyReused {
        /// The key.
        key: String,
        /// The task that it made.
        task_id: String,
    },
    /// The run of a task could not be cancelled.
    #[error(transparent)]
    Pipeline(#[from] crate::pipeline::Error),
    /// The database failed.
    #[error("the tasks' database failed")]
    Store(#[from] store::Error),
}

type Result<T> = std::result::Result<T, Error>;

/// Drives tasks. Cheap to clone.
#[derive(Clone)]
pub struct Tasks {
    parts: Arc<Parts>,
}

struct Parts {
    store: Store,
    registry: Registry,
    pipeline: Coordinator,
    config: Arc<Config>,
    policy: Policy,
    /// What tasks write while they are at work.
    streams: output::Streams,
    /// Tasks whose rooms somebody is in, with how many are.
    followed: Mutex<HashMap<String, usize>>,
    /// Something may have to be given out, asked or sent.
    wake: Notify,
}

/// Something to be sent once what was decided is committed.
struct Outgoing {
    agent: String,
    event: &'static str,
    payload: Value,
}

impl Tasks {
    /// A coordinator over these parts.
    pub fn new(
        store: Store,
        registry: Registry,
        pipeline: Coordinator,
        config: Arc<Config>,
    ) -> Self {
        let (policy, streams) = (Policy::default(), output::Streams::default());
        let (followed, wake) = (Mutex::default(), Notify::new());
        let parts = Parts { store, registry, pipeline, config, policy, streams, followed, wake };
        Self { parts: Arc::new(parts) }
    }

    /// What a task may use up when nobody says.
    fn limits(&self) -> TaskLimits {
        self.parts.config.tasks.limits
    }

    /// Something changed outside the database: an agent came, or has capacity again.
    pub fn wake(&self) {
        self.parts.wake.notify_one();
    }

    fn followed(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        // A panic while holding the lock can't leave a map half-written.
        self.parts.followed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody joined a task's room.
    pub(crate) fn follow(&self, task_id: &str) {
        *self.followed().entry(task_id.to_owned()).or_default() += 1;
    }

    /// Somebody left a task's room.
    pub(crate) fn unfollow(&self, task_id: &str) {
        let mut followed = self.followed();
        if let Some(count) = followed.get_mut(task_id) {
            *count -= 1;
            if *count == 0 {
                followed.remove(task_id);
            }
        }
    }

    /// Whether somebody is in a task's room.
    pub(crate) fn is_followed(&self, task_id: &str) -> bool {
        self.followed().contains_key(task_id)
    }

    /// Whether somebody is in any task's room.
    pub(crate) fn is_any_followed(&self) -> bool {
        !self.followed().is_empty()
    }

    fn send(&self, outgoing: Vec<Outgoing>) {
        for Outgoing { agent, event, payload } in outgoing {
            // Whoever is gone is told by its next heartbeat's answer, or has lost the attempt.
            self.parts.registry.send(&agent, event, &payload);
        }
        self.parts.wake.notify_one();
    }

    /// A task's result; waits for it until the given moment.
    pub async fn result(&self, task_id: &str, until: Instant) -> Result<TaskResult> {
        let mut committed = self.parts.store.committed();
        loop {
            committed.mark_unchanged();
            let task = self
                .parts
                .store
                .tasks_get(task_id)
                .await?
                .ok_or_else(|| Error::Unknown(task_id.to_owned()))?;
            if task.status.has_ended() || Instant::now() >= until {
                return Ok(result_of(task));
            }
            let pause = output::PAUSE;
            tokio::select! {
                () = tokio::time::sleep_until(until) => {}
                changed = committed.changed() => {
                    if changed.is_err() {
                        return Err(store::Error::Closed.into());
                    }
                    // Much may happen that is not about this task.
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }
}

fn result_of(task: TaskView) -> TaskResult {
    TaskResult {
        ended: task.status.has_ended(),
        task_id: task.id,
        status: task.status,
        result: task.result,
        error: task.error,
        evaluation: task.evaluation,
        work: task.work,
    }
}

/// A new id, later than every earlier one.
fn new_id() -> String {
    format!("task-{}", uuid::Uuid::now_v7().simple())
}

/// The first `most` bytes of a text, at the end of a character.
fn cut(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}
