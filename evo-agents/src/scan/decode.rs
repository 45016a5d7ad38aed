//! Undoes base64, base32 and hex in texts, and what is compressed inside of them.

use std::io::Read as _;

use base64::{
    Engine as _,
    alphabet::{STANDARD, URL_SAFE},
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};

/// Shortest run of letters and figures that is taken for an encoding.
const MIN_RUN: usize = 20;
/// Most runs of one file that are decoded.
const MAX_RUNS: usize = 2_000;
/// Longest text that comes out of one run.
const MAX_DECODED: usize = 64 * 1024;
/// Encodings inside of encodings that are undone.
const MAX_DEPTH: usize = 3;

const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_allow_trailing_bits(true)
    .with_decode_padding_mode(DecodePaddingMode::Indifferent);
const BASE64: GeneralPurpose = GeneralPurpose::new(&STANDARD, LENIENT);
const BASE64_URL: GeneralPurpose = GeneralPurpose::new(&URL_SAFE, LENIENT);

/// Stands in a decoded text for a program that was found in an encoding.
pub(super) const PROGRAM: &str = "[encoded-program]";

/// The texts that are encoded in some lines, with the line where they begin.
pub(super) fn blobs(lines: &[&str]) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut runs = 0;
    let mut index = 0;
    while index < lines.len() {
        // Whole lines of an encoding belong together.
        let mut end = index;
        while end < lines.len() && is_whole_run(lines[end]) {
            end += 1;
        }
        if end > index + 1 {
            let joined: String = lines[index..end].iter().map(|line| quoted(line)).collect();
            decode(&joined, 0, index, &mut found);
            index = end;
            continue;
        }
        for run in runs_of(lines[index]) {
            runs += 1;
            if runs > MAX_RUNS {
                return found;
            }
            decode(run, 0, index, &mut found);
        }
        index += 1;
    }
    found
}

/// A line without what may stand around an encoding that goes over lines.
fn quoted(line: &str) -> &str {
    line.trim().trim_matches(['"', '\'', '+', '\\', ',', ' ', '(', ')', '`'])
}

fn is_whole_run(line: &str) -> bool {
    let text = quoted(line);
    text.len() >= 40 && text.bytes().all(|b| is_code(b) || b == b'=')
}

fn is_code(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_')
}

fn runs_of(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !c.is_ascii() || !is_code(c as u8)).filter(|run| run.len() >= MIN_RUN)
}

fn decode(run: &str, depth: usize, line: usize, found: &mut Vec<(usize, String)>) {
    let Some(bytes) = hex(run).or_else(|| base64(run)).or_else(|| base32(run)) else { return };
    let Some(text) = readable(&bytes) else { return };
    if depth + 1 < MAX_DEPTH {
        for inner in runs_of(&text) {
            decode(inner, depth + 1, line, found);
        }
    }
    found.push((line, text));
}

/// What bytes say, if they are a text, compressed text or a program.
fn readable(bytes: &[u8]) -> Option<String> {
    if super::binary::is_program(bytes) {
        return Some(PROGRAM.to_owned());
    }
    let mut inflated = Vec::new();
    let limit = MAX_DECODED as u64;
    match bytes {
        [0x1f, 0x8b, ..] => {
            flate2::read::GzDecoder::new(bytes).take(limit).read_to_end(&mut inflated).ok()?;
            return text_of(&inflated);
        }
        [0x78, 0x01 | 0x5e | 0x9c | 0xda, ..] => {
            flate2::read::ZlibDecoder::new(bytes).take(limit).read_to_end(&mut inflated).ok()?;
            return text_of(&inflated);
        }
        _ => {}
    }
    // UTF-16, as PowerShell takes it.
    if bytes.len() >= 8 && bytes.iter().skip(1).step_by(2).all(|b| *b == 0) {
        let narrow: Vec<u8> = bytes.iter().step_by(2).copied().collect();
        return text_of(&narrow);
    }
    text_of(bytes)
}

fn text_of(bytes: &[u8]) -> Option<String> {
    let bytes = &bytes[..bytes.len().min(MAX_DECODED)];
    let plain = |b: &u8| matches!(b, 0x20..=0x7e | b'\n' | b'\r' | b'\t');
    (bytes.len() >= 6 && bytes.iter().all(plain))
        .then(|| String::from_utf8_lossy(bytes).into_owned())
}

fn base64(run: &str) -> Option<Vec<u8>> {
    let run = run.trim_end_matches('=');
    // A lone letter at the end is no whole byte.
    let run = if run.len() % 4 == 1 { &run[..run.len() - 1] } else { run };
    BASE64.decode(run).or_else(|_| BASE64_URL.decode(run)).ok()
}

fn hex(run: &str) -> Option<Vec<u8>> {
    let digits = run.strip_prefix("0x").unwrap_or(run);
    if !digits.len().is_multiple_of(2) || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let digit = |b: u8| (b as char).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    digits.as_bytes().chunks(2).map(|two| Some(digit(two[0])? << 4 | digit(two[1])?)).collect()
}

fn base32(run: &str) -> Option<Vec<u8>> {
    if run.len() < 24 || !run.bytes().all(|b| matches!(b, b'A'..=b'Z' | b'2'..=b'7')) {
        return None;
    }
    let (mut bits, mut count, mut bytes) = (0_u32, 0, Vec::new());
    for byte in run.bytes() {
        let value = if byte.is_ascii_uppercase() { byte - b'A' } else { byte - b'2' + 26 };
        bits = bits << 5 | u32::from(value);
        count += 5;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from(bits >> count & 0xff).ok()?);
            bits &= (1 << count) - 1;
        }
    }
    Some(bytes)
}
