//! How many reads may be tried again: few enough that a database that fails everything is asked at most 1.2 times as often.
//!
//! Envoy's retry budget, counted over the last ten seconds: retries are at most a fifth of the requests, and three where that is
//! more, so that a quiet server may try again too. Never blocks longer than a short lock.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Retries for each request: Envoy's default.
const SHARE: f64 = 0.2;

/// Retries that are always allowed: Envoy's default.
const AT_LEAST: u32 = 3;

/// Attempts after the first: Google's three a request in all.
pub(super) const MORE_ATTEMPTS: u32 = 2;

/// One bucket a second.
const SECONDS: usize = 10;

/// Requests and retries of the last ten seconds.
#[derive(Clone, Debug)]
pub(super) struct Budget(Arc<Mutex<Window>>);

#[derive(Debug)]
struct Window {
    began: Instant,
    /// The second that the newest bucket is for.
    second: u64,
    buckets: [Bucket; SECONDS],
}

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    requests: u32,
    retries: u32,
}

impl Budget {
    /// Nothing has been asked yet.
    pub fn new() -> Self {
        let window = Window { began: Instant::now(), second: 0, buckets: [Bucket::default(); SECONDS] };
        Self(Arc::new(Mutex::new(window)))
    }

    /// Counts a request.
    pub fn request(&self) {
        self.with_window(|window| window.newest().requests += 1);
    }

    /// Whether one more may be tried again now; counts it.
    pub fn retry(&self) -> bool {
        self.with_window(Window::retry)
    }

    fn with_window<T>(&self, change: impl FnOnce(&mut Window) -> T) -> T {
        let mut window = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = window.began.elapsed().as_secs();
        window.advance(now);
        change(&mut window)
    }
}

impl Window {
    /// Empties the buckets of the seconds that have passed.
    fn advance(&mut self, now: u64) {
        let passed = usize::try_from(now.saturating_sub(self.second)).unwrap_or(SECONDS).min(SECONDS);
        for _ in 0..passed {
            self.buckets.rotate_right(1);
            self.buckets[0] = Bucket::default();
        }
        self.second = now;
    }

    fn newest(&mut self) -> &mut Bucket {
        &mut self.buckets[0]
    }

    fn retry(&mut self) -> bool {
        let sum = |of: fn(&Bucket) -> u32| self.buckets.iter().map(of).sum::<u32>();
        let (requests, retries) = (sum(|bucket| bucket.requests), sum(|bucket| bucket.retries));
        let allowed = f64::from(retries + 1) <= f64::from(requests) * SHARE || retries < AT_LEAST;
        if allowed {
            self.newest().retries += 1;
        }
        allowed
    }
}

/// A pause before the next attempt, so that callers who failed together do not come back together: 5 to 25 ms, then twice
/// as long. A server process that ended is replaced in a few milliseconds.
pub(super) fn pause(attempt: u32) -> Duration {
    Duration::from_micros(fastrand::u64(5_000..25_000) << attempt.saturating_sub(1).min(MORE_ATTEMPTS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_that_fails_everything_is_asked_at_most_a_fifth_more() {
        let mut window = Window { began: Instant::now(), second: 0, buckets: [Bucket::default(); SECONDS] };
        let (mut requests, mut retries) = (0, 0);
        for second in 0..30 {
            window.advance(second);
            for _ in 0..100 {
                window.newest().requests += 1;
                requests += 1;
                retries += (0..MORE_ATTEMPTS).take_while(|_| window.retry()).count();
            }
        }
        assert!((550..=600).contains(&retries), "{retries} retries of {requests} requests");
    }

    #[test]
    fn a_quiet_server_may_try_three_again_in_ten_seconds() {
        let mut window = Window { began: Instant::now(), second: 0, buckets: [Bucket::default(); SECONDS] };
        window.newest().requests += 1;
        assert_eq!((0..5).filter(|_| window.retry()).count(), 3);
        window.advance(9);
        assert!(!window.retry());
        window.advance(10);
        assert!(window.retry());
    }
}
