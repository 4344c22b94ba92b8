//! Waiting for what must become so, and bounds that count only the time in which this process could run.
//!
//! The machines that run tests are shared: now and then one stands still for a second, and a bound would then say something about
//! the machine. A thread that does nothing but sleep sees by how much it wakes too late; that time does not count.

use std::{
    sync::{Mutex, MutexGuard, Once, PoisonError},
    time::{Duration, Instant},
};

/// Longer than any condition here takes on a busy machine; only a failing test waits this long.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How often the thread looks.
const TICK: Duration = Duration::from_millis(10);

/// A thread that wakes less late was delayed by the usual business of two cores.
const NOTICED: Duration = Duration::from_millis(40);

/// However much is lost, nobody waits longer than so many times what was meant.
const AT_MOST: u32 = 5;

/// What the thread has seen.
struct Seen {
    /// Since when it sleeps; none before its first sleep.
    asleep: Option<Instant>,
    /// The time lost before.
    lost: Duration,
}

impl Seen {
    /// The time lost until now. The thread itself may not have woken yet.
    fn lost_by_now(&self) -> Duration {
        let late = self.asleep.map_or(Duration::ZERO, |asleep| asleep.elapsed().saturating_sub(TICK));
        self.lost + if late < NOTICED { Duration::ZERO } else { late }
    }
}

fn seen() -> MutexGuard<'static, Seen> {
    static SEEN: Mutex<Seen> = Mutex::new(Seen { asleep: None, lost: Duration::ZERO });
    SEEN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn watch() {
    loop {
        {
            let mut seen = seen();
            *seen = Seen { lost: seen.lost_by_now(), asleep: Some(Instant::now()) };
        }
        std::thread::sleep(TICK);
    }
}

/// How long this process has stood still since the first who asked.
fn lost() -> Duration {
    static WATCHING: Once = Once::new();
    WATCHING.call_once(|| drop(std::thread::Builder::new().name("stalls".to_owned()).spawn(watch).expect("a thread")));
    seen().lost_by_now()
}

/// Counts the time in which this process could run.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch {
    began: Instant,
    lost: Duration,
}

impl Stopwatch {
    /// Begins now.
    pub fn start() -> Self {
        let lost = lost();
        Self { began: Instant::now(), lost }
    }

    /// The time since, without that in which the process stood still.
    pub fn elapsed(&self) -> Duration {
        let all = self.began.elapsed();
        all.saturating_sub(self.stood_still())
    }

    /// How long of the time since the process stood still.
    pub fn stood_still(&self) -> Duration {
        lost().saturating_sub(self.lost)
    }
}

/// Returns once `condition` holds; fails the test when it never does.
#[track_caller]
pub fn eventually(what: &str, condition: impl AsyncFn() -> bool) -> impl Future<Output = ()> {
    within(PATIENCE, what, condition)
}

/// Returns once `condition` holds; fails the test when it does not within `time`.
#[track_caller]
pub fn within(time: Duration, what: &str, condition: impl AsyncFn() -> bool) -> impl Future<Output = ()> {
    let caller = std::panic::Location::caller();
    async move {
        let waited = Stopwatch::start();
        let mut waiting = std::pin::pin!(async {
            while !condition().await {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        loop {
            let left = time.saturating_sub(waited.elapsed());
            if tokio::time::timeout(left, &mut waiting).await.is_ok() {
                return;
            }
            let over = waited.elapsed() >= time || waited.began.elapsed() >= AT_MOST * time;
            assert!(!over, "{caller}: not within {time:?}: {what}");
        }
    }
}
