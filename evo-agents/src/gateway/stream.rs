//! An answer as it comes: server-sent events, split on bytes, so that no character is cut.

use std::{collections::VecDeque, pin::Pin, time::Duration};

use bytes::Bytes;
use evo_common::stage::ModelUsage;
use futures_util::{Stream, StreamExt as _};
use tokio::time::{Instant, timeout_at};

use super::{
    ChatAnswer, Deadline, Error, GatewayClient, ModelInfo, record,
    wire::{self, Calls, Tokens},
};
use crate::skill::egress;

/// How long a stream may say nothing.
const IDLE: Duration = Duration::from_secs(60);
/// Largest event.
const MAX_EVENT: usize = 1024 * 1024;
/// Longest answer.
const MAX_TEXT: usize = 4 * 1024 * 1024;
/// The last event's data.
const END: &str = "[DONE]";

/// An answer that comes piece by piece. Dropping it ends the call.
pub struct ChatStream {
    chunks: Pin<Box<dyn Stream<Item = reqwest::Result<Bytes>> + Send>>,
    events: Events,
    client: GatewayClient,
    model: ModelInfo,
    deadline: Deadline,
    idle: Duration,
    span: tracing::Span,
    text: String,
    calls: Calls,
    tokens: Option<Tokens>,
    finish_reason: Option<String>,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// The answer is complete.
    Ended,
    /// An error was given; there is nothing more.
    Failed,
}

impl std::fmt::Debug for ChatStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChatStream")
            .field("model", &self.model.id)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

impl ChatStream {
    pub(super) fn new(
        response: reqwest::Response,
        client: GatewayClient,
        model: ModelInfo,
        deadline: Deadline,
        span: tracing::Span,
    ) -> Self {
        Self {
            chunks: Box::pin(response.bytes_stream()),
            events: Events::default(),
            client,
            model,
            deadline,
            idle: IDLE,
            span,
            text: String::new(),
            calls: Calls::default(),
            tokens: None,
            finish_reason: None,
            state: State::Open,
        }
    }

    /// Ends the stream when it says nothing for this long instead of a minute.
    #[must_use]
    pub fn idle_timeout(mut self, idle: Duration) -> Self {
        self.idle = idle;
        self
    }

    /// The next piece of text; [`None`] after the last one. After an error there is nothing more.
    /// What the model calls is in the whole answer only: half a call is good for nothing.
    pub async fn next(&mut self) -> Option<Result<String, Error>> {
        while self.state == State::Open {
            match self.step().await {
                Ok(Some(text)) => return Some(Ok(text)),
                Ok(None) => {}
                Err(error) => {
                    self.end(State::Failed);
                    return Some(Err(error));
                }
            }
        }
        None
    }

    /// Waits for the rest and gives the whole answer.
    pub async fn collect(mut self) -> Result<ChatAnswer, Error> {
        while let Some(piece) = self.next().await {
            piece?;
        }
        self.finish()
    }

    /// What the call came to so far, as far as the provider has said.
    pub fn usage(&self) -> ModelUsage {
        self.tokens.as_ref().map_or_else(wire::uncounted, |tokens| tokens.of_call(&self.model))
    }

    /// The answer, once [`ChatStream::next`] has given [`None`].
    pub fn finish(mut self) -> Result<ChatAnswer, Error> {
        if self.state != State::Ended {
            return Err(Error::Malformed("the stream was not read to its end".to_owned()));
        }
        let calls = std::mem::take(&mut self.calls).finish()?;
        let (text, finish_reason) = (std::mem::take(&mut self.text), self.finish_reason.take());
        wire::whole(text, calls, &self.model, self.usage(), finish_reason)
    }

    /// Takes one event in.
    async fn step(&mut self) -> Result<Option<String>, Error> {
        let data = match self.events.next()? {
            Some(data) => data,
            None => match self.chunk().await? {
                Some(chunk) => {
                    self.events.push(&chunk);
                    return Ok(None);
                }
                None => match self.events.last() {
                    // Half an event is one that the end of the connection cut.
                    Ok(Some(data)) if data.trim() == END || wire::event(&data).is_ok() => data,
                    _ if self.finish_reason.is_some() => END.to_owned(),
                    _ => {
                        let length = self.text.len();
                        let message = format!("the stream was cut after {length} bytes of text");
                        return Err(self.client.unavailable(message));
                    }
                },
            },
        };
        if data.trim() == END {
            self.end(State::Ended);
            return Ok(None);
        }
        let event = wire::event(&data)?;
        self.tokens = event.tokens.or(self.tokens.take());
        self.finish_reason = event.finish_reason.or(self.finish_reason.take());
        for part in event.calls {
            self.calls.add(part)?;
        }
        let Some(text) = event.text.filter(|text| !text.is_empty()) else { return Ok(None) };
        if self.text.len() + text.len() > MAX_TEXT {
            return Err(Error::Malformed(format!("it is longer than {MAX_TEXT} bytes")));
        }
        self.text.push_str(&text);
        Ok(Some(text))
    }

