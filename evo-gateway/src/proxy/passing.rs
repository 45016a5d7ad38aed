//! A stream of events that passes as it is, and what has to be known of it to say that it is whole and,
//! when it is not, to go on with another one.
//!
//! It costs no parsing per event: where one is only another text in the same frame as the one before
//! (which is seen by comparing the two), nothing else can have changed. The others, a few per answer,
//! are read.

use bytes::{Bytes, BytesMut};

use crate::{
    convert::{Dialect, Glance, Seen},
    model::ApiError,
};

/// Longest event that is waited for as a whole.
const LONGEST_EVENT: usize = 1024 * 1024;
/// How much of a stream is kept, so that it can go on elsewhere. As text: frames take no room.
const LONGEST_HISTORY: usize = 512 * 1024;

/// What passed of a stream.
pub(super) struct Passing {
    glance: Glance,
    /// An event whose end has not come.
    partial: BytesMut,
    /// The event before, as it came.
    last: Vec<u8>,
    /// All of them, if they are kept.
    history: Option<History>,
    /// Events are too long to be looked at.
    blind: bool,
    seen: Progress,
}

/// How far an answer is.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Progress {
    /// It has content.
    pub(super) content: bool,
    /// It is known how it ended.
    stopped: bool,
    /// Its end mark has come.
    pub(super) ended: bool,
    /// It has what this gateway does not know.
    strange: bool,
}

impl std::fmt::Debug for Passing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Passing").field("seen", &self.seen).finish_non_exhaustive()
    }
}

impl Passing {
    /// Follows a stream from its beginning. `keeps` it, so that it can go on elsewhere.
    pub(super) fn new(dialect: Dialect, keeps: bool) -> Self {
        Self {
            glance: Glance::new(dialect),
            partial: BytesMut::new(),
            last: Vec::new(),
            history: keeps.then(History::default),
            blind: false,
            seen: Progress::default(),
        }
    }

    /// How far the answer is.
    pub(super) fn seen(&self) -> Progress {
        self.seen
    }

    /// Takes the next bytes and gives those that can go out: whole events. An error means that the
    /// stream is broken, or reports an error; what came before it is in the bytes that are given with it.
    pub(super) fn push(&mut self, data: Bytes) -> (Bytes, Result<(), ApiError>) {
        if self.blind {
            return (data, Ok(()));
        }
        let data = if self.partial.is_empty() {
            data
        } else {
            self.partial.extend_from_slice(&data);
            std::mem::take(&mut self.partial).freeze()
        };
        let mut from = 0;
        while let Some(end) = end_of_event(&data, from) {
            if let Err(error) = self.event(&data[from..end]) {
                return (data.slice(..from), Err(error));
            }
            from = end;
        }
        if from == data.len() {
            return (data, Ok(()));
        }
        if data.len() - from > LONGEST_EVENT {
            self.blind = true;
            self.history = None;
            return (data, Ok(()));
        }
        self.partial.extend_from_slice(&data[from..]);
        (data.slice(..from), Ok(()))
    }

    /// The stream is over. Gives what is left of it, and whether it was whole.
    pub(super) fn finish(&mut self) -> (Bytes, bool) {
        let rest = std::mem::take(&mut self.partial).freeze();
        // Some servers leave the last blank line out.
        let rest = if rest.is_empty() || self.event(&rest).is_ok() { rest } else { Bytes::new() };
        (rest, self.is_whole())
    }

    /// Whether the answer is whole if nothing more comes. Of what this gateway does not know it can't
    /// tell.
    pub(super) fn is_whole(&self) -> bool {
        let Progress { content, stopped, ended, strange } = self.seen;
        stopped || ended || self.blind || (content && strange)
    }

    /// Whether nothing more may come: the answer is whole but for its end mark.
    pub(super) fn is_settled(&self) -> bool {
        self.seen.stopped || self.seen.ended
    }

    /// The whole stream so far, if it was kept and has nothing strange.
    pub(super) fn history(&self) -> Option<Vec<u8>> {
        let history = self.history.as_ref().filter(|_| !self.seen.strange)?;
        Some(history.stream())
    }

    fn event(&mut self, event: &[u8]) -> Result<(), ApiError> {
        let (before, after) = alike(&self.last, event);
        if !is_same_frame(&self.last, event, before, after) {
            match self.glance.at(event)? {
                // Comments and the like change nothing, and no event is compared with them.
                None => return Ok(()),
                Some(seen) => self.note(seen),
            }
        }
        if let Some(history) = &mut self.history
            && !history.add(event, before, after)
        {
            self.history = None;
        }
        self.last.clear();
        self.last.extend_from_slice(event);
        Ok(())
    }

