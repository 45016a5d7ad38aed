//! What king knows of its machine: the system, the programs that agents may need, Evo's own
//! programs, and a checklist for people.

use std::{
    ffi::OsString,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use evo_common::{
    clock::Timestamp,
    messages::{ChecklistItem, ComponentFacts, SystemDiscovery, SystemFacts, ToolFacts},
};
use sysinfo::{MemoryRefreshKind, RefreshKind, System};
use tokio::{io::AsyncReadExt as _, process::Command, sync::Mutex};

/// How long a program may take to say its version.
const PROBE_LIMIT: Duration = Duration::from_secs(2);
/// Most bytes that are read of what it says.
const PROBE_BYTES: u64 = 4 * 1024;
/// Most characters of a version that are kept.
const VERSION_CHARS: usize = 120;

/// A program that is looked for.
struct Tool {
    name: &'static str,
    /// Makes it say its version.
    argument: &'static str,
    category: &'static str,
    /// What it would be good for; set for programs that are worth installing.
    suggestion: Option<&'static str>,
}

const fn tool(
    name: &'static str,
    argument: &'static str,
    category: &'static str,
    suggestion: Option<&'static str>,
) -> Tool {
    Tool { name, argument, category, suggestion }
}

const TOOLS: &[Tool] = &[
    tool(
        "git",
        "--version",
        "version_control",
        Some("keeps skills and agents under version control"),
    ),
    tool("gh", "--version", "version_control", None),
    tool("python3", "--version", "language", Some("runs skills that ship Python code")),
    tool("node", "--version", "language", Some("runs skills that ship JavaScript code")),
    tool("npm", "--version", "language", None),
    tool("uv", "--version", "language", None),
    tool("go", "version", "language", None),
    tool("rustc", "--version", "language", None),
    tool("cargo", "--version", "language", None),
    tool(
        "docker",
        "--version",
        "container",
        Some("runs the services side by side with one command"),
    ),
    tool("tmux", "-V", "terminal", None),
    tool("ollama", "--version", "model", Some("serves local models, so that no API key is needed")),
    tool("llama-server", "--version", "model", None),
    tool("claude", "--version", "agent", None),
    tool("codex", "--version", "agent", None),
    tool("cursor-agent", "--version", "agent", None),
];

/// Evo's own programs.
const COMPONENTS: &[&str] = &["evo", "evo-king", "evo-gateway", "evo-runner", "evo-evotown-bridge"];

/// The kind of event that says that king has looked at its machine again.
pub(crate) const REFRESHED: &str = "system_info.refreshed";

/// What the discovery needs to know of this process. Filled by `config`, which alone reads the
/// environment.
#[derive(Debug, Clone, Default)]
pub struct Machine {
    /// Evo's data folder.
    pub evo_home: PathBuf,
    /// The user's home folder.
    pub home: Option<PathBuf>,
    /// The folders of `PATH`, in order.
    pub path: Vec<PathBuf>,
    /// The running executable.
    pub executable: Option<PathBuf>,
}

/// The last discovery, made when it is first asked for. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SystemInfo {
    machine: Arc<Machine>,
    last: Arc<Mutex<Option<SystemDiscovery>>>,
}

impl SystemInfo {
    /// Nothing is looked at yet.
    pub fn new(machine: Machine) -> Self {
        Self { machine: Arc::new(machine), last: Arc::default() }
    }

    /// The last discovery. Callers that come while one is made wait for that one.
    pub async fn get(&self) -> SystemDiscovery {
        let mut last = self.last.lock().await;
        match &*last {
            Some(discovery) => discovery.clone(),
            None => last.insert(discover(&self.machine).await).clone(),
        }
    }

    /// Looks again.
    pub async fn refresh(&self) -> SystemDiscovery {
        let mut last = self.last.lock().await;
        last.insert(discover(&self.machine).await).clone()
    }
}

/// Looks at the machine. Takes at most a little more than two seconds, whatever the programs on it
/// do.
pub async fn discover(machine: &Machine) -> SystemDiscovery {
    let probes = TOOLS.iter().map(|tool| probe(tool, machine));
    let tools = futures_util::future::join_all(probes).await;
    let evo_components = COMPONENTS.iter().map(|name| component(name, machine)).collect();
    let checklist = checklist(machine, &tools);
    SystemDiscovery {
        discovered_at: Timestamp::now().to_rfc3339(),
        king_version: crate::VERSION.to_owned(),
        system: facts(machine),
        tools,
        evo_components,
        checklist,
    }
}

