/// How far a JSON object, read in pieces, is. It trusts the text to be JSON and only counts brackets.
#[derive(Debug, Default)]
pub(super) struct JsonProgress {
    depth: usize,
    has_begun: bool,
    in_string: bool,
    is_escaped: bool,
}

impl JsonProgress {
    /// Takes the next piece.
    pub(super) fn feed(&mut self, json: &str) {
        for byte in json.bytes() {
            if self.in_string {
                match byte {
                    _ if self.is_escaped => self.is_escaped = false,
                    b'\\' => self.is_escaped = true,
                    b'"' => self.in_string = false,
                    _ => {}
                }
                continue;
            }
            match byte {
                b'"' => self.in_string = true,
                b'{' | b'[' => {
                    self.depth += 1;
                    self.has_begun = true;
                }
                b'}' | b']' => self.depth = self.depth.saturating_sub(1),
                _ => {}
            }
        }
    }

    /// Whether it has come to its end.
    pub(super) fn is_whole(&self) -> bool {
        self.has_begun && self.depth == 0
    }
}
