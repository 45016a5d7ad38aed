//! The real servers, and the documents that they bring; a server that answers as documents say.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use evo_common::{
    config::{
        SourceConfig,
        sources::{GATEWAY_LOCATION, KING_LOCATION},
    },
    tokens::Secret,
};
use evo_harness::Python;
use serde::Serialize;
use serde_json::Value;

use crate::{child::Child, cli::say, stop::Stop};

/// How long a server may take to start.
const PATIENCE: Duration = Duration::from_secs(90);
/// Documents of `@readme/oas-examples` that are no skills' source or only repeat another one.
const LEFT_OUT: [&str; 4] = ["circular", "webhooks", "callbacks", "file-uploads"];

/// Whose skills.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Group {
    /// Of real servers.
    Real,
    /// Of documents, answered by a mock.
    Mock,
    /// Code that was made from examples.
    Code,
}

/// A server that runs, and its document.
#[derive(Debug, Clone)]
pub struct Served {
    pub group: Group,
    pub source: SourceConfig,
    /// Its base URL.
    pub base: String,
}

impl Served {
    /// Whether an operation may be tried although it may write: the server forgets what is written, and
    /// what one skill writes changes nothing for the others.
    pub fn may_write(&self, locator: &str) -> bool {
        let again_the_same = locator.starts_with("PUT ") || locator.starts_with("PATCH ");
        match self.source.name.as_str() {
            "evo-king" | "evo-gateway" | "jupyter" => false,
            "kinto" => again_the_same,
            _ => true,
        }
    }
}

/// The real servers. Dropping it ends them.
#[derive(Debug)]
pub struct Real {
    /// Kept for its end.
    children: Vec<Child>,
    pub served: Vec<Served>,
    pub viewer: Option<Secret>,
    pub gateway: Option<Secret>,
}

fn beside(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Where what is installed is kept: beside the folder that this program was built into.
pub fn cache() -> Result<PathBuf> {
    let this = std::env::current_exe().context("the path of evo-load")?;
    let built = this.ancestors().find(|folder| folder.join("CACHEDIR.TAG").is_file());
    Ok(built.unwrap_or(&std::env::temp_dir().join("evo-gate")).join("tmp"))
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0").context("a free port")?.local_addr()?.port())
}

/// Waits until something listens there.
fn listens(child: &mut Child, port: u16, stop: &Stop) -> Result<()> {
    let step = Duration::from_millis(50);
    for _ in 0..PATIENCE.as_millis() / step.as_millis() {
        stop.check()?;
        child.check()?;
        if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return Ok(());
        }
        std::thread::sleep(step);
    }
    bail!("it does not listen after {PATIENCE:?}: {}", child.output())
}

impl Real {
    /// Starts httpbin, Jupyter, Kinto and, given its program, Evo. What is missing is said and left out.
    pub fn start(evo: Option<&Path>, folder: &Path, stop: &Stop) -> Result<Self> {
        let mut real =
            Self { children: Vec::new(), served: Vec::new(), viewer: None, gateway: None };
        if Python::is_installed() {
            let python = Python::with_requirements(
                &cache()?,
                "gate",
                &beside("gate/requirements.txt"),
                None,
            );
            real.httpbin(&python, folder)?;
            real.jupyter(&python, folder, stop)?;
            real.kinto(&python, folder)?;
        } else {
            say(
                "python3 is missing (Debian: apt-get install python3-venv): httpbin, Jupyter and Kinto are left out",
            );
        }
        match evo {
            Some(program) => real.evo(program, folder, stop)?,
            None => say(
                "Evo's own documents are left out: no `evo` beside this program; build it, or name one with --binary FILE",
            ),
        }
        Ok(real)
    }

    fn httpbin(&mut self, python: &Python, folder: &Path) -> Result<()> {
        let (child, base) = script("httpbin", "gate/httpbin_document.py", python, folder)?;
        let mut source = SourceConfig::openapi("httpbin", format!("{base}/spec.json"));
        source.base_url = Some(base.clone());
        self.children.push(child);
        self.served.push(Served { group: Group::Real, source, base });
        Ok(())
    }

