//! The binary `evo`: every part of Evo behind one command.

mod cli;
mod client;
mod commands;
mod config;
mod instance;
mod progress;
mod report;
mod sources;
mod stop;
mod up;

use std::{process::ExitCode, time::Duration};

use clap::Parser as _;

use crate::stop::Stop;

fn main() -> ExitCode {
    // A helper of the sandbox for skills' code is another program altogether.
    if let Some(code) = evo_agents::sandbox::serve_part() {
        return code;
    }
    let cli = cli::Cli::parse();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return Stop::from(anyhow::Error::new(error)).report(),
    };
    let result = runtime.block_on(commands::run(cli.command));
    // Nothing that blocks a thread may hold up the exit.
    runtime.shutdown_timeout(Duration::from_millis(500));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(stop) => stop.report(),
    }
}
