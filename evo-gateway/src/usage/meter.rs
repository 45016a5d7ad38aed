//! Reads out of a passing answer how many tokens it took. The bytes are looked at and never changed, and
//! nothing of them is parsed before the end: while they pass, a search for one word is all that it costs.
//!
//! A word between quotes that no backslash stands before is a key or a value of the JSON itself, never
//! part of what the model said, as quotes within texts are escaped. How deep a key stands follows from
//! the brackets behind it, so that what stands before need not be read.

use std::sync::LazyLock;

use super::counts::Counts;
use crate::model::Usage;
use memchr::memmem::Finder;

/// How the key begins that holds the counts: `"usage"`, `"usageMetadata"`.
static KEY: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"usage"));
const KEY_LENGTH: usize = 6;
/// How much of an answer's end is kept, at least.
const TAIL: usize = 8 * 1024;
/// How much of an answer's beginning is kept for a trace.
const HEAD: usize = 4 * 1024;
/// How long the rest of an event may be that holds the counts.
const LONGEST_EVENT: usize = 64 * 1024;
/// How deep in its event the key may stand: on top, or in the answer that the event is about.
const DEEPEST: i32 = 2;
/// Bytes of an event for every token of a stream that does not tell its counts.
const LINES_PER_EVENT: u64 = 2;

/// What an answer looks like.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It is not looked at: compressed, or an error.
    #[default]
    Ignored,
    /// One JSON document.
    Whole,
    /// Lines, each of which may hold a JSON document.
    Events,
}

/// Watches one answer.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    kind: Kind,
    /// Of a whole answer its end; of events the one that is being collected, from the key on.
    buffer: Vec<u8>,
    collecting: bool,
    /// The last bytes, in which a key may have begun.
    carry: [u8; KEY_LENGTH - 1],
    carried: usize,
    counts: Counts,
    has_counts: bool,
    bytes: u64,
    lines: u64,
    trace: Option<Box<Trace>>,
}

/// What is kept for a trace.
#[derive(Debug, Default)]
struct Trace {
    head: Vec<u8>,
    tail: Vec<u8>,
}

/// What an answer tells besides its counts.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    /// The model that answered, in its own words.
    pub(crate) model: Option<String>,
    /// Why it ended.
    pub(crate) finish: Option<String>,
}

impl Meter {
    /// Watches an answer from now on, instead of what came before it. `traced` keeps what
    /// [`told`](Self::told) needs.
    pub(crate) fn begin(&mut self, kind: Kind, traced: bool) {
        *self = Self { kind, trace: traced.then(Box::default), ..Self::default() };
    }

    /// The next bytes.
    pub(crate) fn feed(&mut self, data: &[u8]) {
        self.bytes += data.len() as u64;
        if let Some(trace) = &mut self.trace {
            let room = HEAD.saturating_sub(trace.head.len()).min(data.len());
            trace.head.extend_from_slice(&data[..room]);
            keep_tail(&mut trace.tail, data);
        }
        match self.kind {
            Kind::Ignored => {}
            Kind::Whole => keep_tail(&mut self.buffer, data),
            Kind::Events => self.search(data),
        }
    }

    /// Searches for the key, and collects from there to the end of its line.
    fn search(&mut self, mut data: &[u8]) {
        self.lines += memchr::memchr_iter(b'\n', data).count() as u64;
        loop {
            if self.collecting {
                let Some(end) = memchr::memchr2(b'\n', b'\r', data) else {
                    self.collect(data);
                    return;
                };
                self.collect(&data[..end]);
                data = &data[end..];
                if std::mem::take(&mut self.collecting) {
                    self.read_buffer();
                }
                self.buffer.clear();
                self.carried = 0;
                continue;
            }
            // The key may have begun in the bytes before.
            if self.carried > 0 {
                let mut joint = [0; 2 * (KEY_LENGTH - 1)];
                let fresh = data.len().min(KEY_LENGTH - 1);
                joint[..self.carried].copy_from_slice(&self.carry[..self.carried]);
                joint[self.carried..self.carried + fresh].copy_from_slice(&data[..fresh]);
                if let Some(at) = KEY.find(&joint[..self.carried + fresh]) {
                    self.collecting = true;
                    self.buffer.extend_from_slice(&joint[at..self.carried]);
                    self.carried = 0;
                    continue;
                }
            }
            let Some(at) = KEY.find(data) else {
                self.carry(data);
                return;
            };
            self.carried = 0;
            let rest = &data[at + KEY_LENGTH..];
            // Many streams say in each event that there is no usage yet.
            if rest.starts_with(b"\":null") {
                data = rest;
                continue;
            }
            self.collecting = true;
            data = &data[at..];
        }
    }

