//! Runs and effects that can't be read: they fail or are dropped, so that nothing else stands still
//! because of them.

use evo_common::{
    clock::Timestamp,
    ids::Attempt,
    messages::PipelineRunStatus,
    outcome::{Outcome, codes},
};

use super::{
    Coordinator, Error, Result,
    state::{AttemptEnd, Command, Effect, RunState, decide},
};
use crate::store::{Connection, Unreadable, damaged, runs, timers};

impl Coordinator {
    /// After a failure: a row that can't be read and is in the way is set aside, so that it can be
    /// tried again. Every other failure is given back.
    pub(super) async fn mend(&self, error: Error) -> Result<()> {
        let bad = match &error {
            Error::Store(error) => error.unreadable().cloned(),
            _ => None,
        };
        match bad {
            Some(bad) if self.set_aside(&bad).await? => Ok(()),
            _ => Err(error),
        }
    }

    /// Sets a row aside that can't be read. Says whether that changed anything.
    pub(crate) async fn set_aside(&self, bad: &Unreadable) -> Result<bool> {
        tracing::error!(table = bad.table, row = %bad.id, "{bad}; it is set aside");
        let (this, bad) = (self.clone(), bad.clone());
        self.parts
            .store
            .write(async move |connection: &Connection| {
                let now = Timestamp::now();
                if bad.table == damaged::RUNS.name {
                    this.set_run_aside(connection, now, &bad).await
                } else {
                    Ok(damaged::drop_effect(connection, now, &bad).await?)
                }
            })
            .await
    }

    /// The run fails, whatever it was at; its runner is told to stop, and its cycle goes on.
    async fn set_run_aside(
        &self,
        connection: &Connection,
        now: Timestamp,
        bad: &Unreadable,
    ) -> Result<bool> {
        // Before it is mended: the columns beside the state say who has it.
        let leased = damaged::leased_attempt(connection, &bad.id).await.unwrap_or_default();
        let damages = damaged::RUNS.repair(connection, &bad.id).await?;
        let outputs = damaged::repair_stages(connection, &bad.id).await?;
        let Some(run) = runs::load(connection, &bad.id).await? else { return Ok(false) };
        let reason = if damages.is_empty() { bad.reason.clone() } else { damaged::told(&damages) };
        let reason = format!("what is stored of the run can't be read: {reason}");
        let cancel = Command::Cancel { reason: reason.clone() };
        let Ok(mut decision) = decide(&run.state, &cancel, &self.parts.policy) else {
            // It has ended, and stays as it ended.
            timers::clear(connection, &bad.id).await?;
            return Ok(!damages.is_empty() || outputs > 0);
        };
        if let (Some((agent, stage, attempt)), None) = (leased, run.state.agent()) {
            let attempt = Attempt(attempt);
            self.parts.registry.released(&agent);
            let how = AttemptEnd::Cancelled;
            let told = Effect::CancelAttempt { agent, stage, attempt, reason: reason.clone() };
            decision.effects.insert(0, told);
            decision.effects.insert(0, Effect::CloseAttempt { stage, attempt, how });
        }
        decision.next = RunState::Ended {
            status: PipelineRunStatus::Failed,
            outcome: Some(Outcome::failed(codes::UNREADABLE, reason)),
        };
        self.apply(connection, now, &run, decision, None).await?;
        Ok(true)
    }
}
