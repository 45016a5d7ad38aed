//! A provider's keys: used in turn, and left out for a while when the provider refuses one.

use std::{
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    time::Duration,
};

use http::HeaderValue;
use tokio::time::Instant;

/// Longest time that a key is left out.
const LONGEST_BENCH: Duration = Duration::from_secs(3_600);

/// The keys of one provider.
#[derive(Debug)]
pub(crate) struct KeyPool {
    keys: Vec<Key>,
    turn: AtomicUsize,
    start: Instant,
}

#[derive(Debug)]
struct Key {
    header: HeaderValue,
    /// Milliseconds after the pool's start until which it is left out.
    benched_until: AtomicU64,
}

impl KeyPool {
    /// A pool of keys, each as the header that carries it.
    pub(crate) fn new(headers: Vec<HeaderValue>) -> Self {
        let keys = headers
            .into_iter()
            .map(|header| Key { header, benched_until: AtomicU64::new(0) })
            .collect();
        Self { keys, turn: AtomicUsize::new(0), start: Instant::now() }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether the other pool holds the same keys.
    pub(crate) fn same_as(&self, other: &Self) -> bool {
        let headers = |pool: &Self| pool.keys.iter().map(|key| key.header.clone()).collect();
        let (own, other): (Vec<_>, Vec<_>) = (headers(self), headers(other));
        own == other
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The header of a key.
    pub(crate) fn header(&self, key: usize) -> Option<&HeaderValue> {
        self.keys.get(key).map(|key| &key.header)
    }

    /// The key whose turn it is; benched ones come last. `tried` are those that this request has
    /// used. `None` when there is none left; a provider without keys gives `Some(0)` once.
    pub(crate) fn next(&self, tried: &[usize]) -> Option<usize> {
        let count = self.keys.len().max(1);
        if count == 1 {
            return tried.is_empty().then_some(0);
        }
        // A second try goes on from the first, so that the turn counts requests.
        let from =
            tried.last().map_or_else(|| self.turn.fetch_add(1, Ordering::Relaxed), |k| k + 1);
        let now = self.now();
        let mut left = (0..count)
            .map(|step| from.wrapping_add(step) % count)
            .filter(|key| !tried.contains(key));
        let free = |key: &usize| self.keys[*key].benched_until.load(Ordering::Relaxed) <= now;
        left.clone().find(free).or_else(|| left.next())
    }

    /// A key that is not left out, without taking anybody's turn.
    pub(crate) fn any(&self) -> Option<&HeaderValue> {
        let now = self.now();
        let free = |key: &&Key| key.benched_until.load(Ordering::Relaxed) <= now;
        self.keys.iter().find(free).or(self.keys.first()).map(|key| &key.header)
    }

    /// Leaves a key out for a while.
    pub(crate) fn bench(&self, key: usize, time: Duration) {
        let until = self.now() + millis(time.min(LONGEST_BENCH));
        if let Some(key) = self.keys.get(key) {
            key.benched_until.store(until, Ordering::Relaxed);
        }
    }

    fn now(&self) -> u64 {
        millis(self.start.elapsed())
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(count: usize) -> KeyPool {
        KeyPool::new((0..count).map(|i| HeaderValue::from(u32::try_from(i).unwrap())).collect())
    }

    #[tokio::test(start_paused = true)]
    async fn keys_take_turns_and_each_is_tried_once() {
        let pool = pool(3);
        let firsts: Vec<_> = (0..4).map(|_| pool.next(&[]).unwrap()).collect();
        assert_eq!(firsts, [0, 1, 2, 0]);
        assert_eq!(pool.next(&[1]), Some(2));
        assert_eq!(pool.next(&[1, 2]), Some(0));
        assert_eq!(pool.next(&[1, 2, 0]), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_benched_key_waits_unless_it_is_the_last() {
        let pool = pool(2);
        pool.bench(0, Duration::from_secs(5));
        assert_eq!((pool.next(&[]), pool.next(&[])), (Some(1), Some(1)));
        assert_eq!(pool.next(&[1]), Some(0));
        tokio::time::advance(Duration::from_secs(6)).await;
        assert_eq!((pool.next(&[]), pool.next(&[])), (Some(0), Some(1)));
        pool.bench(0, Duration::from_secs(5));
        pool.bench(1, Duration::from_secs(5));
        assert!(pool.next(&[]).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_provider_without_keys_is_tried_once() {
        let pool = pool(0);
        assert_eq!((pool.next(&[]), pool.next(&[0])), (Some(0), None));
        assert_eq!(pool.header(0), None);
    }
}
