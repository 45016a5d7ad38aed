//! `evo child` and `evo-king child`: the first moment of a program that king starts.

use std::ffi::OsString;

/// Become another program that ends with the process that started this one. Used by king.
#[derive(Debug, Clone, clap::Args)]
pub struct ChildArgs {
    /// The process that started this one.
    #[arg(long, value_name = "PID")]
    pub parent: i32,
    /// The program and its arguments.
    #[arg(last = true, required = true)]
    pub command: Vec<OsString>,
}

impl ChildArgs {
    /// Becomes the program. Returns only when it can't, and says why.
    pub fn become_program(&self) -> String {
        crate::child::become_program(self.parent, &self.command)
    }
}
