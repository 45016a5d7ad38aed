//! A small world around the core: a king with its store, runners, a network and people who start
//! and cancel runs. All of it follows from one seed.

use std::{cmp::Reverse, collections::BinaryHeap};

use evo_common::{
    ids::Attempt,
    messages::{PipelineRunStatus, PipelineStage, ReplyStatus},
    outcome::Outcome,
};

use super::{
    super::state::{Advice, RunState, StageEnd},
    audit::Audit,
    king::{King, Store},
    random::Random,
    runner::Runner,
};

/// How long faults happen. Afterwards everything works, and every run must come to its end.
const STORM_MS: i64 = 1_500;
/// How long the runs have for that: more than every pause and deadline together.
const CALM_MS: i64 = 30_000;

pub(super) const HEARTBEAT_MS: i64 = 60;
/// How long an attempt may take; some take longer.
pub(super) const TIMEOUT_MS: i64 = 500;

/// One try of one stage of one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) run: usize,
    pub(super) stage: PipelineStage,
    pub(super) attempt: Attempt,
}

/// A runner's result.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) key: Key,
    pub(super) end: StageEnd,
    pub(super) digest: u64,
}

#[derive(Debug, Clone)]
pub(super) enum ToKing {
    Register { in_hand: Vec<Key> },
    Heartbeat { in_hand: Vec<Key> },
    Accepted(Key),
    Report(Answer),
}

#[derive(Debug, Clone)]
pub(super) enum ToRunner {
    Registered,
    /// A heartbeat was refused: king has forgotten this runner.
    Unknown,
    Next(Key),
    Cancel(Key),
    Reply(Key, ReplyStatus),
}

/// Something that is going to happen.
#[derive(Debug)]
pub(super) enum Event {
    KingStarts,
    /// King's loop of this start looks around.
    KingLoop {
        boot: i64,
    },
    ToKing {
        agent: usize,
        connection: u64,
        message: ToKing,
    },
    ToRunner {
        agent: usize,
        connection: u64,
        message: ToRunner,
    },
    RunnerStarts {
        agent: usize,
    },
    RunnerConnects {
        agent: usize,
        life: u64,
    },
    RunnerBeats {
        agent: usize,
        life: u64,
    },
    JobEnds {
        agent: usize,
        life: u64,
        key: Key,
    },
    ClientStarts {
        client: usize,
    },
    /// How to go on after a failure.
    Advice {
        run: usize,
        request_id: String,
        advice: Advice,
    },
    Strike,
}

/// What a run is going to come to when nothing goes wrong.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    /// Children of a cycle.
    pub(super) children: u32,
    /// The stage that decides the run's outcome, before the last one.
    pub(super) finishes_at: Option<PipelineStage>,
    /// The stage that fails for good.
    pub(super) breaks_at: Option<PipelineStage>,
    /// The stage whose first tries fail, and how many do.
    pub(super) stumbles: Option<(PipelineStage, u32)>,
}

/// Somebody who wants one run.
#[derive(Debug)]
struct Client {
    plan: Plan,
    /// The run that king has confirmed.
    told: Option<usize>,
}

/// How rough it is.
struct Weather {
    crash_per_mille: u64,
    loss_per_mille: u64,
    repeat_per_mille: u64,
    delay_per_mille: u64,
    strike_every_ms: i64,
    /// How often somebody can be asked for advice.
    advice_per_mille: u64,
}

struct Planned {
    at: i64,
    order: u64,
    event: Event,
}

impl PartialEq for Planned {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}
impl Eq for Planned {}
impl PartialOrd for Planned {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Planned {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

pub(super) struct World {
    pub(super) random: Random,
    pub(super) now: i64,
    queue: BinaryHeap<Reverse<Planned>>,
    order: u64,
    weather: Weather,
    pub(super) store: Store,
    /// Absent while king is down.
    pub(super) king: Option<King>,
    pub(super) runners: Vec<Runner>,
    /// One per run, in the order of the store's.
    pub(super) plans: Vec<Plan>,
    clients: Vec<Client>,
    pub(super) audit: Audit,
    history: Option<Vec<String>>,
    pub(super) seen: Seen,
}

/// What happened in a world, so that nobody takes a quiet world for a tested one.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Seen {
    pub(super) crashes: u64,
    pub(super) lost_runners: u64,
    pub(super) lost_messages: u64,
    pub(super) repeats: u64,
    pub(super) cancels: u64,
    pub(super) claims: u64,
    pub(super) runs: u64,
    pub(super) retries: u64,
    pub(super) questions: u64,
}

impl Seen {
    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            crashes: self.crashes + other.crashes,
            lost_runners: self.lost_runners + other.lost_runners,
            lost_messages: self.lost_messages + other.lost_messages,
            repeats: self.repeats + other.repeats,
            cancels: self.cancels + other.cancels,
            claims: self.claims + other.claims,
            runs: self.runs + other.runs,
            retries: self.retries + other.retries,
            questions: self.questions + other.questions,
        }
    }
}

