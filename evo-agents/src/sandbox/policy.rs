//! What a skill's code may do, as data. The runner decides it; the layers of the system apply it.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use evo_common::skill::CodeRuntime;
use serde::{Deserialize, Serialize};
use url::Url;

use super::interpreter::Interpreter;

const MIB: u64 = 1024 * 1024;
/// The ports of a host that is named without one.
const WEB_PORTS: [u16; 2] = [80, 443];

/// Everything that one execution may do. What is not in here is not allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// The program that runs the entry, and what of the system it needs to read.
    pub interpreter: Interpreter,
    /// The file that is run, as a path inside the package.
    pub entry: String,
    /// The folder of the package, which is read-only for the code.
    pub package: PathBuf,
    /// Environment variables beside those of the sandbox itself. Nothing of the runner's own
    /// environment is passed on.
    pub env: BTreeMap<String, String>,
    /// What may be reached through the proxy; nothing by default. There is no other network.
    pub egress: Vec<HostRule>,
    /// How much of everything.
    pub limits: Limits,
    /// Layers that are left out, to show what they are for. Exists in test builds only.
    #[cfg(feature = "sandbox-layers")]
    pub off: Vec<Layer>,
}

impl Policy {
    /// The policy of a package whose files lie in `package`.
    pub fn new(interpreter: Interpreter, entry: impl Into<String>, package: PathBuf) -> Self {
        Self {
            interpreter,
            entry: entry.into(),
            package,
            env: BTreeMap::new(),
            egress: Vec::new(),
            limits: Limits::default(),
            #[cfg(feature = "sandbox-layers")]
            off: Vec::new(),
        }
    }

    /// The layers that are left out: none, but in tests.
    #[cfg_attr(
        not(feature = "sandbox-layers"),
        expect(clippy::unused_self, reason = "only tests can leave something out")
    )]
    pub(super) fn left_out(&self) -> Vec<Layer> {
        #[cfg(feature = "sandbox-layers")]
        return self.off.clone();
        #[cfg(not(feature = "sandbox-layers"))]
        Vec::new()
    }
}

/// How much an execution may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// From start to end.
    pub wall_ms: u64,
    /// Processor time of one process.
    pub cpu_seconds: u64,
    /// Memory of all processes together, and address space of each.
    pub memory_bytes: u64,
    /// Processes and threads at the same time.
    pub processes: u64,
    /// Open files of one process.
    pub files: u64,
    /// Largest file.
    pub file_bytes: u64,
    /// All files of the scratch folder together.
    pub scratch_bytes: u64,
    /// Standard output, and standard error.
    pub output_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            wall_ms: 10_000,
            cpu_seconds: 10,
            memory_bytes: 256 * MIB,
            processes: 32,
            files: 128,
            file_bytes: 32 * MIB,
            scratch_bytes: 64 * MIB,
            output_bytes: 4 * MIB,
        }
    }
}

impl Limits {
    /// The limits that a package asks for, within what any package may ask for.
    pub fn of(runtime: &CodeRuntime) -> Self {
        let wall_ms = runtime.timeout_ms.clamp(1, CodeRuntime::MAX_TIMEOUT_MS);
        let memory_mb =
            runtime.memory_mb.clamp(CodeRuntime::MIN_MEMORY_MB, CodeRuntime::MAX_MEMORY_MB);
        Self {
            wall_ms,
            cpu_seconds: wall_ms.div_ceil(1_000),
            memory_bytes: u64::from(memory_mb) * MIB,
            ..Self::default()
        }
    }
}

/// A host that the code may talk to, with its ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostRule {
    host: String,
    port: Option<u16>,
}

/// A text that names no host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no host: use a name (api.example.com), with a port (api.example.com:8443), or an origin (https://api.example.com)"
)]
pub struct InvalidHost(String);

impl HostRule {
    /// Reads `host`, `host:port` or `scheme://host[:port]`.
    pub fn parse(text: &str) -> Result<Self, InvalidHost> {
        let invalid = || InvalidHost(text.to_owned());
        if text.contains("://") {
            let url = Url::parse(text).map_err(|_| invalid())?;
            let plain = matches!(url.scheme(), "http" | "https")
                && url.path() == "/"
                && url.query().is_none()
                && url.fragment().is_none()
                && url.username().is_empty()
                && url.password().is_none();
            let host = url.host_str().filter(|_| plain).ok_or_else(invalid)?;
            return Ok(Self { host: host.to_owned(), port: url.port_or_known_default() });
        }
        let (host, port) = split_port(text).ok_or_else(invalid)?;
        let host = normal_host(host).ok_or_else(invalid)?;
        Ok(Self { host, port })
    }

    /// Whether a host, as [`normal_host`] writes it, and a port are meant.
    pub(super) fn allows(&self, host: &str, port: u16) -> bool {
        self.host == host
            && self.port.map_or_else(|| WEB_PORTS.contains(&port), |allowed| allowed == port)
    }
}

