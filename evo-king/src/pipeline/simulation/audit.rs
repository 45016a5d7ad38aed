//! What must hold, checked at every decision that is committed. It keeps books of its own, made
//! from effects alone, so that it does not take the core's word for anything.

use evo_common::{
    ids::Attempt,
    messages::{PipelineRunStatus, PipelineStage},
};

use super::{
    super::state::{
        Advice, AttemptEnd, Command, Decision, Effect, Policy, RunState, StageEnd, Tries,
    },
    world::Key,
};

/// Books about one run.
#[derive(Debug)]
struct Book {
    /// The stage that is next or at work.
    stage: Option<PipelineStage>,
    last_attempt: Attempt,
    out: Option<Out>,
    tries: Tries,
    completed: Vec<PipelineStage>,
    /// Who is asked how to go on, and the question's name.
    asked: Option<(String, String)>,
    children: u32,
    skipped: bool,
    cancelled: bool,
    ended: bool,
}

/// The attempt that is out.
#[derive(Debug, Clone)]
struct Out {
    stage: PipelineStage,
    attempt: Attempt,
    agent: String,
    accepted: bool,
    lease_until: i64,
    deadline: i64,
    boot: i64,
}

/// Books about every run, and what runners and clients were told.
#[derive(Debug, Default)]
pub(super) struct Audit {
    books: Vec<Book>,
    /// Results that king said it had.
    pub(super) acknowledged: Vec<(Key, u64)>,
}

/// What must not be.
type Fault = String;

fn fault<T>(text: impl Into<String>) -> Result<T, Fault> {
    Err(text.into())
}

impl Audit {
    pub(super) fn started(&mut self, stage: PipelineStage) {
        self.books.push(Book {
            stage: Some(stage),
            last_attempt: Attempt(0),
            out: None,
            tries: Tries::default(),
            completed: Vec::new(),
            asked: None,
            children: 0,
            skipped: false,
            cancelled: false,
            ended: false,
        });
    }

    /// Checks one decision about one run and writes it into the books.
    pub(super) fn decided(
        &mut self,
        run: usize,
        command: &Command,
        decision: &Decision,
        policy: &Policy,
    ) -> Result<(), Fault> {
        let book = &mut self.books[run];
        if book.ended {
            return fault("something was decided after the end");
        }
        book.hear(command)?;
        let mut closed = None;
        for effect in &decision.effects {
            match effect {
                Effect::Dispatch => book.dispatched(&decision.next)?,
                Effect::CloseAttempt { stage, attempt, how } => {
                    closed = Some(book.closed(command, *stage, *attempt, *how)?);
                }
                Effect::StageEnded { stage, status, .. } => {
                    book.stage_ended(command, closed.as_ref(), *stage, *status)?;
                }
                Effect::RunEnded if book.ended => return fault("it ended twice"),
                Effect::RunEnded => book.ended = true,
                Effect::Ask => book.asked(closed.is_some(), &decision.next)?,
                Effect::AdviceOver { request_id, .. } => book.advice_over(request_id)?,
                Effect::CancelAttempt { stage, attempt, .. } => {
                    if closed
                        .as_ref()
                        .is_none_or(|out| (out.stage, out.attempt) != (*stage, *attempt))
                    {
                        return fault("an attempt was called back that had not been out");
                    }
                }
            }
        }
        book.agrees_with(command, &decision.next, policy)
    }

    /// A child came into being or ended.
    pub(super) fn children(&mut self, run: usize, change: i32) {
        let book = &mut self.books[run];
        book.children = book.children.saturating_add_signed(change);
    }

    pub(super) fn open_children(&self, run: usize) -> u32 {
        self.books[run].children
    }

    /// Stages with an applied result.
    pub(super) fn completed(&self, run: usize) -> &[PipelineStage] {
        &self.books[run].completed
    }

    /// Whether a stage was skipped by advice.
    pub(super) fn was_skipped(&self, run: usize) -> bool {
        self.books[run].skipped
    }

    pub(super) fn was_cancelled(&self, run: usize) -> bool {
        self.books[run].cancelled
    }
}

