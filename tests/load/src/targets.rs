//! What is measured: the mock upstream itself, nginx in front of it, evo-gateway in front of it.

use std::{
    fmt::Write as _,
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nix::unistd::geteuid;
use serde::Deserialize;
use tempfile::TempDir;
use tokio::time::Instant;

use crate::{
    child::Child,
    config,
    http::Client,
    load::{Call, current_thread, probe},
    proc,
};

/// How long a target may take to start.
const START: Duration = Duration::from_secs(20);

/// The gateway's key: every limit and budget that there is, none of which is reached.
const KEY: &str = r#"{
    "name": "load", "models": ["mock:*"], "rpm": 4294967295, "tpm": 1000000000000,
    "concurrency": 100000, "budget_usd_per_day": 100000000.0, "budget_usd_per_month": 100000000.0
}"#;

/// Who answers the requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Kind {
    /// The mock upstream, with nothing in between.
    Direct,
    /// nginx as a reverse proxy, without an access log: the strictest comparison for a gateway that
    /// writes one.
    Nginx,
    /// The same with an access log, buffered as the gateway's is.
    NginxLog,
    /// evo-gateway.
    Gateway,
}

impl Kind {
    /// Its name in tables and results.
    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Nginx => "nginx",
            Self::NginxLog => "nginx-log",
            Self::Gateway => "gateway",
        }
    }
}

/// The mock upstream as a process of its own.
#[derive(Debug)]
pub struct Upstream {
    pub address: SocketAddr,
    child: Child,
}

impl Upstream {
    /// Starts one on a free port.
    pub fn start(folder: &Path) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe().context("the path of evo-load")?);
        command.args(["upstream", "--listen", "127.0.0.1:0"]);
        let (child, line) = Child::start_and_read_line("upstream", &command, folder)?;
        let address = line.parse().with_context(|| format!("the upstream's first line: {line}"))?;
        Ok(Self { address, child })
    }

    /// Processor time that it has used.
    pub fn processor_time(&self) -> Result<Duration> {
        proc::processor_time(self.child.pid())
    }
}

/// A target that is up and has answered rightly.
#[derive(Debug)]
pub struct Target {
    pub kind: Kind,
    pub address: SocketAddr,
    /// What the gateway lets its callers in by; the others don't look at it.
    pub token: String,
    /// What the gateway shows its books to.
    operator: String,
    /// `None` for the upstream itself.
    child: Option<Child>,
    folder: TempDir,
}

/// A proxy that can be started.
#[derive(Debug, Clone)]
pub struct Program {
    pub path: PathBuf,
    /// What it says about itself.
    pub version: String,
}

impl Target {
    /// The upstream itself.
    pub fn direct(upstream: &Upstream) -> Result<Self> {
        let target = Self {
            kind: Kind::Direct,
            address: upstream.address,
            token: token("gw")?,
            operator: String::new(),
            child: None,
            folder: folder()?,
        };
        target.ready()
    }

    /// nginx with two workers and connections to the upstream that stay open, with an access log or
    /// without.
    pub fn nginx(kind: Kind, program: &Program, upstream: &Upstream) -> Result<Self> {
        let (folder, address) = (folder()?, free_address()?);
        let file = folder.path().join("nginx.conf");
        let logs = kind == Kind::NginxLog;
        fs::write(&file, nginx_conf(folder.path(), address, upstream.address, logs))
            .context("nginx.conf")?;
        let mut command = Command::new(&program.path);
        command.arg("-p").arg(folder.path()).arg("-c").arg(&file);
        let child = Child::start("nginx", &command, folder.path())?;
        Self {
            kind,
            address,
            token: token("gw")?,
            operator: String::new(),
            child: Some(child),
            folder,
        }
        .ready()
    }

