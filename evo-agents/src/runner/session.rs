//! What a runner has in hand and what it owes king. Pure: no I/O and no clock; the moment travels
//! inside the command, and everything to be done comes back as effects.
//!
//! Stages and tasks are the same here: an attempt at something, which ends in a report.
//!
//! Held by every sequence of commands:
//! - a result is sent again until king accepts it, calls it a duplicate, rejects it or cancels it;
//! - no more than `capacity` attempts run at once, and none runs twice;
//! - what a registration or heartbeat lists is exactly what is in hand: queued, running, or done
//!   and not yet answered.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use evo_common::{
    clock::Timestamp,
    messages::{Reply, ReplyStatus, RunnerStatus},
};

use super::work::{Dispatch, InHand, Key, Report};

/// First pause before an unanswered message is sent again; doubles up to the longest.
const RESEND_MS: u64 = 5_000;
const LONGEST_RESEND_MS: u64 = 60_000;
/// First pause after king asked to send a result again later; doubles up to the longest.
const RETRY_MS: u64 = 500;
const LONGEST_RETRY_MS: u64 = 30_000;
/// Attempts whose end is remembered, so that a late repeat of their dispatch starts nothing.
const REMEMBERED: usize = 1_024;

/// What happened.
#[derive(Debug, Clone)]
pub(crate) enum Command {
    /// A result from before the last restart was found.
    Restored { report: Report },
    /// King's handlers are in place.
    Welcome { now: Timestamp },
    /// The connection is gone.
    Disconnected,
    /// King hands out work.
    Dispatch { dispatch: Dispatch, now: Timestamp },
    /// An attempt can't be started; its failure is the result.
    Refused { report: Report, now: Timestamp },
    /// A job ended; without a report when it was stopped.
    Ended { key: Key, report: Option<Report>, now: Timestamp },
    /// King answered a request.
    Reply { reply: Reply, now: Timestamp },
    /// King no longer wants an attempt.
    Cancel { key: Key },
    /// Time for a sign of life.
    Heartbeat,
    /// Time went by.
    Tick { now: Timestamp },
    /// Take no more work.
    Drain,
    /// Stop the work in hand.
    StopAll,
}

/// What is to be done, in this order.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Effect {
    /// Send the registration.
    Register { req_id: String, in_hand: InHand },
    /// Send a heartbeat.
    Heartbeat { req_id: String, in_hand: InHand, status: RunnerStatus },
    /// Confirm that an attempt is in hand.
    Accept { key: Key },
    /// Start a job.
    Start { dispatch: Dispatch },
    /// Stop a job.
    Stop { key: Key },
    /// Make a result durable.
    Persist { report: Report },
    /// Send a result.
    Send { report: Report },
    /// Remove a durable result.
    Forget { key: Key },
    /// Tell the log that king refused something.
    Refusal { about: String, reply: Reply },
    /// End the runner: king will never take what it says.
    GiveUp { why: Hopeless },
    /// Tell the log that a dispatch was not taken.
    Ignored { key: Key, reason: &'static str },
}

/// Why a runner has to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Hopeless {
    /// The token is good for something else.
    Forbidden { message: String },
    /// Another runner has registered under the same id.
    Displaced,
}

#[derive(Debug)]
enum Work {
    /// Waits for a free place.
    Queued(Dispatch),
    Running,
    /// Told to stop; holds its place until it has.
    Stopping,
    /// Done; king has not answered yet.
    Waiting {
        report: Report,
        due: Timestamp,
        sends: u32,
        retries: u32,
    },
}

#[derive(Debug)]
enum Link {
    Down,
    Registering { req_id: String, due: Timestamp, sends: u32 },
    Registered,
}

/// A runner's state. See the module's description.
#[derive(Debug)]
pub(crate) struct Session {
    agent_id: String,
    session_id: String,
    capacity: usize,
    link: Link,
    work: BTreeMap<Key, Work>,
    /// Keys of queued work, oldest first.
    queue: VecDeque<Key>,
    ended: BTreeSet<Key>,
    ended_order: VecDeque<Key>,
    requests: u64,
    draining: bool,
}

