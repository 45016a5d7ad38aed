//! How code is kept apart, what is in place, and which limit it reached.

use serde::{Deserialize, Serialize};

use super::policy::Layer;

/// How the code is kept apart from the rest of the system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Isolation {
    /// Namespaces made with the rights of root, which are given up before the code runs.
    Privileged,
    /// Namespaces inside a user namespace.
    UserNamespace,
    /// No namespaces: Landlock and seccomp alone.
    Plain,
    /// The sandbox of macOS.
    Seatbelt,
}

impl Isolation {
    /// Whether it sees a system of its own.
    pub(super) fn has_namespaces(self) -> bool {
        matches!(self, Self::Privileged | Self::UserNamespace)
    }

    /// Whether code can have network that is filtered.
    pub(super) fn has_network(self) -> bool {
        self != Self::Plain
    }

    /// In words.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Privileged => "namespaces",
            Self::UserNamespace => "namespaces in a user namespace",
            Self::Plain => "Landlock and seccomp without namespaces",
            Self::Seatbelt => "the sandbox of macOS",
        }
    }
}

/// A layer that is in place, and what there is to say about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Active {
    pub(super) layer: Layer,
    pub(super) detail: String,
}

/// A limit that was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Limit {
    /// The time from start to end.
    Wall,
    /// Processor time.
    Cpu,
    /// Memory.
    Memory,
    /// The scratch folder.
    Scratch,
    /// Output.
    Output,
}