    fn note(&mut self, seen: Seen) {
        match seen {
            Seen::Nothing => {}
            Seen::Content => self.seen.content = true,
            Seen::Stop => {
                self.seen.content = true;
                self.seen.stopped = true;
            }
            Seen::End => {
                self.seen.content = true;
                self.seen.ended = true;
            }
            Seen::Strange => {
                self.seen.content = true;
                self.seen.strange = true;
            }
        }
    }
}

/// Where the event that begins at `from` ends, behind its blank line.
fn end_of_event(data: &[u8], from: usize) -> Option<usize> {
    let mut line = from;
    loop {
        let end = line + memchr::memchr2(b'\n', b'\r', &data[line..])?;
        let next = match (data[end], data.get(end + 1)) {
            (b'\r', Some(b'\n')) => end + 2,
            // A line feed may follow that belongs to it.
            (b'\r', None) => return None,
            _ => end + 1,
        };
        if end == line {
            return Some(next);
        }
        line = next;
    }
}

/// How many bytes two events have in common at the beginning, and at the end of what is left.
fn alike(old: &[u8], new: &[u8]) -> (usize, usize) {
    const STEP: usize = 16;
    let most = old.len().min(new.len());
    let steps = old[..most].chunks_exact(STEP).zip(new[..most].chunks_exact(STEP));
    let mut before = steps.take_while(|(a, b)| a == b).count() * STEP;
    while before < most && old[before] == new[before] {
        before += 1;
    }
    let most = most - before;
    let (old, new) = (&old[old.len() - most..], &new[new.len() - most..]);
    let steps = old.rchunks_exact(STEP).zip(new.rchunks_exact(STEP));
    let mut after = steps.take_while(|(a, b)| a == b).count() * STEP;
    while after < most && old[most - after - 1] == new[most - after - 1] {
        after += 1;
    }
    (before, after)
}

/// Whether two events differ only inside one text: what differs holds nothing that could begin or end
/// one.
fn is_same_frame(old: &[u8], new: &[u8], before: usize, after: usize) -> bool {
    let is_text = |event: &[u8]| {
        let middle = &event[before..event.len() - after];
        middle.iter().all(|byte| !matches!(byte, b'"' | b'\\' | b'{' | b'}' | b'[' | b']' | 0..=31))
    };
    // Next to a backslash a letter is none.
    before + after > 0 && new[..before].last() != Some(&b'\\') && is_text(old) && is_text(new)
}

/// Events, each as what differs from the one before.
#[derive(Debug, Default)]
struct History {
    bytes: Vec<u8>,
}

impl History {
    /// Whether there was room.
    fn add(&mut self, event: &[u8], before: usize, after: usize) -> bool {
        let middle = &event[before..event.len() - after];
        if self.bytes.len() + middle.len() > LONGEST_HISTORY {
            return false;
        }
        for number in [before, after, middle.len()] {
            push_number(&mut self.bytes, number);
        }
        self.bytes.extend_from_slice(middle);
        true
    }

    fn stream(&self) -> Vec<u8> {
        let (mut stream, mut left) = (Vec::new(), &self.bytes[..]);
        let mut last = 0..0;
        while !left.is_empty() {
            let [before, after, middle] = [(); 3].map(|()| take_number(&mut left));
            let (text, rest) = left.split_at(middle);
            left = rest;
            let start = stream.len();
            stream.extend_from_within(last.start..last.start + before);
            stream.extend_from_slice(text);
            stream.extend_from_within(last.end - after..last.end);
            last = start..stream.len();
        }
        stream
    }
}

/// Seven bits to a byte, the lowest first.
fn push_number(bytes: &mut Vec<u8>, mut number: usize) {
    while number > 0x7f {
        bytes.push(u8::try_from(number & 0x7f).unwrap_or_default() | 0x80);
        number >>= 7;
    }
    bytes.push(u8::try_from(number).unwrap_or_default());
}

