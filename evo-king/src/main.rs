//! The binary `evo-king`.

use std::process::ExitCode;

use clap::Parser as _;
use evo_common::runtime::shutdown_on_signals;

#[tokio::main]
async fn main() -> ExitCode {
    let args = evo_king::cli::Args::parse();
    let result = match shutdown_on_signals() {
        Ok(shutdown) => Box::pin(evo_king::cli::run(args, shutdown)).await,
        Err(error) => {
            fail(&format!("signals can't be handled: {error}"));
            return ExitCode::FAILURE;
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !matches!(failure, evo_king::cli::Failure::Told) {
                fail(&failure.to_string());
            }
            ExitCode::from(failure.exit_code())
        }
    }
}

#[expect(clippy::print_stderr, reason = "this is a command line")]
fn fail(reason: &str) {
    eprintln!("error: {reason}");
}
