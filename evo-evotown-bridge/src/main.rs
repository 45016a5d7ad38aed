//! The binary `evo-evotown-bridge`.

use std::process::ExitCode;

use clap::Parser;
use evo_common::runtime::shutdown_on_signals;
use evo_evotown_bridge::cli;

/// Evo's bridge to Evotown.
#[derive(Debug, Parser)]
#[command(name = "evo-evotown-bridge", version)]
struct Cli {
    #[command(flatten)]
    args: cli::Args,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Cli::parse().args;
    let result = match shutdown_on_signals() {
        Ok(shutdown) => cli::run(args, shutdown).await,
        Err(error) => {
            fail(&format!("signals can't be handled: {error}"));
            return ExitCode::FAILURE;
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            fail(&error.whole());
            ExitCode::from(error.exit_code())
        }
    }
}

#[expect(clippy::print_stderr, reason = "this is a command line")]
fn fail(reason: &str) {
    eprintln!("error: {reason}");
}
