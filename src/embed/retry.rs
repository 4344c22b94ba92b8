//! When to call a provider again, and when to leave it alone.
//!
//! At most [`ATTEMPTS`] per call, jittered and never past the deadline; over all calls at most a fifth more requests
//! than were asked for (and [`RESERVE`] at first), so that a provider that is down is not stormed.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

/// Further ones rarely succeed where three did not, and multiply the load on a provider in trouble.
pub(super) const ATTEMPTS: u32 = 3;

/// The first pause: long enough for a restart of a proxy's connection, short beside a caller's patience. Doubled for
/// the next.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// What each call adds to the budget: a fifth of a retry.
const SHARE: f64 = 0.2;

/// Retries in hand at the start and after a quiet time, so that a process with few calls may retry at all. It is also
/// the most that is ever saved up: a long good time must not pay for a storm.
const RESERVE: f64 = 3.0;

/// Counts what may be retried.
#[derive(Debug)]
pub(super) struct Budget(Mutex<f64>);

impl Budget {
    /// A full reserve.
    pub fn new() -> Self {
        Self(Mutex::new(RESERVE))
    }

    /// One call was made.
    pub fn deposit(&self) {
        let mut balance = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *balance = (*balance + SHARE).min(RESERVE);
    }

    /// Whether one retry may be made; takes it.
    pub fn withdraw(&self) -> bool {
        let mut balance = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Five fifths may add up to a little less than one.
        let covered = *balance > 1.0 - f64::EPSILON * 8.0;
        if covered {
            *balance -= 1.0;
        }
        covered
    }
}

/// How long to wait after failed attempt number `attempt` (from 1): what the provider asked for, else twice as long
/// each time, between half and all of it by chance, so that replicas do not come back together.
pub(super) fn pause(attempt: u32, asked: Option<Duration>) -> Duration {
    asked.unwrap_or_else(|| {
        let longest = FIRST_PAUSE * 2_u32.saturating_pow(attempt.saturating_sub(1));
        // The standard hasher's keys are random: good enough for a jitter.
        let chance = RandomState::new().hash_one(attempt) % 1000;
        longest / 2 + longest * u32::try_from(chance).unwrap_or(0) / 2000
    })
}

/// The value of a `Retry-After` header: seconds, or a date.
pub(super) fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    if let Ok(seconds) = value.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = chrono::DateTime::parse_from_rfc2822(value.trim()).ok()?;
    // A date that has passed means: now.
    Some(SystemTime::from(date).duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use super::*;

    #[test]
    fn a_dead_provider_gets_a_fifth_more_requests_and_the_reserve() {
        let budget = Budget::new();
        let mut retries = 0;
        for _ in 0..1000 {
            budget.deposit();
            retries += u32::from(budget.withdraw());
        }
        assert!((200..=203).contains(&retries), "{retries}");
    }

    #[test]
    fn a_quiet_time_saves_no_more_than_the_reserve() {
        let budget = Budget::new();
        (0..1000).for_each(|_| budget.deposit());
        assert_eq!((0..10).filter(|_| budget.withdraw()).count(), 3);
    }

    #[test]
    fn pauses_grow_and_differ() {
        for (attempt, longest) in [(1, 100), (2, 200)] {
            let pauses: Vec<_> = (0..50).map(|_| pause(attempt, None).as_millis()).collect();
            assert!(pauses.iter().all(|pause| (longest / 2..=longest).contains(pause)), "{pauses:?}");
            assert!(pauses.iter().any(|pause| *pause != pauses[0]), "{pauses:?}");
        }
        assert_eq!(pause(1, Some(Duration::from_secs(7))), Duration::from_secs(7));
    }

    #[test]
    fn reads_both_forms_of_retry_after() {
        let now = SystemTime::from(chrono::DateTime::parse_from_rfc2822("Sun, 06 Nov 1994 08:49:37 GMT").unwrap());
        for (value, expected) in [
            ("120", Some(120)),
            ("Sun, 06 Nov 1994 08:49:47 GMT", Some(10)),
            ("Sun, 06 Nov 1994 08:49:07 GMT", Some(0)),
            ("soon", None),
            ("-1", None),
        ] {
            assert_eq!(retry_after(value, now), expected.map(Duration::from_secs), "{value}");
        }
    }
}
