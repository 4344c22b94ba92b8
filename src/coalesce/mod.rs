//! Is someone already answering it? One detached flight per key, and everyone who asks meanwhile waits for it.
//!
//! The flight belongs to nobody: it goes on when the caller that started it leaves, and is cancelled when nobody waits
//! any more. A panic in it is an error for all its waiters and for nobody after them; whatever ends it, its key is free
//! again before its waiters are told. Each waiter gives up when its own future is dropped, at its own deadline. Bounded: beyond
//! `max` keys at once, new ones are refused. No lock is held while anything waits.
//!
//! The idea is that of Go's `singleflight`; that the work runs in a task of its own is what makes it safe to be cancelled.

use std::{
    collections::HashMap,
    fmt,
    hash::Hash,
    panic::AssertUnwindSafe,
    sync::{Arc, PoisonError},
};

use futures::{FutureExt, future::BoxFuture};
use scopeguard::ScopeGuard;
use sync::{Mutex, MutexGuard};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span};

use crate::runtime::{lifecycle::Lifecycle, metrics};

/// The interleaving test swaps the lock for one that the scheduler controls.
#[cfg(not(test))]
mod sync {
    pub use std::sync::{Mutex, MutexGuard};
}
#[cfg(test)]
mod sync {
    pub use shuttle::sync::{Mutex, MutexGuard};
}

/// Why a flight brought nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// As many as are allowed are being answered now.
    #[error("{max} different questions are being answered already")]
    Full {
        /// The bound.
        max: usize,
    },
    /// The work panicked; the log has the message.
    #[error("the work for this answer panicked")]
    Panicked,
    /// The process is ending.
    #[error("the work for this answer was stopped")]
    Stopped,
}

/// What a caller was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Its question started the flight.
    Leader,
    /// It waited for a flight that was under way.
    Follower,
}

