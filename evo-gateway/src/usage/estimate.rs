//! How many tokens something probably has, where nobody counts them.

/// Bytes of JSON that make a token: about four letters of English, and more than one of what is none.
const BYTES_PER_TOKEN: u64 = 4;
/// From this length on a text without a space is data: an image or a document.
const DATA: usize = 4 * 1024;
/// What an image or a document counts.
pub(crate) const TOKENS_OF_DATA: u64 = 1_000;
/// Parts of a token in which texts are estimated.
const PARTS: u64 = 12;

/// Tokens of so many bytes.
pub(crate) fn tokens_of(bytes: u64) -> u64 {
    bytes.div_ceil(BYTES_PER_TOKEN)
}

/// Tokens of a request's body. Images and documents that stand in it as base64 count as one each,
/// whatever their size.
pub(crate) fn tokens_of_body(body: &[u8]) -> u64 {
    if body.len() < DATA || memchr::memmem::find(body, b"base64").is_none() {
        return tokens_of(body.len() as u64);
    }
    let (mut text, mut data) = (0, 0);
    for piece in body.split(|byte| *byte == b'"') {
        if piece.len() >= DATA && memchr::memchr2(b' ', b'\\', piece).is_none() {
            data += 1;
        } else {
            text += piece.len() as u64 + 1;
        }
    }
    tokens_of(text) + data * TOKENS_OF_DATA
}

/// Tokens of a text. Tokenizers cut a text into words, numbers and signs, and these into what they know;
/// how long such pieces are depends on the script.
pub(crate) fn tokens_of_text(text: &str) -> u64 {
    let mut parts = 0;
    let mut chars = text.chars().peekable();
    while let Some(first) = chars.next() {
        let mut more = |kind: Kind| {
            let mut length = 0_u64;
            while chars.next_if(|c| Kind::of(*c) == kind).is_some() {
                length += 1;
            }
            length
        };
        let kind = Kind::of(first);
        let length = 1 + more(kind);
        parts += match kind {
            Kind::Small => word(length),
            // It begins a word, or there is an abbreviation before it.
            Kind::Capital => match more(Kind::Small) {
                small if length == 1 => word(1 + small),
                0 => word(length) + 3 * length.saturating_sub(3),
                small => word(length) + 3 * length.saturating_sub(3) + word(small),
            },
            Kind::Digit => PARTS * length.div_ceil(3),
            // One belongs to the word behind it.
            Kind::Space => {
                if length > 1 {
                    PARTS
                } else {
                    0
                }
            }
            Kind::Break => 9,
            Kind::Sign => 6 * length + 1,
            Kind::Letter => 3 * length + 6,
            Kind::Ideograph => 9 * length,
            Kind::Other => 22 * length,
        };
    }
    parts.div_ceil(PARTS)
}

fn word(letters: u64) -> u64 {
    PARTS + 3 * letters.saturating_sub(8)
}

/// What a character is for a tokenizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Small,
    Capital,
    Digit,
    Space,
    Break,
    Sign,
    /// Of an alphabet with other letters than English has.
    Letter,
    /// Of Chinese, Japanese or Korean.
    Ideograph,
    Other,
}

impl Kind {
    fn of(c: char) -> Self {
        match c {
            'a'..='z' => Self::Small,
            'A'..='Z' => Self::Capital,
            '0'..='9' => Self::Digit,
            ' ' => Self::Space,
            '\n' | '\r' | '\t' => Self::Break,
            c if c.is_ascii() => Self::Sign,
            '\u{2e80}'..='\u{9fff}'
            | '\u{ac00}'..='\u{d7af}'
            | '\u{f900}'..='\u{faff}'
            | '\u{ff00}'..='\u{ffef}' => Self::Ideograph,
            c if c.is_alphabetic() => Self::Letter,
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers are those of OpenAI's tokenizer `o200k_base`.
    #[test]
    fn texts_of_all_kinds_are_within_a_quarter_of_what_a_tokenizer_counts() {
        let code = "/// The kind that an HTTP status stands for.\npub fn of_status(status: u16) -> Self {\n    match status {\n        401 => Self::Authentication,\n        402 => Self::Billing,\n        408 | 504 => Self::Timeout,\n        400..=499 => Self::InvalidRequest,\n        _ => Self::Internal,\n    }\n}\n";
        for (text, tokens) in [
            (
                "All human beings are born free and equal in dignity and rights. They are endowed with reason and conscience and should act towards one another in a spirit of brotherhood.",
                33_u64,
            ),
            (
                "人人生而自由，在尊严和权利上一律平等。他们赋有理性和良心，并应以兄弟关系的精神相对待。",
                35,
            ),
            (
                "Все люди рождаются свободными и равными в своем достоинстве и правах. Они наделены разумом и совестью и должны поступать в отношении друг друга в духе братства. Каждый человек должен обладать всеми правами и всеми свободами.",
                54,
            ),
            (
                "Alle Menschen sind frei und gleich an Würde und Rechten geboren. Sie sind mit Vernunft und Gewissen begabt und sollen einander im Geist der Brüderlichkeit begegnen. Jeder hat Anspruch auf die in dieser Erklärung verkündeten Rechte und Freiheiten ohne irgendeinen Unterschied.",
                59,
            ),
            (code, 75),
            (
                r#"{"type":"object","properties":{"city":{"type":"string","description":"The city and state, e.g. San Francisco, CA"},"unit":{"type":"string","enum":["celsius","fahrenheit"]}},"required":["city"]}"#,
                49,
            ),
        ] {
            let found = tokens_of_text(text);
            assert!(found.abs_diff(tokens) * 4 <= tokens, "{found} for {tokens}: {text}");
        }
        assert_eq!(tokens_of_text(""), 0);
    }

    #[test]
    fn an_image_counts_once_and_text_by_its_length() {
        assert_eq!(tokens_of_body(&vec![b'a'; 40_000]), 10_000);
        let image =
            format!("{{\"image_url\":\"data:image/png;base64,{}\"}}", "A".repeat(1_000_000));
        assert!((1_000..1_020).contains(&tokens_of_body(image.as_bytes())));
        let prose = format!("{{\"about\":\"base64 {}\"}}", "a word ".repeat(10_000));
        assert!(tokens_of_body(prose.as_bytes()) > 17_000);
    }
}