impl Book {
    /// What the command itself says about the attempt that is out.
    fn hear(&mut self, command: &Command) -> Result<(), Fault> {
        match command {
            Command::Accept { agent, stage, attempt }
            | Command::Extend { agent, stage, attempt, .. }
            | Command::Report { agent, stage, attempt, .. } => {
                let Some(out) = &mut self.out else {
                    return fault("somebody was heard about an attempt while none was out");
                };
                if (&out.agent, out.stage, out.attempt) != (agent, *stage, *attempt) {
                    return fault(format!("{agent} was heard about an attempt of {}", out.agent));
                }
                if !matches!(command, Command::Report { .. }) {
                    out.accepted = true;
                }
                if let Command::Extend { lease_until, .. } = command {
                    out.lease_until = out.lease_until.max(lease_until.0).min(out.deadline);
                }
            }
            Command::RunnerLost { agent, .. } => {
                if self.out.as_ref().is_none_or(|out| out.agent != *agent) {
                    return fault(format!("{agent} lost an attempt that it did not have"));
                }
            }
            Command::Advised { agent, request_id, .. } => {
                if self.asked.as_ref() != Some(&(agent.clone(), request_id.clone())) {
                    return fault(format!("{agent} was heard about {request_id}, unasked"));
                }
            }
            Command::Tick { now, .. } => {
                if self.out.as_ref().is_some_and(|out| out.lease_until > now.0) {
                    return fault("time ran out before the lease did");
                }
            }
            Command::Cancel { .. } => self.cancelled = true,
            // The simulation has one advisor, whose time is that of the question.
            Command::PassOn { .. } => return fault("a question was passed on to nobody"),
            Command::Assign { .. } | Command::ChildEnded | Command::Leave { .. } => {}
        }
        Ok(())
    }

    fn dispatched(&mut self, next: &RunState) -> Result<(), Fault> {
        let RunState::Leased { stage, attempt, agent, lease_until, deadline, boot, .. } = next
        else {
            return fault("an attempt was sent out that nobody holds");
        };
        if self.out.is_some() {
            return fault("two attempts are out");
        }
        if self.stage != Some(*stage) {
            return fault(format!("stage {stage} is out of order after {:?}", self.completed));
        }
        if *attempt != self.last_attempt.next() {
            return fault(format!("attempt {attempt} follows attempt {}", self.last_attempt));
        }
        self.last_attempt = *attempt;
        self.out = Some(Out {
            stage: *stage,
            attempt: *attempt,
            agent: agent.clone(),
            accepted: false,
            lease_until: lease_until.0,
            deadline: deadline.0,
            boot: *boot,
        });
        Ok(())
    }

    fn closed(
        &mut self,
        command: &Command,
        stage: PipelineStage,
        attempt: Attempt,
        how: AttemptEnd,
    ) -> Result<Out, Fault> {
        let Some(out) = self.out.take() else {
            return fault("an attempt was closed that was not out");
        };
        if (out.stage, out.attempt) != (stage, attempt) {
            return fault("another attempt was closed than the one that was out");
        }
        match how {
            AttemptEnd::Completed | AttemptEnd::Cancelled => {}
            AttemptEnd::Failed | AttemptEnd::TimedOut => self.tries.failed += 1,
            AttemptEnd::Lost => {
                let (Command::Tick { boot, .. } | Command::RunnerLost { boot, .. }) = command
                else {
                    return fault(format!("an attempt was lost by {command:?}"));
                };
                if out.boot == *boot && out.accepted {
                    self.tries.lost += 1;
                } else if out.boot == *boot {
                    self.tries.undelivered += 1;
                }
            }
        }
        Ok(out)
    }

    fn asked(&mut self, closed: bool, next: &RunState) -> Result<(), Fault> {
        let RunState::Recovering { agent, request_id, .. } = next else {
            return fault("somebody was asked and the run does not wait for that");
        };
        if !closed || self.asked.is_some() {
            return fault("somebody was asked before the attempt was over");
        }
        self.tries.advised += 1;
        self.asked = Some((agent.clone(), request_id.clone()));
        Ok(())
    }

    fn advice_over(&mut self, request_id: &str) -> Result<(), Fault> {
        match self.asked.take() {
            Some((_, asked)) if asked == request_id => Ok(()),
            _ => fault("a question was settled that nobody had been asked"),
        }
    }

