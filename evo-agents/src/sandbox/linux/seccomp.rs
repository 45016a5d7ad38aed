//! Which system calls code may make. Everything that is not listed fails with EPERM.

use std::collections::BTreeMap;

use libc::{self as c, c_long};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

#[cfg(target_arch = "x86_64")]
const PROCESSOR: TargetArch = TargetArch::x86_64;
#[cfg(target_arch = "aarch64")]
const PROCESSOR: TargetArch = TargetArch::aarch64;

/// What changes the list.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    /// TCP sockets, to reach the proxy.
    pub(super) network: bool,
    /// Whether the file system is that of the host: then nothing may be changed by its path that
    /// Landlock does not look at.
    pub(super) host_files: bool,
    /// Whether everything that is started stays in one process group, by which it is ended.
    pub(super) one_group: bool,
    /// The one process that may be sent signals; all that can be seen when there is none.
    pub(super) only_process: Option<u32>,
}

/// Allowed with every argument.
const ALLOWED: &[c_long] = &[
    // Files that are open already, and paths where the other layers allow them.
    c::SYS_read,
    c::SYS_write,
    c::SYS_readv,
    c::SYS_writev,
    c::SYS_pread64,
    c::SYS_pwrite64,
    c::SYS_preadv,
    c::SYS_pwritev,
    c::SYS_preadv2,
    c::SYS_pwritev2,
    c::SYS_lseek,
    c::SYS_close,
    c::SYS_close_range,
    c::SYS_fstat,
    c::SYS_newfstatat,
    c::SYS_statx,
    c::SYS_statfs,
    c::SYS_fstatfs,
    c::SYS_faccessat,
    c::SYS_faccessat2,
    c::SYS_readlinkat,
    c::SYS_getdents64,
    c::SYS_getcwd,
    c::SYS_chdir,
    c::SYS_fchdir,
    c::SYS_dup,
    c::SYS_dup3,
    c::SYS_fcntl,
    c::SYS_flock,
    c::SYS_fsync,
    c::SYS_fdatasync,
    c::SYS_ftruncate,
    c::SYS_fallocate,
    c::SYS_fadvise64,
    c::SYS_readahead,
    c::SYS_sendfile,
    c::SYS_copy_file_range,
    c::SYS_mkdirat,
    c::SYS_unlinkat,
    c::SYS_renameat,
    c::SYS_renameat2,
    c::SYS_linkat,
    c::SYS_symlinkat,
    c::SYS_umask,
    c::SYS_fchmod,
    c::SYS_pipe2,
    c::SYS_fgetxattr,
    c::SYS_flistxattr,
    // Memory.
    c::SYS_brk,
    c::SYS_mmap,
    c::SYS_mprotect,
    c::SYS_munmap,
    c::SYS_mremap,
    c::SYS_madvise,
    c::SYS_mincore,
    c::SYS_msync,
    c::SYS_membarrier,
    // Waiting and time.
    c::SYS_ppoll,
    c::SYS_pselect6,
    c::SYS_epoll_create1,
    c::SYS_epoll_ctl,
    c::SYS_epoll_pwait,
    c::SYS_epoll_pwait2,
    c::SYS_eventfd2,
    c::SYS_timerfd_create,
    c::SYS_timerfd_settime,
    c::SYS_timerfd_gettime,
    c::SYS_signalfd4,
    c::SYS_nanosleep,
    c::SYS_clock_gettime,
    c::SYS_clock_getres,
    c::SYS_clock_nanosleep,
    c::SYS_gettimeofday,
    c::SYS_getitimer,
    c::SYS_setitimer,
    c::SYS_timer_create,
    c::SYS_timer_settime,
    c::SYS_timer_gettime,
    c::SYS_timer_getoverrun,
    c::SYS_timer_delete,
    c::SYS_times,
    c::SYS_futex,
    // Processes and threads of its own.
    c::SYS_execve,
    c::SYS_exit,
    c::SYS_exit_group,
    c::SYS_wait4,
    c::SYS_waitid,
    c::SYS_getpid,
    c::SYS_getppid,
    c::SYS_gettid,
    c::SYS_getpgid,
    c::SYS_getsid,
    c::SYS_set_tid_address,
    c::SYS_set_robust_list,
    c::SYS_rseq,
    c::SYS_sched_yield,
    c::SYS_sched_getaffinity,
    c::SYS_sched_getparam,
    c::SYS_sched_getscheduler,
    c::SYS_sched_get_priority_max,
    c::SYS_sched_get_priority_min,
    c::SYS_getpriority,
    c::SYS_rt_sigaction,
    c::SYS_rt_sigprocmask,
    c::SYS_rt_sigreturn,
    c::SYS_rt_sigpending,
    c::SYS_rt_sigsuspend,
    c::SYS_rt_sigtimedwait,
    c::SYS_sigaltstack,
    c::SYS_restart_syscall,
    // What it is and what there is.
    c::SYS_getuid,
    c::SYS_geteuid,
    c::SYS_getgid,
    c::SYS_getegid,
    c::SYS_getresuid,
    c::SYS_getresgid,
    c::SYS_getgroups,
    c::SYS_uname,
    c::SYS_sysinfo,
    c::SYS_getrusage,
    c::SYS_getcpu,
    c::SYS_getrandom,
    c::SYS_capget,
    // Sockets that are open already.
    c::SYS_sendto,
    c::SYS_sendmsg,
    c::SYS_sendmmsg,
    c::SYS_recvfrom,
    c::SYS_recvmsg,
    c::SYS_recvmmsg,
    c::SYS_shutdown,
    c::SYS_getsockname,
    c::SYS_getpeername,
    c::SYS_getsockopt,
    c::SYS_setsockopt,
];

