//! Have we answered this? Values by key in this process and, where one is configured, in a Redis that replicas share.
//!
//! A key holds everything that decides its value (for an answer the ids of the published generations too), so nothing here is
//! ever invalidated: what is published gets new keys, and what is replaced is not asked for again. Lifetimes and bounds are
//! about space. Any failure of the shared tier is a miss.

mod breaker;
mod codec;
mod key;
mod lease;
mod local;
pub mod shared;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use self::shared::{Lookup, Name, Shared, Stored};
pub use self::{
    key::{Key, Parts},
    lease::Turn,
    local::{Held, Lifetime, Local},
    shared::Kind,
};
use crate::runtime::metrics::{self, CacheOutcome};

/// What can be kept.
pub trait Value: Clone + Send + Sync + 'static {
    /// Bytes of memory it takes.
    fn bytes(&self) -> usize;

    /// What other processes are given of it.
    fn encode(&self) -> Bytes;
}

/// The shared tier cannot be asked now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Away;

/// How much is kept, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Memory of this process for answers; zero keeps none.
    pub result_bytes: u64,
    /// Memory of this process for the vectors of queries; zero keeps none.
    pub vector_bytes: u64,
    /// How long values live in this process.
    pub lifetime: Lifetime,
    /// How long values live in the shared tier.
    pub shared_ttl: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            // About 16,000 answers of five passages.
            result_bytes: 128 * 1024 * 1024,
            // About 16,000 queries.
            vector_bytes: 32 * 1024 * 1024,
            lifetime: Lifetime { ttl: Duration::from_mins(10), stale: Duration::from_mins(10) },
            shared_ttl: Duration::from_hours(1),
        }
    }
}

/// The values of one kind in their tiers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Tiers<V: Value> {
    kind: Kind,
    local: Local<V>,
    lifetime: Lifetime,
    /// None where no Redis is configured.
    shared: Option<Shared>,
    shared_ttl: Duration,
}

impl<V: Value> Tiers<V> {
    /// Keeps up to `bytes` in this process, and all in `shared`.
    #[must_use]
    pub fn new(kind: Kind, bytes: u64, config: Config, shared: Option<Shared>) -> Self {
        Self { kind, local: Local::new(bytes), lifetime: config.lifetime, shared, shared_ttl: config.shared_ttl }
    }

    /// What this process keeps under `key`: fresh, or past its time to live and still within the stale window.
    #[must_use]
    #[tracing::instrument(level = "debug", name = "cache", skip_all, fields(cache = self.kind.as_str(), layer = "l1"))]
    pub fn look(&self, key: &Key) -> Option<Arc<Held<V>>> {
        let held = self.local.get(key);
        let outcome = match &held {
            Some(held) if held.is_fresh() => CacheOutcome::Hit,
            Some(_) => CacheOutcome::Stale,
            None => CacheOutcome::Miss,
        };
        metrics::record_cache(self.kind.as_str(), "l1", outcome);
        held
    }

    /// As [`Tiers::look`], uncounted and fresh only: for whoever has looked already and waited since, or may leave it to another to look.
    #[must_use]
    pub fn look_again(&self, key: &Key) -> Option<Arc<Held<V>>> {
        self.local.get(key).filter(|held| held.is_fresh())
    }

    /// What the other processes have under `key`, which this one keeps from now on too. A body that `decode` refuses is none.
    ///
    /// # Errors
    /// [`Away`] when the shared tier failed, which took up to its timeout: nobody should ask it again for the same value.
    ///
    /// # Cancel safety
    /// Safe: what comes is not kept.
    #[tracing::instrument(level = "debug", name = "cache", skip_all, fields(cache = self.kind.as_str(), layer = "l2"))]
    pub async fn fetch(
        &self,
        key: &Key,
        decode: impl FnOnce(Bytes) -> Option<V>,
    ) -> Result<Option<Arc<Held<V>>>, Away> {
        let Some(shared) = &self.shared else { return Ok(None) };
        let (found, outcome) = match shared.get(&Name::new(self.kind, key.as_bytes())).await {
            Lookup::Hit(stored) => match decode(stored.body) {
                Some(value) => (Ok(Some((value, stored.made_at_ms))), CacheOutcome::Hit),
                None => (Ok(None), CacheOutcome::Miss),
            },
            Lookup::Miss => (Ok(None), CacheOutcome::Miss),
            Lookup::Error => (Err(Away), CacheOutcome::Error),
        };
        metrics::record_cache(self.kind.as_str(), "l2", outcome);
        let Some((value, made_at_ms)) = found? else { return Ok(None) };
        let held = Arc::new(Held::new(value, made_at_ms, self.lifetime));
        self.local.put(*key, Arc::clone(&held));
        Ok(Some(held))
    }

    /// Keeps here what the other processes have under these keys, asked for in few round trips. `A` goes with its key to `decode`.
    ///
    /// # Cancel safety
    /// Safe: what has come is kept.
    pub async fn fetch_many<A>(&self, wanted: Vec<(Key, A)>, decode: impl Fn(A, Bytes) -> Option<V>) {
        let Some(shared) = &self.shared else { return };
        let names: Vec<Name> = wanted.iter().map(|(key, _)| Name::new(self.kind, key.as_bytes())).collect();
        for ((key, with), stored) in wanted.into_iter().zip(shared.get_many(&names).await) {
            if let Some(stored) = stored
                && let Some(value) = decode(with, stored.body)
            {
                self.local.put(key, Arc::new(Held::new(value, stored.made_at_ms, self.lifetime)));
            }
        }
    }

    /// Keeps a value that was made now, here and, soon, for the other processes.
    pub fn keep(&self, key: Key, value: V) -> Arc<Held<V>> {
        let held = self.local.keep(key, value, self.lifetime);
        if let Some(shared) = &self.shared {
            let stored = Stored { body: held.value.encode(), made_at_ms: held.made_at_ms };
            shared.put(Name::new(self.kind, key.as_bytes()), stored, local::jittered(self.shared_ttl));
        }
        held
    }

    /// Whether `held` is worth making anew now, before it ends.
    #[must_use]
    pub fn is_due(&self, held: &Held<V>) -> bool {
        held.is_due(self.lifetime.ttl)
    }

    /// Counts a value of [`Tiers::look_again`] that was used after all.
    pub fn record_hit(&self) {
        metrics::record_cache(self.kind.as_str(), "l1", CacheOutcome::Hit);
    }

    /// Counts a request that asked not to be answered from here.
    pub fn record_bypass(&self) {
        metrics::record_cache(self.kind.as_str(), "l1", CacheOutcome::Bypass);
    }

    /// The values that were found most often, most first.
    #[must_use]
    pub fn hottest(&self, most: usize) -> Vec<Arc<Held<V>>> {
        self.local.hottest(most)
    }

    /// Forgets what this process keeps.
    pub fn clear(&self) {
        self.local.clear();
    }

    /// Of the metrics.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Forgets what has ended, and reports what is kept: entries and bytes.
    pub fn tidy(&self) -> (u64, u64) {
        let (entries, bytes) = self.local.tidy();
        metrics::set_cache_size(self.kind.as_str(), entries, bytes);
        (entries, bytes)
    }
}
