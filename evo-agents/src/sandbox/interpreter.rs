//! The programs that run skills' code, and what of the system they need to read.

use std::{
    collections::BTreeSet,
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use serde::{Deserialize, Serialize};

/// Shared libraries, wherever systems keep them.
const LIBRARIES: [&str; 6] =
    ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/nix/store"];
/// Files that programs ask for: where libraries are, what time it is, which certificates are good.
const SHARED: [&str; 9] = [
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/usr/share/zoneinfo",
    "/etc/ssl/certs",
    "/etc/ssl/cert.pem",
    "/etc/ssl/openssl.cnf",
    "/etc/pki/tls/certs",
    "/etc/pki/ca-trust/extracted",
    "/usr/share/ca-certificates",
];
/// How long an interpreter may take to describe itself.
const PATIENCE: Duration = Duration::from_secs(10);
/// Says which program really runs, where it has its library, and where it looks for modules.
const DESCRIBE: &str = "import json, os, sys; print(json.dumps({'program': os.path.realpath(sys.executable), 'prefix': sys.base_prefix, 'modules': sys.path}))";

/// An interpreter that runs code, with everything that it has to read for that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interpreter {
    /// The program itself, not a link or a script that stands for it.
    pub program: PathBuf,
    /// Arguments before the entry.
    pub arguments: Vec<String>,
    /// Files and folders that it reads.
    pub readable: Vec<PathBuf>,
    /// Files of these that are executed: the program and the system's loader.
    pub executable: Vec<PathBuf>,
    /// Whether it takes address space that it never uses, so that this says nothing.
    pub reserves_memory: bool,
}

/// Why there is no interpreter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is none that skills can be run with.
    #[error("unknown interpreter {0:?}: use python3 or node")]
    Unknown(String),
    /// It is not installed.
    #[error("{name} was not found in PATH; install it, or name it with {variable}")]
    Missing {
        /// Its name.
        name: &'static str,
        /// The variable that names it.
        variable: &'static str,
    },
    /// It is there and does not work.
    #[error("{} does not work: {reason}", program.display())]
    Broken {
        /// The program.
        program: PathBuf,
        /// What happened.
        reason: String,
    },
}

/// Which language code is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Language {
    /// Python 3.
    Python3,
    /// JavaScript, run by Node.js.
    Node,
}

impl Language {
    /// The language of an interpreter's name in a package.
    pub fn parse(name: &str) -> Result<Self, Error> {
        match name {
            "python3" | "python" => Ok(Self::Python3),
            "node" => Ok(Self::Node),
            other => Err(Error::Unknown(other.to_owned())),
        }
    }

    /// The name of its program.
    pub const fn program(self) -> &'static str {
        match self {
            Self::Python3 => "python3",
            Self::Node => "node",
        }
    }

    /// The environment variable that names its program.
    pub const fn variable(self) -> &'static str {
        match self {
            Self::Python3 => "EVO_SANDBOX_PYTHON",
            Self::Node => "EVO_SANDBOX_NODE",
        }
    }
}

/// What an interpreter says about itself.
#[derive(Deserialize)]
struct Description {
    program: PathBuf,
    prefix: PathBuf,
    modules: Vec<PathBuf>,
}

/// Finds the interpreter of a language: the program that is named, else the first one in `path`.
pub async fn find(
    language: Language,
    named: Option<&Path>,
    path: &str,
) -> Result<Interpreter, Error> {
    let (name, variable) = (language.program(), language.variable());
    let found = named.map(Path::to_owned).or_else(|| in_path(name, path));
    let found = found.ok_or(Error::Missing { name, variable })?;
    match language {
        Language::Python3 => python(&found, path).await,
        Language::Node => node(&found),
    }
}

fn in_path(name: &str, path: &str) -> Option<PathBuf> {
    let folders = path.split(':').filter(|folder| folder.starts_with('/'));
    folders.map(|folder| Path::new(folder).join(name)).find(|file| file.is_file())
}

async fn python(found: &Path, path: &str) -> Result<Interpreter, Error> {
    // What is found may be a script or a link of a version manager; it says what it stands for.
    let program = describe(found, path).await?.program;
    let about = describe(&program, path).await?;
    let mut readable: Vec<PathBuf> = about.modules;
    readable.push(about.prefix.join("lib"));
    let arguments = ["-E", "-s", "-B", "-u"].map(str::to_owned).to_vec();
    Ok(interpreter(program, arguments, readable, false))
}

