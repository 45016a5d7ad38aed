//! What is only looked at.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
    time::{Duration, SystemTime},
};

use chrono::{Datelike as _, Utc};
use evo_common::config::{GatewayConfig, SourcesConfig, load};

use super::Check;
use crate::{
    backup::Places,
    config::{self, Config},
    lock::Holder,
    store::inspect::Inspection,
    supervisor,
};

/// Below this much free space a warning is given.
const LITTLE_SPACE: u64 = 1 << 30;
/// Below this much nothing may work.
const NO_SPACE: u64 = 64 << 20;
/// How long somebody who is asked may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How far in the future a file of ours may be, for clocks that are set now and then.
const AHEAD: Duration = Duration::from_secs(300);
/// The year in which this was written: no clock that is right shows an earlier one.
const YEAR: i32 = 2026;

pub(super) fn space(path: &Path) -> Check {
    const NAME: &str = "disk space";
    let Some(existing) = path.ancestors().find(|path| path.exists()) else {
        return Check::warn(NAME, "can't be told");
    };
    let stat = match nix::sys::statvfs::statvfs(existing) {
        Ok(stat) => stat,
        Err(error) => return Check::warn(NAME, format!("can't be told: {error}")),
    };
    let free = stat.blocks_available().saturating_mul(stat.fragment_size());
    let message = format!("{:.1} GiB free", free as f64 / f64::from(1 << 30));
    match free {
        ..NO_SPACE => Check::fail(NAME, format!("{message}; make room or move with --data DIR")),
        NO_SPACE..LITTLE_SPACE => Check::warn(NAME, format!("{message}; it may not last")),
        _ => Check::pass(NAME, message),
    }
}

/// Leases, timers and certificates need a clock that is about right.
pub(super) fn clock(data: &Path) -> Check {
    const NAME: &str = "clock";
    let now = Utc::now();
    let shown = now.to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
    if now.year() < YEAR {
        return Check::fail(NAME, format!("it shows {shown}, which is long past: set the clock"));
    }
    let latest = ["king.db", "king.db-wal", "king.lock"]
        .iter()
        .filter_map(|name| fs::metadata(data.join(name)).ok()?.modified().ok())
        .max();
    let ahead = latest.and_then(|latest| latest.duration_since(SystemTime::now()).ok());
    match ahead.filter(|ahead| *ahead > AHEAD) {
        Some(ahead) => Check::warn(
            NAME,
            format!(
                "it shows {shown}, {} s before king wrote its database last: check the clock",
                ahead.as_secs()
            ),
        ),
        None => Check::pass(NAME, shown),
    }
}

pub(super) fn king_file(data: &Path) -> Check {
    const NAME: &str = "king.toml";
    let file = data.join("config").join("king.toml");
    if !file.exists() {
        return Check::pass(NAME, "not there yet; the defaults hold");
    }
    match config::check_file(&file) {
        Ok(()) => Check::pass(NAME, file.display().to_string()),
        Err(error) => Check::fail(NAME, error.to_string()),
    }
}

pub(super) fn sources_file(data: &Path) -> Check {
    const NAME: &str = "config/sources.toml";
    let file = data.join("config").join("sources.toml");
    if !file.exists() {
        return Check::pass(NAME, "not there yet; Evo's own documents are the sources");
    }
    match load::load_valid::<SourcesConfig>(&file) {
        Ok(config) => {
            let on = config.sources.iter().filter(|source| source.enabled).count();
            if on == 0 {
                Check::warn(NAME, "no source is enabled, so nothing will be learned")
            } else {
                Check::pass(NAME, format!("{on} of {} sources enabled", config.sources.len()))
            }
        }
        Err(error) => Check::fail(NAME, error.to_string()),
    }
}

pub(super) fn gateway_file(data: &Path) -> Check {
    const NAME: &str = "config/gateway.toml";
    let folder = data.join("config");
    let files = ["gateway.toml", "gateway.json"].map(|name| folder.join(name));
    let Some(file) = files.into_iter().find(|file| file.exists()) else {
        return Check::pass(NAME, "not there yet");
    };
    match load::load_valid::<GatewayConfig>(&file) {
        Ok(config) => {
            let on = config.providers.iter().filter(|provider| provider.enabled).count();
            Check::pass(NAME, format!("{on} of {} providers enabled", config.providers.len()))
        }
        Err(error) => Check::fail(NAME, error.to_string()),
    }
}

