//! Programs that king starts, and that never outlive it, even when it is killed.
//!
//! The system ends a child when the THREAD that started it ends, so one thread that lives as long as
//! king starts them all. Each begins as a helper (`evo child`, `evo-king child`), which asks the
//! system for that and then becomes the program.

use std::{
    ffi::OsString,
    io,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::Stdio,
    sync::mpsc,
    thread,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, getppid},
};
use tokio::{process::Child, sync::oneshot};

/// What to start.
#[derive(Debug)]
pub(crate) struct Program {
    /// The executable and its arguments.
    pub(crate) command: Vec<OsString>,
    /// Its whole environment.
    pub(crate) environment: Vec<(OsString, OsString)>,
    /// The folder that it starts in.
    pub(crate) folder: PathBuf,
    /// Where its output goes.
    pub(crate) stdout: Stdio,
    /// Where its errors go.
    pub(crate) stderr: Stdio,
}

struct Request {
    command: tokio::process::Command,
    answer: oneshot::Sender<io::Result<Child>>,
}

/// Starts programs. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Launcher {
    /// `evo` or `evo-king`, which have the helper.
    executable: Option<PathBuf>,
    requests: mpsc::SyncSender<Request>,
}

impl Launcher {
    /// Starts the thread. The helper is in this executable.
    pub(crate) fn start(executable: Option<PathBuf>) -> io::Result<Self> {
        let (requests, received) = mpsc::sync_channel::<Request>(1);
        let runtime = tokio::runtime::Handle::current();
        let work = move || {
            let _inside = runtime.enter();
            while let Ok(Request { mut command, answer }) = received.recv() {
                // Of a child that nobody waits for any more the handle is dropped, which ends it.
                answer.send(command.spawn()).map_err(drop).ok();
            }
        };
        thread::Builder::new().name("evo-children".to_owned()).spawn(work)?;
        Ok(Self { executable, requests })
    }

    /// Starts a program. It is killed when its handle is dropped, and when king ends.
    pub(crate) async fn spawn(&self, program: Program) -> io::Result<Child> {
        let helper = self.executable.as_ref().ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, "king does not know its own executable")
        })?;
        let mut command = tokio::process::Command::new(helper);
        command
            .args(["child", "--parent", &std::process::id().to_string(), "--"])
            .args(&program.command)
            .env_clear()
            .envs(program.environment)
            .current_dir(&program.folder)
            .stdin(Stdio::null())
            .stdout(program.stdout)
            .stderr(program.stderr)
            // A Ctrl-C at the terminal reaches king alone, which ends its children in order.
            .process_group(0)
            .kill_on_drop(true);
        let (answer, answered) = oneshot::channel();
        let gone = || io::Error::other("the thread that starts programs has ended");
        let requests = self.requests.clone();
        // It waits for the fork of another child at most.
        let send = move || requests.send(Request { command, answer }).is_ok();
        if !tokio::task::spawn_blocking(send).await.map_err(io::Error::other)? {
            return Err(gone());
        }
        answered.await.map_err(|_| gone())?
    }
}

/// Asks a child to end, waits so long for that, and kills it and what it has started then.
pub(crate) async fn end(child: &mut Child, grace: Duration) {
    signal(child, Signal::SIGTERM);
    if tokio::time::timeout(grace, child.wait()).await.is_ok() {
        return;
    }
    signal(child, Signal::SIGKILL);
    if let Err(error) = child.wait().await {
        tracing::warn!(%error, "A program that was killed can't be waited for: {error}");
    }
}

/// Sends a signal to a child and to everything in its group. One that has ended gets none.
fn signal(child: &Child, signal: Signal) {
    let Some(pid) = child.id() else { return };
    // The whole group: it is the child's own. The one failure is that it has ended.
    kill(Pid::from_raw(-pid.cast_signed()), signal).ok();
}

/// Becomes the given program, which the system ends when the process `parent`, which must be this
/// one's parent, ends. Returns only when it can't.
pub(crate) fn become_program(parent: i32, command: &[OsString]) -> String {
    let Some((program, arguments)) = command.split_first() else {
        return "no program was given".to_owned();
    };
    #[cfg(target_os = "linux")]
    if let Err(error) = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL) {
        return format!("the end of the parent can't be followed: {error}");
    }
    // It may have ended before that was asked for.
    if getppid() != Pid::from_raw(parent) {
        return format!("the process {parent}, which should be the parent, has ended");
    }
    let error = std::process::Command::new(program).args(arguments).exec();
    format!("{}: {error}", Path::new(program).display())
}
