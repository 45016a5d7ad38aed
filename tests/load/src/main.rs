//! The binary `evo-load`: what the gateway costs, measured beside nginx, what its translations cost,
//! what king costs, what the scan of skills and the sandbox of their code cost, beside what the
//! machine's disk and loopback can do, and how often the gate is wrong about a skill.

mod bench;
mod chaos;
mod child;
mod cli;
mod config;
mod evolve;
mod gate;
mod http;
mod king;
mod load;
mod machine;
mod proc;
mod report;
mod sandbox;
mod scan;
mod scenario;
mod stats;
mod stop;
mod targets;
mod translate;
mod upstream;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    match cli::run(cli::Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            cli::say(&format!("evo-load: {error:#}"));
            if error.is::<stop::Interrupted>() { ExitCode::from(130) } else { ExitCode::FAILURE }
        }
    }
}
