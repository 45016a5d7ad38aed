//! Which cases a builder may see. King splits them with a key that nobody else has, so that
//! neither a source nor a runner can predict on which cases a candidate will be judged.

use evo_common::case::Split;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// From this many cases on a case is a trial of its own; with fewer, cases are repeated.
pub const MANY: usize = 50;
/// Percentage of the cases that is held out.
const HOLDOUT_PERCENT: u8 = 40;

/// Says for each case id, in the order given, which part of the evidence it serves.
///
/// With [`MANY`] cases each one is held out by its own HMAC. With fewer, all of them serve both
/// parts if the builder is deterministic (it can't have learned a case by heart); else 40 % of
/// them, rounded up and at least one, are held out in the order of their HMACs.
pub fn split<C: AsRef<str>>(case_ids: &[C], deterministic: bool, key: &[u8]) -> Vec<Split> {
    if case_ids.len() >= MANY {
        let part = |case: &C| {
            if percentile(&mac(key, case.as_ref())) < HOLDOUT_PERCENT {
                Split::Holdout
            } else {
                Split::Train
            }
        };
        return case_ids.iter().map(part).collect();
    }
    if deterministic {
        return vec![Split::Both; case_ids.len()];
    }
    let mut order: Vec<([u8; 32], usize)> =
        case_ids.iter().enumerate().map(|(index, case)| (mac(key, case.as_ref()), index)).collect();
    order.sort_unstable();
    let held_out = (case_ids.len() * usize::from(HOLDOUT_PERCENT)).div_ceil(100);
    let mut parts = vec![Split::Train; case_ids.len()];
    for (_, index) in order.into_iter().take(held_out) {
        parts[index] = Split::Holdout;
    }
    parts
}

fn mac(key: &[u8], case_id: &str) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.update(case_id.as_bytes());
    mac.finalize().into_bytes().into()
}

/// The HMAC, read as one big-endian number, modulo 100.
fn percentile(mac: &[u8; 32]) -> u8 {
    let rest = mac.iter().fold(0_u32, |rest, byte| (rest * 256 + u32::from(*byte)) % 100);
    u8::try_from(rest).expect("a rest modulo 100 fits")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ids(count: usize) -> Vec<String> {
        (0..count).map(|i| format!("case-{i}")).collect()
    }

    fn count(parts: &[Split], wanted: Split) -> usize {
        parts.iter().filter(|part| **part == wanted).count()
    }

    #[test]
    fn few_cases_of_a_deterministic_builder_serve_both() {
        for cases in [0, 1, 5, 49] {
            assert_eq!(split(&ids(cases), true, b"key"), vec![Split::Both; cases]);
        }
    }

    #[test]
    fn few_cases_of_another_builder_are_held_out_to_forty_percent_rounded_up() {
        for (cases, held_out) in [(0, 0), (1, 1), (2, 1), (3, 2), (5, 2), (6, 3), (10, 4), (49, 20)]
        {
            let parts = split(&ids(cases), false, b"key");
            assert_eq!(count(&parts, Split::Holdout), held_out, "of {cases}");
            assert_eq!(count(&parts, Split::Train), cases - held_out, "of {cases}");
        }
    }

    #[test]
    fn many_cases_are_split_alike_for_every_builder() {
        let parts = split(&ids(2_000), false, b"key");
        assert_eq!(parts, split(&ids(2_000), true, b"key"));
        assert_eq!(count(&parts, Split::Both), 0);
        assert!((740..860).contains(&count(&parts, Split::Holdout)));
    }

    #[test]
    fn the_rest_is_that_of_the_whole_number() {
        let mut one = [0; 32];
        one[31] = 1;
        assert_eq!(percentile(&one), 1);
        let mut large = [0; 32];
        large[30] = 1; // 256
        assert_eq!(percentile(&large), 56);
        assert_eq!(percentile(&[0xff; 32]), 35); // 2^256 − 1
    }

    proptest! {
        /// A case's part depends on the key and on nothing that a source controls except its id.
        #[test]
        fn with_many_cases_the_part_of_a_case_does_not_depend_on_its_neighbours(
            extra in 0_usize..30, key in proptest::collection::vec(any::<u8>(), 0..80),
        ) {
            let all = ids(MANY + extra);
            let mut reversed = all.clone();
            reversed.reverse();
            let mut parts = split(&reversed, true, &key);
            parts.reverse();
            prop_assert_eq!(&parts, &split(&all, false, &key));
            prop_assert_eq!(&split(&all[..MANY], false, &key)[..], &parts[..MANY]);
        }

        #[test]
        fn with_few_cases_the_order_does_not_matter(cases in 1_usize..MANY, key in any::<[u8; 16]>()) {
            let all = ids(cases);
            let mut reversed = all.clone();
            reversed.reverse();
            let mut parts = split(&reversed, false, &key);
            parts.reverse();
            prop_assert_eq!(&parts, &split(&all, false, &key));
            prop_assert!(count(&parts, Split::Holdout) >= 1);
        }
    }

    #[test]
    fn another_key_splits_otherwise() {
        assert_ne!(split(&ids(100), true, b"one"), split(&ids(100), true, b"two"));
    }
}
