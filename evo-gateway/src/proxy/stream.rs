//! A stream that goes out to a caller: from one provider, and when that breaks off from another one. It
//! never ends as if it were whole when it is not: its last event is an error then, and the connection is
//! cut.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;

use super::{
    answer::Step,
    ending::{Ear, Ending},
    engine::{Engine, Ready, Reply},
    flow::{Fault, Flow, Next, Way, own},
    judge::{Failed, Final},
    watch::Heartbeat,
};
use crate::{
    access::{Entry, Outcome},
    convert::{self, Dialect},
    model::ErrorKind,
};

/// What keeps a stream alive in which nothing is said: a comment, which every reader of events leaves
/// out.
const BEAT: &[u8] = b": keep-alive\n\n";

/// An engine at work, which comes back with what it found.
pub(super) type Work<T> = Pin<Box<dyn Future<Output = (Box<Engine>, T)> + Send>>;
/// What became of a request.
pub(super) type Run = Result<Ready, Failed>;
/// What became of a stream that broke off; the fault is the one that it broke off with.
pub(super) type Rescue = Result<Ready, (Way, Fault)>;

enum State {
    /// Nothing has come yet.
    Asking(Work<Run>),
    /// It comes.
    Flowing(Box<Flow>),
    /// It broke off, and somebody else is asked.
    Rescuing(Work<Rescue>),
    /// The last words are out, and flushed once this task has run again.
    Flush,
    /// Now the connection is cut.
    Cut,
    Ended,
}

/// One stream.
pub(crate) struct Stream {
    state: State,
    front: Dialect,
    /// Something of the answer went out.
    begun: bool,
    /// Asks somebody else.
    engine: Option<Box<Engine>>,
    heartbeat: Option<Heartbeat>,
    /// Hears when the gateway ends.
    ear: Option<Ear>,
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream").field("front", &self.front).finish_non_exhaustive()
    }
}

impl Stream {
    /// One that comes already.
    pub(super) fn flowing(
        flow: Box<Flow>,
        front: Dialect,
        engine: Option<Box<Engine>>,
        heartbeat: Option<Heartbeat>,
    ) -> Self {
        Self { state: State::Flowing(flow), front, begun: false, engine, heartbeat, ear: None }
    }

    /// One whose head goes out before it is known what comes.
    pub(super) fn asking(work: Work<Run>, front: Dialect, heartbeat: Heartbeat) -> Self {
        let heartbeat = Some(heartbeat);
        Self { state: State::Asking(work), front, begun: false, engine: None, heartbeat, ear: None }
    }

    /// Ends it with an error when the gateway can't wait for it any longer.
    pub(crate) fn ends_with(&mut self, ending: &Arc<Ending>) {
        self.ear = Some(Ear::new(ending));
    }

    /// Whether nothing more goes out.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    /// Whether the caller has all of it; see [`Flow::is_said`].
    pub(super) fn is_said(&self) -> bool {
        matches!(&self.state, State::Flowing(flow) if flow.is_said())
    }

