//! Runners: they work, fail, die, come back with what they have in hand, and send each result until
//! it is answered.

use evo_common::messages::{PipelineStage, ReplyStatus};

use super::world::{Answer, Event, HEARTBEAT_MS, Key, TIMEOUT_MS, ToKing, ToRunner, World};

#[derive(Debug)]
pub(super) struct Runner {
    pub(super) name: String,
    pub(super) stage: PipelineStage,
    pub(super) capacity: usize,
    /// Which of its starts this is; 0 before the first.
    life: u64,
    alive: bool,
    /// 0 when there is none.
    pub(super) connection: u64,
    pub(super) registered: bool,
    running: Vec<Key>,
    /// Results without an answer. They are on disk and survive the runner.
    pub(super) waiting: Vec<Answer>,
    ended: Vec<Key>,
}

impl Runner {
    pub(super) fn new(place: usize, stage: PipelineStage, capacity: u32) -> Self {
        Self {
            name: format!("{stage}-{place}"),
            stage,
            capacity: usize::try_from(capacity).unwrap_or(1),
            life: 0,
            alive: false,
            connection: 0,
            registered: false,
            running: Vec::new(),
            waiting: Vec::new(),
            ended: Vec::new(),
        }
    }

    fn in_hand(&self) -> Vec<Key> {
        self.running.iter().copied().chain(self.waiting.iter().map(|answer| answer.key)).collect()
    }
}

impl World {
    pub(super) fn runner_starts(&mut self, agent: usize) {
        let runner = &mut self.runners[agent];
        if runner.alive {
            return;
        }
        runner.alive = true;
        runner.life += 1;
        let life = runner.life;
        self.after(0, Event::RunnerConnects { agent, life });
        self.after(HEARTBEAT_MS, Event::RunnerBeats { agent, life });
    }

    /// Its process is gone. What it worked on is lost; its results are on its disk.
    pub(super) fn runner_dies(&mut self, agent: usize) {
        if !self.runners[agent].alive {
            return;
        }
        self.seen.lost_runners += 1;
        self.note(|| format!("runner {agent} dies"));
        self.cut(agent);
        let runner = &mut self.runners[agent];
        runner.alive = false;
        runner.running.clear();
        runner.ended.clear();
        let wait = self.random.ms(5, 500);
        self.after(wait, Event::RunnerStarts { agent });
    }

    /// Its connection is gone. King hears of it, unless it is down.
    pub(super) fn cut(&mut self, agent: usize) {
        let connection = self.runners[agent].connection;
        if connection == 0 {
            return;
        }
        self.note(|| format!("the connection of runner {agent} is cut"));
        self.runners[agent].connection = 0;
        self.runners[agent].registered = false;
        self.king_loses(agent, connection);
        self.reconnect(agent);
    }

    pub(super) fn reconnect(&mut self, agent: usize) {
        let life = self.runners[agent].life;
        let wait = self.random.ms(1, 150);
        self.after(wait, Event::RunnerConnects { agent, life });
    }

    fn lives(&self, agent: usize, life: u64) -> bool {
        let runner = &self.runners[agent];
        runner.alive && runner.life == life
    }

    pub(super) fn runner_connects(&mut self, agent: usize, life: u64) {
        if !self.lives(agent, life) || self.runners[agent].connection != 0 {
            return;
        }
        if self.king.is_none() {
            return self.reconnect(agent);
        }
        let connection = self.random.next() | 1;
        self.runners[agent].connection = connection;
        self.say_hello(agent);
    }

    fn say_hello(&mut self, agent: usize) {
        let in_hand = self.runners[agent].in_hand();
        self.say(agent, ToKing::Register { in_hand });
    }

    pub(super) fn runner_beats(&mut self, agent: usize, life: u64) {
        if !self.lives(agent, life) {
            return;
        }
        self.after(HEARTBEAT_MS, Event::RunnerBeats { agent, life });
        if self.runners[agent].connection == 0 {
            return;
        }
        if !self.runners[agent].registered {
            return self.say_hello(agent);
        }
        let in_hand = self.runners[agent].in_hand();
        self.say(agent, ToKing::Heartbeat { in_hand });
        self.send_results(agent);
    }

    fn send_results(&mut self, agent: usize) {
        for answer in self.runners[agent].waiting.clone() {
            self.say(agent, ToKing::Report(answer));
        }
    }

    pub(super) fn job_ends(&mut self, agent: usize, life: u64, key: Key) {
        if !self.lives(agent, life) || !self.runners[agent].running.contains(&key) {
            return;
        }
        let digest = self.random.next();
        let end = self.plans[key.run].end(key.stage, key.attempt.0 - 1);
        let runner = &mut self.runners[agent];
        runner.running.retain(|running| *running != key);
        let answer = Answer { key, end, digest };
        runner.waiting.push(answer.clone());
        if runner.registered {
            self.say(agent, ToKing::Report(answer));
        }
    }

    pub(super) fn runner_hears(&mut self, agent: usize, connection: u64, message: ToRunner) {
        if !self.runners[agent].alive || self.runners[agent].connection != connection {
            return;
        }
        match message {
            ToRunner::Registered => {
                self.runners[agent].registered = true;
                self.send_results(agent);
            }
            ToRunner::Unknown => self.say_hello(agent),
            ToRunner::Next(key) => self.take_on(agent, key),
            ToRunner::Cancel(key) => {
                let runner = &mut self.runners[agent];
                runner.running.retain(|running| *running != key);
                runner.waiting.retain(|answer| answer.key != key);
                runner.ended.push(key);
            }
            ToRunner::Reply(_, ReplyStatus::Retry) => {}
            ToRunner::Reply(key, _) => {
                let runner = &mut self.runners[agent];
                runner.waiting.retain(|answer| answer.key != key);
                runner.ended.push(key);
            }
        }
    }

    fn take_on(&mut self, agent: usize, key: Key) {
        let runner = &mut self.runners[agent];
        if let Some(answer) = runner.waiting.iter().find(|answer| answer.key == key) {
            let answer = answer.clone();
            return self.say(agent, ToKing::Report(answer));
        }
        if runner.running.contains(&key) {
            return self.say(agent, ToKing::Accepted(key));
        }
        let newer = runner.running.iter().any(|other| {
            (other.run, other.stage) == (key.run, key.stage) && other.attempt > key.attempt
        });
        let full = runner.running.len() >= runner.capacity * 2;
        if newer || full || runner.ended.contains(&key) {
            return;
        }
        // King has given up on older attempts.
        runner.running.retain(|other| (other.run, other.stage) != (key.run, key.stage));
        runner.running.push(key);
        let life = runner.life;
        let longest = if self.storm() && self.random.per_mille(100) { TIMEOUT_MS * 2 } else { 60 };
        let wait = self.random.ms(0, longest);
        self.after(wait, Event::JobEnds { agent, life, key });
        self.say(agent, ToKing::Accepted(key));
    }

    pub(super) fn say(&mut self, agent: usize, message: ToKing) {
        let connection = self.runners[agent].connection;
        if connection != 0 {
            self.send(|| Event::ToKing { agent, connection, message: message.clone() });
        }
    }
}
