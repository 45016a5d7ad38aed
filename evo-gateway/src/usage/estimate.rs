//! How many tokens something probably has, where nobody counts them.

/// Bytes of JSON that make a token: about four letters of English, and more than one of what is none.
const BYTES_PER_TOKEN: u64 = 4;
/// From this length on a text without a space is data: an image or a document.
const DATA: usize = 4 * 1024;
/// What an image or a document counts.
const TOKENS_OF_DATA: u64 = 1_000;

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

#[cfg(test)]
mod tests {
    use super::*;

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
