//! Opens archives inside of a package, in memory and bounded, so that their files are scanned too.

use std::io::Read as _;

/// Most files of one archive that are opened.
const MAX_FILES: usize = 200;
/// Most bytes that come out of one archive.
const MAX_BYTES: u64 = 4 * 1024 * 1024;

/// One file of a zip, as its own head describes it.
pub(super) struct Entry<'a> {
    pub(super) name: String,
    pub(super) locked: bool,
    method: u16,
    data: &'a [u8],
}

/// The files of a zip by their own heads. Nothing is unpacked.
pub(super) fn zip_entries(bytes: &[u8]) -> Vec<Entry<'_>> {
    let mut entries = Vec::new();
    let mut at = 0;
    while entries.len() < 1_000 {
        let Some(head) = bytes.get(at..at + 30) else { break };
        if !head.starts_with(b"PK\x03\x04") {
            break;
        }
        let word = |from: usize| u16::from_le_bytes([head[from], head[from + 1]]);
        let size = u32::from_le_bytes([head[18], head[19], head[20], head[21]]) as usize;
        let names_end = at + 30 + usize::from(word(26));
        let name = bytes.get(at + 30..names_end).unwrap_or_default();
        let start = names_end + usize::from(word(28));
        let rest = bytes.get(start..).unwrap_or_default();
        // With the size behind the data, the next head has to be searched.
        let size = match size {
            0 if head[6] & 8 == 8 => {
                let next = memchr::memmem::find(rest, b"PK\x03\x04")
                    .or_else(|| memchr::memmem::find(rest, b"PK\x01\x02"));
                next.unwrap_or(rest.len())
            }
            size => size,
        };
        entries.push(Entry {
            name: String::from_utf8_lossy(name).into_owned(),
            locked: head[6] & 1 == 1,
            method: word(8),
            data: &rest[..size.min(rest.len())],
        });
        at = start.saturating_add(size);
    }
    entries
}

/// The files of an archive: zip, tar, gzip. Nothing comes out of what is none of these, or is locked.
pub(super) fn unpack(name: &str, bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    if bytes.starts_with(b"PK\x03\x04") {
        return unzip(bytes);
    }
    if bytes.starts_with(b"\x1f\x8b") {
        let mut inner = Vec::new();
        // What could be read before a fault is looked at all the same.
        let read = flate2::read::MultiGzDecoder::new(bytes).take(MAX_BYTES).read_to_end(&mut inner);
        if read.is_err() && inner.is_empty() {
            return Vec::new();
        }
        if is_tar(&inner) {
            return untar(&inner);
        }
        let file = name.rsplit('/').next().unwrap_or(name);
        let inside = file.strip_suffix(".gz").unwrap_or(file);
        return vec![(inside.to_owned(), inner)];
    }
    if is_tar(bytes) { untar(bytes) } else { Vec::new() }
}

fn is_tar(bytes: &[u8]) -> bool {
    bytes.get(257..262) == Some(b"ustar")
}

fn unzip(bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    let mut left = MAX_BYTES;
    for entry in zip_entries(bytes).into_iter().filter(|entry| !entry.locked).take(MAX_FILES) {
        let mut content = Vec::new();
        let read = match entry.method {
            0 => entry.data.take(left).read_to_end(&mut content),
            8 => flate2::read::DeflateDecoder::new(entry.data).take(left).read_to_end(&mut content),
            _ => continue,
        };
        if read.is_err() && content.is_empty() {
            continue;
        }
        left = left.saturating_sub(content.len() as u64);
        files.push((entry.name, content));
    }
    files
}

fn untar(bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    let mut left = MAX_BYTES;
    let mut archive = tar::Archive::new(bytes);
    let Ok(entries) = archive.entries() else { return files };
    for entry in entries.take(MAX_FILES) {
        let Ok(entry) = entry else { break };
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let mut content = Vec::new();
        if entry.take(left).read_to_end(&mut content).is_err() {
            break;
        }
        left = left.saturating_sub(content.len() as u64);
        files.push((name, content));
    }
    files
}
