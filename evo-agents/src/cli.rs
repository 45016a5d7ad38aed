//! The command line of `evo-runner`, and of `evo runner`.

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use evo_common::{
    logging::OtelGuard,
    runtime::{Shutdown, shutdown_on_signals},
};

use crate::{
    config::{RunnerConfig, Settings, environment},
    error::Error,
};

/// Runs one agent: takes work from king and reports what came out.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "evo-runner",
    version,
    after_help = "Example: a folder with a soul.md of the lines `## Role` and `user`\n  evo-runner ./my-agent --king http://127.0.0.1:3000 --tokens ~/.evo/tokens.toml\n\nThe runner goes on until Ctrl-C and connects again whenever king comes back.\nTokens: EVO_TOKEN_RUNNER, EVO_TOKEN_VIEWER and EVO_TOKEN_GATEWAY, else the token file, else\n~/.evo/tokens.toml.\nModels: EVO_MODEL names the one to ask (provider:model, or off for none) [default: the first chat\nmodel that the gateway lists]; EVO_MODEL_CALLS limits Learning's calls per cycle [default: 2].\nExit codes: 0 after a shutdown, 2 for wrong usage or configuration, 1 for anything else."
)]
pub struct Args {
    /// The agent's folder, with soul.md or agent.toml, and skills/ [default: .]
    #[arg(env = "AGENT_FOLDER")]
    pub folder: Option<PathBuf>,
    /// King's address [default: agent.toml's, else http://127.0.0.1:3000]
    #[arg(long, value_name = "URL", env = "KING_ADDRESS")]
    pub king: Option<String>,
    /// The gateway's address
    #[arg(long, value_name = "URL", env = "GATEWAY_ADDRESS")]
    pub gateway: Option<String>,
    /// King's token file
    #[arg(long, value_name = "FILE", env = "EVO_TOKENS_FILE")]
    pub tokens: Option<PathBuf>,
    /// Attempts at the same time [default: 8]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub capacity: Option<u32>,
}

impl Args {
    /// The runner that these arguments, the environment and the agent's folder describe.
    pub fn config(self) -> Result<RunnerConfig, Error> {
        let settings = Settings {
            folder: self.folder,
            king: self.king,
            gateway: self.gateway,
            tokens: self.tokens,
            capacity: self.capacity,
        };
        Ok(RunnerConfig::load(&settings, &environment)?)
    }
}

/// Sends the process's spans to the runner's king.
pub fn export_spans(otel: Option<&OtelGuard>, config: &RunnerConfig) {
    if let Some(otel) = otel {
        otel.export_to(&config.king_address, config.runner_token.as_ref());
    }
}

/// Runs the agent until shutdown, with its figures where `EVO_METRICS_ADDRESS` says. For programs that
/// have a runtime and a log of their own.
pub async fn serve_until(config: RunnerConfig, shutdown: Shutdown) -> Result<(), Error> {
    let token = config.viewer_token.clone();
    evo_common::metrics::beside(token, crate::run(config, shutdown))
        .await
        .map_err(Error::Metrics)?
}

/// The whole program: arguments, log, runtime, signals. Gives the exit code.
pub fn main() -> ExitCode {
    // A helper of the sandbox is another program altogether.
    crate::sandbox::serve_part().unwrap_or_else(|| start(Args::parse()))
}

/// As [`main`], with arguments that are read already.
pub fn start(args: Args) -> ExitCode {
    // A wrong configuration is told before a log file is made.
    let config = match args.config() {
        Ok(config) => config,
        Err(error) => return fail(&error),
    };
    let (_log, otel) = evo_common::logging::init_service_logging("evo-runner");
    export_spans(otel.as_ref(), &config);
    match serve(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn serve(config: RunnerConfig) -> Result<(), Error> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Error::Start)?;
    runtime.block_on(async {
        let shutdown = shutdown_on_signals().map_err(Error::Start)?;
        serve_until(config, shutdown).await
    })
}

#[expect(clippy::print_stderr, reason = "the answer to a person at the command line")]
fn fail(error: &Error) -> ExitCode {
    eprintln!("evo-runner: {error}");
    ExitCode::from(error.exit_code())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
        let args = Args::try_parse_from(["evo-runner", "a", "--capacity", "3"]).unwrap();
        assert_eq!(args.folder, Some(PathBuf::from("a")));
        assert_eq!(args.capacity, Some(3));
        assert!(Args::try_parse_from(["evo-runner", "--capacity", "0"]).is_err());
    }

    #[test]
    fn a_folder_without_an_agent_is_wrong_usage() {
        let folder = tempfile::tempdir().unwrap();
        let args =
            Args::try_parse_from(["evo-runner".into(), folder.path().as_os_str().to_owned()])
                .unwrap();
        assert_eq!(args.config().unwrap_err().exit_code(), 2);
    }
}
