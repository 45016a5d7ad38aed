//! What of the sandbox works on a machine, for people.

use evo_common::artifact::Files;
use serde::Serialize;

use super::{Ended, Isolation, Language, interpreter::Interpreter, policy::Layer, way::Active};

/// The program of a probe: it takes JSON and gives JSON, as every skill does.
pub(super) const PROBE: &str = "probe.py";
pub(super) const PROBE_INPUT: &[u8] = b"{\"number\": 20}";
const PROBE_CODE: &str =
    "import json, sys\nprint(json.dumps({'number': json.load(sys.stdin)['number'] + 1}))\n";

/// What of the sandbox works here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Whether skills with code are run.
    pub usable: bool,
    /// How their code is kept apart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub isolation: Option<Isolation>,
    /// Whether code can be given network, filtered by a proxy.
    pub network: bool,
    /// Every layer, and whether it is in place.
    pub layers: Vec<LayerReport>,
    /// The program that runs Python.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub python: Option<String>,
    /// Stricter ways that do not work here, and why.
    pub failures: Vec<String>,
    /// What to do, when something is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

/// One layer of the sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LayerReport {
    /// Its name: `landlock`.
    pub name: &'static str,
    /// Whether it is in place.
    pub active: bool,
    /// What there is to say about it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

impl Report {
    pub(super) fn usable(
        isolation: Isolation,
        interpreter: &Interpreter,
        active: Vec<Active>,
        failures: Vec<(Isolation, String)>,
    ) -> Self {
        let layers = Layer::ALL.map(|layer| {
            let found = active.iter().find(|active| active.layer == layer);
            LayerReport {
                name: layer.name(),
                active: found.is_some(),
                detail: found.map(|active| active.detail.clone()).unwrap_or_default(),
            }
        });
        let network = isolation.has_network();
        Self {
            usable: true,
            isolation: Some(isolation),
            network,
            layers: layers.to_vec(),
            python: Some(interpreter.program.display().to_string()),
            advice: (!network).then(|| advice(&failures)),
            failures: told(failures),
        }
    }

    pub(super) fn unusable(failures: Vec<(Isolation, String)>, advice: String) -> Self {
        let layer =
            |layer: Layer| LayerReport { name: layer.name(), active: false, detail: String::new() };
        Self {
            usable: false,
            isolation: None,
            network: false,
            layers: Layer::ALL.map(layer).to_vec(),
            python: None,
            failures: told(failures),
            advice: Some(advice),
        }
    }

    /// In a line.
    pub fn summary(&self) -> String {
        let Some(isolation) = self.isolation else {
            let reason = self.advice.as_deref().unwrap_or("no sandbox");
            return format!("skills with code are refused: {reason}");
        };
        let layer = |layer: &LayerReport| match layer.detail.as_str() {
            detail if layer.name == Layer::Landlock.name() => format!("{} {detail}", layer.name),
            _ => layer.name.to_owned(),
        };
        let (active, missing): (Vec<_>, Vec<_>) =
            self.layers.iter().partition(|layer| layer.active);
        let names = |layers: Vec<&LayerReport>| {
            layers.into_iter().map(layer).collect::<Vec<_>>().join(", ")
        };
        let mut text = format!("skills with code run in {}: {}", isolation.name(), names(active));
        if !missing.is_empty() {
            text = format!("{text}; missing: {}", names(missing));
        }
        if let Some(advice) = &self.advice {
            text = format!("{text}. {advice}");
        }
        text
    }
}

fn told(failures: Vec<(Isolation, String)>) -> Vec<String> {
    failures.into_iter().map(|(way, reason)| format!("{}: {reason}", way.name())).collect()
}

pub(super) fn probe_package() -> Files {
    Files::from([(PROBE.to_owned(), PROBE_CODE.as_bytes().to_vec())])
}

pub(super) fn is_right(ended: &Ended) -> bool {
    ended.code == Some(0) && ended.stdout.trim_ascii() == b"{\"number\": 21}"
}

pub(super) fn what_went_wrong(ended: &Ended) -> String {
    let Ended { code, signal, stderr, .. } = ended;
    let last = stderr.lines().last().unwrap_or_default();
    format!(
        "{} did not work in it (exit code {code:?}, signal {signal:?}): {last}",
        Language::Python3.program()
    )
}

/// What to do about ways that do not work, the last of which needs no namespaces.
pub(super) fn advice(failures: &[(Isolation, String)]) -> String {
    let reason = |way: Isolation| {
        failures.iter().find(|(failed, _)| *failed == way).map(|(_, reason)| reason.as_str())
    };
    let mut advice = Vec::new();
    if let Some(reason) = reason(Isolation::UserNamespace) {
        advice.push(format!(
            "User namespaces do not work here ({reason}), so skills have no network: set kernel.unprivileged_userns_clone=1 and kernel.apparmor_restrict_unprivileged_userns=0, or in a container run with a seccomp profile that allows unshare and mount"
        ));
    }
    if let Some(reason) = reason(Isolation::Plain) {
        advice.push(format!(
            "without namespaces both Landlock (Linux 5.13, in the kernel's list of security modules) and seccomp are needed: {reason}"
        ));
    }
    advice.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_told_with_what_to_do() {
        let failed = |way| (way, "EPERM".to_owned());
        let ways = vec![failed(Isolation::UserNamespace), failed(Isolation::Plain)];
        let report = Report::unusable(ways.clone(), advice(&ways));
        let text = report.summary();
        assert!(text.contains("refused") && text.contains("Landlock"), "{text}");
        assert!(text.contains("unprivileged_userns"), "{text}");
        assert_eq!(report.failures.len(), 2);
    }
}
