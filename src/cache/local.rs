//! The tier in this process: what was answered lately, in bounded memory.
//!
//! Weighed in bytes: beyond the bound, what is asked least goes. A value lives for its time to live, a little less at random so
//! that values made together do not end together, and stays readable for a while after for when nothing newer can be
//! had. Reading takes no lock that is held across anything.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use moka::{Expiry, sync::Cache};

use super::{Key, Value};

/// Of each entry beside its value: the key, the holder, and moka's own node and counters, measured by filling.
const ENTRY_BYTES: usize = 400;

/// The part of its life by which a value may end early.
const JITTER: f64 = 0.1;

/// The last part of its life in which a value that is asked for is made anew before it ends.
const REFRESH_IN_LAST: f64 = 0.1;

/// Asked for less often, a value is not worth making anew before somebody asks.
const HOT: u32 = 3;

/// How long values live.
#[derive(Clone, Copy, Debug)]
pub struct Lifetime {
    /// Until it must be made anew.
    pub ttl: Duration,
    /// How much longer it may be used when it cannot.
    pub stale: Duration,
}

/// A value with its age and how much it is asked for.
#[derive(Debug)]
pub struct Held<V> {
    /// The value.
    pub value: V,
    /// When it was made, in any process: milliseconds of Unix time.
    pub made_at_ms: u64,
    fresh_until: Instant,
    gone_after: Instant,
    hits: AtomicU32,
    /// Somebody is making it anew.
    claimed: AtomicBool,
}

impl<V> Held<V> {
    pub(super) fn new(value: V, made_at_ms: u64, lifetime: Lifetime) -> Self {
        let fresh_until = Instant::now() + jittered(lifetime.ttl);
        Self {
            value,
            made_at_ms,
            fresh_until,
            gone_after: fresh_until + lifetime.stale,
            hits: AtomicU32::new(0),
            claimed: AtomicBool::new(false),
        }
    }

    /// Whether its time to live has not ended.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        Instant::now() < self.fresh_until
    }

    /// How long ago it was made.
    #[must_use]
    pub fn age(&self) -> Duration {
        Duration::from_millis(now_ms().saturating_sub(self.made_at_ms))
    }

    /// How often it was found.
    #[must_use]
    pub fn hits(&self) -> u32 {
        self.hits.load(Ordering::Relaxed)
    }

    /// Whether it is worth making anew before it ends: it is asked for, and ends soon.
    #[must_use]
    pub fn is_due(&self, ttl: Duration) -> bool {
        self.hits() >= HOT
            && self.fresh_until.saturating_duration_since(Instant::now()) < ttl.mul_f64(REFRESH_IN_LAST)
            && !self.claimed.load(Ordering::Relaxed)
    }

    /// Takes it on to make it anew. True once.
    #[must_use]
    pub fn claim(&self) -> bool {
        !self.claimed.swap(true, Ordering::Relaxed)
    }
}

/// The values of one kind.
#[derive(Clone, Debug)]
pub struct Local<V: Value> {
    /// None keeps nothing.
    held: Option<Cache<Key, Arc<Held<V>>>>,
}

impl<V: Value> Local<V> {
    /// Keeps up to `bytes`; zero keeps nothing.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        let held = (bytes > 0).then(|| {
            Cache::builder()
                .max_capacity(bytes)
                .weigher(|_, held: &Arc<Held<V>>| u32::try_from(ENTRY_BYTES + held.value.bytes()).unwrap_or(u32::MAX))
                .expire_after(UntilGone)
                .build()
        });
        Self { held }
    }

    /// What is kept under `key`, fresh or not, and counts the finding.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<Arc<Held<V>>> {
        let held = self.held.as_ref()?.get(key)?;
        held.hits.fetch_add(1, Ordering::Relaxed);
        Some(held)
    }

    /// Keeps it in place of what was there.
    pub fn put(&self, key: Key, held: Arc<Held<V>>) {
        if let Some(cache) = &self.held {
            cache.insert(key, held);
        }
    }

    /// Keeps a value that was made now.
    pub fn keep(&self, key: Key, value: V, lifetime: Lifetime) -> Arc<Held<V>> {
        let held = Arc::new(Held::new(value, now_ms(), lifetime));
        self.put(key, Arc::clone(&held));
        held
    }

    /// Forgets everything.
    pub fn clear(&self) {
        if let Some(cache) = &self.held {
            cache.invalidate_all();
            cache.run_pending_tasks();
        }
    }

    /// Does what is due: forgets what has ended, counts what is kept. Returns entries and bytes.
    pub fn tidy(&self) -> (u64, u64) {
        let Some(cache) = &self.held else { return (0, 0) };
        cache.run_pending_tasks();
        (cache.entry_count(), cache.weighted_size())
    }

    /// The values that were found most often, most first.
    #[must_use]
    pub fn hottest(&self, most: usize) -> Vec<Arc<Held<V>>> {
        let mut all: Vec<_> = self.held.iter().flatten().map(|(_, held)| held).filter(|held| held.hits() > 0).collect();
        all.sort_by_key(|held| std::cmp::Reverse(held.hits()));
        all.truncate(most);
        all
    }
}