/// The older names of calls above, which newer processors do not have.
#[cfg(target_arch = "x86_64")]
const OLDER: &[c_long] = &[
    c::SYS_stat,
    c::SYS_lstat,
    c::SYS_access,
    c::SYS_readlink,
    c::SYS_getdents,
    c::SYS_dup2,
    c::SYS_mkdir,
    c::SYS_rmdir,
    c::SYS_unlink,
    c::SYS_rename,
    c::SYS_link,
    c::SYS_symlink,
    c::SYS_pipe,
    c::SYS_poll,
    c::SYS_select,
    c::SYS_epoll_create,
    c::SYS_epoll_wait,
    c::SYS_eventfd,
    c::SYS_signalfd,
    c::SYS_alarm,
    c::SYS_pause,
    c::SYS_time,
    c::SYS_fork,
    c::SYS_vfork,
    c::SYS_getpgrp,
    c::SYS_getrlimit,
    c::SYS_arch_prctl,
    c::SYS_creat,
];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: &[c_long] = &[];

/// Changes of paths that Landlock does not look at, allowed where the whole tree is the skill's own.
const OWN_FILES: &[c_long] = &[
    c::SYS_truncate,
    c::SYS_fchmodat,
    c::SYS_utimensat,
    #[cfg(target_arch = "x86_64")]
    c::SYS_chmod,
    #[cfg(target_arch = "x86_64")]
    c::SYS_utime,
    #[cfg(target_arch = "x86_64")]
    c::SYS_utimes,
];

/// Calls that only an attack makes: they end the process, so that the attempt is seen.
const DEADLY: &[c_long] = &[
    c::SYS_ptrace,
    c::SYS_process_vm_readv,
    c::SYS_process_vm_writev,
    c::SYS_kcmp,
    c::SYS_pidfd_getfd,
    c::SYS_mount,
    c::SYS_umount2,
    c::SYS_pivot_root,
    c::SYS_chroot,
    c::SYS_move_mount,
    c::SYS_open_tree,
    c::SYS_fsopen,
    c::SYS_fsmount,
    c::SYS_fsconfig,
    c::SYS_fspick,
    c::SYS_mount_setattr,
    c::SYS_unshare,
    c::SYS_setns,
    c::SYS_bpf,
    c::SYS_userfaultfd,
    c::SYS_perf_event_open,
    c::SYS_open_by_handle_at,
    c::SYS_name_to_handle_at,
    c::SYS_add_key,
    c::SYS_request_key,
    c::SYS_keyctl,
    c::SYS_init_module,
    c::SYS_finit_module,
    c::SYS_delete_module,
    c::SYS_kexec_load,
    c::SYS_reboot,
    c::SYS_swapon,
    c::SYS_swapoff,
    c::SYS_acct,
];

/// Calls that libraries do without when they do not exist: `clone3` has its flags in memory, where
/// no filter can read them, and the rings of io_uring make calls that no filter sees.
const MISSING: &[c_long] = &[
    c::SYS_clone3,
    c::SYS_openat2,
    c::SYS_io_uring_setup,
    c::SYS_io_uring_enter,
    c::SYS_io_uring_register,
    c::SYS_fchmodat2,
];

/// Every flag of `clone` that makes a namespace.
const NAMESPACES: c::c_int = c::CLONE_NEWNS
    | c::CLONE_NEWCGROUP
    | c::CLONE_NEWUTS
    | c::CLONE_NEWIPC
    | c::CLONE_NEWUSER
    | c::CLONE_NEWPID
    | c::CLONE_NEWNET;

/// Requests of `ioctl` that read how something is, or set how an open file behaves: `TCGETS`,
/// `TIOCGWINSZ`, `FIONREAD`, `FIONBIO`, `FIONCLEX`, `FIOCLEX`.
const REQUESTS: &[u64] = &[0x5401, 0x5413, 0x541b, 0x5421, 0x5450, 0x5451];

