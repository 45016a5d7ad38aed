//! The program of an MCP server: started without a shell, with an environment of its own, and
//! ended together with everything that it started.

use std::{
    collections::VecDeque,
    path::PathBuf,
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use evo_common::runtime::{OnError, TaskGroup};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::Instant,
};

/// Most lines of one program that go to the log.
const MAX_LINES: usize = 200;
/// Longest part of a line that is kept.
const MAX_LINE: u64 = 500;
/// How many of its last lines are repeated when it fails.
const TAIL: usize = 3;

/// A program and what it gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Program {
    pub(crate) source: String,
    pub(crate) command: Vec<String>,
    pub(crate) folder: Option<PathBuf>,
    /// Its whole environment.
    pub(crate) env: Vec<(String, evo_common::tokens::Secret)>,
}

/// What a program wrote on its standard error last.
#[derive(Debug, Clone, Default)]
pub(super) struct Tail(Arc<Mutex<VecDeque<String>>>);

impl Tail {
    fn push(&self, line: String) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == TAIL {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    /// `; it wrote: …`, or nothing.
    pub(super) fn told(&self) -> String {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.is_empty() {
            return String::new();
        }
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        format!("; it wrote: {}", lines.join(" / "))
    }
}

/// A running program. It leads a process group, which is killed when this is dropped. It is not
/// collected before that: as long as it is there, if only as a zombie, no other group can have its
/// number.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    pub(super) tail: Tail,
}

impl Program {
    /// Its name, for messages.
    pub(super) fn name(&self) -> &str {
        self.command.first().map_or("", String::as_str)
    }

    /// Starts it; gives it and its standard streams.
    pub(super) fn start(
        &self,
        tasks: &TaskGroup,
    ) -> std::io::Result<(Process, ChildStdout, ChildStdin)> {
        let arguments = self.command.get(1..).unwrap_or_default();
        let mut command = Command::new(self.name());
        command
            .args(arguments)
            .env_clear()
            .envs(self.env.iter().map(|(name, value)| (name, value.expose())))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        #[cfg(unix)]
        command.process_group(0);
        if let Some(folder) = &self.folder {
            command.current_dir(folder);
        }
        let mut child = command.spawn()?;
        let gone = || std::io::Error::other("a standard stream is missing");
        let stdin = child.stdin.take().ok_or_else(gone)?;
        let stdout = child.stdout.take().ok_or_else(gone)?;
        let stderr = child.stderr.take().ok_or_else(gone)?;
        let tail = Tail::default();
        let secrets = self.env.iter().map(|(_, value)| value.expose());
        // Short values are paths and names of languages, not secrets.
        let secrets = secrets.filter(|value| value.len() >= 16).map(str::to_owned).collect();
        let log = log(self.source.clone(), stderr, tail.clone(), secrets);
        let cancel = tasks.token().clone();
        tasks.spawn("mcp-stderr", OnError::Log, async move {
            tokio::select! {
                () = cancel.cancelled() => {}
                () = log => {}
            }
            Ok(())
        });
        Ok((Process { child, tail }, stdout, stdin))
    }
}

/// Puts what a program says into the log, up to a number of lines; the rest is read and forgotten,
/// so that the program is never held up.
async fn log(source: String, stderr: impl AsyncRead + Unpin, tail: Tail, secrets: Vec<String>) {
    let mut reader = BufReader::new(stderr);
    let mut logged = 0;
    loop {
        let mut line = Vec::new();
        let read = (&mut reader).take(MAX_LINE).read_until(b'\n', &mut line).await;
        if !matches!(read, Ok(1..)) {
            return;
        }
        let text = String::from_utf8_lossy(&line);
        let mut text = evo_common::redact::redact(text.trim()).into_owned();
        for secret in &secrets {
            text = text.replace(secret.as_str(), "***");
        }
        if text.is_empty() {
            continue;
        }
        logged += 1;
        if logged <= MAX_LINES {
            tracing::debug!(%source, "The MCP server of {source} says: {text}");
        } else if logged == MAX_LINES + 1 {
            tracing::debug!(%source, "The MCP server of {source} says more than is logged");
        }
        tail.push(text);
    }
}

impl Process {
    /// Waits for it to end by itself, since its input is closed; then asks it to, then makes it.
    pub(super) async fn end(mut self, patience: Duration) {
        if self.ended_within(patience).await {
            return;
        }
        self.signal(Signal::Terminate);
        self.ended_within(patience).await;
    }

    async fn ended_within(&mut self, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        let mut pause = Duration::from_millis(2);
        loop {
            if self.has_ended() {
                return true;
            }
            if Instant::now() >= until {
                return false;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }
}

/// What a group is told.
#[derive(Debug, Clone, Copy)]
enum Signal {
    Terminate,
    Kill,
}

#[cfg(unix)]
impl Process {
    fn leader(&self) -> Option<nix::unistd::Pid> {
        let id = self.child.id().and_then(|id| i32::try_from(id).ok())?;
        Some(nix::unistd::Pid::from_raw(id))
    }

    /// Whether the leader has ended. It is left uncollected.
    fn has_ended(&mut self) -> bool {
        use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
        let Some(leader) = self.leader() else { return true };
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT | WaitPidFlag::WNOHANG;
        !matches!(waitid(Id::Pid(leader), flags), Ok(WaitStatus::StillAlive))
    }

    fn signal(&mut self, signal: Signal) {
        let Some(leader) = self.leader() else { return };
        let signal = match signal {
            Signal::Terminate => nix::sys::signal::Signal::SIGTERM,
            Signal::Kill => nix::sys::signal::Signal::SIGKILL,
        };
        if let Err(error) = nix::sys::signal::killpg(leader, signal) {
            tracing::debug!(%error, "The processes of an MCP server can't be ended: {error}");
        }
    }
}

#[cfg(not(unix))]
impl Process {
    fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    fn signal(&mut self, _: Signal) {
        if let Err(error) = self.child.start_kill() {
            tracing::debug!(%error, "An MCP server can't be ended: {error}");
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(Signal::Kill);
        // What has ended is collected here, anything else by the runtime when it ends.
        if let Err(error) = self.child.try_wait() {
            tracing::debug!(%error, "An MCP server can't be collected: {error}");
        }
    }
}
