//! The process between the runner and the code. It makes the namespaces, watches the code, and sees
//! to it that nothing is left of it: also when the runner is gone.

use std::{
    fs, io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::process::CommandExt as _,
    },
    process::{Child, Command, Stdio},
    time::Duration,
};

use nix::{
    sched::{CloneFlags, unshare},
    sys::{
        prctl::{set_child_subreaper, set_dumpable},
        resource::{UsageWho, getrusage},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{
        Gid, Pid, Uid, getegid, geteuid, setgroups, sethostname, setresgid, setresuid, setsid,
    },
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{PidfdFlags, pidfd_open},
    thread::{
        CapabilitySet, CapabilitySets, configure_capability_in_ambient_set, set_capabilities,
    },
};

use tokio::time::Instant;

use super::{
    super::{
        policy::Layer,
        way::{Active, Isolation, Limit},
    },
    cell::{NOBODY, maps, own_user_of_this_process},
    channel, loopback,
    plan::{Ending, Failure, FromCell, FromWarden, Plan},
    tree,
};
use crate::sandbox::PART;

/// How often memory and time are looked at.
const LOOK: Duration = Duration::from_millis(20);
/// What the cell needs of the rights of its user namespace, until it gives them up.
const NEEDED: [CapabilitySet; 2] = [CapabilitySet::SYS_ADMIN, CapabilitySet::SETPCAP];

/// Is the warden of one execution.
pub(super) fn run() -> io::Result<()> {
    let runner = rustix::io::fcntl_dupfd_cloexec(io::stdin(), 3)?;
    let Some((plan, files)) = channel::receive::<Plan>(&runner)? else { return Ok(()) };
    let message = match guard(&plan, files, &runner) {
        Ok(Some(ending)) => FromWarden::Ended(ending),
        // Nobody is there to be told.
        Ok(None) => return Ok(()),
        Err(failure) => FromWarden::Failed(failure),
    };
    match channel::send(&runner, &message, &[]) {
        // It has gone meanwhile.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

fn guard(plan: &Plan, files: Vec<OwnedFd>, runner: &OwnedFd) -> Result<Option<Ending>, Failure> {
    let Some(input) = files.into_iter().next() else {
        return Err(Failure::start("the input is missing"));
    };
    close_inherited(&[runner, &input]).map_err(Failure::start)?;
    // Leaves the terminal, if there is one. Fails for the leader of a group, which has none then.
    setsid().map_or_else(drop, drop);
    set_child_subreaper(true).map_err(Failure::start)?;
    namespaces(plan)?;
    if let Some(port) = plan.proxy_port {
        let listener = listen(port).map_err(Failure::of(Layer::OwnNetwork))?;
        channel::send(runner, &FromWarden::Proxy, &[listener.as_fd()]).map_err(Failure::start)?;
    }
    // Nobody of the same user may look into this process.
    set_dumpable(false).map_err(Failure::start)?;

    let (ours, theirs) = channel::pair().map_err(Failure::start)?;
    let cell = Command::new("/proc/self/exe")
        .arg0("evo-sandbox")
        .args([PART, "cell"])
        .env_clear()
        .stdin(theirs)
        .stdout(Stdio::inherit())
        .stderr(Stdio::inherit())
        .spawn()
        .map_err(Failure::start)?;
    let sent = channel::send(&ours, plan, &[input.as_fd()]);
    drop(input);
    if let Err(error) = sent {
        tree::end_all(pid_of(&cell));
        return Err(Failure::start(error));
    }
    watch(plan, &cell, &ours, runner)
}

fn pid_of(cell: &Child) -> Pid {
    Pid::from_raw(cell.id().cast_signed())
}

/// Closes what this process got from whoever started the runner.
fn close_inherited(kept: &[&OwnedFd]) -> io::Result<()> {
    use std::os::fd::AsRawFd as _;
    let kept: Vec<i32> = kept.iter().map(|file| file.as_raw_fd()).collect();
    // The list itself is open while it is read.
    let open: Vec<i32> = fs::read_dir("/proc/self/fd")?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    for file in open.into_iter().filter(|file| *file > 2 && !kept.contains(file)) {
        // That of the list is closed already.
        nix::unistd::close(file).map_or_else(drop, drop);
    }
    Ok(())
}

fn namespaces(plan: &Plan) -> Result<(), Failure> {
    if !plan.isolation.has_namespaces() {
        return Ok(());
    }
    let mut flags = CloneFlags::empty();
    if plan.has_processes() {
        flags |= CloneFlags::CLONE_NEWPID
            | CloneFlags::CLONE_NEWIPC
            | CloneFlags::CLONE_NEWUTS
            | CloneFlags::CLONE_NEWCGROUP;
    }
    if plan.has(Layer::OwnNetwork) {
        flags |= CloneFlags::CLONE_NEWNET;
    }
    let told = |what: &str, error: io::Error| Failure {
        layer: Some(Layer::OwnProcesses),
        message: format!("{what}: {error}"),
    };
    match plan.isolation {
        Isolation::Privileged => {
            unshare(flags).map_err(|error| told("unshare", error.into()))?;
        }
        Isolation::UserNamespace => {
            let user = |error: io::Error| Failure::of(Layer::OwnUser)(error);
            drop_root(plan).map_err(user)?;
            let (uid, gid) = (geteuid(), getegid());
            unshare(flags | CloneFlags::CLONE_NEWUSER)
                .map_err(|error| told("unshare", error.into()))?;
            fs::write("/proc/self/setgroups", "deny").map_err(user)?;
            fs::write("/proc/self/uid_map", format!("{NOBODY} {uid} 1")).map_err(user)?;
            fs::write("/proc/self/gid_map", format!("{NOBODY} {gid} 1")).map_err(user)?;
            keep_capabilities().map_err(user)?;
        }
        Isolation::Plain | Isolation::Seatbelt => {}
    }
    if plan.has_processes() {
        sethostname("sandbox").map_err(|error| told("sethostname", error.into()))?;
    }
    Ok(())
}

/// Root needs no rights outside a user namespace.
fn drop_root(plan: &Plan) -> io::Result<()> {
    if !geteuid().is_root() {
        return Ok(());
    }
    let own = own_user_of_this_process();
    let user = if maps(own) { own } else { NOBODY };
    let (uid, gid) = (Uid::from_raw(user), Gid::from_raw(user));
    nix::unistd::chown(&plan.place.join("scratch"), Some(uid), Some(gid))?;
    setgroups(&[])?;
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)?;
    // Else the files below /proc/self would be root's.
    Ok(set_dumpable(true)?)
}

/// The cell is another program: it keeps rights over its namespaces only if that is asked for.
fn keep_capabilities() -> io::Result<()> {
    let now = rustix::thread::capabilities(None)?;
    let inheritable = NEEDED.into_iter().fold(CapabilitySet::empty(), |sum, one| sum | one);
    set_capabilities(None, CapabilitySets { inheritable, ..now })?;
    for capability in NEEDED {
        configure_capability_in_ambient_set(capability, true)?;
    }
    Ok(())
}

/// The place where the code finds the proxy: a socket of the namespace, which the runner serves.
fn listen(port: u16) -> io::Result<std::net::TcpListener> {
    loopback::up()?;
    std::net::TcpListener::bind(("127.0.0.1", port))
}

/// Follows the code to its end. None when the runner has gone.
fn watch(
    plan: &Plan,
    cell: &Child,
    from_cell: &OwnedFd,
    runner: &OwnedFd,
) -> Result<Option<Ending>, Failure> {
    let pid = pid_of(cell);
    let process = rustix::process::Pid::from_child(cell);
    let ended = pidfd_open(process, PidfdFlags::empty()).map_err(Failure::start)?;
    let watches = plan.has(Layer::Watch) && tree::is_told();
    let mut began = Instant::now();
    let mut running = false;
    loop {
        let mut polled =
            vec![PollFd::new(&ended, PollFlags::IN), PollFd::new(runner, PollFlags::IN)];
        if !running {
            polled.push(PollFd::new(from_cell, PollFlags::IN));
        }
        let pause = Timespec { tv_sec: 0, tv_nsec: i64::try_from(LOOK.as_nanos()).unwrap_or(0) };
        match poll(&mut polled, Some(&pause)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => {
                tree::end_all(pid);
                return Err(Failure::start(error));
            }
        }
        let happened: Vec<bool> = polled.iter().map(|file| !file.revents().is_empty()).collect();
        if !running && happened.get(2) == Some(&true) {
            match channel::receive::<FromCell>(from_cell) {
                Ok(Some((FromCell::Ready(mut active), _))) => {
                    running = true;
                    began = Instant::now();
                    if watches {
                        let detail = "memory and time of all processes".to_owned();
                        active.push(Active { layer: Layer::Watch, detail });
                    }
                    let told = channel::send(runner, &FromWarden::Running(active), &[]);
                    if told.is_err() {
                        tree::end_all(pid);
                        return Ok(None);
                    }
                }
                Ok(Some((FromCell::Failed(failure), _))) => {
                    tree::end_all(pid);
                    return Err(failure);
                }
                Ok(None) => {
                    let status = tree::end_all(pid);
                    return Err(Failure::start(format!("the sandbox's process ended: {status:?}")));
                }
                Err(error) => {
                    tree::end_all(pid);
                    return Err(Failure::start(error));
                }
            }
        }
        if happened[1] {
            tree::end_all(pid);
            return Ok(None);
        }
        if happened[0] {
            return finish(plan, pid, from_cell, running).map(Some);
        }
        if let Some(limit) = beyond(plan, watches, began) {
            let status = tree::end_all(pid);
            return Ok(Some(ending(plan, status, Some(limit))));
        }
    }
}

/// The program ended by itself: what it left behind is ended.
fn finish(plan: &Plan, pid: Pid, from_cell: &OwnedFd, running: bool) -> Result<Ending, Failure> {
    // Without a status, for example because somebody else waited for the child, the ending says that it is unknown.
    let status = waitpid(pid, Some(WaitPidFlag::__WALL)).ok();
    tree::end_all(pid);
    // It may have failed after its last message: at executing the interpreter.
    match channel::receive::<FromCell>(from_cell) {
        Ok(Some((FromCell::Failed(failure), _))) => return Err(failure),
        Ok(_) if running => {}
        Ok(Some((FromCell::Ready(_), _))) => {
            if let Ok(Some((FromCell::Failed(failure), _))) = channel::receive(from_cell) {
                return Err(failure);
            }
        }
        Ok(None) => {
            return Err(Failure::start(format!("the sandbox's process ended: {status:?}")));
        }
        Err(error) => return Err(Failure::start(error)),
    }
    Ok(ending(plan, status, None))
}

fn beyond(plan: &Plan, watches: bool, began: Instant) -> Option<Limit> {
    if began.elapsed() >= Duration::from_millis(plan.limits.wall_ms) {
        return Some(Limit::Wall);
    }
    if !watches {
        return None;
    }
    if tree::memory(&tree::below(std::process::id())) > plan.limits.memory_bytes {
        return Some(Limit::Memory);
    }
    let is_full =
        !plan.has_root() && tree::size(&plan.place.join("scratch")) > plan.limits.scratch_bytes;
    is_full.then_some(Limit::Scratch)
}

fn ending(plan: &Plan, status: Option<WaitStatus>, limit: Option<Limit>) -> Ending {
    let (code, signal) = match status {
        Some(WaitStatus::Exited(_, code)) => (Some(code), None),
        Some(WaitStatus::Signaled(_, signal, _)) => (None, Some(signal as i32)),
        _ => (None, None),
    };
    let cpu_ms = getrusage(UsageWho::RUSAGE_CHILDREN).map_or(0, |usage| {
        let (user, system) = (usage.user_time(), usage.system_time());
        let ms = |time: nix::sys::time::TimeVal| time.tv_sec() * 1_000 + time.tv_usec() / 1_000;
        u64::try_from(ms(user) + ms(system)).unwrap_or(0)
    });
    // The kernel's own end of a process that used up its time, of which it takes samples: on a busy
    // machine the count is well below.
    let much = plan.limits.cpu_seconds * 500;
    let out_of_time = signal == Some(libc::SIGKILL) && cpu_ms >= much;
    let limit = limit.or(out_of_time.then_some(Limit::Cpu));
    Ending { code, signal, limit, cpu_ms }
}
