//! Bounds that the system keeps for a process and everything that it starts.

use std::{fs, io, os::unix::fs::MetadataExt as _};

use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};

use super::super::policy::Limits;

/// How processes of the code are counted.
#[derive(Debug, Clone, Copy)]
pub(super) enum Counted {
    /// The user id is the code's alone; so many others are the sandbox's.
    Alone(u64),
    /// The user has other processes too.
    WithOthersOf(u32),
}

/// Sets all bounds but that of the address space, which this process itself may be beyond.
pub(super) fn apply(limits: &Limits, counted: Counted) -> io::Result<()> {
    let others = match counted {
        Counted::Alone(own) => own,
        Counted::WithOthersOf(user) => threads_of(user),
    };
    let bounds = [
        (Resource::RLIMIT_CPU, limits.cpu_seconds),
        (Resource::RLIMIT_NPROC, limits.processes.saturating_add(others)),
        (Resource::RLIMIT_NOFILE, limits.files),
        (Resource::RLIMIT_FSIZE, limits.file_bytes),
        // With 0, a system that pipes cores to a program would still do so.
        (Resource::RLIMIT_CORE, 1),
        (Resource::RLIMIT_MEMLOCK, 0),
        (Resource::RLIMIT_MSGQUEUE, 0),
        (Resource::RLIMIT_SIGPENDING, 256),
        (Resource::RLIMIT_RTPRIO, 0),
        (Resource::RLIMIT_NICE, 0),
    ];
    for (resource, bound) in bounds {
        setrlimit(resource, bound, bound)?;
    }
    Ok(())
}

/// Bounds the address space. A program that reserves more than it uses is bounded by what it writes.
pub(super) fn memory(limits: &Limits, reserves_memory: bool) -> io::Result<()> {
    let bound = limits.memory_bytes;
    if reserves_memory {
        setrlimit(Resource::RLIMIT_AS, RLIM_INFINITY, RLIM_INFINITY)?;
        // Its own tables and stacks come on top.
        return Ok(setrlimit(Resource::RLIMIT_DATA, bound * 4, bound * 4)?);
    }
    Ok(setrlimit(Resource::RLIMIT_AS, bound, bound)?)
}

/// Threads of all processes of a user.
fn threads_of(user: u32) -> u64 {
    let Ok(processes) = fs::read_dir("/proc") else { return 0 };
    let is_of_user = |about: &fs::Metadata| about.uid() == user;
    processes
        .flatten()
        .filter(|entry| entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit))
        .filter(|entry| entry.metadata().as_ref().is_ok_and(is_of_user))
        .map(|entry| {
            fs::read_dir(entry.path().join("task")).map_or(0, |tasks| tasks.count() as u64)
        })
        .sum()
}
