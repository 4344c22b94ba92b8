//! The limit in front of a simulated database: so many places, each piece of work a fixed time, a queue before them.
//!
//! Callers come at fixed moments, far more of them than can be worked on. No clock runs: a simulated minute takes milliseconds.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    time::{Duration, Instant},
};

use super::*;

const BOUNDS: Bounds = Bounds { least: 4, most: 256 };
/// Below anything simulated here, so that the gradient alone decides.
const TARGET: Duration = Duration::from_millis(1);

/// What stands behind the limit.
struct Database {
    places: usize,
    takes: Duration,
}

struct Simulation {
    limit: Limit,
    now: Instant,
    /// When each piece of work that was let in ends, and how long it will have taken.
    running: BinaryHeap<Reverse<(Instant, Duration)>>,
    /// When each place of the database is free again.
    free_at: BinaryHeap<Reverse<Instant>>,
    most_in_use: usize,
}

impl Simulation {
    fn new(bounds: Bounds, target: Duration) -> Self {
        let now = Instant::now();
        let limit = Limit::new(bounds, target, now);
        Self { limit, now, running: BinaryHeap::new(), free_at: BinaryHeap::new(), most_in_use: 0 }
    }

    /// Callers every `pause` for `time`. Returns how many were answered each second, and the mean time of the last second's.
    fn run(&mut self, database: &Database, pause: Duration, time: Duration) -> (f64, Duration) {
        let (end, mut done, mut last) = (self.now + time, 0_u32, Vec::new());
        while self.now < end {
            while let Some(Reverse((ends, took))) = self.running.peek().copied()
                && ends <= self.now
            {
                self.running.pop();
                self.limit.left(Sample::Took(took), ends);
                done += 1;
                if end - ends < Duration::from_secs(1) {
                    last.push(took);
                }
            }
            let in_use = self.running.len();
            if in_use < self.limit.now() {
                self.enter(database);
                self.limit.in_use(in_use + 1);
            } else {
                self.limit.in_use(in_use);
            }
            self.most_in_use = self.most_in_use.max(self.running.len());
            self.now += pause;
        }
        let mean = last.iter().sum::<Duration>() / u32::try_from(last.len().max(1)).expect("a count");
        (f64::from(done) / time.as_secs_f64(), mean)
    }

    /// One more in the database's queue.
    fn enter(&mut self, database: &Database) {
        while self.free_at.len() > database.places || self.free_at.peek().is_some_and(|free| free.0 <= self.now) {
            self.free_at.pop();
        }
        let busy = self.free_at.len() >= database.places;
        let begins = if busy { self.free_at.pop().expect("a busy place").0.max(self.now) } else { self.now };
        let ends = begins + database.takes;
        self.free_at.push(Reverse(ends));
        self.running.push(Reverse((ends, ends - self.now)));
    }
}

const fn milliseconds(number: u64) -> Duration {
    Duration::from_millis(number)
}

#[test]
fn ten_times_what_can_be_done_for_a_minute_is_done_at_the_full_rate_and_in_time() {
    for (places, takes) in [(8, 10), (8, 50), (32, 50), (2, 20), (16, 300)] {
        let database = Database { places, takes: milliseconds(takes) };
        let capacity =
            f64::from(u32::try_from(places).expect("few")) * 1_000.0 / f64::from(u32::try_from(takes).expect("short"));
        let mut simulation = Simulation::new(BOUNDS, TARGET);
        let tenfold = Duration::from_secs_f64(0.1 / capacity);
        let (rate, _) = simulation.run(&database, tenfold, Duration::from_mins(1));
        let (_, mean) = simulation.run(&database, tenfold, Duration::from_secs(10));
        assert!(rate >= 0.9 * capacity, "{places} places of {takes} ms: {rate} of {capacity} a second");
        assert!(
            mean <= 9 * database.takes,
            "{places} places of {takes} ms: {mean:?}, limit {}",
            simulation.limit.now()
        );
        if places >= 8 {
            assert!(mean <= 3 * database.takes, "{places} places of {takes} ms: {mean:?}");
        }
        assert!(simulation.most_in_use <= BOUNDS.most);
    }
}

