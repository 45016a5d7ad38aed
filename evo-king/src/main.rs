//! The binary `evo-king`.

use std::process::ExitCode;

use clap::Parser as _;
use evo_common::{logging, runtime::shutdown_on_signals};

#[tokio::main]
async fn main() -> ExitCode {
    let args = evo_king::cli::Args::parse();
    let (_log, otel) = logging::init_service_logging("evo-king");
    let result = match shutdown_on_signals() {
        Ok(shutdown) => evo_king::cli::run(args, shutdown, otel.as_ref()).await,
        Err(error) => {
            tracing::error!("Signals can't be handled: {error}");
            return ExitCode::FAILURE;
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            tracing::error!("{failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}
