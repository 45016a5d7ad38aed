//! Whether a version that passed may become active without a person. Pure.

use std::collections::BTreeSet;

use evo_common::{
    api::RiskClass,
    stage::{Finding, Severity},
};

use crate::config::{ApprovalConfig, Leave};

/// What a version is, as far as its risk goes.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'f> {
    /// Classes of all that a call of it could do: one, or those of the skills that it is made of.
    pub classes: &'f BTreeSet<RiskClass>,
    /// What the scan found.
    pub findings: &'f [Finding],
    /// Codes of findings that a person has overruled for this very package.
    pub overruled: &'f [String],
}

impl Facts<'_> {
    /// What kind of harm it could do: code if any of it is, else a write if any is.
    pub fn risk(&self) -> RiskClass {
        self.classes.last().copied().unwrap_or(RiskClass::Write)
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
    let leave = |class: &RiskClass| match class {
        RiskClass::Read => config.read,
        RiskClass::Write => config.write,
        RiskClass::Code => config.code,
    };
    // What is made of several kinds needs what each of them needs.
    facts.classes.iter().map(leave).max().unwrap_or(Leave::Ask)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(classes: &BTreeSet<RiskClass>) -> Facts<'_> {
        Facts { classes, findings: &[], overruled: &[] }
    }

    #[test]
    fn only_what_reads_all_through_needs_nobody() {
        use RiskClass::{Code, Read, Write};
        let code_auto = ApprovalConfig { code: Leave::Auto, ..ApprovalConfig::default() };
        let denies = ApprovalConfig { write: Leave::Deny, ..code_auto };
        for (classes, risk, leaves) in [
            (&[Read][..], Read, [Leave::Auto, Leave::Auto, Leave::Auto]),
            (&[Write], Write, [Leave::Ask, Leave::Ask, Leave::Deny]),
            (&[Read, Code], Code, [Leave::Ask, Leave::Auto, Leave::Auto]),
            (&[Write, Code], Code, [Leave::Ask, Leave::Ask, Leave::Deny]),
            (&[], Write, [Leave::Ask, Leave::Ask, Leave::Ask]),
        ] {
            let classes: BTreeSet<RiskClass> = classes.iter().copied().collect();
            let facts = facts(&classes);
            assert_eq!(facts.risk(), risk, "{classes:?}");
            for (config, leave) in [ApprovalConfig::default(), code_auto, denies].iter().zip(leaves)
            {
                assert_eq!(decide(*config, &facts), leave, "{classes:?} {config:?}");
            }
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
        let read = BTreeSet::from([RiskClass::Read]);
        let findings = [finding("a", Severity::Warning), finding("b", Severity::High)];
        let of = |overruled: &[String]| {
            decide(config, &Facts { findings: &findings, overruled, ..facts(&read) })
        };
        assert_eq!(of(&[]), Leave::Deny);
        assert_eq!(of(&["a".to_owned()]), Leave::Deny);
        assert_eq!(of(&["b".to_owned()]), Leave::Auto);
    }
}
