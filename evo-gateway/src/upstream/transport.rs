//! How a provider is reached: over HTTP, or by something on this machine that answers as if it were.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;

use super::{BoxError, Client, Failure, SendBody};

/// A future that can move between threads.
pub(crate) type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The head of an answer and what follows, or why there is none and the cause in words, which names no
/// secret.
pub(crate) type Reached = Result<Response<Body>, (Failure, String)>;

/// How long a provider may take until its answer begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Deadlines {
    /// From the request to the head of the answer.
    pub(crate) first_byte: Duration,
}

/// An extension of requests: whoever asks prefers an answer without what can't be done to none. What is left
/// out is named in the answer's `x-evo-dropped`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lenient;

/// Reaches a provider that is no plain HTTP server: a program on this machine, a WebSocket.
///
/// It takes a request in the dialect of the provider's address and answers in the same one, in JSON or,
/// when the request asks for a stream, in server-sent events. So whatever deals with answers (deadlines,
/// retries, translation, accounting) need not know how they came.
///
/// Dropping the future, or later the body, ends everything that was begun for the request: no process,
/// no connection and no file stays open.
pub(crate) trait Transport: fmt::Debug + Send + Sync {
    /// Sends a request and waits for the head of the answer. `client` is the one of the thread that asks.
    fn send<'a>(
        &'a self,
        client: &'a Client,
        request: Request<SendBody>,
        deadlines: Deadlines,
    ) -> BoxFuture<'a, Reached>;
}

/// The body of a provider's answer.
#[derive(Debug)]
pub(crate) enum Body {
    /// As it comes over HTTP.
    Http(Incoming),
    /// As a [`Transport`] gives it.
    Local(UnsyncBoxBody<Bytes, BoxError>),
}

impl From<Incoming> for Body {
    fn from(body: Incoming) -> Self {
        Self::Http(body)
    }
}

impl From<UnsyncBoxBody<Bytes, BoxError>> for Body {
    fn from(body: UnsyncBoxBody<Bytes, BoxError>) -> Self {
        Self::Local(body)
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Self::Http(body) => Pin::new(body)
                .poll_frame(context)
                .map(|frame| frame.map(|it| it.map_err(Into::into))),
            Self::Local(body) => Pin::new(body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http(body) => body.is_end_stream(),
            Self::Local(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http(body) => body.size_hint(),
            Self::Local(body) => body.size_hint(),
        }
    }
}
