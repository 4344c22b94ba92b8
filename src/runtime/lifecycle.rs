//! How the process ends: signals, two cancellation tokens and every background task tracked.
//!
//! The soft token asks tasks to finish, the hard one to stop at once (second signal, or the deadline). A background
//! task that panics or returns an error ends the process with a failure, so that nothing limps on half alive.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::FutureExt;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Orchestrators kill after 30 s. Tasks get half of it, so that closing connections and stopping an embedded database fit
/// into 25.
const DRAIN_DEADLINE: Duration = Duration::from_secs(15);

/// A cheap handle to the process's tokens and task tracker.
#[derive(Clone, Debug, Default)]
pub struct Lifecycle {
    /// Cancelled when the process should finish what it has and leave.
    soft: CancellationToken,
    /// Cancelled when it should leave at once.
    hard: CancellationToken,
    tracker: TaskTracker,
    failed: Arc<AtomicBool>,
}

impl Lifecycle {
    /// A lifecycle with no task and no signal handler yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Cancelled when shutdown begins.
    #[must_use]
    pub fn stopping(&self) -> CancellationToken {
        self.soft.clone()
    }

    /// Cancelled when nothing may wait any longer.
    #[must_use]
    pub fn stopped(&self) -> CancellationToken {
        self.hard.clone()
    }

    /// Begins the shutdown; calling it again changes nothing.
    pub fn stop(&self) {
        self.soft.cancel();
    }

    /// Tracked tasks that have not ended.
    #[must_use]
    pub fn tasks(&self) -> usize {
        self.tracker.len()
    }

    /// Runs `task` until it ends. One that panics, or fails, stops the whole process with a failure.
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
            lifecycle.stop();
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

    /// Waits for the first signal or an inner stop, then until every tracked task has ended: at most 15 s, or until
    /// the second signal. Returns whether everything ended well.
    pub async fn finish(&self, signals: &mut Signals) -> bool {
        tokio::select! {
            () = signals.next() => tracing::info!("asked to stop"),
            () = self.soft.cancelled() => {}
        }
        self.soft.cancel();
        self.tracker.close();
        let ended = tokio::select! {
            result = tokio::time::timeout(DRAIN_DEADLINE, self.tracker.wait()) => result.is_ok(),
            () = signals.next() => false,
        };
        self.hard.cancel();
        if !ended {
            tracing::warn!(tasks = self.tracker.len(), "left before every task had ended");
        }
        ended && !self.failed.load(Ordering::Acquire)
    }
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
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
