//! The command line of king, for the binary `evo-king` and for `evo king`.

mod child;
mod maintenance;
mod progress;
mod reach;
mod token;

use std::{net::IpAddr, path::PathBuf};

use evo_common::{
    logging::{self, OtelGuard},
    runtime::Shutdown,
};

use crate::{
    App, Config,
    doctor::{self, Findings},
};

pub use child::ChildArgs;

/// Control plane of Evo: runs the pipeline, keeps the skills, answers over HTTP and Socket.IO.
#[derive(Debug, clap::Parser)]
#[command(
    name = "evo-king",
    version,
    args_conflicts_with_subcommands = false,
    after_help = "Examples:\n  evo-king --data ./data --port 3000      (also: evo king …)\n  evo-king backup king.backup --data ./data\n\nThe tokens are in DATA/tokens.toml, written on first start."
)]
pub struct Args {
    /// What to do instead of serving.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Data folder: king.db, artifacts/, tokens.toml, config/ [default: ~/.evo].
    #[arg(long, global = true, value_name = "DIR", env = "EVO_HOME")]
    pub data: Option<PathBuf>,
    /// Port to listen on; 0 takes a free one [default: 3000].
    #[arg(long)]
    pub port: Option<u16>,
    /// Address to listen on [default: 127.0.0.1].
    #[arg(long)]
    pub host: Option<IpAddr>,
    /// Run the agents of this folder, one process each; its folders with a soul.md or an agent.toml
    /// are agents.
    #[arg(long, value_name = "DIR", env = "KERNEL_AGENTS_DIR")]
    pub agents: Option<PathBuf>,
    /// No tokens, for runners of the original. Loopback only.
    #[arg(long)]
    pub open: bool,
    /// Print the resolved configuration, without secrets, and end.
    #[arg(long)]
    pub check_config: bool,
}

/// What to do instead of serving.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Write the database and all packages to one file, while king runs or not.
    #[command(
        after_help = "Examples:\n  evo-king backup /backups/king-monday.backup\n  evo-king backup king.backup --overwrite --json\n\nThe file holds everything that king knows, secrets too; it is made for its owner only (0600).\nExit codes: 0 done, 1 failed, 2 wrong usage or configuration."
    )]
    Backup {
        /// The file to write.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Replace the file if it exists.
        #[arg(long)]
        overwrite: bool,
        /// Print one JSON object on stdout; everything else goes to stderr.
        #[arg(long)]
        json: bool,
    },
    /// Put a backup in the place of what is there, which is kept beside it.
    #[command(
        after_help = "Example: evo-king restore king.backup\n\nThe backup is checked as a whole before anything is replaced. A king that runs does it itself and\nstarts anew within its process: connections end and come back, work that was given out after the\nbackup was made is forgotten.\nExit codes: 0 done, 1 failed and nothing was replaced, 2 wrong usage or configuration."
    )]
    Restore {
        /// The backup.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Print one JSON object on stdout; everything else goes to stderr.
        #[arg(long)]
        json: bool,
    },
    /// Look whether the database and the packages are sound, while king runs or not.
    #[command(
        after_help = "Example: evo-king check --json\n\nExit codes: 0 all is well, 1 something was found or it could not be looked, 2 wrong usage."
    )]
    Check {
        /// Print one JSON object on stdout; everything else goes to stderr.
        #[arg(long)]
        json: bool,
    },
    /// Create, list and revoke tokens.
    #[command(subcommand, after_help = "Example: evo-king token create --name ci --scope viewer")]
    Token(token::TokenCommand),
    /// Look whether everything that king needs is in order, and say what to do.
    #[command(
        after_help = "Examples:\n  evo-king doctor\n  evo-king doctor --fix --json\n\n--fix creates missing folders, tokens and configuration files, makes tokens readable for their owner\nonly, and removes what a killed process left behind; it says what it did.\nExit codes: 0 nothing is a problem (any more), 1 something is."
    )]
    Doctor {
        /// Do what is safe.
        #[arg(long)]
        fix: bool,
        /// Port that king is to have [default: the configured one].
        #[arg(long)]
        port: Option<u16>,
        /// Print one JSON object on stdout; everything else goes to stderr.
        #[arg(long)]
        json: bool,
    },
    /// Become another program that ends with the process that started this one, or guard such
    /// programs. Used by king.
    #[command(hide = true, after_help = "Example: evo-king child --parent 1 -- evo-gateway")]
    Child(ChildArgs),
}

impl Command {
    /// Whether there must be a data folder already.
    fn wants_data(&self) -> bool {
        !matches!(self, Self::Token(_) | Self::Doctor { .. })
    }
}

