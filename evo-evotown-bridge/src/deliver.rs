//! From the queue to Evotown: each run's deliveries strictly in order and one at a time, several
//! runs beside each other.

mod gate;

use std::{collections::HashSet, sync::Arc, time::Duration};

use evo_common::{
    clock::Timestamp,
    tracing_context::{run_carrier, set_parent},
};
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use serde_json::Value;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::{
    client::{Answer, Client, Meaning, Unreachable},
    config::{Config, MAX_ID, Timing},
    health::{Health, Side},
    payload::{self, Kind},
    policy::{self, Policies},
    session::{NoPass, Pass, Session},
    spool::{self, Delivery, End, Spool, Told},
};
use gate::Gate;

/// Runs that are delivered beside each other.
const PARALLEL: usize = 8;
/// Without a reason to do so sooner, the queue is looked at this often.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// A body is made smaller at most this often.
const MAX_DEGRADED: u32 = 2;
/// Until this try Evotown is asked whether an earlier one has arrived. If it never answers that, a
/// repeat is better than a run that waits for ever.
const ASK_UNTIL: u32 = 8;

/// Delivers what is queued.
pub(crate) struct Deliverer {
    spool: Spool,
    client: Arc<Client>,
    session: Arc<Session>,
    health: Health,
    engine_id: String,
    address: String,
    timing: Timing,
    gate: Gate,
    policies: policy::InUse,
}

/// What came of one try.
enum Outcome {
    /// It is over.
    End(End),
    /// It goes on with less.
    Less(String, String),
    /// It has to be tried again.
    Later(Later),
}

/// Why and when a delivery is tried again.
struct Later {
    reason: String,
    /// Whether it may have arrived.
    sent: bool,
    /// How long this delivery waits.
    own: Duration,
    /// How long Evotown is left alone; by its own measure when absent.
    all: Option<Duration>,
}

impl Deliverer {
    pub(crate) fn new(
        spool: Spool,
        client: Arc<Client>,
        session: Arc<Session>,
        health: Health,
        engine_id: String,
        config: &Config,
    ) -> Self {
        Self {
            spool,
            client,
            session,
            health,
            engine_id,
            address: config.link.url.to_string(),
            timing: config.timing,
            gate: Gate::new(config.timing.first_pause, config.timing.longest_pause),
            policies: policy::InUse::default(),
        }
    }

    /// Delivers until `drain` is cancelled, and then what can be delivered in the time that the
    /// configuration leaves.
    pub(crate) async fn run(self, drain: CancellationToken) -> Result<(), spool::Error> {
        let mut in_hand: HashSet<String> = HashSet::new();
        let mut workers = FuturesUnordered::new();
        let mut end: Option<Instant> = None;
        loop {
            if end.is_none() && drain.is_cancelled() {
                end = Some(Instant::now() + self.timing.drain);
            }
            let now = Timestamp::now();
            let free = self.gate.places(PARALLEL).saturating_sub(in_hand.len());
            let mut waiting = false;
            if free > 0 {
                // Those in hand are still due as far as the queue knows.
                for run_id in self.spool.due_runs(now, PARALLEL + in_hand.len()).await? {
                    if in_hand.contains(&run_id) {
                        continue;
                    }
                    if in_hand.len() >= self.gate.places(PARALLEL) {
                        waiting = true;
                        break;
                    }
                    in_hand.insert(run_id.clone());
                    workers.push(async {
                        let result = self.deliver_run(run_id.clone()).await;
                        (run_id, result)
                    });
                }
            }
            if let Some(end) = end
                && in_hand.is_empty()
                && (!waiting || self.gate.is_closed() || Instant::now() >= end)
            {
                return Ok(());
            }
            let pause = self.pause(now).await?;
            tokio::select! {
                Some((run_id, result)) = workers.next(), if !in_hand.is_empty() => {
                    in_hand.remove(&run_id);
                    result?;
                }
                () = self.spool.due.notified() => {}
                () = tokio::time::sleep(pause) => {}
                () = drain.cancelled(), if end.is_none() => {}
                // What is under way now may arrive: the next start finds out.
                () = at(end) => return Ok(()),
            }
        }
    }