/// What must not be, and how it came to it.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) fault: String,
    pub(super) history: Vec<String>,
}

impl World {
    pub(super) fn new(seed: u64, record: bool) -> Self {
        let mut random = Random::new(seed);
        let weather = Weather {
            crash_per_mille: random.pick(&[0, 3, 15, 60]).copied().unwrap_or_default(),
            loss_per_mille: random.pick(&[0, 20, 120, 300]).copied().unwrap_or_default(),
            repeat_per_mille: random.pick(&[0, 50, 300]).copied().unwrap_or_default(),
            delay_per_mille: random.pick(&[0, 50, 200]).copied().unwrap_or_default(),
            strike_every_ms: random.pick(&[30, 100, 400]).copied().unwrap_or(100),
            advice_per_mille: random.pick(&[0, 0, 500, 1_000]).copied().unwrap_or_default(),
        };
        let mut runners = Vec::new();
        for stage in PipelineStage::ALL {
            for _ in 0..=random.below(2) {
                let capacity = 1 + u32::try_from(random.below(3)).unwrap_or_default();
                runners.push(Runner::new(runners.len(), stage, capacity));
            }
        }
        let clients = (0..=random.below(3))
            .map(|_| Client { plan: Plan::random(&mut random), told: None })
            .collect();
        let mut world = Self {
            random,
            now: 0,
            queue: BinaryHeap::new(),
            order: 0,
            weather,
            store: Store::default(),
            king: None,
            runners,
            plans: Vec::new(),
            clients,
            audit: Audit::default(),
            history: record.then(Vec::new),
            seen: Seen::default(),
        };
        world.after(0, Event::KingStarts);
        for agent in 0..world.runners.len() {
            let wait = world.random.ms(0, 50);
            world.after(wait, Event::RunnerStarts { agent });
        }
        for client in 0..world.clients.len() {
            let wait = world.random.ms(0, STORM_MS / 3);
            world.after(wait, Event::ClientStarts { client });
        }
        world.after(0, Event::Strike);
        world
    }

    /// Lives through the storm and the calm after it.
    pub(super) fn run(mut self) -> Result<Seen, Failure> {
        let result = self.live();
        match result {
            Ok(()) => Ok(self.seen),
            Err(fault) => Err(Failure { fault, history: self.history.unwrap_or_default() }),
        }
    }

    fn live(&mut self) -> Result<(), String> {
        while let Some(Reverse(Planned { at, event, .. })) = self.queue.pop() {
            self.now = at;
            if at > STORM_MS + CALM_MS {
                break;
            }
            if self.storm() || !self.is_over() {
                self.happen(event)?;
            } else {
                break;
            }
        }
        self.check_the_end()
    }

    pub(super) fn storm(&self) -> bool {
        self.now < STORM_MS
    }

    /// Whether nothing is left to wait for.
    fn is_over(&self) -> bool {
        self.clients.iter().all(|client| client.told.is_some())
            && self.store.runs.iter().all(|run| matches!(run.state, RunState::Ended { .. }))
            && self.store.outbox.is_empty()
            && self.runners.iter().all(|runner| runner.waiting.is_empty())
    }

    fn check_the_end(&self) -> Result<(), String> {
        for (index, run) in self.store.runs.iter().enumerate() {
            let RunState::Ended { status, outcome } = &run.state else {
                return Err(format!("run {index} never ended: {:?}", run.state));
            };
            self.check_outcome(index, *status, outcome.is_some())?;
        }
        for (client, told) in self.clients.iter().enumerate() {
            match told.told {
                None => return Err(format!("client {client} was never answered")),
                Some(run) if run >= self.store.runs.len() => {
                    return Err(format!("run {run} was confirmed and is gone"));
                }
                Some(_) => {}
            }
        }
        if let Some(row) = self.store.outbox.first() {
            return Err(format!("an effect was never delivered: {row:?}"));
        }
        if let Some(runner) = self.runners.iter().find(|runner| !runner.waiting.is_empty()) {
            return Err(format!("a result was never answered: {:?}", runner.waiting));
        }
        for (key, digest) in &self.audit.acknowledged {
            if self.store.answered(*key) != Some(*digest) {
                return Err(format!("a confirmed result is gone: {key:?}"));
            }
        }
        Ok(())
    }

