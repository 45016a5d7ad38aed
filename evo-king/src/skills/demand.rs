//! How much something is asked for: Σ exp(−age / 7 days) over each time. Pure.
//!
//! It is kept as `ln(demand) + time / 7 days`, its rank. All demands fade alike, so ranks of different
//! times can be compared, and an index over them stays right without a clock.

use evo_common::clock::Timestamp;

/// In so many milliseconds a demand falls to its e-th part.
const FADES_MS: f64 = 7.0 * 24.0 * 3_600_000.0;

fn weeks(at: Timestamp) -> f64 {
    at.0 as f64 / FADES_MS
}

/// The rank of something that is asked for now for the first time, with this weight.
pub(crate) fn first(weight: f64, now: Timestamp) -> f64 {
    weight.max(f64::MIN_POSITIVE).ln() + weeks(now)
}

/// The rank when it is asked for once more.
pub(crate) fn more(rank: f64, weight: f64, now: Timestamp) -> f64 {
    first(at(rank, now) + weight, now)
}

/// The demand now.
pub(crate) fn at(rank: f64, now: Timestamp) -> f64 {
    (rank - weeks(now)).exp()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY: i64 = 24 * 3_600_000;
    const START: i64 = 1_790_000_000_000;

    #[test]
    fn demand_is_the_sum_over_each_time() {
        let rank = first(1.0, Timestamp(START));
        assert!((at(rank, Timestamp(START)) - 1.0).abs() < 1e-9);
        let rank = more(rank, 1.0, Timestamp(START + 7 * DAY));
        let expected = 1.0 + (-1.0_f64).exp();
        assert!((at(rank, Timestamp(START + 7 * DAY)) - expected).abs() < 1e-9);
        let later = at(rank, Timestamp(START + 21 * DAY));
        assert!((later - expected * (-2.0_f64).exp()).abs() < 1e-9);
    }

    proptest! {
        /// What is greater once is greater for ever.
        #[test]
        fn ranks_compare_like_demands(
            a in 0_i64..100, b in 0_i64..100, more_a in 1_u32..20, more_b in 1_u32..20, now in 100_i64..200,
        ) {
            let asked = |day: i64, times: u32| {
                let at = Timestamp(START + day * DAY);
                (1..times).fold(first(1.0, at), |rank, _| more(rank, 1.0, at))
            };
            let (a, b) = (asked(a, more_a), asked(b, more_b));
            let now = Timestamp(START + now * DAY);
            prop_assert_eq!(a > b, at(a, now) > at(b, now));
        }
    }
}
