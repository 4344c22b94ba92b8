//! How the process ends: signals, cancellation tokens and every background task tracked.
//!
//! Leaving has three steps. First readiness turns while everything is still served, so that load balancers send their
//! requests elsewhere (the drain delay). Then the soft token asks tasks to finish. The hard one stops them at once (second
//! signal, or the deadline). A background task that panics or returns an error ends the process the same way and with a
//! failure, so that nothing limps on half alive.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::FutureExt;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Orchestrators kill after 30 s. The drain delay and the tasks get 17 s of it together, so that closing connections and
/// stopping an embedded database fit into 25.
const DRAIN_DEADLINE: Duration = Duration::from_secs(17);

/// A cheap handle to the process's tokens and task tracker.
#[derive(Clone, Debug, Default)]
pub struct Lifecycle {
    leaving: Leaving,
    /// Cancelled when the tasks of this handle should finish what they have and leave.
    soft: CancellationToken,
    /// Cancelled when they should leave at once.
    hard: CancellationToken,
    tracker: TaskTracker,
    failed: Arc<AtomicBool>,
}

/// Whether the process is leaving: asked for each request, so it costs one load.
#[derive(Clone, Debug, Default)]
pub struct Leaving {
    flag: Arc<AtomicBool>,
    token: CancellationToken,
}

impl Leaving {
    /// Whether new requests should go elsewhere.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        self.flag.load(Ordering::Acquire)
    }

    fn begin(&self) {
        self.flag.store(true, Ordering::Release);
        self.token.cancel();
    }
}

/// How a shutdown went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Every task has ended well.
    Well,
    /// A task failed, or was still at work when its time was over.
    Badly,
    /// A second signal: nobody waited.
    AtOnce,
}

impl Lifecycle {
    /// A lifecycle with no task and no signal handler yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A handle for tasks that outlive those of this one: the same process is leaving, and a failure is everybody's, but they
    /// are stopped and waited for on their own.
    #[must_use]
    pub fn outliving(&self) -> Self {
        let (soft, hard) = (CancellationToken::new(), CancellationToken::new());
        let (leaving, failed) = (self.leaving.clone(), Arc::clone(&self.failed));
        Self { leaving, soft, hard, tracker: TaskTracker::new(), failed }
    }

    /// Tells whether new requests should go elsewhere.
    #[must_use]
    pub fn leaving(&self) -> Leaving {
        self.leaving.clone()
    }

    /// Cancelled when tasks should finish.
    #[must_use]
    pub fn stopping(&self) -> CancellationToken {
        self.soft.clone()
    }

    /// Cancelled when nothing may wait any longer.
    #[must_use]
    pub fn stopped(&self) -> CancellationToken {
        self.hard.clone()
    }

    /// Asks the tasks to finish, without any delay; calling it again changes nothing.
    pub fn stop(&self) {
        self.leaving.begin();
        self.soft.cancel();
    }

    /// Tracked tasks that have not ended.
    #[must_use]
    pub fn tasks(&self) -> usize {
        self.tracker.len()
    }

    /// Runs `task` until it ends. One that panics, or fails, ends the whole process with a failure.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that spawns: everything here is tracked")]
    pub fn spawn<E: std::fmt::Display>(
        &self,
        name: &'static str,
        task: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        let lifecycle = self.clone();
        tokio::spawn(self.tracker.track_future(async move {
            match std::panic::AssertUnwindSafe(task).catch_unwind().await {
                Ok(Ok(())) => return,
                Ok(Err(error)) => tracing::error!(task = name, %error, "background task failed; stopping"),
                Err(_) => tracing::error!(task = name, "background task panicked; stopping"),
            }
            lifecycle.failed.store(true, Ordering::Release);
            lifecycle.leaving.begin();
        }));
    }

    /// Runs one caller's work to its end even when the caller leaves; a panic there is the caller's error only.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that spawns: everything here is tracked")]
    pub fn spawn_detached<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> tokio::task::JoinHandle<T> {
        tokio::spawn(self.tracker.track_future(work))
    }

    /// Waits for the first signal or a failed task; serves on for `delay`, unless the signal came from a terminal; then waits
    /// until every tracked task has ended. At most 17 s after the signal, or until the second one.
    pub async fn finish(&self, signals: &mut Signals, delay: Duration) -> Ended {
        let asked = tokio::select! {
            asked = signals.next() => Some(asked),
            () = self.leaving.token.cancelled() => None,
        };
        let deadline = Instant::now() + DRAIN_DEADLINE;
        self.leaving.begin();
        // Who presses Ctrl-C has no load balancer in front.
        let delay = if asked == Some(Asked::ByTerminal) { Duration::ZERO } else { delay };
        let by = match asked {
            Some(Asked::ByTerminal) => "SIGINT",
            Some(Asked::BySupervisor) => "SIGTERM",
            None => "a task that failed",
        };
        tracing::info!(by, serving_on_for = ?delay, "leaving");
        let ended = tokio::select! {
            ended = self.drain(delay, deadline) => Some(ended),
            _ = signals.next() => None,
        };
        self.soft.cancel();
        self.hard.cancel();
        if ended != Some(true) {
            tracing::warn!(tasks = self.tracker.len(), "left before every task had ended");
        }
        match ended {
            None => Ended::AtOnce,
            Some(true) if !self.failed.load(Ordering::Acquire) => Ended::Well,
            Some(_) => Ended::Badly,
        }
    }

    /// Ends what [`Lifecycle::outliving`] gave: its tasks have `time` to finish.
    pub async fn close(&self, time: Duration) {
        self.stop();
        self.tracker.close();
        if tokio::time::timeout(time, self.tracker.wait()).await.is_err() {
            tracing::debug!(tasks = self.tracker.len(), "the last tasks were cut off");
        }
        self.hard.cancel();
    }

    /// Whether every task has ended in time.
    async fn drain(&self, delay: Duration, deadline: Instant) -> bool {
        tokio::time::sleep(delay).await;
        self.soft.cancel();
        self.tracker.close();
        tokio::time::timeout_at(deadline, self.tracker.wait()).await.is_ok()
    }
}

/// Who asked the process to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// SIGINT: a person pressed Ctrl-C.
    ByTerminal,
    /// SIGTERM: an orchestrator, or `kill`.
    BySupervisor,
}

/// SIGINT and SIGTERM, either of which means: stop.
#[derive(Debug)]
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Takes the two signals over from their default, which is to end the process at once.
    ///
    /// # Errors
    /// When the handlers cannot be installed.
    pub fn listen() -> std::io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// The next of either signal.
    pub async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.interrupt.recv() => Asked::ByTerminal,
            _ = self.terminate.recv() => Asked::BySupervisor,
        }
    }
}