    /// The same outcome as without faults, unless somebody gave up, which the audit has checked.
    fn check_outcome(
        &self,
        run: usize,
        status: PipelineRunStatus,
        has_outcome: bool,
    ) -> Result<(), String> {
        let (plan, completed) = (&self.plans[run], self.audit.completed(run));
        if status != PipelineRunStatus::Completed {
            return if has_outcome { Ok(()) } else { Err(format!("run {run} says no reason")) };
        }
        if self.audit.was_skipped(run) {
            return Ok(());
        }
        let expected = plan.stages(self.store.runs[run].first);
        if completed != expected || plan.breaks_at.is_some_and(|stage| expected.contains(&stage)) {
            return Err(format!("run {run} completed with {completed:?}, planned was {plan:?}"));
        }
        if self.audit.was_cancelled(run) {
            return Err(format!("run {run} was cancelled and is completed"));
        }
        Ok(())
    }

    fn happen(&mut self, event: Event) -> Result<(), String> {
        self.note(|| format!("{event:?}"));
        match event {
            Event::KingStarts => self.king_starts(),
            Event::KingLoop { boot } => self.king_loop(boot),
            Event::ToKing { agent, connection, message } => {
                self.king_hears(agent, connection, message)
            }
            Event::ToRunner { agent, connection, message } => {
                self.runner_hears(agent, connection, message);
                Ok(())
            }
            Event::RunnerStarts { agent } => {
                self.runner_starts(agent);
                Ok(())
            }
            Event::RunnerConnects { agent, life } => {
                self.runner_connects(agent, life);
                Ok(())
            }
            Event::RunnerBeats { agent, life } => {
                self.runner_beats(agent, life);
                Ok(())
            }
            Event::JobEnds { agent, life, key } => {
                self.job_ends(agent, life, key);
                Ok(())
            }
            Event::ClientStarts { client } => {
                self.client_starts(client);
                Ok(())
            }
            Event::Advice { run, request_id, advice } => {
                self.king_is_advised(run, request_id, advice)
            }
            Event::Strike => self.strike(),
        }
    }

    pub(super) fn weather_advises(&self) -> u64 {
        self.weather.advice_per_mille
    }

    /// Asks king until it has answered.
    fn client_starts(&mut self, client: usize) {
        let plan = self.clients[client].plan.clone();
        let answer = self.king_is_asked(client, &plan);
        let answered = answer.filter(|_| !self.random.per_mille(self.loss()));
        if let Some(run) = answered {
            self.clients[client].told = Some(run);
            self.seen.runs += 1;
        } else {
            let wait = self.random.ms(20, 120);
            self.after(wait, Event::ClientStarts { client });
        }
    }

    /// Something bad happens, while the storm lasts.
    fn strike(&mut self) -> Result<(), String> {
        if !self.storm() {
            return Ok(());
        }
        let agent = usize::try_from(self.random.below(self.runners.len() as u64)).unwrap_or(0);
        match self.random.below(10) {
            0 if self.weather.crash_per_mille > 0 => self.crash("at rest"),
            1 | 2 => self.runner_dies(agent),
            3..=5 => self.cut(agent),
            6 if self.random.per_mille(300) => self.cancel_some_run()?,
            7 | 8 => self.claim_somebody_elses(agent),
            _ => {}
        }
        let wait = self.random.ms(1, self.weather.strike_every_ms * 2);
        self.after(wait, Event::Strike);
        Ok(())
    }

    /// A runner speaks of an attempt that another one has.
    fn claim_somebody_elses(&mut self, agent: usize) {
        let mine = &self.runners[agent].name;
        let leased = self.store.runs.iter().enumerate().filter_map(|(run, row)| {
            let (stage, attempt) = row.state.at()?;
            row.state.agent().filter(|holder| holder != mine)?;
            Some(Key { run, stage, attempt })
        });
        let leased: Vec<Key> = leased.collect();
        let Some(key) = self.random.pick(&leased).copied() else { return };
        let answer = Answer { key, end: StageEnd::Advance, digest: self.random.next() };
        self.say(agent, ToKing::Accepted(key));
        self.say(agent, ToKing::Report(answer));
        self.seen.claims += 1;
    }