impl Args {
    /// The configuration that these arguments and the data folder give.
    pub fn config(&self) -> Result<Config, crate::config::ConfigError> {
        let mut config = Config::load(&crate::config::data_folder(self.data.clone())?)?;
        if let Some(port) = self.port {
            config.listen.set_port(port);
        }
        if let Some(host) = self.host {
            config.listen.set_ip(host);
        }
        config.open |= self.open;
        config.supervisor.agents = self.agents.clone().or(config.supervisor.agents.take());
        Ok(config)
    }
}

/// Does what the arguments say: one command, or serving until shutdown.
pub async fn run(mut args: Args, shutdown: Shutdown) -> Result<(), Failure> {
    if let Some(Command::Child(child)) = &args.command {
        return child.run().map_err(Failure::Command);
    }
    if let Some(Command::Doctor { fix, port, json }) = args.command {
        let data = crate::config::data_folder(args.data).map_err(Failure::Config)?;
        return doctor(data, port, fix, json).await;
    }
    if args.command.as_ref().is_some_and(Command::wants_data) {
        maintenance::check_folder(&args)?;
    }
    // A wrong configuration is told before a log file is made.
    let config = args.config().map_err(Failure::Config)?;
    match args.command.take() {
        Some(command) => tokio::select! {
            done = maintenance::run(command, &config) => done,
            () = shutdown.cancelled() => Err(Failure::Interrupted),
        },
        None => {
            let (_log, otel) = logging::init_service_logging("evo-king");
            serve(args, config, shutdown, otel.as_ref()).await
        }
    }
}

async fn doctor(data: PathBuf, port: Option<u16>, fix: bool, json: bool) -> Result<(), Failure> {
    let options = doctor::Options { data, fix, king_port: port };
    let findings = Findings::new(&options.data, doctor::examine(&options).await);
    token::show(json, &findings, findings.lines().trim_end())?;
    if findings.ok { Ok(()) } else { Err(Failure::Told) }
}

/// Runs king until shutdown. Its own spans go where all go: to king.
async fn serve(
    args: Args,
    config: Config,
    shutdown: Shutdown,
    otel: Option<&OtelGuard>,
) -> Result<(), Failure> {
    if args.check_config {
        tracing::info!("{config:#?}");
        return Ok(());
    }
    let token = config.tokens.operator.clone();
    let app = App::start(config).await.map_err(Failure::of_start)?;
    let Some(otel) = otel else {
        return Ok(app.run(shutdown).await?);
    };
    otel.export_to(&app.own_url(), Some(&token));
    let (stop, drain) = (Shutdown::new(), app.drain());
    let end = async {
        shutdown.cancelled().await;
        drain.cancel();
        // While king still takes them.
        otel.flush().await;
        stop.cancel();
        std::future::pending().await
    };
    tokio::select! {
        ended = app.run(stop.clone()) => Ok(ended?),
        never = end => never,
    }
}

/// Why king ended.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The configuration is wrong: exit code 2.
    #[error(transparent)]
    Config(crate::config::ConfigError),
    /// The address can't be listened on: exit code 1.
    #[error("{0}: --port PORT")]
    Listen(crate::Error),
    /// A command could not do what it was asked to: exit code 1.
    #[error("{0}")]
    Command(String),
    /// Anything else: exit code 1, but 2 for an address that --open does not allow.
    #[error(transparent)]
    Run(#[from] crate::Error),
    /// The user interrupted a command: exit code 130.
    #[error("interrupted")]
    Interrupted,
    /// It has been said already what is wrong: exit code 1.
    #[error("")]
    Told,
}

impl Failure {
    /// A failed start. Of an address that can't be had it names the option that helps.
    fn of_start(error: crate::Error) -> Self {
        match error {
            crate::Error::Listen { .. } => Self::Listen(error),
            other => Self::Run(other),
        }
    }

    /// What the process should exit with.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::Run(crate::Error::OpenToStrangers(_)) => 2,
            Self::Listen(_) | Self::Command(_) | Self::Told | Self::Run(_) => 1,
            Self::Interrupted => 130,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_cannot_be_had_is_told_with_the_option_that_helps() {
        let address = "127.0.0.1:3000".parse().unwrap();
        let reason = "port 3000 is in use".to_owned();
        let failure = Failure::of_start(crate::Error::Listen { address, reason });
        let told = "can't listen on 127.0.0.1:3000: port 3000 is in use: --port PORT";
        assert_eq!(failure.to_string(), told);
        // Whoever prints the whole chain says it once.
        assert!(std::error::Error::source(&failure).is_none());
        let other = Failure::of_start(crate::Error::OpenToStrangers(address));
        assert_eq!(other.exit_code(), 2);
        assert!(!other.to_string().contains("--port"), "{other}");
    }
}
