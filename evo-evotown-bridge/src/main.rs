//! The binary `evo-evotown-bridge`.

use std::process::ExitCode;

use clap::Parser;
use evo_evotown_bridge::cli;

/// Evo's bridge to Evotown.
#[derive(Debug, Parser)]
#[command(name = "evo-evotown-bridge", version)]
struct Cli {
    #[command(flatten)]
    args: cli::Args,
}

fn main() -> ExitCode {
    match cli::run(Cli::parse().args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(stop) => {
            #[expect(clippy::print_stderr, reason = "this is a command line")]
            {
                eprintln!("error: {stop}");
            }
            ExitCode::from(cli::EXIT_CODE)
        }
    }
}
