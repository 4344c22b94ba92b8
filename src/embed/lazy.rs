//! A value made on first need, once for all who need it at that moment.
//!
//! The making runs in a tracked task: a caller that leaves does not stop it. A failure is told to everyone who waited,
//! is repeated to callers within [`RETRY_AFTER`], and is forgotten then: the next need tries again.

use std::{
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use tokio::time::Instant;

use super::{Error, Status};
use crate::runtime::lifecycle::Lifecycle;

/// A load fails within milliseconds when a file is missing. Once a second is often enough to notice that it is there
/// now, and too seldom for a crowd of callers to keep the disk busy.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What all who wait for one making share.
type Flight<T> = Shared<BoxFuture<'static, Result<Arc<T>, Error>>>;

/// A value made on first need.
pub(super) struct Lazy<T> {
    state: Arc<Mutex<State<T>>>,
    retry_after: Duration,
}

enum State<T> {
    Idle,
    Loading(Flight<T>),
    Ready(Arc<T>),
    Failed { error: Error, at: Instant },
}

impl<T: Send + Sync + 'static> Lazy<T> {
    /// Nothing yet.
    pub fn new() -> Self {
        Self { state: Arc::new(Mutex::new(State::Idle)), retry_after: RETRY_AFTER }
    }

    /// The value; made by `make` unless it is there or under way.
    ///
    /// # Errors
    /// What `make` said, also up to [`RETRY_AFTER`] ago.
    pub async fn get<F>(&self, lifecycle: &Lifecycle, make: impl FnOnce() -> F) -> Result<Arc<T>, Error>
    where
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let flight = {
            let mut state = lock(&self.state);
            match &*state {
                State::Ready(value) => return Ok(Arc::clone(value)),
                State::Loading(flight) => flight.clone(),
                State::Failed { error, at } if at.elapsed() < self.retry_after => return Err(error.clone()),
                State::Idle | State::Failed { .. } => {
                    let flight = self.begin(lifecycle, make());
                    *state = State::Loading(flight.clone());
                    flight
                }
            }
        };
        flight.await
    }

    /// The value if it is there.
    pub fn peek(&self) -> Option<Arc<T>> {
        match &*lock(&self.state) {
            State::Ready(value) => Some(Arc::clone(value)),
            _ => None,
        }
    }

    /// How far it is.
    pub fn status(&self) -> Status {
        match &*lock(&self.state) {
            State::Idle => Status::Idle,
            State::Loading(_) => Status::Loading,
            State::Ready(_) => Status::Ready,
            State::Failed { error, .. } => Status::Failed { reason: error.to_string() },
        }
    }

    fn begin(
        &self,
        lifecycle: &Lifecycle,
        making: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Flight<T> {
        let state = Arc::clone(&self.state);
        let task = lifecycle.spawn_detached(async move {
            let made = AssertUnwindSafe(making).catch_unwind().await;
            let result = made.unwrap_or_else(|_| Err(Error::Load("the loader panicked".to_owned()))).map(Arc::new);
            *lock(&state) = match &result {
                Ok(value) => State::Ready(Arc::clone(value)),
                Err(error) => State::Failed { error: error.clone(), at: Instant::now() },
            };
            result
        });
        // A task can be cancelled only by the end of its runtime.
        task.map(|joined| joined.unwrap_or(Err(Error::Stopped))).boxed().shared()
    }
}

/// Nothing that could panic runs under this lock, so a poisoned one is still sound.
fn lock<T>(state: &Mutex<T>) -> MutexGuard<'_, T> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn is_made_once_even_when_the_first_caller_leaves() {
        let (lazy, lifecycle) = (Lazy::new(), Lifecycle::new());
        let (made, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let load = || {
            let (made, gate) = (Arc::clone(&made), Arc::clone(&gate));
            async move {
                made.fetch_add(1, Ordering::SeqCst);
                gate.notified().await;
                Ok::<u32, Error>(7)
            }
        };
        assert_eq!(lazy.status(), Status::Idle);
        assert!(lazy.get(&lifecycle, load).now_or_never().is_none());
        assert_eq!(lazy.status(), Status::Loading);
        gate.notify_one();
        let (one, two) = tokio::join!(lazy.get(&lifecycle, load), lazy.get(&lifecycle, load));
        assert_eq!((*one.unwrap(), *two.unwrap(), made.load(Ordering::SeqCst)), (7, 7, 1));
        assert_eq!(lazy.status(), Status::Ready);
    }

    #[tokio::test]
    async fn a_failure_is_repeated_for_a_while_and_then_tried_again() {
        let (mut lazy, lifecycle) = (Lazy::new(), Lifecycle::new());
        lazy.retry_after = Duration::MAX;
        let failed = Error::Load("no file".to_owned());
        let failure = || std::future::ready(Err(Error::Load("no file".to_owned())));
        let success = || std::future::ready(Ok(7));
        assert_eq!(lazy.get(&lifecycle, failure).await, Err(failed.clone()));
        assert_eq!(lazy.get(&lifecycle, success).await, Err(failed.clone()));
        assert_eq!(lazy.status(), Status::Failed { reason: failed.to_string() });
        lazy.retry_after = Duration::ZERO;
        assert_eq!(lazy.get(&lifecycle, success).await, Ok(Arc::new(7)));
    }

    #[tokio::test]
    async fn a_loader_that_panics_is_an_error() {
        let (lazy, lifecycle) = (Lazy::<u32>::new(), Lifecycle::new());
        let found = lazy.get(&lifecycle, || async { panic!("oh") }).await;
        assert_eq!(found, Err(Error::Load("the loader panicked".to_owned())));
    }
}