/// Each value says itself when it is gone.
struct UntilGone;

impl<V: Value> Expiry<Key, Arc<Held<V>>> for UntilGone {
    fn expire_after_create(&self, _: &Key, held: &Arc<Held<V>>, now: Instant) -> Option<Duration> {
        Some(held.gone_after.saturating_duration_since(now))
    }

    fn expire_after_update(&self, _: &Key, held: &Arc<Held<V>>, now: Instant, _: Option<Duration>) -> Option<Duration> {
        Some(held.gone_after.saturating_duration_since(now))
    }
}

/// A little less than `ttl`, at random.
pub(super) fn jittered(ttl: Duration) -> Duration {
    ttl.mul_f64(1.0 - JITTER * fastrand::f64())
}

/// Milliseconds of Unix time.
pub(super) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Value for String {
        fn bytes(&self) -> usize {
            self.len()
        }

        fn encode(&self) -> bytes::Bytes {
            self.clone().into()
        }
    }

    const LONG: Lifetime = Lifetime { ttl: Duration::from_mins(10), stale: Duration::from_mins(10) };

    fn key(number: i64) -> Key {
        Key::parts().number(number).key()
    }

    #[test]
    fn it_never_keeps_much_more_than_its_bound() {
        let local = Local::<String>::new(100_000);
        for number in 0..10_000 {
            local.put(key(number), Arc::new(Held::new("x".repeat(600), now_ms(), LONG)));
        }
        let (entries, bytes) = local.tidy();
        assert!(bytes <= 105_000, "{bytes} bytes");
        assert!((50..=100).contains(&entries), "{entries} entries of 1,000 bytes");
    }

    #[test]
    fn a_value_is_readable_after_its_life_and_gone_after_that() {
        let local = Local::<String>::new(10_000);
        let short = Lifetime { ttl: Duration::ZERO, stale: Duration::from_mins(1) };
        local.put(key(1), Arc::new(Held::new("late".to_owned(), now_ms(), short)));
        assert!(!local.get(&key(1)).expect("kept").is_fresh());
        let gone = Lifetime { ttl: Duration::ZERO, stale: Duration::ZERO };
        local.put(key(2), Arc::new(Held::new("gone".to_owned(), now_ms(), gone)));
        assert!(local.get(&key(2)).is_none());
    }

    #[test]
    fn a_hot_value_is_claimed_once_and_only_near_its_end() {
        let ttl = Duration::from_mins(10);
        let fresh = Held::new("x".to_owned(), now_ms(), LONG);
        fresh.hits.store(100, Ordering::Relaxed);
        assert!(!fresh.is_due(ttl), "long to go");
        let ending = Held::new("x".to_owned(), now_ms(), Lifetime { ttl: Duration::from_secs(1), ..LONG });
        assert!(!ending.is_due(ttl), "nobody asks");
        ending.hits.store(HOT, Ordering::Relaxed);
        assert!(ending.is_due(ttl) && ending.claim());
        assert!(!ending.is_due(ttl) && !ending.claim(), "claimed");
    }

    #[test]
    fn the_hottest_come_first() {
        let local = Local::<String>::new(100_000);
        for number in 0..10 {
            local.put(key(number), Arc::new(Held::new(number.to_string(), now_ms(), LONG)));
            for _ in 0..number {
                let _ = local.get(&key(number));
            }
        }
        let hottest: Vec<_> = local.hottest(2).iter().map(|held| held.value.clone()).collect();
        assert_eq!(hottest, ["9", "8"]);
    }
}
