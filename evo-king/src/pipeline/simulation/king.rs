//! King around the core: a store whose transactions are whole or not at all, an outbox, timers and
//! the loop. It does what `pipeline` and `apply` do, on vectors.

use std::collections::{BTreeMap, HashMap};

use evo_common::{
    clock::Timestamp,
    messages::{PipelineStage, ReplyStatus},
    outcome::Outcome,
};

use super::{
    super::state::{
        Advice, Advisor, AttemptEnd, Command, Effect, Policy, RunState, StageEnd, decide,
    },
    world::{Answer, Event, HEARTBEAT_MS, Key, Plan, TIMEOUT_MS, ToKing, ToRunner, World},
};

const LEASE_MS: u64 = HEARTBEAT_MS.unsigned_abs() * 3;
const GRACE_MS: u64 = LEASE_MS;
/// A dispatch that was not confirmed is sent again after this long.
const RESEND_MS: i64 = 40;
/// The loop looks around at least this often.
const IDLE_MS: i64 = 50;

/// How long an advisor has for an answer.
const ADVICE_MS: i64 = 300;
const ADVISOR: &str = "advisor";

fn policy() -> Policy {
    // Little patience, so that runs are given up in a short life, too.
    Policy {
        max_lost: 2,
        max_undelivered: 3,
        backoff_ms: 10,
        advice_ms: ADVICE_MS.unsigned_abs(),
        ..Policy::default()
    }
}

/// What survives king.
#[derive(Debug, Default)]
pub(super) struct Store {
    pub(super) runs: Vec<Run>,
    pub(super) outbox: Vec<Row>,
    attempts: Vec<AttemptRow>,
    /// Idempotency key → run.
    keys: BTreeMap<usize, usize>,
    boots: i64,
    effects: u64,
    /// How often somebody was asked how to go on.
    questions: u64,
}

#[derive(Debug)]
pub(super) struct Run {
    pub(super) state: RunState,
    pub(super) first: PipelineStage,
    parent: Option<usize>,
}

#[derive(Debug)]
struct AttemptRow {
    key: Key,
    how: Option<AttemptEnd>,
    digest: Option<u64>,
}

/// An effect that was committed and has yet to be delivered.
#[derive(Debug, Clone)]
pub(super) struct Row {
    id: u64,
    agent: String,
    key: Key,
    is_cancel: bool,
}

impl Store {
    /// The result that an attempt was answered with.
    pub(super) fn answered(&self, key: Key) -> Option<u64> {
        self.attempts.iter().find(|row| row.key == key).and_then(|row| row.digest)
    }

    fn push(&mut self, agent: &str, key: Key, is_cancel: bool) {
        self.effects += 1;
        self.outbox.push(Row { id: self.effects, agent: agent.to_owned(), key, is_cancel });
    }

    fn confirm(&mut self, key: Key) {
        self.outbox.retain(|row| row.is_cancel || row.key != key);
    }

    /// Runs that an agent has an attempt of.
    fn leased_to(&self, agent: &str) -> Vec<Key> {
        let leased =
            self.runs.iter().enumerate().filter(|(_, run)| run.state.agent() == Some(agent));
        leased
            .filter_map(|(index, run)| {
                let (stage, attempt) = run.state.at()?;
                Some(Key { run: index, stage, attempt })
            })
            .collect()
    }
}

/// What dies with king.
#[derive(Debug)]
pub(super) struct King {
    boot: i64,
    /// Agent → connection.
    connected: BTreeMap<usize, u64>,
    /// When each dispatch was last sent.
    sent: HashMap<u64, i64>,
    loop_at: i64,
}

/// What a handler says.
type Told = Result<Option<ToRunner>, String>;

impl World {
    pub(super) fn king_starts(&mut self) -> Result<(), String> {
        if self.king.is_some() || self.dies_here("before its first commit") {
            // A start that fails is tried again.
            if self.king.is_none() {
                self.after(20, Event::KingStarts);
            }
            return Ok(());
        }
        self.store.boots += 1;
        let boot = self.store.boots;
        self.king = Some(King {
            boot,
            connected: BTreeMap::new(),
            sent: HashMap::new(),
            loop_at: self.now,
        });
        if self.dies_here("before it gave anybody time to come back") {
            return Ok(());
        }
        let lease_until = Timestamp(self.now).plus_ms(GRACE_MS);
        for run in 0..self.store.runs.len() {
            if let RunState::Leased { stage, attempt, agent, .. } = &self.store.runs[run].state {
                let (agent, stage, attempt) = (agent.clone(), *stage, *attempt);
                let command = Command::Extend { agent, stage, attempt, lease_until };
                self.command(run, &command, None)?;
            }
        }
        self.after(0, Event::KingLoop { boot });
        Ok(())
    }

