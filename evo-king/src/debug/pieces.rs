//! Puts pieces in order that come in any.

use std::collections::BTreeMap;

/// Most pieces that wait for an earlier one.
const MOST: usize = 512;

/// The pieces of one answer.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    next: u32,
    early: BTreeMap<u32, String>,
}

impl Pieces {
    /// Takes a piece in; gives what can be shown now, in order. A piece that was shown is dropped.
    /// When too many wait, the missing ones are given up.
    pub(super) fn add(&mut self, index: u32, text: String) -> Vec<String> {
        if index < self.next {
            return Vec::new();
        }
        self.early.insert(index, text);
        if self.early.len() > MOST
            && let Some(first) = self.early.keys().next()
        {
            self.next = *first;
        }
        let mut ready = Vec::new();
        while let Some(text) = self.early.remove(&self.next) {
            self.next += 1;
            ready.push(text);
        }
        ready
    }

    /// What is left when no more comes.
    pub(super) fn rest(&mut self) -> Vec<String> {
        std::mem::take(&mut self.early).into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_order_gives_the_text(
            order in Just((0..40_u32).collect::<Vec<_>>()).prop_shuffle(),
            twice in prop::collection::vec(0..40_u32, 0..10),
        ) {
            let mut pieces = Pieces::default();
            let mut shown = Vec::new();
            for index in order.into_iter().chain(twice) {
                shown.extend(pieces.add(index, index.to_string()));
            }
            let expected: Vec<String> = (0..40).map(|index: u32| index.to_string()).collect();
            prop_assert_eq!(shown, expected);
        }
    }

    #[test]
    fn a_lost_piece_holds_nothing_up_for_ever() {
        let mut pieces = Pieces::default();
        let mut shown = Vec::new();
        for index in 1..=600 {
            shown.extend(pieces.add(index, index.to_string()));
        }
        assert_eq!(shown.len(), 600);
        assert!(pieces.add(602, "late".to_owned()).is_empty());
        assert_eq!(pieces.rest(), ["late"]);
    }
}
