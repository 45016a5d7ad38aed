//! What a test of faults has done and found.

use std::{fmt, ops::AddAssign};

/// Counts of one or more scenarios; shown as the one line that each of them prints.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Places, moments or messages at which something was done to somebody.
    pub steps: u64,
    /// Processes that were killed.
    pub kills: u64,
    /// Runs that ended.
    pub finished: u64,
    /// Confirmed things that were gone, and runs that neither ended nor waited visibly.
    pub lost: u64,
    /// Things that took effect twice.
    pub doubled: u64,
    /// Things out of order.
    pub disorder: u64,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.steps += other.steps;
        self.kills += other.kills;
        self.finished += other.finished;
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.disorder += other.disorder;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { steps, kills, finished, lost, doubled, disorder } = self;
        write!(
            f,
            "faults: steps={steps} kills={kills} finished={finished} lost={lost} doubled={doubled}"
        )?;
        if *disorder > 0 {
            write!(f, " disorder={disorder}")?;
        }
        Ok(())
    }
}