/// Names for threads, and questions.
const PRCTL: &[c::c_int] = &[
    c::PR_SET_NAME,
    c::PR_GET_NAME,
    c::PR_GET_DUMPABLE,
    c::PR_GET_NO_NEW_PRIVS,
    c::PR_SET_NO_NEW_PRIVS,
    c::PR_CAPBSET_READ,
    c::PR_SET_VMA,
];

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// The filters, in the order in which they are installed. The kernel asks all of them, and the
/// strictest answer counts.
pub(super) fn filters(wanted: Wanted) -> Result<Vec<BpfProgram>, seccompiler::BackendError> {
    use SeccompAction::{Allow, Errno, KillProcess};
    let whole =
        |calls: &[c_long]| -> Rules { calls.iter().map(|call| (*call, Vec::new())).collect() };
    let mut allowed = whole(ALLOWED);
    allowed.extend(whole(OLDER));
    // The last filter says that they do not exist.
    allowed.extend(whole(MISSING));
    allowed.extend(whole(DEADLY));
    allowed.extend(conditional(wanted)?);
    if !wanted.host_files {
        allowed.extend(whole(OWN_FILES));
    }
    if !wanted.one_group {
        allowed.extend(whole(&[c::SYS_setsid, c::SYS_setpgid]));
    }
    let eperm = Errno(c::EPERM.unsigned_abs());
    let enosys = Errno(c::ENOSYS.unsigned_abs());
    [(whole(DEADLY), Allow, KillProcess), (whole(MISSING), Allow, enosys), (allowed, eperm, Allow)]
        .into_iter()
        .map(|(rules, otherwise, matching)| {
            SeccompFilter::new(rules, otherwise, matching, PROCESSOR)?.try_into()
        })
        .collect()
}

/// Calls that are allowed with some arguments only.
fn conditional(wanted: Wanted) -> Result<Rules, seccompiler::BackendError> {
    use SeccompCmpOp::{Eq, MaskedEq};
    // An argument of 32 bits; what stands above it is not looked at by the kernel either.
    let is = |argument: u8, operator: SeccompCmpOp, value: u64| {
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)
    };
    let is_null = |argument: u8| SeccompCondition::new(argument, SeccompCmpArgLen::Qword, Eq, 0);
    let number = |value: c::c_int| u64::from(value.unsigned_abs());
    let rule = |conditions: Vec<SeccompCondition>| SeccompRule::new(conditions);

    let mut rules = Rules::new();
    let mut add = |call: c_long, alternatives: Vec<SeccompRule>| {
        rules.insert(call, alternatives);
    };
    let flags = number(NAMESPACES);
    add(c::SYS_clone, vec![rule(vec![is(0, MaskedEq(flags), 0)?])?]);

    // A file that is opened for reading can be cut to nothing: no layer below looks at that.
    let access = number(c::O_ACCMODE);
    let opens = |argument: u8| {
        Ok::<_, seccompiler::BackendError>(vec![
            rule(vec![is(argument, MaskedEq(number(c::O_TRUNC)), 0)?])?,
            rule(vec![is(argument, MaskedEq(access), number(c::O_WRONLY))?])?,
            rule(vec![is(argument, MaskedEq(access), number(c::O_RDWR))?])?,
        ])
    };
    add(c::SYS_openat, opens(2)?);
    #[cfg(target_arch = "x86_64")]
    add(c::SYS_open, opens(1)?);

    let mut requests = Vec::new();
    for request in REQUESTS {
        requests.push(rule(vec![is(1, Eq, *request)?])?);
    }
    add(c::SYS_ioctl, requests);
    let mut options = Vec::new();
    for option in PRCTL {
        options.push(rule(vec![is(0, Eq, number(*option))?])?);
    }
    add(c::SYS_prctl, options);
    // Its own limits, which it can only lower.
    add(c::SYS_prlimit64, vec![rule(vec![is(0, Eq, 0)?])?]);
    // The times of an open file.
    if wanted.host_files {
        add(c::SYS_utimensat, vec![rule(vec![is_null(1)?])?]);
    }
    let signal = match wanted.only_process {
        Some(process) => vec![rule(vec![is(0, Eq, u64::from(process))?])?],
        None => Vec::new(),
    };
    for call in [c::SYS_kill, c::SYS_tgkill] {
        add(call, signal.clone());
    }

    let local = number(c::AF_UNIX);
    add(c::SYS_socketpair, vec![rule(vec![is(0, Eq, local)?])?]);
    if wanted.network {
        let mut sockets = Vec::new();
        for family in [c::AF_INET, c::AF_INET6] {
            // The type's upper bits are flags.
            let stream = is(1, MaskedEq(0xf), number(c::SOCK_STREAM))?;
            sockets.push(rule(vec![is(0, Eq, number(family))?, stream])?);
        }
        add(c::SYS_socket, sockets);
        add(c::SYS_connect, Vec::new());
    }
    Ok(rules)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_filter_can_be_installed() {
        for (network, host_files) in [(false, false), (true, false), (false, true)] {
            let only_process = host_files.then_some(7);
            let one_group = host_files;
            let filters = filters(Wanted { network, host_files, one_group, only_process }).unwrap();
            assert_eq!(filters.len(), 3);
            // The kernel takes no longer ones.
            assert!(filters.iter().all(|filter| (1..4096).contains(&filter.len())));
        }
    }

    #[test]
    fn no_call_is_in_two_lists() {
        let mut all = Vec::new();
        for list in [ALLOWED, OLDER, OWN_FILES, DEADLY, MISSING] {
            all.extend_from_slice(list);
        }
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }
}
