//! `evo-evotown-bridge`, also as `evo bridge`.

mod dead;
mod push;
mod replay;
mod status;

use std::{io::Write as _, path::PathBuf};

use evo_common::{clock::Timestamp, logging, runtime::Shutdown};

use crate::{Bridge, Config, Error, Settings, config};

/// Reports Evo's runs to Evotown.
///
/// Reads king's event log and tells Evotown of every run: its start, its stages, its end. What
/// can't be delivered now waits in DATA/bridge.db.
#[derive(Debug, Clone, clap::Args)]
#[command(
    args_conflicts_with_subcommands = false,
    after_help = "Example: EVO_EVOTOWN_URL=https://evotown.example EVO_EVOTOWN_TOKEN=… evo-evotown-bridge run\n\nEVO_EVOTOWN_TOKEN is what engines register with, or this engine's own token (evi_…).\nAlso read: EVO_EVOTOWN_ENGINE_ID, EVO_EVOTOWN_TEAM_ID, EVO_EVOTOWN_TENANT_ID,\nEVO_EVOTOWN_DEPLOYMENT (laptop, server, ci, container), EVO_EVOTOWN_ALLOW_HTTP, EVO_TOKEN_VIEWER,\nand the EVOTOWN_… names of Evotown's own connector.\nExit codes: 0 after a shutdown, 2 for wrong usage or configuration, 1 for anything else."
)]
pub struct Args {
    /// What to do instead of running.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Data folder: bridge.db, evotown-token [default: ~/.evo]
    #[arg(long, global = true, value_name = "DIR", env = "EVO_HOME")]
    pub data: Option<PathBuf>,
    /// King's address [default: http://127.0.0.1:3000]
    #[arg(long, value_name = "URL", env = "KING_ADDRESS")]
    pub king: Option<String>,
    /// King's token file [default: DATA/tokens.toml]
    #[arg(long, global = true, value_name = "FILE", env = "EVO_TOKENS_FILE")]
    pub tokens: Option<PathBuf>,
    /// Evotown's address [default: the variable EVO_EVOTOWN_URL, else EVOTOWN_URL]
    #[arg(long, global = true, value_name = "URL")]
    pub evotown_url: Option<String>,
    /// The bridge's configuration file [default: DATA/config/bridge.toml, if it is there]
    #[arg(long, global = true, value_name = "FILE", env = "EVO_BRIDGE_CONFIG")]
    pub config: Option<PathBuf>,
}

/// What to do instead of running.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum Command {
    /// Show what is queued, how far king's log was read, and what Evotown refused.
    #[command(
        after_help = "Example: evo bridge status --json\n         evo bridge status --run-id run-01a200db\n\nExit codes: 0 when it could look, 1 when it could not, with --check when no bridge runs, or with --run-id when nothing is known of the run."
    )]
    Status {
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
        /// Fail unless a bridge runs with this data folder, as a health check wants it.
        #[arg(long)]
        check: bool,
        /// Show every delivery of this run instead, with what was left out of it and why.
        #[arg(long, value_name = "ID", conflicts_with = "check")]
        run_id: Option<String>,
    },
    /// Register this engine anew, which replaces its token.
    #[command(
        after_help = "Example: evo bridge register\n\nThe bridge registers by itself when it has no token. Stop it before you call this."
    )]
    Register,
    /// Follow king and report its runs; the same as no command.
    #[command(after_help = "Example: evo bridge run")]
    Run,
    /// Tell Evotown how one run ended, now and without the queue.
    #[command(
        after_help = "Example: evo bridge push --run-id run-01a200db --dry-run\n\nNeeds king. A run that Evotown has is not changed by this.\nExit codes: 0 when Evotown has it, 1 when it does not take it or the run has not ended."
    )]
    Push {
        /// The run.
        #[arg(long, value_name = "ID")]
        run_id: String,
        /// Print what would be sent, and send nothing.
        #[arg(long)]
        dry_run: bool,
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Report runs again that ended lately and that Evotown does not have (any more).
    #[command(
        after_help = "Example: evo bridge replay --since 2h\n         evo bridge replay --since 2026-11-22T08:00:00Z --dry-run\n\nAsks Evotown about each run; what it has is left alone. A bridge has to run to deliver what is queued.\nDeliveries are kept for seven days."
    )]
    Replay {
        /// Since when: a time (RFC 3339), or so long ago: 30m, 2h, 3d.
        #[arg(long, value_name = "T", value_parser = since)]
        since: Timestamp,
        /// Only say what would be queued.
        #[arg(long)]
        dry_run: bool,
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Look after what Evotown refused for good.
    #[command(subcommand)]
    Dead(Dead),
}

/// What Evotown refused for good.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum Dead {
    /// List it with the reasons, newest first.
    #[command(after_help = "Example: evo bridge dead list --json")]
    List {
        /// At most so many.
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: u32,
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Queue it again.
    #[command(
        after_help = "Example: evo bridge dead retry --run-id run-01a200db\n\nEvents of a run whose end was delivered stay: they would open it again."
    )]
    Retry(Which),
    /// Forget it.
    #[command(after_help = "Example: evo bridge dead drop --all")]
    Drop(Which),
}

/// Which of it.
#[derive(Debug, Clone, clap::Args)]
#[group(required = true, multiple = false)]
pub struct Which {
    /// That of one run.
    #[arg(long, value_name = "ID")]
    run_id: Option<String>,
    /// All of it.
    #[arg(long)]
    all: bool,
}

