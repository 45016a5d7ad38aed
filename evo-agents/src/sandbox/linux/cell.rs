//! The process that becomes the code: it gives up everything that the code must not have, and
//! executes the interpreter in its own place.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::{Path, PathBuf},
};

use nix::{
    sys::{
        prctl::set_pdeathsig,
        signal::Signal,
        stat::{Mode, umask},
    },
    unistd::{
        Gid, Uid, chdir, chown, dup2_stdin, execve, getuid, setgroups, setresgid, setresuid, setsid,
    },
};
use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, CapabilitySets, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_capabilities_secure_bits,
    set_no_new_privs,
};

use super::{
    super::{
        policy::Layer,
        way::{Active, Isolation},
    },
    channel, landlock, limits,
    plan::{Failure, FromCell, Plan},
    root, seccomp,
};

/// User ids from here on belong to nobody: above those of people, services and containers.
const FIRST_USER: u32 = 2_000_000_000;
/// The user of everything that has none, for systems that map few ids.
pub(super) const NOBODY: u32 = 65_534;

/// Becomes the code. Returns only when that fails, which the warden has been told then.
pub(super) fn run() -> io::Result<()> {
    let warden = rustix::io::fcntl_dupfd_cloexec(io::stdin(), 3)?;
    let Some((plan, files)) = channel::receive::<Plan>(&warden)? else { return Ok(()) };
    let Err(failure) = become_code(&plan, files, &warden);
    channel::send(&warden, &FromCell::Failed(failure), &[])
}

/// What of the system the code sees, at its places inside.
struct Places {
    package: PathBuf,
    scratch: PathBuf,
}

fn become_code(
    plan: &Plan,
    files: Vec<OwnedFd>,
    warden: &OwnedFd,
) -> Result<std::convert::Infallible, Failure> {
    let Some(input) = files.into_iter().next() else {
        return Err(Failure::start("the input is missing"));
    };
    let mut active = Vec::new();
    let mut note = |layer: Layer, detail: String| active.push(Active { layer, detail });
    // It leads a group of its own, by which everything can be ended.
    setsid().map_err(Failure::start)?;

    let user = plan.has(Layer::OwnUser).then(|| own_user(plan)).flatten();
    let places = if plan.has_root() {
        let contents = root::Contents {
            readable: &plan.readable,
            package: &plan.package,
            scratch_bytes: plan.limits.scratch_bytes,
            owner: user.unwrap_or_else(|| getuid().as_raw()),
        };
        root::enter(&plan.place.join("root"), &contents)
            .map_err(Failure::of(Layer::PrivateRoot))?;
        note(Layer::PrivateRoot, "read-only, with what the interpreter needs".to_owned());
        Places { package: root::PACKAGE.into(), scratch: root::SCRATCH.into() }
    } else {
        Places { package: plan.package.clone(), scratch: plan.place.join("scratch") }
    };
    if plan.has_processes() {
        note(Layer::OwnProcesses, "namespaces for processes, IPC and the host's name".to_owned());
    }
    if plan.isolation.has_namespaces() && plan.has(Layer::OwnNetwork) {
        note(Layer::OwnNetwork, "no way out but the proxy".to_owned());
    }

    if plan.has(Layer::ResourceLimits) {
        // A user namespace counts its own processes; the warden is one of them.
        let counted = match (plan.isolation, user) {
            (Isolation::UserNamespace, _) => limits::Counted::Alone(1),
            (_, Some(user)) if user != NOBODY => limits::Counted::Alone(0),
            (_, user) => limits::Counted::WithOthersOf(user.unwrap_or_else(|| getuid().as_raw())),
        };
        limits::apply(&plan.limits, counted).map_err(Failure::of(Layer::ResourceLimits))?;
        note(Layer::ResourceLimits, "processor time, memory, processes, files".to_owned());
    }
    if plan.has(Layer::OwnUser) {
        if let Some(user) = user {
            become_user(user, plan.has_root(), &places.scratch)
                .map_err(Failure::of(Layer::OwnUser))?;
        }
        give_up_capabilities().map_err(Failure::of(Layer::OwnUser))?;
        let detail = match (plan.isolation, user) {
            (Isolation::UserNamespace, _) => "a user namespace, no capabilities".to_owned(),
            (_, Some(user)) => format!("user {user}, no capabilities"),
            (_, None) => "that of the runner, no capabilities".to_owned(),
        };
        note(Layer::OwnUser, detail);
    }
    if plan.has(Layer::NoNewPrivileges) {
        set_no_new_privs(true)
            .map_err(io::Error::from)
            .map_err(Failure::of(Layer::NoNewPrivileges))?;
        note(Layer::NoNewPrivileges, String::new());
    }

    let scopes = if plan.has(Layer::Landlock) {
        let applied = landlock::apply(&rules(plan, &places))
            .map_err(|error| Failure::of(Layer::Landlock)(io::Error::other(error.to_string())))?;
        if applied.abi > 0 {
            note(Layer::Landlock, applied.to_string());
        } else if !plan.has_root() {
            return Err(Failure { layer: Some(Layer::Landlock), message: applied.to_string() });
        }
        applied.has_scopes()
    } else {
        false
    };
    let filters = plan
        .has(Layer::Seccomp)
        .then(|| {
            let own_processes = plan.has_processes();
            seccomp::filters(seccomp::Wanted {
                network: plan.proxy_port.is_some(),
                host_files: !plan.has_root(),
                one_group: !own_processes,
                only_process: (!own_processes && !scopes).then(std::process::id),
            })
        })
        .transpose()
        .map_err(|error| Failure::of(Layer::Seccomp)(io::Error::other(error.to_string())))?;
    if filters.is_some() {
        note(Layer::Seccomp, "listed system calls only".to_owned());
    }

    umask(Mode::from_bits_truncate(0o077));
    chdir(&places.package).map_err(Failure::start)?;
    let call = Call::of(plan)?;
    dup2_stdin(&input).map_err(Failure::start)?;
    drop(input);
    set_pdeathsig(Signal::SIGKILL).map_err(Failure::start)?;
    // Fails when the warden has gone before its end could be followed.
    channel::send(warden.as_fd(), &FromCell::Ready(active), &[]).map_err(Failure::start)?;
    if plan.has(Layer::ResourceLimits) {
        limits::memory(&plan.limits, plan.reserves_memory)
            .map_err(Failure::of(Layer::ResourceLimits))?;
    }
    for filter in filters.iter().flatten() {
        seccompiler::apply_filter(filter)
            .map_err(|error| Failure::of(Layer::Seccomp)(io::Error::other(error.to_string())))?;
    }
    execve(&call.program, &call.arguments, &call.environment)
        .map_err(|error| Failure::start(format!("{}: {error}", call.program.to_string_lossy())))
}