    /// Jupyter's document names a path and gives no example of one; the file that it is tried with is
    /// written into it.
    fn jupyter(&mut self, python: &Python, folder: &Path, stop: &Stop) -> Result<()> {
        let port = free_port()?;
        let root = folder.join("jupyter");
        fs::create_dir_all(&root)?;
        fs::write(root.join("notes.txt"), "some notes\n")?;
        let mut command = Command::new(python.program("python"));
        command
            .args(["-B", "-m", "jupyter_server", "--no-browser", "--allow-root"])
            .arg(format!("--ServerApp.port={port}"))
            .arg("--ServerApp.port_retries=0")
            .arg("--ServerApp.ip=127.0.0.1")
            .arg("--IdentityProvider.token=")
            .arg("--ServerApp.disable_check_xsrf=True")
            .arg(format!("--ServerApp.root_dir={}", root.display()))
            .env("HOME", folder)
            .env("JUPYTER_RUNTIME_DIR", folder.join("jupyter-runtime"))
            .current_dir(&root);
        let mut child = Child::start("jupyter", &command, folder)?;
        listens(&mut child, port, stop)?;
        let text =
            fs::read_to_string(python.package("jupyter_server").join("services/api/api.yaml"))?;
        let with_example = text.replacen(
            "    description: file path\n    type: string\n",
            "    description: file path\n    type: string\n    default: notes.txt\n",
            1,
        );
        let document = folder.join("jupyter.yaml");
        fs::write(&document, with_example)?;
        let base = format!("http://127.0.0.1:{port}");
        let mut source = SourceConfig::openapi("jupyter", document.display().to_string());
        source.base_url = Some(base.clone());
        self.children.push(child);
        self.served.push(Served { group: Group::Real, source, base });
        Ok(())
    }

    fn kinto(&mut self, python: &Python, folder: &Path) -> Result<()> {
        let (child, address) = script("kinto", "gate/kinto_server.py", python, folder)?;
        let base = format!("{address}/v1");
        let mut source = SourceConfig::openapi("kinto", format!("{address}/document.json"));
        source.base_url = Some(base.clone());
        source.auth_ref = Some("GATE_LOGIN".to_owned());
        source.allow_env = vec!["GATE_LOGIN".to_owned()];
        self.children.push(child);
        self.served.push(Served { group: Group::Real, source, base });
        Ok(())
    }

    /// A whole Evo, that has gone through its first cycle, so that there is something to read.
    fn evo(&mut self, program: &Path, folder: &Path, stop: &Stop) -> Result<()> {
        let home = folder.join("evo");
        let data = home.join("data");
        fs::create_dir_all(&home)?;
        let mut command = Command::new(program);
        command.args(["up", "--king-port", "0", "--gateway-port", "0"]).current_dir(&home);
        for variable in crate::config::variables_of_evo() {
            command.env_remove(variable);
        }
        command.env("HOME", &home).env("EVO_HOME", &data).env("EVO_LOG_DIR", home.join("logs"));
        let mut child = Child::start("evo", &command, folder)?;
        let read = |name: &str| fs::read_to_string(data.join(name)).unwrap_or_default();
        let step = Duration::from_millis(100);
        let mut instance = Value::Null;
        for _ in 0..PATIENCE.as_millis() / step.as_millis() {
            stop.check()?;
            child.check()?;
            instance = serde_json::from_str(&read("instance.json")).unwrap_or_default();
            if instance.is_object() {
                break;
            }
            std::thread::sleep(step);
        }
        let tokens = read("tokens.toml");
        let token = |scope: &str| {
            let line = tokens.lines().find_map(|line| line.strip_prefix(&format!("{scope} = ")));
            line.map(|value| Secret::new(value.trim().trim_matches('"')))
        };
        (self.viewer, self.gateway) = (token("viewer"), token("gateway"));
        for (name, location, key) in
            [("evo-king", KING_LOCATION, "king"), ("evo-gateway", GATEWAY_LOCATION, "gateway")]
        {
            let base =
                instance[key].as_str().with_context(|| format!("{key} did not start"))?.to_owned();
            let source = SourceConfig::openapi(name, location);
            self.served.push(Served { group: Group::Real, source, base });
        }
        self.children.push(child);
        Ok(())
    }
}

