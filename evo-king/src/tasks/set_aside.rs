//! Tasks that can't be read: they fail, so that nothing else stands still because of them.

use evo_common::{clock::Timestamp, ids::Attempt, messages::TaskCancel, messages::events as wire};

use super::{
    Error, Outgoing, Result, Tasks,
    lifecycle::{Note, apply, note},
    state::{Decision, Effect, End, Evaluation, TaskState},
};
use crate::store::{self, Connection, Unreadable, damaged, tasks};

impl Error {
    /// The row that can't be read, if that is what is wrong.
    pub(super) fn unreadable(&self) -> Option<&Unreadable> {
        match self {
            Self::Store(error) | Self::Pipeline(crate::pipeline::Error::Store(error)) => {
                error.unreadable()
            }
            _ => None,
        }
    }
}

impl Tasks {
    /// After a failure: a row that can't be read and is in the way is set aside, so that it can be
    /// tried again. Every other failure is given back.
    pub(super) async fn mend(&self, error: Error) -> Result<()> {
        let Some(bad) = error.unreadable().cloned() else { return Err(error) };
        if self.set_aside(&bad).await? { Ok(()) } else { Err(error) }
    }

    /// The same after a failure of the database alone.
    pub(crate) async fn mend_row(&self, error: store::Error) -> store::Result<()> {
        match self.mend(Error::Store(error)).await {
            Ok(()) => Ok(()),
            Err(Error::Store(error) | Error::Pipeline(crate::pipeline::Error::Store(error))) => {
                Err(error)
            }
            Err(other) => Err(store::Error::Corrupt(other.to_string())),
        }
    }

    /// Sets a row aside that can't be read. Says whether that changed anything.
    async fn set_aside(&self, bad: &Unreadable) -> Result<bool> {
        tracing::error!(table = bad.table, row = %bad.id, "{bad}; it is set aside");
        if bad.table == damaged::RUNS.name {
            return Ok(self.parts.pipeline.set_aside(bad).await?);
        }
        if bad.table != damaged::TASKS.name {
            return Ok(false);
        }
        let (this, bad) = (self.clone(), bad.clone());
        let (changed, out) = self
            .parts
            .store
            .write(async move |connection: &Connection| {
                let mut out = Vec::new();
                let changed = this.set_task_aside(connection, &bad, &mut out).await?;
                Ok::<_, Error>((changed, out))
            })
            .await?;
        self.send(out);
        Ok(changed)
    }

    async fn set_task_aside(
        &self,
        connection: &Connection,
        bad: &Unreadable,
        out: &mut Vec<Outgoing>,
    ) -> Result<bool> {
        let now = Timestamp::now();
        let damages = damaged::TASKS.repair(connection, &bad.id).await?;
        let Some(mut task) = tasks::load(connection, &bad.id).await? else { return Ok(false) };
        let reason = if damages.is_empty() { bad.reason.clone() } else { damaged::told(&damages) };
        let error = format!("{}: {reason}", Unreadable::CODE);
        let lost_state = damages.iter().any(|damage| damage.column == damaged::STATE);
        let goes_on = match &task.state {
            Some(state) => state.end().is_some(),
            // How a run's task is, is read from the run.
            None => !lost_state,
        };
        if goes_on && damages.is_empty() {
            return Ok(false);
        }
        let detail = damaged::remains(&damages);
        let message = format!("{error}; it was set aside");
        let line = Note { kind: "task.set_aside", level: "error", message, detail: &detail };
        note(connection, now, &task, line).await?;
        if goes_on {
            tasks::save(connection, now, &task).await?;
            return Ok(true);
        }
        if let Some((agent, attempt)) = task.state.as_ref().and_then(TaskState::lease) {
            let cancel = TaskCancel {
                task_id: task.task_id.clone(),
                attempt,
                reason: "what king has stored of the task can't be read".to_owned(),
            };
            let payload = serde_json::to_value(&cancel).expect("a cancellation is plain data");
            out.push(Outgoing { agent: agent.to_owned(), event: wire::TASK_CANCEL, payload });
        }
        // Above every earlier one, so that a late report of one is known as such.
        let next = Attempt(damaged::tries_of_task(connection, &bad.id).await? + 1);
        let end = End::Failed;
        let decision = Decision {
            next: TaskState::Ended { end, evaluation: Evaluation::None, next },
            effects: vec![Effect::Ended { end, error: Some(error) }],
        };
        apply(connection, now, &self.parts.policy, &mut task, decision, out).await?;
        Ok(true)
    }
}