/// Whether a port can be had on this machine.
pub fn port(name: &'static str, port: u16, option: &str) -> Check {
    match TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))) {
        Ok(_) => Check::pass(name, format!("{port} is free")),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => Check::fail(
            name,
            format!("{port} is in use by another program; stop it, or start Evo with {option} N"),
        ),
        Err(error) => {
            Check::fail(name, format!("{port} can't be used ({error}); start Evo with {option} N"))
        }
    }
}

/// The king that has the folder.
pub(super) async fn running(holder: Option<&Holder>) -> Check {
    const NAME: &str = "running king";
    let Some(Holder { pid, url }) = holder else { return Check::pass(NAME, "none") };
    let Some(url) = url else {
        return Check::warn(NAME, format!("pid {pid} has the folder and does not listen yet"));
    };
    match health(url).await {
        Ok(()) => Check::pass(NAME, format!("pid {pid} answers at {url}")),
        Err(why) => Check::fail(
            NAME,
            format!(
                "pid {pid} does not answer at {url} ({why}); look into the logs, or end it with \
                 `kill {pid}`"
            ),
        ),
    }
}

async fn health(base: &str) -> Result<(), reqwest::Error> {
    evo_common::tls::install();
    let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build()?;
    let url = format!("{}/health", base.trim_end_matches('/'));
    client.get(url).send().await?.error_for_status().map(drop)
}

/// A quick look, also while a king uses it.
pub(super) async fn database(config: &Config) -> Check {
    const NAME: &str = "database";
    let Ok(places) = Places::of(config) else {
        return Check::pass(NAME, "on a server; it is not looked at");
    };
    let path = &places.database;
    if !path.exists() {
        return Check::pass(NAME, "not there yet; the first start creates it");
    }
    let look = async {
        let inspection = Inspection::open(path).await?;
        let schema = inspection.schema().await?;
        Ok::<_, crate::store::Error>((schema, inspection.quick().await?))
    };
    match look.await {
        Ok((schema, faults)) if faults.is_empty() => {
            Check::pass(NAME, format!("{} (schema {schema})", path.display()))
        }
        Ok((_, faults)) => Check::fail(
            NAME,
            format!(
                "{} is damaged: {}; go back to a backup: evo-king restore FILE",
                path.display(),
                faults.join("; ")
            ),
        ),
        Err(error) => {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
            Check::fail(NAME, format!("{error}{}", cause.unwrap_or_default()))
        }
    }
}

/// The gateway that king is to use.
pub(super) async fn gateway(config: &Config) -> Check {
    const NAME: &str = "gateway";
    let Some(url) = &config.gateway_url else {
        return Check::pass(NAME, "none is named (gateway_url, GATEWAY_ADDRESS)");
    };
    match health(url).await {
        Ok(()) => Check::pass(NAME, format!("it answers at {url}")),
        Err(error) => Check::warn(
            NAME,
            format!("it does not answer at {url} ({}); start it", error.without_url()),
        ),
    }
}

/// The agents whose processes king is to run.
pub(super) fn agents(config: &Config) -> Check {
    const NAME: &str = "agents";
    let Some(folder) = &config.supervisor.agents else {
        return Check::pass(NAME, "none are supervised");
    };
    let shown = folder.display();
    match supervisor::souls(folder) {
        Ok(found) if found.is_empty() => Check::fail(
            NAME,
            format!("{shown} has no folder with a soul.md or an agent.toml; write one"),
        ),
        Ok(found) => {
            let mute: Vec<&str> =
                found.iter().filter(|(_, role)| !role).map(|(name, _)| name.as_str()).collect();
            if mute.is_empty() {
                Check::pass(NAME, format!("{} in {shown}", found.len()))
            } else {
                Check::fail(
                    NAME,
                    format!(
                        "no role is named in {}: write the lines `## Role` and `user` into its \
                         soul.md",
                        mute.join(", ")
                    ),
                )
            }
        }
        Err(error) => Check::fail(NAME, format!("{shown}: {error}; check the path")),
    }
}
