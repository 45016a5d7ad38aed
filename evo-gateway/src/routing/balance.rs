//! Who of several that serve a model alike is asked first.

use evo_common::config::Balance;

/// Puts the one that is asked first to the front, and leaves the others in their order. `weight` says
/// each one's share, `load` what a request that goes there has to expect; `random` gives a number from 0
/// up to, but not including, 1.
pub(crate) fn order<T>(
    among: &mut [T],
    balance: Balance,
    weight: impl Fn(&T) -> u32,
    load: impl Fn(&T) -> f64,
    mut random: impl FnMut() -> f64,
) {
    if among.len() < 2 {
        return;
    }
    let first = match balance {
        Balance::Ordered => return,
        Balance::Weighted => drawn(among, &weight, random()),
        Balance::Latency => {
            // Two at random, and the better of them: all would run to the best one otherwise, and
            // nobody would learn that another one has become better.
            let one = drawn(among, &weight, random());
            let mut other = drawn(among, &weight, random());
            if other == one {
                other = (one + 1) % among.len();
            }
            let cost = |index: usize| match weight(&among[index]) {
                0 => f64::INFINITY,
                weight => load(&among[index]) / f64::from(weight),
            };
            if cost(other) < cost(one) { other } else { one }
        }
    };
    among[..=first].rotate_right(1);
}

/// The one that a number from 0 to 1 falls on, when each has as much room as its weight says.
fn drawn<T>(among: &[T], weight: impl Fn(&T) -> u32, at: f64) -> usize {
    let total: f64 = among.iter().map(|one| f64::from(weight(one))).sum();
    let mut left = at * total;
    for (index, one) in among.iter().enumerate() {
        left -= f64::from(weight(one));
        if left < 0.0 {
            return index;
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn firsts(balance: Balance, weights: &[u32], loads: &[f64]) -> Vec<usize> {
        let mut counts = vec![0; weights.len()];
        let mut turn = 0.0;
        // Evenly spread, so that the shares come out exactly.
        let mut random = || {
            turn += 0.618_033_988_749_895;
            turn % 1.0
        };
        for _ in 0..1_000 {
            let mut among: Vec<usize> = (0..weights.len()).collect();
            order(&mut among, balance, |i| weights[*i], |i| loads[*i], &mut random);
            counts[among[0]] += 1;
            let mut rest = among[1..].to_vec();
            rest.sort_unstable();
            assert_eq!(rest, among[1..], "the others keep their order");
        }
        counts
    }

    #[test]
    fn weights_are_shares() {
        let counts = firsts(Balance::Weighted, &[3, 1, 0], &[0.0; 3]);
        assert!((740..=760).contains(&counts[0]) && counts[2] == 0, "{counts:?}");
        assert_eq!(firsts(Balance::Ordered, &[1, 5], &[0.0; 2]), [1_000, 0]);
    }

    #[test]
    fn who_answers_sooner_gets_more_and_nobody_is_forgotten() {
        let counts = firsts(Balance::Latency, &[1, 1, 1], &[30.0, 10.0, 20.0]);
        assert!(counts[1] > counts[2] && counts[2] > counts[0], "{counts:?}");
        assert_eq!(firsts(Balance::Latency, &[1, 0], &[9.0, 0.0])[1], 0);
    }
}