    /// evo-gateway as it is shipped: keys asked for, a line per request in the log file, a row per
    /// request in the table of usage. The key has limits and budgets, all of them counted and none
    /// reached.
    pub fn gateway(program: &Program, upstream: &Upstream) -> Result<Self> {
        let (folder, address, operator) = (folder()?, free_address()?, token("op")?);
        let file = folder.path().join("gateway.toml");
        fs::write(&file, gateway_toml(address, upstream.address)).context("gateway.toml")?;
        let mut command = Command::new(&program.path);
        if !is_gateway_itself(&program.path) {
            command.arg("gateway");
        }
        for variable in config::variables_of_evo() {
            command.env_remove(variable);
        }
        command
            .env("EVO_HOME", folder.path())
            .env("GATEWAY_CONFIG", &file)
            .env("EVO_TOKEN_OPERATOR", &operator)
            .env("EVO_TOKEN_GATEWAY", token("gw")?)
            .env("EVO_LOAD_PROVIDER_KEY", token("load")?)
            .env("EVO_LOG_DIR", folder.path().join("logs"))
            .env("EVO_OTLP_ENDPOINT", "off")
            .env("RUST_LOG", "info")
            .current_dir(folder.path());
        let child = Child::start("gateway", &command, folder.path())?;
        let mut target = Self {
            kind: Kind::Gateway,
            address,
            token: String::new(),
            operator,
            child: Some(child),
            folder,
        };
        target.token = target.make_key().context("gateway")?;
        target.ready()
    }

