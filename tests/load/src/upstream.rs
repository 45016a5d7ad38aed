//! The provider that everything is measured against: it answers at once, always the same.
//!
//! It reads one thing of a request, the model: `stream-COUNT-PAUSE` (with or without a provider's
//! name and a colon before it) is answered with that many chunks with a pause in milliseconds
//! between them, every other model with one whole answer.

use std::{
    convert::Infallible,
    future::{Future as _, poll_fn},
    io::Write as _,
    net::SocketAddr,
    pin::Pin,
    sync::LazyLock,
    task::{Context, Poll},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use hyper::{
    Request, Response,
    body::{Body, Frame, Incoming, SizeHint},
    header::{CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpSocket, TcpStream},
    runtime,
    sync::mpsc,
    task::JoinSet,
    time::{Instant, Sleep},
};

use crate::machine;

/// Connections that may wait to be accepted. All of 500 clients come at once.
const BACKLOG: u32 = 4096;

/// A whole answer as OpenAI gives it.
pub static ANSWER: LazyLock<Bytes> = LazyLock::new(|| {
    let answer = serde_json::json!({
        "id": "chatcmpl-evo-load-000000000000000000",
        "object": "chat.completion",
        "created": 1_790_000_000,
        "model": "chat",
        "system_fingerprint": "fp_evo_load",
        "choices": [{
            "index": 0,
            "message": {
                "role": "assistant",
                "content": "A load generator asks the same question again and again, so the \
                    answer is always the same: a skill is worth keeping when measurements say \
                    that it helps, and worth dropping when they do not.",
                "refusal": null,
            },
            "logprobs": null,
            "finish_reason": "stop",
        }],
        "usage": {
            "prompt_tokens": 211,
            "completion_tokens": 41,
            "total_tokens": 252,
            "prompt_tokens_details": {"cached_tokens": 0},
        },
    });
    Bytes::from(answer.to_string())
});

/// One event of a stream.
static CHUNK: LazyLock<Bytes> = LazyLock::new(|| {
    let chunk = serde_json::json!({
        "id": "chatcmpl-evo-load-000000000000000000",
        "object": "chat.completion.chunk",
        "created": 1_790_000_000,
        "model": "chat",
        "choices": [{"index": 0, "delta": {"content": " measured"}, "finish_reason": null}],
    });
    Bytes::from(format!("data: {chunk}\n\n"))
});

/// The last event of a stream.
const DONE: &[u8] = b"data: [DONE]\n\n";

/// Serves until the process is ended. The first line on standard output is the address.
pub fn serve(listen: SocketAddr) -> Result<()> {
    // One thread accepts and hands connections round, so that each processor gets as many.
    let workers = (0..machine::cores())
        .map(|number| {
            let (sender, receiver) = mpsc::channel::<std::net::TcpStream>(1024);
            thread::Builder::new()
                .name(format!("worker {number}"))
                .spawn(move || work(receiver))
                .context("a thread")?;
            Ok(sender)
        })
        .collect::<Result<Vec<_>>>()?;
    current_thread()?.block_on(accept(listen, &workers))
}

fn current_thread() -> Result<runtime::Runtime> {
    runtime::Builder::new_current_thread().enable_all().build().context("an async runtime")
}

async fn accept(listen: SocketAddr, workers: &[mpsc::Sender<std::net::TcpStream>]) -> Result<()> {
    let socket = if listen.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(listen).with_context(|| format!("can't listen on {listen}"))?;
    let listener = socket.listen(BACKLOG)?;
    writeln!(std::io::stdout(), "{}", listener.local_addr()?).context("standard output")?;
    for worker in workers.iter().cycle() {
        let (stream, _) = listener.accept().await.context("a connection")?;
        stream.set_nodelay(true).context("a connection")?;
        worker.send(stream.into_std()?).await.context("a worker has ended")?;
    }
    Ok(())
}

fn work(mut connections: mpsc::Receiver<std::net::TcpStream>) -> Result<()> {
    current_thread()?.block_on(async {
        let mut open = JoinSet::new();
        loop {
            tokio::select! {
                connection = connections.recv() => match connection {
                    Some(stream) => open.spawn(converse(TcpStream::from_std(stream)?)),
                    None => return Ok(()),
                },
                // A client that goes away in the middle is no matter to a load generator.
                Some(_ended) = open.join_next() => continue,
            };
        }
    })
}

async fn converse(stream: TcpStream) -> hyper::Result<()> {
    http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer)).await
}

async fn answer(request: Request<Incoming>) -> Result<Response<Answer>, Infallible> {
    let mut request = request.into_body();
    // The model stands in the first part of the body whatever its length; the rest is read only
    // so that the connection can be used again.
    let mut first = None;
    while let Some(Ok(frame)) = poll_fn(|cx| Pin::new(&mut request).poll_frame(cx)).await {
        if let (None, Ok(data)) = (&first, frame.into_data()) {
            first = Some(data);
        }
    }
    let (kind, body) = match streamed(&first.unwrap_or_default()) {
        Some((chunks, pause)) => ("text/event-stream", Answer::stream(chunks, pause)),
        None => ("application/json", Answer::Whole(Some(ANSWER.clone()))),
    };
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    Ok(response)
}

/// The chunks and the pause that the model of a request asks for.
fn streamed(body: &[u8]) -> Option<(u32, Duration)> {
    let text = str::from_utf8(body.get(..body.len().min(512))?).ok()?;
    let (_, rest) = text.split_once("\"model\"")?;
    let model = rest.split('"').nth(1)?;
    let (chunks, pause) = model.rsplit(':').next()?.strip_prefix("stream-")?.split_once('-')?;
    Some((chunks.parse().ok()?, Duration::from_millis(pause.parse().ok()?)))
}

/// The body of an answer.
enum Answer {
    /// All at once.
    Whole(Option<Bytes>),
    /// Event by event.
    Stream {
        left: u32,
        pause: Duration,
        /// Runs while the next event is not due.
        sleep: Option<Pin<Box<Sleep>>>,
        done: bool,
    },
}

impl Answer {
    fn stream(chunks: u32, pause: Duration) -> Self {
        let sleep = (!pause.is_zero()).then(|| Box::pin(tokio::time::sleep(Duration::ZERO)));
        Self::Stream { left: chunks, pause, sleep, done: false }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let data = match self.get_mut() {
            Self::Whole(answer) => answer.take(),
            Self::Stream { done: true, .. } => None,
            Self::Stream { left: 0, done, .. } => {
                *done = true;
                Some(Bytes::from_static(DONE))
            }
            Self::Stream { left, pause, sleep, .. } => {
                if let Some(sleep) = sleep {
                    if sleep.as_mut().poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                    // From the time that it was due: a late chunk does not put off the next ones.
                    let due = sleep.deadline() + *pause;
                    sleep.as_mut().reset(due.max(Instant::now()));
                }
                *left -= 1;
                Some(CHUNK.clone())
            }
        };
        Poll::Ready(data.map(|data| Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None) | Self::Stream { done: true, .. })
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(answer) => {
                SizeHint::with_exact(answer.as_ref().map_or(0, Bytes::len) as u64)
            }
            Self::Stream { .. } => SizeHint::default(),
        }
    }
}
