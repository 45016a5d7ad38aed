//! Starts runs.

use evo_common::{
    api::{RunKind, StartRun, StartedRun},
    clock::Timestamp,
    config::sources::REQUESTS,
    ids::{RunId, sha256_hex},
    messages::PipelineStage,
};
use serde_json::json;

use super::{
    Coordinator, Error, Result,
    state::{Effect, RunState},
};
use crate::store::{Connection, events, runs};

/// Most and least that `priority` can be.
const PRIORITY: i32 = 100;
/// Longest idempotency key.
const MAX_KEY: usize = 200;

impl Coordinator {
    /// Starts a cycle or a direct run.
    pub async fn start(&self, request: StartRun) -> Result<StartedRun> {
        self.check(&request)?;
        let kind = request.kind;
        let this = self.clone();
        let started = self
            .parts
            .store
            .write(async move |connection: &Connection| this.insert(connection, &request).await)
            .await?;
        tracing::debug!(run.id = %started.run_id, ?kind, created = started.created, "Run {} is on its way", started.run_id);
        Ok(started)
    }

    async fn insert(&self, connection: &Connection, request: &StartRun) -> Result<StartedRun> {
        let now = Timestamp::now();
        let digest = request.idempotency_key.as_ref().map(|_| digest_of(request));
        let once = request.idempotency_key.as_deref().zip(digest.as_deref());
        let once = once.map(|(key, digest)| runs::Once { key, digest });
        if let Some(runs::Once { key, digest }) = once
            && let Some((run_id, earlier)) = runs::by_idempotency_key(connection, key).await?
        {
            // A database of an older version has no digest.
            if earlier.is_some_and(|earlier| earlier != digest) {
                return Err(Error::KeyReused { key: key.to_owned(), run_id });
            }
            return Ok(StartedRun { success: true, run_id, created: false });
        }
        let run_id = RunId::new();
        let waiting = RunState::start(PipelineStage::Learning, now);
        let state = match request.kind {
            RunKind::Direct => self.placed(connection, &waiting, now),
            RunKind::Cycle | RunKind::Candidate => None,
        };
        let new = runs::NewRun {
            run_id: run_id.as_str(),
            parent_run_id: None,
            kind: request.kind,
            candidate: None,
            source: None,
            trigger: &request.trigger,
            look: 1,
            version: "",
            artifact_id: "",
            evidence: None,
            state: state.as_ref().unwrap_or(&waiting),
            priority: request.priority,
            paused: false,
            forked_from: None,
            once,
            boots: self.parts.store.boots(),
            traced: request.kind != RunKind::Direct || self.parts.sampler.take(),
        };
        runs::insert(connection, now, new.clone()).await?;
        let kind = match request.kind {
            RunKind::Cycle => "cycle.started",
            RunKind::Candidate | RunKind::Direct => "run.started",
        };
        let payload = json!({"kind": request.kind, "trigger": request.trigger});
        events::append(connection, now, kind, Some(run_id.as_str()), None, &payload).await?;
        if let Some(state) = &state {
            let run = runs::Run::of(&new, waiting.clone());
            if let Some(agent) = state.agent() {
                self.parts.registry.leased(agent);
            }
            self.apply_effect(connection, now, &run, state, &Effect::Dispatch, None).await?;
        }
        Ok(StartedRun { success: true, run_id: run_id.into(), created: true })
    }

    /// Starts a run in the caller's transaction.
    pub(crate) async fn start_within(
        &self,
        connection: &Connection,
        request: &StartRun,
    ) -> Result<StartedRun> {
        self.check(request)?;
        self.insert(connection, request).await
    }

    fn check(&self, request: &StartRun) -> Result<()> {
        let invalid = |field, message: &str| Error::Invalid { field, message: message.to_owned() };
        if request.priority.abs() > PRIORITY {
            let message = format!("it is {}; it must be from -100 to 100", request.priority);
            return Err(invalid("priority", &message));
        }
        if request.idempotency_key.as_ref().is_some_and(|key| key.is_empty() || key.len() > MAX_KEY)
        {
            return Err(invalid("idempotency_key", "it must have 1 to 200 bytes"));
        }
        match request.kind {
            RunKind::Cycle => self.check_sources(request),
            RunKind::Direct => Ok(()),
            RunKind::Candidate => Err(invalid(
                "kind",
                "the runs of candidates are started by their cycle; use `cycle` or `direct`",
            )),
        }
    }

    fn check_sources(&self, request: &StartRun) -> Result<()> {
        let Some(wanted) = request.trigger.get("sources") else { return Ok(()) };
        let invalid = |message| Error::Invalid { field: "trigger.sources", message };
        let names = wanted
            .as_array()
            .and_then(|names| names.iter().map(|name| name.as_str()).collect::<Option<Vec<_>>>())
            .ok_or_else(|| invalid("it must be a list of source names".to_owned()))?;
        let is_known = |name: &str| name == REQUESTS || self.parts.sources.get(name).is_some();
        match names.iter().find(|name| !is_known(name)) {
            Some(unknown) => Err(invalid(format!(
                "there is no source {unknown:?}; the sources are: {}",
                self.parts.sources.names().join(", ")
            ))),
            None => Ok(()),
        }
    }
}

/// Digest of what a start asks for. Objects are maps in key order, so that the order in which a
/// caller writes its fields does not matter.
fn digest_of(request: &StartRun) -> String {
    let asked = json!([request.kind, request.priority, request.trigger]);
    sha256_hex(asked.to_string().as_bytes())
}
