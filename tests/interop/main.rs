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

use std::path::{Path, PathBuf};

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
