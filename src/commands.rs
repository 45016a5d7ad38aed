//! What each command does.

mod doctor;
mod health;
mod learn;
mod mcp;
mod runs;
mod session;
mod skill;
mod sources;

use anyhow::Context as _;
use evo_common::{logging, runtime::shutdown_on_signals};

use crate::{
    cli::Command,
    stop::{Result, Stop},
    up,
};

/// Runs one command to its end.
pub(crate) async fn run(command: Command) -> Result<()> {
    match command {
        Command::Up(args) => Box::pin(up::run(args)).await,
        Command::Skill(command) => Box::pin(skill::run(command)).await,
        Command::Learn(args) => Box::pin(learn::run(*args)).await,
        Command::Runs(command) => Box::pin(runs::run(command)).await,
        Command::Sources(command) => Box::pin(sources::run(command)).await,
        Command::Doctor(args) => Box::pin(doctor::run(args)).await,
        Command::Health(args) => Box::pin(health::run(args)).await,
        Command::Mcp(args) => Box::pin(mcp::run(args)).await,
        Command::Child(args) => args.run().map_err(Stop::failed),
        Command::King(args) => {
            let shutdown = shutdown_on_signals().context("can't listen for signals")?;
            let result = Box::pin(evo_king::cli::run(*args, shutdown)).await;
            result.map_err(|error| match error {
                evo_king::cli::Failure::Told => Stop::Told,
                evo_king::cli::Failure::Interrupted => Stop::Interrupted,
                error => Stop::with_code(error.exit_code(), error.into()),
            })
        }
        Command::Runner(args) => {
            let stop = |error: evo_agents::Error| Stop::with_code(error.exit_code(), error.into());
            // A wrong configuration is told before a log file is made.
            let config = args.config().map_err(stop)?;
            let (_log, otel) = logging::init_service_logging("evo-runner");
            evo_agents::cli::export_spans(otel.as_ref(), &config);
            let shutdown = shutdown_on_signals().context("can't listen for signals")?;
            Box::pin(evo_agents::cli::serve_until(config, shutdown)).await.map_err(stop)
        }
        Command::Gateway(args) => Box::pin(evo_gateway::cli::run(args))
            .await
            .map_err(|error| Stop::with_code(error.exit_code(), error.into())),
        Command::Bridge(args) => {
            let shutdown = shutdown_on_signals().context("can't listen for signals")?;
            let result = Box::pin(evo_evotown_bridge::cli::run(*args, shutdown)).await;
            result.map_err(|error| Stop::with_code(error.exit_code(), error.into()))
        }
    }
}