/// Starts a task that nobody waits for.
type Spawn = dyn Fn(BoxFuture<'static, ()>) + Send + Sync;

/// All flights of one kind of answer. Cheap to clone.
pub struct Flights<K, V> {
    air: Arc<Air<K, V>>,
}

/// What flies now, and the means to start more.
struct Air<K, V> {
    flights: Mutex<HashMap<K, Flight<V>>>,
    /// Of the metrics.
    kind: &'static str,
    series: metrics::Coalesced,
    max: usize,
    spawn: Box<Spawn>,
}

struct Flight<V> {
    waiters: usize,
    landed: watch::Receiver<Option<Result<V, Error>>>,
    /// Ends the work; also tells this flight from a later one with the same key, since only clones of a token are equal.
    cancel: CancellationToken,
}

/// A caller's place; giving it up may end the flight.
struct Waiter<K: Eq + Hash, V> {
    air: Arc<Air<K, V>>,
    key: K,
    landed: watch::Receiver<Option<Result<V, Error>>>,
    cancel: CancellationToken,
}

/// The flight's duty to free its key and to tell its waiters, however it ends.
struct Landing<K: Eq + Hash, V> {
    air: Arc<Air<K, V>>,
    key: K,
    tell: watch::Sender<Option<Result<V, Error>>>,
    cancel: CancellationToken,
}

impl<K, V> Flights<K, V>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Nothing flies yet. `kind` names the answers in the metrics; at most `max` flights at once, each a tracked task.
    #[must_use]
    pub fn new(kind: &'static str, max: usize, lifecycle: &Lifecycle) -> Self {
        let lifecycle = lifecycle.clone();
        Self::with_spawn(kind, max, move |work| drop(lifecycle.spawn_detached(work)))
    }

    fn with_spawn(
        kind: &'static str,
        max: usize,
        spawn: impl Fn(BoxFuture<'static, ()>) + Send + Sync + 'static,
    ) -> Self {
        let series = metrics::Coalesced::new(kind);
        let air = Air { flights: Mutex::new(HashMap::new()), kind, series, max, spawn: Box::new(spawn) };
        Self { air: Arc::new(air) }
    }

    /// The answer to `key`: from the flight under way, or from a new one that does `work`.
    ///
    /// # Errors
    /// [`Error::Full`] at once when `max` other keys are under way, [`Error::Panicked`] when the work did.
    ///
    /// # Cancel safety
    /// Dropping the future gives the caller's place up; the work goes on for the others, and ends when there are none.
    pub async fn join<W>(&self, key: K, work: impl FnOnce() -> W) -> (Role, Result<V, Error>)
    where
        W: Future<Output = V> + Send + 'static,
    {
        self.join_after(key, std::future::ready(Err(())), |_| work()).await
    }

    /// The same for work that may be over sooner than a task is started: the caller that starts the flight does `first` itself.
    /// `Ok` of it is everybody's answer. `Err` of it goes to `work`, which nobody has begun where there is none: the caller left
    /// while it did `first`, and others wait.
    ///
    /// # Errors
    /// As [`Flights::join`].
    ///
    /// # Cancel safety
    /// As [`Flights::join`]; `first` must be safe to be dropped.
    pub async fn join_after<T, F, W>(
        &self,
        key: K,
        first: impl Future<Output = Result<V, T>>,
        work: F,
    ) -> (Role, Result<V, Error>)
    where
        F: FnOnce(Option<T>) -> W,
        W: Future<Output = V> + Send + 'static,
    {
        let (place, landing) = match self.board(&key) {
            Boarded::Follower(mut waiter) => {
                self.air.series.followers.increment(1);
                let span = tracing::debug_span!("coalesce", cache = self.air.kind, role = "follower");
                return (Role::Follower, waiter.wait().instrument(span).await);
            }
            Boarded::Full => {
                metrics::record_shed("flights", 1);
                return (Role::Leader, Err(Error::Full { max: self.air.max }));
            }
            Boarded::Leader(waiter, landing) => (waiter, landing),
        };
        self.air.series.leaders.increment(1);
        // The flight is a part of the request that started it, also when that one leaves.
        let span = tracing::debug_span!("coalesce", cache = self.air.kind, role = "leader").or_current();
        // Whoever leaves amid its part leaves the rest to a task, if others wait.
        let left = |(landing, work): (Landing<K, V>, F)| self.start(landing, &span, || work(None));
        let rest = scopeguard::guard((landing, work), left);
        // Made after the guard, so it goes before it: the last one to leave starts nothing.
        let mut waiter = place;
        let done = first.instrument(span.clone()).await;
        let (landing, work) = ScopeGuard::into_inner(rest);
        match done {
            Ok(answer) => {
                landing.land(Ok(answer.clone()));
                (Role::Leader, Ok(answer))
            }
            Err(found) => {
                self.start(landing, &span, || work(Some(found)));
                (Role::Leader, waiter.wait().await)
            }
        }
    }

    /// Makes the flight a task, unless nobody waits for it any more.
    fn start<W>(&self, landing: Landing<K, V>, span: &Span, work: impl FnOnce() -> W)
    where
        W: Future<Output = V> + Send + 'static,
    {
        if !landing.cancel.is_cancelled() {
            (self.air.spawn)(Box::pin(fly(landing, work()).instrument(span.clone())));
        }
    }

    /// How many are under way.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.air.lock().len()
    }

    /// How many callers wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.air.lock().values().map(|flight| flight.waiters).sum()
    }

    /// How many wait for `key`.
    #[cfg(test)]
    fn waiters(&self, key: &K) -> usize {
        self.air.lock().get(key).map_or(0, |flight| flight.waiters)
    }

    fn board(&self, key: &K) -> Boarded<K, V> {
        let mut flights = self.air.lock();
        if let Some(flight) = flights.get_mut(key) {
            flight.waiters += 1;
            return Boarded::Follower(self.waiter(key, flight));
        }
        if flights.len() >= self.air.max {
            return Boarded::Full;
        }
        let (tell, landed) = watch::channel(None);
        let flight = Flight { waiters: 1, landed, cancel: CancellationToken::new() };
        let waiter = self.waiter(key, &flight);
        let landing = Landing { air: Arc::clone(&self.air), key: key.clone(), tell, cancel: flight.cancel.clone() };
        flights.insert(key.clone(), flight);
        self.air.series.set_in_flight(flights.len());
        Boarded::Leader(waiter, landing)
    }

    fn waiter(&self, key: &K, flight: &Flight<V>) -> Waiter<K, V> {
        let (landed, cancel) = (flight.landed.clone(), flight.cancel.clone());
        Waiter { air: Arc::clone(&self.air), key: key.clone(), landed, cancel }
    }
}