fn node(found: &Path) -> Result<Interpreter, Error> {
    let broken = |reason: String| Error::Broken { program: found.to_owned(), reason };
    let program = fs::canonicalize(found).map_err(|error| broken(error.to_string()))?;
    if loader_of(&program).is_none() {
        return Err(broken(format!(
            "it is no program for this system; name the real one with {}",
            Language::Node.variable()
        )));
    }
    let arguments = ["--jitless", "--max-semi-space-size=4"].map(str::to_owned).to_vec();
    Ok(interpreter(program, arguments, Vec::new(), true))
}

fn interpreter(
    program: PathBuf,
    arguments: Vec<String>,
    more: Vec<PathBuf>,
    reserves_memory: bool,
) -> Interpreter {
    let executable: Vec<PathBuf> =
        std::iter::once(program.clone()).chain(loader_of(&program)).collect();
    let is_needed = |path: &&&str| !path.starts_with("/nix") || program.starts_with("/nix");
    let readable = LIBRARIES
        .iter()
        .chain(&SHARED)
        .filter(is_needed)
        .map(PathBuf::from)
        .chain(more)
        .chain(executable.iter().cloned())
        .filter(|path| path.is_absolute() && path.exists() && path.parent().is_some())
        .collect();
    Interpreter {
        program,
        arguments,
        readable: without_nested(&readable),
        executable,
        reserves_memory,
    }
}

/// The paths that lie in no other one of them.
fn without_nested(paths: &BTreeSet<PathBuf>) -> Vec<PathBuf> {
    let lies_in_another =
        |path: &PathBuf| paths.iter().any(|other| other != path && path.starts_with(other));
    paths.iter().filter(|path| !lies_in_another(path)).cloned().collect()
}

async fn describe(program: &Path, path: &str) -> Result<Description, Error> {
    let broken = |reason: String| Error::Broken { program: program.to_owned(), reason };
    let run = tokio::process::Command::new(program)
        .args(["-E", "-s", "-B", "-c", DESCRIBE])
        .env_clear()
        .env("PATH", path)
        .current_dir("/")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(PATIENCE, run)
        .await
        .map_err(|_| broken(format!("it did not answer within {} s", PATIENCE.as_secs())))?
        .map_err(|error| broken(error.to_string()))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        return Err(broken(format!("{}: {}", output.status, text.trim())));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| broken(error.to_string()))
}

/// The loader that a program of 64 bits names, which the system executes in its place.
fn loader_of(program: &Path) -> Option<PathBuf> {
    let mut start = Vec::new();
    fs::File::open(program).ok()?.take(64 * 1024).read_to_end(&mut start).ok()?;
    let number = |at: usize, bytes: usize| -> Option<usize> {
        let field = start.get(at..at.checked_add(bytes)?)?;
        let value = field.iter().rev().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
        usize::try_from(value).ok()
    };
    // 64 bits, the lowest byte first: all systems that have the other layers.
    if start.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let (table, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
    let names_loader = 3;
    let entry = (0..count)
        .map(|index| table + index * size)
        .find(|entry| number(*entry, 4) == Some(names_loader))?;
    let (at, length) = (number(entry + 8, 8)?, number(entry + 32, 8)?);
    let name = start.get(at..at.checked_add(length)?)?.strip_suffix(b"\0")?;
    Some(PathBuf::from(std::str::from_utf8(name).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_interpreters_are_used() {
        assert_eq!(Language::parse("python3"), Ok(Language::Python3));
        let error = Language::parse("bash").unwrap_err().to_string();
        assert!(error.contains("python3"), "{error}");
    }

    #[test]
    fn nested_folders_are_named_once() {
        let paths = ["/usr/lib", "/usr/lib/python3", "/usr/library"].map(PathBuf::from).into();
        assert_eq!(without_nested(&paths), ["/usr/lib", "/usr/library"].map(PathBuf::from));
    }

    #[tokio::test]
    async fn a_missing_interpreter_says_how_to_name_one() {
        let error = find(Language::Python3, None, "/nowhere").await.unwrap_err().to_string();
        assert!(error.contains("EVO_SANDBOX_PYTHON"), "{error}");
        let program = Path::new("/proc/self/status");
        let error = find(Language::Node, Some(program), "").await.unwrap_err().to_string();
        assert!(error.contains("EVO_SANDBOX_NODE"), "{error}");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_loader_of_a_program_is_read() {
        let own = fs::canonicalize("/proc/self/exe").unwrap();
        assert!(loader_of(&own).is_none_or(|loader| loader.is_file()));
        assert_eq!(loader_of(Path::new("/proc/self/status")), None);
    }
}
