//! What this process has let through, by caller: `governor`'s GCRA over a store that cannot grow without bound.
//!
//! Each number of requests a minute has a limiter of its own, since a limiter knows one quota; there are as many as settings and
//! keys name. Each keeps at most [`CALLERS`]; beyond, the half of them with the most room is forgotten, who lose nothing but a
//! little strictness. A check costs a short lock of one of [`SHARDS`].

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    num::NonZeroU32,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};

use governor::{
    Quota, RateLimiter,
    clock::{Clock, MonotonicClock},
    middleware::StateInformationMiddleware,
    nanos::Nanos,
    state::StateStore,
};

use super::{Bucket, Decision, Who};

/// Callers a limiter remembers: a few megabytes, and more than ask one replica within a minute.
const CALLERS: usize = 65_536;

/// Few enough to cost nothing, many enough that two processors rarely meet at one.
const SHARDS: usize = 16;

type Name = (&'static str, Who);
type Limiter<C> = RateLimiter<Name, Store, C, StateInformationMiddleware>;

/// All limiters of this process.
pub(super) struct Local<C: Clock = MonotonicClock> {
    limiters: RwLock<HashMap<NonZeroU32, Arc<Limiter<C>>>>,
    clock: C,
    callers: usize,
}

impl Default for Local {
    fn default() -> Self {
        Self::new(MonotonicClock, CALLERS)
    }
}

impl<C: Clock + Clone> Local<C> {
    fn new(clock: C, callers: usize) -> Self {
        Self { limiters: RwLock::default(), clock, callers }
    }

    /// Counts one request.
    pub fn check(&self, bucket: &Bucket) -> Decision {
        let name = (bucket.policy, bucket.who);
        match self.limiter(bucket.per_minute).check_key(&name) {
            Ok(state) => Decision { remaining: state.remaining_burst_capacity(), wait: None },
            Err(until) => Decision { remaining: 0, wait: Some(until.wait_time_from(self.clock.now())) },
        }
    }

    fn limiter(&self, per_minute: NonZeroU32) -> Arc<Limiter<C>> {
        if let Some(known) = self.limiters.read().unwrap_or_else(PoisonError::into_inner).get(&per_minute) {
            return Arc::clone(known);
        }
        let mut limiters = self.limiters.write().unwrap_or_else(PoisonError::into_inner);
        let new = || {
            let store = Store::new(self.callers);
            Arc::new(RateLimiter::new(Quota::per_minute(per_minute), store, self.clock.clone()))
        };
        Arc::clone(limiters.entry(per_minute).or_insert_with(new))
    }
}

/// When each caller's next request would be due if it came evenly: the later, the less room it has.
struct Store {
    shards: [Mutex<HashMap<Name, u64>>; SHARDS],
    hasher: RandomState,
    callers_each: usize,
}

impl Store {
    fn new(callers: usize) -> Self {
        Self { shards: Default::default(), hasher: RandomState::new(), callers_each: (callers / SHARDS).max(2) }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner).len()).sum()
    }
}

impl StateStore for Store {
    type Key = Name;

    fn measure_and_replace<T, F, E>(&self, name: &Name, measure: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        #[expect(clippy::cast_possible_truncation, reason = "any bits of the hash will do")]
        let shard = &self.shards[self.hasher.hash_one(name) as usize % SHARDS];
        let mut callers = shard.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(due) = callers.get_mut(name) {
            let (answer, now_due) = measure(Some(Nanos::from(*due)))?;
            *due = now_due.as_u64();
            return Ok(answer);
        }
        let (answer, due) = measure(None)?;
        if callers.len() >= self.callers_each {
            forget_half(&mut callers);
        }
        callers.insert(*name, due.as_u64());
        Ok(answer)
    }
}

/// Keeps those who have least room.
fn forget_half(callers: &mut HashMap<Name, u64>) {
    let mut dues: Vec<u64> = callers.values().copied().collect();
    let middle = dues.len() / 2;
    let (_, median, _) = dues.select_nth_unstable(middle);
    let median = *median;
    // Of those in the middle as many as make it half.
    let mut room = dues.len() - middle - dues.iter().filter(|due| **due > median).count();
    callers.retain(|_, due| {
        let stays = *due > median || (*due == median && room > 0);
        room -= usize::from(stays && *due == median);
        stays
    });
}

/// How long one request is worth at `per_minute`.
pub(super) fn interval(per_minute: NonZeroU32) -> Duration {
    Duration::from_mins(1) / per_minute.get()
}

#[cfg(test)]
mod tests {
    use governor::clock::FakeRelativeClock;

    use super::*;

    fn bucket(policy: &'static str, per_minute: u32, caller: u32) -> Bucket {
        let per_minute = NonZeroU32::new(per_minute).expect("a limit");
        Bucket { policy, per_minute, who: Who::Address(std::net::Ipv4Addr::from_bits(caller).into()) }
    }

    fn allowed(local: &Local<FakeRelativeClock>, bucket: &Bucket, times: u32) -> u32 {
        (0..times).map(|_| u32::from(local.check(bucket).wait.is_none())).sum()
    }

    #[test]
    fn a_full_bucket_then_an_even_flow() {
        let clock = FakeRelativeClock::default();
        let local = Local::new(clock.clone(), CALLERS);
        let search = bucket("search", 60, 1);
        assert_eq!(local.check(&search), Decision { remaining: 59, wait: None });
        assert_eq!(allowed(&local, &search, 100), 59);
        let refused = local.check(&search);
        assert_eq!((refused.remaining, refused.wait), (0, Some(Duration::from_secs(1))));
        clock.advance(Duration::from_secs(10));
        assert_eq!(allowed(&local, &search, 100), 10);
        clock.advance(Duration::from_mins(10));
        assert_eq!(allowed(&local, &search, 100), 60, "never more than a bucket at once");
    }

    #[test]
    fn callers_and_policies_and_limits_do_not_share_buckets() {
        let local = Local::new(FakeRelativeClock::default(), CALLERS);
        for other in [bucket("search", 5, 1), bucket("search", 5, 2), bucket("address", 5, 1), bucket("search", 6, 1)] {
            assert_eq!(allowed(&local, &other, 100), other.per_minute.get(), "{other:?}");
        }
    }

    #[test]
    fn memory_is_bounded_and_who_is_over_the_limit_is_not_forgotten() {
        let clock = FakeRelativeClock::default();
        let local = Local::new(clock.clone(), 1_600);
        let greedy = bucket("search", 10, 0);
        assert_eq!(allowed(&local, &greedy, 20), 10);
        for caller in 1..50_000 {
            local.check(&bucket("search", 10, caller));
            if caller % 100 == 0 {
                assert_eq!(allowed(&local, &greedy, 2), 0, "after {caller} others");
            }
        }
        let limiter =
            Arc::into_inner(local.limiters.into_inner().expect("no panic").remove(&greedy.per_minute).expect("one"));
        assert!(limiter.expect("the only one").into_state_store().len() <= 1_600);
    }
}
