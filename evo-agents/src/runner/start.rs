//! Starts work, each on a task of its own.

use std::sync::Arc;

use evo_common::{clock::Timestamp, runtime::OnError};
use tokio::{sync::mpsc, time::Instant};

use super::{
    COMMANDS, Done, Runner,
    ask::Adviser,
    dispatch,
    session::Command,
    task::{self, Invited, Workshop},
    work::{Dispatch, Report},
};
use crate::{handler::Services, king::Ask, metrics, task::progress::Say};

impl Runner {
    pub(super) async fn invited(&mut self, payload: serde_json::Value, now: Timestamp) {
        match task::read(payload, &self.config.agent_id) {
            Invited::Work(dispatch) => {
                let dispatch = Dispatch::Task(dispatch);
                self.decide(Command::Dispatch { dispatch, now }).await;
            }
            Invited::Refused(report) => {
                let message = report.error.clone().unwrap_or_default();
                tracing::error!(error = %message, "King sent a task that can't be read: {message}");
                self.decide(Command::Refused { report: Report::Task(report), now }).await;
            }
            Invited::Other => tracing::debug!("There is a new task, for others"),
            Invited::Unknown(error) => {
                tracing::error!(%error, "King sent a task that can't be read: {error}");
            }
        }
    }

    /// Answers on a task of its own. King decides by itself when there is no answer.
    pub(super) fn asked(&self, ask: Ask) {
        let Ok(place) = Arc::clone(&self.command_places).try_acquire_owned() else {
            tracing::warn!("King asks more than {COMMANDS} things at once; one stays unanswered");
            return;
        };
        let adviser = Adviser {
            agent_id: self.config.agent_id.clone(),
            role: self.config.role.to_string(),
            behavior: self.behavior.clone(),
            handler: Arc::clone(&self.commander.handler),
            services: self.commander.services.clone(),
            say: self.progress(),
        };
        let done = self.done_sender.clone();
        self.work_tasks.spawn("ask", OnError::Log, async move {
            let answer = adviser.answer(ask).await;
            drop(place);
            let messages = answer.into_iter().collect();
            done.send(Done::Command { req_id: None, messages }).await?;
            Ok(())
        });
    }

    /// A way for work to tell how it goes, in order and before its result.
    fn progress(&self) -> Say {
        progress(&self.done_sender)
    }

    pub(super) fn start_work(&mut self, dispatch: Dispatch) {
        let key = dispatch.key();
        let cancel = self.work_tasks.token().child_token();
        self.jobs.insert(key.clone(), cancel.clone());
        let services = Services { cancel, ..self.commander.services.clone() };
        let handler = Arc::clone(&self.commander.handler);
        let (agent_id, done) = (self.config.agent_id.clone(), self.done_sender.clone());
        metrics::in_hand(&agent_id, self.jobs.len());
        let started = Instant::now();
        match dispatch {
            Dispatch::Stage(dispatch) => {
                self.work_tasks.spawn("stage", OnError::Log, async move {
                    let stage = dispatch.next.stage.as_str();
                    let report = dispatch::run(handler, services, dispatch, agent_id.clone()).await;
                    let status = report.as_ref().map(|report| report.result.status);
                    metrics::work_ended(&agent_id, stage, status, started.elapsed());
                    done.send(Done::Work { key, report: report.map(Report::Stage) }).await?;
                    Ok(())
                });
            }
            Dispatch::Task(dispatch) => {
                let shop = Workshop {
                    agent_id: agent_id.clone(),
                    handler,
                    services,
                    behavior: self.behavior.clone(),
                    local: Arc::clone(&self.commander.local),
                    servers: self.commander.servers.clone(),
                    say: self.progress(),
                };
                self.work_tasks.spawn("task", OnError::Log, async move {
                    let report = task::run(shop, dispatch).await;
                    metrics::work_ended(&agent_id, "task", None, started.elapsed());
                    done.send(Done::Work { key, report }).await?;
                    Ok(())
                });
            }
        }
    }
}

/// As [`Runner::progress`], before there is one.
pub(super) fn progress(done: &mpsc::Sender<Done>) -> Say {
    let done = done.clone();
    Arc::new(move |message| {
        let done = done.clone();
        // Fails when the runner has ended; then nobody listens.
        Box::pin(async move { done.send(Done::Progress(message)).await.unwrap_or_default() })
    })
}
