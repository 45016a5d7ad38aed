//! What a cycle may use up: how many candidates, and what models are asked. What is left over is
//! remembered, and comes first in the next cycle.

use std::collections::BTreeMap;

use evo_common::{
    api::RunKind,
    outcome::{Outcome, codes},
    stage::{Candidate, ModelBudget, ModelUsage},
};
use serde_json::Value;

use super::{Coordinator, Error, Result, state::Command};
use crate::{
    config::LearningConfig,
    memory::outcomes,
    store::{
        self, Connection,
        requests::{
            Request,
            spending::{self, Spent},
        },
        runs,
    },
};

/// What is left of a cycle's budget.
pub(super) struct Budget<'b> {
    config: &'b LearningConfig,
    spent: Spent,
}

/// What is left of a cycle's budget now.
pub(super) async fn of<'c>(
    coordinator: &'c Coordinator,
    connection: &Connection,
    cycle_id: &str,
) -> store::Result<Budget<'c>> {
    let spent = spending::of_cycle(connection, cycle_id).await?;
    Ok(Budget { config: &coordinator.parts.config.learning, spent })
}

impl Budget<'_> {
    /// What models may still be asked; none without a limit.
    pub(super) fn left(&self) -> Option<ModelBudget> {
        let LearningConfig { max_calls, max_tokens, max_usd, .. } = *self.config;
        let left = ModelBudget {
            calls: max_calls.map(|most| most.saturating_sub(self.spent.calls)),
            tokens: max_tokens.map(|most| most.saturating_sub(self.spent.tokens)),
            usd: max_usd.map(|most| (most - self.spent.usd).max(0.0)),
        };
        (left != ModelBudget::default()).then_some(left)
    }

    /// Which limit on what models are asked is reached, in words.
    fn used_up(&self) -> Option<String> {
        let LearningConfig { max_calls, max_tokens, max_usd, .. } = *self.config;
        let Spent { calls, tokens, usd, .. } = self.spent;
        let over = [
            max_calls
                .filter(|most| calls >= *most)
                .map(|most| format!("models were asked {calls} times, and max_calls is {most}")),
            max_tokens
                .filter(|most| tokens >= *most)
                .map(|most| format!("models took {tokens} tokens, and max_tokens is {most}")),
            max_usd
                .filter(|most| usd >= *most)
                .map(|most| format!("models cost {usd:.4} USD, and max_usd is {most}")),
        ];
        over.into_iter().flatten().next()
    }

    /// Why a candidate is left for the next cycle, if it is. One whose builder only compiles needs no
    /// model.
    pub(super) fn stops(&self, candidate: &Candidate, started: u32) -> Option<String> {
        let full = self.config.max_candidates.filter(|most| started >= *most);
        let why = match full {
            Some(most) => format!("this cycle has its {most} candidates (max_candidates)"),
            None if asks_no_model(candidate) => return None,
            None => self.used_up()?,
        };
        Some(told(&why))
    }

    /// The candidates in the order in which they are taken: those for which an earlier cycle had no
    /// budget left come first, the others as Learning ranked them.
    pub(super) async fn in_order<'c>(
        &self,
        connection: &Connection,
        requests: &BTreeMap<String, Request>,
        candidates: &'c [Candidate],
    ) -> store::Result<Vec<&'c Candidate>> {
        let mut ordered = Vec::with_capacity(candidates.len());
        // Without a limit nothing is left over.
        let limited = self.config.max_candidates.is_some();
        for candidate in candidates {
            let request = candidate.request_id.as_ref().and_then(|id| requests.get(id));
            let waited = limited
                && (request.is_some_and(|request| request.over_budget)
                    || outcomes::was_over_budget(connection, candidate).await?);
            ordered.push((!waited, candidate));
        }
        ordered.sort_by_key(|(later, _)| *later);
        Ok(ordered.into_iter().map(|(_, candidate)| candidate).collect())
    }
}

/// Whether its builder only compiles, or puts together what is in use.
fn asks_no_model(candidate: &Candidate) -> bool {
    candidate.deterministic || candidate.kind.reuses()
}

fn told(why: &str) -> String {
    format!("{why}; the next cycle takes it first, or set more in [learning] of king.toml")
}

/// A stage of a cycle's run has asked models: it is added up. Gives the cycle.
pub(super) async fn add(
    connection: &Connection,
    run: &runs::Run,
    output: &Value,
) -> store::Result<Option<String>> {
    let Ok(used) = serde_json::from_value::<ModelUsage>(output["usage"].clone()) else {
        return Ok(None);
    };
    let cycle = match run.kind {
        RunKind::Direct => None,
        RunKind::Cycle => Some(run.run_id.clone()),
        RunKind::Candidate => runs::cycle_of(connection, run).await?,
    };
    if let Some(cycle) = cycle.as_ref().filter(|_| used.calls > 0) {
        spending::add(connection, cycle, &used).await?;
    }
    Ok(cycle)
}

impl Coordinator {
    /// Leaves for the next cycle what would ask models although nothing is left for them. What a
    /// runner has in hand goes on.
    pub(super) async fn keep_budget(&self, connection: &Connection, cycle_id: &str) -> Result<()> {
        let budget = of(self, connection, cycle_id).await?;
        let Some(why) = budget.used_up() else { return Ok(()) };
        for run in runs::open_children(connection, cycle_id).await? {
            if run.candidate.as_ref().is_none_or(asks_no_model) {
                continue;
            }
            let outcome = Outcome::held(codes::OVER_BUDGET, told(&why));
            match self.command(connection, &run, &Command::Leave { outcome }).await {
                // It is past its builder, or with it.
                Ok(()) | Err(Error::Rejected(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn candidate(deterministic: bool) -> Candidate {
        serde_json::from_value(json!({
            "name": "n", "source": "s", "locator": "l", "description": "", "capabilities": [],
            "fingerprint": "f", "demand": 1.0, "deterministic": deterministic, "definition": {},
        }))
        .unwrap()
    }

    #[test]
    fn each_limit_stops_what_it_is_about() {
        let none = LearningConfig::default();
        let limits = [
            LearningConfig { max_calls: Some(3), ..none.clone() },
            LearningConfig { max_tokens: Some(100), ..none.clone() },
            LearningConfig { max_usd: Some(0.5), ..none.clone() },
        ];
        let below = Spent { calls: 2, tokens: 99, usd: 0.49, unpriced: 0 };
        let reached = Spent { calls: 3, tokens: 100, usd: 0.5, unpriced: 0 };
        for config in &limits {
            let before = Budget { config, spent: below };
            assert_eq!(before.stops(&candidate(false), 1_000), None, "{config:?}");
            assert!(!before.left().unwrap().is_used_up(), "{config:?}");
            let after = Budget { config, spent: reached };
            assert!(after.stops(&candidate(false), 0).is_some(), "{config:?}");
            assert_eq!(after.stops(&candidate(true), 0), None, "{config:?}");
            assert!(after.left().unwrap().is_used_up(), "{config:?}");
        }
        let free = Budget { config: &none, spent: reached };
        assert_eq!((free.stops(&candidate(false), 1_000), free.left()), (None, None));
        let two = LearningConfig { max_candidates: Some(2), ..none };
        let two = Budget { config: &two, spent: Spent::default() };
        assert_eq!(two.stops(&candidate(true), 1), None);
        assert!(two.stops(&candidate(true), 2).unwrap().contains("max_candidates"));
    }
}
