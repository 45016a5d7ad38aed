//! Follows data through the variables of a script: what is decoded or fetched and then run.

use std::{collections::HashSet, sync::LazyLock};

use aho_corasick::AhoCorasick;
use evo_common::stage::Severity::High;
use regex::bytes::Regex;

use super::{
    Found,
    rules::compile,
    text::{Kind, Text},
};

/// Most variables of one file that are followed.
const MAX_NAMES: usize = 300;
/// Shortest encoded text that nobody writes by hand.
const LONG: usize = 120;

/// Words without which nothing is decoded.
static DECODES: LazyLock<AhoCorasick> = LazyLock::new(|| {
    AhoCorasick::new([
        "decode",
        "base64",
        "atob",
        "fromhex",
        "unhexlify",
        "decompress",
        "marshal",
        "inflate",
        "rot13",
        "xxd",
        "openssl",
        "fromcharcode",
        "chr",
        "b64",
        "hex",
    ])
    .expect("the words are constants")
});

/// Words without which nothing is fetched.
static FETCHES: LazyLock<AhoCorasick> = LazyLock::new(|| {
    AhoCorasick::new([
        "urlopen",
        "requests.get",
        "httpx.get",
        "fetch(",
        "axios",
        "file_get_contents",
        ".recv(",
        "urlretrieve",
        "download",
        "curl",
        "wget",
    ])
    .expect("the words are constants")
});

/// A variable that is given decoded, fetched or unpacked data.
static TAINTED: LazyLock<Regex> = LazyLock::new(|| {
    compile(concat!(
        r"(?:^|[\s;({,]|\b(?:let|const|var|my|local|export)\s+)[$@]?([a-z_]\w*)\s*(?::\s*\w+\s*)?:?=\s*[^\n]{0,200}?",
        r"(?:b64decode|b32decode|b85decode|a85decode|decodebytes|atob\s*\(|buffer\.from\s*\([^)\n]*['\x22](?:base64|hex)['\x22]|fromhex\s*\(|unhexlify|codecs\.decode|zlib\.decompress|gzip\.decompress|lzma\.decompress|marshal\.loads|decode64|decode_base64|base64_decode|gzinflate|str_rot13|frombase64string|base64\s+[^\n)]{0,8}(?:-d|--decode)|xxd\s+-\w*r|openssl\s+enc[^\n)]{0,60}-d|string\.fromcharcode|stdencoding\.decodestring|['\x22]{2}\.join\(\s*(?:map\(\s*chr|chr\(|\[?\s*chr))"
    ))
});

/// A variable that is given what a server or a connection says, or the name of a file that is fetched.
static FETCHED: LazyLock<Regex> = LazyLock::new(|| {
    compile(concat!(
        r"(?:^|[\s;({,]|\b(?:let|const|var|my)\s+)[$@]?([a-z_]\w*)\s*(?::\s*\w+\s*)?:?=\s*[^\n=]{0,40}?(?:urlopen\(|requests\.get\(|httpx\.get\(|await\s+fetch\(|axios\.get\(|file_get_contents\(\s*['\x22]http|\.recv\(|\$\(\s*(?:curl|wget)\b)",
        r"|(?:urlretrieve|download_file|downloadfile)\(\s*[^,\n]{1,200},\s*([a-z_]\w*)|\b(?:curl|wget)\b[^\n]{0,200}\s-o\s*[\x22']?\$\{?([a-z_]\w*)"
    ))
});

/// A variable that is given another one.
static COPIED: LazyLock<Regex> = LazyLock::new(|| {
    compile(
        r"(?:^|[\s;({,]|\b(?:let|const|var|my|local)\s+)[$@]?([a-z_]\w*)\s*:?=\s*(?:[\w.]*\(\s*){0,3}[\x22']?[$@]?\{?([a-z_]\w*)\}?[\x22']?(?:\.(?:decode|tostring|strip|text|read)\([^)\n]{0,30}\)|\.text|\.content|\s*\|\s*\w+)?\s*\)*\s*(?:$|;)",
    )
});

/// What runs a variable.
static RUN: LazyLock<Regex> = LazyLock::new(|| {
    compile(concat!(
        r"(?:(?:^|[^\w.])(?:exec|eval|function|execfile|assert|loadstring|shell_exec|passthru|system)\s*\(\s*(?:compile\(\s*)?[\x22']?[$@]?\{?([a-z_]\w*)",
        r"|(?:os\.system|os\.popen|subprocess\.\w+|execsync|child_process\.\w+|spawn\w*|process\.start|popen|vm\.runin\w+|runin\w+|instance_eval|exec\.command)\(\s*(?:\[\s*(?:['\x22](?:/bin/|/usr/bin/)?(?:ba|z)?(?:sh|python[\d.]*|node|perl|ruby|cmd|powershell)['\x22]\s*,\s*)?(?:['\x22][-/][\w-]+['\x22]\s*,\s*)?)?[\x22']?[$@]?\{?([a-z_]\w*)",
        r"|\b(?:eval|(?:ba|z|da)?sh\s+-\w*c|iex|invoke-expression|python[\d.]*\s+-c|node\s+-e|perl\s+-e|ruby\s+-e)\s+[\x22']?[$@]\{?([a-z_]\w*)",
        r"|(?:echo|printf)\s+(?:-\w+\s+|['\x22]%s['\x22]\s+)?[\x22']?\$\{?([a-z_]\w*)\}?[\x22']?\s*\|\s*(?:base64\s+\S+\s*\|\s*)?(?:sudo\s+)?(?:ba|z|da)?sh\b|(?:ba|z|da)?sh\s*<<<\s*[\x22']?\$\{?([a-z_]\w*))"
    ))
});

