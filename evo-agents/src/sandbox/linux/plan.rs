//! What the runner, the warden and the cell tell each other.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::super::{
    policy::{Layer, Limits},
    way::{Active, Isolation, Limit},
};

/// One execution. Paths are those of the host.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Plan {
    pub(super) isolation: Isolation,
    /// Layers that are left out.
    pub(super) off: Vec<Layer>,
    /// The port inside at which the proxy is to be reached; no network without one.
    pub(super) proxy_port: Option<u16>,
    /// The program and its arguments.
    pub(super) command: Vec<String>,
    /// Its whole environment.
    pub(super) environment: BTreeMap<String, String>,
    pub(super) readable: Vec<PathBuf>,
    pub(super) executable: Vec<PathBuf>,
    /// Whether the address space says nothing about the memory.
    pub(super) reserves_memory: bool,
    pub(super) package: PathBuf,
    /// A folder of this execution only, with `root/` and `scratch/`.
    pub(super) place: PathBuf,
    pub(super) limits: Limits,
}

impl Plan {
    pub(super) fn has(&self, layer: Layer) -> bool {
        !self.off.contains(&layer)
    }

    /// Whether it has a root folder of its own.
    pub(super) fn has_root(&self) -> bool {
        self.isolation.has_namespaces() && self.has(Layer::PrivateRoot)
    }

    /// Whether it sees its own processes only.
    pub(super) fn has_processes(&self) -> bool {
        self.isolation.has_namespaces() && self.has(Layer::OwnProcesses)
    }
}

/// What the cell says before it becomes the code.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum FromCell {
    /// These layers are in place.
    Ready(Vec<Active>),
    /// One could not be put in place.
    Failed(Failure),
}

/// A layer that could not be put in place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{layer}: {message}", layer = layer.map_or("start", Layer::name))]
pub(super) struct Failure {
    pub(super) layer: Option<Layer>,
    pub(super) message: String,
}

impl Failure {
    pub(super) fn of(layer: Layer) -> impl Fn(std::io::Error) -> Self {
        move |error| Self { layer: Some(layer), message: error.to_string() }
    }

    pub(super) fn start(error: impl std::fmt::Display) -> Self {
        Self { layer: None, message: error.to_string() }
    }
}

/// What the warden says to the runner.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum FromWarden {
    /// The socket beside this message accepts what the code sends to its proxy.
    Proxy,
    /// The code runs; these layers are in place.
    Running(Vec<Active>),
    /// It does not run.
    Failed(Failure),
    /// It has ended, and nothing of it is left.
    Ended(Ending),
}

/// How the code ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Ending {
    /// Exit code.
    pub(super) code: Option<i32>,
    /// Signal that ended it.
    pub(super) signal: Option<i32>,
    /// The limit for which it was ended.
    pub(super) limit: Option<Limit>,
    /// Processor time of all its processes.
    pub(super) cpu_ms: u64,
}
