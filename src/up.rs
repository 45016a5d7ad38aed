//! `evo up`: all of Evo in one process.

mod cluster;
pub(crate) mod components;
mod cycle;

use std::{io::IsTerminal as _, path::Path, time::Duration};

use anyhow::Context as _;
use evo_common::runtime::{Shutdown, shutdown_on_signals};

pub(crate) use self::{
    cluster::{Cluster, Runners, Settings},
    cycle::follow as follow_cycle,
};
use crate::{
    cli::UpArgs,
    client::Client,
    config,
    instance::DataFolder,
    progress::{Progress, say},
    report, sources,
    stop::{Result, Stop},
};

/// How long `--once` waits for Evotown to take the reports. What it has not taken by then is kept
/// and delivered at the next start.
const DELIVERY_PATIENCE: Duration = Duration::from_secs(30);

/// Runs `evo up`.
pub(crate) async fn run(args: UpArgs) -> Result<()> {
    let data = config::data_folder(args.data.data.clone(), config::env)?;
    let lock = data.open()?;
    let (settings, added) = settings(&args, &data)?;
    let token_file = config::token_file(Some(&data), config::env)?;
    let (_log, otel) = config::init_logging(&data);
    let shutdown = shutdown_on_signals().context("can't listen for signals")?;
    let tokens = settings.king.tokens.clone();
    let cluster = Cluster::start(settings, Runners::All).await?;
    if let Some(otel) = &otel {
        otel.export_to(&cluster.king_url(), Some(&tokens.runner));
    }
    let result = async {
        lock.announce(cluster.king_url(), cluster.gateway_url())?;
        let clients = Clients {
            king: Client::new(cluster.king_url(), tokens.operator).context("no HTTP client")?,
            gateway: Client::new(cluster.gateway_url(), tokens.gateway)
                .context("no HTTP client")?,
        };
        welcome(&args, &data, &token_file, &cluster, &added);
        evolve(&args, &clients, &cluster, &shutdown).await
    };
    // The figures of the runners and the bridge; king and gateway serve their own.
    let result = evo_common::metrics::beside(Some(tokens.viewer), result).await;
    let result = result.unwrap_or_else(|error| Err(Stop::Usage(error.into())));
    if shutdown.is_cancelled() {
        cluster.drain();
        say("Ending; a cycle that is left unfinished goes on at the next start …");
    }
    if let Some(otel) = &otel {
        // King, which takes the spans, is about to end.
        otel.flush().await;
    }
    cluster.shutdown().await;
    // The folder is free only when nothing uses it any more.
    drop(lock);
    result
}

/// Reads and checks everything that can be wrong before a port is opened. Gives also the names of
/// the sources of this start only.
fn settings(args: &UpArgs, data: &DataFolder) -> Result<(Settings, Vec<String>)> {
    // King first: it writes the tokens that the gateway asks for.
    let mut king = config::king(data)?;
    let mut gateway = config::gateway(data)?;
    let added = sources::from_command_line(&args.source, &args.allow_origin, &king.sources)?;
    let names = added.iter().map(|source| source.name.clone()).collect();
    king.sources.extend(added);
    king.open = args.open;
    king.logs = Some(data.logs());
    gateway.auth.open = args.open;
    // King cares for its file: it tests a change before it runs.
    gateway.follow = evo_gateway::Follow::Never;
    if let Some(port) = args.king_port {
        king.listen.set_port(port);
    }
    if let Some(port) = args.gateway_port {
        gateway.listen.set_port(port);
    }
    let evotown = config::evotown(data)?;
    Ok((Settings { king, gateway, cache: data.cache(), evotown }, names))
}

fn welcome(args: &UpArgs, data: &DataFolder, tokens: &Path, cluster: &Cluster, added: &[String]) {
    say(format!("Evo {} in {}", env!("CARGO_PKG_VERSION"), data.path().display()));
    say(format!("  king     {} (API: /openapi.json)", cluster.king_url()));
    say(format!("  gateway  {}", cluster.gateway_url()));
    if args.open {
        say("  tokens   none are asked for (--open)");
    } else {
        say(format!("  tokens   {}", tokens.display()));
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

/// The services as any client reaches them.
struct Clients {
    king: Client,
    gateway: Client,
}

/// Runs the first cycle and reports it; without `--once` goes on until the user ends it.
async fn evolve(
    args: &UpArgs,
    clients: &Clients,
    cluster: &Cluster,
    shutdown: &Shutdown,
) -> Result<()> {
    let mut progress = Progress::new(std::io::stderr().is_terminal());
    let cycle = async {
        let report = cycle::run(&clients.king, &mut progress).await?;
        let patience = if args.once { DELIVERY_PATIENCE } else { Duration::ZERO };
        let mut components = components::examine(&clients.king, &clients.gateway).await;
        components.push(components::bridge(cluster.bridge(), patience).await);
        report::print_cycle(&report, &components, args.format.json)?;
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