/// Starts a server that is a script of ours, and reads its address.
fn script(
    name: &'static str,
    file: &str,
    python: &Python,
    folder: &Path,
) -> Result<(Child, String)> {
    let mut command = Command::new(python.program("python"));
    command.args(["-u", "-B"]).arg(beside(file));
    let (child, line) = Child::start_and_read_line(name, &command, folder)?;
    let base = line.rsplit(' ').next().unwrap_or_default().to_owned();
    ensure!(base.starts_with("http://"), "{name} said {line:?}: {}", child.output());
    Ok((child, base))
}

/// A mock that serves one document. Dropping it ends it.
#[derive(Debug)]
pub struct Mock {
    _child: Child,
    pub served: Served,
}

/// The mock's program and the documents for it; none, said on standard error, where npm is missing.
pub fn documents() -> Result<Option<(PathBuf, Vec<PathBuf>)>> {
    let folder = cache()?.join("node");
    let wanted = fs::read_to_string(beside("gate/package.json"))?;
    let program = folder.join("node_modules/.bin/prism");
    let noted = folder.join("installed.json");
    if fs::read_to_string(&noted).unwrap_or_default() != wanted || !program.is_file() {
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("package.json"), &wanted)?;
        let npm = Command::new("npm")
            .args(["install", "--no-fund", "--no-audit", "--silent"])
            .current_dir(&folder)
            .output();
        match npm {
            Ok(output) if output.status.success() => fs::write(&noted, &wanted)?,
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr);
                say(&format!(
                    "prism can't be installed, so only real servers count: {}",
                    said.trim()
                ));
                return Ok(None);
            }
            Err(error) => {
                say(&format!("npm is missing ({error}), so only real servers count"));
                return Ok(None);
            }
        }
    }
    let examples = folder.join("node_modules/@readme/oas-examples");
    let mut found = Vec::new();
    for version in ["3.1/json", "3.0/json", "2.0/json"] {
        let mut files: Vec<PathBuf> = fs::read_dir(examples.join(version))?
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
            .collect();
        files.sort();
        let stem =
            |path: &PathBuf| path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        for path in files {
            let again = found.iter().any(|other| stem(other) == stem(&path));
            if !again && !LEFT_OUT.iter().any(|left_out| stem(&path).contains(left_out)) {
                found.push(path);
            }
        }
    }
    Ok(Some((program, found)))
}

impl Mock {
    /// Serves a document. Every operation of it may be called.
    pub fn start(program: &Path, document: &Path, folder: &Path, stop: &Stop) -> Result<Self> {
        let port = free_port()?;
        let mut command = Command::new(program);
        command
            .args([
                "mock",
                "--host",
                "127.0.0.1",
                "--multiprocess=false",
                "--verboseLevel",
                "fatal",
            ])
            .arg("--port")
            .arg(port.to_string())
            .arg(document)
            .env("HOME", folder);
        let mut child = Child::start("prism", &command, folder)?;
        listens(&mut child, port, stop)?;
        let stem = document.file_stem().unwrap_or_default().to_string_lossy().to_lowercase();
        let name: String = stem
            .chars()
            .map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '-' })
            .take(32)
            .collect();
        let base = format!("http://127.0.0.1:{port}");
        let mut source =
            SourceConfig::openapi(name.trim_matches('-'), document.display().to_string());
        source.base_url = Some(base.clone());
        source.auth_ref = Some("GATE_TOKEN".to_owned());
        source.allow_env = vec!["GATE_TOKEN".to_owned()];
        Ok(Self { _child: child, served: Served { group: Group::Mock, source, base } })
    }
}