    /// Decides and writes what follows. Says whether anything did.
    fn command(
        &mut self,
        run: usize,
        command: &Command,
        digest: Option<u64>,
    ) -> Result<bool, String> {
        let mut policy = policy();
        if self.random.per_mille(self.weather_advises()) {
            let request_id = format!("question {}", self.store.questions);
            policy.advisor =
                Some(Advisor { agent: ADVISOR.to_owned(), request_id, share_ms: policy.advice_ms });
        }
        let Ok(decision) = decide(&self.store.runs[run].state, command, &policy) else {
            return Ok(false);
        };
        self.note(|| format!("  run {run}: {command:?} → {:?}", decision.next));
        self.audit
            .decided(run, command, &decision, &policy)
            .map_err(|fault| format!("run {run}: {fault}; {command:?} gave {decision:?}"))?;
        let parent = self.store.runs[run].parent;
        for effect in &decision.effects {
            match effect {
                Effect::Dispatch => {
                    let RunState::Leased { stage, attempt, agent, .. } = &decision.next else {
                        continue;
                    };
                    let key = Key { run, stage: *stage, attempt: *attempt };
                    self.store.attempts.push(AttemptRow { key, how: None, digest: None });
                    self.store.push(agent, key, false);
                }
                Effect::CloseAttempt { stage, attempt, how } => {
                    let key = Key { run, stage: *stage, attempt: *attempt };
                    self.store.confirm(key);
                    self.seen.retries += u64::from(*how == AttemptEnd::Lost);
                    let row = self.store.attempts.iter_mut().find(|row| row.key == key);
                    let row = row.ok_or_else(|| format!("no attempt to close: {key:?}"))?;
                    if row.how.replace(*how).is_some() {
                        return Err(format!("closed twice: {key:?}"));
                    }
                    row.digest = digest;
                }
                Effect::CancelAttempt { agent, stage, attempt, .. } => {
                    let key = Key { run, stage: *stage, attempt: *attempt };
                    self.store.push(agent, key, true);
                }
                Effect::Ask => {
                    let request_id = format!("question {}", self.store.questions);
                    self.store.questions += 1;
                    self.ask(run, request_id);
                }
                Effect::StageEnded { .. } | Effect::AdviceOver { .. } => {}
                Effect::RunEnded => {
                    self.store.runs[run].state = decision.next.clone();
                    if let Some(parent) = parent {
                        self.audit.children(parent, -1);
                        self.command(parent, &Command::ChildEnded, None)?;
                    }
                }
            }
        }
        let state = decision.next;
        if let RunState::FannedOut { open } = &state
            && *open != self.audit.open_children(run)
        {
            let real = self.audit.open_children(run);
            return Err(format!("run {run} waits for {open} runs, {real} are open"));
        }
        self.store.runs[run].state = state;
        self.wake();
        Ok(true)
    }

    fn insert(&mut self, plan: Plan, first: PipelineStage, parent: Option<usize>) -> usize {
        let state = RunState::start(first, Timestamp(self.now));
        self.store.runs.push(Run { state, first, parent });
        self.plans.push(plan);
        self.audit.started(first);
        self.store.runs.len() - 1
    }

    /// A start with an idempotency key; `None` when nobody answers.
    pub(super) fn king_is_asked(&mut self, key: usize, plan: &Plan) -> Option<usize> {
        if self.king.is_none() || self.dies_here("before a start was committed") {
            return None;
        }
        let run = match self.store.keys.get(&key) {
            Some(run) => *run,
            None => {
                let run = self.insert(plan.clone(), PipelineStage::Learning, None);
                self.store.keys.insert(key, run);
                run
            }
        };
        if self.dies_here("before a start was answered") {
            return None;
        }
        self.wake();
        Some(run)
    }

    pub(super) fn king_cancels(&mut self, run: usize) -> Result<(), String> {
        if self.dies_here("before a cancellation was committed") {
            return Ok(());
        }
        self.seen.cancels += 1;
        let command = Command::Cancel { reason: "enough".to_owned() };
        self.command(run, &command, None)?;
        for child in 0..self.store.runs.len() {
            if self.store.runs[child].parent == Some(run) {
                self.command(child, &command, None)?;
            }
        }
        self.dies_here("after a cancellation");
        Ok(())
    }

