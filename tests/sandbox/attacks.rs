//! The attacks: every function `attack_…` of the programs has a `control_…` beside it.

use evo_agents::sandbox::policy::Limits;

/// The programs, as files of the package that runs them.
pub(crate) const PROGRAMS: [(&str, &str); 5] = [
    ("main", include_str!("programs/main.py")),
    ("files", include_str!("programs/files.py")),
    ("processes", include_str!("programs/processes.py")),
    ("kernel", include_str!("programs/kernel.py")),
    ("network", include_str!("programs/network.py")),
];

/// Attacks that only root can make: they fail for an ordinary user without any sandbox.
const ROOT_ONLY: &[&str] = &[
    "read_shadow",
    "write_interpreter",
    "make_device",
    "write_cgroup",
    "mount",
    "new_mount",
    "open_tree",
    "enter_namespace",
    "chroot",
    "bpf",
    "file_handle",
    "become_root",
    "host_name",
    "priority",
    "raw",
    "packet",
    "type_for_others",
    "terminal",
];

/// Attacks that some systems stop without any sandbox: settings of the kernel, containers, missing
/// devices.
const DEPENDS: &[&str] = &[
    "ipv6",
    "vsock",
    "packet",
    "raw",
    "mount",
    "new_mount",
    "open_tree",
    "enter_namespace",
    "chroot",
    "unshare",
    "clone_namespace",
    "keyring",
    "bpf",
    "userfaultfd",
    "perf",
    "io_uring",
    "personality",
    "file_handle",
    "process_handle",
    "read_other_memory",
    "read_memory",
    "ptrace",
    "write_cgroup",
    "kernel_files",
    "make_device",
    "host_name",
    "priority",
    "raise_limits",
    "terminal",
    "terminal_request",
    "type_for_others",
    "hard_link",
    "run_own_program",
    "write_interpreter",
    "queue_signal",
    "shared_memory",
    "system_v",
    // They would end the runner of the tests, or need its proxy.
    "kill_parent",
    "inherited_files",
];

/// Attacks that are over when the code is: whether something lives on is looked at from outside.
pub(crate) const LEAVES_PROCESSES: &[&str] = &["orphan", "daemon", "keep_output_open"];

/// One attack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Attack {
    pub(crate) module: &'static str,
    pub(crate) name: &'static str,
}

impl Attack {
    /// Whether its code has network: one server, through the proxy.
    pub(crate) fn has_network(self) -> bool {
        self.name.contains("proxy")
    }

    /// Whether it has to succeed where there is no sandbox.
    pub(crate) fn succeeds_bare(self, is_root: bool) -> bool {
        let needs_root = !is_root && ROOT_ONLY.contains(&self.name);
        !needs_root && !DEPENDS.contains(&self.name) && !self.has_network()
    }

    /// The limits under which it and its control are run: small ones for attacks that would take long
    /// to reach them.
    pub(crate) fn limits(self, kind: &str) -> Limits {
        // So much that a control ends within it on the busiest machine.
        let usual = Limits { wall_ms: 60_000, ..Limits::default() };
        match self.name {
            "ignore_end" if kind == "attack" => Limits { wall_ms: 700, ..usual },
            "processor" if kind == "attack" => Limits { cpu_seconds: 1, ..usual },
            _ => usual,
        }
    }
}

/// All of them, in the order of the files.
pub(crate) fn all() -> Vec<Attack> {
    let mut attacks = Vec::new();
    for (module, text) in PROGRAMS {
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("def attack_") {
                attacks.push(Attack { module, name: rest.split('(').next().unwrap() });
            }
        }
    }
    attacks
}

#[test]
fn every_attack_has_a_control() {
    let attacks = all();
    assert!(attacks.len() >= 40, "only {} attacks were found", attacks.len());
    for Attack { module, name } in &attacks {
        let (_, text) = PROGRAMS.iter().find(|(file, _)| file == module).unwrap();
        let has_control = text.contains(&format!("def control_{name}("))
            || text.contains(&format!("control_{name} = "));
        assert!(has_control, "{module}.py has no control_{name}");
    }
    for name in ROOT_ONLY.iter().chain(DEPENDS).chain(LEAVES_PROCESSES) {
        assert!(attacks.iter().any(|attack| attack.name == *name), "no attack {name}");
    }
}