    pub(super) fn poll(&mut self, context: &mut Context<'_>, entry: &mut Entry) -> Poll<Step> {
        loop {
            match &mut self.state {
                State::Asking(work) => match work.as_mut().poll(context) {
                    Poll::Pending => return self.beat(context, entry),
                    Poll::Ready((engine, run)) => {
                        entry.take_stock();
                        if let Err(words) = self.begin(engine, run, entry) {
                            return self.last(words, Outcome::Cut, entry);
                        }
                    }
                },
                State::Flowing(flow) => match flow.poll(context, &mut entry.meter) {
                    Poll::Pending => return self.beat(context, entry),
                    Poll::Ready(Next::Data(data)) => {
                        self.begun = true;
                        if let Some(heartbeat) = &mut self.heartbeat {
                            heartbeat.fed();
                        }
                        return Poll::Ready(Step::Data(data));
                    }
                    Poll::Ready(Next::End) => {
                        self.state = State::Ended;
                        return Poll::Ready(Step::End);
                    }
                    Poll::Ready(Next::Failed(fault)) => {
                        let State::Flowing(flow) = std::mem::replace(&mut self.state, State::Ended)
                        else {
                            continue;
                        };
                        let way = flow.into_way();
                        match self.engine.take() {
                            Some(engine) => {
                                self.state = State::Rescuing(Box::pin(engine.rescue(way, fault)));
                            }
                            None => return self.broken(way, fault, entry),
                        }
                    }
                },
                State::Rescuing(work) => match work.as_mut().poll(context) {
                    Poll::Pending => return self.beat(context, entry),
                    Poll::Ready((engine, rescue)) => {
                        let broken_off = entry.facts.failed.len();
                        entry.take_stock();
                        match rescue {
                            Ok(Ready { reply: Reply::Flow(flow), meter, call, .. }) => {
                                // The caller has what was said before, and it was paid for.
                                let used = Some(Box::new(entry.used()));
                                if let Some(before) = entry.facts.failed.get_mut(broken_off) {
                                    before.used = used;
                                }
                                entry.meter = meter;
                                let who = engine.who();
                                entry.choose(&who.provider, &who.model, call);
                                self.engine = Some(engine);
                                self.state = State::Flowing(flow);
                            }
                            // Only streams go on with one.
                            Ok(_) => self.state = State::Flush,
                            Err((way, fault)) => return self.broken(way, fault, entry),
                        }
                    }
                },
                State::Flush => {
                    self.state = State::Cut;
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
                State::Cut => return Poll::Ready(Step::Broken),
                State::Ended => return Poll::Ready(Step::End),
            }
        }
    }

    /// Takes what has come; the error is what the caller is told instead.
    fn begin(&mut self, engine: Box<Engine>, run: Run, entry: &mut Entry) -> Result<(), Bytes> {
        match run {
            Ok(Ready { reply: Reply::Flow(flow), meter, call, .. }) => {
                entry.meter = meter;
                entry.choose(&engine.who().provider, &engine.who().model, call);
                self.engine = engine.for_rescue();
                self.state = State::Flowing(flow);
                Ok(())
            }
            Ok(_) => {
                let message = "The provider sent no stream.";
                Err(convert::own_event(self.front, 502, "upstream_bad_answer", message).into())
            }
            Err(failed) => Err(match failed.last {
                Final::Own(refused) => {
                    let status = refused.status.as_u16();
                    convert::own_event(self.front, status, refused.code, &refused.message).into()
                }
                Final::Theirs(theirs) => theirs.event(self.front).into(),
            }),
        }
    }

    /// The stream broke off and nobody goes on with it: the caller is told so.
    fn broken(&mut self, way: Way, fault: Fault, entry: &mut Entry) -> Poll<Step> {
        let words = match way {
            Way::Pass(_) => convert::last_words(self.front, fault.error, self.begun),
            Way::Translate(mut converter) => {
                let mut words = Vec::new();
                converter.tell(fault.error, &mut words);
                words
            }
        };
        self.last(words.into(), fault.outcome, entry)
    }

    fn last(&mut self, words: Bytes, outcome: Outcome, entry: &mut Entry) -> Poll<Step> {
        entry.outcome = outcome;
        self.state = State::Flush;
        Poll::Ready(Step::Data(words))
    }

    /// The gateway ends and the answer is not whole: the caller is told so.
    fn stopped(&mut self, entry: &mut Entry) -> Poll<Step> {
        let message = "The gateway was stopped before this answer was whole; ask again.";
        let error = own(ErrorKind::Overloaded, "gateway_stopped", message);
        match std::mem::replace(&mut self.state, State::Ended) {
            State::Flowing(flow) => {
                self.broken(flow.into_way(), Fault { outcome: Outcome::Cut, error }, entry)
            }
            _ => {
                let words = convert::last_words(self.front, error, self.begun);
                self.last(words.into(), Outcome::Cut, entry)
            }
        }
    }

    /// Nothing to say: every now and then it is said that there is nothing.
    fn beat(&mut self, context: &mut Context<'_>, entry: &mut Entry) -> Poll<Step> {
        let is_over = self.ear.as_mut().is_some_and(|ear| ear.hears(context));
        if is_over && !self.is_said() {
            return self.stopped(entry);
        }
        let Some(heartbeat) = &mut self.heartbeat else { return Poll::Pending };
        heartbeat.poll(context).map(|()| Step::Data(Bytes::from_static(BEAT)))
    }
}