/// The user that the code runs as when this process is root.
fn own_user(plan: &Plan) -> Option<u32> {
    if plan.isolation == Isolation::UserNamespace || !getuid().is_root() {
        return None;
    }
    Some(if maps(own_user_of_this_process()) { own_user_of_this_process() } else { NOBODY })
}

/// No other process of this system has it: it is made from the id of the warden or the cell.
pub(super) fn own_user_of_this_process() -> u32 {
    // Inside a namespace the own id says nothing; the file system still tells the one outside.
    let outside = std::fs::read_link("/proc/self")
        .ok()
        .and_then(|link| link.to_str()?.parse::<u32>().ok())
        .unwrap_or_else(std::process::id);
    FIRST_USER + outside % 100_000_000
}

/// Whether this system has a user id at all.
pub(super) fn maps(user: u32) -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.lines().any(|line| {
        let mut fields = line.split_ascii_whitespace().map(str::parse::<u64>);
        let (Some(Ok(first)), Some(_), Some(Ok(count))) =
            (fields.next(), fields.next(), fields.next())
        else {
            return false;
        };
        (first..first + count).contains(&u64::from(user))
    })
}

/// Becomes a user without any rights, who owns the scratch folder.
fn become_user(user: u32, has_root: bool, scratch: &Path) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(user), Gid::from_raw(user));
    if !has_root {
        chown(scratch, Some(uid), Some(gid))?;
    }
    setgroups(&[])?;
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)?;
    Ok(())
}

fn give_up_capabilities() -> io::Result<()> {
    clear_ambient_capability_set()?;
    let has_right = rustix::thread::capabilities(None)?.effective.contains(CapabilitySet::SETPCAP);
    if has_right {
        for capability in CapabilitySet::all().iter() {
            match remove_capability_from_bounding_set(capability) {
                // One that this kernel does not know.
                Ok(()) | Err(rustix::io::Errno::INVAL) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let locked = CapabilitiesSecureBits::NO_ROOT
            | CapabilitiesSecureBits::NO_ROOT_LOCKED
            | CapabilitiesSecureBits::NO_SETUID_FIXUP
            | CapabilitiesSecureBits::NO_SETUID_FIXUP_LOCKED
            | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE
            | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE_LOCKED;
        set_capabilities_secure_bits(locked)?;
    }
    let none = CapabilitySet::empty();
    Ok(set_capabilities(
        None,
        CapabilitySets { effective: none, permitted: none, inheritable: none },
    )?)
}

fn rules(plan: &Plan, places: &Places) -> landlock::Rules {
    let mut readable = plan.readable.clone();
    readable.push(places.package.clone());
    landlock::Rules {
        readable,
        executable: plan.executable.clone(),
        writable: vec![places.scratch.clone()],
        devices: root::DEVICES.map(PathBuf::from).to_vec(),
        port: plan.proxy_port,
    }
}

/// What is executed, ready, so that nothing has to be made any more when memory is bounded.
struct Call {
    program: CString,
    arguments: Vec<CString>,
    environment: Vec<CString>,
}

impl Call {
    fn of(plan: &Plan) -> Result<Self, Failure> {
        let text = |text: &str| CString::new(text).map_err(Failure::start);
        let Some(program) = plan.command.first() else {
            return Err(Failure::start("no program was named"));
        };
        Ok(Self {
            program: CString::new(Path::new(program).as_os_str().as_bytes())
                .map_err(Failure::start)?,
            arguments: plan.command.iter().map(|part| text(part)).collect::<Result<_, _>>()?,
            environment: plan
                .environment
                .iter()
                .map(|(name, value)| text(&format!("{name}={value}")))
                .collect::<Result<_, _>>()?,
        })
    }
}