    /// A virtual key, as soon as the gateway listens.
    fn make_key(&mut self) -> Result<String> {
        #[derive(Deserialize)]
        struct Made {
            key: String,
        }
        let begun = Instant::now();
        loop {
            let made = current_thread()?.block_on(async {
                let mut client = Client::open(self.address, &self.operator).await?;
                client.post::<Made>("/admin/keys", KEY).await
            });
            match made {
                Ok(made) => return Ok(made.key),
                Err(error) if begun.elapsed() > START => return Err(error),
                Err(_) => self.check()?,
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Requests that the gateway's table of usage holds; none when it is no gateway.
    pub fn booked(&self) -> Result<Option<u64>> {
        #[derive(Deserialize)]
        struct Usage {
            groups: Vec<Group>,
        }
        #[derive(Deserialize)]
        struct Group {
            requests: u64,
        }
        if self.kind != Kind::Gateway {
            return Ok(None);
        }
        let usage = current_thread()?.block_on(async {
            let mut client = Client::open(self.address, &self.operator).await?;
            client.get::<Usage>("/usage?group_by=total").await
        });
        let groups = usage.context("the table of usage")?.groups;
        Ok(Some(groups.iter().map(|group| group.requests).sum()))
    }

    fn ready(mut self) -> Result<Self> {
        let call = self.call("chat", false)?;
        let name = self.kind.name();
        let child = &mut self.child;
        let alive = || child.as_mut().map_or(Ok(()), Child::check);
        probe(&call, START, alive).with_context(|| format!("{name} does not answer"))?;
        Ok(self)
    }

    /// A request to it.
    pub fn call(&self, model: &str, stream: bool) -> Result<Call> {
        Call::chat(self.address, &format!("mock:{model}"), &self.token, stream)
    }

    /// Processor time that it has used; none when it is no proxy.
    pub fn processor_time(&self) -> Result<Duration> {
        self.pid().map_or(Ok(Duration::ZERO), proc::processor_time)
    }

    /// An error when its process has ended.
    pub fn check(&mut self) -> Result<()> {
        self.child.as_mut().map_or(Ok(()), Child::check)
    }

    /// The process to look at; none when it is no proxy.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::pid)
    }

    /// For a message about what went wrong: its name and the end of what it wrote.
    pub fn name_and_output(&self) -> String {
        let name = self.kind.name();
        let output = self.child.as_ref().map(Child::output).unwrap_or_default();
        if output.is_empty() { name.to_owned() } else { format!("{name} (it wrote: {output})") }
    }

    /// Bytes that it has written to its output and its log files.
    pub fn logged_bytes(&self) -> Result<u64> {
        let mut all = 0;
        for folder in [self.folder.path().to_owned(), self.folder.path().join("logs")] {
            let Ok(entries) = fs::read_dir(&folder) else { continue };
            for entry in entries {
                let entry = entry.context("a log folder")?;
                let name = entry.file_name();
                let name = name.to_string_lossy();
                if name.ends_with(".output") || name.ends_with(".log") {
                    all += entry.metadata().context("a log file")?.len();
                }
            }
        }
        Ok(all)
    }
}

fn folder() -> Result<TempDir> {
    tempfile::Builder::new().prefix("evo-load-").tempdir().context("a temporary folder")
}

/// A port that was free a moment ago.
pub fn free_address() -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("a free port")?;
    listener.local_addr().context("a free port")
}

/// A token for this run alone.
fn token(kind: &str) -> Result<String> {
    let path = "/proc/sys/kernel/random/uuid";
    let random = || fs::read_to_string(path).with_context(|| format!("{path}; this needs Linux"));
    let digits = format!("{}{}", random()?, random()?).replace(['-', '\n'], "");
    Ok(format!("evo_{kind}_{digits}"))
}

fn nginx_conf(folder: &Path, listen: SocketAddr, upstream: SocketAddr, logs: bool) -> String {
    let folder = folder.display();
    let log = if logs {
        format!("{folder}/access.log combined buffer=32k flush=1s")
    } else {
        "off".to_owned()
    };
    let mut conf = String::new();
    if geteuid().is_root() {
        // Its workers would become another user, who can't read this folder.
        conf.push_str("user root;\n");
    }
    write!(
        conf,
        "daemon off;
worker_processes 2;
worker_rlimit_nofile 8192;
pid {folder}/nginx.pid;
error_log stderr error;
events {{ worker_connections 4096; }}
http {{
    access_log {log};
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    tcp_nodelay on;
    keepalive_requests 1000000000;
    keepalive_timeout 600s;
    upstream mock {{
        server {upstream};
        keepalive 512;
        keepalive_requests 1000000000;
        keepalive_timeout 600s;
    }}
    server {{
        listen {listen} backlog=4096;
        location / {{
            proxy_pass http://mock;
            proxy_http_version 1.1;
            proxy_set_header Connection \"\";
            proxy_buffering off;
        }}
    }}
}}
"
    )
    .expect("writing to a String does not fail");
    conf
}

fn gateway_toml(listen: SocketAddr, upstream: SocketAddr) -> String {
    format!(
        "[server]
host = \"{}\"
port = {}

[[providers]]
name = \"mock\"
base_url = \"http://{upstream}/v1\"
api_key_envs = [\"EVO_LOAD_PROVIDER_KEY\"]
enabled = true
provider_type = \"open_ai_compatible\"
models = [\"chat\"]

[providers.model_metadata]
chat = {{ cost = {{ input = 0.15, output = 0.6 }} }}
stream-100-0 = {{ cost = {{ input = 0.15, output = 0.6 }} }}
stream-100-20 = {{ cost = {{ input = 0.15, output = 0.6 }} }}
",
        listen.ip(),
        listen.port()
    )
}

fn is_gateway_itself(path: &Path) -> bool {
    path.file_stem().is_some_and(|name| name.to_string_lossy().starts_with("evo-gateway"))
}

/// nginx as installed; `None` when it is not.
pub fn find_nginx() -> Option<Program> {
    // /usr/sbin is not in everybody's PATH.
    ["nginx", "/usr/sbin/nginx", "/opt/homebrew/bin/nginx"].into_iter().find_map(|path| {
        let output = Command::new(path).arg("-v").output().ok()?;
        if !output.status.success() {
            return None;
        }
        let text = String::from_utf8_lossy(&output.stderr);
        let version = text.trim().trim_start_matches("nginx version: ").to_owned();
        Some(Program { path: path.into(), version })
    })
}

/// The gateway's program: the one given, else `evo-gateway` or `evo` beside this program.
pub fn find_gateway(given: Option<&Path>) -> Result<Program> {
    let this = std::env::current_exe().context("the path of evo-load")?;
    let candidates = match given {
        Some(path) => vec![path.to_owned()],
        None => ["evo-gateway", "evo"].map(|name| this.with_file_name(name)).to_vec(),
    };
    let path = candidates.iter().find(|path| path.is_file()).with_context(|| {
        let names: Vec<String> = candidates.iter().map(|path| path.display().to_string()).collect();
        format!(
            "no gateway at {}: build it with `cargo build --release -p evo-gateway`, name another \
             with --binary FILE, or leave it out with --targets direct,nginx",
            names.join(" or ")
        )
    })?;
    let path = path.canonicalize().with_context(|| path.display().to_string())?;
    let output = Command::new(&path)
        .arg("--version")
        .output()
        .with_context(|| format!("{} does not start", path.display()))?;
    ensure!(output.status.success(), "{} --version fails ({})", path.display(), output.status);
    let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    Ok(Program { path, version })
}
