//! Undoes what splits and disguises words: quotes, escapes, concatenation, variables, look-alikes.

use std::{collections::HashMap, fmt::Write as _, sync::LazyLock};

use regex::{Captures, Regex};

/// Most variables of one file that are remembered.
const MAX_VARIABLES: usize = 200;

/// A pattern whose `\w`, `\d` and `\b` are of ASCII: the search for those of Unicode is many times slower.
pub(super) fn regex(pattern: &str) -> Regex {
    let pattern =
        pattern.replace(r"\w", "[0-9A-Za-z_]").replace(r"\d", "[0-9]").replace(r"\b", r"(?-u:\b)");
    Regex::new(&pattern).expect("the patterns are constants, compiled by every test")
}

/// Variables of a file with short texts, which commands can be put together from.
#[derive(Debug, Default)]
pub(super) struct Variables(HashMap<String, String>);

impl Variables {
    /// The assignments in some lines.
    pub(super) fn of(lines: &[&str]) -> Self {
        static ASSIGNMENT: LazyLock<Regex> = LazyLock::new(|| {
            regex(
                r#"(?:^|[;&]|\blet |\bconst |\bvar |\bset |\bexport )\s*[$@]?([A-Za-z_]\w{0,30})\s*:?=\s*(?:"([^"'`$\n]{1,60})"|'([^"'`$\n]{1,60})'|([\w./:-]{1,40}))\s*(?:$|[;&])"#,
            )
        });
        let mut variables = HashMap::new();
        for line in lines {
            if !line.contains('=') || line.len() > 2_000 {
                continue;
            }
            let line = line.replace("\"\"", "").replace("''", "");
            // An assignment ends with the sign with which the next one begins.
            for found in line.split_inclusive(';').flat_map(|part| ASSIGNMENT.captures_iter(part)) {
                let value = (2..=4).find_map(|group| found.get(group));
                if let (Some(value), true) = (value, variables.len() < MAX_VARIABLES) {
                    variables.insert(found[1].to_owned(), value.as_str().to_owned());
                }
            }
        }
        Self(variables)
    }
}

/// A line with its disguises taken off, if it has any.
pub(super) fn undo(line: &str, variables: &Variables) -> Option<String> {
    if line.len() > 64 * 1024 || !line.bytes().any(is_sign) {
        return None;
    }
    let mut text = line.to_owned();
    let before = text.clone();
    spaced(&mut text);
    substitute(&mut text, variables);
    escapes(&mut text);
    numbers(&mut text);
    reversed(&mut text);
    rotated(&mut text);
    concatenated(&mut text);
    split(&mut text);
    (text != before).then_some(text)
}

/// Whether a byte can be part of a disguise at all.
/// Joins letters that stand alone, each behind one space; two spaces stay one.
fn spaced(text: &mut String) {
    /// So many letters alone are no list.
    const MANY: usize = 10;
    if text.trim_start().starts_with('|') || !has_spaced_letters(text.as_bytes(), MANY) {
        return;
    }
    let mut joined = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    let mut alone = true;
    while let Some(c) = rest.next() {
        if c == ' ' && alone {
            // One space between two letters that stand alone goes; of more, one stays.
            let mut ahead = rest.clone();
            let next = ahead.next();
            let after = ahead.next();
            if next == Some(' ') {
                while rest.peek() == Some(&' ') {
                    rest.next();
                }
                joined.push(' ');
                continue;
            }
            if next.is_some() && after.is_none_or(|c| c == ' ' || c == '`') {
                continue;
            }
        }
        alone = rest.peek().is_none_or(|next| *next == ' ') || c == ' ';
        joined.push(c);
    }
    *text = joined;
}

fn has_spaced_letters(bytes: &[u8], many: usize) -> bool {
    let mut run = 0;
    let mut letters = 0;
    for pair in bytes.chunk_by(|a, b| (*a == b' ') == (*b == b' ')) {
        if pair[0] == b' ' {
            continue;
        }
        if pair.len() == 1 {
            run += 1;
            letters += usize::from(pair[0].is_ascii_alphabetic());
            if run >= many && letters * 2 >= many {
                return true;
            }
        } else {
            run = 0;
            letters = 0;
        }
    }
    false
}

fn is_sign(byte: u8) -> bool {
    matches!(
        byte,
        b'"' | b'\'' | b'`' | b'\\' | b'^' | b'$' | b'+' | b'%' | b'&' | b'{' | b'|' | b',' | b'['
    )
}

/// Text of a JSON string: escapes for quotes and line ends are undone.
pub(super) fn json(line: &str) -> String {
    line.replace("\\n", " ")
        .replace("\\t", " ")
        .replace("\\\"", "\"")
        .replace("\\/", "/")
        .replace("\\\\", "\\")
}

