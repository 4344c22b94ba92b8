//! How many pieces of work at once are worth it, found from how long they take: a state machine without a clock or a lock.
//!
//! Netflix's and Envoy's gradient: work is watched in windows, and when a window's mean is above what is allowed, the limit shrinks in
//! that proportion; a square root of the limit is always added, as room for bursts and to find out whether more is possible.
//! Allowed is one and a half times what the work takes at rest, and never less than the target. At rest is the least of the last
//! minute's windows. While the limit is in use nothing is at rest, so every half minute it is halved for a moment, as often as that makes
//! the work quicker: at equilibrium half of it still keeps the other side busy. When the limit has shrunk by half and the work takes as long
//! as before, the work has become slower by itself, and that is the new rest. A window in which less than half of the limit was in use says nothing about it.

use std::time::{Duration, Instant};

/// Work may take this much longer than at rest: Netflix's tolerance. Less would take noise for load.
const TOLERANCE: f64 = 1.5;

/// The most that one window shrinks the limit, as with Netflix and Envoy: a single stall must not close the gate.
const STEEPEST: f64 = 0.5;

/// What a bound that was run into shrinks the limit by, once a window: Netflix's backoff.
const BACKOFF: f64 = 0.9;

/// The mean of twenty is within a quarter of the true one for exponential times.
const SAMPLES: u32 = 20;

/// Short enough to react within a second, long enough that a scheduler's hiccup is one of many samples.
const WINDOW: Duration = Duration::from_millis(250);

/// With nothing done for so long, what came before has nothing to do with what comes.
const STALE: Duration = Duration::from_secs(10);

/// Work that runs into bounds of seconds fills no window: so much of it is enough.
const LATE_AFTER: Duration = Duration::from_secs(1);

/// The least of two such periods is what work takes at rest; each ends with a look when the limit was in use.
const PERIOD: Duration = Duration::from_secs(30);

/// After a start under load nothing is known of rest: the first look comes soon.
const FIRST_PERIOD: Duration = Duration::from_secs(2);

/// The limit at the start: four times what a pool of sixteen connections computes at once, so that the first burst after a start is
/// not turned away before anything was measured.
const FIRST: usize = 64;

/// When halving the limit takes less than a fifth off the time, the limit is not the cause.
const HELPED: f64 = 0.8;

/// A limit that shrinks by less than a tenth has come to where the square root that is added makes up for it.
const STUCK: f64 = 0.9;

/// Between which numbers the limit moves.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub least: usize,
    pub most: usize,
}

/// What one piece of work tells.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Sample {
    /// It went well and took this long.
    Took(Duration),
    /// It was given up after this long.
    MoreThan(Duration),
    /// It ran into a bound.
    Late,
}

/// The limit and what it is found from.
#[derive(Debug)]
pub(super) struct Limit {
    bounds: Bounds,
    target: Duration,
    places: f64,
    window: Window,
    rest: Rest,
    look: Option<Look>,
    /// Windows that shrink the limit as much as one may: where that began.
    falling: Option<Falling>,
}

/// The limit is made smaller for a moment, to see what the work takes at rest.
#[derive(Clone, Copy, Debug)]
struct Look {
    /// How often it was halved.
    halved: u32,
    /// What was let in before is still coming out.
    draining: bool,
    /// The mean before the last halving.
    mean: Option<Duration>,
}

/// Samples since the last conclusion.
#[derive(Debug)]
struct Window {
    began: Instant,
    /// When the last sample came.
    last: Instant,
    /// It lasts at least as long as one piece of work.
    lasts: Duration,
    samples: u32,
    took: Duration,
    late: u32,
    /// The most that was in use.
    peak: usize,
}

/// The least mean of the last two periods.
#[derive(Debug)]
struct Rest {
    began: Instant,
    lasts: Duration,
    now: Option<Duration>,
    before: Option<Duration>,
    /// Some window of this period had the limit in use.
    busy: bool,
}

/// Where windows began to shrink the limit as much as one may.
#[derive(Debug)]
struct Falling {
    limit: f64,
    mean: Duration,
}

impl Limit {
    pub fn new(bounds: Bounds, target: Duration, now: Instant) -> Self {
        let limit = u32::try_from(FIRST.clamp(bounds.least, bounds.most)).unwrap_or(u32::MAX);
        let rest = Rest { began: now, lasts: FIRST_PERIOD, now: None, before: None, busy: false };
        let window = Window::new(now, WINDOW);
        Self { bounds, target, places: limit.into(), window, rest, look: None, falling: None }
    }

    /// How many may be worked on now.
    pub fn now(&self) -> usize {
        self.at(self.look.as_ref().map_or(0, |look| look.halved))
    }

    /// The limit, so often halved.
    fn at(&self, halved: u32) -> usize {
        let limit = self.places / f64::from(halved).exp2();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it lies between the bounds")]
        let limit = limit as usize;
        limit.clamp(self.bounds.least, self.bounds.most)
    }

    /// So many are worked on, or were when one more was turned away.
    pub fn in_use(&mut self, in_use: usize) {
        self.window.peak = self.window.peak.max(in_use);
    }

