//! Search connections that came back with their last statement done: they go to the next search as they are.
//!
//! The pool's check on release costs a search two more round trips. It is for connections that were dropped in the middle of
//! something, or whose socket died unseen; one whose statement has just succeeded is neither, so it is parked here
//! instead. The last one parked is the first taken, so that few server processes do most of the work, with their caches
//! warm. After ten seconds a connection goes back to the pool, which checks it and minds its age. Never more connections
//! than places, and a place and a connection together are got within the acquire timeout.

use std::{
    ops::{Deref, DerefMut},
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use sqlx::{Executor, PgConnection, PgPool, Row, pool::PoolConnection, postgres::PgConnectOptions, postgres::Postgres};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::{
    Error,
    held::{Held, Holders, Role},
    pool::{Alive, Config},
    session,
};

/// How long a connection stays away from the pool's check: rare enough to cost nothing, often enough for its maximum age.
const RETURN_AFTER: Duration = Duration::from_secs(10);

/// The pool of one server with what is parked before it.
#[derive(Clone, Debug)]
pub(super) struct Parking(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    pool: PgPool,
    places: Arc<Semaphore>,
    waiting: AtomicU32,
    /// None once it is closed.
    parked: Mutex<Option<Vec<Parked>>>,
    role: Role,
    holders: Holders,
    /// A statement that succeeded is a sign of life.
    alive: Alive,
    /// Through a pooler in transaction mode: what begins a use. None when the session has its settings.
    begin: Option<&'static str>,
}

/// A connection and when the pool gave it.
#[derive(Debug)]
struct Parked {
    connection: PoolConnection<Postgres>,
    since: Instant,
    /// The server process; none through a pooler, where it changes.
    process: Option<i32>,
}

/// A connection for one search. Dropped, it goes back to the pool and is checked; after [`Reader::done`] it is used again as
/// it is.
#[derive(Debug)]
pub struct Reader {
    /// None only while it is given away.
    parked: Option<Parked>,
    asked: Instant,
    in_transaction: bool,
    parking: Parking,
    held: Held,
    /// Given up after the connection.
    _place: OwnedSemaphorePermit,
}

/// Counts one more who waits, until dropped.
struct Waiting<'a>(&'a AtomicU32);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Parking {
    /// In front of a pool of its own for searches on `server`.
    pub fn open(server: PgConnectOptions, role: Role, config: &Config, holders: &Holders) -> Self {
        let alive = Alive::now_known();
        let places = usize::try_from(config.read_connections).unwrap_or(Semaphore::MAX_PERMITS);
        Self(Arc::new(Inner {
            pool: session::open(server, role, config, &alive),
            places: Arc::new(Semaphore::new(places)),
            waiting: AtomicU32::new(0),
            parked: Mutex::new(Some(Vec::new())),
            role,
            holders: holders.clone(),
            alive,
            begin: config.transaction_pooling.then(|| session::begin_sql(role, config)),
        }))
    }

    /// The connection that was used last, or one of the pool, within `patience` in all.
    ///
    /// # Errors
    /// [`Error::Busy`] when all are in use by statements that get on, [`Error::Unavailable`] when the server cannot be
    /// reached, [`Error::Lost`] when a pooler's session broke under the transaction's beginning.
    ///
    /// # Cancel safety
    /// Dropping the future gives its place in the queue up.
    pub async fn acquire(&self, holder: &'static str, patience: Duration) -> Result<Reader, Error> {
        let explain = |error| match error {
            // A pool whose attempts to connect fail times out just like one whose connections are all in use.
            sqlx::Error::PoolTimedOut if self.0.alive.is_recent() => Error::Busy { waited: patience },
            other => match Error::from(other) {
                Error::Lost(reason) => {
                    self.0.alive.hung_up();
                    Error::Unavailable(reason)
                }
                other => other,
            },
        };
        let getting = async {
            let mut reader = self.wait_for(holder, patience).await.map_err(explain)?;
            if let Some(sql) = self.0.begin {
                reader.begin_with(sql).await?;
            }
            Ok(reader)
        };
        let got = tokio::time::timeout(patience, getting).await;
        got.unwrap_or_else(|_| Err(explain(sqlx::Error::PoolTimedOut)))
    }

    async fn wait_for(&self, holder: &'static str, patience: Duration) -> Result<Reader, sqlx::Error> {
        self.0.waiting.fetch_add(1, Ordering::Relaxed);
        let waiting = Waiting(&self.0.waiting);
        let place = Arc::clone(&self.0.places).acquire_owned().await.map_err(|_| sqlx::Error::PoolClosed)?;
        // Before it has a connection: whoever is told to give up meanwhile must not miss it.
        let held = self.0.holders.enter(self.0.role, holder);
        let parked = match self.take() {
            Some(parked) => parked,
            // Rare, and connecting has a large state, which every search would carry.
            None => Box::pin(self.connect(patience)).await?,
        };
        drop(waiting);
        if let Some(process) = parked.process {
            held.on(process);
        }
        let (asked, parked) = (Instant::now(), Some(parked));
        Ok(Reader { parked, asked, in_transaction: false, parking: self.clone(), held, _place: place })
    }

