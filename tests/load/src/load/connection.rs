//! One keep-alive connection, driven by the task that uses it.

use std::{
    future::poll_fn,
    net::SocketAddr,
    pin::{Pin, pin},
    task::Poll,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Body as _, Incoming},
    client::conn::http1::{self, SendRequest},
    header::{AUTHORIZATION, CONTENT_TYPE, HOST},
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::Instant};

use super::{current_thread, patiently};
use crate::upstream;

/// A request that is sent again and again, and whom it goes to.
#[derive(Debug, Clone)]
pub struct Call {
    address: SocketAddr,
    request: Request<Full<Bytes>>,
}

impl Call {
    /// A chat completion of about 1 KB. `model` as in [`upstream`].
    pub fn chat(address: SocketAddr, model: &str, token: &str, stream: bool) -> Result<Self> {
        let request = Request::builder()
            .method(Method::POST)
            .uri("/v1/chat/completions")
            .header(HOST, address.to_string())
            .header(CONTENT_TYPE, "application/json")
            .header(AUTHORIZATION, format!("Bearer {token}"))
            .body(Full::new(Bytes::from(body(model, stream))))
            .context("the request")?;
        Ok(Self { address, request })
    }
}

fn body(model: &str, stream: bool) -> String {
    let question = "Which of these skills should be kept, and why? ".repeat(16);
    let body = serde_json::json!({
        "model": model,
        "messages": [
            {"role": "system", "content": "You are a careful reviewer. Answer in one sentence."},
            {"role": "user", "content": question},
        ],
        "temperature": 0.7,
        "max_tokens": 256,
        "stream": stream,
    });
    body.to_string()
}

/// A keep-alive connection to a target.
pub struct Connection {
    call: Call,
    link: Link,
}

struct Link {
    sender: SendRequest<Full<Bytes>>,
    driver: Pin<Box<http1::Connection<TokioIo<TcpStream>, Full<Bytes>>>>,
    ended: bool,
}

impl Link {
    async fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await.with_context(|| format!("{address}"))?;
        stream.set_nodelay(true)?;
        let (sender, driver) = http1::handshake(TokioIo::new(stream)).await?;
        Ok(Self { sender, driver: Box::pin(driver), ended: false })
    }

    /// Sends the request and gives every part of the answer's body to `part`.
    async fn exchange(
        &mut self,
        request: Request<Full<Bytes>>,
        mut part: impl FnMut(&Bytes),
    ) -> Result<Response<()>> {
        let Self { sender, driver, ended } = self;
        let mut exchange = pin!(async {
            sender.ready().await?;
            let (head, mut body) = sender.send_request(request).await?.into_parts();
            while let Some(frame) = next_frame(&mut body).await {
                if let Ok(data) = frame?.into_data() {
                    part(&data);
                }
            }
            anyhow::Ok(Response::from_parts(head, ()))
        });
        poll_fn(|cx| {
            if let Poll::Ready(answer) = exchange.as_mut().poll(cx) {
                return Poll::Ready(answer);
            }
            // Its error, if it ends with one, is the exchange's error too.
            if !*ended && driver.as_mut().poll(cx).is_ready() {
                *ended = true;
            }
            exchange.as_mut().poll(cx)
        })
        .await
    }
}

async fn next_frame(body: &mut Incoming) -> Option<hyper::Result<hyper::body::Frame<Bytes>>> {
    poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await
}

impl Connection {
    /// Connects.
    pub async fn open(call: &Call) -> Result<Self> {
        let link = patiently(Link::open(call.address)).await?;
        Ok(Self { call: call.clone(), link })
    }

    /// Asks once and reads the whole answer. A connection that the server has closed meanwhile,
    /// as a server may, is opened anew.
    pub async fn ask(&mut self, mut part: impl FnMut(&Bytes)) -> Result<()> {
        patiently(async {
            if self.link.ended || self.link.sender.is_closed() {
                self.link = Link::open(self.call.address).await?;
            }
            let mut start = Vec::new();
            let answer = self
                .link
                .exchange(self.call.request.clone(), |data| {
                    if start.is_empty() {
                        start.extend_from_slice(&data[..data.len().min(300)]);
                    }
                    part(data);
                })
                .await?;
            ensure!(
                answer.status() == StatusCode::OK,
                "status {}: {}",
                answer.status(),
                String::from_utf8_lossy(&start)
            );
            Ok(())
        })
        .await
        .inspect_err(|_| self.link.ended = true)
    }
}

/// Asks until the answer is the upstream's own, word for word. Fails when it is not within the
/// deadline; `alive` is asked between tries.
pub fn probe(call: &Call, deadline: Duration, mut alive: impl FnMut() -> Result<()>) -> Result<()> {
    let start = Instant::now();
    let runtime = current_thread()?;
    loop {
        let answer = runtime.block_on(async {
            let mut answer = Vec::new();
            Connection::open(call).await?.ask(|data| answer.extend_from_slice(data)).await?;
            if answer != *upstream::ANSWER {
                bail!("not the upstream's answer: {}", String::from_utf8_lossy(&answer));
            }
            Ok(())
        });
        match answer {
            Ok(()) => return Ok(()),
            Err(error) if start.elapsed() > deadline => return Err(error),
            Err(_) => {
                alive()?;
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}