    /// One is done. Returns whether conclusions were drawn.
    pub fn left(&mut self, sample: Sample, now: Instant) -> bool {
        if now.saturating_duration_since(self.window.last) > STALE {
            self.window = Window::new(now, WINDOW);
        }
        let allowed = self.allowed();
        self.window.add(sample, allowed, now);
        if !self.window.is_full(now) {
            return false;
        }
        let mean = self.window.mean();
        let lasts = mean.map_or(WINDOW, |mean| WINDOW.max(mean));
        let ended = std::mem::replace(&mut self.window, Window::new(now, lasts));
        self.conclude(&ended, mean, now);
        true
    }

    /// What work may take on average.
    fn allowed(&self) -> Option<Duration> {
        self.rest.least().map(|rest| rest.mul_f64(TOLERANCE).max(self.target))
    }

    fn conclude(&mut self, window: &Window, mean: Option<Duration>, now: Instant) {
        if let Some(look) = self.look.take() {
            self.look = self.look_on(look, mean);
            return;
        }
        let in_use = window.peak * 2 + 1 >= self.now();
        // Below the target the limit grows whatever the work takes at rest.
        self.rest.busy |= in_use && mean.is_some_and(|mean| mean > self.target);
        if self.rest.turn(now) {
            self.look = Some(Look { halved: 1, draining: true, mean });
            return;
        }
        self.rest.learn(mean);
        if in_use {
            self.follow(mean, window.late > 0);
        }
    }

    /// Halves the limit once more, as long as that helps.
    fn look_on(&mut self, look: Look, mean: Option<Duration>) -> Option<Look> {
        if look.draining {
            return Some(Look { draining: false, ..look });
        }
        self.rest.learn(mean);
        let helped = look.mean.zip(mean).is_some_and(|(before, mean)| mean < before.mul_f64(HELPED));
        let smaller = self.at(look.halved) > self.bounds.least;
        (helped && smaller).then(|| Look { halved: look.halved + 1, draining: true, mean })
    }

    /// Moves the limit to what the mean says.
    fn follow(&mut self, mean: Option<Duration>, late: bool) {
        let (before, room) = (self.places, self.places.sqrt());
        let gradient = match (self.allowed(), mean) {
            (Some(allowed), Some(mean)) => (allowed.as_secs_f64() / mean.as_secs_f64()).clamp(STEEPEST, 1.0),
            _ => 1.0,
        };
        self.places = before * gradient + room;
        if late {
            self.places = self.places.min(before * BACKOFF);
        }
        let bound = |bound: usize| f64::from(u32::try_from(bound).unwrap_or(u32::MAX));
        self.places = self.places.clamp(bound(self.bounds.least), bound(self.bounds.most));
        match mean {
            Some(mean) if gradient <= STEEPEST => self.fell(before, mean),
            _ => self.falling = None,
        }
    }

    /// The work takes far longer than at rest. If that stays so when the limit is half of what it was, or can shrink no more, it is
    /// so at rest too.
    fn fell(&mut self, before: f64, mean: Duration) {
        let Some(began) = &self.falling else {
            self.falling = Some(Falling { limit: before, mean });
            return;
        };
        let stuck = self.places >= before * STUCK;
        if before > began.limit / 2.0 && !stuck {
            return;
        }
        if mean > began.mean.mul_f64(HELPED) {
            self.rest.is(mean);
            self.falling = None;
        } else {
            self.falling = Some(Falling { limit: before, mean });
        }
    }
}

impl Window {
    fn new(now: Instant, lasts: Duration) -> Self {
        Self { began: now, last: now, lasts, samples: 0, took: Duration::ZERO, late: 0, peak: 0 }
    }

    fn add(&mut self, sample: Sample, allowed: Option<Duration>, now: Instant) {
        self.last = now;
        match sample {
            // Of what was given up only a bound is known: it counts where the bound itself is too much.
            Sample::MoreThan(took) if allowed.is_none_or(|allowed| took <= allowed) => {}
            Sample::Took(took) | Sample::MoreThan(took) => {
                self.samples += 1;
                self.took += took;
            }
            Sample::Late => self.late += 1,
        }
    }

    fn is_full(&self, now: Instant) -> bool {
        let age = now.saturating_duration_since(self.began);
        age >= self.lasts && (self.samples >= SAMPLES || (self.late > 0 && age >= LATE_AFTER))
    }

    /// None when nothing was finished.
    fn mean(&self) -> Option<Duration> {
        (self.samples > 0).then(|| self.took / self.samples)
    }
}

impl Rest {
    fn least(&self) -> Option<Duration> {
        self.now.into_iter().chain(self.before).min()
    }

    fn learn(&mut self, mean: Option<Duration>) {
        self.now = self.now.into_iter().chain(mean).min();
    }

    /// Forgets what was known.
    fn is(&mut self, mean: Duration) {
        (self.now, self.before) = (Some(mean), None);
    }

    /// Begins a new period when this one is over. Returns whether a look is due: it ended, and was a busy one.
    fn turn(&mut self, now: Instant) -> bool {
        if now.saturating_duration_since(self.began) < self.lasts {
            return false;
        }
        let busy = self.busy;
        *self = Self { began: now, lasts: PERIOD, now: None, before: self.now.or(self.before), busy: false };
        busy
    }
}

#[cfg(test)]
mod tests;