/// Puts the values of variables in their place.
fn substitute(text: &mut String, variables: &Variables) {
    static ADDED: LazyLock<Regex> =
        LazyLock::new(|| regex(r"\b[A-Za-z_]\w*(?:\s*\+\s*[A-Za-z_]\w*){1,12}"));
    static ONE: LazyLock<Regex> = LazyLock::new(|| regex(r"\$\{?([A-Za-z_]\w*)\}?"));
    if variables.0.is_empty() {
        return;
    }
    let value = |name: &str| variables.0.get(name);
    if text.contains('$') {
        let replaced = ONE.replace_all(text, |one: &Captures<'_>| {
            value(&one[1]).cloned().unwrap_or_else(|| one[0].to_owned())
        });
        *text = replaced.into_owned();
    }
    if text.contains('+') {
        let replaced = ADDED.replace_all(text, |found: &Captures<'_>| {
            let names: Vec<&str> = found[0].split('+').map(str::trim).collect();
            match names.iter().map(|name| value(name)).collect::<Option<Vec<&String>>>() {
                Some(values) => {
                    let joined: String = values.into_iter().map(String::as_str).collect();
                    format!("\"{joined}\"")
                }
                None => found[0].to_owned(),
            }
        });
        *text = replaced.into_owned();
    }
}

/// `\x63`, `\u0063`, `\143`, `%63`, `&#99;`.
fn escapes(text: &mut String) {
    static ESCAPE: LazyLock<Regex> = LazyLock::new(|| {
        regex(
            r"\\x([0-9a-fA-F]{2})|\\u\{?([0-9a-fA-F]{4})\}?|\\([01][0-7]{2})|%([2-7][0-9a-fA-F])|&#(\d{2,3});|&#[xX]([0-9a-fA-F]{2});",
        )
    });
    static END: LazyLock<Regex> = LazyLock::new(|| regex(r"\\[nt]([a-z]{2,12}[ /-])"));
    if !text.contains(['\\', '%', '&']) {
        return;
    }
    let replaced = ESCAPE.replace_all(text, |found: &Captures<'_>| {
        let (digits, radix) = match (1..=6).find_map(|group| Some((group, found.get(group)?))) {
            Some((3, digits)) => (digits.as_str(), 8),
            Some((5, digits)) => (digits.as_str(), 10),
            Some((_, digits)) => (digits.as_str(), 16),
            None => return found[0].to_owned(),
        };
        match u32::from_str_radix(digits, radix).ok().and_then(char::from_u32) {
            Some(c) if c == ' ' || c.is_ascii_graphic() => c.to_string(),
            _ => found[0].to_owned(),
        }
    });
    *text = replaced.into_owned();
    // A line's end in a text separates words.
    if text.contains("\\n") || text.contains("\\t") {
        *text = END.replace_all(text, " $1").into_owned();
    }
}

/// Characters written as numbers: `chr(99)+chr(117)`, `[99, 117, 114]`.
fn numbers(text: &mut String) {
    static RUN: LazyLock<Regex> = LazyLock::new(|| {
        regex(
            r"(?i)(?:(?:chr|char|\[char\]|string\.fromcharcode|%c)?\s*[(\[]?\s*(?:0x[0-9a-f]{2}|\d{2,3})\s*[)\]]?\s*(?:\.|\+|,|&|\s)\s*){4,}(?:chr|char|\[char\])?\s*[(\[]?\s*(?:0x[0-9a-f]{2}|\d{2,3})\b",
        )
    });
    static NUMBER: LazyLock<Regex> = LazyLock::new(|| regex(r"0x[0-9a-fA-F]{2}|\d{2,3}"));
    if text.bytes().filter(u8::is_ascii_digit).count() < 10 {
        return;
    }
    let replaced = RUN.replace_all(text, |found: &Captures<'_>| {
        let mut word = String::new();
        for number in NUMBER.find_iter(&found[0]) {
            let number = number.as_str();
            let code = match number.strip_prefix("0x") {
                Some(digits) => u32::from_str_radix(digits, 16).ok(),
                None => number.parse().ok(),
            };
            match code.and_then(char::from_u32) {
                Some(c) if c == ' ' || c == '\n' || c.is_ascii_graphic() => word.push(c),
                _ => return found[0].to_owned(),
            }
        }
        let letters = word.bytes().filter(u8::is_ascii_alphabetic).count();
        if letters * 2 < word.len() {
            return found[0].to_owned();
        }
        let mut shown = String::new();
        write!(shown, " \"{word}\" ").expect("a String takes it");
        shown
    });
    *text = replaced.into_owned();
}