impl Session {
    /// An empty session. `session_id` is new for every process start.
    pub(crate) fn new(agent_id: String, session_id: String, capacity: u32) -> Self {
        Self {
            agent_id,
            session_id,
            capacity: usize::try_from(capacity).unwrap_or(usize::MAX).max(1),
            link: Link::Down,
            work: BTreeMap::new(),
            queue: VecDeque::new(),
            ended: BTreeSet::new(),
            ended_order: VecDeque::new(),
            requests: 0,
            draining: false,
        }
    }

    /// Whether king knows this runner over the present connection.
    pub(crate) fn is_registered(&self) -> bool {
        matches!(self.link, Link::Registered)
    }

    /// Whether any job runs or is being stopped.
    pub(crate) fn is_working(&self) -> bool {
        self.busy() > 0
    }

    /// Whether any result has no answer yet.
    pub(crate) fn owes_results(&self) -> bool {
        self.work.values().any(|work| matches!(work, Work::Waiting { .. }))
    }

    /// Attempts queued, running, or done and not yet answered.
    pub(crate) fn in_hand(&self) -> InHand {
        let held = self.work.iter().filter(|(_, work)| !matches!(work, Work::Stopping));
        held.map(|(key, _)| key).collect()
    }

    /// Takes in what happened and says what is to be done.
    pub(crate) fn decide(&mut self, command: Command) -> Vec<Effect> {
        match command {
            Command::Restored { report } => {
                if let Some(key) = report.key() {
                    let due = Timestamp(0);
                    self.work.insert(key, Work::Waiting { report, due, sends: 0, retries: 0 });
                }
                Vec::new()
            }
            Command::Welcome { now } => vec![self.register(now)],
            Command::Disconnected => {
                self.link = Link::Down;
                Vec::new()
            }
            Command::Dispatch { dispatch, now } => self.dispatch(dispatch, now),
            Command::Refused { report, now } => match report.key() {
                Some(key) if !self.work.contains_key(&key) && !self.ended.contains(&key) => {
                    self.result(key, report, now)
                }
                _ => Vec::new(),
            },
            Command::Ended { key, report, now } => self.job_ended(key, report, now),
            Command::Reply { reply, now } => self.reply(reply, now),
            Command::Cancel { key } => self.cancel(key),
            Command::Heartbeat => self.heartbeat(),
            Command::Tick { now } => self.tick(now),
            Command::Drain => {
                self.draining = true;
                for key in std::mem::take(&mut self.queue) {
                    self.work.remove(&key);
                }
                self.heartbeat()
            }
            Command::StopAll => {
                let running: Vec<Key> = self
                    .work
                    .iter()
                    .filter(|(_, work)| matches!(work, Work::Running))
                    .map(|(key, _)| key.clone())
                    .collect();
                running.into_iter().map(|key| self.stop(key)).collect()
            }
        }
    }

    fn busy(&self) -> usize {
        self.work.values().filter(|work| matches!(work, Work::Running | Work::Stopping)).count()
    }

    fn request(&mut self, kind: &str) -> String {
        self.requests += 1;
        format!("{kind}:{}:{}", self.session_id, self.requests)
    }

    fn register(&mut self, now: Timestamp) -> Effect {
        let req_id = self.request("register");
        let due = now.plus_ms(RESEND_MS);
        self.link = Link::Registering { req_id: req_id.clone(), due, sends: 1 };
        Effect::Register { req_id, in_hand: self.in_hand() }
    }

    fn heartbeat(&mut self) -> Vec<Effect> {
        if !self.is_registered() {
            return Vec::new();
        }
        let status = if self.draining {
            RunnerStatus::Shutting
        } else if self.busy() >= self.capacity {
            RunnerStatus::Busy
        } else {
            RunnerStatus::Ready
        };
        let req_id = self.request("status");
        vec![Effect::Heartbeat { req_id, in_hand: self.in_hand(), status }]
    }

