//! The one loop that makes what is stored happen: timers, assignment of waiting runs to runners,
//! delivery of committed effects. It takes no input and may run at any time, any number of times.

use std::{collections::HashMap, sync::atomic::Ordering, time::Duration};

use evo_common::{
    clock::Timestamp,
    messages::{PipelineStage, StageDispatch, TraceContext, events as wire},
    rollout,
    runtime::Shutdown,
    tracing_context,
};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    Coordinator, Error,
    state::{Command, RunState},
};
use crate::{
    registry::placement,
    skills::lifecycle,
    store::{self, Connection, agents, damaged, outbox, runs, skills, timers},
};

/// A dispatch that was not confirmed is sent again after this long.
const RESEND: Duration = Duration::from_secs(3);
/// A question that was not answered is asked again after this long.
const RESEND_QUESTION: Duration = Duration::from_secs(10);
/// The loop looks around at least this often.
const IDLE: Duration = Duration::from_secs(1);

/// Pause after a failure of the database.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// A confirmation is written when its attempt is still out after this long.
const CONFIRMED_AFTER: Duration = Duration::from_secs(1);

/// Most skills that are named in one notice; with more, runners ask for them.
const MAX_IN_NOTICE: usize = 1_000;

/// When each question was last sent.
type Asked = HashMap<i64, Instant>;

impl Coordinator {
    /// After a start: nobody is connected, and whoever had an attempt gets time to come back.
    pub async fn recover(&self) -> Result<(), Error> {
        while let Err(error) = self.keep_leases().await {
            self.mend(error).await?;
        }
        Ok(())
    }

