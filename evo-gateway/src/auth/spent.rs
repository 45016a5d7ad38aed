//! What keys have spent, by the hour, so that a day or a month of a budget may begin at any hour. In
//! memory: it is read from the table of usage once, at the start.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use chrono::{DateTime, Datelike as _, TimeDelta, TimeZone as _, Utc};

/// Hours that the longest month of a budget has, with a day to spare.
const KEPT_HOURS: i64 = 32 * 24;
const HOUR: i64 = 3_600;

/// USD in billionths, so that sums are exact.
pub(crate) type NanoUsd = u64;

/// Billionths in one USD.
const NANO: f64 = 1e9;

/// As billionths of a USD; what is no amount is nothing.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a float that does not fit saturates"
)]
pub(crate) fn nano(usd: f64) -> NanoUsd {
    (usd * NANO).round() as NanoUsd
}

/// As USD.
pub(crate) fn usd(nano: NanoUsd) -> f64 {
    nano as f64 / NANO
}

/// The accounts of all keys, by their names: a key that is made again under its name goes on where the
/// one before it ended.
#[derive(Debug, Default)]
pub(crate) struct Ledger(RwLock<HashMap<Arc<str>, Arc<Account>>>);

impl Ledger {
    /// The account of a key.
    pub(crate) fn account(&self, key: &str) -> Arc<Account> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner).get(key).cloned();
        known.unwrap_or_else(|| {
            let mut accounts = self.0.write().unwrap_or_else(PoisonError::into_inner);
            accounts.entry(key.into()).or_default().clone()
        })
    }
}

/// What one key has spent.
#[derive(Debug, Default)]
pub(crate) struct Account(Mutex<Entries>);

#[derive(Debug, Default)]
struct Entries {
    /// By hours since 1970.
    hours: BTreeMap<i64, NanoUsd>,
    /// What requests under way are going to cost at least.
    reserved: NanoUsd,
    /// The last sums that were asked for: since which hour, and how much.
    sums: [(i64, NanoUsd); 2],
}

impl Entries {
    fn add(&mut self, hour: i64, cost: NanoUsd) {
        if !self.hours.contains_key(&hour) {
            self.hours = self.hours.split_off(&(hour - KEPT_HOURS));
        }
        let sum = self.hours.entry(hour).or_default();
        *sum = sum.saturating_add(cost);
        for (since, sum) in &mut self.sums {
            if hour >= *since {
                *sum = sum.saturating_add(cost);
            }
        }
    }

    fn since(&mut self, hour: i64) -> NanoUsd {
        if let Some((_, sum)) = self.sums.iter().find(|(since, _)| *since == hour) {
            return *sum;
        }
        let sum = self.hours.range(hour..).map(|(_, cost)| cost).sum();
        self.sums = [self.sums[1], (hour, sum)];
        sum
    }
}

impl Account {
    /// Enters what was spent.
    pub(crate) fn spend(&self, at: DateTime<Utc>, cost: NanoUsd) {
        if cost > 0 {
            self.entries().add(at.timestamp().div_euclid(HOUR), cost);
        }
    }

    /// What was spent since the beginning of a period.
    pub(crate) fn spent(&self, period: &Period) -> NanoUsd {
        self.entries().since(period.begins.timestamp().div_euclid(HOUR))
    }

    /// Reserves an amount, unless a budget is used up already: then says which.
    pub(crate) fn reserve<'a>(
        &self,
        cost: NanoUsd,
        budgets: impl IntoIterator<Item = (&'a Period, NanoUsd)>,
    ) -> Result<(), &'a Period> {
        let mut entries = self.entries();
        for (period, budget) in budgets {
            let spent = entries.since(period.begins.timestamp().div_euclid(HOUR));
            if spent.saturating_add(entries.reserved) >= budget {
                return Err(period);
            }
        }
        entries.reserved = entries.reserved.saturating_add(cost);
        Ok(())
    }

    /// Frees what was reserved.
    pub(crate) fn free(&self, cost: NanoUsd) {
        let mut entries = self.entries();
        entries.reserved = entries.reserved.saturating_sub(cost);
    }

    fn entries(&self) -> std::sync::MutexGuard<'_, Entries> {
        // A panic while holding the lock can't leave it half-written.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A day or a month of a budget.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Period {
    /// `day` or `month`.
    pub(crate) name: &'static str,
    /// When it began.
    pub(crate) begins: DateTime<Utc>,
    /// When the next one begins.
    pub(crate) ends: DateTime<Utc>,
}