    fn dispatch(&mut self, dispatch: Dispatch, now: Timestamp) -> Vec<Effect> {
        let key = dispatch.key();
        match self.work.get_mut(&key) {
            Some(Work::Queued(_) | Work::Running) => return vec![Effect::Accept { key }],
            Some(Work::Stopping) => {
                return vec![Effect::Ignored { key, reason: "it was cancelled" }];
            }
            Some(Work::Waiting { report, due, sends, .. }) => {
                *sends += 1;
                *due = now.plus_ms(RESEND_MS);
                return vec![Effect::Send { report: report.clone() }];
            }
            None => {}
        }
        let ignored = |key, reason| vec![Effect::Ignored { key, reason }];
        if self.ended.contains(&key) {
            return ignored(key, "it has ended already");
        }
        if self.draining {
            return ignored(key, "this runner takes no more work");
        }
        let same: Vec<Key> =
            self.work.keys().filter(|other| other.item == key.item).cloned().collect();
        if same.iter().any(|other| other.attempt > key.attempt) {
            return ignored(key, "a newer attempt is in hand");
        }
        if self.busy() + self.queue.len() >= self.capacity.saturating_mul(2) {
            return ignored(key, "there is no room");
        }
        // King has given up on older attempts. Their results are still sent, for the record.
        let mut effects: Vec<Effect> =
            same.into_iter().filter_map(|older| self.drop_unfinished(older)).collect();
        effects.push(Effect::Accept { key: key.clone() });
        if self.busy() < self.capacity {
            self.work.insert(key, Work::Running);
            effects.push(Effect::Start { dispatch });
        } else {
            self.queue.push_back(key.clone());
            self.work.insert(key, Work::Queued(dispatch));
        }
        effects
    }

    /// Ends an attempt that has no result yet.
    fn drop_unfinished(&mut self, key: Key) -> Option<Effect> {
        match self.work.get(&key) {
            Some(Work::Queued(_)) => {
                self.queue.retain(|queued| *queued != key);
                self.work.remove(&key);
                self.remember(key);
                None
            }
            Some(Work::Running) => Some(self.stop(key)),
            _ => None,
        }
    }

    fn stop(&mut self, key: Key) -> Effect {
        self.work.insert(key.clone(), Work::Stopping);
        Effect::Stop { key }
    }

    fn job_ended(&mut self, key: Key, report: Option<Report>, now: Timestamp) -> Vec<Effect> {
        let mut effects = match (self.work.remove(&key), report) {
            (Some(Work::Running), Some(report)) => self.result(key, report, now),
            (Some(Work::Running | Work::Stopping), _) => {
                self.remember(key);
                Vec::new()
            }
            (Some(other), _) => {
                self.work.insert(key, other);
                Vec::new()
            }
            (None, _) => Vec::new(),
        };
        effects.extend(self.start_queued());
        effects
    }

    fn start_queued(&mut self) -> Vec<Effect> {
        let mut effects = Vec::new();
        while self.busy() < self.capacity {
            let Some(key) = self.queue.pop_front() else { break };
            if let Some(Work::Queued(dispatch)) = self.work.insert(key, Work::Running) {
                effects.push(Effect::Start { dispatch });
            }
        }
        effects
    }

    fn result(&mut self, key: Key, mut report: Report, now: Timestamp) -> Vec<Effect> {
        report.set_req_id(key.req_id());
        let mut effects = vec![Effect::Persist { report: report.clone() }];
        let sent = self.is_registered();
        if sent {
            effects.push(Effect::Send { report: report.clone() });
        }
        let due = now.plus_ms(RESEND_MS);
        self.work.insert(key, Work::Waiting { report, due, sends: u32::from(sent), retries: 0 });
        effects
    }

