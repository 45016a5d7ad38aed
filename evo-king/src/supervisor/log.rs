//! What an agent writes, in files that do not grow without end.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Size of one file.
const SIZE: u64 = 4 * 1024 * 1024;
/// Files that are kept beside the one that is written.
const OLDER: u32 = 3;

/// The log of one agent. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Log(Arc<Mutex<Open>>);

#[derive(Debug)]
struct Open {
    path: PathBuf,
    file: Option<(File, u64)>,
    size: u64,
}

impl Log {
    /// The log at this place; nothing is written yet.
    pub(super) fn at(path: PathBuf) -> Self {
        Self(Arc::new(Mutex::new(Open { path, file: None, size: SIZE })))
    }

    /// Writes what the stream holds until its end. A log that can't be written is told once; the
    /// agent goes on all the same.
    pub(super) async fn copy(self, mut stream: impl AsyncRead + Unpin) {
        let mut buffer = vec![0; 16 * 1024];
        let mut told = false;
        while let Ok(length @ 1..) = stream.read(&mut buffer).await {
            let written =
                self.0.lock().unwrap_or_else(PoisonError::into_inner).write(&buffer[..length]);
            if let Err(error) = written
                && !std::mem::replace(&mut told, true)
            {
                tracing::warn!(%error, "An agent's log can't be written: {error}");
            }
        }
    }
}

impl Open {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.file.as_ref().is_some_and(|(_, length)| *length >= self.size) {
            self.file = None;
            self.rotate()?;
        }
        let (file, length) = match &mut self.file {
            Some(open) => open,
            None => self.file.insert(open(&self.path)?),
        };
        file.write_all(bytes)?;
        *length += bytes.len() as u64;
        Ok(())
    }

    /// `a.log` becomes `a.log.1`, and so on; the oldest one goes.
    fn rotate(&self) -> io::Result<()> {
        for number in (0..OLDER).rev() {
            let (from, to) = (numbered(&self.path, number), numbered(&self.path, number + 1));
            match fs::rename(from, to) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    if number == 0 { path.to_owned() } else { path.with_extension(format!("log.{number}")) }
}

fn open(path: &Path) -> io::Result<(File, u64)> {
    if let Some(folder) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    let length = file.metadata()?.len();
    Ok((file, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_turned_over_and_the_oldest_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agents").join("a.log");
        let mut log = Open { path: path.clone(), file: None, size: 10 };
        for number in 0..10 {
            log.write(format!("piece {number:04}\n").as_bytes()).unwrap();
        }
        let names = fs::read_dir(path.parent().unwrap()).unwrap().count();
        assert_eq!(names, 1 + OLDER as usize);
        assert_eq!(fs::read_to_string(&path).unwrap(), "piece 0009\n");
        assert_eq!(fs::read_to_string(numbered(&path, 3)).unwrap(), "piece 0006\n");
        // Another process goes on where this one ended.
        let mut again = Open { path: path.clone(), file: None, size: 10 };
        again.write(b"more\n").unwrap();
        again.write(b"more\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "more\n");
    }
}
