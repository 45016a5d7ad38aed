//! The binary `evo-gateway`.

use std::process::ExitCode;

use clap::Parser;
use evo_common::{logging, runtime::shutdown_on_signals};
use evo_gateway::cli;

/// The LLM gateway of Evo.
#[derive(Debug, Parser)]
#[command(name = "evo-gateway", version)]
struct Cli {
    #[command(flatten)]
    args: cli::Args,
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let _logs = logging::init_service_logging("evo-gateway");
    let result = match shutdown_on_signals() {
        Ok(shutdown) => cli::run(cli.args, shutdown).await.map_err(|e| (e.exit_code(), e.into())),
        Err(error) => Err((1, anyhow::Error::new(error).context("can't listen for signals"))),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err((code, error)) => {
            tracing::error!("{error:#}");
            ExitCode::from(code)
        }
    }
}
