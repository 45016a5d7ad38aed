//! Trees of skills: a folder per skill, each with a `SKILL.md`, as one archive: `.tar.gz` is written,
//! `.tar` and `.zip` are read as well.
//!
//! What comes from elsewhere is read within limits: plain relative paths, plain files, so many of them
//! and so large; nothing touches the disk.

use std::{
    collections::BTreeMap,
    io::{self, Cursor, Read},
};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use flate2::{Compression, GzBuilder, read::GzDecoder, write::GzEncoder};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use zip::{ZipArchive, result::ZipError};

use crate::{
    artifact::{self, Files},
    skill::files::SKILL_MD,
};

/// Largest archive that is read.
pub const MAX_ARCHIVE_BYTES: usize = 16 * 1024 * 1024;
/// Most bytes of all files together.
pub const MAX_BYTES: u64 = 64 * 1024 * 1024;
/// Most files and folders.
pub const MAX_ENTRIES: usize = 10_000;
/// Most skills.
pub const MAX_SKILLS: usize = 1_000;
/// Most bytes of all files of one skill.
pub const MAX_SKILL_BYTES: usize = 1024 * 1024;

/// Why a tree is refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An entry is not what a tree may hold.
    #[error(transparent)]
    Entry(#[from] artifact::Error),
    /// Too large.
    #[error(
        "the tree is too large: {MAX_ARCHIVE_BYTES} bytes packed, {MAX_BYTES} bytes unpacked, {MAX_ENTRIES} files and {MAX_SKILLS} skills are the most"
    )]
    TooLarge,
    /// One skill is too large.
    #[error(
        "the skill in {folder:?} has more than {MAX_SKILL_BYTES} bytes; leave out what it does not need"
    )]
    SkillTooLarge {
        /// Its folder.
        folder: String,
    },
    /// There is no skill in it.
    #[error("the tree holds no SKILL.md")]
    Nothing,
    /// It can't be read.
    #[error(
        "the archive can't be read ({0}); it must be a tar archive, packed with gzip or not, or a zip archive"
    )]
    Read(#[from] io::Error),
}

impl From<ZipError> for Error {
    fn from(error: ZipError) -> Self {
        Self::Read(error.into())
    }
}

/// The file of a skill in the definition of a candidate: a text as it is, anything else in base64.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Content {
    /// A text.
    Text(String),
    /// Anything else.
    Bytes {
        /// In base64, with padding.
        base64: String,
    },
}

impl Content {
    /// Bytes that are no text.
    pub fn of_bytes(bytes: &[u8]) -> Self {
        Self::Bytes { base64: BASE64.encode(bytes) }
    }

    /// What the file holds; [`None`] when it is no base64.
    pub fn bytes(&self) -> Option<Vec<u8>> {
        match self {
            Self::Text(text) => Some(text.clone().into_bytes()),
            Self::Bytes { base64 } => BASE64.decode(base64).ok(),
        }
    }
}

/// The definition of a candidate that is a folder with a `SKILL.md`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FolderDefinition {
    /// Its files: path in the folder → content.
    pub files: BTreeMap<String, Content>,
    /// What stands above the text of its `SKILL.md`, as JSON.
    #[serde(default)]
    pub frontmatter: Value,
}

/// Writes a tree piece by piece: the same files in the same order give the same bytes.
pub struct Writer(tar::Builder<GzEncoder<Vec<u8>>>);

impl Default for Writer {
    fn default() -> Self {
        // Without a time and a name, which would differ each time.
        let gzip = GzBuilder::new().mtime(0).operating_system(255);
        Self(tar::Builder::new(gzip.write(Vec::new(), Compression::default())))
    }
}

impl Writer {
    /// Adds the files of one folder.
    pub fn add(&mut self, folder: &str, files: &Files) -> Result<(), Error> {
        for (path, content) in files {
            let path = if folder.is_empty() { path.clone() } else { format!("{folder}/{path}") };
            artifact::check_path(&path)?;
            let mut header = tar::Header::new_ustar();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            header.set_mtime(0);
            header.set_uid(0);
            header.set_gid(0);
            header.set_entry_type(tar::EntryType::Regular);
            self.0.append_data(&mut header, path, content.as_slice())?;
        }
        Ok(())
    }

