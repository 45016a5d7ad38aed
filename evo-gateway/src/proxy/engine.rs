//! Who is asked, in which order, and when again: the same for streams and for other answers. Nothing of
//! an answer goes out before its first content has come, so that until then somebody else can be asked.

use std::{borrow::Cow, sync::Arc, time::Duration};

use futures_util::future::{Either, select};
use http::Response;
use tokio::time::{Instant, sleep, timeout};
use tracing::Span;

use super::{
    Ask, Asked,
    answer::Rest,
    attempt::Resume,
    flow::{Fault, Flow, Way},
    judge::{Failed, Kind},
    stream::Rescue,
};
use crate::{
    access::{Attempted, Entry, Tally, Text},
    auth::Caller,
    convert::StreamConverter,
    gateway::Live,
    provider::Provider,
    routing::{
        balance,
        plan::{Candidate, Plan},
    },
    upstream::Client,
    usage::meter::Meter,
};

/// How often a stream may be continued.
const MOST_RESCUES: u32 = 4;

/// One request, and who may answer it.
pub(super) struct Engine {
    pub(super) client: Client,
    pub(super) live: Arc<Live>,
    pub(super) ask: Ask,
    pub(super) asked: Asked,
    targets: Vec<Target>,
    /// The fallback chain is among the targets.
    chained: bool,
    pub(super) started: Instant,
    /// How long it has waited between attempts.
    waited: Duration,
    /// How many tokens the question probably has.
    pub(super) question: u64,
    /// Who asks, of whom each candidate must be allowed.
    caller: Option<Caller>,
    /// The request as a part of a trace, and its route.
    pub(super) span: Option<(Span, Cow<'static, str>)>,
    /// What went to providers.
    pub(super) tally: Arc<Tally>,
    /// Who answers.
    answers: usize,
    rescues: u32,
}

/// A provider and a model that may be asked.
pub(super) struct Target {
    pub(super) provider: Arc<Provider>,
    pub(super) model: String,
    weight: u32,
    /// Of a chain: asked when the others have failed.
    fallback: bool,
    /// How often it has failed.
    tries: u32,
    /// When it may be asked again; never if absent.
    again: Option<Instant>,
}

/// An answer that may go out.
pub(super) struct Ready {
    pub(super) head: Response<()>,
    pub(super) reply: Reply,
    /// Has read the counts of what has come.
    pub(super) meter: Meter,
    /// The call of the provider as a part of the caller's trace.
    pub(super) call: Option<Span>,
}

/// Its body.
pub(super) enum Reply {
    Whole(bytes::Bytes),
    Rest(Box<Rest>),
    Flow(Box<Flow>),
}

/// What is done after a failure.
#[derive(Debug, PartialEq, Eq)]
enum Go {
    To(usize),
    Wait(usize, Duration),
    Nowhere,
}

impl Engine {
    /// Nobody has been asked yet.
    pub(super) fn new(
        client: Client,
        live: Arc<Live>,
        ask: Ask,
        asked: Asked,
        targets: Vec<Target>,
        entry: &mut Entry,
    ) -> Self {
        let tally = Arc::<Tally>::default();
        entry.tally = Some(tally.clone());
        Self {
            client,
            live,
            ask,
            asked,
            targets,
            chained: false,
            started: Instant::now(),
            waited: Duration::ZERO,
            question: entry.question,
            caller: entry.facts.caller.clone(),
            span: entry.span().map(|span| (span.clone(), entry.facts.path.clone())),
            tally,
            answers: 0,
            rescues: 0,
        }
    }

    /// After how long a stream in which nothing is said gets a sign of life.
    pub(super) fn heartbeat(&self) -> Option<Duration> {
        let every = self.live.reliability.heartbeat_ms;
        (every > 0).then(|| Duration::from_millis(every))
    }

    /// Who is asked first, or answers.
    pub(super) fn who(&self) -> &Target {
        &self.targets[self.answers]
    }

