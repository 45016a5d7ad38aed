//! When a new version gets a larger share of the calls. Pure: no clock, no I/O.

use evo_common::clock::Timestamp;

use crate::config::CanaryConfig;

/// How far a new version has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Percentage of the calls that it gets.
    pub share: u8,
    /// Since when it gets this share.
    pub since: Timestamp,
    /// Its reported calls since then.
    pub reports: u64,
}

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing. Without a report in between there is nothing to do before this moment either; none
    /// when only a report can change that.
    Wait(Option<Timestamp>),
    /// It gets this share from now on.
    Advance(u8),
    /// It gets every call from now on.
    Promote,
}

/// The share that a new version begins with; `None` when it gets every call at once.
pub fn first_share(config: &CanaryConfig) -> Option<u8> {
    config.shares.first().copied().filter(|share| *share < 100)
}

/// What to do with a version that has raised no alarm. A share is over when it has lasted its time and
/// has had its reports, whichever is later. Where calls are few, several times its time will do with a
/// few reports; without any report nothing is known, and it stays.
pub fn step(config: &CanaryConfig, progress: &Progress, now: Timestamp) -> Step {
    let Progress { share, since, reports } = *progress;
    let enough = since.plus_ms(config.window_ms);
    let patient = since.plus_ms(config.window_ms.saturating_mul(u64::from(config.patience)));
    let least = config.least_reports.min(config.reports);
    let over = if reports >= u64::from(config.reports) {
        now >= enough
    } else {
        reports >= u64::from(least) && now >= patient
    };
    if !over {
        let due = if reports >= u64::from(config.reports) { enough } else { patient };
        return Step::Wait((reports >= u64::from(least)).then_some(due));
    }
    match config.shares.iter().find(|next| **next > share) {
        Some(next) if *next < 100 => Step::Advance(*next),
        _ => Step::Promote,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: u64 = 3_600_000;

    fn at(share: u8, reports: u64) -> Progress {
        Progress { share, since: Timestamp(0), reports }
    }

    fn after(hours: u64) -> Timestamp {
        Timestamp(0).plus_ms(hours * HOUR)
    }

    #[test]
    fn a_share_is_over_after_its_time_and_its_reports() {
        let config = CanaryConfig::default();
        let table = [
            (10, 20, 24, Step::Advance(50)),
            (50, 20, 24, Step::Promote),
            (10, 500, 24, Step::Advance(50)),
            // Reports alone, and time alone, are not enough.
            (10, 500, 23, Step::Wait(Some(after(24)))),
            (10, 19, 24, Step::Wait(Some(after(7 * 24)))),
            // Where calls are few, a week with five of them is.
            (10, 5, 7 * 24, Step::Advance(50)),
            (10, 4, 1_000, Step::Wait(None)),
            (10, 0, 1_000, Step::Wait(None)),
        ];
        for (share, reports, hours, expected) in table {
            let found = step(&config, &at(share, reports), after(hours));
            assert_eq!(found, expected, "{share} %, {reports} reports, {hours} h");
        }
    }

    #[test]
    fn without_shares_a_version_gets_every_call_at_once() {
        let config = CanaryConfig { shares: Vec::new(), ..CanaryConfig::default() };
        assert_eq!(first_share(&config), None);
        assert_eq!(first_share(&CanaryConfig::default()), Some(10));
    }

    proptest! {
        /// A share only grows, and not one report short of the least.
        #[test]
        fn a_share_only_grows(share in 0_u8..100, reports in 0_u64..60, hours in 0_u64..400) {
            let config = CanaryConfig::default();
            match step(&config, &at(share, reports), after(hours)) {
                Step::Advance(next) => {
                    prop_assert!(next > share && next < 100);
                    prop_assert!(reports >= 5 && hours >= 24);
                }
                Step::Promote => prop_assert!(share >= 50 && reports >= 5 && hours >= 24),
                Step::Wait(Some(due)) => prop_assert!(due > after(hours)),
                Step::Wait(None) => prop_assert!(reports < 5),
            }
        }
    }
}
