//! Which runner gets the next attempt: of the ready ones of the right role, the one with the most
//! free capacity. Pure.

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
}

impl Slots {
    /// The free places, given how many attempts each agent has.
    pub fn new(ready: Vec<Ready>, leased: &[(String, u32)]) -> Self {
        let slots = ready
            .into_iter()
            .map(|ready| {
                let taken = leased
                    .iter()
                    .find(|(agent_id, _)| *agent_id == ready.agent_id)
                    .map_or(0, |(_, taken)| *taken);
                let free = ready.capacity.saturating_sub(taken);
                (ready, free)
            })
            .collect();
        Self { slots }
    }

    /// How many attempts of a stage can be given out.
    pub fn free(&self, stage: PipelineStage) -> u32 {
        self.slots.iter().filter(|(ready, _)| ready.stage == stage).map(|(_, free)| free).sum()
    }

    /// Takes a place for an attempt of a stage; gives the runner.
    pub fn take(&mut self, stage: PipelineStage) -> Option<String> {
        let (ready, free) = self
            .slots
            .iter_mut()
            .filter(|(ready, free)| ready.stage == stage && *free > 0)
            .max_by_key(|(_, free)| *free)?;
        *free -= 1;
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
            &[("b".to_owned(), 2), ("gone".to_owned(), 5)],
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
    fn a_runner_with_more_than_its_capacity_has_no_free_place() {
        let slots =
            Slots::new(vec![ready("a", PipelineStage::Building, 1)], &[("a".to_owned(), 4)]);
        assert_eq!(slots.free(PipelineStage::Building), 0);
    }
}
