//! Why a command ends without success, and the exit code that says so.

use std::{fmt, process::ExitCode};

/// Result of a command.
pub(crate) type Result<T, E = Stop> = std::result::Result<T, E>;

/// Why a command ends without success.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The command line, a file or a variable must be changed first: exit code 2.
    Usage(anyhow::Error),
    /// Something went wrong: exit code 1.
    Failed(anyhow::Error),
    /// It has been said already what is wrong: exit code 1.
    Told,
    /// The user interrupted it: exit code 130.
    Interrupted,
}

impl Stop {
    /// The caller must change something first.
    pub(crate) fn usage(message: impl fmt::Display) -> Self {
        Self::Usage(anyhow::anyhow!("{message}"))
    }

    /// Something went wrong.
    pub(crate) fn failed(message: impl fmt::Display) -> Self {
        Self::Failed(anyhow::anyhow!("{message}"))
    }

    /// What a component says with an exit code of its own.
    pub(crate) fn with_code(code: u8, error: anyhow::Error) -> Self {
        if code == 2 { Self::Usage(error) } else { Self::Failed(error) }
    }

    /// Prints the message and gives the exit code.
    #[expect(clippy::print_stderr, reason = "the one place where a command says why it failed")]
    pub(crate) fn report(self) -> ExitCode {
        match self {
            Self::Usage(error) => {
                eprintln!("error: {error:#}");
                ExitCode::from(2)
            }
            Self::Failed(error) => {
                eprintln!("error: {error:#}");
                ExitCode::from(1)
            }
            Self::Told => ExitCode::from(1),
            Self::Interrupted => {
                eprintln!("interrupted");
                ExitCode::from(130)
            }
        }
    }
}

impl From<anyhow::Error> for Stop {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}