    /// Takes what is written so far.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(self.0.get_mut().get_mut())
    }

    /// Ends the archive; gives what has not been taken yet.
    pub fn finish(self) -> Result<Vec<u8>, Error> {
        Ok(self.0.into_inner()?.finish()?)
    }
}

/// Reads an archive.
pub fn read(archive: &[u8]) -> Result<Files, Error> {
    if archive.len() > MAX_ARCHIVE_BYTES {
        return Err(Error::TooLarge);
    }
    if archive.starts_with(b"PK") {
        return read_zip(archive);
    }
    let packed = archive.starts_with(&[0x1f, 0x8b]);
    let source: Box<dyn Read + '_> =
        if packed { Box::new(GzDecoder::new(archive)) } else { Box::new(Cursor::new(archive)) };
    // One byte more than allowed, so that too much is noticed.
    let mut reader = tar::Archive::new(source.take(MAX_BYTES + 1));
    let (mut files, mut bytes, mut entries) = (Files::new(), 0, 0);
    for entry in reader.entries()? {
        let entry = entry?;
        entries += 1;
        bytes += entry.header().size()?;
        if entries > MAX_ENTRIES || bytes > MAX_BYTES {
            return Err(Error::TooLarge);
        }
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        // Ordinary archivers write folders, and a dot before everything.
        let path = path.strip_prefix("./").unwrap_or(&path).to_owned();
        match entry.header().entry_type() {
            tar::EntryType::Directory | tar::EntryType::XGlobalHeader => continue,
            tar::EntryType::Regular => {}
            _ => return Err(artifact::Error::Kind(path).into()),
        }
        artifact::check_path(&path)?;
        let mut content = Vec::new();
        entry.take(MAX_BYTES).read_to_end(&mut content)?;
        if files.insert(path.clone(), content).is_some() {
            return Err(artifact::Error::Twice(path).into());
        }
    }
    Ok(files)
}

/// What a zip archive ends with, and where it says how many entries it has.
const ZIP_END: (&[u8], usize) = (b"PK\x05\x06", 10);
/// Bits of a Unix mode that say what an entry is, and those of a plain file.
const KIND: u32 = 0o170_000;
const PLAIN: u32 = 0o100_000;

fn read_zip(archive: &[u8]) -> Result<Files, Error> {
    let (mark, place) = ZIP_END;
    let end = archive.windows(mark.len()).rposition(|bytes| bytes == mark);
    let told = end.and_then(|end| archive.get(end + place..end + place + 2)).unwrap_or(&[0, 0]);
    let told = usize::from(u16::from_le_bytes([told[0], told[1]]));
    // Before its list of entries is read; more than this field can tell is too many anyway.
    if told > MAX_ENTRIES {
        return Err(Error::TooLarge);
    }
    let mut reader = ZipArchive::new(Cursor::new(archive))?;
    if reader.len() > MAX_ENTRIES {
        return Err(Error::TooLarge);
    }
    if reader.len() != told {
        // Entries of one name are one entry to the reader.
        return Err(artifact::Error::Twice("some file".to_owned()).into());
    }
    let (mut files, mut left) = (Files::new(), MAX_BYTES);
    for index in 0..reader.len() {
        let entry = reader.by_index(index)?;
        let path = entry.name()?.into_owned();
        let path = path.strip_prefix("./").unwrap_or(&path).to_owned();
        if entry.is_dir() {
            continue;
        }
        let kind = entry.unix_mode().unwrap_or_default() & KIND;
        if kind != 0 && kind != PLAIN {
            return Err(artifact::Error::Kind(path).into());
        }
        artifact::check_path(&path)?;
        let mut content = Vec::new();
        // What it says of its size is not believed. One byte more, so that too much is noticed.
        entry.take(left + 1).read_to_end(&mut content)?;
        left = left.checked_sub(content.len() as u64).ok_or(Error::TooLarge)?;
        if files.insert(path.clone(), content).is_some() {
            return Err(artifact::Error::Twice(path).into());
        }
    }
    Ok(files)
}

