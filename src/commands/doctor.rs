//! `evo doctor`: what is in order, what is not, and what to do about it.

use std::{fmt, net::TcpListener, os::unix::fs::PermissionsExt as _, path::Path};

use evo_common::{
    config::{ProviderConfig, ProviderType},
    tokens::Tokens,
};
use evo_evotown_bridge::config as bridge;
use serde::Serialize;

use crate::{
    cli::DoctorArgs,
    config,
    instance::{DataFolder, Instance},
    report::{print, print_json, table},
    stop::{Result, Stop},
};

/// Below this much free space a warning is given.
const LITTLE_SPACE: u64 = 1 << 30;
/// Below this much nothing may work.
const NO_SPACE: u64 = 64 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Mark {
    Pass,
    Warn,
    Fail,
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pass => "pass",
            Self::Warn => "warn",
            Self::Fail => "FAIL",
        })
    }
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    mark: Mark,
    message: String,
}

impl Check {
    fn pass(name: &'static str, message: impl Into<String>) -> Self {
        Self { name, mark: Mark::Pass, message: message.into() }
    }

    fn warn(name: &'static str, message: impl Into<String>) -> Self {
        Self { name, mark: Mark::Warn, message: message.into() }
    }

    fn fail(name: &'static str, message: impl Into<String>) -> Self {
        Self { name, mark: Mark::Fail, message: message.into() }
    }
}

#[derive(Debug, Serialize)]
struct Findings {
    data: String,
    ok: bool,
    checks: Vec<Check>,
}

pub(super) async fn run(args: DoctorArgs) -> Result<()> {
    let data = config::data_folder(args.data.data.clone(), config::env)?;
    let checks = examine(&data, &args).await;
    let ok = checks.iter().all(|check| check.mark != Mark::Fail);
    if args.format.json {
        print_json(&Findings { data: data.path().display().to_string(), ok, checks })?;
    } else {
        let rows = checks
            .into_iter()
            .map(|check| vec![check.mark.to_string(), check.name.to_owned(), check.message])
            .collect();
        print(&table(&["", "what", "finding"], &[], rows))?;
    }
    if ok { Ok(()) } else { Err(Stop::Told) }
}

async fn examine(data: &DataFolder, args: &DoctorArgs) -> Vec<Check> {
    let mut checks = vec![folder(data), space(data.path())];
    let instance = match data.running().await {
        Ok(instance) => instance,
        Err(stop) => {
            // Nothing below can be looked at.
            checks.push(Check::fail("running instance", text(&stop)));
            return checks;
        }
    };
    checks.push(tokens(data));
    checks.push(king(data));
    checks.push(sources(data));
    checks.push(gateway(data));
    checks.push(evotown(data));
    match &instance {
        Some(instance) => checks.extend([
            answers("running king", &instance.king, instance).await,
            answers("running gateway", &instance.gateway, instance).await,
        ]),
        None => {
            checks.push(Check::pass("running instance", "none; `evo up` starts one"));
            let king = args.king_port.unwrap_or_else(|| config::king_port(data));
            checks.push(port("king's port", king, "--king-port"));
            let gateway = args.gateway_port.unwrap_or_else(|| config::gateway_port(data));
            checks.push(port("gateway's port", gateway, "--gateway-port"));
            checks.push(database(data).await);
        }
    }
    checks
}

fn king(data: &DataFolder) -> Check {
    const NAME: &str = "king.toml";
    let file = data.config_file("king.toml");
    if !file.exists() {
        return Check::pass(NAME, "not there yet; the defaults hold");
    }
    match evo_king::check_file(&file) {
        Ok(()) => Check::pass(NAME, file.display().to_string()),
        Err(error) => Check::fail(NAME, error.to_string()),
    }
}

fn text(stop: &Stop) -> String {
    match stop {
        Stop::Usage(error) | Stop::Failed(error) => format!("{error:#}"),
        Stop::Told | Stop::Interrupted => String::new(),
    }
}

fn folder(data: &DataFolder) -> Check {
    const NAME: &str = "data folder";
    let path = data.path();
    let shown = path.display();
    match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Check::pass(NAME, format!("{shown} does not exist yet; `evo up` creates it"))
        }
        Err(error) => Check::fail(NAME, format!("{shown}: {error}; check the path and its rights")),
        Ok(meta) if !meta.is_dir() => {
            Check::fail(NAME, format!("{shown} is a file; name a folder with --data DIR"))
        }
        Ok(_) => match nix::unistd::access(path, nix::unistd::AccessFlags::W_OK) {
            Ok(()) => Check::pass(NAME, shown.to_string()),
            Err(_) => Check::fail(
                NAME,
                format!("{shown} is not writable; give yourself the right to write to it"),
            ),
        },
    }
}

fn space(path: &Path) -> Check {
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

fn tokens(data: &DataFolder) -> Check {
    const NAME: &str = "tokens";
    let path = match config::token_file(Some(data), config::env) {
        Ok(path) => path,
        Err(stop) => return Check::fail(NAME, text(&stop)),
    };
    let meta = match std::fs::metadata(&path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Check::pass(NAME, format!("none yet; `evo up` writes {}", path.display()));
        }
        Err(error) => return Check::fail(NAME, format!("{}: {error}", path.display())),
    };
    if let Err(error) = Tokens::load(&path, &config::env) {
        return Check::fail(NAME, format!("{error:#}", error = anyhow::Error::new(error)));
    }
    let mode = meta.permissions().mode() & 0o777;
    let for_others = mode & 0o077;
    if for_others == 0 {
        Check::pass(NAME, format!("{} (mode {mode:o})", path.display()))
    } else {
        Check::fail(
            NAME,
            format!(
                "others can read {} (mode {mode:o}): chmod 600 it and, if the machine is shared, delete it for new tokens",
                path.display()
            ),
        )
    }
}