fn take_number(bytes: &mut &[u8]) -> usize {
    let (mut number, mut shift) = (0, 0);
    while let Some((byte, rest)) = bytes.split_first() {
        *bytes = rest;
        number |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            break;
        }
    }
    number
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn chunk(text: &str) -> String {
        let text = serde_json::to_string(text).unwrap();
        format!(
            "data: {{\"id\":\"x\",\"model\":\"m\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":{text}}},\
             \"finish_reason\":null}}],\"usage\":null}}\n\n"
        )
    }

    const STOP: &str = "data: {\"id\":\"x\",\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}],\"usage\":null}\n\n";
    const DONE: &str = "data: [DONE]\n\n";

    fn passing() -> Passing {
        Passing::new(Dialect::OpenAiChat, true)
    }

    fn push(passing: &mut Passing, text: &str) -> Result<String, ApiError> {
        let (out, result) = passing.push(Bytes::copy_from_slice(text.as_bytes()));
        result.map(|()| String::from_utf8(out.to_vec()).unwrap())
    }

    #[test]
    fn what_an_answer_has_is_seen() {
        let mut stream = passing();
        let role = chunk("").replace("\"content\"", "\"role\":\"assistant\",\"content\"");
        assert_eq!(push(&mut stream, &role).unwrap(), role);
        assert!(!stream.seen().content && !stream.is_whole());
        push(&mut stream, ": keep-alive\n\n").unwrap();
        push(&mut stream, &chunk("Hi")).unwrap();
        assert!(stream.seen().content && !stream.is_whole());
        push(&mut stream, &chunk(" you, \"there\"")).unwrap();
        push(&mut stream, STOP).unwrap();
        assert!(stream.is_whole() && !stream.seen().ended);
        push(&mut stream, DONE).unwrap();
        assert!(stream.seen().ended);
        let whole = [&role, &chunk("Hi"), &chunk(" you, \"there\""), STOP, DONE].concat();
        assert_eq!(String::from_utf8(stream.history().unwrap()).unwrap(), whole);
    }

    #[test]
    fn only_whole_events_go_out() {
        let mut stream = passing();
        let text = chunk("a") + &chunk("b");
        let cut = chunk("a").len() + 9;
        assert_eq!(push(&mut stream, &text[..cut]).unwrap(), chunk("a"));
        assert_eq!(stream.finish(), (Bytes::new(), false));
        let mut stream = passing();
        push(&mut stream, &text[..cut]).unwrap();
        assert_eq!(push(&mut stream, &text[cut..]).unwrap(), chunk("b"));
        // A last blank line that is missing.
        push(&mut stream, STOP.trim_end()).unwrap();
        assert_eq!(stream.finish(), (Bytes::from(STOP.trim_end()), true));
    }

    #[test]
    fn broken_events_and_errors_are_seen_wherever_they_are_cut() {
        let whole = chunk("Hello");
        let data = whole.trim_end();
        for length in 7..data.len() {
            let mut stream = passing();
            push(&mut stream, &chunk("Good day")).unwrap();
            let broken = format!("{}\n\n", &data[..length]);
            assert!(push(&mut stream, &broken).is_err(), "{broken}");
        }
        let mut stream = passing();
        push(&mut stream, &chunk("a")).unwrap();
        let error = push(&mut stream, "data: {\"error\":{\"message\":\"no\"}}\n\n").unwrap_err();
        assert_eq!(error.message, "no");
        let mut stream = Passing::new(Dialect::Anthropic, true);
        let error = "event: error\r\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"no\"}}\r\n\r\n";
        assert!(push(&mut stream, error).is_err());
    }

    #[test]
    fn what_nobody_knows_passes_and_is_not_continued() {
        let mut stream = passing();
        push(&mut stream, &chunk("a")).unwrap();
        push(&mut stream, "data: {\"choices\":\"none\"}\n\n").unwrap();
        assert!(stream.is_whole() && stream.history().is_none());
    }

    proptest! {
        /// Bytes stay as they are, however they come, and the history is what passed.
        #[test]
        fn nothing_changes(
            texts in prop::collection::vec("[a-zß\"\\\\ ,:{}\n]{0,12}", 0..12),
            ends in prop::sample::select(vec!["\n", "\r\n"]),
            sizes in prop::collection::vec(1_usize..80, 1..30),
        ) {
            let mut whole: String = texts.iter().map(|text| chunk(text)).collect();
            whole += STOP;
            whole += DONE;
            let whole = whole.replace('\n', ends);
            let (mut stream, mut out, mut left) = (passing(), Vec::new(), whole.as_bytes());
            for size in sizes.iter().cycle() {
                if left.is_empty() {
                    break;
                }
                let (piece, rest) = left.split_at((*size).min(left.len()));
                let (passed, result) = stream.push(Bytes::copy_from_slice(piece));
                prop_assert!(result.is_ok());
                out.extend_from_slice(&passed);
                left = rest;
            }
            prop_assert_eq!(out, whole.as_bytes());
            prop_assert!(stream.seen().ended && stream.finish().1);
            prop_assert_eq!(stream.history().unwrap(), whole.as_bytes());
        }
    }
}