impl fmt::Display for HostRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.host)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

/// Host and port of `host`, `host:port`, `[v6]` or `[v6]:port`.
pub(super) fn split_port(text: &str) -> Option<(&str, Option<u16>)> {
    let end_of_host = text.find(']').map_or(0, |at| at + 1);
    match text[end_of_host..].rsplit_once(':') {
        Some((rest, port)) => {
            let host = &text[..end_of_host + rest.len()];
            // Digits only: `parse` would take a sign too.
            let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
            (digits && !host.contains(' ')).then_some((host, Some(port.parse().ok()?)))
        }
        None => Some((text, None)),
    }
}

/// The one way to write a host: lower case, ASCII, numbers as addresses.
pub(super) fn normal_host(host: &str) -> Option<String> {
    // A port here would be one too many.
    let has_port = host.contains(':') && !(host.starts_with('[') && host.ends_with(']'));
    if host.is_empty() || has_port || host.contains(['/', '@', '?', '#', '\\', ' ']) {
        return None;
    }
    let url = Url::parse(&format!("http://{host}/")).ok()?;
    url.host_str().map(str::to_owned)
}

/// One thing that keeps code in its bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layer {
    /// Programs can't gain rights that this process does not have.
    NoNewPrivileges,
    /// A user id that owns nothing, without any capability.
    OwnUser,
    /// A root folder of its own that holds only what the interpreter needs.
    PrivateRoot,
    /// Sees no other processes, and ends as a whole.
    OwnProcesses,
    /// No network devices but a loopback of its own.
    OwnNetwork,
    /// Rules of the kernel about files, ports and signals.
    Landlock,
    /// System calls that are not listed fail.
    Seccomp,
    /// Bounds of processor time, memory, processes and files.
    ResourceLimits,
    /// What all processes take together is looked at while they run.
    Watch,
}

impl Layer {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::NoNewPrivileges,
        Self::OwnUser,
        Self::PrivateRoot,
        Self::OwnProcesses,
        Self::OwnNetwork,
        Self::Landlock,
        Self::Seccomp,
        Self::ResourceLimits,
        Self::Watch,
    ];

    /// The name of the layer in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoNewPrivileges => "no_new_privileges",
            Self::OwnUser => "own_user",
            Self::PrivateRoot => "private_root",
            Self::OwnProcesses => "own_processes",
            Self::OwnNetwork => "own_network",
            Self::Landlock => "landlock",
            Self::Seccomp => "seccomp",
            Self::ResourceLimits => "resource_limits",
            Self::Watch => "watch",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_read_in_each_of_their_forms() {
        for (text, host, yes, no) in [
            ("api.example.com", "api.example.com", &[80, 443][..], &[8080][..]),
            ("API.Example.com:8443", "api.example.com", &[8443], &[80, 443]),
            ("https://api.example.com", "api.example.com", &[443], &[80]),
            ("http://127.0.0.1:9000", "127.0.0.1", &[9000], &[80]),
            ("[::1]:7", "[::1]", &[7], &[80]),
        ] {
            let rule = HostRule::parse(text).unwrap();
            assert!(yes.iter().all(|port| rule.allows(host, *port)), "{text}");
            assert!(!no.iter().any(|port| rule.allows(host, *port)), "{text}");
            assert!(!rule.allows("other.example.com", yes[0]), "{text}");
        }
        for text in [
            "",
            "*",
            "a b",
            "https://a/path",
            "ftp://a",
            "a:b",
            "a:+80",
            "a/b",
            "u@a",
            "http://u@a",
        ] {
            assert!(HostRule::parse(text).is_err() || text == "*", "{text}");
        }
    }

    #[test]
    fn a_host_has_one_way_to_be_written() {
        assert_eq!(normal_host("LOCALHOST").as_deref(), Some("localhost"));
        assert_eq!(normal_host("2130706433").as_deref(), Some("127.0.0.1"));
        assert_eq!(normal_host("0x7f.1").as_deref(), Some("127.0.0.1"));
        assert_eq!(normal_host("[::1]").as_deref(), Some("[::1]"));
        assert_eq!(normal_host("a:80"), None);
        assert_eq!(split_port("a:80"), Some(("a", Some(80))));
        assert_eq!(split_port("[::1]"), Some(("[::1]", None)));
    }

    #[test]
    fn no_package_asks_for_more_than_any_may() {
        let runtime =
            CodeRuntime { timeout_ms: u64::MAX, memory_mb: u32::MAX, ..CodeRuntime::new("a.py") };
        let limits = Limits::of(&runtime);
        assert_eq!(limits.wall_ms, CodeRuntime::MAX_TIMEOUT_MS);
        assert_eq!(limits.memory_bytes, u64::from(CodeRuntime::MAX_MEMORY_MB) * MIB);
    }
}
