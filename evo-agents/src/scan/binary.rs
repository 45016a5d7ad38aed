//! Files that are no text: what their first bytes say that they are.

use evo_common::stage::Severity::{self, High, Warning};

/// What a file without text is.
pub(super) struct Binary {
    pub(super) code: &'static str,
    pub(super) severity: Severity,
    pub(super) message: String,
}

fn binary(code: &'static str, severity: Severity, message: impl Into<String>) -> Binary {
    Binary { code, severity, message: message.into() }
}

/// Whether bytes begin like a program of some system.
pub(super) fn is_program(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\x7fELF")
        || bytes.starts_with(b"MZ") && bytes.len() > 64 && is_portable(bytes)
        || [
            [0xfe, 0xed, 0xfa, 0xce],
            [0xfe, 0xed, 0xfa, 0xcf],
            [0xcf, 0xfa, 0xed, 0xfe],
            [0xce, 0xfa, 0xed, 0xfe],
        ]
        .iter()
        .any(|magic| bytes.starts_with(magic))
}

/// Whether the header of a DOS program leads to one of Windows, or says that it can't run.
fn is_portable(bytes: &[u8]) -> bool {
    let offset =
        bytes.get(0x3c..0x40).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]) as usize);
    offset.and_then(|at| bytes.get(at..at.saturating_add(2))) == Some(b"PE")
        || bytes[..bytes.len().min(512)].windows(12).any(|window| window == b"This program")
}

/// What a file is by its first bytes, unless it is a picture, a font, a sound or a document.
pub(super) fn inspect(name: &str, bytes: &[u8]) -> Option<Binary> {
    let extension = name
        .rsplit('/')
        .next()
        .and_then(|file| file.rsplit_once('.'))
        .map(|(_, e)| e.to_ascii_lowercase());
    let extension = extension.as_deref().unwrap_or_default();
    if is_program(bytes) {
        return Some(binary(
            "program_file",
            High,
            "it is a compiled program, which can't be checked",
        ));
    }
    if is_armed_pickle(bytes) {
        return Some(binary(
            "program_file",
            High,
            "it is a pickle that runs a command when it is loaded",
        ));
    }
    let ends = |list: &[&str]| list.contains(&extension);
    if bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(b"PK\x05\x06") {
        return zip(extension, bytes);
    }
    if bytes.starts_with(b"7z\xbc\xaf\x27\x1c") || bytes.starts_with(b"Rar!\x1a\x07") {
        return Some(binary(
            "archive_inside",
            Warning,
            "it is an archive, whose files can't be checked",
        ));
    }
    if bytes.get(257..262) == Some(b"ustar") && !ends(&["tar"]) {
        return Some(binary(
            "disguised_file",
            High,
            "it is an archive, but its name says something else",
        ));
    }
    if bytes.starts_with(b"\x1f\x8b")
        || bytes.starts_with(b"BZh")
        || bytes.starts_with(b"\xfd7zXZ\0")
        || bytes.starts_with(b"\x28\xb5\x2f\xfd")
        || bytes.get(257..262) == Some(b"ustar")
    {
        return Some(binary(
            "archive_inside",
            Warning,
            "it is an archive, whose files can't be checked",
        ));
    }
    if bytes.starts_with(b"\xca\xfe\xba\xbe")
        || bytes.starts_with(b"\0asm")
        || bytes.starts_with(b"dex\n")
        || bytes.starts_with(b"!<arch>")
        || bytes.starts_with(b"\xed\xab\xee\xdb")
    {
        return Some(binary("program_file", High, "it is compiled code, which can't be checked"));
    }
    if ends(&["pyc", "pyo"]) {
        return Some(binary(
            "binary_file",
            Warning,
            "it is compiled Python, which can't be checked",
        ));
    }
    if bytes.starts_with(b"\xd0\xcf\x11\xe0") && ends(&["msi", "msp"])
        || ends(&[
            "dmg", "pkg", "deb", "rpm", "apk", "exe", "dll", "so", "dylib", "scr", "com", "lnk",
            "iso",
        ])
    {
        return Some(binary(
            "program_file",
            High,
            "it is an installer or program, which can't be checked",
        ));
    }
    if let Some(kind) = media(bytes) {
        let tail = trailing(kind, bytes);
        if tail.windows(4).any(|window| window == b"PK\x03\x04" || window == b"\x7fELF")
            || tail.windows(9).any(|w| w == b"#!/bin/sh" || w == b"#!/bin/ba" || w == b"#!/usr/bi")
            || tail.windows(5).any(|w| w == b"<?php")
            || is_program(tail)
        {
            return Some(binary(
                "disguised_file",
                High,
                "a program or archive hangs behind a picture",
            ));
        }
        return None;
    }
    if ends(&["png", "jpg", "jpeg", "gif", "webp", "pdf", "mp3", "mp4", "ttf", "woff", "woff2"])
        && bytes.starts_with(b"MZ")
    {
        return Some(binary(
            "disguised_file",
            High,
            "its name says that it is a picture, but it is a program",
        ));
    }
    Some(binary("binary_file", Warning, "it is no text, so nothing in it could be checked"))
}

