//! The archive file, in and out.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufReader, BufWriter, Read},
    path::{Path, PathBuf},
};

use evo_common::ids::{ArtifactId, hex};
use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use sha2::{Digest as _, Sha256};

use super::{Entry, Error, FORMAT, Manifest, Progress, Result, Step, make_private, private_file};

const DATABASE: &str = "king.db";
const MANIFEST: &str = "manifest.json";
/// Largest manifest that is read.
const MAX_MANIFEST: u64 = 256 * 1024 * 1024;
/// Packages between two words about them.
const TELL_EVERY: u64 = 100;

/// Writes an archive. Packages whose content is not what their name says are left out.
pub(super) fn write(
    to: &Path,
    database: &Path,
    packages: &[(ArtifactId, PathBuf)],
    manifest: impl FnOnce(Vec<Entry>, Vec<String>) -> Manifest,
    progress: &Progress,
) -> Result<Manifest> {
    let fail = |source| Error::Io { action: "write", path: to.to_owned(), source };
    let file = private_file(to).map_err(fail)?;
    let mut tar = tar::Builder::new(GzEncoder::new(BufWriter::new(file), Compression::fast()));
    let mut files = Vec::new();
    let mut left_out = Vec::new();
    let source = File::open(database).map_err(Error::io("open", database))?;
    let bytes = source.metadata().map_err(Error::io("look at", database))?.len();
    let mut source = Hashing::new(BufReader::new(source));
    tar.append_data(&mut header(bytes), DATABASE, &mut source).map_err(fail)?;
    files.push(Entry { path: DATABASE.to_owned(), bytes, sha256: source.digest() });
    for (written, (id, path)) in (1_u64..).zip(packages) {
        let content = match std::fs::read(path) {
            Ok(content) => content,
            // It was taken away since the list was made; what needs it would have kept it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(source) => return Err(Error::Io { action: "read", path: path.clone(), source }),
        };
        if ArtifactId::of(&content) != *id {
            left_out.push(id.to_string());
            continue;
        }
        let (path, bytes) = (package_path(id), content.len() as u64);
        tar.append_data(&mut header(bytes), &path, content.as_slice()).map_err(fail)?;
        files.push(Entry { path, bytes, sha256: id.to_string() });
        if written.is_multiple_of(TELL_EVERY) {
            progress(Step::Packages(written));
        }
    }
    progress(Step::Packages(files.len() as u64 - 1));
    let manifest = manifest(files, left_out);
    let text = serde_json::to_vec_pretty(&manifest).expect("a manifest is plain data");
    tar.append_data(&mut header(text.len() as u64), MANIFEST, text.as_slice()).map_err(fail)?;
    let mut gzip = tar.into_inner().map_err(fail)?;
    gzip.try_finish().map_err(fail)?;
    let file = gzip.finish().and_then(|file| file.into_inner().map_err(Into::into));
    file.and_then(|file: File| file.sync_all()).map_err(fail)?;
    Ok(manifest)
}

/// Unpacks an archive into a new folder: `king.db` and `artifacts/`. Everything is checked against
/// the manifest.
pub(super) fn unpack(archive: &Path, into: &Path, progress: &Progress) -> Result<Manifest> {
    let broken = |reason: String| Error::NotWhole { path: archive.to_owned(), reason };
    let cut = |error: io::Error| broken(format!("it can't be read to its end ({error})"));
    let file = File::open(archive).map_err(Error::io("open", archive))?;
    let mut tar = tar::Archive::new(GzDecoder::new(BufReader::new(file)));
    let mut found = BTreeMap::new();
    let mut manifest: Option<Manifest> = None;
    make_private(&into.join("artifacts"))?;
    for entry in tar.entries().map_err(cut)? {
        let mut entry = entry.map_err(cut)?;
        let path = entry.path().map_err(cut)?.to_string_lossy().into_owned();
        if manifest.is_some() || !entry.header().entry_type().is_file() {
            return Err(broken(format!("the entry {path:?} has no place in it")));
        }
        if path == MANIFEST {
            let mut text = Vec::new();
            entry.by_ref().take(MAX_MANIFEST).read_to_end(&mut text).map_err(cut)?;
            let read: Manifest = serde_json::from_slice(&text)
                .map_err(|error| broken(format!("its manifest can't be read: {error}")))?;
            if read.format != FORMAT {
                let format = read.format;
                return Err(broken(format!(
                    "its format is {format}, and this version reads {FORMAT}; use the version that made it"
                )));
            }
            manifest = Some(read);
            continue;
        }
        if path != DATABASE && package_of(&path).is_none() {
            return Err(broken(format!("the entry {path:?} has no place in it")));
        }
        let target = into.join(&path);
        if let Some(folder) = target.parent() {
            make_private(folder)?;
        }
        let mut file = private_file(&target).map_err(Error::io("write", &target))?;
        let mut hashing = Hashing::new(&mut entry);
        let bytes = io::copy(&mut hashing, &mut file).map_err(cut)?;
        let sha256 = hashing.digest();
        file.sync_all().map_err(Error::io("write", &target))?;
        found.insert(path, (bytes, sha256));
        let packages = found.len() as u64;
        if packages.is_multiple_of(TELL_EVERY) {
            progress(Step::Packages(packages));
        }
    }
    // To its end, where the checksum of the compression is.
    io::copy(&mut tar.into_inner(), &mut io::sink()).map_err(cut)?;
    let manifest = manifest.ok_or_else(|| broken("it has no manifest at its end".to_owned()))?;
    for Entry { path, bytes, sha256 } in &manifest.files {
        match found.remove(path) {
            Some((size, digest)) if size == *bytes && digest == *sha256 => {}
            Some(_) => {
                return Err(broken(format!("{path} has another digest than the manifest says")));
            }
            None => return Err(broken(format!("{path} is missing"))),
        }
        if package_of(path).is_some_and(|digest| digest != sha256) {
            return Err(broken(format!("{path} has another digest than its name")));
        }
    }
    if let Some(path) = found.keys().next() {
        return Err(broken(format!("{path} is not in its manifest")));
    }
    if !manifest.files.iter().any(|file| file.path == DATABASE) {
        return Err(broken("it holds no database".to_owned()));
    }
    Ok(manifest)
}

fn header(bytes: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes);
    header.set_mode(0o600);
    header.set_entry_type(tar::EntryType::Regular);
    header
}

fn package_path(id: &ArtifactId) -> String {
    let digest = id.as_str();
    format!("artifacts/{}/{digest}.tar", &digest[..2])
}

/// The digest that such a path names; nothing for a path that is none of a package.
fn package_of(path: &str) -> Option<&str> {
    let (folder, name) = path.strip_prefix("artifacts/")?.split_once('/')?;
    let digest = name.strip_suffix(".tar")?;
    let id = ArtifactId::parse(digest.to_owned()).ok()?;
    (folder == &id.as_str()[..2]).then_some(digest)
}

/// Hashes what is read through it.
struct Hashing<R> {
    inner: R,
    hash: Sha256,
}

impl<R: Read> Hashing<R> {
    fn new(inner: R) -> Self {
        Self { inner, hash: Sha256::new() }
    }

    fn digest(self) -> String {
        hex(&self.hash.finalize())
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hash.update(&buffer[..read]);
        Ok(read)
    }
}