/// A moment, or how long ago it was.
fn since(text: &str) -> Result<Timestamp, String> {
    if let Some(moment) = Timestamp::parse_rfc3339(text) {
        return Ok(moment);
    }
    let unit = |unit: char| match unit {
        's' => Some(1_000),
        'm' => Some(60_000),
        'h' => Some(3_600_000),
        'd' => Some(86_400_000),
        _ => None,
    };
    let parsed = text.chars().last().and_then(unit).and_then(|unit: i64| {
        text[..text.len() - 1].parse::<i64>().ok().filter(|n| *n >= 0)?.checked_mul(unit)
    });
    let ago = parsed.ok_or("give a time such as 2026-11-22T08:00:00Z, or 30m, 2h or 3d")?;
    Ok(Timestamp(Timestamp::now().0 - ago))
}

impl Args {
    fn settings(&self) -> Settings {
        Settings {
            data: self.data.clone(),
            king: self.king.clone(),
            tokens: self.tokens.clone(),
            url: self.evotown_url.clone(),
            config: self.config.clone(),
        }
    }
}

/// Does what the arguments say. Running ends with the shutdown.
pub async fn run(args: Args, shutdown: Shutdown) -> Result<(), Error> {
    let settings = args.settings();
    match args.command {
        Some(Command::Status { json, run_id: Some(run_id), .. }) => {
            status::of_run(&settings, &run_id, json).await
        }
        Some(Command::Status { json, check, run_id: None }) => {
            status::of_queue(&settings, json, check).await
        }
        Some(Command::Register) => register(&settings).await,
        Some(Command::Push { run_id, dry_run, json }) => {
            Box::pin(push::push(&settings, &run_id, dry_run, json)).await
        }
        Some(Command::Replay { since, dry_run, json }) => {
            Box::pin(replay::replay(&settings, since, dry_run, json)).await
        }
        Some(Command::Dead(Dead::List { limit, json })) => dead::list(&settings, limit, json).await,
        Some(Command::Dead(Dead::Retry(which))) => dead::retry(&settings, which.run_id).await,
        Some(Command::Dead(Dead::Drop(which))) => dead::forget(&settings, which.run_id).await,
        Some(Command::Run) | None => serve(&settings, shutdown).await,
    }
}

async fn serve(settings: &Settings, shutdown: Shutdown) -> Result<(), Error> {
    // A wrong configuration is told before a log file is made.
    let config = Config::load(settings)?;
    let (_log, otel) = logging::init_service_logging("evo-evotown-bridge");
    if let Some(otel) = &otel {
        let url = logging::otlp_traces_url(&config.king);
        otel.export_to(&url, config::traces_token(settings).as_ref());
    }
    let token = config.viewer_token.clone();
    let run = async {
        let bridge = Bridge::open(config).await?;
        bridge.health().publish();
        bridge.run(shutdown).await
    };
    Box::pin(evo_common::metrics::beside(token, run)).await.map_err(Error::Metrics)?
}

async fn register(settings: &Settings) -> Result<(), Error> {
    let bridge = Box::pin(Bridge::open(Config::load_without_king(settings)?)).await?;
    let registered = bridge.register().await;
    let engine_id = bridge.engine_id().to_owned();
    bridge.close().await;
    registered?;
    print(&format!("registered as {engine_id}"))
}

fn print(text: &str) -> Result<(), Error> {
    writeln!(std::io::stdout(), "{text}").map_err(Error::Print)
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser};

    use super::*;

    #[derive(Debug, Parser)]
    struct Whole {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn the_command_line_is_consistent() {
        Whole::command().debug_assert();
        let parse = |args: &[&str]| Whole::try_parse_from(args).map(|whole| whole.args);
        assert!(parse(&["bridge"]).unwrap().command.is_none());
        let args = parse(&["bridge", "status", "--json", "--data", "/d"]).unwrap();
        assert!(matches!(
            args.command,
            Some(Command::Status { json: true, check: false, run_id: None })
        ));
        assert_eq!(args.data, Some(PathBuf::from("/d")));
        assert!(parse(&["bridge", "stats"]).is_err());
        assert!(parse(&["bridge", "dead", "retry"]).is_err(), "which?");
        assert!(parse(&["bridge", "dead", "drop", "--all", "--run-id", "x"]).is_err());
        assert!(parse(&["bridge", "push", "--run-id", "x", "--dry-run"]).is_ok());
        assert!(parse(&["bridge", "replay", "--since", "2h"]).is_ok());
    }

    #[test]
    fn a_moment_is_said_in_two_ways() {
        assert_eq!(since("1970-01-01T00:00:01Z").unwrap(), Timestamp(1_000));
        let ago = |text: &str| Timestamp::now().0 - since(text).unwrap().0;
        for (text, ms) in [("30s", 30_000), ("5m", 300_000), ("2h", 7_200_000), ("1d", 86_400_000)]
        {
            assert!((ms..ms + 60_000).contains(&ago(text)), "{text}");
        }
        for text in ["", "h", "2", "-1h", "2 weeks", "yesterday", "99999999999999999d", "2€"] {
            let error = since(text).unwrap_err();
            assert!(error.contains("30m"), "{text}: {error}");
        }
    }
}