    fn stage_ended(
        &mut self,
        command: &Command,
        closed: Option<&Out>,
        stage: PipelineStage,
        status: PipelineRunStatus,
    ) -> Result<(), Fault> {
        if self.stage != Some(stage) {
            return fault(format!("stage {stage} ended while {:?} was at work", self.stage));
        }
        if status != PipelineRunStatus::Completed {
            if let Command::Advised { advice: Advice::Skip { .. }, .. } = command {
                self.skipped = true;
                self.next_stage(stage.next());
            }
            return Ok(());
        }
        if self.completed.contains(&stage) {
            return fault(format!("stage {stage} was completed twice"));
        }
        let answered = matches!(
            command,
            Command::Report { end, .. } if !matches!(end, StageEnd::Failed { .. })
        );
        if !answered || closed.is_none_or(|out| out.stage != stage) {
            return fault(format!("stage {stage} was completed without a result"));
        }
        self.completed.push(stage);
        self.next_stage(match command {
            Command::Report { end: StageEnd::Advance, .. } => stage.next(),
            _ => None,
        });
        Ok(())
    }

    fn next_stage(&mut self, stage: Option<PipelineStage>) {
        self.stage = stage;
        self.last_attempt = Attempt(0);
        self.tries = Tries::default();
    }

    /// Whether the new state says what the books say.
    fn agrees_with(
        &self,
        command: &Command,
        next: &RunState,
        policy: &Policy,
    ) -> Result<(), Fault> {
        if self.ended != matches!(next, RunState::Ended { .. }) {
            return fault(format!("the end was told {}, the state is {next:?}", self.ended));
        }
        match next {
            RunState::Waiting { stage, attempt, tries, .. } => {
                if self.out.is_some() {
                    return fault("a run waits for a runner while an attempt is out");
                }
                if (self.stage, self.last_attempt.next()) != (Some(*stage), *attempt) {
                    return fault(format!("the next one is not attempt {attempt} of {stage}"));
                }
                if *tries != self.tries {
                    return fault(format!("{tries:?} were counted, {:?} happened", self.tries));
                }
                let spent = self.tries.failed >= policy.max_failed
                    || self.tries.lost >= policy.max_lost
                    || self.tries.undelivered >= policy.max_undelivered;
                if spent && self.tries.advised == 0 {
                    return fault(format!("it is tried again after {:?}", self.tries));
                }
            }
            RunState::Leased { stage, attempt, agent, tries, .. } => {
                let Some(out) = &self.out else { return fault("a lease without an attempt") };
                if (&out.agent, out.stage, out.attempt) != (agent, *stage, *attempt) {
                    return fault("the lease is of another attempt than the one that is out");
                }
                if *tries != self.tries {
                    return fault(format!("{tries:?} were counted, {:?} happened", self.tries));
                }
            }
            RunState::Recovering { tries, .. } => {
                if self.out.is_some() || self.asked.is_none() {
                    return fault("it waits for advice that nobody was asked for");
                }
                if *tries != self.tries || tries.advised > policy.max_advised {
                    return fault(format!("{tries:?} were counted, {:?} happened", self.tries));
                }
            }
            RunState::FannedOut { open } => {
                if self.out.is_some() || self.completed != [PipelineStage::Learning] {
                    return fault("a cycle waits for its runs before it has learned");
                }
                if *open == 0 {
                    return fault("a cycle waits for nothing");
                }
            }
            RunState::Ended { status, .. } => {
                if self.out.is_some() || self.asked.is_some() {
                    return fault("it ended with an attempt or a question out");
                }
                if matches!(command, Command::ChildEnded) && self.children > 0 {
                    return fault(format!("it ended while {} of its runs go on", self.children));
                }
                let given_up = matches!(command, Command::Tick { .. } | Command::RunnerLost { .. })
                    || matches!(
                        command,
                        Command::Report { end: StageEnd::Failed { transient: true, .. }, .. }
                    );
                if given_up
                    && self.tries.advised == 0
                    && self.tries.failed < policy.max_failed
                    && self.tries.lost < policy.max_lost
                    && self.tries.undelivered < policy.max_undelivered
                {
                    return fault(format!("it was given up after {:?} only", self.tries));
                }
                if *status == PipelineRunStatus::Completed && given_up {
                    return fault("it was given up and is completed");
                }
            }
        }
        if !matches!(next, RunState::FannedOut { .. } | RunState::Ended { .. })
            && next.due_at().is_none()
        {
            return fault("nothing will ever look after it again");
        }
        Ok(())
    }
}
