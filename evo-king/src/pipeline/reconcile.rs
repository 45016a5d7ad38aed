//! The one loop that makes what is stored happen: timers, assignment of waiting runs to runners,
//! delivery of committed effects. It takes no input and may run at any time, any number of times.

use std::{collections::HashMap, time::Duration};

use evo_common::{
    clock::Timestamp,
    messages::{PipelineStage, TraceContext, events as wire},
    runtime::Shutdown,
    tracing_context,
};
use serde_json::Value;
use tokio::time::Instant;

use super::{
    Coordinator, Error,
    state::{Command, RunState},
};
use crate::{
    registry::placement,
    store::{self, Connection, agents, outbox, runs, timers},
};

/// A dispatch that was not confirmed is sent again after this long.
const RESEND: Duration = Duration::from_secs(3);
/// A question that was not answered is asked again after this long.
const RESEND_QUESTION: Duration = Duration::from_secs(10);
/// The loop looks around at least this often.
const IDLE: Duration = Duration::from_secs(2);

/// Pause after a failure of the database.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// When each undelivered dispatch was last sent.
type Sent = HashMap<i64, Instant>;

/// Loads a run; one that can't be read is left alone, so that it does not stop the others.
async fn load_readable(
    connection: &Connection,
    run_id: &str,
) -> Result<Option<runs::Run>, store::Error> {
    match runs::load(connection, run_id).await {
        Err(store::Error::Corrupt(reason)) => {
            tracing::error!(run.id = %run_id, "Run {run_id} can't be read and stands still: {reason}");
            timers::clear(connection, run_id).await?;
            Ok(None)
        }
        other => other,
    }
}

impl Coordinator {
    /// After a start: nobody is connected, and whoever had an attempt gets time to come back.
    pub async fn recover(&self) -> Result<(), Error> {
        let this = self.clone();
        let grace = self.parts.config.grace_ms;
        self.parts
            .store
            .write(async move |connection: &Connection| {
                let now = Timestamp::now();
                agents::all_offline(connection, now).await?;
                for run in runs::leased(connection).await? {
                    let RunState::Leased { stage, attempt, agent, .. } = &run.state else {
                        continue;
                    };
                    let command = Command::Extend {
                        agent: agent.clone(),
                        stage: *stage,
                        attempt: *attempt,
                        lease_until: now.plus_ms(grace),
                    };
                    this.command(connection, &run, &command).await?;
                }
                Ok::<_, Error>(())
            })
            .await
    }