fn facts(machine: &Machine) -> SystemFacts {
    let show = |path: &Path| path.display().to_string();
    let ram = RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram());
    SystemFacts {
        os: if cfg!(target_os = "macos") { "macos" } else { "linux" }.to_owned(),
        os_version: System::long_os_version().unwrap_or_default(),
        arch: System::cpu_arch(),
        hostname: System::host_name().unwrap_or_default(),
        cpu_count: std::thread::available_parallelism().map_or(1, |count| count.get() as u64),
        memory_bytes: System::new_with_specifics(ram).map_or(0, |system| system.total_memory()),
        home_dir: machine.home.as_deref().map(show).unwrap_or_default(),
        evo_home: show(&machine.evo_home),
    }
}

async fn probe(tool: &Tool, machine: &Machine) -> ToolFacts {
    let path = find(tool.name, &machine.path);
    let version = match &path {
        Some(path) => tokio::time::timeout(PROBE_LIMIT, version(path, tool.argument, machine))
            .await
            .unwrap_or_default(),
        None => None,
    };
    let suggested = tool.suggestion.filter(|_| path.is_none());
    let status = match (&path, suggested) {
        (Some(_), _) => "available",
        (None, Some(_)) => "suggested",
        (None, None) => "not_found",
    };
    ToolFacts {
        name: tool.name.to_owned(),
        version,
        path: path.map(|path| path.display().to_string()),
        status: status.to_owned(),
        suggestion_reason: suggested.map(str::to_owned),
        category: tool.category.to_owned(),
    }
}

