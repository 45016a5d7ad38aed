//! Programs that king starts, and that never outlive it, even when it is killed.
//!
//! The system ends a child when the THREAD that started it ends, so one thread that lives as long as
//! king starts them all. An agent begins as a helper (`evo child`, `evo-king child`), which asks the
//! system for that and then becomes the program. What a program starts itself is ended by the
//! [`guard`], which outlives king for a moment.

mod guard;

use std::{
    ffi::OsString,
    io,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    thread,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::{Pid, getppid},
};
use tokio::sync::oneshot;

use guard::Guard;

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

/// A program that was started, with everything that it starts in its process group. All of it is
/// killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Child {
    process: tokio::process::Child,
    group: i32,
    guard: Arc<Mutex<Guard>>,
}

impl std::ops::Deref for Child {
    type Target = tokio::process::Child;

    fn deref(&self) -> &Self::Target {
        &self.process
    }
}

impl std::ops::DerefMut for Child {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.process
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        match killpg(Pid::from_raw(self.group), Signal::SIGKILL) {
            // Nobody is left.
            Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
            Err(error) => {
                tracing::warn!(%error, "What a program left behind can't be ended: {error}");
            }
        }
        locked(&self.guard).ended(self.group);
    }
}

fn locked(guard: &Mutex<Guard>) -> MutexGuard<'_, Guard> {
    // A panic while holding the lock leaves a group too many in the list at most.
    guard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts programs. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Launcher {
    /// `evo` or `evo-king`, which have the helper.
    executable: Option<PathBuf>,
    requests: mpsc::SyncSender<Request>,
    guard: Arc<Mutex<Guard>>,
}

impl Launcher {
    /// Starts the thread. The helper is in this executable.
    pub(crate) fn start(executable: Option<PathBuf>) -> io::Result<Self> {
        let (requests, received) = mpsc::sync_channel::<Request>(1);
        let runtime = tokio::runtime::Handle::current();
        let guard = Arc::new(Mutex::new(Guard::new(executable.clone())));
        let guarded = guard.clone();
        let work = move || {
            let _inside = runtime.enter();
            while let Ok(Request { mut command, answer }) = received.recv() {
                // Of a child that nobody waits for any more the handle is dropped, which ends it.
                answer.send(start(&mut command, &guarded)).map_err(drop).ok();
            }
        };
        thread::Builder::new().name("evo-children".to_owned()).spawn(work)?;
        Ok(Self { executable, requests, guard })
    }

    /// Starts a program. It is killed when its handle is dropped, and when king ends; what it has
    /// started too.
    pub(crate) async fn spawn(&self, program: Program) -> io::Result<Child> {
        let helper = self.executable.as_ref().ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, "king does not know its own executable")
        })?;
        let mut command = tokio::process::Command::new(helper);
        command
            .args(["child", "--parent", &std::process::id().to_string(), "--"])
            .args(&program.command);
        self.begin(command, program).await
    }

    /// The same without the helper, whose part the guard has too: for a program that has no tokens
    /// and no connections, and whose failure to start shall be told as it is.
    pub(crate) async fn spawn_plainly(&self, program: Program) -> io::Result<Child> {
        let (name, arguments) = program
            .command
            .split_first()
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "it names no program"))?;
        let mut command = tokio::process::Command::new(name);
        command.args(arguments);
        self.begin(command, program).await
    }

    async fn begin(
        &self,
        mut command: tokio::process::Command,
        program: Program,
    ) -> io::Result<Child> {
        command
            .env_clear()
            .envs(program.environment)
            .envs([locked(&self.guard).mark()])
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

fn start(command: &mut tokio::process::Command, guard: &Arc<Mutex<Guard>>) -> io::Result<Child> {
    locked(guard).begin();
    let process = command.spawn()?;
    let group = process.id().and_then(|id| i32::try_from(id).ok());
    let group = group.ok_or_else(|| io::Error::other("the program has no process id"))?;
    locked(guard).started(group);
    Ok(Child { process, group, guard: guard.clone() })
}

/// Is the guard of a king's programs, until that king is gone and nothing of them is left.
pub(crate) fn guard(mark: &str) {
    guard::watch(mark);
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
    let Some(pid) = child.process.id() else { return };
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
