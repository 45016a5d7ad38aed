//! `evo health`: whether a service, or a runner, is well. Made for health checks in containers,
//! whose image has no curl.

use std::time::Duration;

use anyhow::Context as _;
use evo_common::{
    api::Health,
    tokens::{Secret, Tokens},
};

use crate::{
    cli::HealthArgs,
    client::Client,
    config,
    report::print,
    stop::{Result, Stop},
};

/// A service that takes longer is not well.
const PATIENCE: Duration = Duration::from_secs(4);
/// What a runner is whose work goes on.
const WELL: [&str; 2] = ["ready", "busy"];

/// Exit code 0 when all is well, 1 when it is not or nobody answers.
pub(super) async fn run(args: HealthArgs) -> Result<()> {
    let (is_well, finding) = tokio::time::timeout(PATIENCE, ask(&args)).await.map_err(|_| {
        Stop::failed(format!("{} gives no answer within {} s", args.url, PATIENCE.as_secs()))
    })??;
    if is_well { print(&format!("{finding}\n")) } else { Err(Stop::failed(finding)) }
}

async fn ask(args: &HealthArgs) -> Result<(bool, String)> {
    let url = &args.url;
    let client = |token| Client::new(url.as_str(), token).context("no HTTP client");
    let Some(id) = &args.agent else {
        let asked = client(Secret::default())?.health().await;
        let Health { status, service, version } = asked.map_err(anyhow::Error::new)?;
        return Ok((status == "ok", format!("{service} {version} at {url}: {status}")));
    };
    let file = config::token_file(None, config::env)?;
    let tokens = Tokens::load(&file, &config::env).map_err(|error| Stop::Usage(error.into()))?;
    let list = client(tokens.viewer)?.agents().await.map_err(anyhow::Error::new)?;
    let agent = list.agents.into_iter().find(|agent| agent.agent_id == *id);
    Ok(agent.map_or_else(
        || (false, format!("king at {url} knows no agent {id}")),
        |agent| (WELL.contains(&&*agent.status), format!("{id} is {}", agent.status)),
    ))
}