    /// Asks until somebody answers, or nobody is left.
    pub(super) async fn run(&mut self) -> Result<Ready, Failed> {
        let mut best: Option<(usize, Failed)> = None;
        let mut at = self.free_one();
        loop {
            let (mut failures, ready) = self.ask(at).await;
            if let Some((winner, ready)) = ready {
                self.answers = winner;
                return Ok(ready);
            }
            let alone = best.is_none() && failures.len() == 1;
            let mut go = Go::Nowhere;
            for (at, failed) in failures.drain(..) {
                // What the caller did wrong is wrong everywhere.
                if alone && failed.kind == Kind::Caller {
                    self.answers = at;
                    return Err(failed);
                }
                go = self.after(at, &failed);
                if best.as_ref().is_none_or(|(_, best)| failed.worth() > best.worth()) {
                    best = Some((at, failed));
                }
            }
            match go {
                Go::To(next) => at = next,
                Go::Wait(next, time) => {
                    self.waited += time;
                    sleep(time).await;
                    at = next;
                }
                Go::Nowhere => {
                    let Some((at, failed)) = best else { continue };
                    self.answers = at;
                    return Err(failed);
                }
            }
        }
    }

    /// The first that has a key that is not left out; the first, if there is none.
    fn free_one(&self) -> usize {
        let is_free = |target: &Target| target.provider.keys.busy_for().is_none();
        if self.targets.len() == 1 { 0 } else { self.targets.iter().position(is_free).unwrap_or(0) }
    }

    /// Asks one, and another one besides when that takes long and it is wanted. Gives who failed, and
    /// who answered.
    async fn ask(&mut self, at: usize) -> (Vec<(usize, Failed)>, Option<(usize, Ready)>) {
        let hedge = self.live.reliability.hedge_after_ms.map(Duration::from_millis);
        let hedge = hedge.filter(|_| self.targets[at].tries == 0);
        let Some(after) = hedge else {
            return match self.attempt(&self.targets[at], &mut None).await {
                Ok(ready) => (Vec::new(), Some((at, ready))),
                Err(failed) => (vec![(at, failed)], None),
            };
        };
        self.chain();
        let other =
            self.targets.iter().enumerate().position(|(it, target)| it != at && target.tries == 0);
        let (mut none, mut none_either) = (None, None);
        let mut first = Box::pin(self.attempt(&self.targets[at], &mut none));
        let (one, result, left) = match (timeout(after, &mut first).await, other) {
            (Ok(result), _) => (at, result, None),
            (Err(_), None) => (at, first.await, None),
            (Err(_), Some(other)) => {
                let second = Box::pin(self.attempt(&self.targets[other], &mut none_either));
                // Whoever is left when one has answered is dropped, and its provider learns it.
                match select(first, second).await {
                    Either::Left((result, second)) => (at, result, Some((other, second))),
                    Either::Right((result, first)) => (other, result, Some((at, first))),
                }
            }
        };
        match (result, left) {
            (Ok(ready), _) => (Vec::new(), Some((one, ready))),
            (Err(failed), None) => (vec![(one, failed)], None),
            (Err(failed), Some((other, left))) => match left.await {
                Ok(ready) => (vec![(one, failed)], Some((other, ready))),
                Err(second) => (vec![(one, failed), (other, second)], None),
            },
        }
    }

    /// Where to go on after a failure.
    fn after(&mut self, at: usize, failed: &Failed) -> Go {
        let rules = &self.live.reliability;
        let left = Duration::from_millis(rules.max_wait_ms).saturating_sub(self.waited);
        let longest = Duration::from_millis(rules.max_backoff_ms).min(left);
        let retries = rules.max_retries;
        let target = &mut self.targets[at];
        target.tries += 1;
        let pause = pause(rules.base_backoff_ms, rules.max_backoff_ms, target.tries);
        // What the provider asks for is the least; who asks for too much is not asked again.
        let pause = failed.wait.map_or(pause, |wait| wait.max(pause.min(longest)));
        let pause = Some(pause).filter(|pause| *pause <= longest);
        let may = matches!(failed.kind, Kind::Again | Kind::Busy) && target.tries <= retries;
        target.again = pause.filter(|_| may).map(|pause| Instant::now() + pause);
        if failed.kind == Kind::TooLong && !self.with_more_context(at) {
            return Go::Nowhere;
        }
        let untried = |it: &Target| it.tries == 0;
        if let Some(next) = self.targets.iter().position(|it| untried(it) && !it.fallback) {
            return Go::To(next);
        }
        if failed.kind == Kind::Again
            && let Some(go) = self.wait_for(at)
        {
            return go;
        }
        self.chain();
        if let Some(next) = self.targets.iter().position(untried) {
            return Go::To(next);
        }
        let soonest = (0..self.targets.len()).filter(|it| self.targets[*it].again.is_some());
        let soonest = soonest.min_by_key(|it| self.targets[*it].again);
        soonest.and_then(|next| self.wait_for(next)).unwrap_or(Go::Nowhere)
    }

