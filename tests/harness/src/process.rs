//! A child process that never outlives its test.

use std::{
    fs::File,
    io::Read as _,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::eventually;

/// A child process. Its output goes to files, so that a full pipe can't stop it.
#[derive(Debug)]
pub struct Process {
    child: Child,
    folder: tempfile::TempDir,
}

impl Process {
    /// Starts a command.
    pub fn start(mut command: Command) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = |name: &str| File::create(folder.path().join(name)).expect("an output file");
        let child = command
            .stdin(Stdio::null())
            .stdout(file("stdout"))
            .stderr(file("stderr"))
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
        Self { child, folder }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has written to stdout so far.
    pub fn stdout(&self) -> String {
        self.read("stdout")
    }

    /// What it has written to stderr so far.
    pub fn stderr(&self) -> String {
        self.read("stderr")
    }

    /// Sends a signal; a process that has ended gets none.
    pub fn signal(&mut self, signal: Signal) {
        if self.exited().is_none() {
            let pid = Pid::from_raw(self.pid().cast_signed());
            kill(pid, signal).expect("a signal to a child of this process");
        }
    }

    /// Kills it as the system would (`kill -9`) and waits for its end.
    pub fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        self.child.wait().expect("a killed child ends");
    }

    /// How it has ended, if it has.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child of this process")
    }

    /// Waits for its end; panics with its output when it does not come.
    pub fn wait(&mut self, deadline: Duration) -> ExitStatus {
        let start = std::time::SystemTime::now();
        loop {
            if let Some(status) = self.exited() {
                return status;
            }
            if start.elapsed().unwrap_or_default() > deadline {
                self.kill();
                panic!(
                    "did not end within {deadline:?}\nstdout: {}\nstderr: {}",
                    self.stdout(),
                    self.stderr()
                );
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits for a text on stdout and gives the line that holds it.
    pub fn line_with(&mut self, text: &str, deadline: Duration) -> String {
        self.line(text, deadline, Self::stdout)
    }

    /// Waits for a text on stderr and gives the line that holds it.
    pub fn line_with_on_stderr(&mut self, text: &str, deadline: Duration) -> String {
        self.line(text, deadline, Self::stderr)
    }

    fn line(&mut self, text: &str, deadline: Duration, output: fn(&Self) -> String) -> String {
        let what = format!("a line with {text:?}");
        eventually(&what, deadline, || {
            let ended = self.exited();
            let line = output(self).lines().find(|line| line.contains(text)).map(str::to_owned);
            if let (None, Some(status)) = (&line, ended) {
                panic!("ended ({status}) without {text:?}: {}{}", self.stdout(), self.stderr());
            }
            line
        })
    }

    fn read(&self, name: &str) -> String {
        let path: PathBuf = self.folder.path().join(name);
        let mut bytes = Vec::new();
        File::open(path)
            .and_then(|mut file| file.read_to_end(&mut bytes))
            .expect("an output file of this process");
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
