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
    /// Whose turn it is when, over and over; empty when all are alike.
    turns: Vec<usize>,
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
    /// A pool of keys, each as the header that carries it, and each one's share of the requests.
    pub(crate) fn new(headers: Vec<HeaderValue>, weights: &[u32]) -> Self {
        let turns = turns(weights, headers.len());
        let keys = headers
            .into_iter()
            .map(|header| Key { header, benched_until: AtomicU64::new(0) })
            .collect();
        Self { keys, turns, turn: AtomicUsize::new(0), start: Instant::now() }
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
        let from = tried.last().map_or_else(|| self.turn(), |key| key + 1);
        let now = self.now();
        let mut left = (0..count)
            .map(|step| from.wrapping_add(step) % count)
            .filter(|key| !tried.contains(key));
        let free = |key: &usize| self.keys[*key].benched_until.load(Ordering::Relaxed) <= now;
        left.clone().find(free).or_else(|| left.next())
    }

    fn turn(&self) -> usize {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        if self.turns.is_empty() { turn } else { self.turns[turn % self.turns.len()] }
    }

    /// How long until a key is free again that is left out now; nothing while one is free.
    pub(crate) fn busy_for(&self) -> Option<Duration> {
        let now = self.now();
        let until = self.keys.iter().map(|key| key.benched_until.load(Ordering::Relaxed)).min()?;
        (until > now).then(|| Duration::from_millis(until - now))
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

/// Turns by weight, evenly spread: who is furthest behind its share is next.
fn turns(weights: &[u32], keys: usize) -> Vec<usize> {
    const MOST: u32 = 1_000;
    let weights: Vec<i64> =
        (0..keys).map(|key| i64::from(weights.get(key).map_or(1, |it| *it.min(&MOST)))).collect();
    let total: i64 = weights.iter().sum();
    if weights.iter().all(|weight| *weight == weights[0]) {
        return Vec::new();
    }
    let mut owed = vec![0; keys];
    (0..total)
        .map(|_| {
            owed.iter_mut().zip(&weights).for_each(|(owed, weight)| *owed += weight);
            let next = (0..keys).rev().max_by_key(|key| owed[*key]).unwrap_or_default();
            owed[next] -= total;
            next
        })
        .collect()
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(count: usize) -> KeyPool {
        weighted(count, &[])
    }

    fn weighted(count: usize, weights: &[u32]) -> KeyPool {
        let keys = (0..count).map(|i| HeaderValue::from(u32::try_from(i).unwrap())).collect();
        KeyPool::new(keys, weights)
    }

    #[tokio::test(start_paused = true)]
    async fn keys_have_their_shares() {
        let pool = weighted(3, &[2, 1, 0]);
        let firsts: Vec<_> = (0..6).map(|_| pool.next(&[]).unwrap()).collect();
        assert_eq!(firsts, [0, 1, 0, 0, 1, 0]);
        // Without a share it is there when the others are not.
        assert_eq!(pool.next(&[0, 1]), Some(2));
        assert_eq!(weighted(2, &[5, 5]).turns, [0; 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn how_long_all_are_left_out_is_known() {
        let pool = pool(2);
        pool.bench(0, Duration::from_secs(5));
        assert_eq!(pool.busy_for(), None);
        pool.bench(1, Duration::from_secs(3));
        assert_eq!(pool.busy_for(), Some(Duration::from_secs(3)));
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