    /// Waits until one may be asked again, if it may, and there is so much time.
    fn wait_for(&self, at: usize) -> Option<Go> {
        let again = self.targets[at].again?;
        let is_late = self.end(&self.targets[at]).is_some_and(|end| again >= end);
        let time = again.saturating_duration_since(Instant::now());
        let most = Duration::from_millis(self.live.reliability.max_wait_ms);
        (!is_late && self.waited + time <= most).then_some(Go::Wait(at, time))
    }

    /// When the answer has to be there.
    pub(super) fn end(&self, target: &Target) -> Option<Instant> {
        target.provider.conduct.timeouts.total.map(|total| self.started + total)
    }

    /// Puts the fallback chain behind the others.
    fn chain(&mut self) {
        if std::mem::replace(&mut self.chained, true) {
            return;
        }
        let live = self.live.clone();
        let rules = &live.reliability;
        let steps = rules.fallbacks.get(&self.asked.model).unwrap_or(&rules.fallback_chain);
        self.add(&live, steps);
    }

    fn add(&mut self, live: &Live, steps: &[String]) {
        let Some(first) = self.targets.first().map(|first| first.model.clone()) else { return };
        let directory = live.catalog.directory();
        for candidate in directory.chain(steps, &first) {
            let new = target(live, candidate, true);
            let is_it =
                |old: &Target| old.provider.name == new.provider.name && old.model == new.model;
            let is_allowed = match &self.caller {
                Some(Caller::Key(key)) => {
                    key.allows(&self.asked.model, &new.provider.name, &new.model)
                }
                _ => true,
            };
            if is_allowed && !self.targets.iter().any(is_it) {
                self.targets.push(new);
            }
        }
    }

    /// Leaves only those that are configured for long conversations. Whether there is one.
    fn with_more_context(&mut self, at: usize) -> bool {
        let live = self.live.clone();
        let window = |target: &Target| target.provider.metadata.get(&target.model)?.context_window;
        let known = window(&self.targets[at]);
        let before = self.targets.len();
        self.add(&live, &live.reliability.larger_context);
        self.chained = true;
        for (index, target) in self.targets.iter_mut().enumerate() {
            let is_small = known.is_some_and(|known| window(target).is_some_and(|it| it <= known));
            if index < before || is_small {
                target.tries = target.tries.max(1);
                target.again = None;
            }
        }
        self.targets.iter().any(|target| target.tries == 0)
    }

    /// Notes that somebody failed.
    pub(super) fn note(&self, target: &Target, failed: &Failed, after: Duration) {
        if matches!(failed.kind, Kind::Caller | Kind::Unable) {
            self.tell_later(target, failed.status(), failed.code(), after, false);
        } else {
            self.note_as(target, failed.status(), failed.code(), after);
        }
    }

    /// The same for an answer that was passed over.
    pub(super) fn note_as(
        &self,
        target: &Target,
        status: Option<u16>,
        code: &'static str,
        after: Duration,
    ) {
        self.live.metrics.failed(&target.provider, &target.model, status, code);
        self.tell_later(target, status, code, after, true);
    }

    fn tell_later(
        &self,
        target: &Target,
        status: Option<u16>,
        code: &'static str,
        after: Duration,
        counts: bool,
    ) {
        let attempted = Attempted {
            provider: target.provider.name.clone(),
            model: Text::new(&target.model),
            status,
            code,
            after,
            counts,
            used: None,
        };
        self.tally.failed(attempted);
    }

