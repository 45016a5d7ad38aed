//! Child processes that never outlive this one, even when it is killed.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Read as _},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, getppid},
};

/// Time that a process has to end after SIGTERM.
const PATIENCE: Duration = Duration::from_secs(5);

/// A running child. Dropping it ends the process and waits for that.
#[derive(Debug)]
pub struct Child {
    name: &'static str,
    process: std::process::Child,
    /// What it wrote to standard error (and output, unless that is read).
    output: PathBuf,
}

impl Child {
    /// Starts `command` with its output in a file of `folder`.
    ///
    /// Call it on the main thread: the system ends the child when the thread that started it ends.
    pub fn start(name: &'static str, command: &Command, folder: &Path) -> Result<Self> {
        Self::spawn(name, command, folder, None)
    }

    /// Starts `command` and gives the first line that it writes to standard output.
    pub fn start_and_read_line(
        name: &'static str,
        command: &Command,
        folder: &Path,
    ) -> Result<(Self, String)> {
        let mut child = Self::spawn(name, command, folder, Some(Stdio::piped()))?;
        let mut line = String::new();
        if let Some(stdout) = child.process.stdout.take() {
            BufReader::new(stdout).read_line(&mut line).context("its first line")?;
        }
        if line.is_empty() {
            bail!("{name} ended at once: {}", child.output());
        }
        Ok((child, line.trim().to_owned()))
    }

    fn spawn(
        name: &'static str,
        command: &Command,
        folder: &Path,
        stdout: Option<Stdio>,
    ) -> Result<Self> {
        let output = folder.join(format!("{name}.output"));
        let file = File::create(&output).with_context(|| output.display().to_string())?;
        let stdout = match stdout {
            Some(stdout) => stdout,
            None => file.try_clone().context("the output file of a child")?.into(),
        };
        let this = std::env::current_exe().context("the path of evo-load")?;
        let mut wrapped = Command::new(this);
        wrapped.arg("child").arg("--").arg(command.get_program()).args(command.get_args());
        for (variable, value) in command.get_envs() {
            match value {
                Some(value) => wrapped.env(variable, value),
                None => wrapped.env_remove(variable),
            };
        }
        if let Some(folder) = command.get_current_dir() {
            wrapped.current_dir(folder);
        }
        // A process group of its own: Ctrl-C reaches evo-load alone, which ends its children in order.
        let process = wrapped
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(file)
            .spawn()
            .with_context(|| format!("{name} does not start"))?;
        Ok(Self { name, process, output })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// An error with its output once it has ended.
    pub fn check(&mut self) -> Result<()> {
        match self.process.try_wait().with_context(|| self.name.to_owned())? {
            Some(status) => bail!("{} ended ({status}): {}", self.name, self.output()),
            None => Ok(()),
        }
    }

    /// The last 2,000 bytes that it wrote.
    pub fn output(&self) -> String {
        let mut bytes = Vec::new();
        let read = File::open(&self.output).and_then(|mut file| file.read_to_end(&mut bytes));
        match read {
            Ok(_) => {
                let start = bytes.len().saturating_sub(2_000);
                String::from_utf8_lossy(&bytes[start..]).trim().to_owned()
            }
            Err(error) => format!("(its output can't be read: {error})"),
        }
    }

    /// Ends it as a crash would, and waits until it has ended.
    pub fn kill(mut self) -> Result<()> {
        self.signal(Signal::SIGKILL);
        self.process.wait().with_context(|| self.name.to_owned())?;
        Ok(())
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.process.id().cast_signed());
        // The one failure is that it has ended, which is what is wanted.
        kill(pid, signal).ok();
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.signal(Signal::SIGTERM);
        let step = Duration::from_millis(10);
        for _ in 0..PATIENCE.as_millis() / step.as_millis() {
            if !matches!(self.process.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(step);
        }
        self.signal(Signal::SIGKILL);
        self.process.wait().ok();
    }
}

/// Becomes the given program, which the system ends when the parent of this process ends.
///
/// Returns only when it can't.
pub fn become_child(command: &[std::ffi::OsString]) -> anyhow::Error {
    let Some((program, arguments)) = command.split_first() else {
        return anyhow::anyhow!("no program given");
    };
    let parent = getppid();
    #[cfg(target_os = "linux")]
    if let Err(error) = nix::sys::prctl::set_pdeathsig(Signal::SIGTERM) {
        return anyhow::Error::new(error).context("the end of the parent can't be followed");
    }
    if getppid() != parent {
        return anyhow::anyhow!("the parent has ended");
    }
    let error = Command::new(program).args(arguments).exec();
    anyhow::Error::new(error).context(program.to_string_lossy().into_owned())
}
