//! `sessions.toml`: whether there are sessions, and which commands they may run.
//!
//! It is a file of its own because the gateway's configuration can be changed over HTTP: which programs
//! may be started on a machine is decided by who can write its files.

use std::{collections::BTreeMap, path::PathBuf};

use evo_common::config::load::{Fault, Validate};
use serde::Deserialize;

/// The file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct SessionsConfig {
    /// The switch. Without it, or without the file, there are no sessions.
    pub enabled: bool,
    /// How many may run at the same time.
    #[serde(default = "most")]
    pub max: usize,
    /// After how many seconds without input or output one is ended.
    #[serde(default = "idle")]
    pub idle_seconds: u64,
    /// What may be run, by name.
    #[serde(default)]
    pub commands: BTreeMap<String, SessionCommand>,
}

/// One command.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct SessionCommand {
    /// The program and its arguments. No shell reads them.
    pub command: Vec<String>,
    /// Where it runs; the user's own folder unless it says another.
    #[serde(default)]
    pub folder: Option<PathBuf>,
    /// Further variables for it.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
}

fn most() -> usize {
    8
}

fn idle() -> u64 {
    600
}

impl Validate for SessionsConfig {
    fn validate(&self, faults: &mut Vec<Fault>) {
        if !(1..=64).contains(&self.max) {
            faults.push(Fault::new("max", "use a number from 1 to 64"));
        }
        if !(1..=86_400).contains(&self.idle_seconds) {
            faults.push(Fault::new("idle_seconds", "use a number from 1 to 86400"));
        }
        if self.enabled && self.commands.is_empty() {
            let why = "names none, so no session could run anything: add [commands.NAME]";
            faults.push(Fault::new("commands", why));
        }
        for (name, command) in &self.commands {
            let at = format!("commands.{name}.command");
            let legal = |letter: char| letter.is_ascii_alphanumeric() || "-_".contains(letter);
            if name.is_empty() || name.len() > 32 || !name.chars().all(legal) {
                let why = "a name has up to 32 letters, digits, `-` and `_`";
                faults.push(Fault::new(format!("commands.{name}"), why));
            }
            if command.command.first().is_none_or(String::is_empty) {
                faults.push(Fault::new(at, "is empty: write the program and its arguments"));
            }
        }
    }
}