    /// How long there is nothing to start.
    async fn pause(&self, now: Timestamp) -> Result<Duration, spool::Error> {
        if let Some(closed) = self.gate.opens_in() {
            return Ok(closed);
        }
        let next = self.spool.next_due(now).await?;
        let until = next.map_or(LOOK_AGAIN, |due| Duration::from_millis(due.ms_since(now).max(1)));
        Ok(until.min(LOOK_AGAIN))
    }

    /// Delivers what a run has waiting, in order, until it is done or has to wait.
    async fn deliver_run(&self, run_id: String) -> Result<(), spool::Error> {
        let mut next = self.spool.begin(run_id, Timestamp::now()).await?;
        while let Some(delivery) = next {
            let span = tracing::info_span!(
                "evotown.deliver",
                run.id = %delivery.run_id,
                delivery = delivery.kind.as_str(),
                tries = delivery.tries,
                http.status = tracing::field::Empty,
            );
            set_parent(&span, &run_carrier(&delivery.run_id));
            let outcome = self.attempt(&delivery).instrument(span).await;
            let (run_id, ordinal) = (delivery.run_id.clone(), delivery.ordinal);
            next = match outcome {
                Outcome::End(end) => {
                    self.spool.finish(run_id, ordinal, end, Timestamp::now()).await?
                }
                Outcome::Less(body, reason) => {
                    tracing::warn!(run.id = %run_id, "Sent again with less in it: {reason}");
                    Some(self.spool.degrade(&delivery, body, reason).await?)
                }
                Outcome::Later(later) => {
                    self.put_off(&delivery, later).await?;
                    None
                }
            };
        }
        Ok(())
    }

    async fn put_off(&self, delivery: &Delivery, later: Later) -> Result<(), spool::Error> {
        let own = u64::try_from(later.own.as_millis()).unwrap_or(u64::MAX);
        let until = Timestamp::now().plus_ms(own);
        self.gate.failed(later.all);
        self.health.unwell(Side::Evotown, &later.reason);
        if self.gate.should_tell() {
            tracing::warn!(
                run.id = %delivery.run_id,
                "Evotown at {} can't be told for now: {}; what is queued stays queued",
                self.address,
                later.reason
            );
        }
        self.spool.put_off(delivery, until, later.reason, later.sent).await
    }

    async fn attempt(&self, delivery: &Delivery) -> Outcome {
        let run_id = delivery.run_id.as_str();
        if !is_deliverable(run_id) {
            let reason = format!(
                "Evotown takes run ids of 1 to {MAX_ID} characters without a slash, other than . \
                 and .."
            );
            return Outcome::End(End::Parked(reason));
        }
        // A second time only after the token was refused: with the new one.
        let mut refused = None;
        for _ in 0..2 {
            if let Some(blocked) = self.session.blocked().await {
                return Outcome::Later(later_without_pass(blocked));
            }
            let pass = match self.session.pass().await {
                Ok(pass) => pass,
                Err(none) => return Outcome::Later(later_without_pass(none)),
            };
            if delivery.uncertain && delivery.tries <= ASK_UNTIL {
                match self.has_arrived(delivery, &pass).await {
                    Ok(false) => {}
                    Ok(true) => {
                        tracing::debug!(run.id = run_id, "It had arrived before");
                        return Outcome::End(End::Done(Told::default()));
                    }
                    Err(unknown) => return self.read(delivery, None, unknown),
                }
            }
            let ready = self.ready(delivery, &pass).await;
            let answer = self.post(delivery, ready.body.clone(), &pass).await;
            if let Ok(answer) = &answer {
                tracing::Span::current().record("http.status", answer.status());
            }
            match answer.map(Answer::meaning) {
                Ok(Meaning::Auth(reason)) => {
                    self.session.refused(&pass, &reason).await;
                    refused = Some(reason);
                }
                Ok(Meaning::Policy(reason)) => {
                    return self.refused_by_policy(delivery, &ready, reason, &pass).await;
                }
                other => return self.read(delivery, ready.left_out, other),
            }
        }
        let reason = refused.unwrap_or_default();
        Outcome::Later(Later { reason, sent: false, own: Duration::ZERO, all: None })
    }

    async fn post(
        &self,
        delivery: &Delivery,
        body: String,
        pass: &Pass,
    ) -> Result<Answer, Unreachable> {
        let path: &[&str] = match delivery.kind {
            Kind::Complete => &["runs", &delivery.run_id, "complete"],
            Kind::Started | Kind::Progress | Kind::Completed => &["events"],
            Kind::Candidate => &["skill-candidates"],
        };
        self.client.post(path, &pass.credential, body).await
    }

