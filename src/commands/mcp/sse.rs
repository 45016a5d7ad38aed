//! Reads a stream of server-sent events, as far as MCP uses them. Pure.

/// Longest event that is read.
const MAX_EVENT: usize = 32 * 1024 * 1024;

/// What has come of a stream and is no whole line yet.
#[derive(Debug, Default)]
pub(super) struct Reader {
    rest: Vec<u8>,
    data: Option<String>,
}

/// An event is larger than any that king sends.
#[derive(Debug, thiserror::Error)]
#[error("an event has more than {MAX_EVENT} bytes")]
pub(super) struct TooLarge;

impl Reader {
    /// Takes what came; gives the data of each event that is whole now. Events without data are
    /// left out.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<Vec<String>, TooLarge> {
        self.rest.extend_from_slice(bytes);
        let mut events = Vec::new();
        let mut from = 0;
        while let Some(end) = self.rest[from..].iter().position(|byte| *byte == b'\n') {
            let line = self.rest[from..from + end].trim_ascii_end();
            from += end + 1;
            if line.is_empty() {
                events.extend(self.data.take().filter(|data| !data.is_empty()));
            } else if let Some(data) = line.strip_prefix(b"data:") {
                let text = String::from_utf8_lossy(data);
                let text = text.strip_prefix(' ').unwrap_or(&text);
                match &mut self.data {
                    Some(data) => {
                        data.push('\n');
                        data.push_str(text);
                    }
                    None => self.data = Some(text.to_owned()),
                }
            }
        }
        self.rest.drain(..from);
        let held = self.rest.len() + self.data.as_ref().map_or(0, String::len);
        if held > MAX_EVENT { Err(TooLarge) } else { Ok(events) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_the_same_however_they_are_cut() {
        let text = "id: 0\nretry: 3000\ndata:\n\n: comment\n\nid: 1\ndata: {\"a\":\ndata: 1}\r\n\r\ndata: ä\n\ndata: not yet";
        let whole = ["{\"a\":\n1}", "ä"];
        for size in [1, 2, 3, 7, 1_000] {
            let mut reader = Reader::default();
            let mut events = Vec::new();
            for piece in text.as_bytes().chunks(size) {
                events.extend(reader.take(piece).unwrap());
            }
            assert_eq!(events, whole, "in pieces of {size}");
        }
    }

    #[test]
    fn an_endless_event_is_refused() {
        let mut reader = Reader::default();
        let piece = vec![b'x'; MAX_EVENT / 2 + 1];
        assert!(reader.take(&piece).is_ok());
        assert!(reader.take(&piece).is_err());
    }
}
