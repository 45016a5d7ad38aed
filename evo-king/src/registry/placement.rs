//! Which runner gets the next attempt: of the ready ones of the right role, the one with the most
//! free capacity. Pure.

use std::collections::BTreeMap;

use evo_common::messages::PipelineStage;

/// A runner that may be given work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    /// Who.
    pub agent_id: String,
    /// The stage that it serves.
    pub stage: PipelineStage,
    /// How many attempts it takes at the same time.
    pub capacity: u32,
}

/// Free places of the ready runners.
#[derive(Debug, Clone)]
pub struct Slots {
    slots: Vec<(Ready, u32)>,
    /// How many more attempts of a stage may be given out, where that is limited.
    left: BTreeMap<PipelineStage, u32>,
}

impl Slots {
    /// The free places, given how many attempts of each stage each agent has, and how many of each
    /// stage may be given out at the same time.
    pub fn new(
        ready: Vec<Ready>,
        leased: &[(String, PipelineStage, u32)],
        limit: impl Fn(PipelineStage) -> Option<u32>,
    ) -> Self {
        let left = PipelineStage::ALL
            .into_iter()
            .filter_map(|stage| {
                let taken: u32 =
                    leased.iter().filter(|(_, of, _)| *of == stage).map(|(.., taken)| taken).sum();
                Some((stage, limit(stage)?.saturating_sub(taken)))
            })
            .collect();
        let slots = ready
            .into_iter()
            .map(|ready| {
                let taken: u32 = leased
                    .iter()
                    .filter(|(agent_id, ..)| *agent_id == ready.agent_id)
                    .map(|(.., taken)| taken)
                    .sum();
                let free = ready.capacity.saturating_sub(taken);
                (ready, free)
            })
            .collect();
        Self { slots, left }
    }

    /// How many attempts of a stage can be given out.
    pub fn free(&self, stage: PipelineStage) -> u32 {
        let free = self.slots.iter().filter(|(ready, _)| ready.stage == stage);
        let free = free.fold(0_u32, |sum, (_, free)| sum.saturating_add(*free));
        self.left.get(&stage).copied().unwrap_or(u32::MAX).min(free)
    }

    /// Takes a place for an attempt of a stage; gives the runner.
    pub fn take(&mut self, stage: PipelineStage) -> Option<String> {
        if self.left.get(&stage) == Some(&0) {
            return None;
        }
        let (ready, free) = self
            .slots
            .iter_mut()
            .filter(|(ready, free)| ready.stage == stage && *free > 0)
            .max_by_key(|(_, free)| *free)?;
        *free -= 1;
        if let Some(left) = self.left.get_mut(&stage) {
            *left -= 1;
        }
        Some(ready.agent_id.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready(agent_id: &str, stage: PipelineStage, capacity: u32) -> Ready {
        Ready { agent_id: agent_id.to_owned(), stage, capacity }
    }

    #[test]
    fn the_least_loaded_runner_of_the_role_is_taken_until_all_are_full() {
        let mut slots = Slots::new(
            vec![
                ready("a", PipelineStage::Building, 2),
                ready("b", PipelineStage::Building, 3),
                ready("c", PipelineStage::Evaluation, 9),
            ],
            &[
                ("b".to_owned(), PipelineStage::Building, 2),
                ("gone".to_owned(), PipelineStage::Building, 5),
            ],
            |_| None,
        );
        assert_eq!(slots.free(PipelineStage::Building), 3);
        let first = slots.take(PipelineStage::Building);
        assert_eq!(first.as_deref(), Some("a"));
        let rest: Vec<_> = std::iter::from_fn(|| slots.take(PipelineStage::Building)).collect();
        assert_eq!(rest.len(), 2);
        assert!(rest.contains(&"a".to_owned()) && rest.contains(&"b".to_owned()));
        assert_eq!(slots.take(PipelineStage::PreLoad), None);
    }

    #[test]
    fn places_beyond_count_are_as_many_as_can_be_counted() {
        let ready = ["a", "b"].map(|agent| ready(agent, PipelineStage::Building, u32::MAX));
        let slots = Slots::new(ready.to_vec(), &[], |_| None);
        assert_eq!(slots.free(PipelineStage::Building), u32::MAX);
    }

    #[test]
    fn a_runner_with_more_than_its_capacity_has_no_free_place() {
        let slots = Slots::new(
            vec![ready("a", PipelineStage::Building, 1)],
            &[("a".to_owned(), PipelineStage::Building, 4)],
            |_| None,
        );
        assert_eq!(slots.free(PipelineStage::Building), 0);
    }

    #[test]
    fn a_limit_holds_over_all_runners_of_a_stage_also_those_that_are_gone() {
        let ready = [PipelineStage::Building, PipelineStage::Evaluation]
            .map(|stage| ready(stage.as_str(), stage, 8));
        let leased = [("gone".to_owned(), PipelineStage::Building, 2)];
        let limit = |stage| (stage == PipelineStage::Building).then_some(3);
        let mut slots = Slots::new(ready.to_vec(), &leased, limit);
        assert_eq!(slots.free(PipelineStage::Building), 1);
        assert!(slots.take(PipelineStage::Building).is_some());
        assert_eq!(slots.take(PipelineStage::Building), None);
        assert_eq!(slots.free(PipelineStage::Evaluation), 8);
    }
}
