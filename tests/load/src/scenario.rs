//! What every scenario of every service is told as: one JSON object.

use std::{collections::BTreeMap, fmt::Write as _};

use serde::Serialize;

/// One scenario.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Scenario {
    /// Its name.
    pub scenario: String,
    /// How many operations were made.
    pub size: usize,
    pub ops_per_s: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    /// Processor time of what is measured.
    pub cpu_ms_per_op: f64,
    /// Highest resident memory of what is measured.
    pub rss_mb: f64,
    /// Operations that came to no end, or to a wrong one.
    pub failed: u64,
    /// Accepted operations of which the books know no end.
    pub lost: u64,
    /// Operations that were applied more than once.
    pub doubled: u64,
    /// What the machine could do in the same minutes, or others do on it.
    pub limits: BTreeMap<&'static str, f64>,
    /// Load average over a minute before it began.
    pub load: f64,
    /// Its operations per second, divided by nginx's in the same round.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio_to_nginx: Option<f64>,
    /// Its operations per second, divided by those without any proxy in the same round.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio_to_direct: Option<f64>,
    /// What only this scenario has.
    pub more: BTreeMap<&'static str, f64>,
    /// Figures over time, or round by round.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub series: BTreeMap<&'static str, Vec<f64>>,
    /// What went wrong the first time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_failure: Option<String>,
}

impl Scenario {
    /// Whether every operation came to its one end.
    pub fn is_clean(&self) -> bool {
        (self.failed, self.lost, self.doubled) == (0, 0, 0)
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut text = format!(
            "{}: {} ops, {:.0}/s, p50 {:.2} ms, p99 {:.2} ms, {:.3} CPU-ms each, {:.1} MB; failed {}, \
             lost {}, doubled {}; load {:.2}\n",
            self.scenario,
            self.size,
            self.ops_per_s,
            self.p50_ms,
            self.p99_ms,
            self.cpu_ms_per_op,
            self.rss_mb,
            self.failed,
            self.lost,
            self.doubled,
            self.load,
        );
        for (what, figures) in [("", &self.more), ("limit ", &self.limits)] {
            for (name, figure) in figures {
                writeln!(text, "  {what}{name}: {figure:.2}").expect("a String takes it");
            }
        }
        for (name, figures) in &self.series {
            let figures: Vec<String> = figures.iter().map(|f| format!("{f:.1}")).collect();
            writeln!(text, "  {name}: {}", figures.join(" ")).expect("a String takes it");
        }
        if let Some(failure) = &self.first_failure {
            writeln!(text, "  first failure: {failure}").expect("a String takes it");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::Scenario;

    #[test]
    fn the_shape_has_every_field_that_was_agreed_on() {
        let scenario = Scenario { scenario: "king c=1".to_owned(), ..Scenario::default() };
        assert!(scenario.is_clean());
        assert!(!Scenario { lost: 1, ..scenario.clone() }.is_clean());
        let json = serde_json::to_value(&scenario).unwrap();
        let fields = [
            "scenario",
            "size",
            "ops_per_s",
            "p50_ms",
            "p99_ms",
            "cpu_ms_per_op",
            "rss_mb",
            "failed",
            "lost",
            "doubled",
            "limits",
            "load",
        ];
        for field in fields {
            assert!(json.get(field).is_some(), "{field}");
        }
    }
}