#[test]
fn a_database_that_becomes_slower_by_itself_is_not_punished_for_long() {
    let mut simulation = Simulation::new(BOUNDS, TARGET);
    let (fast, slow) =
        (Database { places: 16, takes: milliseconds(5) }, Database { places: 16, takes: milliseconds(100) });
    simulation.run(&fast, milliseconds(1), Duration::from_secs(20));
    // 160 a second can be done, 1,000 come.
    simulation.run(&slow, milliseconds(1), Duration::from_secs(15));
    let (rate, mean) = simulation.run(&slow, milliseconds(1), Duration::from_secs(10));
    assert!(rate >= 0.9 * 160.0, "{rate} of 160 a second, limit {}", simulation.limit.now());
    assert!(mean <= milliseconds(350), "{mean:?}");
    // And back: at once.
    simulation.run(&fast, milliseconds(1), Duration::from_secs(5));
    let (rate, _) = simulation.run(&fast, milliseconds(1), Duration::from_secs(5));
    assert!(rate >= 0.95 * 1_000.0, "{rate} of 1,000 a second, limit {}", simulation.limit.now());
}

#[test]
fn below_the_target_nothing_is_turned_away() {
    let mut simulation = Simulation::new(BOUNDS, milliseconds(100));
    let database = Database { places: 4, takes: milliseconds(10) };
    simulation.run(&database, milliseconds(10), Duration::from_secs(20));
    // Four times longer than at rest, and still quick: 16 at once, on 4 places.
    for _ in 0..10 {
        for _ in 0..16 {
            assert!(simulation.running.len() < simulation.limit.now());
            simulation.enter(&database);
            simulation.limit.in_use(simulation.running.len());
        }
        simulation.run(&database, milliseconds(10), Duration::from_secs(1));
    }
    assert!(simulation.limit.now() >= 16, "{}", simulation.limit.now());
}

#[test]
fn quiet_times_change_nothing() {
    let mut simulation = Simulation::new(BOUNDS, TARGET);
    let first = simulation.limit.now();
    // One at a time, ever slower.
    for takes in [5, 20, 80, 320] {
        let database = Database { places: 4, takes: milliseconds(takes) };
        simulation.run(&database, milliseconds(400), Duration::from_mins(1));
        assert_eq!(simulation.limit.now(), first, "{takes} ms");
    }
}

#[test]
fn work_that_runs_into_its_bound_shrinks_the_limit_though_nothing_is_measured() {
    let began = Instant::now();
    let mut limit = Limit::new(BOUNDS, TARGET, began);
    let first = limit.now();
    for second in 1..=20 {
        limit.in_use(first);
        limit.left(Sample::Late, began + Duration::from_secs(second));
    }
    assert!(limit.now() < first / 3, "{}", limit.now());
    assert!(limit.now() >= BOUNDS.least);
}

#[test]
fn callers_who_leave_count_as_long_as_they_waited_when_that_was_too_long() {
    let began = Instant::now();
    let feed = |limit: &mut Limit, from: u64, sample| {
        for nth in 0..400 {
            limit.in_use(BOUNDS.most);
            limit.left(sample, began + milliseconds(from + nth * 10));
        }
    };
    let mut limit = Limit::new(BOUNDS, TARGET, began);
    feed(&mut limit, 0, Sample::Took(milliseconds(20)));
    let before = limit.now();
    feed(&mut limit, 4_000, Sample::MoreThan(milliseconds(10)));
    assert!(limit.now() >= before, "they left before it was too long");
    feed(&mut limit, 8_000, Sample::MoreThan(milliseconds(60)));
    assert!(limit.now() < before, "{} after {before}", limit.now());
}

#[test]
fn the_limit_stays_between_its_bounds() {
    for bounds in [Bounds { least: 1, most: 1 }, Bounds { least: 2, most: 3 }, Bounds { least: 8, most: 8 }] {
        let mut simulation = Simulation::new(bounds, TARGET);
        for (places, takes) in [(64, 1), (1, 200), (64, 1)] {
            simulation.run(&Database { places, takes: milliseconds(takes) }, milliseconds(1), Duration::from_secs(40));
            assert!((bounds.least..=bounds.most).contains(&simulation.limit.now()));
        }
        assert!(simulation.most_in_use <= bounds.most);
    }
}
