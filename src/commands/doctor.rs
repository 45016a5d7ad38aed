//! `evo doctor`: what is in order, what is not, and what to do about it. Most of it is king's own.

use evo_agents::sandbox::{Sandbox, Settings};
use evo_common::config::{ProviderConfig, ProviderType};
use evo_evotown_bridge::config as bridge;
use evo_king::doctor::{self, Check, Findings};

use crate::{
    cli::DoctorArgs,
    config,
    instance::{DataFolder, Instance},
    report::{print, print_json, table},
    stop::{Result, Stop},
};

pub(super) async fn run(args: DoctorArgs) -> Result<()> {
    let data = config::data_folder(args.data.data.clone(), config::env)?;
    let findings = Findings::new(data.path(), examine(&data, &args).await);
    let ok = findings.ok;
    if args.format.json {
        print_json(&findings)?;
    } else {
        let rows = findings
            .checks
            .into_iter()
            .map(|check| vec![check.mark.to_string(), check.name.to_owned(), check.message])
            .collect();
        print(&table(&["", "what", "finding"], &[], rows))?;
    }
    if ok { Ok(()) } else { Err(Stop::Told) }
}

async fn examine(data: &DataFolder, args: &DoctorArgs) -> Vec<Check> {
    let options = doctor::Options {
        data: data.path().to_owned(),
        fix: args.fix,
        king_port: args.king_port.or_else(|| Some(config::king_port(data))),
    };
    let instance = match data.running().await {
        Ok(instance) => instance,
        Err(stop) => {
            // Nothing else can be looked at.
            let mut checks = doctor::examine_files(&options);
            checks.push(Check::fail("running instance", text(&stop)));
            return checks;
        }
    };
    let mut checks = doctor::examine(&options).await;
    checks.push(gateway(data));
    checks.push(evotown(data));
    checks.push(sandbox().await);
    match &instance {
        Some(instance) => {
            checks.push(answers("running gateway", &instance.gateway, instance).await);
        }
        None => {
            checks.push(Check::pass("running instance", "none; `evo up` starts one"));
            let port = args.gateway_port.unwrap_or_else(|| config::gateway_port(data));
            checks.push(doctor::port("gateway's port", port, "--gateway-port"));
        }
    }
    checks
}

fn text(stop: &Stop) -> String {
    match stop {
        Stop::Usage(error) | Stop::Failed(error) => format!("{error:#}"),
        Stop::Told | Stop::Interrupted => String::new(),
    }
}

/// What the gateway makes of its file, which [`doctor::examine`] has read, and of the environment.
fn gateway(data: &DataFolder) -> Check {
    const NAME: &str = "providers";
    match config::gateway(data) {
        Ok(gateway) => Check::pass(NAME, providers(&gateway)),
        // What is wrong with the file is told already.
        Err(stop) => Check::warn(NAME, text(&stop)),
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

/// What keeps skills with code in their bounds: a small program is run in it. A machine without it is
/// in order, and runs no such skills.
async fn sandbox() -> Check {
    const NAME: &str = "sandbox";
    let settings = Settings::load(&evo_agents::config::environment);
    let report = Sandbox::new(settings).probe().await;
    let is_whole = report.usable && report.network;
    if is_whole { Check::pass(NAME, report.summary()) } else { Check::warn(NAME, report.summary()) }
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

#[cfg(test)]
mod tests {
    use evo_common::{config::GatewayConfig, tokens::Tokens};

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
