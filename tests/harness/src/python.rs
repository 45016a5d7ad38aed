//! Python programs from PyPI as the other side of a test.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Command,
};

use crate::Process;

/// A virtual environment with the packages that the tests need.
#[derive(Debug)]
pub struct Python {
    folder: PathBuf,
}

impl Python {
    /// Whether there is a Python at all.
    pub fn is_installed() -> bool {
        Command::new("python3").arg("--version").output().is_ok()
    }

    /// The environment of this name below `target` (`env!("CARGO_TARGET_TMPDIR")`) that holds these
    /// requirements; made once, however many tests ask at the same time. `alone` names a file of
    /// packages that are installed without what they depend on.
    pub fn with_requirements(
        target: &Path,
        name: &str,
        requirements: &Path,
        alone: Option<&Path>,
    ) -> Self {
        let read = |path: &Path| {
            std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
        };
        let wanted = format!("{}\n{}", read(requirements), alone.map(read).unwrap_or_default());
        let folder = target.join("python").join(name);
        std::fs::create_dir_all(&folder).expect("a folder below cargo's target folder");
        let lock = File::create(folder.join("lock")).expect("a lock file");
        // Held until this function ends.
        lock.lock().expect("a file lock");
        let python = Self { folder: folder.join("venv") };
        let done = folder.join("installed.txt");
        if std::fs::read_to_string(&done).is_ok_and(|installed| installed == wanted) {
            return python;
        }
        if python.folder.exists() {
            std::fs::remove_dir_all(&python.folder).expect("an old environment can be removed");
        }
        let mut venv = Command::new("python3");
        venv.args(["-m", "venv"]).arg(&python.folder);
        must(venv, "needs python3 with venv (Debian: apt-get install python3-venv)");
        let alone = alone.map(|file| (file, Some("--no-deps")));
        for (file, more) in std::iter::once((requirements, None)).chain(alone) {
            let mut pip = Command::new(python.program("pip"));
            pip.args(["install", "--quiet", "--disable-pip-version-check"]);
            pip.args(more).arg("--requirement").arg(file);
            must(pip, "needs a Python package index");
        }
        std::fs::write(&done, wanted).expect("a note of what is installed");
        python
    }

    /// Starts a script.
    pub fn start(&self, script: &Path, args: &[&str]) -> Process {
        let mut command = Command::new(self.program("python"));
        // No cache of compiled modules beside the sources.
        command.args(["-u", "-B"]).arg(script).args(args);
        Process::start(command)
    }

    /// The folder of an installed package.
    pub fn package(&self, name: &str) -> PathBuf {
        let code = format!(
            "import importlib.util as u; print(u.find_spec({name:?}).submodule_search_locations[0])"
        );
        let output = Command::new(self.program("python"))
            .args(["-c", &code])
            .output()
            .expect("python of the environment starts");
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        PathBuf::from(String::from_utf8_lossy(&output.stdout).trim())
    }

    /// A program of the environment: `python`, `pip`, or what a package installed.
    pub fn program(&self, name: &str) -> PathBuf {
        self.folder.join("bin").join(name)
    }
}

fn must(mut command: Command, hint: &str) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}; {hint}"));
    assert!(
        output.status.success(),
        "{command:?} failed ({hint}): {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