    /// The engine, if a stream that breaks off may go on.
    pub(super) fn for_rescue(self: Box<Self>) -> Option<Box<Self>> {
        self.live.reliability.rescue.then_some(self)
    }

    /// Goes on with a stream that broke off, if somebody can.
    pub(super) async fn rescue(mut self: Box<Self>, way: Way, fault: Fault) -> (Box<Self>, Rescue) {
        let code = match fault.outcome {
            crate::access::Outcome::TimedOut => "upstream_idle_timeout",
            _ => "upstream_cut",
        };
        self.note_as(self.who(), None, code, self.started.elapsed());
        let converter = match way {
            Way::Translate(converter) => converter,
            Way::Pass(passing) => {
                let front = self.ask.front;
                let history = passing.history().filter(|_| self.ask.is_plain());
                let context = self.context();
                let after = history.and_then(|it| StreamConverter::after(front, &it, &context));
                match after {
                    Some(converter) => Box::new(converter),
                    None => return (self, Err((Way::Pass(passing), fault))),
                }
            }
        };
        if !converter.said().can_go_on() {
            return (self, Err((Way::Translate(converter), fault)));
        }
        self.chain();
        // The same one first: it is the likeliest to say the same again.
        let mut order: Vec<usize> = (0..self.targets.len()).collect();
        order.retain(|it| *it != self.answers);
        order.insert(0, self.answers);
        let mut resume = Some(Resume { converter, goes_on: None });
        for at in order {
            for goes_on in self.ways_to_go_on(at, resume.as_ref()) {
                if self.rescues >= MOST_RESCUES {
                    break;
                }
                self.rescues += 1;
                if let Some(resume) = &mut resume {
                    resume.goes_on = goes_on;
                }
                let attempt = self.attempt(&self.targets[at], &mut resume).await;
                if let Ok(ready) = attempt {
                    self.answers = at;
                    return (self, Ok(ready));
                }
            }
        }
        let way = match resume {
            Some(resume) => Way::Translate(resume.converter),
            // An attempt that fails gives it back.
            None => Way::Translate(Box::new(StreamConverter::new(
                self.ask.front,
                self.ask.front,
                &self.context(),
            ))),
        };
        (self, Err((way, fault)))
    }

    /// How a target may be asked to go on: with the text so far before it, where its models go on from
    /// there, and from the beginning.
    fn ways_to_go_on(&self, at: usize, resume: Option<&Resume>) -> Vec<Option<bytes::Bytes>> {
        let target = &self.targets[at];
        let text = resume
            .and_then(|resume| resume.converter.said().text_only())
            .map(str::trim_end)
            .filter(|text| !text.is_empty() && target.provider.conduct.prefill);
        let body = text.and_then(|text| self.ask.with_answer(text));
        body.map(Some).into_iter().chain([None]).collect()
    }
}

/// Those of a plan, in the order in which they are asked.
pub(super) fn targets(live: &Live, plan: Plan<'_>) -> Vec<Target> {
    let mut targets: Vec<Target> =
        plan.candidates.into_iter().map(|it| target(live, it, false)).collect();
    balance::order(
        &mut targets,
        plan.balance,
        |it| it.weight,
        |it| it.provider.health.of(&it.model).load(),
        rand::random,
    );
    targets
}

fn target(live: &Live, candidate: Candidate<'_>, fallback: bool) -> Target {
    Target {
        provider: live.providers[candidate.provider].clone(),
        model: candidate.model.into_owned(),
        weight: candidate.weight,
        fallback,
        tries: 0,
        again: None,
    }
}

/// The pause before a try: twice as long each time, and never the same for all that wait.
fn pause(base: u64, longest: u64, tries: u32) -> Duration {
    let doubled = base.saturating_mul(1 << tries.saturating_sub(1).min(20)).min(longest);
    let share = 0.5 + rand::random::<f64>() / 2.0;
    Duration::from_millis(doubled).mul_f64(share)
}
