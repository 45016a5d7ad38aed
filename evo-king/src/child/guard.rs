//! What ends the programs of a king that was killed.
//!
//! The guard is a small process of king's own executable in a session of its own. King holds the
//! other end of its stdin and writes there which process groups are its programs'. When that end is
//! closed, king is gone, however it ended: the guard kills these groups, and every process that has
//! king's mark in its environment, wherever it moved to. Then it ends itself.

use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    fs, io,
    io::{BufRead as _, Write as _},
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::{Pid, setsid},
};

/// Every program that king starts has this variable, with a value that no other king has.
const MARK: &str = "EVO_STARTED_BY";
/// How often the guard looks for processes that are left.
const ROUNDS: u32 = 100;
/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// King's end of the guard.
#[derive(Debug)]
pub(super) struct Guard {
    executable: Option<PathBuf>,
    mark: String,
    groups: BTreeSet<i32>,
    process: Option<Child>,
}

impl Guard {
    pub(super) fn new(executable: Option<PathBuf>) -> Self {
        let mark = uuid::Uuid::now_v7().simple().to_string();
        Self { executable, mark, groups: BTreeSet::new(), process: None }
    }

    /// The variable that marks a program.
    pub(super) fn mark(&self) -> (&'static OsStr, OsString) {
        (OsStr::new(MARK), (&self.mark).into())
    }

    /// Sees to it that there is a guard: before a program is started, so that there is no moment at
    /// which it has none.
    pub(super) fn begin(&mut self) {
        let runs =
            self.process.as_mut().is_some_and(|process| matches!(process.try_wait(), Ok(None)));
        if runs {
            return;
        }
        match self.start() {
            Ok(process) => self.process = Some(process),
            Err(error) => {
                tracing::warn!(%error, "Programs that king starts may outlive it when it is killed: no guard can be started: {error}");
            }
        }
    }

    fn start(&self) -> io::Result<Child> {
        let executable = self.executable.as_ref().ok_or(io::ErrorKind::NotFound)?;
        let mut process = Command::new(executable)
            .args(["child", "--guard", &self.mark])
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        for group in &self.groups {
            tell(&mut process, &format!("+{group}"))?;
        }
        Ok(process)
    }

    /// A program has been started.
    pub(super) fn started(&mut self, group: i32) {
        self.groups.insert(group);
        self.say(&format!("+{group}"));
    }

    /// Nothing of a program is left.
    pub(super) fn ended(&mut self, group: i32) {
        if self.groups.remove(&group) {
            self.say(&format!("-{group}"));
        }
    }

    fn say(&mut self, line: &str) {
        // One that is gone is started again with the next program.
        if let Some(process) = &mut self.process
            && let Err(error) = tell(process, line)
        {
            tracing::debug!(%error, "The guard of king's programs is gone: {error}");
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        // It ends now that nobody holds the other end, and what is left of the programs with it.
        drop(process.stdin.take());
        if let Err(error) = process.wait() {
            tracing::debug!(%error, "The guard of king's programs can't be waited for: {error}");
        }
    }
}

fn tell(process: &mut Child, line: &str) -> io::Result<()> {
    let Some(stdin) = &mut process.stdin else { return Ok(()) };
    writeln!(stdin, "{line}")
}

/// Is the guard: follows what king says, and ends what is left when king is gone.
pub(super) fn watch(mark: &str) {
    // What is typed at king's terminal is none of its business. Fails where it has a session already.
    setsid().map_or_else(drop, drop);
    let mut groups = BTreeSet::new();
    for line in io::stdin().lock().lines() {
        let Ok(line) = line else { break };
        let Some((sign, group)) = line.split_at_checked(1) else { continue };
        let Ok(group) = group.parse::<i32>() else { continue };
        // 0 and 1 would be everybody.
        if group > 1 {
            match sign {
                "+" => groups.insert(group),
                _ => groups.remove(&group),
            };
        }
    }
    for _ in 0..ROUNDS {
        groups.retain(|group| killpg(Pid::from_raw(*group), Signal::SIGKILL).is_ok());
        let marked = marked(Path::new("/proc"), mark);
        for pid in &marked {
            // It may have ended meanwhile.
            kill(Pid::from_raw(*pid), Signal::SIGKILL).map_or_else(drop, drop);
        }
        if groups.is_empty() && marked.is_empty() {
            return;
        }
        thread::sleep(PAUSE);
    }
}

/// The processes that have the mark in their environment and have not ended.
fn marked(proc: &Path, mark: &str) -> Vec<i32> {
    let wanted = format!("{MARK}={mark}");
    let Ok(processes) = fs::read_dir(proc) else { return Vec::new() };
    let has_mark = |folder: &Path| {
        // Of a process that has ended, and of another user's, there is nothing to be read.
        let environment = fs::read(folder.join("environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == wanted.as_bytes())
    };
    processes
        .flatten()
        .filter_map(|entry| {
            let pid = std::str::from_utf8(entry.file_name().as_bytes()).ok()?.parse().ok()?;
            has_mark(&entry.path()).then_some(pid)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_processes_with_the_mark_are_found() {
        let proc = tempfile::tempdir().unwrap();
        for (name, environment) in [
            ("7", "PATH=/bin\0EVO_STARTED_BY=mine\0"),
            ("8", "PATH=/bin\0EVO_STARTED_BY=another\0"),
            ("9", ""),
            ("self", "EVO_STARTED_BY=mine\0"),
        ] {
            fs::create_dir(proc.path().join(name)).unwrap();
            fs::write(proc.path().join(name).join("environ"), environment).unwrap();
        }
        assert_eq!(marked(proc.path(), "mine"), [7]);
    }
}