    async fn keep_leases(&self) -> Result<(), Error> {
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
                    this.parts.flights.add(&run.run_id, &run.state, false, run.traced);
                }
                let leased = runs::leased_by_agent(connection).await?;
                this.parts.registry.set_leases(leased);
                Ok::<_, Error>(())
            })
            .await
    }

    /// Runs until shutdown. While draining nothing new is dispatched.
    pub async fn reconcile(&self, shutdown: Shutdown) -> Result<(), Error> {
        self.parts.assigning.store(true, Ordering::Relaxed);
        let ended = self.work(&shutdown).await;
        self.parts.assigning.store(false, Ordering::Relaxed);
        ended
    }

    async fn work(&self, shutdown: &Shutdown) -> Result<(), Error> {
        let mut asked = Asked::new();
        // At first, and after a failure, everything is looked at.
        let mut all = true;
        loop {
            let stepped = match self.step(&mut asked, all).await {
                Err(error) => self.mend(error).await.map(|()| Duration::ZERO),
                done => done,
            };
            let next = match stepped {
                Ok(next) => next,
                Err(Error::Store(store::Error::Closed)) => return Ok(()),
                // What is stored is still to be done; a database that is away comes back.
                Err(error) => {
                    let cause = std::error::Error::source(&error).map(ToString::to_string);
                    tracing::error!(%error, cause, "The pipeline stands still for now: {error}");
                    AFTER_FAILURE
                }
            };
            all = tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                () = self.parts.wake.notified() => true,
                () = self.parts.store.signals().come() => false,
                () = tokio::time::sleep(next) => true,
            };
        }
    }

    /// Something changed outside the database: a runner came or has capacity again.
    pub fn wake(&self) {
        self.parts.wake.notify_one();
    }

    /// Does what there is to do, and gives the time until something else will be. Commits say what
    /// they leave; `all` looks at everything.
    async fn step(&self, asked: &mut Asked, all: bool) -> Result<Duration, Error> {
        let now = Timestamp::now();
        let work = self.parts.store.signals().take();
        if all {
            self.keep_books().await?;
        }
        let (due, next) = self.parts.store.timers_next(now).await?;
        if due {
            self.tick(now).await?;
        }
        let stages: Vec<PipelineStage> =
            if all { PipelineStage::ALL.into() } else { work.stages().collect() };
        self.assign(now, stages).await?;
        if all || self.parts.flights.take_unsent() {
            self.deliver_dispatches().await?;
        }
        if all || work.outbox {
            self.deliver(asked).await?;
        }
        let wait = next.map_or(IDLE, |next| Duration::from_millis(next.ms_since(now) + 1));
        Ok(wait.min(IDLE))
    }

    /// Writes which attempts their runners have confirmed, and counts who has how many.
    async fn keep_books(&self) -> Result<(), Error> {
        let confirmed = self.parts.flights.to_store(CONFIRMED_AFTER);
        let this = self.clone();
        if !confirmed.is_empty() {
            self.parts
                .store
                .write(async move |connection: &Connection| {
                    for confirmed in confirmed {
                        let run = runs::load(connection, &confirmed.run_id).await?;
                        let Some(run) = run else { continue };
                        let command = Command::Accept {
                            agent: confirmed.agent.clone(),
                            stage: confirmed.stage,
                            attempt: confirmed.attempt,
                        };
                        match this.command(connection, &run, &command).await {
                            Ok(()) | Err(Error::Rejected(_)) => {}
                            Err(error) => return Err(error),
                        }
                        let this = this.clone();
                        connection.after_commit(move || this.parts.flights.stored(&confirmed));
                    }
                    Ok::<_, Error>(())
                })
                .await?;
        }
        Ok(())
    }

    async fn tick(&self, now: Timestamp) -> Result<(), Error> {
        let this = self.clone();
        let boot = self.parts.store.boots();
        self.parts
            .store
            .write(async move |connection: &Connection| {
                for (run_id, kind) in timers::due(connection, now).await? {
                    let Some(run) = runs::load(connection, &run_id).await? else { continue };
                    if kind == timers::LOOK {
                        this.look_again(connection, now, &run).await?;
                        continue;
                    }
                    if this.pass_on(connection, now, &run).await? {
                        tracing::warn!(run.id = %run_id, "Nobody answered how run {run_id} is to go on; it is passed on");
                        continue;
                    }
                    match this.command(connection, &run, &Command::Tick { now, boot }).await {
                        Ok(()) => {
                            tracing::warn!(run.id = %run_id, timer = %kind, "The {kind} of run {run_id} has passed");
                        }
                        // Nothing is due yet, or any more.
                        Err(Error::Rejected(_)) => match run.state.due_at() {
                            Some((kind, due)) if due > now => {
                                timers::replace(connection, &run_id, kind, due).await?;
                            }
                            _ => timers::clear(connection, &run_id).await?,
                        },
                        Err(error) => return Err(error),
                    }
                }
                for skill in skills::timers::due(connection, now).await? {
                    let config = &this.parts.config.skills;
                    lifecycle::advance(connection, now, config, &skill).await?;
                }
                Ok::<_, Error>(())
            })
            .await
    }

    /// Gives runs that wait for these stages to runners with free capacity.
    async fn assign(&self, now: Timestamp, stages: Vec<PipelineStage>) -> Result<(), Error> {
        if stages.is_empty() {
            return Ok(());
        }
        let waiting = self
            .parts
            .store
            .read(async move |connection| {
                let mut waiting = Vec::new();
                for stage in stages {
                    if !runs::waiting(connection, stage, now, 1).await?.is_empty() {
                        waiting.push(stage);
                    }
                }
                Ok(waiting)
            })
            .await?;
        if waiting.is_empty() {
            return Ok(());
        }
        let ready = self.parts.registry.ready();
        let this = self.clone();
        self.parts
            .store
            .write(async move |connection: &Connection| {
                // Time has passed in the queue; what was stored meanwhile may be newer.
                let now = Timestamp::now();
                let leased = runs::leased_by_agent(connection).await?;
                let limit = |stage| this.parts.config.concurrency.of(stage);
                let mut slots = placement::Slots::new(ready, &leased, limit);
                // Counted in the writer, where nothing changes them meanwhile.
                this.parts.registry.set_leases(leased);
                for stage in waiting {
                    this.assign_stage(connection, now, stage, &mut slots).await?;
                }
                Ok::<_, Error>(())
            })
            .await
    }

    async fn assign_stage(
        &self,
        connection: &Connection,
        now: Timestamp,
        stage: PipelineStage,
        slots: &mut placement::Slots,
    ) -> Result<(), Error> {
        let free = slots.free(stage);
        // One more, to know whether one is left.
        let waiting = runs::waiting(connection, stage, now, free.saturating_add(1)).await?;
        for run_id in waiting {
            let Some(agent) = slots.take(stage) else {
                self.parts.store.signals().still_waits(stage);
                break;
            };
            let Some(run) = runs::load(connection, &run_id).await? else { continue };
            match self.command(connection, &run, &self.assignment(agent, stage, now)).await {
                // It may go a little later: the next round finds it.
                Ok(()) | Err(Error::Rejected(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Sends the attempts that were not sent, or not confirmed in time.
    async fn deliver_dispatches(&self) -> Result<(), Error> {
        // A legacy runner would do the work twice: it is told once per connection.
        let once = |agent: &str| self.parts.registry.is_legacy(agent);
        for run_id in self.parts.flights.to_send(RESEND, once) {
            let (this, wanted) = (self.clone(), run_id.clone());
            let dispatch = self
                .parts
                .store
                .read(async move |connection| this.dispatch_of(connection, &wanted).await)
                .await
                .map_err(|error| error.about(&damaged::RUNS, &run_id))?;
            if let Some((agent, dispatch)) = dispatch {
                let (stage, attempt) = (dispatch.next.stage, dispatch.attempt);
                let run_id = dispatch.run_id.clone();
                if self.hand_over(&agent, dispatch) {
                    self.parts.flights.sent(&run_id, stage, attempt);
                }
            }
        }
        Ok(())
    }

    /// Sends what was committed.
    async fn deliver(&self, sent: &mut Asked) -> Result<(), Error> {
        let effects = self.parts.store.outbox_list().await?;
        sent.retain(|id, _| effects.iter().any(|effect| effect.id == *id));
        let (mut delivered, mut lost) = (Vec::new(), Vec::new());
        for effect in effects {
            match effect.kind.as_str() {
                outbox::CANCEL => {
                    if let Some(agent) = &effect.agent_id {
                        let payload = effect.payload;
                        self.parts.registry.send(agent, wire::PIPELINE_CANCEL, &payload);
                    }
                    delivered.push(effect.id);
                }
                outbox::RECOVERY => {
                    let agent = effect.agent_id.as_deref().unwrap_or_default();
                    if !self.parts.registry.is_connected(agent) {
                        lost.extend(effect.payload["run_id"].as_str().map(str::to_owned));
                        continue;
                    }
                    if sent.get(&effect.id).is_some_and(|at| at.elapsed() < RESEND_QUESTION) {
                        continue;
                    }
                    let event = wire::ERROR_RECOVERY_REQUEST;
                    if self.parts.registry.send(agent, event, &effect.payload) {
                        sent.insert(effect.id, Instant::now());
                    }
                }
                outbox::SKILLS_CHANGED => {
                    let notice = self.with_skills(effect.payload).await?;
                    self.parts.registry.send_to_all(wire::KING_CONFIG_UPDATE, &notice);
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
        if !lost.is_empty() && self.can_be_advised() {
            self.ask_others(lost).await?;
        }
        Ok(())
    }

    /// A notice with the skills that are in use, as they are now. From now on signs of life are
    /// answered with their digest, so that whoever missed the notice looks again.
    async fn with_skills(&self, mut notice: Value) -> Result<Value, Error> {
        let read = async |connection: &Connection| skills::pointers::in_use(connection).await;
        let in_use = self.parts.store.read(read).await?;
        let digest = rollout::digest(&in_use);
        notice["new_config_hash"] = json!(digest);
        notice["config_hash"] = json!(digest);
        if in_use.len() <= MAX_IN_NOTICE {
            notice["skills"] = json!(in_use);
        }
        self.parts.registry.set_skills(digest);
        Ok(notice)
    }

    /// Asks somebody else about these runs: whoever was asked is gone.
    async fn ask_others(&self, run_ids: Vec<String>) -> Result<(), Error> {
        let this = self.clone();
        self.parts
            .store
            .write(async move |connection: &Connection| {
                let now = Timestamp::now();
                for run_id in run_ids {
                    if let Some(run) = runs::load(connection, &run_id).await? {
                        this.pass_on(connection, now, &run).await?;
                    }
                }
                Ok::<_, Error>(())
            })
            .await
    }

    /// Sends a dispatch; says whether it went out.
    pub(super) fn hand_over(&self, agent: &str, mut dispatch: StageDispatch) -> bool {
        if !self.parts.flights.is_traced(&dispatch.run_id) {
            dispatch.trace =
                Some(TraceContext(tracing_context::untraced_carrier(&dispatch.run_id)));
            return self.send(agent, &dispatch);
        }
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
        self.send(agent, &dispatch)
    }

    fn send(&self, agent: &str, dispatch: &StageDispatch) -> bool {
        let payload = serde_json::to_value(dispatch).expect("a dispatch is plain data");
        self.parts.registry.send(agent, wire::PIPELINE_NEXT, &payload)
    }
}
