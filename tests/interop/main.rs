//! Evo with programs that nobody here wrote: servers and documents from PyPI, and a Socket.IO
//! client in another language.

#![expect(clippy::unwrap_used, reason = "a test fails best where it stands")]
#![expect(clippy::print_stderr, reason = "a test that is skipped says so")]

mod clients;
mod config;
mod gateway;
mod httpbin;
mod jupyter;
mod matrix;
mod mcp;
mod mcp_servers;
mod programs;
mod sessions;
mod socketio;
mod surface;
mod usage;
mod walk;

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Command,
};

use evo_harness::{Evo, Python};

/// The binary on a fresh folder.
fn evo() -> Evo {
    Evo::new(env!("CARGO_BIN_EXE_evo"))
}

/// A file beside this one.
fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop").join(name)
}

/// The Python environment of most of these tests; `None`, said on stderr, where there is no Python.
fn python() -> Option<Python> {
    let alone = file("requirements-alone.txt");
    environment("main", &file("requirements.txt"), Some(&alone))
}

/// The environment of clients that want other versions of the SDKs.
fn frameworks() -> Option<Python> {
    environment("frameworks", &file("requirements-frameworks.txt"), None)
}

fn environment(name: &str, requirements: &Path, alone: Option<&Path>) -> Option<Python> {
    if !Python::is_installed() {
        eprintln!("skipped: python3 is missing (Debian: apt-get install python3-venv)");
        return None;
    }
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    Some(Python::with_requirements(target, name, requirements, alone))
}

/// A folder with packages of npm, installed once below cargo's target folder; `None`, said on stderr,
/// where they cannot be had.
fn npm(name: &str, packages: &[&str]) -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&folder).unwrap();
    let lock = File::create(folder.join("lock")).unwrap();
    // Held until this function ends.
    lock.lock().unwrap();
    let wanted = packages.join(" ");
    let done = folder.join("installed.txt");
    if std::fs::read_to_string(&done).is_ok_and(|installed| installed == wanted) {
        return Some(folder);
    }
    let mut npm = Command::new("npm");
    npm.args(["install", "--no-audit", "--no-fund", "--prefix"]).arg(&folder);
    let problem = match npm.args(packages).output() {
        Ok(output) if output.status.success() => {
            std::fs::write(&done, wanted).unwrap();
            return Some(folder);
        }
        Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
        Err(error) => format!("npm: {error}"),
    };
    let last = problem.lines().last().unwrap_or_default();
    eprintln!("skipped: {wanted} cannot be installed: {last}");
    None
}