    fn reply(&mut self, reply: Reply, now: Timestamp) -> Vec<Effect> {
        let answered = matches!(reply.status, ReplyStatus::Accepted | ReplyStatus::Duplicate);
        if let Link::Registering { req_id, due, sends } = &mut self.link
            && *req_id == reply.req_id
        {
            if answered {
                self.link = Link::Registered;
                let mut effects = self.send_all(now);
                if self.draining {
                    // A registration alone would count as ready.
                    effects.extend(self.heartbeat());
                }
                return effects;
            }
            if reply.status == ReplyStatus::Rejected && code_of(&reply) == "forbidden" {
                let message = reply.message.unwrap_or_default();
                return vec![Effect::GiveUp { why: Hopeless::Forbidden { message } }];
            }
            *due = now.plus_ms(backoff(RESEND_MS, LONGEST_RESEND_MS, *sends));
            return vec![Effect::Refusal { about: "the registration".to_owned(), reply }];
        }
        if reply.status == ReplyStatus::Rejected
            && code_of(&reply) == "not_your_agent"
            && !self.is_foreign(&reply.req_id)
        {
            return vec![Effect::GiveUp { why: Hopeless::Displaced }];
        }
        if reply.req_id.starts_with("status:") {
            // King has forgotten this runner, perhaps after a restart.
            return match reply.status {
                ReplyStatus::Rejected if self.is_registered() => vec![
                    Effect::Refusal { about: "a heartbeat".to_owned(), reply },
                    self.register(now),
                ],
                _ => Vec::new(),
            };
        }
        let Some(key) = self.waiting_for(&reply.req_id) else {
            return match reply.status {
                ReplyStatus::Rejected => {
                    let about = format!("the request {:?}", reply.req_id);
                    vec![Effect::Refusal { about, reply }]
                }
                _ => Vec::new(),
            };
        };
        if reply.status == ReplyStatus::Retry {
            if let Some(Work::Waiting { due, retries, .. }) = self.work.get_mut(&key) {
                *retries += 1;
                *due = now.plus_ms(backoff(RETRY_MS, LONGEST_RETRY_MS, *retries));
            }
            return Vec::new();
        }
        if reply.status == ReplyStatus::Rejected && code_of(&reply) == "not_registered" {
            // The result is fine, only too early: it is sent after the registration.
            return if self.is_registered() { vec![self.register(now)] } else { Vec::new() };
        }
        self.work.remove(&key);
        self.remember(key.clone());
        let mut effects = vec![Effect::Forget { key: key.clone() }];
        if !answered {
            effects.push(Effect::Refusal { about: format!("the result of {key}"), reply });
        }
        effects
    }

    /// Whether a request was the result of another agent, so that its refusal says nothing about
    /// this one.
    fn is_foreign(&self, req_id: &str) -> bool {
        let work = self.waiting_for(req_id).and_then(|key| self.work.get(&key));
        matches!(work, Some(Work::Waiting { report, .. }) if report.agent_id() != self.agent_id)
    }

    fn waiting_for(&self, req_id: &str) -> Option<Key> {
        self.work
            .iter()
            .find(|(key, work)| matches!(work, Work::Waiting { .. }) && key.req_id() == req_id)
            .map(|(key, _)| key.clone())
    }

    fn cancel(&mut self, key: Key) -> Vec<Effect> {
        match self.work.get(&key) {
            Some(Work::Waiting { .. }) => {
                self.work.remove(&key);
                self.remember(key.clone());
                vec![Effect::Forget { key }]
            }
            Some(_) => self.drop_unfinished(key).into_iter().collect(),
            // Messages overtake each other: the dispatch may be still on its way.
            None => {
                self.remember(key);
                Vec::new()
            }
        }
    }

    fn tick(&mut self, now: Timestamp) -> Vec<Effect> {
        let in_hand = self.in_hand();
        match &mut self.link {
            Link::Down => Vec::new(),
            Link::Registering { req_id, due, sends } => {
                if *due > now {
                    return Vec::new();
                }
                *sends += 1;
                *due = now.plus_ms(backoff(RESEND_MS, LONGEST_RESEND_MS, *sends));
                vec![Effect::Register { req_id: req_id.clone(), in_hand }]
            }
            Link::Registered => self.send_due(now, false),
        }
    }

    /// Sends every result that has no answer, as after a registration.
    fn send_all(&mut self, now: Timestamp) -> Vec<Effect> {
        self.send_due(now, true)
    }

    fn send_due(&mut self, now: Timestamp, all: bool) -> Vec<Effect> {
        let mut effects = Vec::new();
        for work in self.work.values_mut() {
            if let Work::Waiting { report, due, sends, .. } = work
                && (all || *due <= now)
            {
                *sends = if all { 1 } else { *sends + 1 };
                *due = now.plus_ms(backoff(RESEND_MS, LONGEST_RESEND_MS, *sends));
                effects.push(Effect::Send { report: report.clone() });
            }
        }
        effects
    }

    fn remember(&mut self, key: Key) {
        if self.ended.insert(key.clone()) {
            self.ended_order.push_back(key);
        }
        if self.ended_order.len() > REMEMBERED
            && let Some(oldest) = self.ended_order.pop_front()
        {
            self.ended.remove(&oldest);
        }
    }
}

fn code_of(reply: &Reply) -> &str {
    reply.code.as_deref().unwrap_or_default()
}

fn backoff(first_ms: u64, longest_ms: u64, sends: u32) -> u64 {
    first_ms.saturating_mul(1 << sends.saturating_sub(1).min(16)).min(longest_ms)
}

#[cfg(test)]
mod tests;
