//! What all replicas together have let through: the same GCRA in Redis, by its clock.
//!
//! One script and one key for each bucket. A Redis that is away, refuses or needs longer than [`BUDGET`] is no answer, and the caller
//! goes by its own count; the breaker of the shared cache tier keeps a Redis that is away from being asked at all.

use std::time::Duration;

use deadpool_redis::redis::{Script, Value, from_redis_value};

use super::{Bucket, Decision, local::interval};
use crate::search::Shared;

/// What a request may wait for its count: as a lookup in the cache.
const BUDGET: Duration = Duration::from_millis(50);

/// Keys do not begin as the cache's do, which can be emptied.
const PREFIX: &str = "doc-server:limit:";

/// Microseconds, which a Lua number holds exactly. `due` is when the next request would come if all came evenly; a clock that jumped back
/// must not leave a caller shut out, so it is never more than a window ahead.
const GCRA: &str = "
    local time = redis.call('TIME')
    local now = time[1] * 1000000 + time[2]
    local interval, window = tonumber(ARGV[1]), tonumber(ARGV[2])
    local due = tonumber(redis.call('GET', KEYS[1]) or '0')
    due = math.min(math.max(due, now), now + window) + interval
    local room = now + window - due
    if room < 0 then return {0, -room} end
    redis.call('SET', KEYS[1], string.format('%.0f', due), 'PX', math.ceil((due - now) / 1000))
    return {1, room}";

/// The count that replicas have in common.
pub(super) struct Counts {
    redis: Shared,
    script: Script,
}

impl Counts {
    pub fn new(redis: Shared) -> Self {
        Self { redis, script: Script::new(GCRA) }
    }

    /// Counts one request. None when Redis cannot say.
    pub async fn check(&self, bucket: &Bucket) -> Option<Decision> {
        let interval = u64::try_from(interval(bucket.per_minute).as_micros()).ok()?.max(1);
        let window = interval * u64::from(bucket.per_minute.get());
        // In braces: a cluster places the key by them.
        let key = format!("{PREFIX}{{{}:{}}}", bucket.policy, bucket.who);
        let answer = self.redis.run_script(&self.script, &key, &[interval, window], BUDGET).await?;
        decision(answer, interval)
    }
}

fn decision(answer: Value, interval: u64) -> Option<Decision> {
    let (allowed, microseconds): (bool, u64) = from_redis_value(answer).ok()?;
    Some(if allowed {
        Decision { remaining: u32::try_from(microseconds / interval).unwrap_or(u32::MAX), wait: None }
    } else {
        Decision { remaining: 0, wait: Some(Duration::from_micros(microseconds)) }
    })
}
