//! The binary `evo-gateway`.

use std::process::ExitCode;

use clap::Parser;
use evo_gateway::cli;

/// The LLM gateway of Evo.
#[derive(Debug, Parser)]
#[command(name = "evo-gateway", version)]
struct Cli {
    #[command(flatten)]
    args: cli::Args,
}

#[tokio::main]
#[expect(clippy::print_stderr, reason = "the last word of a command")]
async fn main() -> ExitCode {
    match cli::run(Cli::parse().args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let code = error.exit_code();
            eprintln!("evo-gateway: {:#}", anyhow::Error::new(error));
            ExitCode::from(code)
        }
    }
}
