//! `evo child` and `evo-king child`: the first moment of a program that king starts, and the guard of
//! these programs.

use std::ffi::OsString;

/// Become another program that ends with the process that started this one, or guard such programs.
/// Used by king.
#[derive(Debug, Clone, clap::Args)]
pub struct ChildArgs {
    /// The process that started this one.
    #[arg(long, value_name = "PID", required_unless_present = "guard")]
    pub parent: Option<i32>,
    /// End what carries this mark when stdin is closed.
    #[arg(long, value_name = "MARK", conflicts_with_all = ["parent", "command"])]
    pub guard: Option<String>,
    /// The program and its arguments.
    #[arg(last = true, required_unless_present = "guard")]
    pub command: Vec<OsString>,
}

impl ChildArgs {
    /// Guards, or becomes the program; the error says why it can't.
    pub fn run(&self) -> Result<(), String> {
        match (&self.guard, self.parent) {
            (Some(mark), _) => {
                crate::child::guard(mark);
                Ok(())
            }
            (None, Some(parent)) => Err(crate::child::become_program(parent, &self.command)),
            (None, None) => Err("neither --parent nor --guard was given".to_owned()),
        }
    }
}