    /// One of the pool, and who is at its other end.
    async fn connect(&self, patience: Duration) -> Result<Parked, sqlx::Error> {
        let since = Instant::now();
        let mut connecting = pin!(self.0.pool.acquire());
        let mut connection = if let Ok(connected) = tokio::time::timeout(patience / 2, &mut connecting).await {
            connected?
        } else {
            // The pool tries a refused connection again in silence. Those who wait for this place must know by the end of
            // their patience.
            self.0.alive.silent_since(since);
            connecting.await?
        };
        let process = match self.0.begin {
            Some(_) => None,
            None => Some(connection.fetch_one(sqlx::raw_sql("select pg_backend_pid()")).await?.try_get(0)?),
        };
        Ok(Parked { connection, since, process })
    }

    /// Gives up every connection that is in use or waits here: those who use them are told at once, nobody gets them
    /// again.
    pub fn abandon(&self) {
        self.0.holders.give_up();
        self.drop_idle();
    }

    /// Closes what is not in use without a word to the server, which may be away.
    pub fn drop_idle(&self) {
        self.drop_idle_before(Instant::now());
    }

    /// Closes what was connected before `moment` and is not in use, and the pool's own: it may have died as another did
    /// then.
    pub fn drop_idle_before(&self, moment: Instant) {
        while let Some(connection) = self.0.pool.try_acquire() {
            drop(connection.detach());
        }
        let mut parked = self.lock();
        let old: Vec<Parked> =
            parked.iter_mut().flat_map(|all| all.extract_if(.., |parked| parked.since <= moment)).collect();
        drop(parked);
        for parked in old {
            drop(parked.connection.detach());
        }
    }

    /// Idle and used connections.
    pub fn connections(&self) -> (u32, u32) {
        let parked = u32::try_from(self.lock().as_ref().map_or(0, Vec::len)).unwrap_or(u32::MAX);
        let idle = u32::try_from(self.0.pool.num_idle()).unwrap_or(u32::MAX).saturating_add(parked);
        (idle, self.0.pool.size().saturating_sub(idle))
    }

    /// The server's signs of life.
    pub fn alive(&self) -> &Alive {
        &self.0.alive
    }

    /// Callers who wait for a connection now.
    pub fn waiting(&self) -> u32 {
        self.0.waiting.load(Ordering::Relaxed)
    }

    /// Places that nobody holds.
    pub fn free(&self) -> usize {
        self.0.places.available_permits()
    }

    /// Gives everything back to the pool, for good, and closes it.
    pub async fn close(&self) {
        drop(self.lock().take());
        self.0.pool.close().await;
    }

    /// The one parked last; what has been away from the pool too long goes back to it.
    fn take(&self) -> Option<Parked> {
        let mut due = Vec::new();
        let mut parked = self.lock();
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
            && let Some(all) = self.lock().as_mut()
        {
            all.push(connection);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Vec<Parked>>> {
        self.0.parked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reader {
    /// Whether this reads a replica, which may lag.
    #[must_use]
    pub fn on_replica(&self) -> bool {
        self.parking.0.role == Role::Replica
    }

    /// The server's signs of life.
    pub(super) fn alive(&self) -> Alive {
        self.parking.0.alive.clone()
    }

    /// Cancelled when the connection is known to be dead.
    pub(super) fn gave_up(&self) -> CancellationToken {
        self.held.gave_up().clone()
    }

    /// Opens a transaction, where settings of one statement live, unless there is one already. [`Reader::done`] ends it.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn begin(&mut self) -> Result<(), sqlx::Error> {
        if self.in_transaction { Ok(()) } else { self.begin_with("begin").await }
    }

    async fn begin_with(&mut self, sql: &'static str) -> Result<(), sqlx::Error> {
        self.in_transaction = true;
        self.execute(sqlx::raw_sql(sql)).await?;
        Ok(())
    }

    /// Says that every statement has succeeded.
    ///
    /// # Errors
    /// When the transaction, if there was one, could not be ended.
    pub async fn done(mut self) -> Result<(), sqlx::Error> {
        if self.in_transaction {
            self.execute(sqlx::raw_sql("commit")).await?;
        }
        self.parking.0.alive.answered(self.asked);
        if let Some(parked) = self.parked.take() {
            self.parking.park(parked);
        }
        Ok(())
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if self.held.gave_up().is_cancelled()
            && let Some(parked) = self.parked.take()
        {
            // The pool's check would find it silent, but only after a while, and its place is needed now.
            drop(parked.connection.detach());
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