/// Decoded data that is stored.
static STORED: LazyLock<Regex> = LazyLock::new(|| {
    compile(concat!(
        r"(?s)(?:b64decode|fromhex|unhexlify|decode64|base64\s+(?:-d|--decode)|atob\(|['\x22](?:base64|hex)['\x22]).*?(?:\.write\(|writefile(?:sync)?\(|write_bytes|>\s*[\x22']?[/~$.\w]+)",
        r"|(?:\.write\(|writefile(?:sync)?\(|write_bytes\()[^\n]{0,120}(?:b64decode|fromhex|unhexlify|decode64|atob\(|['\x22](?:base64|hex)['\x22])"
    ))
});

/// A file that is made a program, or run.
static STARTED: LazyLock<Regex> = LazyLock::new(|| {
    compile(
        r"chmod\s+(?:\+x|[0-7]*7)|os\.chmod|chmodsync|(?:subprocess\.\w+|os\.system|popen|execsync|spawn\w*)\(\s*[\[f]?\s*['\x22`](?:/tmp|/var/tmp|\./|~/|bash|sh|python[\d.]*|node|chmod)\b|(?:^|[\s;&|])(?:ba|z)?sh\s+[/~$.\x22]|start-process|os\.startfile|&&\s*[/~.][\w/.]",
    )
});

/// Where decoded data is stored as a program within a few lines.
fn stored_and_started(text: &Text<'_>) -> Option<usize> {
    let signs = ["b64decode", "fromhex", "unhexlify", "decode64", "base64", "atob("];
    let prepared = &text.prepared;
    for sign in signs {
        for (at, _) in prepared.match_indices(sign).take(50) {
            let line = text.line_at(at);
            let last = (line + 8).min(text.lines.len() - 1);
            let window = &prepared.as_bytes()[text.lines[line].start..text.lines[last].end];
            if let Some(stored) = STORED.find(window)
                && STARTED.is_match(&window[stored.end()..])
            {
                return Some(text.lines[line].source);
            }
        }
    }
    None
}

/// Executes something, for texts that are too random to be read.
static EXECUTES: LazyLock<Regex> = LazyLock::new(|| {
    compile(
        r"(?:^|[^\w.])(?:exec|eval|new function|function)\s*\(|os\.system\(|subprocess\.|execsync\(|child_process|\bpopen\(|importlib|marshal|\|\s*(?:ba)?sh\b|iex\b",
    )
});

/// A variable that is given a secret with which money is moved.
static MONEY: LazyLock<Regex> = LazyLock::new(|| {
    compile(
        r"(?:^|[\s;({,]|\b(?:let|const|var)\s+)[$@]?([a-z_]\w*)\s*(?::\s*\w+\s*)?:?=\s*[^\n=]{0,30}?(?:os\.environ(?:\.get)?[\[(]\s*['\x22]|getenv\(\s*['\x22]|process\.env\.|process\.env\[['\x22]|env::var\(['\x22]|env\[['\x22]|\$\{?)\w*(?:private_?key|mnemonic|seed_?phrase|secret_?key|api_?secret|wallet_?(?:key|seed)|recovery)\w*",
    )
});
/// What sends something.
static SENT: LazyLock<Regex> = LazyLock::new(|| {
    compile(
        r"\.(?:post|put|request)\(|\bfetch\(|\burlopen\(|\baxios\b|\bcurl\b[^\n]*(?:\s-d|--data|\s-f|--json|[?&]\w+=)|\bwget\b[^\n]*(?:--post|[?&]\w+=)",
    )
});
/// What a secret is needed for without being sent.
static SIGNS: LazyLock<Regex> = LazyLock::new(|| {
    compile(
        r"(?:authorization|bearer|hmac|sign\w*|from_?key|fromsecretkey|account|x-api\S*|headers)\W[^\n]{0,40}$",
    )
});

/// Whether a name in a call stands for its value: neither a key of an object nor a part of another name.
fn is_value(call: &[u8], at: usize, end: usize) -> bool {
    let word = |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_');
    let before = at.checked_sub(1).and_then(|at| call.get(at));
    let behind = &call[end..];
    let is_key = matches!(before, Some(b'"' | b'\'')) && behind.iter().take(3).any(|b| *b == b':');
    let is_part = word(before) || word(behind.first()) || matches!(before, Some(b'.' | b'-'));
    !is_key && !is_part && !behind.trim_ascii_start().starts_with(b"=")
}

