//! Skills that somebody brings: a cycle whose candidates are there already, so that no runner has to
//! look for them. They go the way of all candidates; nothing of it puts a version into use.

use evo_common::{
    api::RunKind,
    clock::Timestamp,
    ids::RunId,
    stage::{Candidate, LearningOutput},
};
use serde_json::{Value, json};

use super::{
    Coordinator, Result, fan_out,
    state::{Command, RunState, decide},
};
use crate::store::{self, Connection, events, runs};

/// A cycle of skills that were brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Import {
    /// The cycle.
    pub(crate) run_id: String,
    /// How many of the candidates have a way to go.
    pub(crate) open: u32,
}

impl Coordinator {
    /// Starts a cycle of these candidates.
    pub(crate) async fn import(
        &self,
        trigger: Value,
        candidates: Vec<Candidate>,
    ) -> Result<Import> {
        let output = LearningOutput {
            candidates,
            failed_sources: Vec::new(),
            unanswered: Vec::new(),
            duplicates: Vec::new(),
            usage: None,
        };
        fan_out::check(&output)
            .map_err(|message| super::Error::Invalid { field: "SKILL.md", message })?;
        let this = self.clone();
        let write = async move |connection: &Connection| {
            this.insert_import(connection, &trigger, &output).await
        };
        Ok(self.parts.store.write(write).await?)
    }

    async fn insert_import(
        &self,
        connection: &Connection,
        trigger: &Value,
        output: &LearningOutput,
    ) -> store::Result<Import> {
        let now = Timestamp::now();
        let all = u32::try_from(output.candidates.len()).unwrap_or(u32::MAX);
        let run_id = RunId::new();
        let new = runs::NewRun {
            run_id: run_id.as_str(),
            parent_run_id: None,
            kind: RunKind::Cycle,
            candidate: None,
            source: None,
            trigger,
            look: 1,
            version: "",
            artifact_id: "",
            evidence: None,
            state: &RunState::FannedOut { open: all },
            priority: 0,
            paused: false,
            forked_from: None,
            once: None,
            boots: self.parts.store.boots(),
            traced: true,
        };
        runs::insert(connection, now, new).await?;
        let payload = json!({"kind": RunKind::Cycle, "trigger": trigger});
        events::append(connection, now, "cycle.started", Some(run_id.as_str()), None, &payload)
            .await?;
        let load = async || runs::load(connection, run_id.as_str()).await;
        let mut open = all;
        if let Some(cycle) = load().await? {
            open = self.fan_out(connection, now, &cycle, output).await?;
        }
        // Those that ended at once, as every other child that ends.
        for _ in open..all {
            let Some(cycle) = load().await? else { break };
            if let Ok(decision) = decide(&cycle.state, &Command::ChildEnded, &self.parts.policy) {
                self.apply(connection, now, &cycle, decision, None).await?;
            }
        }
        Ok(Import { run_id: run_id.into(), open })
    }
}
