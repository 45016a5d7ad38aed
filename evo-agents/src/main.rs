//! `evo-runner`: one agent of Evo.

use std::process::ExitCode;

fn main() -> ExitCode {
    evo_agents::cli::main()
}
