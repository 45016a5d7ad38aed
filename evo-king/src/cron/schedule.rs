//! Cron expressions in a time zone.

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use croner::{
    Cron,
    parser::{CronParser, Seconds, Year},
};
use evo_common::clock::Timestamp;

/// When a job runs: five fields (minute, hour, day, month, weekday) or `@daily` and the like, by the
/// clocks of a time zone.
#[derive(Debug, Clone)]
pub(crate) struct Schedule {
    cron: Cron,
    zone: Tz,
}

impl Schedule {
    /// Reads an expression and a time zone; says which of them is wrong, and how.
    pub(crate) fn parse(expression: &str, zone: &str) -> Result<Self, (&'static str, String)> {
        let zone: Tz = zone.parse().map_err(|_| {
            let example = "`UTC` or `Europe/Berlin`";
            (
                "timezone",
                format!("{zone:?} is no time zone of the IANA database, such as {example}"),
            )
        })?;
        let parser =
            CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let cron = parser.parse(expression).map_err(|error| {
            let example = "minute hour day month weekday, such as `30 4 * * *`";
            ("schedule", format!("{expression:?} is no cron expression ({error}): {example}"))
        })?;
        let schedule = Self { cron, zone };
        if schedule.next(Timestamp::now()).is_none() {
            return Err(("schedule", format!("{expression:?} never comes")));
        }
        Ok(schedule)
    }

    /// The first moment after this one.
    pub(crate) fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let after = DateTime::<Utc>::from_timestamp_millis(after.0)?.with_timezone(&self.zone);
        let next = self.cron.find_next_occurrence(&after, false).ok()?;
        Some(Timestamp(next.timestamp_millis()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The moments after one, as many as are given.
    fn check(expression: &str, zone: &str, after: &str, wanted: &[&str]) {
        let schedule = Schedule::parse(expression, zone).unwrap();
        let mut at = Timestamp::parse_rfc3339(after).unwrap();
        for moment in wanted {
            at = schedule.next(at).unwrap();
            let wanted = Timestamp::parse_rfc3339(moment).unwrap();
            assert_eq!(at, wanted, "{expression} {zone}: {} is not {moment}", at.to_rfc3339());
        }
    }

    #[test]
    fn moments_are_by_the_clocks_of_the_zone() {
        check("30 4 * * *", "UTC", "2026-01-31T12:00:00Z", &["2026-02-01T04:30:00Z"]);
        check(
            "30 4 * * *",
            "Asia/Shanghai",
            "2026-01-31T20:30:00Z",
            &["2026-02-01T20:30:00Z", "2026-02-02T20:30:00Z"],
        );
        check("0 0 29 2 *", "UTC", "2026-01-01T00:00:00Z", &["2028-02-29T00:00:00Z"]);
        check("@daily", "UTC", "2026-01-01T00:00:00Z", &["2026-01-02T00:00:00Z"]);
        check("0 9 * * MON-FRI", "UTC", "2026-11-20T10:00:00Z", &["2026-11-23T09:00:00Z"]);
    }

    #[test]
    fn a_day_has_one_moment_when_the_clocks_change() {
        // Berlin, 2026-03-29: 02:00 becomes 03:00. What falls into the gap comes right after it.
        check(
            "30 2 * * *",
            "Europe/Berlin",
            "2026-03-28T12:00:00Z",
            &["2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"],
        );
        // 2026-10-25: 03:00 becomes 02:00. What comes twice runs once.
        check(
            "30 2 * * *",
            "Europe/Berlin",
            "2026-10-24T12:00:00Z",
            &["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"],
        );
        // Every hour stays every hour.
        check(
            "0 * * * *",
            "Europe/Berlin",
            "2026-10-24T23:30:00Z",
            &["2026-10-25T00:00:00Z", "2026-10-25T01:00:00Z", "2026-10-25T02:00:00Z"],
        );
        check(
            "0 * * * *",
            "Europe/Berlin",
            "2026-03-29T00:30:00Z",
            &["2026-03-29T01:00:00Z", "2026-03-29T02:00:00Z"],
        );
    }

    #[test]
    fn what_is_no_schedule_is_told_by_field() {
        for (expression, zone, field) in [
            ("", "UTC", "schedule"),
            ("* * * *", "UTC", "schedule"),
            ("61 * * * *", "UTC", "schedule"),
            ("0 0 0 * * *", "UTC", "schedule"),
            ("0 0 30 2 *", "UTC", "schedule"),
            ("* * * * *", "Mars/Olympus", "timezone"),
        ] {
            let (found, message) = Schedule::parse(expression, zone).unwrap_err();
            assert_eq!(found, field, "{expression:?} {zone}: {message}");
        }
    }
}