/// The skills of a tree: the folders that hold a `SKILL.md`, each with its files. What lies in no such
/// folder, and what is hidden, is left out; a skill inside of a skill belongs to the outer one.
pub fn skills(files: Files) -> Result<BTreeMap<String, Files>, Error> {
    let folder_of = |path: &str| path.rsplit_once('/').map_or("", |(folder, _)| folder).to_owned();
    let is_hidden = |path: &str| path.split('/').any(|part| part.starts_with('.'));
    let mut skills: BTreeMap<String, Files> = BTreeMap::new();
    for path in files.keys().filter(|path| !is_hidden(path)) {
        if path.rsplit('/').next() == Some(SKILL_MD) {
            skills.insert(folder_of(path), Files::new());
        }
    }
    let inside = |outer: &str, path: &str| {
        outer.is_empty() || path.strip_prefix(outer).is_some_and(|rest| rest.starts_with('/'))
    };
    let folders: Vec<String> = skills.keys().cloned().collect();
    skills.retain(|own, _| !folders.iter().any(|other| other != own && inside(other, own)));
    for (path, content) in files {
        if is_hidden(&path) {
            continue;
        }
        if let Some((folder, skill)) = skills.iter_mut().find(|(folder, _)| inside(folder, &path)) {
            let name = if folder.is_empty() { &*path } else { &path[folder.len() + 1..] };
            skill.insert(name.to_owned(), content);
        }
    }
    if skills.is_empty() {
        return Err(Error::Nothing);
    }
    if skills.len() > MAX_SKILLS {
        return Err(Error::TooLarge);
    }
    for (folder, files) in &skills {
        if files.values().map(Vec::len).sum::<usize>() > MAX_SKILL_BYTES {
            return Err(Error::SkillTooLarge { folder: folder.clone() });
        }
    }
    Ok(skills)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(entries: &[(&str, &str)]) -> Files {
        entries.iter().map(|(p, c)| ((*p).to_owned(), c.as_bytes().to_vec())).collect()
    }

    fn packed(entries: &[(&str, &str)]) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.add("", &files(entries)).unwrap();
        writer.finish().unwrap()
    }

    #[test]
    fn the_same_files_give_the_same_bytes_also_when_they_are_taken_in_pieces() {
        let entries = [("a/SKILL.md", "---\nname: a\n---\n"), ("b/SKILL.md", "x")];
        let whole = packed(&entries);
        let mut writer = Writer::default();
        writer.add("a", &files(&[("SKILL.md", entries[0].1)])).unwrap();
        let mut pieces = writer.take();
        writer.add("b", &files(&[("SKILL.md", entries[1].1)])).unwrap();
        pieces.extend(writer.take());
        pieces.extend(writer.finish().unwrap());
        assert_eq!(pieces, whole);
        assert_eq!(read(&whole).unwrap(), files(&entries));
    }

    #[test]
    fn skills_are_the_folders_with_a_skill_md() {
        let tree = files(&[
            ("README.md", "not one"),
            (".git/SKILL.md", "hidden"),
            ("skills/a/SKILL.md", "a"),
            ("skills/a/scripts/run.py", "run"),
            ("skills/a/.env", "hidden"),
            ("skills/a/inner/SKILL.md", "part of a"),
            ("skills/ab/SKILL.md", "ab"),
        ]);
        let found = skills(tree).unwrap();
        assert_eq!(found.keys().collect::<Vec<_>>(), ["skills/a", "skills/ab"]);
        let names: Vec<&String> = found["skills/a"].keys().collect();
        assert_eq!(names, ["SKILL.md", "inner/SKILL.md", "scripts/run.py"]);
        let single = skills(files(&[("SKILL.md", "x"), ("b.txt", "y")])).unwrap();
        assert_eq!(single[""].len(), 2);
        assert!(matches!(skills(files(&[("a.txt", "x")])), Err(Error::Nothing)));
    }

    fn zipped(entries: &[(&str, &[u8], u32)]) -> Vec<u8> {
        let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
        for (path, content, mode) in entries {
            let options = zip::write::SimpleFileOptions::default().unix_permissions(*mode);
            if mode & KIND == 0o120_000 {
                writer.add_symlink(*path, "/etc/passwd", options).unwrap();
            } else {
                writer.start_file(*path, options).unwrap();
                io::Write::write_all(&mut writer, content).unwrap();
            }
        }
        writer.finish().unwrap().into_inner()
    }

    #[test]
    fn a_zip_archive_is_read_as_the_others_are() {
        let entries = [("a/SKILL.md", "---\nname: a\n---\n"), ("a/b.txt", "y")];
        let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
        let options = zip::write::SimpleFileOptions::default();
        writer.add_directory("a", options).unwrap();
        for (path, text) in entries {
            writer.start_file(format!("./{path}"), options).unwrap();
            io::Write::write_all(&mut writer, text.as_bytes()).unwrap();
        }
        let archive = writer.finish().unwrap().into_inner();
        assert_eq!(read(&archive).unwrap(), files(&entries));

        for path in ["../SKILL.md", "/etc/passwd", "a/../../b", "a\\b"] {
            let error = read(&zipped(&[(path, b"x", 0o644)])).unwrap_err();
            assert!(matches!(error, Error::Entry(artifact::Error::Path(_))), "{path}: {error}");
        }
        let error = read(&zipped(&[("a", b"", 0o120_777)])).unwrap_err();
        assert!(matches!(error, Error::Entry(artifact::Error::Kind(_))), "{error}");
        // Two entries of one name, by changing the name of the second everywhere.
        let twice = zipped(&[("a1.md", b"x", 0o644), ("a2.md", b"y", 0o644)]);
        let at = |name: &[u8]| {
            twice
                .windows(5)
                .enumerate()
                .filter(|(_, w)| *w == name)
                .map(|(i, _)| i)
                .collect::<Vec<_>>()
        };
        let mut changed = twice.clone();
        for place in at(b"a2.md") {
            changed[place + 1] = b'1';
        }
        assert!(matches!(read(&changed).unwrap_err(), Error::Entry(artifact::Error::Twice(_))));
        // A small archive of very much.
        let zeros = vec![0; 1 << 20];
        let bomb: Vec<(String, &[u8], u32)> =
            (0..=64).map(|number| (format!("a/{number}"), zeros.as_slice(), 0o644)).collect();
        let bomb: Vec<_> =
            bomb.iter().map(|(path, bytes, mode)| (path.as_str(), *bytes, *mode)).collect();
        let archive = zipped(&bomb);
        assert!(archive.len() < 1 << 20 && matches!(read(&archive), Err(Error::TooLarge)));
        assert!(read(&zipped(&bomb[..64])).is_ok());
        let many: Vec<String> = (0..=MAX_ENTRIES).map(|number| format!("a/{number}")).collect();
        let many: Vec<_> = many.iter().map(|path| (path.as_str(), &b""[..], 0o644)).collect();
        assert!(matches!(read(&zipped(&many)), Err(Error::TooLarge)));
        for broken in [&archive[..archive.len() / 2], b"PK", b"PK\x03\x04 nothing"] {
            assert!(matches!(read(broken), Err(Error::Read(_))), "{}", broken.len());
        }
    }

    #[test]
    fn hostile_archives_are_refused() {
        let raw = |path: &str, kind: tar::EntryType, size: u64| {
            let mut builder = tar::Builder::new(Vec::new());
            let mut header = tar::Header::new_ustar();
            header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
            header.set_entry_type(kind);
            header.set_size(size);
            header.set_cksum();
            builder.append(&header, io::empty()).unwrap();
            builder.into_inner().unwrap()
        };
        let regular = tar::EntryType::Regular;
        for path in ["../SKILL.md", "/etc/passwd", "a/../../b", "a\\b"] {
            let error = read(&raw(path, regular, 0)).unwrap_err();
            assert!(matches!(error, Error::Entry(artifact::Error::Path(_))), "{path}: {error}");
        }
        for kind in [tar::EntryType::Symlink, tar::EntryType::Link, tar::EntryType::Fifo] {
            let error = read(&raw("a", kind, 0)).unwrap_err();
            assert!(matches!(error, Error::Entry(artifact::Error::Kind(_))), "{error}");
        }
        assert!(matches!(read(&raw("a", regular, MAX_BYTES + 1)), Err(Error::TooLarge)));
        assert!(read(b"nothing that is an archive").is_err());
        let large = "x".repeat(MAX_SKILL_BYTES + 1);
        let tree = files(&[("a/SKILL.md", &large)]);
        assert!(matches!(skills(tree), Err(Error::SkillTooLarge { .. })));
    }
}