    /// The advisor answers, sooner or later.
    fn ask(&mut self, run: usize, request_id: String) {
        self.seen.questions += 1;
        let wait = self.random.ms(0, ADVICE_MS + ADVICE_MS / 3);
        let (ends, reason) = (None, String::new());
        let advice = match self.random.below(8) {
            0 => Advice::Abort { reason },
            1 => Advice::Decompose { parts: 2, reason },
            2 | 3 => Advice::Skip { ends, reason },
            4 => Advice::Skip { ends: Some(Outcome::held("skipped", "so be it")), reason },
            _ => Advice::Retry,
        };
        self.send_after(wait, || Event::Advice {
            run,
            request_id: request_id.clone(),
            advice: advice.clone(),
        });
    }

    pub(super) fn king_is_advised(
        &mut self,
        run: usize,
        request_id: String,
        advice: Advice,
    ) -> Result<(), String> {
        if self.king.is_none() || self.dies_here("before it has taken advice") {
            return Ok(());
        }
        let now = Timestamp(self.now);
        let agent = ADVISOR.to_owned();
        self.command(run, &Command::Advised { agent, request_id, advice, now }, None)?;
        self.dies_here("after it has taken advice");
        Ok(())
    }

    pub(super) fn king_hears(
        &mut self,
        agent: usize,
        connection: u64,
        message: ToKing,
    ) -> Result<(), String> {
        let current = self.runners[agent].connection == connection;
        let Some(king) = &self.king else { return Ok(()) };
        let known = king.connected.get(&agent) == Some(&connection);
        // A message of a closed connection may still be worked on; a newer one has the word.
        let allowed = match &message {
            ToKing::Register { .. } => current,
            _ => known,
        };
        if !allowed {
            if matches!(message, ToKing::Heartbeat { .. }) {
                self.tell(agent, connection, ToRunner::Unknown);
            }
            return Ok(());
        }
        if self.dies_here("before it has taken a message in") {
            return Ok(());
        }
        let told = match message {
            ToKing::Register { in_hand } => self.register(agent, connection, &in_hand)?,
            ToKing::Heartbeat { in_hand } => self.heartbeat(agent, &in_hand)?,
            ToKing::Accepted(key) => self.accepted(agent, key)?,
            ToKing::Report(answer) => self.report(agent, &answer)?,
        };
        if let Some(told) = told
            && !self.dies_here("before an answer")
        {
            self.tell(agent, connection, told);
        }
        Ok(())
    }

    fn name(&self, agent: usize) -> String {
        self.runners[agent].name.clone()
    }

    fn register(&mut self, agent: usize, connection: u64, in_hand: &[Key]) -> Told {
        let name = self.name(agent);
        let (now, boot) = (Timestamp(self.now), self.store.boots);
        for key in self.store.leased_to(&name) {
            if !in_hand.contains(&key) {
                let command = Command::RunnerLost { agent: name.clone(), now, boot };
                self.command(key.run, &command, None)?;
            }
        }
        if let Some(king) = &mut self.king {
            king.connected.insert(agent, connection);
        }
        self.wake();
        Ok(Some(ToRunner::Registered))
    }

    fn heartbeat(&mut self, agent: usize, in_hand: &[Key]) -> Told {
        let name = self.name(agent);
        let lease_until = Timestamp(self.now).plus_ms(LEASE_MS);
        for Key { run, stage, attempt } in self.store.leased_to(&name) {
            let key = Key { run, stage, attempt };
            if in_hand.contains(&key) {
                let command = Command::Extend { agent: name.clone(), stage, attempt, lease_until };
                if self.command(run, &command, None)? {
                    self.store.confirm(key);
                }
            }
        }
        Ok(None)
    }

    fn accepted(&mut self, agent: usize, key: Key) -> Told {
        let command =
            Command::Accept { agent: self.name(agent), stage: key.stage, attempt: key.attempt };
        if self.command(key.run, &command, None)? {
            self.store.confirm(key);
        }
        Ok(None)
    }

    fn report(&mut self, agent: usize, answer: &Answer) -> Told {
        let Answer { key, end, digest } = answer;
        let reply = |status| Ok(Some(ToRunner::Reply(*key, status)));
        match self.store.answered(*key) {
            Some(applied) if applied == *digest => return reply(ReplyStatus::Duplicate),
            Some(_) => return reply(ReplyStatus::Rejected),
            None => {}
        }
        let command = Command::Report {
            agent: self.name(agent),
            stage: key.stage,
            attempt: key.attempt,
            end: end.clone(),
            now: Timestamp(self.now),
        };
        // The children are made in the same transaction.
        let fans_out = match end {
            StageEnd::FanOut { open } => *open,
            _ => 0,
        };
        let before = self.audit.open_children(key.run);
        self.audit.children(key.run, fans_out.cast_signed());
        if !self.command(key.run, &command, Some(*digest))? {
            self.audit.children(key.run, before.cast_signed() - (before + fans_out).cast_signed());
            return reply(ReplyStatus::Rejected);
        }
        for _ in 0..fans_out {
            let plan = Plan::of_run(&mut self.random);
            self.insert(plan, PipelineStage::Building, Some(key.run));
        }
        self.audit.acknowledged.push((*key, *digest));
        reply(ReplyStatus::Accepted)
    }