    /// What is sent: what is queued, within the rules that hold now.
    async fn ready(&self, delivery: &Delivery, pass: &Pass) -> Ready {
        if delivery.kind != Kind::Complete {
            return Ready { body: delivery.body.clone(), at: Instant::now(), left_out: None };
        }
        shaped(delivery, &*self.policies.get(&self.client, pass).await)
    }

    /// A policy refuses the content. When it has changed, what is queued is sent once more within the new
    /// rules; else without everything that a policy looks at.
    async fn refused_by_policy(
        &self,
        delivery: &Delivery,
        sent: &Ready,
        reason: String,
        pass: &Pass,
    ) -> Outcome {
        if delivery.kind == Kind::Complete && delivery.degraded == 0 {
            let rules = self.policies.refused(sent.at, &self.client, pass).await;
            let again = shaped(delivery, &rules);
            if again.body != sent.body {
                return Outcome::Less(again.body, reason);
            }
        }
        match smaller(delivery, payload::degrade) {
            Some(body) => Outcome::Less(body, reason),
            None => self.parked(delivery, reason),
        }
    }

    fn parked(&self, delivery: &Delivery, reason: String) -> Outcome {
        tracing::error!(
            run.id = %delivery.run_id,
            "Evotown at {} refuses `{}` of {} for good: {reason}",
            self.address,
            delivery.kind.as_str(),
            delivery.run_id
        );
        Outcome::End(End::Parked(reason))
    }

    /// What an answer means for a delivery.
    fn read(
        &self,
        delivery: &Delivery,
        left_out: Option<String>,
        answer: Result<Meaning, Unreachable>,
    ) -> Outcome {
        match answer {
            Ok(Meaning::Accepted(body)) if is_taken(&body) => {
                self.gate.passed();
                self.health.well(Side::Evotown);
                Outcome::End(End::Done(Told { conflict: conflict(delivery, &body), left_out }))
            }
            Ok(Meaning::Accepted(_)) => {
                let reason = "it answers with success and without `accepted`".to_owned();
                self.missing(delivery, &reason)
            }
            Ok(Meaning::Conflict) => {
                self.gate.passed();
                self.health.well(Side::Evotown);
                let conflict = Some("Evotown had it already (409)".to_owned());
                Outcome::End(End::Done(Told { conflict, left_out }))
            }
            // Only the reviewers' queue is missing there, and nothing follows from it.
            Ok(Meaning::NoRoute(reason)) if delivery.kind == Kind::Candidate => {
                let left_out =
                    Some(format!("this Evotown takes no candidates of skills ({reason})"));
                Outcome::End(End::Done(Told { conflict: None, left_out }))
            }
            Ok(Meaning::TooLarge) => {
                let reason = "status 413: it is too large for Evotown".to_owned();
                match smaller(delivery, payload::shrink) {
                    Some(body) => Outcome::Less(body, reason),
                    None => self.parked(delivery, reason),
                }
            }
            Ok(Meaning::Invalid(reason) | Meaning::Auth(reason) | Meaning::Policy(reason)) => {
                self.parked(delivery, reason)
            }
            Ok(Meaning::Missing(reason) | Meaning::NoRoute(reason)) => {
                self.missing(delivery, &reason)
            }
            Ok(Meaning::Busy { reason, retry_after }) => Outcome::Later(Later {
                reason,
                sent: true,
                own: retry_after.unwrap_or_else(|| self.gate.backoff(delivery.tries)),
                all: retry_after,
            }),
            // A request that was cut or ran out of time may be what is wrong: others go first. One
            // that never left goes on as soon as Evotown is back.
            Err(Unreachable { sent, reason }) => {
                let own = if sent { self.gate.backoff(delivery.tries) } else { Duration::ZERO };
                Outcome::Later(Later { reason, sent, own, all: None })
            }
        }
    }

    /// Nobody there knows what to do with it. Perhaps with this one only: so it waits by itself, and
    /// the others wait for as long as they fare no better.
    fn missing(&self, delivery: &Delivery, reason: &str) -> Outcome {
        Outcome::Later(Later {
            reason: format!("{reason}; is {} an Evotown?", self.address),
            sent: false,
            own: self.gate.backoff(delivery.tries),
            all: None,
        })
    }