    fn cancel_some_run(&mut self) -> Result<(), String> {
        let runs = self.store.runs.len() as u64;
        let run = usize::try_from(self.random.below(runs)).unwrap_or_default();
        if runs > 0 && self.king.is_some() {
            self.note(|| format!("somebody cancels run {run}"));
            self.king_cancels(run)?;
        }
        Ok(())
    }

    /// King's process is gone, with all that it held in memory.
    pub(super) fn crash(&mut self, when: &str) {
        if self.king.take().is_none() {
            return;
        }
        self.note(|| format!("king dies {when}"));
        self.seen.crashes += 1;
        for runner in &mut self.runners {
            runner.connection = 0;
            runner.registered = false;
        }
        for agent in 0..self.runners.len() {
            self.reconnect(agent);
        }
        let wait = self.random.ms(5, 400);
        self.after(wait, Event::KingStarts);
    }

    /// Whether king dies here.
    pub(super) fn dies_here(&mut self, when: &str) -> bool {
        let dies = self.storm() && self.random.per_mille(self.weather.crash_per_mille);
        if dies {
            self.crash(when);
        }
        dies
    }

    fn loss(&self) -> u64 {
        if self.storm() { self.weather.loss_per_mille } else { 0 }
    }

    /// Sends a message: it may be lost, repeated, late and overtaken.
    pub(super) fn send(&mut self, make: impl Fn() -> Event) {
        self.send_after(0, make);
    }

    /// Sends a message later.
    pub(super) fn send_after(&mut self, wait: i64, make: impl Fn() -> Event) {
        if self.random.per_mille(self.loss()) {
            self.seen.lost_messages += 1;
            self.note(|| format!("lost: {:?}", make()));
            return;
        }
        let repeated = self.storm() && self.random.per_mille(self.weather.repeat_per_mille);
        self.seen.repeats += u64::from(repeated);
        for _ in 0..=u8::from(repeated) {
            let late = self.storm() && self.random.per_mille(self.weather.delay_per_mille);
            let delay = if late { self.random.ms(20, 600) } else { self.random.ms(0, 6) };
            self.after(wait + delay, make());
        }
    }

    pub(super) fn after(&mut self, wait: i64, event: Event) {
        self.order += 1;
        self.queue.push(Reverse(Planned { at: self.now + wait, order: self.order, event }));
    }

    pub(super) fn note(&mut self, text: impl FnOnce() -> String) {
        if let Some(history) = &mut self.history {
            history.push(format!("{:>6} {}", self.now, text()));
        }
    }
}

impl Plan {
    fn random(random: &mut Random) -> Self {
        let children = u32::try_from(random.below(3)).unwrap_or_default();
        Self { children, ..Self::of_run(random) }
    }

    /// What a run does from its first stage on when nothing goes wrong.
    fn stages(&self, first: PipelineStage) -> Vec<PipelineStage> {
        if self.children > 0 {
            return vec![PipelineStage::Learning];
        }
        let last = self.finishes_at.filter(|last| *last >= first);
        PipelineStage::ALL
            .into_iter()
            .filter(|stage| *stage >= first && last.is_none_or(|last| *stage <= last))
            .collect()
    }

    /// What a runner finds, the `tries`th time that it does a stage.
    pub(super) fn end(&self, stage: PipelineStage, tries: u32) -> StageEnd {
        let failed = |transient| StageEnd::Failed { error: "as planned".to_owned(), transient };
        if self.breaks_at == Some(stage) {
            return failed(false);
        }
        match self.stumbles {
            Some((stumbles, times)) if stumbles == stage && tries < times => failed(true),
            _ if stage == PipelineStage::Learning && self.children > 0 => {
                StageEnd::FanOut { open: self.children }
            }
            _ if self.finishes_at == Some(stage) => StageEnd::Finish(Outcome::active("as planned")),
            _ => StageEnd::Advance,
        }
    }

    /// A run that is no cycle.
    pub(super) fn of_run(random: &mut Random) -> Self {
        let some = |random: &mut Random, often| {
            let stage = random.pick(&PipelineStage::ALL).copied();
            stage.filter(|_| random.per_mille(often))
        };
        Self {
            children: 0,
            finishes_at: some(random, 200),
            breaks_at: some(random, 100),
            stumbles: some(random, 300)
                .map(|stage| (stage, 1 + u32::try_from(random.below(4)).unwrap_or_default())),
        }
    }
}
