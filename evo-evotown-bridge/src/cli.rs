//! `evo-evotown-bridge`, also as `evo bridge`.

use std::{io::Write as _, path::PathBuf};

use evo_common::{logging, runtime::Shutdown};
use serde_json::json;

use crate::{
    Bridge, Config, Error, Settings, Snapshot, config,
    spool::{self, Line, Problem},
};

/// Problems that `status` shows.
const PROBLEMS: u32 = 20;

/// Reports Evo's runs to Evotown.
///
/// Reads king's event log and tells Evotown of every run: its start, its stages, its end. What
/// can't be delivered now waits in DATA/bridge.db.
#[derive(Debug, Clone, clap::Args)]
#[command(
    args_conflicts_with_subcommands = false,
    after_help = "Example: EVO_EVOTOWN_URL=https://evotown.example EVO_EVOTOWN_TOKEN=… evo-evotown-bridge\n\nEVO_EVOTOWN_TOKEN is what engines register with, or this engine's own token (evi_…).\nAlso read: EVO_EVOTOWN_ENGINE_ID, EVO_EVOTOWN_TEAM_ID, EVO_EVOTOWN_TENANT_ID,\nEVO_EVOTOWN_DEPLOYMENT (laptop, server, ci, container), EVO_EVOTOWN_ALLOW_HTTP, EVO_TOKEN_VIEWER,\nand the EVOTOWN_… names of Evotown's own connector.\nExit codes: 0 after a shutdown, 2 for wrong usage or configuration, 1 for anything else."
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
            status_of(&settings, &run_id, json).await
        }
        Some(Command::Status { json, check, run_id: None }) => status(&settings, json, check).await,
        Some(Command::Register) => register(&settings).await,
        None => serve(&settings, shutdown).await,
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

async fn status(settings: &Settings, json: bool, check: bool) -> Result<(), Error> {
    let data = config::data_of(settings)?;
    let file = config::spool_file(&data);
    let found = spool::snapshot(&file, PROBLEMS).await?;
    let shown = match &found {
        found if json => json!(found.clone().unwrap_or_default()).to_string(),
        Some(snapshot) => text(snapshot),
        None => format!("no bridge has run with {} yet", data.display()),
    };
    print(&shown)?;
    if check && !found.is_some_and(|snapshot| snapshot.running) {
        return Err(Error::NotRunning(data.display().to_string()));
    }
    Ok(())
}

/// What was told of one run.
async fn status_of(settings: &Settings, run_id: &str, json: bool) -> Result<(), Error> {
    let data = config::data_of(settings)?;
    let file = config::spool_file(&data);
    let lines = if file.exists() { spool::deliveries(&file, run_id).await? } else { Vec::new() };
    if lines.is_empty() {
        return Err(Error::UnknownRun(run_id.to_owned()));
    }
    if json {
        return print(&json!({"run_id": run_id, "deliveries": lines}).to_string());
    }
    let shown: Vec<String> = lines.iter().map(line).collect();
    print(&shown.join("\n"))
}

fn line(line: &Line) -> String {
    let said = format!("{}  {:<9}  {} ({} tries)", line.at, line.kind, line.state, line.tries);
    let notes = [&line.reason, &line.left_out].into_iter().flatten().map(String::as_str);
    std::iter::once(said.as_str()).chain(notes).collect::<Vec<&str>>().join("\n    ")
}

fn text(snapshot: &Snapshot) -> String {
    let counts = &snapshot.counts;
    let state = if snapshot.running { "runs" } else { "does not run" };
    let mut lines = vec![
        format!("bridge   {state}"),
        format!("engine   {}", snapshot.engine_id.as_deref().unwrap_or("has no name yet")),
        format!("log      read up to place {}", snapshot.cursor),
        format!("runs     {}, {} of them not ended", counts.runs, counts.runs_open),
        format!(
            "queue    {} wait, {} delivered lately, {} refused",
            counts.backlog, counts.done, counts.parked
        ),
    ];
    lines.extend(snapshot.problems.iter().map(problem));
    lines.join("\n")
}

fn problem(problem: &Problem) -> String {
    format!(
        "{}  {} {} of {} ({} tries): {}",
        problem.at, problem.state, problem.kind, problem.run_id, problem.tries, problem.reason
    )
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
    }

    #[tokio::test]
    async fn the_status_of_a_folder_without_a_queue_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings { data: Some(folder.path().to_owned()), ..Settings::default() };
        status(&settings, true, false).await.unwrap();
        let error = status(&settings, false, true).await.unwrap_err();
        assert_eq!(error.exit_code(), 1, "{error}");
        assert!(!folder.path().join("bridge.db").exists(), "looking makes nothing");
    }
}