impl Period {
    /// The day around `now` that begins at this hour.
    pub(crate) fn day(now: DateTime<Utc>, hour: u32) -> Self {
        let today = at(now.year(), now.month(), now.day(), hour);
        let begins = if today <= now { today } else { today - TimeDelta::days(1) };
        Self { name: "day", begins, ends: begins + TimeDelta::days(1) }
    }

    /// The month around `now` that begins on this day at this hour.
    pub(crate) fn month(now: DateTime<Utc>, day: u32, hour: u32) -> Self {
        let day = day.clamp(1, 28);
        let this = (now.year(), now.month());
        let before = if this.1 == 1 { (this.0 - 1, 12) } else { (this.0, this.1 - 1) };
        let after = if this.1 == 12 { (this.0 + 1, 1) } else { (this.0, this.1 + 1) };
        let begin = |(year, month)| at(year, month, day, hour);
        let (begins, ends) = if begin(this) <= now {
            (begin(this), begin(after))
        } else {
            (begin(before), begin(this))
        };
        Self { name: "month", begins, ends }
    }
}

fn at(year: i32, month: u32, day: u32, hour: u32) -> DateTime<Utc> {
    let found = Utc.with_ymd_and_hms(year, month, day, hour.min(23), 0, 0).single();
    found.expect("the day exists, as every month has the first 28, and UTC has every hour once")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn time(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[test]
    fn days_and_months_begin_when_they_should() {
        for (now, hour, begins, ends) in [
            ("2026-03-01T00:00:00Z", 0, "2026-03-01T00:00:00Z", "2026-03-02T00:00:00Z"),
            ("2026-03-01T05:59:59Z", 6, "2026-02-28T06:00:00Z", "2026-03-01T06:00:00Z"),
        ] {
            let day = Period::day(time(now), hour);
            assert_eq!((day.begins, day.ends), (time(begins), time(ends)), "{now}");
        }
        for (now, day, begins, ends) in [
            ("2026-03-15T12:00:00Z", 1, "2026-03-01T00:00:00Z", "2026-04-01T00:00:00Z"),
            ("2026-01-15T12:00:00Z", 20, "2025-12-20T00:00:00Z", "2026-01-20T00:00:00Z"),
            ("2026-12-28T00:00:00Z", 28, "2026-12-28T00:00:00Z", "2027-01-28T00:00:00Z"),
        ] {
            let month = Period::month(time(now), day, 0);
            assert_eq!((month.begins, month.ends), (time(begins), time(ends)), "{now}");
        }
    }

    #[test]
    fn a_budget_counts_what_was_spent_in_its_period_and_what_is_under_way() {
        let account = Ledger::default().account("a");
        let now = time("2026-03-15T12:30:00Z");
        account.spend(time("2026-03-14T23:59:00Z"), 70);
        account.spend(now, 20);
        let (day, month) = (Period::day(now, 0), Period::month(now, 1, 0));
        assert_eq!((account.spent(&day), account.spent(&month)), (20, 90));
        assert_eq!(account.reserve(5, [(&day, 21), (&month, 100)]), Ok(()));
        assert_eq!(account.reserve(5, [(&day, 30), (&month, 95)]), Err(&month));
        account.free(5);
        account.spend(now, 10);
        assert_eq!(account.reserve(0, [(&day, 30)]), Err(&day));
        let next = Period::day(day.ends, 0);
        assert_eq!(account.reserve(0, [(&next, 1)]), Ok(()));
    }

    proptest! {
        /// The sums that are kept say what the hours say.
        #[test]
        fn sums_are_right(spends in proptest::collection::vec((0_i64..900, 0_u64..100, 0_i64..900), 0..60)) {
            let mut entries = Entries::default();
            let mut all: Vec<(i64, u64)> = Vec::new();
            let mut newest = 0;
            for (hour, cost, since) in spends {
                newest = newest.max(hour);
                entries.add(newest, cost);
                all.push((newest, cost));
                let since = since.max(newest - KEPT_HOURS);
                let expected: u64 = all.iter().filter(|(at, _)| *at >= since).map(|(_, cost)| cost).sum();
                prop_assert_eq!(entries.since(since), expected);
            }
        }
    }
}