/// A picture, sound, font, document or table whose first bytes say so.
fn media(bytes: &[u8]) -> Option<&'static str> {
    const KNOWN: [(&[u8], &str); 21] = [
        (b"\x89PNG\r\n\x1a\n", "png"),
        (b"\xff\xd8\xff", "jpeg"),
        (b"GIF8", "gif"),
        (b"BM", "bmp"),
        (b"RIFF", "riff"),
        (b"\0\0\x01\0", "ico"),
        (b"II*\0", "tiff"),
        (b"MM\0*", "tiff"),
        (b"%PDF", "pdf"),
        (b"OggS", "ogg"),
        (b"ID3", "mp3"),
        (b"\xff\xfb", "mp3"),
        (b"fLaC", "flac"),
        (b"wOFF", "woff"),
        (b"wOF2", "woff2"),
        (b"\0\x01\0\0", "ttf"),
        (b"OTTO", "otf"),
        (b"SQLite format 3\0", "sqlite"),
        (b"PAR1", "parquet"),
        (b"\x93NUMPY", "numpy"),
        (b"\x1aE\xdf\xa3", "webm"),
    ];
    if bytes.get(4..8) == Some(b"ftyp") {
        return Some("mp4");
    }
    KNOWN.iter().find(|(magic, _)| bytes.starts_with(magic)).map(|(_, kind)| *kind)
}

/// What stands behind the end of a picture.
fn trailing<'a>(kind: &str, bytes: &'a [u8]) -> &'a [u8] {
    let end = match kind {
        "png" => bytes.windows(8).position(|window| window.starts_with(b"IEND")).map(|at| at + 8),
        "jpeg" => bytes.windows(2).rposition(|window| window == [0xff, 0xd9]).map(|at| at + 2),
        _ => None,
    };
    end.and_then(|at| bytes.get(at..)).unwrap_or_default()
}

/// What the heads of a zip's entries tell, without unpacking anything.
fn zip(extension: &str, bytes: &[u8]) -> Option<Binary> {
    let entries = super::archive::zip_entries(bytes);
    let any = |test: &dyn Fn(&str) -> bool| {
        entries.iter().any(|entry| test(&entry.name.to_ascii_lowercase()))
    };
    if entries.iter().any(|entry| entry.locked) {
        return Some(binary(
            "locked_archive",
            High,
            "it is an archive with a password, so nobody can check it",
        ));
    }
    if any(&|name| name.contains("../") || name.starts_with('/') || name.contains("..\\")) {
        return Some(binary(
            "archive_inside",
            High,
            "it is an archive whose files would land outside of it",
        ));
    }
    if any(&|name| name.ends_with("vbaproject.bin")) {
        return Some(binary("program_file", Warning, "it is a document with macros"));
    }
    let programs =
        [".exe", ".dll", ".scr", ".msi", ".bat", ".vbs", ".dylib", ".so", ".ps1", ".command"];
    if any(&|name| programs.iter().any(|end| name.ends_with(end))) {
        return Some(binary("archive_inside", High, "it is an archive with programs in it"));
    }
    let office = any(&|name| {
        name == "[content_types].xml" || name == "mimetype" || name.starts_with("meta-inf/")
    });
    if office && !["zip", "jar"].contains(&extension) {
        return None;
    }
    let honest = [
        "zip", "jar", "skill", "whl", "xpi", "crx", "vsix", "mcpb", "dxt", "npz", "kmz", "epub",
        "3mf", "sketch", "ipa", "apk", "pptx", "docx", "xlsx", "odt", "potx", "dotx", "xltx",
    ];
    if !honest.contains(&extension) {
        return Some(binary(
            "disguised_file",
            High,
            "it is an archive, but its name says something else",
        ));
    }
    Some(binary(
        "archive_inside",
        Warning,
        "it is an archive; its files were scanned as far as they can be opened",
    ))
}

/// Whether a Python pickle calls what runs commands when it is loaded.
fn is_armed_pickle(bytes: &[u8]) -> bool {
    let pickle =
        matches!(bytes, [0x80, 2..=5, ..]) || bytes.starts_with(b"c") || bytes.starts_with(b"(");
    let calls: [&[u8]; 12] = [
        b"cposix\nsystem",
        b"cos\nsystem",
        b"cnt\nsystem",
        b"csubprocess\n",
        b"c__builtin__\neval",
        b"c__builtin__\nexec",
        b"cbuiltins\neval",
        b"cbuiltins\nexec",
        b"\x8c\x05posix",
        b"\x8c\x02nt\x94\x8c\x06system",
        b"\x8c\x0asubprocess",
        b"\x8c\x08builtins\x94\x8c\x04e",
    ];
    pickle && calls.iter().any(|call| memchr::memmem::find(bytes, call).is_some())
}
