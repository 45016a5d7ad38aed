//! How the parts of a running Evo are, asked over HTTP as anybody else would.

use std::time::Duration;

use evo_evotown_bridge::Health;
use serde::Serialize;

use crate::{
    client::{self, Client},
    progress::say,
};

/// How long a part may take to say how it is.
const PATIENCE: Duration = Duration::from_secs(3);

/// How long nothing is said of waiting for Evotown.
const QUIETLY: Duration = Duration::from_secs(2);

/// How one part of Evo is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Component {
    /// `king`, `gateway`, `bridge`, or the id of a runner.
    pub(crate) name: String,
    /// `ok`; `ready`, `busy` and so on for a runner; `off`, `behind` or `unreachable`.
    pub(crate) status: String,
    /// Base URL, of those that have one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) address: Option<String>,
    /// More, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) detail: Option<String>,
}

impl Component {
    /// A part in a state.
    pub(crate) fn new(name: impl Into<String>, status: impl Into<String>) -> Self {
        Self { name: name.into(), status: status.into(), address: None, detail: None }
    }

    /// The same with more words.
    #[must_use]
    pub(crate) fn because(self, detail: impl Into<String>) -> Self {
        Self { detail: Some(detail.into()), ..self }
    }

    /// Whether nothing is wrong with it.
    fn is_well(&self) -> bool {
        matches!(self.status.as_str(), "ok" | "ready" | "busy" | "off")
    }
}

/// Asks king, the gateway and, through king, every runner.
pub(crate) async fn examine(king: &Client, gateway: &Client) -> Vec<Component> {
    let (king_is, gateway_is, agents) = tokio::join!(
        service("king", king),
        service("gateway", gateway),
        tokio::time::timeout(PATIENCE, king.agents()),
    );
    let mut components = vec![king_is, gateway_is];
    match agents {
        Ok(Ok(list)) => components.extend(
            list.agents.into_iter().map(|agent| Component::new(agent.agent_id, agent.status)),
        ),
        Ok(Err(error)) => {
            components.push(Component::new("runners", "unreachable").because(error.to_string()));
        }
        Err(_) => components.push(Component::new("runners", "unreachable").because(SILENT)),
    }
    components
}

const SILENT: &str = "no answer within 3 s";

async fn service(name: &str, client: &Client) -> Component {
    let component = match tokio::time::timeout(PATIENCE, client.health()).await {
        Ok(Ok(health)) => Component::new(name, health.status),
        Ok(Err(error @ client::Error::Refused { .. })) => {
            Component::new(name, "error").because(error.to_string())
        }
        Ok(Err(error)) => Component::new(name, "unreachable").because(error.to_string()),
        Err(_) => Component::new(name, "unreachable").because(SILENT),
    };
    Component { address: Some(client.base().to_owned()), ..component }
}

/// How the bridge is, after at most `patience` for what it has yet to deliver.
pub(crate) async fn bridge(health: Option<&Health>, patience: Duration) -> Component {
    const NAME: &str = "bridge";
    let Some(health) = health else {
        let variable = evo_evotown_bridge::config::URL;
        return Component::new(NAME, "off").because(format!("{variable} is not set"));
    };
    let mut settled = health.settled(patience.min(QUIETLY)).await;
    if !settled && patience > QUIETLY {
        say(format!("Waiting up to {} s for Evotown to take the reports …", patience.as_secs()));
        settled = health.settled(patience).await;
    }
    let report = health.report();
    let delivered = format!("{} delivered", report.delivered);
    let waits_by_itself = patience.is_zero() && report.last_error.is_none();
    if report.parked == 0 && (settled || waits_by_itself) {
        return Component::new(NAME, "ok").because(delivered);
    }
    let mut detail = format!("{delivered}, {} waiting, {} refused", report.backlog, report.parked);
    if let Some(error) = report.last_error {
        detail = format!("{detail}: {error}");
    }
    Component::new(NAME, "behind").because(detail)
}

/// One line for people: what is well in short, what is not with its reason.
pub(crate) fn line(components: &[Component]) -> String {
    let ready = components.iter().filter(|it| matches!(it.status.as_str(), "ready" | "busy"));
    let mut parts: Vec<String> = Vec::new();
    let runners = ready.count();
    for component in components {
        let Component { name, status, detail, .. } = component;
        match (component.is_well(), status.as_str(), detail) {
            (true, "ready" | "busy", _) => {}
            (true, "off", _) | (_, _, None) => parts.push(format!("{name} {status}")),
            (_, _, Some(detail)) => parts.push(format!("{name} {status} ({detail})")),
        }
    }
    if runners > 0 {
        parts.push(format!("{runners} runners ready"));
    }
    format!("Components: {}", parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_names_what_is_not_well() {
        let parts = [
            Component::new("king", "ok"),
            Component::new("gateway", "unreachable").because("no answer within 3 s"),
            Component::new("evo-learning", "ready"),
            Component::new("evo-user", "busy"),
            Component::new("evo-building", "offline"),
            Component::new("bridge", "off").because("EVO_EVOTOWN_URL is not set"),
        ];
        assert_eq!(
            line(&parts),
            "Components: king ok, gateway unreachable (no answer within 3 s), evo-building offline, bridge off, 2 runners ready"
        );
    }
}
