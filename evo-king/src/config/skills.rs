//! What becomes of skills after the decision: the table `skills` of `king.toml`.

use evo_common::config::load::Fault;
use serde::Deserialize;

/// What becomes of skills after the decision.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SkillsConfig {
    /// Who may put versions into use.
    pub approval: ApprovalConfig,
    /// How a new version takes over.
    pub canary: CanaryConfig,
    /// What becomes of a skill whose only version fails in use.
    pub failing: Failing,
    /// After so many days without a call a skill goes to the archive; 0 keeps it.
    pub unused_days: u32,
}

impl Default for SkillsConfig {
    fn default() -> Self {
        Self {
            approval: ApprovalConfig::default(),
            canary: CanaryConfig::default(),
            failing: Failing::Flag,
            unused_days: 30,
        }
    }
}

/// Whether a version that passed may become active by itself, the strictest last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Leave {
    /// At once.
    Auto,
    /// When a person says so.
    Ask,
    /// Never.
    Deny,
}

/// Who may put versions into use, by what harm they could do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ApprovalConfig {
    /// What reads over HTTP from a source that is configured.
    pub read: Leave,
    /// What may change something, or whose source is not configured.
    pub write: Leave,
    /// What brings code.
    pub code: Leave,
}

impl Default for ApprovalConfig {
    fn default() -> Self {
        Self { read: Leave::Auto, write: Leave::Ask, code: Leave::Ask }
    }
}

/// How a new version takes over from the one in use.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CanaryConfig {
    /// Percentages of the calls that it gets, one after the other; without any it gets all at once.
    pub shares: Vec<u8>,
    /// Reports that it takes to go on.
    pub reports: u32,
    /// How long each share lasts at least.
    pub window_ms: u64,
    /// Fewest reports with which it goes on where calls are few, …
    pub least_reports: u32,
    /// … after so many times the window.
    pub patience: u32,
}

impl Default for CanaryConfig {
    fn default() -> Self {
        Self {
            shares: vec![10, 50],
            reports: 20,
            window_ms: 24 * 3_600_000,
            least_reports: 5,
            patience: 7,
        }
    }
}

/// What becomes of a skill whose only version fails in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Failing {
    /// It stays, and a person is told.
    Flag,
    /// It goes to the archive.
    Retire,
}

impl SkillsConfig {
    /// Adds what is wrong.
    pub(super) fn check(&self, faults: &mut Vec<Fault>) {
        let canary = &self.canary;
        let shares = &canary.shares;
        if !shares.is_sorted_by(|a, b| a < b) || shares.iter().any(|s| !(1..=99).contains(s)) {
            let message = format!("it is {shares:?}; write growing percentages from 1 to 99");
            faults.push(Fault::new("skills.canary.shares", message));
        }
        for (key, value) in [
            ("skills.canary.reports", canary.reports),
            ("skills.canary.least_reports", canary.least_reports),
            ("skills.canary.patience", canary.patience),
        ] {
            if value == 0 {
                faults.push(Fault::new(key, "it is 0; it must be at least 1"));
            }
        }
    }
}