    fn wake(&mut self) {
        let now = self.now;
        if let Some(king) = &mut self.king
            && king.loop_at > now
        {
            let boot = king.boot;
            king.loop_at = now;
            self.after(0, Event::KingLoop { boot });
        }
    }

    /// Timers, assignment, delivery.
    pub(super) fn king_loop(&mut self, boot: i64) -> Result<(), String> {
        let now = self.now;
        match &mut self.king {
            // A later look has been planned meanwhile.
            Some(king) if king.boot == boot && king.loop_at <= now => king.loop_at = i64::MAX,
            _ => return Ok(()),
        }
        self.tick(boot)?;
        self.assign(boot)?;
        self.deliver();
        let Some(king) = &mut self.king else { return Ok(()) };
        let due = self.store.runs.iter().filter_map(|run| Some(run.state.due_at()?.1.0));
        let next = due.filter(|due| *due > now).min().map_or(IDLE_MS, |due| due - now + 1);
        let wait = next.min(IDLE_MS);
        if king.loop_at > now + wait {
            king.loop_at = now + wait;
            self.after(wait, Event::KingLoop { boot });
        }
        Ok(())
    }

    fn tick(&mut self, boot: i64) -> Result<(), String> {
        let now = Timestamp(self.now);
        for run in 0..self.store.runs.len() {
            let is_due = match self.store.runs[run].state.due_at() {
                Some(("backoff", _)) | None => false,
                Some((_, due)) => due <= now,
            };
            if is_due && !self.dies_here("before a timer was written") {
                self.command(run, &Command::Tick { now, boot }, None)?;
            }
            if self.king.is_none() {
                break;
            }
        }
        Ok(())
    }

    fn assign(&mut self, boot: i64) -> Result<(), String> {
        for run in 0..self.store.runs.len() {
            let Some(king) = &self.king else { return Ok(()) };
            let RunState::Waiting { stage, .. } = &self.store.runs[run].state else { continue };
            let free = king.connected.keys().copied().find(|agent| {
                let runner = &self.runners[*agent];
                let taken = self.store.leased_to(&runner.name).len();
                runner.stage == *stage && taken < runner.capacity
            });
            let Some(agent) = free else { continue };
            if self.dies_here("before an assignment") {
                return Ok(());
            }
            let command = Command::Assign {
                agent: self.name(agent),
                now: Timestamp(self.now),
                lease_ms: LEASE_MS,
                timeout_ms: TIMEOUT_MS.unsigned_abs(),
                boot,
            };
            self.command(run, &command, None)?;
            self.dies_here("after an assignment");
        }
        Ok(())
    }

    fn deliver(&mut self) {
        for row in self.store.outbox.clone() {
            let (now, agent) = (self.now, self.runners.iter().position(|r| r.name == row.agent));
            let Some(king) = &mut self.king else { return };
            let sent = king.sent.get(&row.id).is_some_and(|at| now - at < RESEND_MS);
            if sent && !row.is_cancel {
                continue;
            }
            let target = agent.and_then(|agent| Some((agent, *king.connected.get(&agent)?)));
            if self.dies_here("before a delivery") {
                return;
            }
            if let Some((agent, connection)) = target {
                let message =
                    if row.is_cancel { ToRunner::Cancel(row.key) } else { ToRunner::Next(row.key) };
                self.tell(agent, connection, message);
                if let Some(king) = &mut self.king {
                    king.sent.insert(row.id, now);
                }
            }
            if self.dies_here("after a delivery") {
                return;
            }
            if row.is_cancel {
                self.store.outbox.retain(|other| other.id != row.id);
            }
        }
    }

    /// A connection has ended.
    pub(super) fn king_loses(&mut self, agent: usize, connection: u64) {
        if let Some(king) = &mut self.king
            && king.connected.get(&agent) == Some(&connection)
        {
            king.connected.remove(&agent);
        }
    }

    fn tell(&mut self, agent: usize, connection: u64, message: ToRunner) {
        self.send(|| Event::ToRunner { agent, connection, message: message.clone() });
    }
}
