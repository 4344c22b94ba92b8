//! Search connections that came back with their last statement done: they go to the next search as they are.
//!
//! The pool's check on release costs a search two more round trips. It is for connections that were dropped in the middle of
//! something, or whose socket died unseen; one whose statement has just succeeded is neither, so it is parked here
//! instead. The last one parked is the first taken, so that few server processes do most of the work, with their caches
//! warm. After ten seconds a connection goes back to the pool, which checks it and minds its age. Never more connections
//! than places, and a place is got within the acquire timeout.

use std::{
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use sqlx::{PgConnection, PgPool, pool::PoolConnection, postgres::Postgres};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::pool::Alive;

/// How long a connection stays away from the pool's check: rare enough to cost nothing, often enough for its maximum age.
const RETURN_AFTER: Duration = Duration::from_secs(10);

/// The pool with what is parked before it.
#[derive(Clone, Debug)]
pub(super) struct Parking {
    pool: PgPool,
    places: Arc<Semaphore>,
    /// None once it is closed.
    parked: Arc<Mutex<Option<Vec<Parked>>>>,
    timeout: Duration,
    /// A statement that succeeded is a sign of life.
    alive: Alive,
}

/// A connection and when the pool gave it.
#[derive(Debug)]
struct Parked {
    connection: PoolConnection<Postgres>,
    since: Instant,
}

/// A connection for one search. Dropped, it goes back to the pool and is checked; after [`Reader::done`] it is used again as
/// it is.
#[derive(Debug)]
pub struct Reader {
    /// None only while it is given away.
    parked: Option<Parked>,
    parking: Parking,
    /// Given up after the connection.
    _place: OwnedSemaphorePermit,
}

impl Parking {
    /// In front of `pool`, which has `connections`.
    pub fn new(pool: PgPool, connections: u32, timeout: Duration, alive: Alive) -> Self {
        let places = Arc::new(Semaphore::new(usize::try_from(connections).unwrap_or(Semaphore::MAX_PERMITS)));
        Self { pool, places, parked: Arc::new(Mutex::new(Some(Vec::new()))), timeout, alive }
    }

    /// The connection that was used last, or one of the pool.
    ///
    /// # Errors
    /// Those of the pool; also [`sqlx::Error::PoolTimedOut`] when no place came free in time.
    ///
    /// # Cancel safety
    /// Dropping the future gives its place in the queue up.
    pub async fn acquire(&self) -> Result<Reader, sqlx::Error> {
        let place = tokio::time::timeout(self.timeout, Arc::clone(&self.places).acquire_owned());
        let place = place.await.map_err(|_| sqlx::Error::PoolTimedOut)?.map_err(|_| sqlx::Error::PoolClosed)?;
        let parked = match self.take() {
            Some(parked) => parked,
            // Rare, and connecting has a large state, which every search would carry.
            None => Parked { connection: Box::pin(self.pool.acquire()).await?, since: Instant::now() },
        };
        Ok(Reader { parked: Some(parked), parking: self.clone(), _place: place })
    }

    /// How many connections wait here.
    pub fn parked(&self) -> usize {
        self.parked.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map_or(0, Vec::len)
    }

    /// Closes what waits here without a word to the server.
    pub fn drop_parked(&self) {
        let waiting = self.parked.lock().unwrap_or_else(PoisonError::into_inner).as_mut().map(std::mem::take);
        for parked in waiting.into_iter().flatten() {
            drop(parked.connection.detach());
        }
    }

    /// Gives everything back to the pool, for good, and closes it.
    pub async fn close(&self) {
        drop(self.parked.lock().unwrap_or_else(PoisonError::into_inner).take());
        self.pool.close().await;
    }

    /// The one parked last; what has been away from the pool too long goes back to it.
    fn take(&self) -> Option<Parked> {
        let mut due = Vec::new();
        let mut parked = self.parked.lock().unwrap_or_else(PoisonError::into_inner);
        let all = parked.as_mut()?;
        due.extend(all.extract_if(.., |parked| parked.since.elapsed() >= RETURN_AFTER));
        let taken = all.pop();
        // Returning spawns a task: not under the lock.
        drop(parked);
        drop(due);
        taken
    }

    fn park(&self, connection: Parked) {
        if connection.since.elapsed() < RETURN_AFTER
            && let Some(all) = self.parked.lock().unwrap_or_else(PoisonError::into_inner).as_mut()
        {
            all.push(connection);
        }
    }
}

impl Reader {
    /// Says that every statement has succeeded and no transaction is open.
    pub fn done(mut self) {
        self.parking.alive.now();
        if let Some(parked) = self.parked.take() {
            self.parking.park(parked);
        }
    }
}

impl Deref for Reader {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        match &self.parked {
            Some(parked) => &parked.connection,
            None => unreachable!("it is given away only by value"),
        }
    }
}

impl DerefMut for Reader {
    fn deref_mut(&mut self) -> &mut PgConnection {
        match &mut self.parked {
            Some(parked) => &mut parked.connection,
            None => unreachable!("it is given away only by value"),
        }
    }
}