fn sources(data: &DataFolder) -> Check {
    const NAME: &str = "config/sources.toml";
    if !data.config_file("sources.toml").exists() {
        return Check::pass(NAME, "not there yet; `evo up` writes it");
    }
    match config::sources(data) {
        Ok(sources) => {
            let on = sources.iter().filter(|source| source.enabled).count();
            if on == 0 {
                Check::warn(NAME, "no source is enabled, so nothing will be learned")
            } else {
                Check::pass(NAME, format!("{on} of {} sources enabled", sources.len()))
            }
        }
        Err(stop) => Check::fail(NAME, text(&stop)),
    }
}

fn gateway(data: &DataFolder) -> Check {
    const NAME: &str = "config/gateway.toml";
    if !data.config_file("gateway.toml").exists() {
        return Check::pass(NAME, "not there yet; `evo up` writes it");
    }
    match config::gateway(data) {
        Ok(gateway) => Check::pass(NAME, providers(&gateway)),
        Err(stop) => Check::fail(NAME, text(&stop)),
    }
}

/// Which of the enabled providers have what they need. None is no fault: Evo works without a model.
fn providers(config: &evo_gateway::Config) -> String {
    let providers = &config.gateway.providers;
    let is_served = |provider: &&ProviderConfig| {
        matches!(provider.provider_type, ProviderType::OpenAiCompatible | ProviderType::Anthropic)
    };
    let has_key = |provider: &&ProviderConfig| {
        let keys = &provider.api_key_envs;
        keys.is_empty() || keys.iter().any(|name| config.provider_keys.contains_key(name))
    };
    let enabled: Vec<_> = providers.iter().filter(|provider| provider.enabled).collect();
    let mut text = format!("{} of {} providers enabled", enabled.len(), providers.len());
    let (served, later): (Vec<_>, Vec<_>) = enabled.into_iter().partition(is_served);
    let (usable, keyless): (Vec<_>, Vec<_>) = served.into_iter().partition(has_key);
    for (what, list) in
        [("usable", usable), ("without a key", keyless), ("of a type that is not served", later)]
    {
        if !list.is_empty() {
            let names: Vec<&str> = list.iter().map(|provider| provider.name.as_str()).collect();
            text = format!("{text}; {what}: {}", names.join(", "));
        }
    }
    text
}

fn evotown(data: &DataFolder) -> Check {
    const NAME: &str = "Evotown";
    match config::evotown(data) {
        Ok(None) => Check::pass(NAME, format!("{} is not set; nothing is reported", bridge::URL)),
        Ok(Some(_)) => Check::pass(NAME, "configured; `evo bridge status` says what is delivered"),
        Err(stop) => Check::fail(NAME, text(&stop)),
    }
}

async fn answers(name: &'static str, address: &str, instance: &Instance) -> Check {
    let Instance { pid, version, .. } = instance;
    evo_common::tls::install();
    let ask = async {
        let client = reqwest::Client::builder()
            .no_proxy()
            .timeout(std::time::Duration::from_secs(5))
            .build()?;
        client.get(format!("{address}/health")).send().await?.error_for_status()
    };
    match ask.await {
        Ok(_) => Check::pass(name, format!("evo {version} with pid {pid} answers at {address}")),
        Err(error) => Check::fail(
            name,
            format!(
                "pid {pid} does not answer at {address} ({error}); look into the logs, or end it with `kill {pid}`"
            ),
        ),
    }
}

fn port(name: &'static str, port: u16, option: &str) -> Check {
    match TcpListener::bind(config::loopback(port)) {
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

/// Opens the database as king does. The folder is taken meanwhile, so that nobody else writes.
async fn database(data: &DataFolder) -> Check {
    const NAME: &str = "database";
    let none = || Check::pass(NAME, "not there yet; `evo up` creates it");
    if !data.is_used() {
        return none();
    }
    let open = async {
        let _lock = data.open()?;
        let mut king = config::king(data)?;
        if matches!(&king.database, evo_king::Database::File(path) if !path.exists()) {
            return Ok(none());
        }
        king.listen = config::loopback(0);
        evo_king::App::start(king).await.map_err(|error| Stop::Failed(error.into()))?;
        Ok::<_, Stop>(Check::pass(NAME, "opens"))
    };
    match open.await {
        Ok(check) => check,
        Err(stop) => Check::fail(NAME, text(&stop)),
    }
}

#[cfg(test)]
mod tests {
    use evo_common::config::GatewayConfig;

    use super::*;

    #[test]
    fn providers_are_told_by_what_they_lack() {
        let provider = |name: &str, more: &str| {
            format!(
                r#"{{"name": "{name}", "base_url": "http://127.0.0.1:1", "enabled": true{more}}}"#
            )
        };
        let providers = [
            provider("local", ""),
            provider("far", r#", "api_key_envs": ["KEY_THAT_NOBODY_SETS"]"#),
            provider("later", r#", "provider_type": "google""#),
            provider("off", "").replace("true", "false"),
        ];
        let text = format!(
            r#"{{"server": {{"host": "127.0.0.1", "port": 1}}, "providers": [{}]}}"#,
            providers.join(",")
        );
        let gateway: GatewayConfig = serde_json::from_str(&text).unwrap();
        let config = evo_gateway::Config::new(gateway, &Tokens::generate()).unwrap();
        assert_eq!(
            super::providers(&config),
            "3 of 4 providers enabled; usable: local; without a key: far; of a type that is not served: later"
        );
    }
}
