//! The few requests about what is measured, on one connection that stays open.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use serde::de::DeserializeOwned;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection to a service.
pub struct Client {
    stream: TcpStream,
    address: SocketAddr,
    token: String,
    buffer: Vec<u8>,
}

impl Client {
    /// Connects.
    pub async fn open(address: SocketAddr, token: &str) -> Result<Self> {
        let stream = TcpStream::connect(address).await.with_context(|| address.to_string())?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, address, token: token.to_owned(), buffer: Vec::new() })
    }

    /// Gets `path` and reads the JSON of the answer.
    pub async fn get<T: DeserializeOwned>(&mut self, path: &str) -> Result<T> {
        self.ask("GET", path, "").await
    }

    /// Posts `body` to `path` and reads the JSON of the answer.
    pub async fn post<T: DeserializeOwned>(&mut self, path: &str, body: &str) -> Result<T> {
        self.ask("POST", path, body).await
    }

    async fn ask<T: DeserializeOwned>(
        &mut self,
        method: &str,
        path: &str,
        body: &str,
    ) -> Result<T> {
        let answer = timeout(PATIENCE, self.exchange(method, path, body));
        let (status, range) =
            answer.await.with_context(|| format!("{method} {path} has no answer"))??;
        let body = &self.buffer[range];
        if !(200..300).contains(&status) {
            bail!("{method} {path}: status {status}: {}", String::from_utf8_lossy(body));
        }
        serde_json::from_slice(body).with_context(|| format!("{method} {path}"))
    }

    /// The status, and where in the buffer the body is.
    async fn exchange(
        &mut self,
        method: &str,
        path: &str,
        body: &str,
    ) -> Result<(u16, std::ops::Range<usize>)> {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            self.address,
            self.token,
            body.len()
        );
        self.stream.write_all(request.as_bytes()).await?;
        self.buffer.clear();
        let end_of_head = loop {
            if let Some(at) = find(&self.buffer, b"\r\n\r\n") {
                break at + 4;
            }
            self.more().await?;
        };
        let head = std::str::from_utf8(&self.buffer[..end_of_head]).context("the answer's head")?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        let length: usize = head
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
            .and_then(|(_, value)| value.trim().parse().ok())
            .context("an answer without content-length")?;
        let status = status.context("an answer without a status")?;
        while self.buffer.len() < end_of_head + length {
            self.more().await?;
        }
        Ok((status, end_of_head..end_of_head + length))
    }

    async fn more(&mut self) -> Result<()> {
        let read = self.stream.read_buf(&mut self.buffer).await?;
        ensure!(read > 0, "the connection was closed");
        Ok(())
    }
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}