    fn carry(&mut self, data: &[u8]) {
        const LENGTH: usize = KEY_LENGTH - 1;
        if data.len() >= LENGTH {
            self.carry.copy_from_slice(&data[data.len() - LENGTH..]);
            self.carried = LENGTH;
            return;
        }
        let mut both = [0; 2 * LENGTH];
        both[..self.carried].copy_from_slice(&self.carry[..self.carried]);
        both[self.carried..self.carried + data.len()].copy_from_slice(data);
        let all = self.carried + data.len();
        let from = all.saturating_sub(LENGTH);
        self.carried = all - from;
        self.carry[..self.carried].copy_from_slice(&both[from..all]);
    }

    fn collect(&mut self, data: &[u8]) {
        self.buffer.extend_from_slice(data);
        while self.buffer.len() > LONGEST_EVENT {
            // The first key was another one's: a later one may be it.
            match KEY.find(&self.buffer[KEY_LENGTH..]) {
                Some(at) => drop(self.buffer.drain(..at + KEY_LENGTH)),
                None => {
                    let end = std::mem::take(&mut self.buffer);
                    self.carried = 0;
                    self.carry(&end);
                    self.collecting = false;
                    return;
                }
            }
        }
    }

    /// Reads the counts out of what was collected: the last that stand where they should.
    fn read_buffer(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        for at in KEY.find_iter(&buffer) {
            if let Some(counts) = object_at(&buffer[at..]) {
                self.has_counts |= self.counts.add(counts);
            }
        }
        self.buffer = buffer;
    }

    /// The counts at the end of the answer, and whether they had to be estimated. `asked` is the
    /// estimate of the question.
    pub(crate) fn usage(&mut self, asked: u64) -> (Usage, bool) {
        if self.kind == Kind::Whole || self.collecting {
            self.read_buffer();
        }
        let mut usage = self.counts.usage();
        if self.has_counts && self.counts.is_whole() {
            return (usage, false);
        }
        if !self.has_counts {
            usage.output_tokens = match self.kind {
                Kind::Ignored => 0,
                Kind::Whole => super::estimate::tokens_of(self.bytes),
                Kind::Events => self.lines / LINES_PER_EVENT,
            };
        }
        usage.input_tokens = asked;
        (usage, true)
    }

    /// What else the answer told; nothing unless it was traced.
    pub(crate) fn told(&self) -> Told {
        let Some(trace) = &self.trace else { return Told::default() };
        let model = ["model", "modelVersion"];
        let model = model.iter().find_map(|key| first_text(&trace.head, key));
        let finish = ["finish_reason", "stop_reason", "finishReason"];
        let finish = finish.iter().find_map(|key| last_text(&trace.tail, key));
        Told { model: model.or_else(|| last_text(&trace.tail, "modelVersion")), finish }
    }
}

fn keep_tail(tail: &mut Vec<u8>, data: &[u8]) {
    let data = &data[data.len().saturating_sub(2 * TAIL)..];
    if tail.len() + data.len() > 2 * TAIL {
        tail.drain(..tail.len().saturating_sub(TAIL));
    }
    tail.extend_from_slice(data);
    if tail.len() > 2 * TAIL {
        tail.drain(..tail.len() - 2 * TAIL);
    }
}

/// The counts that are the value of the key at the beginning of the text, if the key stands high enough
/// in its document, whose end is the text's.
fn object_at(text: &[u8]) -> Option<Counts> {
    let name = memchr::memchr(b'"', &text[1..])? + 2;
    if !matches!(&text[..name], b"\"usage\"" | b"\"usageMetadata\"") {
        return None;
    }
    let value = text[name..].trim_ascii_start().strip_prefix(b":")?.trim_ascii_start();
    if !value.starts_with(b"{") {
        return None;
    }
    let mut values = serde_json::Deserializer::from_slice(value).into_iter::<Counts>();
    let counts = values.next()?.ok()?;
    let depth = depth_at_beginning(&value[values.byte_offset()..]);
    (1..=DEEPEST).contains(&depth).then_some(counts)
}

