//! Names of keys, as tmux has them, and what a terminal sends for them.

/// What a terminal sends for these keys: names such as `Enter`, `C-c`, `Up`, or one letter. An error
/// names the first that is unknown.
pub(super) fn bytes(keys: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    for key in keys.split_whitespace() {
        let one = one(key).ok_or_else(|| {
            format!(
                "there is no key {key:?}: use Enter, Tab, BSpace, Escape, Space, Up, Down, Left, \
                 Right, Home, End, PageUp, PageDown, Delete, C-a to C-z, M- before a key, or one letter"
            )
        })?;
        bytes.extend(one);
    }
    if bytes.is_empty() {
        return Err("`keys` names no key".to_owned());
    }
    Ok(bytes)
}

fn one(key: &str) -> Option<Vec<u8>> {
    if let Some(rest) = key.strip_prefix("M-") {
        return Some([vec![0x1b], one(rest)?].concat());
    }
    if let Some(letter) = key.strip_prefix("C-").or_else(|| key.strip_prefix('^')) {
        let [letter] = letter.as_bytes() else { return None };
        return letter.is_ascii_alphabetic().then(|| vec![letter.to_ascii_lowercase() & 0x1f]);
    }
    let text: &[u8] = match key {
        "Enter" => b"\r",
        "Tab" => b"\t",
        "BTab" => b"\x1b[Z",
        "BSpace" | "Backspace" => b"\x7f",
        "Escape" | "Esc" => b"\x1b",
        "Space" => b" ",
        "Up" => b"\x1b[A",
        "Down" => b"\x1b[B",
        "Right" => b"\x1b[C",
        "Left" => b"\x1b[D",
        "Home" => b"\x1b[H",
        "End" => b"\x1b[F",
        "PageUp" | "PPage" => b"\x1b[5~",
        "PageDown" | "NPage" => b"\x1b[6~",
        "Delete" | "DC" => b"\x1b[3~",
        "Insert" | "IC" => b"\x1b[2~",
        letter if letter.chars().count() == 1 => letter.as_bytes(),
        _ => return None,
    };
    Some(text.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_what_a_terminal_sends() {
        assert_eq!(bytes("C-c ^D Enter x ß M-b Up").unwrap(), b"\x03\x04\rx\xc3\x9f\x1bb\x1b[A");
        for wrong in ["", " ", "Bogus", "C-", "C-1", "C-cc", "M-"] {
            assert!(bytes(wrong).is_err(), "{wrong:?}");
        }
    }
}