/// Where such a secret is sent as it is.
fn secrets_sent(text: &Text<'_>, found: &mut Vec<Found>) {
    /// Lines over which a call may go.
    const CALL: usize = 4;
    let mut names: HashSet<Vec<u8>> = HashSet::new();
    for (index, line) in text.lines.iter().enumerate() {
        let bytes = text.line(index).as_bytes();
        if !names.is_empty()
            && let Some(call) = SENT.find(bytes)
        {
            let last = (index + CALL).min(text.lines.len() - 1);
            let window = &text.prepared.as_bytes()[line.start + call.end()..text.lines[last].end];
            // What comes behind the end of the call is none of it.
            let window = &window[..memchr::memmem::find(window, b"\n\n").unwrap_or(window.len())];
            let sent = names.iter().any(|name| {
                memchr::memmem::find_iter(window, name).any(|at| {
                    is_value(window, at, at + name.len()) && !SIGNS.is_match(&window[..at])
                })
            });
            if sent && memchr::memmem::find(window, b"localhost").is_none() {
                found.push(Found::new(
                    "data_exfiltration",
                    High,
                    line.source,
                    "the key of a wallet or an exchange is sent as it is",
                ));
            }
        }
        if names.len() < MAX_NAMES {
            names.extend(
                MONEY
                    .captures_iter(bytes)
                    .map(|named| named[1].to_vec())
                    .filter(|name| name.len() > 1 || name[0] == b'k'),
            );
        }
    }
}

/// What is decoded or fetched and run, over the lines of a script.
pub(super) fn findings(text: &Text<'_>, found: &mut Vec<Found>) {
    if text.kind != Kind::Script && !text.fenced.iter().any(|fenced| *fenced) {
        return;
    }
    if text.kind == Kind::Script && (text.prepared.contains("env") || text.prepared.contains('$')) {
        secrets_sent(text, found);
    }
    if FETCHES.is_match(&text.prepared) {
        run_from(text, &FETCHED, "download_and_run", "what was fetched is executed", found);
    }
    if DECODES.is_match(&text.prepared) {
        run_from(text, &TAINTED, "encoded_command", "decoded data is executed", found);
        if let (Kind::Script, Some(source)) = (text.kind, stored_and_started(text)) {
            found.push(Found::new(
                "encoded_command",
                High,
                source,
                "decoded data is stored as a program and run",
            ));
        }
    }
    if text.kind == Kind::Script
        && let Some(source) = text.raw.iter().position(|line| looks_random(line))
        && EXECUTES.is_match(text.prepared.as_bytes())
    {
        found.push(Found::new(
            "obfuscated_code",
            High,
            source,
            "a long text that nobody can read stands in code that executes data",
        ));
    }
}

/// Follows what a pattern's variables hold to where it is run.
fn run_from(
    text: &Text<'_>,
    source: &Regex,
    code: &'static str,
    message: &'static str,
    found: &mut Vec<Found>,
) {
    let mut tainted: HashSet<Vec<u8>> = HashSet::new();
    for (index, line) in text.lines.iter().enumerate().filter(|(_, line)| text.is_code(line.source))
    {
        let bytes = text.line(index).as_bytes();
        if !tainted.is_empty() {
            for sink in RUN.captures_iter(bytes) {
                if sink.iter().skip(1).flatten().any(|name| tainted.contains(name.as_bytes())) {
                    found.push(Found::new(code, High, line.source, message));
                }
            }
        }
        if tainted.len() >= MAX_NAMES {
            continue;
        }
        for named in source.captures_iter(bytes) {
            tainted.extend(named.iter().skip(1).flatten().map(|name| name.as_bytes().to_vec()));
        }
        if !tainted.is_empty() {
            for copy in COPIED.captures_iter(bytes) {
                if tainted.contains(&copy[2]) {
                    tainted.insert(copy[1].to_vec());
                }
            }
        }
    }
}

/// Whether a line holds a long quoted text without words: base64, base85 or the like. Pictures and
/// fonts as data URLs, and lists of hashes, are ordinary.
fn looks_random(line: &str) -> bool {
    if line.len() < LONG
        || line.contains("data:")
        || line.contains("sha512-")
        || line.contains("sha256-")
    {
        return false;
    }
    line.split(['"', '\'', '`']).any(|part| {
        part.len() >= LONG
            && !part.contains(' ')
            && part.bytes().all(|b| b.is_ascii_graphic())
            && !part.contains("://")
            && !part.contains('<')
            && part.bytes().filter(|b| !b.is_ascii_alphanumeric()).count() * 12 < part.len()
            && entropy(part.as_bytes()) > 4.6
    })
}

/// Bits that each byte carries.
fn entropy(bytes: &[u8]) -> f64 {
    let mut counts = [0_u32; 256];
    for byte in bytes {
        counts[usize::from(*byte)] += 1;
    }
    let length = bytes.len() as f64;
    counts
        .iter()
        .filter(|count| **count > 0)
        .map(|count| {
            let share = f64::from(*count) / length;
            -share * share.log2()
        })
        .sum()
}