/// The first line that a program says of its version. It sees none of this process's environment
/// but `PATH` and `HOME`, so that no token reaches it.
async fn version(program: &Path, argument: &str, machine: &Machine) -> Option<String> {
    let separator = OsString::from(":");
    let path = machine.path.iter().map(|folder| folder.as_os_str().to_owned());
    let path = path.collect::<Vec<_>>().join(&separator);
    let mut child = Command::new(program)
        .arg(argument)
        .env_clear()
        .env("PATH", path)
        .envs(machine.home.iter().map(|home| ("HOME", home)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .ok()?;
    let stdout = child.stdout.take()?;
    let stderr = child.stderr.take()?;
    let (stdout, stderr) = tokio::join!(first_line(stdout), first_line(stderr));
    stdout.or(stderr)
}

async fn first_line(stream: impl tokio::io::AsyncRead + Unpin) -> Option<String> {
    let mut bytes = Vec::new();
    stream.take(PROBE_BYTES).read_to_end(&mut bytes).await.ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let line = text.lines().map(str::trim).find(|line| !line.is_empty())?;
    Some(line.chars().filter(|c| !c.is_control()).take(VERSION_CHARS).collect())
}

fn component(name: &str, machine: &Machine) -> ComponentFacts {
    let running = machine
        .executable
        .as_deref()
        .filter(|path| path.file_name().is_some_and(|file| file == name));
    let beside =
        machine.executable.as_deref().and_then(Path::parent).map(|folder| folder.join(name));
    let path = running
        .map(Path::to_path_buf)
        .or_else(|| beside.filter(|path| is_executable(path)))
        .or_else(|| find(name, &machine.path));
    ComponentFacts {
        name: name.to_owned(),
        found: path.is_some(),
        version: running.map(|_| crate::VERSION.to_owned()),
        binary_path: path.map(|path| path.display().to_string()),
    }
}

fn checklist(machine: &Machine, tools: &[ToolFacts]) -> Vec<ChecklistItem> {
    let found = |names: &[&str]| {
        tools
            .iter()
            .find(|tool| names.contains(&tool.name.as_str()) && tool.path.is_some())
            .map(|tool| tool.version.clone().unwrap_or_else(|| tool.name.clone()))
    };
    let optional = |name: &str, names: &[&str], missing: &str| match found(names) {
        Some(version) => item(name, "pass", version),
        None => item(name, "suggested", missing.to_owned()),
    };
    let home = &machine.evo_home;
    let data = if home.is_dir() {
        item("data_folder", "pass", format!("{} is there", home.display()))
    } else {
        item("data_folder", "fail", format!("{} is no folder; check --data", home.display()))
    };
    vec![
        data,
        optional(
            "code_skills",
            &["python3", "node"],
            "install Python 3 or Node to run skills that ship code",
        ),
        optional(
            "containers",
            &["docker"],
            "install Docker to run the services with docker compose",
        ),
        optional(
            "local_model",
            &["ollama", "llama-server"],
            "install Ollama, or set a provider's API key, to use sources and builders that need a model",
        ),
    ]
}

fn item(name: &str, status: &str, message: String) -> ChecklistItem {
    ChecklistItem { name: name.to_owned(), status: status.to_owned(), message }
}

fn find(name: &str, folders: &[PathBuf]) -> Option<PathBuf> {
    folders
        .iter()
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join(name))
        .find(|path| is_executable(path))
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|facts| facts.is_file() && facts.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(folder: &Path, name: &str, script: &str) {
        let path = folder.join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn machine(folder: &Path) -> Machine {
        Machine {
            evo_home: folder.to_path_buf(),
            home: Some(folder.to_path_buf()),
            path: vec![PathBuf::from("relative"), folder.to_path_buf()],
            executable: Some(folder.join("evo-king")),
        }
    }

    fn tool<'a>(discovery: &'a SystemDiscovery, name: &str) -> &'a ToolFacts {
        discovery.tools.iter().find(|tool| tool.name == name).unwrap()
    }

    #[tokio::test]
    async fn tools_say_their_version_and_a_hanging_one_costs_two_seconds() {
        let folder = tempfile::tempdir().unwrap();
        program(folder.path(), "git", "echo; echo git version 9.9");
        program(folder.path(), "node", "echo v1 1>&2");
        program(folder.path(), "docker", "exec /bin/sleep 60");
        program(folder.path(), "python3", "while :; do echo y; done");
        program(folder.path(), "gh", "[ -z \"$EVO_TOKEN_OPERATOR$USER$PWD_\" ] && echo clean");
        std::fs::write(folder.path().join("tmux"), "not executable").unwrap();
        let started = tokio::time::Instant::now();
        let discovery = discover(&machine(folder.path())).await;
        assert!(started.elapsed() < Duration::from_secs(10));
        assert_eq!(tool(&discovery, "git").version.as_deref(), Some("git version 9.9"));
        assert_eq!(tool(&discovery, "node").version.as_deref(), Some("v1"));
        assert_eq!(tool(&discovery, "gh").version.as_deref(), Some("clean"));
        assert_eq!(tool(&discovery, "docker").status, "available");
        assert_eq!(tool(&discovery, "docker").version, None);
        assert_eq!(tool(&discovery, "python3").version.as_deref(), Some("y"));
        assert_eq!(tool(&discovery, "tmux").status, "not_found");
        assert_eq!(tool(&discovery, "ollama").status, "suggested");
        assert!(tool(&discovery, "ollama").suggestion_reason.is_some());
        let statuses: Vec<_> =
            discovery.checklist.iter().map(|item| (&*item.name, &*item.status)).collect();
        assert_eq!(
            statuses,
            [
                ("data_folder", "pass"),
                ("code_skills", "pass"),
                ("containers", "pass"),
                ("local_model", "suggested")
            ]
        );
        let king = discovery.evo_components.iter().find(|c| c.name == "evo-king").unwrap();
        assert!(king.found && king.version.is_some());
        assert!(discovery.system.memory_bytes > 0 && discovery.system.cpu_count > 0);
    }

    #[tokio::test]
    async fn the_discovery_is_kept_until_it_is_refreshed() {
        let folder = tempfile::tempdir().unwrap();
        let info = SystemInfo::new(machine(folder.path()));
        let first = info.get().await;
        program(folder.path(), "git", "echo git version 9.9");
        assert_eq!(info.get().await, first);
        let second = info.refresh().await;
        assert_eq!(tool(&second, "git").status, "available");
        assert_eq!(info.get().await, second);
    }
}