/// How many brackets are open where a text begins, by those that it closes.
fn depth_at_beginning(text: &[u8]) -> i32 {
    let (mut depth, mut in_text, mut escaped) = (0, false, false);
    for byte in text {
        if in_text {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_text = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_text = true,
            b'{' | b'[' => depth -= 1,
            b'}' | b']' => depth += 1,
            _ => {}
        }
    }
    depth
}

/// The first text that is the value of a key.
fn first_text(json: &[u8], key: &str) -> Option<String> {
    let key = format!("\"{key}\"");
    memchr::memmem::find_iter(json, &key).find_map(|at| text_at(&json[at + key.len()..]))
}

/// The last text that is the value of a key.
fn last_text(json: &[u8], key: &str) -> Option<String> {
    let key = format!("\"{key}\"");
    let found: Vec<usize> = memchr::memmem::find_iter(json, &key).collect();
    found.into_iter().rev().find_map(|at| text_at(&json[at + key.len()..]))
}

fn text_at(json: &[u8]) -> Option<String> {
    let value = json.trim_ascii_start().strip_prefix(b":")?.trim_ascii_start();
    let mut values = serde_json::Deserializer::from_slice(value).into_iter::<String>();
    values.next()?.ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const OPENAI: &str = "data: {\"id\":\"1\",\"model\":\"gpt-4o-2024\",\"choices\":[{\"delta\":{\"content\":\"the \\\"usage\\\":{\\\"prompt_tokens\\\":9}\"}}],\"usage\":null}\n\n\
        data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}],\"usage\":null}\n\n\
        data: {\"choices\":[],\"usage\":{\"prompt_tokens\":20,\"completion_tokens\":30,\"prompt_tokens_details\":{\"cached_tokens\":5},\"completion_tokens_details\":{\"reasoning_tokens\":7}},\"x\":\"}}\"}\n\n\
        data: [DONE]\n\n";
    const ANTHROPIC: &str = "event: message_start\r\ndata: {\"type\":\"message_start\",\"message\":{\"model\":\"claude\",\"usage\":{\"input_tokens\":10,\"cache_read_input_tokens\":3,\"cache_creation_input_tokens\":4,\"output_tokens\":1}}}\r\n\r\n\
        event: message_delta\r\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":12}}\r\n\r\n";
    const GEMINI: &str = "data: {\"candidates\":[{\"finishReason\":\"STOP\"}],\"usageMetadata\":{\"promptTokenCount\":8,\"cachedContentTokenCount\":2,\"candidatesTokenCount\":5,\"thoughtsTokenCount\":6},\"modelVersion\":\"gemini-2.5\"}\r\n\r\n";

    fn read(kind: Kind, pieces: &[&[u8]]) -> (Usage, bool, Told) {
        let mut meter = Meter::default();
        meter.begin(kind, true);
        for piece in pieces {
            meter.feed(piece);
        }
        let (usage, estimated) = meter.usage(99);
        (usage, estimated, meter.told())
    }

    fn usage(input: u64, read: u64, write: u64, output: u64, reasoning: Option<u64>) -> Usage {
        Usage {
            input_tokens: input,
            cache_read_tokens: read,
            cache_write_tokens: write,
            cache_write_hour_tokens: 0,
            output_tokens: output,
            reasoning_tokens: reasoning,
        }
    }

    fn streams() -> [(&'static str, Usage, &'static str, &'static str); 3] {
        [
            (OPENAI, usage(15, 5, 0, 30, Some(7)), "gpt-4o-2024", "stop"),
            (ANTHROPIC, usage(10, 3, 4, 12, None), "claude", "end_turn"),
            (GEMINI, usage(6, 2, 0, 11, Some(6)), "gemini-2.5", "STOP"),
        ]
    }

    #[test]
    fn streams_are_read_wherever_they_are_split() {
        for (stream, expected, model, finish) in streams() {
            let bytes = stream.as_bytes();
            let told = Told { model: Some(model.into()), finish: Some(finish.into()) };
            for at in 0..bytes.len() {
                let (found, estimated, said) = read(Kind::Events, &[&bytes[..at], &bytes[at..]]);
                assert_eq!((found, estimated), (expected, false), "split at {at}: {stream}");
                assert_eq!(said, told);
            }
            let single: Vec<&[u8]> = bytes.chunks(1).collect();
            assert_eq!(read(Kind::Events, &single).0, expected, "{stream}");
        }
    }

    #[test]
    fn the_responses_protocol_tells_it_in_its_last_event_behind_a_tools_schema() {
        let response = json!({
            "type": "response.completed",
            "response": {
                "model": "gpt-5", "tools": [{"parameters": {"properties": {"usage": {"input_tokens": 1}}}}],
                "output": [{"text": "x".repeat(3 * LONGEST_EVENT)}],
                "usage": {
                    "input_tokens": 40, "input_tokens_details": {"cached_tokens": 10},
                    "output_tokens": 2, "output_tokens_details": {"reasoning_tokens": 0},
                },
                "user": null, "metadata": {},
            },
        });
        let stream = format!("event: response.completed\ndata: {response}\n\n");
        let pieces: Vec<&[u8]> = stream.as_bytes().chunks(1_000).collect();
        let (found, estimated, _) = read(Kind::Events, &pieces);
        assert_eq!((found, estimated), (usage(30, 10, 0, 2, Some(0)), false));
    }

    #[test]
    fn whole_answers_are_read_from_their_end() {
        let answer = json!({
            "id": "1", "model": "claude", "content": [
                {"type": "text", "text": "long ".repeat(20_000)},
                {"type": "tool_use", "input": {"usage": {"input_tokens": 1_000_000, "output_tokens": 5}}},
            ],
            "stop_reason": "tool_use", "usage": {"input_tokens": 7, "output_tokens": 8},
        });
        for text in [answer.to_string(), serde_json::to_string_pretty(&answer).unwrap()] {
            let pieces: Vec<&[u8]> = text.as_bytes().chunks(7_777).collect();
            let (found, estimated, told) = read(Kind::Whole, &pieces);
            assert_eq!((found, estimated), (usage(7, 0, 0, 8, None), false));
            assert_eq!(told.finish.as_deref(), Some("tool_use"));
        }
        let embedding =
            r#"{"data":[{"embedding":[0.5]}],"usage":{"prompt_tokens":3,"total_tokens":3}}"#;
        let (found, estimated, _) = read(Kind::Whole, &[embedding.as_bytes()]);
        assert_eq!((found, estimated), (usage(3, 0, 0, 0, None), false));
    }

    #[test]
    fn what_is_not_told_is_estimated_and_said_to_be() {
        let events = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n".repeat(50);
        let (found, estimated, _) = read(Kind::Events, &[events.as_bytes()]);
        assert_eq!((found, estimated), (usage(99, 0, 0, 50, None), true));
        let (found, estimated, _) = read(Kind::Whole, &[&[b'a'; 400]]);
        assert_eq!((found, estimated), (usage(99, 0, 0, 100, None), true));
        let (found, estimated, _) = read(Kind::Ignored, &[b"{\"usage\":{\"prompt_tokens\":1}}"]);
        assert_eq!((found.output_tokens, estimated), (0, true));
        // A stream that broke off after its beginning told its input.
        let cut = &ANTHROPIC.as_bytes()[..250];
        let (found, estimated, _) = read(Kind::Events, &[cut]);
        assert_eq!((found, estimated), (usage(10, 3, 4, 1, None), false));
    }

    proptest! {
        #[test]
        fn hostile_bytes_neither_panic_nor_grow(
            pieces in proptest::collection::vec("(\"usage|\":|\\{|\\}|\n|null|[a-z\\\\\"]{0,9}){0,40}", 0..40),
            whole in any::<bool>(),
        ) {
            let mut meter = Meter::default();
            meter.begin(if whole { Kind::Whole } else { Kind::Events }, true);
            for piece in &pieces {
                meter.feed(piece.as_bytes());
                prop_assert!(meter.buffer.len() <= LONGEST_EVENT + piece.len());
            }
            let _found = meter.usage(0);
            let _told = meter.told();
        }
    }
}
