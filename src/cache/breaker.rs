//! When to leave a failing service alone: a state machine without a clock or a lock of its own.
//!
//! Closed lets every operation through and opens after a row of failures that lasted a while: many operations that meet one
//! short stall fail together and mean nothing. Open lets none through; probes, at most one in
//! each pause, find out whether the service is back. A late answer to an operation from before does not close it.

use std::time::{Duration, Instant};

/// Whether operations are let through.
#[derive(Debug)]
pub(super) struct Breaker {
    /// Failures in a row that open it.
    threshold: u32,
    /// How long the row must have lasted.
    patience: Duration,
    /// Between the beginnings of two probes.
    pause: Duration,
    state: State,
}

#[derive(Debug)]
enum State {
    Closed { failures: u32, since: Instant },
    Open { probe_from: Instant },
}

impl Breaker {
    /// An open one whose first probe may begin at once: nothing is known of the service yet.
    pub fn new(threshold: u32, patience: Duration, pause: Duration, now: Instant) -> Self {
        Self { threshold, patience, pause, state: State::Open { probe_from: now } }
    }

    /// Whether operations are let through.
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed { .. })
    }

    /// An operation went well.
    pub fn succeeded(&mut self) {
        if let State::Closed { failures, .. } = &mut self.state {
            *failures = 0;
        }
    }

    /// An operation failed. Returns whether that opened it.
    pub fn failed(&mut self, now: Instant) -> bool {
        let State::Closed { failures, since } = &mut self.state else { return false };
        if *failures == 0 {
            *since = now;
        }
        *failures += 1;
        let opens = *failures >= self.threshold && now.saturating_duration_since(*since) >= self.patience;
        if opens {
            self.state = State::Open { probe_from: now + self.pause };
        }
        opens
    }

    /// Whether a probe may begin now; if so, the next may not before the pause is over.
    pub fn take_probe(&mut self, now: Instant) -> bool {
        match &mut self.state {
            State::Open { probe_from } if now >= *probe_from => {
                *probe_from = now + self.pause;
                true
            }
            _ => false,
        }
    }

    /// How long until a probe may begin; none while closed.
    pub fn probe_in(&self, now: Instant) -> Option<Duration> {
        match self.state {
            State::Open { probe_from } => Some(probe_from.saturating_duration_since(now)),
            State::Closed { .. } => None,
        }
    }

    /// A probe went well.
    pub fn close(&mut self, now: Instant) {
        self.state = State::Closed { failures: 0, since: now };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_secs(1);
    const PATIENCE: Duration = Duration::from_millis(200);

    fn closed(now: Instant) -> Breaker {
        let mut breaker = Breaker::new(3, PATIENCE, PAUSE, now);
        breaker.close(now);
        breaker
    }

    /// One that is open, and when it opened.
    fn opened() -> (Breaker, Instant) {
        let began = Instant::now();
        let mut breaker = closed(began);
        assert!((0..10).all(|_| !breaker.failed(began)));
        assert!(breaker.failed(began + PATIENCE));
        (breaker, began + PATIENCE)
    }

    #[test]
    fn begins_open_and_is_closed_by_its_first_probe() {
        let now = Instant::now();
        let mut breaker = Breaker::new(3, PATIENCE, PAUSE, now);
        assert!(!breaker.is_closed());
        assert!(breaker.take_probe(now));
        breaker.close(now);
        assert!(breaker.is_closed());
        assert!(!breaker.take_probe(now + 10 * PAUSE), "a closed one needs no probe");
    }

    #[test]
    fn opens_after_a_row_of_failures_only() {
        let now = Instant::now();
        let mut breaker = closed(now);
        for nth in 0..10 {
            let at = now + nth * PATIENCE;
            assert!(!breaker.failed(at) && !breaker.failed(at + PATIENCE));
            breaker.succeeded();
        }
        let at = now + 10 * PATIENCE;
        assert_eq!([0, 1, 2].map(|nth| breaker.failed(at + nth * PATIENCE)), [false, false, true]);
        assert!(!breaker.is_closed());
    }

    #[test]
    fn many_failures_of_one_moment_do_not_open_it() {
        let now = Instant::now();
        let mut breaker = closed(now);
        assert!((0..1_000).all(|_| !breaker.failed(now)));
        breaker.succeeded();
        assert!(!breaker.failed(now + PATIENCE), "the row ended");
        assert!(breaker.is_closed());
    }

    #[test]
    fn late_answers_neither_close_nor_delay_it() {
        let (mut breaker, now) = opened();
        breaker.succeeded();
        assert!(!breaker.is_closed());
        assert!(!breaker.failed(now + PAUSE / 2), "it is open already");
        assert!(breaker.take_probe(now + PAUSE));
    }

    #[test]
    fn lets_at_most_one_probe_through_in_each_pause() {
        let (mut breaker, now) = opened();
        let asked = (0..1_000).map(|nth| now + nth * (PAUSE / 100));
        let granted: Vec<Instant> = asked.filter(|at| breaker.take_probe(*at)).collect();
        assert_eq!(granted.len(), 9, "from one pause after the failure on, one in each second of ten");
        assert!(granted.windows(2).all(|pair| pair[1] - pair[0] >= PAUSE));
    }
}
