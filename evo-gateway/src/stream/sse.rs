//! Server-sent events out of bytes that come in pieces of any size.

/// The most bytes that one event may have before its blank line.
pub const MAX_EVENT_BYTES: usize = 16 * 1024 * 1024;

/// One event that carries data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// What the `event` field said; empty without one.
    pub name: Vec<u8>,
    /// The values of all `data` fields, joined by line feeds.
    pub data: Vec<u8>,
}

/// An event is longer than the decoder may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event of the stream is longer than {limit} bytes")]
pub struct TooLong {
    pub limit: usize,
}

/// Collects bytes until they are events.
///
/// It works on bytes: lines end at LF, CR or CRLF and nowhere else, so that U+2028, U+2029 and U+0085,
/// which may stand in JSON, end none, and a character cut in two comes together again.
#[derive(Debug)]
pub struct Decoder {
    limit: usize,
    line: Vec<u8>,
    name: Vec<u8>,
    data: Vec<u8>,
    has_data: bool,
    is_first_line: bool,
    /// The last byte was a CR, so that an LF now belongs to it.
    after_cr: bool,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::with_limit(MAX_EVENT_BYTES)
    }
}

impl Decoder {
    /// A decoder that refuses events of more than `limit` bytes.
    pub fn with_limit(limit: usize) -> Self {
        Self {
            limit,
            line: Vec::new(),
            name: Vec::new(),
            data: Vec::new(),
            has_data: false,
            is_first_line: true,
            after_cr: false,
        }
    }

    /// Takes the next bytes and appends the events that they complete. After an error the decoder is
    /// of no further use.
    pub fn push(&mut self, mut bytes: &[u8], events: &mut Vec<Event>) -> Result<(), TooLong> {
        while !bytes.is_empty() {
            if std::mem::take(&mut self.after_cr) && bytes[0] == b'\n' {
                bytes = &bytes[1..];
                continue;
            }
            let Some(end) = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r')) else {
                return self.extend_line(bytes);
            };
            self.extend_line(&bytes[..end])?;
            self.after_cr = bytes[end] == b'\r';
            self.end_line(events);
            bytes = &bytes[end + 1..];
        }
        Ok(())
    }

    /// Takes the end of the stream. An event that lacks only its blank line counts as an event,
    /// because some servers leave the last one out.
    pub fn finish(&mut self, events: &mut Vec<Event>) {
        if !self.line.is_empty() {
            self.end_line(events);
        }
        self.end_event(events);
    }

    fn extend_line(&mut self, bytes: &[u8]) -> Result<(), TooLong> {
        if self.line.len() + self.data.len() + bytes.len() > self.limit {
            return Err(TooLong { limit: self.limit });
        }
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    fn end_line(&mut self, events: &mut Vec<Event>) {
        let mut line = self.line.as_slice();
        if std::mem::take(&mut self.is_first_line) {
            line = line.strip_prefix("\u{feff}".as_bytes()).unwrap_or(line);
        }
        if line.is_empty() {
            self.line.clear();
            self.end_event(events);
            return;
        }
        let (field, value) = match line.iter().position(|byte| *byte == b':') {
            Some(colon) => (&line[..colon], &line[colon + 1..]),
            None => (line, &[][..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"data" => {
                if self.has_data {
                    self.data.push(b'\n');
                }
                self.data.extend_from_slice(value);
                self.has_data = true;
            }
            b"event" => self.name = value.to_vec(),
            // Comments (an empty field name), `id`, `retry` and fields that nobody knows.
            _ => {}
        }
        self.line.clear();
    }

    fn end_event(&mut self, events: &mut Vec<Event>) {
        let name = std::mem::take(&mut self.name);
        if std::mem::take(&mut self.has_data) {
            events.push(Event { name, data: std::mem::take(&mut self.data) });
        }
    }
}

#[cfg(test)]
mod tests;
