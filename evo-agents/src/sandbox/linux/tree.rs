//! What a process has started: how much memory all of it takes, and its end.

use std::{fs, path::Path};

use nix::{
    errno::Errno,
    sys::{
        signal::{Signal, kill, killpg},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};

/// What a file takes at least.
const LEAST: u64 = 4096;

/// Every process below `process`, which is not among them.
pub(super) fn below(process: u32) -> Vec<i32> {
    let mut found = Vec::new();
    let mut open = vec![process];
    while let Some(process) = open.pop() {
        // One that has ended has no children any more.
        let Ok(threads) = fs::read_dir(format!("/proc/{process}/task")) else { continue };
        for thread in threads.flatten() {
            let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            for child in children.split_ascii_whitespace() {
                if let (Ok(pid), Ok(signed)) = (child.parse(), child.parse()) {
                    open.push(pid);
                    found.push(signed);
                }
            }
        }
    }
    found
}

/// Whether the system tells which processes a process has started.
pub(super) fn is_told() -> bool {
    Path::new("/proc/self/task").join(std::process::id().to_string()).join("children").exists()
}

/// Bytes of memory that the processes take beside the programs and libraries themselves. What they
/// share with each other counts for each.
pub(super) fn memory(processes: &[i32]) -> u64 {
    let own = |process: &i32| -> u64 {
        // Of one that has ended there is nothing to be read.
        let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
        status.lines().filter_map(kilobytes).sum()
    };
    processes.iter().map(own).sum::<u64>() * 1024
}

/// `RssAnon:     1234 kB`
fn kilobytes(line: &str) -> Option<u64> {
    let rest = line.strip_prefix("RssAnon:").or_else(|| line.strip_prefix("RssShmem:"))?;
    rest.trim().strip_suffix(" kB")?.parse().ok()
}

/// Bytes of all files in a folder. Also an empty one takes a place on the disk.
pub(super) fn size(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(about) if about.is_dir() => size(&entry.path()) + LEAST,
            Ok(about) => about.len().max(LEAST),
            Err(_) => 0,
        })
        .sum()
}

/// Ends everything that this process has started and waits for it. `first` leads the group of all
/// that could not move to another one. Gives how `first` ended, when nobody had seen it.
pub(super) fn end_all(first: Pid) -> Option<WaitStatus> {
    let mut ended = None;
    loop {
        // The group hits a process and what it is about to start at once.
        killpg(first, Signal::SIGKILL).map_or_else(drop, drop);
        for process in below(std::process::id()) {
            // It may have ended meanwhile.
            kill(Pid::from_raw(process), Signal::SIGKILL).map_or_else(drop, drop);
        }
        match waitpid(None, Some(WaitPidFlag::__WALL)) {
            Ok(status) => {
                if status.pid() == Some(first) {
                    ended = Some(status);
                }
            }
            Err(Errno::EINTR) => {}
            // Nobody is left.
            Err(_) => return ended,
        }
    }
}
