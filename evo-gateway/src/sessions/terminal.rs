//! One program in a terminal.

use std::{
    ffi::OsString,
    io,
    num::NonZeroU16,
    path::Path,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use pty_process::{OwnedReadPty, OwnedWritePty, Size};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};

use crate::process_group::Group;

/// How many lines above the screen are remembered.
const SCROLLBACK: usize = 1_000;
/// Longest line that is told as one.
const LINE: usize = 8 * 1024;
/// After which silence an unfinished line, such as a prompt, is told as it is.
const PROMPT: Duration = Duration::from_millis(100);
/// How long a program may take to end after its terminal was closed.
const EXIT: Duration = Duration::from_secs(1);
/// How long a program may leave input unread.
const UNREAD: Duration = Duration::from_secs(5);

/// The screen of one session.
pub(super) struct Screen(Mutex<vt100::Parser>);

impl Screen {
    /// An empty one.
    pub(super) fn new(rows: NonZeroU16, columns: NonZeroU16) -> Self {
        Self(Mutex::new(vt100::Parser::new(rows, columns, SCROLLBACK)))
    }

    /// What stands on it.
    pub(super) fn contents(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).screen().contents()
    }

    fn process(&self, bytes: &[u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).process(bytes);
    }
}

impl std::fmt::Debug for Screen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Screen")
    }
}

/// A program that runs in a terminal.
pub(super) struct Terminal {
    read: OwnedReadPty,
    write: OwnedWritePty,
    group: Group,
    idle: Duration,
}

/// What happened to a program.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It ended by itself, in this way.
    Exited(String),
    /// It did nothing for too long.
    Idle,
}

impl Terminal {
    /// Starts a program in a terminal of its own.
    pub(super) fn start(
        command: &[String],
        environment: Vec<(OsString, OsString)>,
        folder: Option<&Path>,
        (rows, columns): (NonZeroU16, NonZeroU16),
        idle: Duration,
    ) -> io::Result<Self> {
        let (program, arguments) =
            command.split_first().ok_or_else(|| io::Error::other("no command"))?;
        let (pty, pts) = pty_process::open().map_err(io::Error::other)?;
        pty.resize(Size::new(rows.get(), columns.get())).map_err(io::Error::other)?;
        let mut process = pty_process::Command::new(program)
            .args(arguments)
            .env_clear()
            .envs(environment)
            .kill_on_drop(true);
        if let Some(folder) = folder {
            process = process.current_dir(folder);
        }
        let child = process.spawn(pts).map_err(|error| match error {
            pty_process::Error::Io(error) => error,
            other => io::Error::other(other),
        })?;
        let (read, write) = pty.into_split();
        Ok(Self { read, write, group: Group::of(child), idle })
    }

    /// Passes input on and tells lines until the program ends. `tell` must not wait.
    pub(super) async fn run(
        mut self,
        screen: &Screen,
        mut input: mpsc::Receiver<Vec<u8>>,
        mut tell: impl FnMut(String),
    ) -> End {
        let mut lines = Lines::default();
        let mut piece = vec![0; 4096];
        let mut active = Instant::now();
        loop {
            let quiet_at = active + PROMPT;
            tokio::select! {
                read = self.read.read(&mut piece) => match read {
                    // The system says so when the last program has closed the terminal.
                    Ok(0) | Err(_) => break,
                    Ok(length) => {
                        active = Instant::now();
                        screen.process(&piece[..length]);
                        lines.push(&piece[..length], &mut tell);
                    }
                },
                Some(bytes) = input.recv() => {
                    active = Instant::now();
                    let written = timeout(UNREAD, self.write.write_all(&bytes)).await;
                    if !matches!(written, Ok(Ok(()))) {
                        tell("[the program did not take its input]".to_owned());
                    }
                }
                () = sleep_until(quiet_at), if lines.has_rest() => lines.flush(&mut tell),
                () = sleep_until(active + self.idle) => {
                    lines.flush(&mut tell);
                    return End::Idle;
                }
            }
        }
        lines.flush(&mut tell);
        End::Exited(self.group.exit(EXIT).await)
    }
}

/// Cuts output into lines.
#[derive(Debug, Default)]
struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    fn push(&mut self, bytes: &[u8], tell: &mut impl FnMut(String)) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.rest.extend_from_slice(part);
            if part.ends_with(b"\n") || self.rest.len() >= LINE {
                self.flush(tell);
            }
        }
    }

    fn has_rest(&self) -> bool {
        !self.rest.is_empty()
    }

    fn flush(&mut self, tell: &mut impl FnMut(String)) {
        if self.rest.is_empty() {
            return;
        }
        let line = self.rest.trim_ascii_end();
        tell(String::from_utf8_lossy(line).into_owned());
        self.rest.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_told_in_lines_that_have_an_end() {
        let mut told = Vec::new();
        let mut lines = Lines::default();
        for piece in ["on", "e\r\ntw", "o\r\n\r\nprompt> "] {
            lines.push(piece.as_bytes(), &mut |line| told.push(line));
        }
        assert_eq!(told, ["one", "two", ""]);
        assert!(lines.has_rest());
        lines.flush(&mut |line| told.push(line));
        assert_eq!(told.last().unwrap(), "prompt>");
        told.clear();
        lines.push(&vec![b'x'; 3 * LINE], &mut |line| told.push(line));
        lines.flush(&mut |line| told.push(line));
        assert!(told.iter().all(|line| line.len() <= 3 * LINE), "{}", told.len());
    }
}