enum Boarded<K: Eq + Hash, V> {
    Leader(Waiter<K, V>, Landing<K, V>),
    Follower(Waiter<K, V>),
    Full,
}

/// Does the work until it is done, panics, or nobody waits for it.
async fn fly<K: Eq + Hash, V: Clone>(landing: Landing<K, V>, work: impl Future<Output = V>) {
    let cancel = landing.cancel.clone();
    match cancel.run_until_cancelled(AssertUnwindSafe(work).catch_unwind()).await {
        Some(Ok(answer)) => landing.land(Ok(answer)),
        Some(Err(panic)) => {
            let message =
                panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
            tracing::error!(panic = message.unwrap_or("without a message"), "the work for an answer panicked");
            landing.land(Err(Error::Panicked));
        }
        None => {}
    }
}

impl<K: Eq + Hash, V> Air<K, V> {
    /// Nothing that could panic runs under this lock, so a poisoned one is still sound.
    fn lock(&self) -> MutexGuard<'_, HashMap<K, Flight<V>>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets the flight of `key` if it is still the one that `cancel` ends, and `when` holds for it.
    fn remove_if(&self, key: &K, cancel: &CancellationToken, when: impl FnOnce(&mut Flight<V>) -> bool) -> bool {
        let mut flights = self.lock();
        let removed = match flights.get_mut(key) {
            Some(flight) if flight.cancel == *cancel => when(flight),
            _ => false,
        };
        if removed {
            flights.remove(key);
            self.series.set_in_flight(flights.len());
        }
        removed
    }
}

impl<K: Eq + Hash, V: Clone> Landing<K, V> {
    /// Frees the key, then tells the waiters: who asks after an answer was told starts anew.
    fn land(&self, answer: Result<V, Error>) {
        self.air.remove_if(&self.key, &self.cancel, |_| true);
        // Nobody may be left to hear it.
        let _ = self.tell.send(Some(answer));
    }
}

impl<K: Eq + Hash, V> Drop for Landing<K, V> {
    fn drop(&mut self) {
        // Landed or cancelled flights are gone already; one whose task was dropped is not, and its waiters see the sender go.
        self.air.remove_if(&self.key, &self.cancel, |_| true);
    }
}

impl<K: Eq + Hash, V: Clone> Waiter<K, V> {
    async fn wait(&mut self) -> Result<V, Error> {
        match self.landed.wait_for(Option::is_some).await {
            Ok(answer) => answer.clone().unwrap_or(Err(Error::Stopped)),
            Err(_) => Err(Error::Stopped),
        }
    }
}

impl<K: Eq + Hash, V> Drop for Waiter<K, V> {
    fn drop(&mut self) {
        let last = self.air.remove_if(&self.key, &self.cancel, |flight| {
            flight.waiters -= 1;
            flight.waiters == 0
        });
        if last {
            self.cancel.cancel();
        }
    }
}

impl<K, V> Clone for Flights<K, V> {
    fn clone(&self) -> Self {
        Self { air: Arc::clone(&self.air) }
    }
}

impl<K, V> fmt::Debug for Flights<K, V> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Flights")
            .field("kind", &self.air.kind)
            .field("max", &self.air.max)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
