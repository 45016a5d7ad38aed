//! The loop that makes what is stored about tasks happen: leases and deadlines, assignment,
//! questions, delivery. It takes no input and may run at any time, any number of times.

use std::{collections::HashMap, time::Duration};

use evo_common::{clock::Timestamp, messages::events as wire, runtime::Shutdown};
use tokio::time::Instant;

use super::{
    Error, Result, Tasks,
    state::{Command, TaskState},
};
use crate::store::{
    self, Connection,
    tasks::{self, Task},
};

/// An invitation that was not confirmed is sent again after this long.
const RESEND: Duration = Duration::from_secs(3);
/// The loop looks around at least this often.
const IDLE: Duration = Duration::from_secs(1);
/// Pause after a failure of the database.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// When each invitation and question was last sent.
type Sent = HashMap<String, Instant>;

impl Tasks {
    /// Runs until shutdown.
    pub async fn reconcile(&self, shutdown: Shutdown) -> Result<()> {
        let mut sent = Sent::new();
        loop {
            let stepped = match self.step(&mut sent).await {
                Err(error) => self.mend(error).await.map(|()| Duration::ZERO),
                Ok(()) => Ok(IDLE),
            };
            let pause = match stepped {
                Ok(pause) => pause,
                Err(Error::Store(store::Error::Closed)) => return Ok(()),
                // What is stored is still to be done; a database that is away comes back.
                Err(error) => {
                    let cause = std::error::Error::source(&error).map(ToString::to_string);
                    tracing::error!(%error, cause, "Tasks stand still for now: {error}");
                    AFTER_FAILURE
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                () = self.parts.wake.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn step(&self, sent: &mut Sent) -> Result<()> {
        self.tick().await?;
        self.assign().await?;
        self.ask().await?;
        self.deliver(sent).await?;
        self.store_output().await
    }

    /// Leases, deadlines and questions whose time has passed.
    async fn tick(&self) -> Result<()> {
        let load = async |connection: &Connection| tasks::due(connection, Timestamp::now()).await;
        if self.parts.store.read(load).await?.is_empty() {
            return Ok(());
        }
        let this = self.clone();
        let out = self
            .parts
            .store
            .write(async move |connection: &Connection| {
                let now = Timestamp::now();
                let mut out = Vec::new();
                for task_id in tasks::due(connection, now).await? {
                    let Some(task) = tasks::load(connection, &task_id).await? else { continue };
                    this.command(connection, now, task, &Command::Tick { now }, &mut out).await?;
                    let Some(task) = tasks::load(connection, &task_id).await? else { continue };
                    if task.question.as_ref().is_some_and(|question| question.deadline <= now) {
                        tracing::warn!(task.id = %task_id, "A question about task {task_id} was not answered in time; king answers it");
                        this.unanswered(connection, now, task, &mut out).await?;
                    }
                }
                Ok::<_, Error>(out)
            })
            .await?;
        self.send(out);
        Ok(())
    }

    /// Sends invitations that were not confirmed, and questions.
    async fn deliver(&self, sent: &mut Sent) -> Result<()> {
        let (leased, asked) = self
            .parts
            .store
            .read(async |connection: &Connection| {
                Ok((tasks::leased(connection).await?, tasks::asked(connection).await?))
            })
            .await?;
        let mut wanted = Vec::new();
        for task in leased {
            let Some(TaskState::Leased { agent, attempt, accepted: false, .. }) = &task.state
            else {
                continue;
            };
            let key = format!("{}:{attempt}", task.task_id);
            wanted.push(key.clone());
            self.begin_output(&task.task_id, *attempt, agent);
            if sent.get(&key).is_some_and(|at| at.elapsed() < RESEND) {
                continue;
            }
            if self.invite(task).await? {
                sent.insert(key, Instant::now());
            }
        }
        for task in asked {
            let Some(question) = task.question.clone() else { continue };
            let Some(agent) = question.agent else { continue };
            let key = format!("{}:{agent}", question.request_id);
            if !self.parts.registry.is_connected(&agent) {
                // On its next connection it is asked again.
                self.ask_another(&task.task_id, &agent, question.kind).await?;
                continue;
            }
            wanted.push(key.clone());
            if !sent.contains_key(&key) && self.put(&agent, task).await? {
                sent.insert(key, Instant::now());
            }
        }
        sent.retain(|key, _| wanted.contains(key));
        Ok(())
    }

    /// Whether the invitation went out.
    async fn invite(&self, task: Task) -> Result<bool> {
        let this = self.clone();
        let dispatch = self
            .parts
            .store
            .read(async move |connection: &Connection| this.dispatch_of(connection, task).await)
            .await?;
        let Some((agent, dispatch)) = dispatch else { return Ok(false) };
        let payload = serde_json::to_value(&dispatch).expect("an invitation is plain data");
        Ok(self.parts.registry.send(&agent, wire::TASK_INVITE, &payload))
    }

    /// Whether the question went out.
    async fn put(&self, agent: &str, task: Task) -> Result<bool> {
        let this = self.clone();
        let question = self
            .parts
            .store
            .read(async move |connection: &Connection| this.question_of(connection, &task).await)
            .await?;
        let Some((event, payload)) = question else { return Ok(false) };
        Ok(self.parts.registry.send(agent, event, &payload))
    }
}
