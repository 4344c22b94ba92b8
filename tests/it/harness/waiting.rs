//! Waiting for what must become so, and bounds that count only the time in which this process could run.
//!
//! The machines that run tests are shared: now and then one stands still for a second, and a bound would then say something about
//! the machine. A thread that does nothing but sleep sees by how much it wakes too late; that time does not count.

use std::{
    sync::{
        LazyLock, Once,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// Longer than any condition here takes on a busy machine; only a failing test waits this long.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How often the thread looks.
const TICK: Duration = Duration::from_millis(10);

/// A thread that wakes less late was delayed by the usual business of two cores.
const NOTICED: Duration = Duration::from_millis(40);

static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);
/// When the thread fell asleep, in microseconds since [`BEGAN`].
static ASLEEP: AtomicU64 = AtomicU64::new(0);
/// The time lost before that, in microseconds.
static LOST: AtomicU64 = AtomicU64::new(0);

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).expect("a test's time")
}

/// How much later than it should the thread wakes that fell asleep at `asleep`, where that is worth a mention.
fn late(asleep: Duration) -> Duration {
    let late = BEGAN.elapsed().saturating_sub(asleep + TICK);
    if late < NOTICED { Duration::ZERO } else { late }
}

fn watch() {
    loop {
        let asleep = BEGAN.elapsed();
        ASLEEP.store(micros(asleep), Ordering::SeqCst);
        std::thread::sleep(TICK);
        LOST.fetch_add(micros(late(asleep)), Ordering::SeqCst);
    }
}

/// How long this process has stood still since the first who asked.
fn lost() -> Duration {
    static WATCHING: Once = Once::new();
    WATCHING.call_once(|| {
        ASLEEP.store(micros(BEGAN.elapsed()), Ordering::SeqCst);
        std::thread::Builder::new().name("stalls".to_owned()).spawn(watch).expect("a thread");
    });
    // The thread itself may not have woken yet.
    let now = late(Duration::from_micros(ASLEEP.load(Ordering::SeqCst)));
    Duration::from_micros(LOST.load(Ordering::SeqCst)) + now
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
        let lost = lost().saturating_sub(self.lost);
        self.began.elapsed().saturating_sub(lost)
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
            assert!(waited.elapsed() < time, "{caller}: not within {time:?}: {what}");
        }
    }
}