    /// Whether an event whose answer never came has arrived. Events are not told apart from their
    /// repeats by Evotown, but the run's state shows the place of the last one. An error says that
    /// Evotown can't tell now.
    async fn has_arrived(
        &self,
        delivery: &Delivery,
        pass: &Pass,
    ) -> Result<bool, Result<Meaning, Unreachable>> {
        if !matches!(delivery.kind, Kind::Started | Kind::Progress) {
            return Ok(false);
        }
        let path = ["runs", &delivery.run_id, "status"];
        let query = [("engine_id", self.engine_id.as_str())];
        let answer = self.client.get(&path, &query, &pass.credential).await;
        let state = match answer.map(Answer::meaning) {
            Ok(Meaning::Accepted(state)) => state,
            Ok(busy @ Meaning::Busy { .. }) => return Err(Ok(busy)),
            Err(unreachable) => return Err(Err(unreachable)),
            // It does not know the run, or this question, or the token: sending it tells.
            Ok(_) => return Ok(false),
        };
        // A run that has ended there would be opened again.
        let is_over = state.get("status").is_some_and(|status| status != "running");
        if delivery.kind == Kind::Started || is_over {
            return Ok(true);
        }
        let body: Option<Value> = serde_json::from_str(&delivery.body).ok();
        let wanted = body.and_then(|body| body.get("seq")?.as_u64());
        let applied = state.pointer("/signals/seq").and_then(Value::as_u64);
        Ok(applied.zip(wanted).is_some_and(|(applied, wanted)| applied >= wanted))
    }
}

/// A delivery as it is sent.
struct Ready {
    body: String,
    at: Instant,
    /// What is not in it though it is queued, and why.
    left_out: Option<String>,
}

/// What is queued, within these rules.
fn shaped(delivery: &Delivery, rules: &Policies) -> Ready {
    let Ok(mut body) = serde_json::from_str::<Value>(&delivery.body) else {
        return Ready { body: delivery.body.clone(), at: Instant::now(), left_out: None };
    };
    let left_out = rules.shape(&mut body);
    Ready { body: body.to_string(), at: Instant::now(), left_out }
}

/// Whether a run of this id can be told: the id is a part of a path, and some have a limit for it.
fn is_deliverable(run_id: &str) -> bool {
    !matches!(run_id, "" | "." | "..") && !run_id.contains('/') && run_id.chars().count() <= MAX_ID
}

/// Whether an answer says that Evotown has it. One that was too large to be read does.
fn is_taken(answer: &Value) -> bool {
    answer.is_null() || answer.get("accepted") == Some(&Value::Bool(true))
}

fn later_without_pass(none: NoPass) -> Later {
    Later { reason: none.reason, sent: false, own: Duration::ZERO, all: none.pause }
}

/// The body made smaller, if there is something left to take away.
fn smaller(delivery: &Delivery, how: fn(Kind, &Value) -> Option<Value>) -> Option<String> {
    if delivery.degraded >= MAX_DEGRADED {
        return None;
    }
    let body: Value = serde_json::from_str(&delivery.body).ok()?;
    how(delivery.kind, &body).map(|less| less.to_string())
}

/// What differs between the stored run and the one that was sent, when Evotown had it already:
/// the first one wins there, whoever sent it.
fn conflict(delivery: &Delivery, answer: &Value) -> Option<String> {
    if delivery.kind != Kind::Complete || answer.get("idempotent") != Some(&Value::Bool(true)) {
        return None;
    }
    let sent: Value = serde_json::from_str(&delivery.body).ok()?;
    let stored = answer.get("run")?;
    let differs: Vec<String> = ["engine_id", "status", "exit_code"]
        .into_iter()
        .filter(|name| stored.get(name).is_some() && stored.get(name) != sent.get(name))
        .map(|name| format!("{name} is {}, sent was {}", stored[name], sent[name]))
        .collect();
    if differs.is_empty() {
        return None;
    }
    let note = format!("Evotown holds another end of this run: {}", differs.join("; "));
    tracing::warn!(run.id = %delivery.run_id, "{note}");
    Some(note)
}

/// Waits for a moment, or for ever.
async fn at(end: Option<Instant>) {
    match end {
        Some(end) => tokio::time::sleep_until(end).await,
        None => std::future::pending().await,
    }
}
