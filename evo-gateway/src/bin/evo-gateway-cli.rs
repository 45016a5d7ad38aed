//! The binary `evo-gateway-cli`: the gateway's virtual keys.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use evo_gateway::cli::auth;

/// Manages the virtual keys of evo-gateway.
#[derive(Debug, Parser)]
#[command(name = "evo-gateway-cli", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make, list and revoke virtual keys.
    #[command(subcommand)]
    Auth(auth::Command),
}

#[expect(clippy::print_stderr, reason = "the last word of a command")]
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let Command::Auth(command) = Cli::parse().command;
    match auth::run(command).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let code = error.exit_code();
            eprintln!("evo-gateway-cli: {:#}", anyhow::Error::new(error));
            ExitCode::from(code)
        }
    }
}
