//! A lean Socket.IO connection over a websocket: what it costs must not be what is measured.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, bail, ensure};
use futures_util::{FutureExt as _, SinkExt as _, StreamExt as _};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Message, Utf8Bytes},
};

use super::PATIENCE;

/// Engine.IO and Socket.IO packets that occur here.
const OPEN: &str = "0";
const PING: &str = "2";
const PONG: &str = "3";
const CONNECT: &str = "40";
const EVENT: &str = "42";
const CONNECT_ERROR: &str = "44";

/// One connection to king's namespace `/`.
pub struct Socket {
    stream: WebSocketStream<TcpStream>,
}

/// An event with its first argument as text.
pub struct Event(Utf8Bytes);

impl Event {
    /// Its name and its payload.
    pub fn parts(&self) -> Result<(&str, &str)> {
        #[derive(Deserialize)]
        struct Packet<'p>(&'p str, #[serde(borrow)] &'p RawValue);
        let text = self.0.as_str().strip_prefix(EVENT).context("not an event")?;
        let Packet(name, payload) =
            serde_json::from_str(text).with_context(|| format!("an event: {text}"))?;
        Ok((name, payload.get()))
    }
}

impl Socket {
    /// Connects and joins the namespace.
    pub async fn open(address: SocketAddr, token: &str) -> Result<Self> {
        timeout(PATIENCE, Self::try_open(address, token)).await.context("king lets nobody in")?
    }

    async fn try_open(address: SocketAddr, token: &str) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let url = format!("ws://{address}/socket.io/?EIO=4&transport=websocket");
        let (stream, _) = client_async(url, stream).await.context("the websocket")?;
        let mut socket = Self { stream };
        let open = socket.packet().await?;
        ensure!(open.as_str().starts_with(OPEN), "unexpected first packet: {open}");
        let auth = serde_json::json!({ "token": token });
        socket.queue(format!("{CONNECT}{auth}")).await?;
        socket.flush().await?;
        loop {
            let packet = socket.packet().await?;
            match packet.as_str() {
                text if text.starts_with(CONNECT) => return Ok(socket),
                text if text.starts_with(CONNECT_ERROR) => bail!("king refuses: {text}"),
                PING => socket.pong().await?,
                _ => {}
            }
        }
    }

    /// The next event. Can be cancelled without losing anything.
    pub async fn next(&mut self) -> Result<Event> {
        loop {
            let packet = self.packet().await?;
            if let Some(event) = self.event(packet).await? {
                return Ok(event);
            }
        }
    }

    /// The next event, if it has come already.
    pub async fn next_here(&mut self) -> Result<Option<Event>> {
        while let Some(message) = self.stream.next().now_or_never() {
            let packet = text_of(message)?;
            if let Some(packet) = packet
                && let Some(event) = self.event(packet).await?
            {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    async fn event(&mut self, packet: Utf8Bytes) -> Result<Option<Event>> {
        match packet.as_str() {
            text if text.starts_with(EVENT) => return Ok(Some(Event(packet))),
            PING => self.pong().await?,
            "1" | "41" => bail!("king closed the connection"),
            _ => {}
        }
        Ok(None)
    }

    async fn pong(&mut self) -> Result<()> {
        self.queue(PONG.to_owned()).await?;
        self.flush().await
    }

    async fn packet(&mut self) -> Result<Utf8Bytes> {
        loop {
            if let Some(text) = text_of(self.stream.next().await)? {
                return Ok(text);
            }
        }
    }

    /// Puts an event into the buffer. `payload` is JSON.
    pub async fn emit(&mut self, event: &str, payload: &str) -> Result<()> {
        self.queue(format!("{EVENT}[\"{event}\",{payload}]")).await
    }

    async fn queue(&mut self, packet: String) -> Result<()> {
        self.stream.feed(Message::text(packet)).await.context("the connection broke")
    }

    /// Sends what is in the buffer.
    pub async fn flush(&mut self) -> Result<()> {
        self.stream.flush().await.context("the connection broke")
    }
}

/// The text of a message; none of a websocket's own frames.
fn text_of(
    message: Option<Result<Message, tokio_tungstenite::tungstenite::Error>>,
) -> Result<Option<Utf8Bytes>> {
    match message.context("the connection ended")?.context("the connection broke")? {
        Message::Text(text) => Ok(Some(text)),
        Message::Close(_) => bail!("king closed the connection"),
        _ => Ok(None),
    }
}