    async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        let quiet_until = Instant::now() + self.idle;
        match timeout_at(quiet_until.min(self.deadline.at), self.chunks.next()).await {
            Ok(Some(Ok(chunk))) => Ok(Some(chunk)),
            Ok(Some(Err(error))) => Err(self.client.unavailable(egress::describe(&error))),
            Ok(None) => Ok(None),
            Err(_) if quiet_until < self.deadline.at => {
                let ms = u64::try_from(self.idle.as_millis()).unwrap_or(u64::MAX);
                Err(Error::Deadline { ms })
            }
            Err(_) => Err(self.deadline.error()),
        }
    }

    fn end(&mut self, state: State) {
        self.state = state;
        let usage = self.usage();
        record(&self.span, &usage);
        self.client.count(&usage);
    }
}

impl Drop for ChatStream {
    fn drop(&mut self) {
        // A call that nobody waited for counts as well.
        if self.state == State::Open {
            self.end(State::Failed);
        }
    }
}

/// Server-sent events out of bytes. Lines end at CR, LF or both, never at what else Unicode calls
/// a line end; a text is decoded once its event is whole.
#[derive(Debug, Default)]
struct Events {
    line: Vec<u8>,
    data: Vec<u8>,
    has_data: bool,
    after_cr: bool,
    ready: VecDeque<Result<String, Error>>,
    too_large: bool,
}

impl Events {
    fn push(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            let after_cr = std::mem::take(&mut self.after_cr);
            match byte {
                b'\n' if after_cr => {}
                b'\n' | b'\r' => {
                    self.after_cr = byte == b'\r';
                    self.end_line();
                }
                _ if self.line.len() + self.data.len() >= MAX_EVENT => self.too_large = true,
                _ => self.line.push(byte),
            }
        }
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        if line.is_empty() {
            self.end_event();
        } else if let Some(data) = line.strip_prefix(b"data:") {
            if self.has_data {
                self.data.push(b'\n');
            }
            self.has_data = true;
            self.data.extend_from_slice(data.strip_prefix(b" ").unwrap_or(data));
        }
    }

    fn end_event(&mut self) {
        let data = std::mem::take(&mut self.data);
        if std::mem::take(&mut self.has_data) {
            let text = String::from_utf8(data).map_err(|error| {
                Error::Malformed(format!("an event of the stream is no UTF-8 text: {error}"))
            });
            self.ready.push_back(text);
        }
    }

    /// The next whole event's data.
    fn next(&mut self) -> Result<Option<String>, Error> {
        match self.ready.pop_front() {
            Some(event) => event.map(Some),
            None if self.too_large => Err(Error::Malformed(format!(
                "an event of the stream is larger than {MAX_EVENT} bytes"
            ))),
            None => Ok(None),
        }
    }

    /// What is left when no more bytes come: a last event without the empty line behind it.
    fn last(&mut self) -> Result<Option<String>, Error> {
        if !self.line.is_empty() {
            self.end_line();
        }
        self.end_event();
        self.next()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(parts: &[&[u8]]) -> Vec<String> {
        let mut events = Events::default();
        for part in parts {
            events.push(part);
        }
        let mut found = Vec::new();
        while let Some(event) = events.next().unwrap() {
            found.push(event);
        }
        while let Some(event) = events.last().unwrap() {
            found.push(event);
        }
        found
    }

    #[test]
    fn events_end_at_an_empty_line_however_lines_end() {
        for text in
            ["data: a\n\ndata:b\n\n", "data: a\r\n\r\ndata:b\r\n\r\n", "data: a\r\rdata:b\r\r"]
        {
            assert_eq!(read(&[text.as_bytes()]), ["a", "b"], "{text:?}");
        }
        let text = ": comment\nevent: x\ndata: one\ndata: two\n\nid: 7\n\ndata: last";
        assert_eq!(read(&[text.as_bytes()]), ["one\ntwo", "last"]);
        assert_eq!(read(&["data: a\u{2028}b\u{85}c\n\n".as_bytes()]), ["a\u{2028}b\u{85}c"]);
    }

    #[test]
    fn what_is_no_text_or_too_large_is_refused() {
        let mut events = Events::default();
        events.push(b"data: \xff\n\n");
        assert!(
            matches!(events.next(), Err(Error::Malformed(message)) if message.contains("UTF-8"))
        );
        let mut events = Events::default();
        events.push(&vec![b'x'; MAX_EVENT + 1]);
        assert!(
            matches!(events.next(), Err(Error::Malformed(message)) if message.contains("larger"))
        );
    }

    proptest! {
        #[test]
        fn no_cut_changes_an_event(texts in prop::collection::vec("[^\r\n]{1,30}", 1..5), cut in 1_usize..9) {
            let mut stream = String::new();
            for text in &texts {
                stream.push_str(&format!("data: {text}\r\n\r\n"));
            }
            let parts: Vec<&[u8]> = stream.as_bytes().chunks(cut).collect();
            prop_assert_eq!(read(&parts), texts);
        }
    }
}
