//! `evo up`: all of Evo in one process.

mod cluster;
mod cycle;

use std::io::IsTerminal as _;

use anyhow::Context as _;
use evo_common::runtime::{Shutdown, shutdown_on_signals};

pub(crate) use self::cluster::{Cluster, Runners, Settings};
use crate::{
    cli::UpArgs,
    client::Client,
    config,
    instance::DataFolder,
    progress::{Progress, say},
    report, sources,
    stop::{Result, Stop},
};

/// Runs `evo up`.
pub(crate) async fn run(args: UpArgs) -> Result<()> {
    let data = config::data_folder(args.data.data.clone(), config::env)?;
    let lock = data.open()?;
    let (settings, added) = settings(&args, &data)?;
    let _log = config::init_logging(&data);
    let shutdown = shutdown_on_signals().context("can't listen for signals")?;
    let token = settings.king.tokens.operator.clone();
    let cluster = Cluster::start(settings, Runners::All).await?;
    lock.announce(cluster.king_url(), cluster.gateway_url())?;
    let client = Client::new(cluster.king_url(), token).context("no HTTP client")?;
    welcome(&args, &data, &cluster, &added);
    let result = evolve(&args, &client, &cluster, &shutdown).await;
    if shutdown.is_cancelled() {
        say("Ending; a cycle that is left unfinished goes on at the next start …");
    }
    cluster.shutdown().await;
    // The folder is free only when nothing uses it any more.
    drop(lock);
    result
}

/// Reads and checks everything that can be wrong before a port is opened. Gives also the names of
/// the sources of this start only.
fn settings(args: &UpArgs, data: &DataFolder) -> Result<(Settings, Vec<String>)> {
    let mut gateway = config::gateway(data)?;
    let mut king = config::king(data)?;
    let added = sources::from_command_line(&args.source, &args.allow_origin, &king.sources)?;
    let names = added.iter().map(|source| source.name.clone()).collect();
    king.sources.extend(added);
    king.open = args.open;
    if let Some(port) = args.king_port {
        king.listen.set_port(port);
    }
    if let Some(port) = args.gateway_port {
        gateway.set_port(port);
    }
    Ok((Settings { king, gateway, cache: data.cache() }, names))
}

fn welcome(args: &UpArgs, data: &DataFolder, cluster: &Cluster, added: &[String]) {
    say(format!("Evo {} in {}", env!("CARGO_PKG_VERSION"), data.path().display()));
    say(format!("  king     {} (API: /openapi.json)", cluster.king_url()));
    say(format!("  gateway  {}", cluster.gateway_url()));
    if args.open {
        say("  tokens   none are asked for (--open)");
    } else {
        say(format!("  tokens   {}", data.tokens().display()));
    }
    say(format!("  logs     {}", data.logs().display()));
    if !added.is_empty() {
        let file = data.config_file("sources.toml");
        say(format!(
            "  sources  {} for this start only; put them into {} to learn from them again",
            added.join(", "),
            file.display()
        ));
    }
}

/// Runs the first cycle and reports it; without `--once` goes on until the user ends it.
async fn evolve(
    args: &UpArgs,
    client: &Client,
    cluster: &Cluster,
    shutdown: &Shutdown,
) -> Result<()> {
    let mut progress = Progress::new(std::io::stderr().is_terminal());
    let cycle = async {
        let report = cycle::run(client, &mut progress).await?;
        report::print_cycle(&report, args.format.json)?;
        Ok::<_, Stop>(report)
    };
    let report = tokio::select! {
        report = cycle => report?,
        () = cluster.failed() => return Err(broken()),
        () = shutdown.cancelled() => {
            return if args.once { Err(Stop::Interrupted) } else { Ok(()) };
        }
    };
    if args.once {
        return report::verdict(&report);
    }
    say("Evo goes on running; try `evo skill list` in another terminal. Ctrl-C ends it.");
    tokio::select! {
        () = cluster.failed() => Err(broken()),
        () = shutdown.cancelled() => Ok(()),
    }
}

fn broken() -> Stop {
    Stop::failed("a part of Evo failed and could not go on; the message above and the log say why")
}