/// Quoted texts that are turned round.
fn reversed(text: &mut String) {
    static QUOTED: LazyLock<Regex> =
        LazyLock::new(|| regex(r#""([^"\n]{4,2000})"|'([^'\n]{4,2000})'"#));
    let lower = text.to_ascii_lowercase();
    let turns = [
        "[::-1]",
        "| rev",
        "|rev",
        ".reverse()",
        "strrev(",
        "reversed(",
        ".reverse.",
        "-join$",
        "[-1..-",
    ];
    if !turns.iter().any(|sign| lower.contains(sign)) {
        return;
    }
    let replaced = QUOTED.replace_all(text, |found: &Captures<'_>| {
        let inner = found.get(1).or_else(|| found.get(2)).map_or("", |inner| inner.as_str());
        format!(" {} ", inner.chars().rev().collect::<String>())
    });
    *text = replaced.into_owned();
}

/// rot13, where it is named.
fn rotated(text: &mut String) {
    let lower = text.to_ascii_lowercase();
    if !["rot13", "rot_13", "rot-13", "n-za-m", "n-z"].iter().any(|sign| lower.contains(sign)) {
        return;
    }
    let turn = |c: char, from: char| {
        let turned = (c as u8 - from as u8 + 13) % 26 + from as u8;
        turned as char
    };
    let turned: String = text
        .chars()
        .map(|c| match c {
            'a'..='z' => turn(c, 'a'),
            'A'..='Z' => turn(c, 'A'),
            _ => c,
        })
        .collect();
    // What runs the text stays readable beside it.
    *text = format!("{text} {turned}");
}

/// `"cu" + "rl"`, and lists of arguments as one command.
fn concatenated(text: &mut String) {
    static JOINED: LazyLock<Regex> =
        LazyLock::new(|| regex(r#"["'`]\s*(?:\+|\.\.|\.|&)\s*(?:[a-z]?)["'`]"#));
    static LIST: LazyLock<Regex> = LazyLock::new(|| regex(r#"["']\s*,\s*["']"#));
    static JOIN: LazyLock<Regex> = LazyLock::new(|| regex(r#"["']\s*\.join\("#));
    if !text.contains(['"', '\'', '`']) {
        return;
    }
    if JOINED.is_match(text) {
        *text = JOINED.replace_all(text, "").into_owned();
    }
    if text.contains(',') {
        let lower = text.to_ascii_lowercase();
        let runs = [
            "subprocess",
            "popen",
            "spawn",
            "exec",
            "system",
            "run(",
            "command",
            "args",
            "cmd",
            "argv",
            "\"-c\"",
            "'-c'",
        ];
        if JOIN.is_match(text) {
            *text = LIST.replace_all(text, "").into_owned();
        } else if runs.iter().any(|word| lower.contains(word)) {
            *text = LIST.replace_all(text, " ").into_owned();
        }
    }
}

/// Signs inside of a word that the program that reads it leaves out.
fn split(text: &mut String) {
    static SAID: LazyLock<Regex> = LazyLock::new(|| {
        regex(r#"\$\((?:printf|echo)\s+(?:-[A-Za-z]+\s+)?["']?([A-Za-z0-9_./:-]{1,60})["']?\)"#)
    });
    static SPACES: LazyLock<Regex> =
        LazyLock::new(|| regex(r"\$\{?IFS(?:%\?\?|:\S{1,5})?\}?(?:\$\d)?|\$\{IFS[^}]*\}"));
    static BRACES: LazyLock<Regex> =
        LazyLock::new(|| regex(r"(^|[\s;|&(`])\{([\w./:-]+(?:,[\w./:@?=&%-]+)+)\}"));
    if text.contains('$') {
        *text = SAID.replace_all(text, "$1").into_owned();
        *text = SPACES.replace_all(text, " ").into_owned();
        for empty in ["$@", "$*", "$()", "${}", "$''", "``"] {
            while let Some(at) = text.find(empty) {
                let inside = is_word(text[..at].chars().next_back())
                    && is_word(text[at + empty.len()..].chars().next());
                if !inside {
                    break;
                }
                text.replace_range(at..at + empty.len(), "");
            }
        }
    }
    if text.contains('{') {
        let replaced = BRACES.replace_all(text, |found: &Captures<'_>| {
            format!("{}{}", &found[1], found[2].replace(',', " "))
        });
        *text = replaced.into_owned();
    }
    if !has_split_word(text.as_bytes()) {
        return;
    }
    let chars: Vec<char> = text.chars().collect();
    let mut plain = String::with_capacity(text.len());
    let mut index = 0;
    while index < chars.len() {
        let c = chars[index];
        let before = plain.chars().next_back();
        let after = |by: usize| chars.get(index + by).copied();
        match c {
            '"' | '\'' if after(1) == Some(c) && is_word(before) && is_word(after(2)) => index += 2,
            // c'u'rl: a quote between letters, closed after a few of them.
            '"' | '\'' if is_word(before) && is_word(after(1)) => {
                let close = (1..=6).find(|by| after(*by) == Some(c));
                match close {
                    Some(by)
                        if by > 1
                            && is_word(after(by + 1))
                            && (1..by).all(|i| is_word(after(i))) =>
                    {
                        plain.extend(&chars[index + 1..index + by]);
                        index += by + 1;
                    }
                    _ => {
                        plain.push(c);
                        index += 1;
                    }
                }
            }
            '\\' | '^' if is_word(before) && after(1).is_some_and(|c| c.is_ascii_lowercase()) => {
                index += 1;
            }
            '`' if is_word(before)
                && is_word(after(1))
                && !matches!(after(1), Some('n' | 't' | 'r')) =>
            {
                index += 1;
            }
            _ => {
                plain.push(c);
                index += 1;
            }
        }
    }
    *text = plain;
}

/// Whether a sign stands inside of a word in a way that [`split`] takes out.
fn has_split_word(bytes: &[u8]) -> bool {
    let word = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_alphanumeric);
    (1..bytes.len()).any(|at| {
        let before = word(at - 1);
        before
            && match bytes[at] {
                quote @ (b'"' | b'\'') => (1..=6).any(|by| bytes.get(at + by) == Some(&quote)),
                b'\\' | b'^' | b'`' => word(at + 1),
                _ => false,
            }
    })
}

fn is_word(c: Option<char>) -> bool {
    c.is_some_and(|c| c.is_ascii_alphanumeric())
}

/// A text in which letters of other alphabets that look like Latin ones are those, if it mixes
/// alphabets within a word.
pub(super) fn fold_lookalikes(text: &str) -> Option<String> {
    let mut folded = String::new();
    let mut any = false;
    for word in text.split_inclusive(|c: char| c.is_whitespace() || "/\"'()<>`|,;".contains(c)) {
        let mixed = word.chars().any(|c| c.is_ascii_alphabetic())
            && word.chars().any(|c| latin(c).is_some());
        if mixed {
            any = true;
            folded.extend(word.chars().map(|c| latin(c).unwrap_or(c)));
        } else {
            folded.push_str(word);
        }
    }
    any.then_some(folded)
}

/// The Latin letter that a lower-case letter of another alphabet looks like.
pub(super) fn latin(c: char) -> Option<char> {
    Some(match c {
        'а' | 'α' | 'ɑ' => 'a',
        'ь' | 'Ь' => 'b',
        'с' | 'ϲ' => 'c',
        'ԁ' => 'd',
        'е' | 'ҽ' => 'e',
        'ɡ' => 'g',
        'һ' => 'h',
        'і' | 'ι' | 'ӏ' | 'ı' => 'i',
        'ј' => 'j',
        'κ' | 'к' => 'k',
        'ⅼ' => 'l',
        'м' => 'm',
        'п' | 'η' => 'n',
        'о' | 'ο' | 'օ' => 'o',
        'р' | 'ρ' => 'p',
        'ԛ' => 'q',
        'г' => 'r',
        'ѕ' => 's',
        'т' | 'τ' => 't',
        'υ' | 'ս' => 'u',
        'ν' | 'ѵ' => 'v',
        'ԝ' | 'ω' => 'w',
        'х' | 'χ' => 'x',
        'у' | 'γ' => 'y',
        'ᴢ' => 'z',
        _ => return None,
    })
}

/// Names private and loopback addresses `localhost`: rules about raw addresses mean public ones.
pub(super) fn hide_private_addresses(text: &mut String, from: usize) {
    static PRIVATE: LazyLock<Regex> = LazyLock::new(|| {
        regex(
            r"\b(?:127\.\d{1,3}|10\.\d{1,3}|192\.168|172\.(?:1[6-9]|2\d|3[01])|169\.254\.(?:[0-9]|[1-9]\d|1[0-58-9]\d|16[0-8]|2\d\d))\.\d{1,3}(?:\.\d{1,3})?\b|\b0\.0\.0\.0\b|\[::1?\]",
        )
    });
    let tail = &text[from..];
    if !tail.bytes().any(|b| b.is_ascii_digit()) || !PRIVATE.is_match(tail) {
        return;
    }
    let plain = PRIVATE.replace_all(tail, "localhost").into_owned();
    text.truncate(from);
    text.push_str(&plain);
}
