//! A provider's stream of events on its way to the caller, in whole events of the caller's protocol.

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::Body as _;

use super::{passing::Passing, watch::Watch};
use crate::{
    access::Outcome,
    convert::{Dialect, Elements, StreamConverter},
    model::{ApiError, ErrorKind},
    provider::health::Permit,
    upstream::Body,
    usage::meter::Meter,
};

/// How long a provider may take to end a stream after its last event. Its connection can be used again
/// only after that.
const LINGER: Duration = Duration::from_secs(1);
/// How much may come before the first content.
const LONGEST_BEGINNING: usize = 256 * 1024;

/// What went wrong inside a stream.
#[derive(Debug, Clone)]
pub(super) struct Fault {
    /// For the log.
    pub(super) outcome: Outcome,
    /// For the caller.
    pub(super) error: ApiError,
}

/// A step of a stream.
#[derive(Debug)]
pub(super) enum Next {
    Data(Bytes),
    End,
    Failed(Fault),
}

/// How events get from one side to the other.
#[derive(Debug)]
pub(super) enum Way {
    /// As they are.
    Pass(Passing),
    /// Translated.
    Translate(Box<StreamConverter>),
}

/// One stream.
#[derive(Debug)]
pub(super) struct Flow {
    body: Body,
    watch: Watch,
    way: Way,
    front: Dialect,
    /// Of a caller that wants no events.
    elements: Option<Elements>,
    /// What is ready to go out.
    out: VecDeque<Bytes>,
    /// Bytes in there, as long as there is no content.
    held: usize,
    begun: bool,
    ended: bool,
    failed: Option<Fault>,
    permit: Permit,
}

impl Flow {
    /// A stream whose head has come.
    pub(super) fn new(body: Body, watch: Watch, way: Way, front: Dialect, permit: Permit) -> Self {
        Self {
            body,
            watch,
            elements: Elements::for_caller(front).filter(|_| matches!(way, Way::Pass(_))),
            way,
            front,
            out: VecDeque::new(),
            held: 0,
            begun: false,
            ended: false,
            failed: None,
            permit,
        }
    }

    /// Ready as soon as there is content, or it is known that there will be none.
    pub(super) fn poll_begin(
        &mut self,
        context: &mut Context<'_>,
        meter: &mut Meter,
    ) -> Poll<Result<(), Fault>> {
        loop {
            if self.begun {
                return Poll::Ready(Ok(()));
            }
            if let Some(fault) = self.failed.take() {
                return Poll::Ready(Err(fault));
            }
            std::task::ready!(self.read(context, meter));
        }
    }

    /// The answer begins to go out, `after` so long.
    pub(super) fn begins(&mut self, after: Duration) {
        self.permit.began(after);
    }

    /// The next step.
    pub(super) fn poll(&mut self, context: &mut Context<'_>, meter: &mut Meter) -> Poll<Next> {
        loop {
            if let Some(data) = self.out.pop_front() {
                return Poll::Ready(Next::Data(data));
            }
            if let Some(fault) = self.failed.take() {
                return Poll::Ready(Next::Failed(fault));
            }
            if self.ended {
                self.permit.ended();
                return Poll::Ready(Next::End);
            }
            std::task::ready!(self.read(context, meter));
        }
    }

    /// Whether all of the answer went out, with its end mark: many callers leave then, before the provider
    /// has closed the stream.
    pub(super) fn is_said(&self) -> bool {
        let is_over = match &self.way {
            Way::Pass(passing) => passing.seen().ended && self.elements.is_none(),
            Way::Translate(converter) => converter.is_over(),
        };
        is_over && self.out.is_empty() && self.failed.is_none()
    }

    /// What has to be known to go on elsewhere: what passed, or the translation as it is.
    pub(super) fn into_way(self) -> Way {
        self.way
    }

