//! Whether a version that passed may become active without a person. Pure.

use evo_common::{
    api::RiskClass,
    stage::{Finding, Severity},
};

use crate::config::{ApprovalConfig, Leave};

/// What a version is, as far as its risk goes.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'f> {
    /// Whether its operation only reads.
    pub is_read: bool,
    /// Whether its source is one that an operator has configured.
    pub from_source: bool,
    /// Whether it brings code.
    pub has_code: bool,
    /// What the scan found.
    pub findings: &'f [Finding],
    /// Codes of findings that a person has overruled for this very package.
    pub overruled: &'f [String],
}

impl Facts<'_> {
    /// What kind of harm it could do.
    pub fn risk(&self) -> RiskClass {
        if self.has_code {
            RiskClass::Code
        } else if self.is_read && self.from_source {
            RiskClass::Read
        } else {
            RiskClass::Write
        }
    }

    /// A dangerous finding that nobody has overruled.
    pub fn danger(&self) -> Option<&Finding> {
        self.findings.iter().find(|finding| {
            finding.severity == Severity::High && !self.overruled.contains(&finding.code)
        })
    }
}

/// What is to be done with a version that passed. What is dangerous is never let through.
pub fn decide(config: ApprovalConfig, facts: &Facts<'_>) -> Leave {
    if facts.danger().is_some() {
        return Leave::Deny;
    }
    match facts.risk() {
        RiskClass::Read => config.read,
        RiskClass::Write => config.write,
        RiskClass::Code => config.code,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(is_read: bool, from_source: bool, has_code: bool) -> Facts<'static> {
        Facts { is_read, from_source, has_code, findings: &[], overruled: &[] }
    }

    #[test]
    fn only_reads_from_a_configured_source_need_nobody() {
        let config = ApprovalConfig::default();
        let table = [
            (facts(true, true, false), Leave::Auto),
            (facts(true, false, false), Leave::Ask),
            (facts(false, true, false), Leave::Ask),
            (facts(true, true, true), Leave::Ask),
        ];
        for (facts, expected) in table {
            assert_eq!(decide(config, &facts), expected, "{facts:?}");
        }
    }

    #[test]
    fn a_dangerous_finding_is_denied_unless_a_person_has_overruled_it() {
        let config = ApprovalConfig { read: Leave::Auto, write: Leave::Auto, code: Leave::Auto };
        let finding = |code: &str, severity| Finding {
            code: code.to_owned(),
            severity,
            file: "SKILL.md".to_owned(),
            line: None,
            message: String::new(),
        };
        let findings = [finding("a", Severity::Warning), finding("b", Severity::High)];
        let of = |overruled: &[String]| {
            decide(config, &Facts { findings: &findings, overruled, ..facts(true, true, false) })
        };
        assert_eq!(of(&[]), Leave::Deny);
        assert_eq!(of(&["a".to_owned()]), Leave::Deny);
        assert_eq!(of(&["b".to_owned()]), Leave::Auto);
    }
}