    /// Runs until shutdown. While draining nothing new is dispatched.
    pub async fn reconcile(&self, shutdown: Shutdown) -> Result<(), Error> {
        let mut sent = Sent::new();
        let mut committed = self.parts.store.committed();
        loop {
            committed.mark_unchanged();
            let next = match self.step(&mut sent).await {
                Ok(next) => next,
                Err(Error::Store(store::Error::Closed)) => return Ok(()),
                // What is stored is still to be done; a database that is away comes back.
                Err(error) => {
                    let cause = std::error::Error::source(&error).map(ToString::to_string);
                    tracing::error!(%error, cause, "The pipeline stands still for now: {error}");
                    AFTER_FAILURE
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                () = self.parts.wake.notified() => {}
                changed = committed.changed() => if changed.is_err() { return Ok(()) },
                () = tokio::time::sleep(next) => {}
            }
        }
    }

    /// Something changed outside the database: a runner came or has capacity again.
    pub fn wake(&self) {
        self.parts.wake.notify_one();
    }

    async fn step(&self, sent: &mut Sent) -> Result<Duration, Error> {
        let now = Timestamp::now();
        let (due, next) = self.parts.store.timers_next(now).await?;
        if due {
            self.tick(now).await?;
        }
        self.assign(now).await?;
        self.deliver(sent).await?;
        let wait = next.map_or(IDLE, |next| Duration::from_millis(next.ms_since(now) + 1));
        Ok(wait.min(IDLE))
    }

    async fn tick(&self, now: Timestamp) -> Result<(), Error> {
        let this = self.clone();
        let boot = self.parts.store.boots();
        self.parts
            .store
            .write(async move |connection: &Connection| {
                for (run_id, kind) in timers::due(connection, now).await? {
                    let Some(run) = load_readable(connection, &run_id).await? else { continue };
                    if kind == timers::LOOK {
                        this.look_again(connection, now, &run).await?;
                        continue;
                    }
                    match this.command(connection, &run, &Command::Tick { now, boot }).await {
                        Ok(()) => {
                            tracing::warn!(run.id = %run_id, timer = %kind, "The {kind} of run {run_id} has passed");
                        }
                        // Nothing is due any more: the timer is a leftover.
                        Err(Error::Rejected(_)) => timers::clear(connection, &run_id).await?,
                        Err(error) => return Err(error),
                    }
                }
                Ok::<_, Error>(())
            })
            .await
    }

    /// Gives waiting runs to runners with free capacity.
    async fn assign(&self, now: Timestamp) -> Result<(), Error> {
        let ready = self.parts.registry.ready();
        if ready.is_empty() {
            return Ok(());
        }
        let waiting = {
            let stages: Vec<PipelineStage> = PipelineStage::ALL
                .into_iter()
                .filter(|s| ready.iter().any(|r| r.stage == *s))
                .collect();
            self.parts
                .store
                .read(async move |connection| {
                    for stage in stages {
                        if !runs::waiting(connection, stage, now, 1).await?.is_empty() {
                            return Ok(true);
                        }
                    }
                    Ok(false)
                })
                .await?
        };
        if !waiting {
            return Ok(());
        }
        let this = self.clone();
        self.parts
            .store
            .write(async move |connection: &Connection| {
                // Time has passed in the queue; what was stored meanwhile may be newer.
                let now = Timestamp::now();
                let leased = runs::leased_by_agent(connection).await?;
                let mut slots = placement::Slots::new(ready, &leased);
                for stage in PipelineStage::ALL {
                    let free = slots.free(stage);
                    if free == 0 {
                        continue;
                    }
                    for run_id in runs::waiting(connection, stage, now, free).await? {
                        let Some(agent) = slots.take(stage) else { break };
                        let Some(run) = load_readable(connection, &run_id).await? else { continue };
                        let command = Command::Assign {
                            agent,
                            now,
                            lease_ms: this.parts.config.lease_ms,
                            timeout_ms: this.parts.config.timeout_ms(stage),
                            boot: this.parts.store.boots(),
                        };
                        match this.command(connection, &run, &command).await {
                            // It may go a little later: the next round finds it.
                            Ok(()) | Err(Error::Rejected(_)) => {}
                            Err(error) => return Err(error),
                        }
                    }
                }
                Ok::<_, Error>(())
            })
            .await
    }

    /// Sends what was committed. A dispatch stays until its runner confirms it.
    async fn deliver(&self, sent: &mut Sent) -> Result<(), Error> {
        let effects = self.parts.store.outbox_list().await?;
        sent.retain(|id, _| effects.iter().any(|effect| effect.id == *id));
        let mut delivered = Vec::new();
        for effect in effects {
            match effect.kind.as_str() {
                outbox::DISPATCH => {
                    if sent.get(&effect.id).is_some_and(|at| at.elapsed() < RESEND) {
                        continue;
                    }
                    let Some(agent) = effect.agent_id.as_deref() else { continue };
                    // A legacy runner would do the work twice: it is told once per connection.
                    if sent.contains_key(&effect.id) && self.parts.registry.is_legacy(agent) {
                        continue;
                    }
                    if self.send_dispatch(&effect.payload).await? {
                        sent.insert(effect.id, Instant::now());
                    }
                }
                outbox::CANCEL => {
                    if let Some(agent) = &effect.agent_id {
                        let payload = effect.payload;
                        self.parts.registry.send(agent, wire::PIPELINE_CANCEL, &payload);
                    }
                    delivered.push(effect.id);
                }
                outbox::RECOVERY => {
                    if sent.get(&effect.id).is_some_and(|at| at.elapsed() < RESEND_QUESTION) {
                        continue;
                    }
                    let agent = effect.agent_id.as_deref().unwrap_or_default();
                    let event = wire::ERROR_RECOVERY_REQUEST;
                    if self.parts.registry.send(agent, event, &effect.payload) {
                        sent.insert(effect.id, Instant::now());
                    }
                }
                outbox::SKILLS_CHANGED => {
                    self.parts.registry.send_to_all(wire::KING_CONFIG_UPDATE, &effect.payload);
                    delivered.push(effect.id);
                }
                unknown => {
                    tracing::error!(kind = unknown, "An effect of unknown kind was dropped");
                    delivered.push(effect.id);
                }
            }
        }
        if !delivered.is_empty() {
            self.parts.store.outbox_delivered(delivered).await?;
        }
        Ok(())
    }

    /// Whether the dispatch went out.
    async fn send_dispatch(&self, payload: &Value) -> Result<bool, Error> {
        let run_id = payload.get("run_id").and_then(Value::as_str).unwrap_or_default().to_owned();
        let this = self.clone();
        let dispatch = self
            .parts
            .store
            .read(async move |connection| this.dispatch_of(connection, &run_id).await)
            .await
            .map_err(|error: store::Error| Error::Store(error))?;
        let Some((agent, mut dispatch)) = dispatch else { return Ok(false) };
        let span = tracing::info_span!(
            "pipeline.dispatch",
            run.id = %dispatch.run_id, stage = %dispatch.next.stage, agent.id = %agent
        );
        let root = tracing_context::run_carrier(&dispatch.run_id);
        tracing_context::set_parent(&span, &root);
        dispatch.trace = Some(span.in_scope(|| {
            let mut carrier = HashMap::new();
            tracing_context::inject_context(&mut carrier);
            // Where king makes no spans, the runner's descend from the run itself.
            TraceContext(if carrier.is_empty() { root } else { carrier })
        }));
        let payload = serde_json::to_value(&dispatch).expect("a dispatch is plain data");
        Ok(self.parts.registry.send(&agent, wire::PIPELINE_NEXT, &payload))
    }
}