    /// Reads once. Afterwards there is something to go out, or an end, or neither.
    fn read(&mut self, context: &mut Context<'_>, meter: &mut Meter) -> Poll<()> {
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) else {
            std::task::ready!(self.watch.poll(context));
            self.silent();
            return Poll::Ready(());
        };
        match frame {
            None => self.over(None),
            Some(Err(error)) => self.over(Some(&error.to_string())),
            Some(Ok(frame)) => {
                self.watch.fed();
                match frame.into_data() {
                    Ok(data) if !data.is_empty() => {
                        meter.feed(&data);
                        self.take(data);
                    }
                    // Trailers say nothing to a caller.
                    _ => {}
                }
            }
        }
        Poll::Ready(())
    }

    fn take(&mut self, data: Bytes) {
        let (content, over) = match &mut self.way {
            Way::Pass(passing) => {
                let (data, result) = passing.push(data);
                let seen = passing.seen();
                self.pass(data);
                if let Err(error) = result {
                    return self.fail(error);
                }
                (seen.content, seen.ended)
            }
            Way::Translate(converter) => {
                let mut out = Vec::new();
                let result = converter.push(&data, &mut out);
                let (content, over) = (converter.has_content(), converter.is_over());
                self.send(out.into());
                if let Err(error) = result {
                    return self.fail(error);
                }
                (content, over)
            }
        };
        if !self.begun && (content || self.held > LONGEST_BEGINNING) {
            self.begun = true;
            self.watch.begun();
        }
        if over {
            self.watch.hurry(LINGER);
        }
    }

    /// The provider sends nothing more, in order or not.
    fn over(&mut self, broken: Option<&str>) {
        self.ended = true;
        let whole = match &mut self.way {
            Way::Pass(passing) => {
                let (rest, whole) = passing.finish();
                let seen = passing.seen();
                self.pass(rest);
                if whole && broken.is_some() && !seen.ended {
                    // The answer is whole, but nobody can see it without the mark.
                    let mark = self.front.end_event().map(Bytes::from_static);
                    self.send(mark.unwrap_or_default());
                }
                let end = self.elements.as_mut().filter(|_| whole).map(Elements::end);
                self.send(end.unwrap_or_default().into());
                if whole { Ok(()) } else { Err(None) }
            }
            Way::Translate(converter) => {
                let mut out = Vec::new();
                let result = converter.finish(&mut out);
                self.send(out.into());
                result.map_err(Some)
            }
        };
        self.begun |= whole.is_ok();
        if let Err(error) = whole {
            let message = "The provider broke off inside its answer.";
            let error = error.unwrap_or_else(|| own(ErrorKind::Internal, "upstream_cut", message));
            self.fail(error);
        }
    }

    /// Nothing came for too long.
    fn silent(&mut self) {
        let settled = match &self.way {
            Way::Pass(passing) => passing.is_settled(),
            Way::Translate(converter) => converter.is_settled(),
        };
        if settled {
            return self.over(Some("silent"));
        }
        let (kind, time) = (ErrorKind::Timeout, self.watch.allowed().as_millis());
        let (code, message) = if self.watch.is_over() {
            ("upstream_timeout", "The provider took too long for its answer.".to_owned())
        } else if self.begun {
            let message = format!("The provider fell silent for {time} ms inside its answer.");
            ("upstream_idle_timeout", message)
        } else {
            let message = "The provider's answer had no content in time.".to_owned();
            ("upstream_content_timeout", message)
        };
        self.failed = Some(Fault { outcome: Outcome::TimedOut, error: own(kind, code, &message) });
        self.ended = true;
        self.permit.failed();
    }

    fn fail(&mut self, error: ApiError) {
        if matches!(error.kind, ErrorKind::Internal | ErrorKind::Timeout | ErrorKind::Overloaded) {
            self.permit.failed();
        }
        self.failed = Some(Fault { outcome: Outcome::Cut, error });
        self.ended = true;
    }

    /// Sends events of the provider.
    fn pass(&mut self, events: Bytes) {
        let data = match &mut self.elements {
            Some(elements) => elements.push(&events).into(),
            None => events,
        };
        self.send(data);
    }

    fn send(&mut self, data: Bytes) {
        if !data.is_empty() {
            self.held += if self.begun { 0 } else { data.len() };
            self.out.push_back(data);
        }
    }
}

/// An error of the gateway's own inside a stream.
pub(super) fn own(kind: ErrorKind, code: &str, message: &str) -> ApiError {
    ApiError { kind, message: message.to_owned(), code: Some(code.to_owned()), param: None }
}
