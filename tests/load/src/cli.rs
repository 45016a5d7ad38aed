//! The command line.

use std::{
    ffi::OsString,
    io::{self, Write as _},
    net::SocketAddr,
    path::PathBuf,
    process::ExitCode,
};

use anyhow::{Context as _, Result};
use clap::{Args, Parser, Subcommand};

use crate::{bench, child, stop::Stop, targets::Kind, upstream};

/// Measures Evo's services under load. Linux only.
#[derive(Debug, Parser)]
#[command(name = "evo-load", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Gateway(GatewayArgs),
    Upstream(UpstreamArgs),
    /// Becomes PROGRAM, which ends when its parent ends.
    #[command(hide = true)]
    Child {
        #[arg(last = true, required = true)]
        program: Vec<OsString>,
    },
}

/// Measures evo-gateway beside nginx and beside no proxy at all, on loopback.
///
/// Every round starts a mock provider, nginx (two workers, connections kept open) and evo-gateway
/// (tokens asked for, log on) afresh and measures them one after the other: requests per second
/// at 64 connections, latency at fixed rates of 200 and 1000 per second, chunks per second of 50
/// streams, first chunk and gaps of 500 streams paced at 20 ms, processor time per request, and
/// memory. Nothing is asserted. It ends every process that it starts.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cargo build --release -p evo-gateway && cargo run --release -p evo-load -- gateway
  evo-load gateway --json >figures.json      the table goes to standard error
  evo-load gateway --quick                   does it run at all; the figures mean little
  evo-load gateway --binary target/release/evo --rounds 5 --seconds 10
  evo-load gateway --targets direct,nginx    without the gateway

Exit codes: 0 all was measured, 1 it failed, 2 wrong arguments, 3 nginx is not installed and was
left out, 4 some requests failed (the table says what happened first), 130 interrupted.")]
pub struct GatewayArgs {
    /// Writes every figure to standard output as JSON; the table goes to standard error.
    #[arg(long)]
    json: bool,
    /// Rounds; figures are the median over them [default: 3].
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..))]
    rounds: Option<u16>,
    /// Counted seconds of each measurement [default: 5].
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u16).range(1..=600))]
    seconds: Option<u16>,
    /// One round of one second, to see that everything works.
    #[arg(long)]
    quick: bool,
    /// The gateway: evo-gateway or evo [default: beside this program].
    #[arg(long, value_name = "FILE")]
    pub binary: Option<PathBuf>,
    /// What to measure; `direct` always is.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        value_name = "LIST",
        default_value = "direct,nginx,gateway"
    )]
    pub targets: Vec<Kind>,
}

impl GatewayArgs {
    /// How many rounds.
    pub fn rounds(&self) -> usize {
        self.rounds.unwrap_or(if self.quick { 1 } else { 3 }).into()
    }

    /// How long each measurement counts.
    pub fn seconds(&self) -> f64 {
        self.seconds.unwrap_or(if self.quick { 1 } else { 5 }).into()
    }
}

/// Serves the mock provider alone, for measurements by other programs.
///
/// It answers every request at once with the same chat completion; the model `stream-100-20` is
/// answered with 100 chunks, 20 ms apart.
#[derive(Debug, Args)]
#[command(after_help = "Example: evo-load upstream --listen 127.0.0.1:9000")]
struct UpstreamArgs {
    /// Where to listen; port 0 takes a free one. The address is printed.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
}

/// Does what the command line says.
pub fn run(cli: Cli) -> Result<ExitCode> {
    match cli.command {
        Command::Gateway(args) => gateway(&args),
        Command::Upstream(args) => upstream::serve(args.listen).map(|()| ExitCode::SUCCESS),
        Command::Child { program } => Err(child::become_child(&program)),
    }
}

fn gateway(args: &GatewayArgs) -> Result<ExitCode> {
    let stop = Stop::on_signals().context("can't listen for signals")?;
    let report = bench::run(args, &stop)?;
    if args.json {
        say(&report.table());
        let mut stdout = io::stdout().lock();
        serde_json::to_writer_pretty(&mut stdout, &report).context("standard output")?;
        writeln!(stdout).context("standard output")?;
    } else {
        writeln!(io::stdout(), "{}", report.table()).context("standard output")?;
    }
    Ok(if !report.failures.is_empty() {
        ExitCode::from(4)
    } else if report.missing.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(3)
    })
}

/// Tells people what goes on.
pub fn say(text: &str) {
    // Nobody is left to tell when standard error is closed.
    writeln!(io::stderr(), "{text}").ok();
}
