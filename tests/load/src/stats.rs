//! Latencies of one measurement, and figures over rounds.

use std::time::Duration;

use hdrhistogram::Histogram;

/// Latencies from 1 µs to 10 minutes, in nanoseconds, to three digits.
#[derive(Debug, Clone)]
pub struct Latencies(Histogram<u64>);

impl Default for Latencies {
    fn default() -> Self {
        let histogram = Histogram::new_with_bounds(1_000, 600_000_000_000, 3)
            .expect("these bounds and this precision are valid");
        Self(histogram)
    }
}

impl Latencies {
    /// Adds one.
    pub fn record(&mut self, latency: Duration) {
        self.record_many(latency, 1);
    }

    /// Adds the same one several times.
    pub fn record_many(&mut self, latency: Duration, times: u64) {
        let nanoseconds = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.0.saturating_record_n(nanoseconds, times);
    }

    /// Adds all of another.
    pub fn add(&mut self, other: &Self) {
        self.0.add(&other.0).expect("both have the same bounds");
    }

    /// How many there are.
    pub fn len(&self) -> u64 {
        self.0.len()
    }

    /// The latency that this share (0.99) of all did not exceed, in milliseconds.
    pub fn quantile_ms(&self, quantile: f64) -> f64 {
        self.0.value_at_quantile(quantile) as f64 / 1e6
    }
}

/// One figure over the rounds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// The middle one; of an even number, the mean of the middle two.
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    /// `None` when there is none, or one is not a number.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        if values.iter().any(|value| !value.is_finite()) {
            return None;
        }
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[middle]
        } else {
            f64::midpoint(values[middle - 1], values[middle])
        };
        Some(Self { median, min, max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_has_the_middle_and_both_ends() {
        let spread = |values: &[f64]| Spread::of(values.iter().copied());
        assert_eq!(spread(&[3.0, 1.0, 2.0]), Some(Spread { median: 2.0, min: 1.0, max: 3.0 }));
        assert_eq!(spread(&[4.0, 1.0, 2.0, 9.0]), Some(Spread { median: 3.0, min: 1.0, max: 9.0 }));
        assert_eq!(spread(&[5.0]), Some(Spread { median: 5.0, min: 5.0, max: 5.0 }));
        assert_eq!(spread(&[-2.0, -1.0]), Some(Spread { median: -1.5, min: -2.0, max: -1.0 }));
        assert_eq!(spread(&[]), None);
        assert_eq!(spread(&[1.0, f64::NAN]), None);
    }

    #[test]
    fn quantiles_are_exact_to_three_digits() {
        let mut first = Latencies::default();
        let mut second = Latencies::default();
        for microseconds in 1..=1_000 {
            let half = if microseconds % 2 == 0 { &mut first } else { &mut second };
            half.record(Duration::from_micros(microseconds));
        }
        first.add(&second);
        for (quantile, expected) in [(0.5, 0.5), (0.99, 0.99), (1.0, 1.0)] {
            let found = first.quantile_ms(quantile);
            assert!((found - expected).abs() <= expected / 1_000.0 * 1.1, "{quantile}: {found}");
        }
    }

    #[test]
    fn a_latency_counts_as_often_as_told_and_too_long_ones_are_kept() {
        let mut latencies = Latencies::default();
        latencies.record_many(Duration::from_millis(1), 99);
        latencies.record(Duration::from_secs(10_000));
        assert!(latencies.quantile_ms(0.98) < 1.01);
        assert!(latencies.quantile_ms(1.0) > 599_000.0);
    }
}
