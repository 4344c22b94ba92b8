//! The connection pools: one for searches and one for imports and administration, so that an import can never take a
//! search's connection, and one for each read replica.
//!
//! A connection is got within the acquire timeout or the caller is told that the database is busy. A connection that
//! comes back inside a transaction, with a pending answer or on a dead socket is closed, never reused: sqlx 0.9.0 would
//! otherwise hand a poisoned one to the next caller and leak the permit of a dead one.

use std::{
    convert::Infallible,
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use sqlx::{Connection, PgConnection, PgPool, Row, Transaction, postgres::PgConnectOptions, postgres::Postgres};
use tokio_util::sync::CancellationToken;

use super::{
    Error,
    held::{Held, Holders, Role},
    parked::{Parking, Reader},
    replicas::Replicas,
    retry::Budget,
    session,
};
use crate::runtime::metrics;

/// Sizes and bounds of the pools.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Connections for searches: two a running search (one a leg). As many again to each replica.
    pub read_connections: u32,
    /// Connections for imports, administration and background work.
    pub write_connections: u32,
    /// The longest a request waits for a connection before it is told to come back.
    pub acquire_timeout: Duration,
    /// The longest a search statement may run in the server.
    pub statement_timeout: Duration,
    /// The longest a search holds a connection before it counts as leaked; a write may twice as long.
    pub leak_after: Duration,
    /// Whether a pooler in transaction mode is between us and the server.
    pub transaction_pooling: bool,
    /// How far a replica may be behind and still be searched.
    pub replica_max_lag: Duration,
    /// Candidates an HNSW scan keeps: more find more of the true neighbours and take longer.
    pub ef_search: u16,
    /// Lists an IVFFlat scan reads: more find more of the true neighbours and take longer.
    pub ivfflat_probes: u16,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            read_connections: 16,
            write_connections: 6,
            // A refusal is promised within 300 ms, and takes a little time itself.
            acquire_timeout: Duration::from_millis(250),
            statement_timeout: Duration::from_secs(10),
            leak_after: Duration::from_secs(30),
            transaction_pooling: false,
            replica_max_lag: Duration::from_secs(1),
            // Finds 0.978 of the true ten nearest among 50,000 noisy vectors, 100 finds 0.967: docs/performance.
            ef_search: 160,
            ivfflat_probes: 16,
        }
    }
}

impl Config {
    /// Connections of one process to the primary: both pools and the one that hears what is published.
    #[must_use]
    pub fn connections(&self) -> u32 {
        self.read_connections.saturating_add(self.write_connections).saturating_add(1)
    }
}

/// The pools of one database and its replicas.
#[derive(Clone, Debug)]
pub struct Pools {
    pub(super) searches: Parking,
    pub(super) replicas: Replicas,
    pub(super) budget: Budget,
    pub(super) config: Config,
    write: PgPool,
    begin_write: &'static str,
    holders: Holders,
}

/// When the database last gave a sign of life: connected, or answered a statement or a check.
#[derive(Clone, Debug)]
pub(super) struct Alive(Arc<Mutex<Signs>>);

#[derive(Debug)]
struct Signs {
    answered: Instant,
    /// When it last hung up on somebody, until it answers what was asked after that.
    hung_up: Option<Instant>,
}

impl Alive {
    /// Counts as alive until it was asked.
    pub fn now_known() -> Self {
        Self(Arc::new(Mutex::new(Signs { answered: Instant::now(), hung_up: None })))
    }

    /// It has just answered what was asked at `asked`. An answer that was under way when it hung up says nothing about it
    /// now.
    pub fn answered(&self, asked: Instant) {
        let mut signs = self.lock();
        if signs.hung_up.is_none_or(|hung_up| hung_up < asked) {
            *signs = Signs { answered: Instant::now(), hung_up: None };
        }
    }

    /// It hung up: who waits for a connection now waits for a new one, not for one in use.
    pub fn hung_up(&self) {
        self.lock().hung_up = Some(Instant::now());
    }

    /// Somebody has waited for a connection since `asked`: unless it answered others meanwhile, it hung up.
    pub fn silent_since(&self, asked: Instant) {
        let mut signs = self.lock();
        if signs.answered < asked {
            signs.hung_up = Some(Instant::now());
        }
    }

    /// Whether it answered a moment ago, and has not hung up since.
    pub fn is_recent(&self) -> bool {
        let signs = self.lock();
        signs.hung_up.is_none() && signs.answered.elapsed() < SIGN_OF_LIFE
    }

    fn lock(&self) -> MutexGuard<'_, Signs> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A database whose connections are all in use lets go of one more often than this, or is as good as away. Half a second, a
/// probe's pause and its wait are below the two seconds in which readiness turns.
const SIGN_OF_LIFE: Duration = Duration::from_millis(500);

/// The first connection of a process may cross a network that is slow to wake; nobody waits for an answer yet.
const FIRST_CONNECTION: Duration = Duration::from_secs(5);

/// `nulls not distinct` and SQL-standard function bodies came with 15.
const OLDEST_SERVER: i32 = 150_000;

/// A write: everything on it is one transaction. Dropped, nothing of it is written.
#[derive(Debug)]
pub(super) struct Write {
    transaction: Transaction<'static, Postgres>,
    _held: Held,
}

impl Write {
    /// Makes it all durable and visible.
    ///
    /// # Errors
    /// When the database does not say that it did.
    pub async fn commit(self) -> Result<(), Error> {
        Ok(self.transaction.commit().await?)
    }
}

impl Deref for Write {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.transaction
    }
}

impl DerefMut for Write {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.transaction
    }
}

impl Pools {
    /// Opens the pools and, before the first of their connections, one beside them, so that a wrong address or password, an old
    /// server, and pools that are too large for it are known at once.
    pub(super) async fn connect(
        primary: PgConnectOptions,
        replicas: Vec<PgConnectOptions>,
        config: Config,
    ) -> Result<Self, Error> {
        metrics::record_pool_leaked("postgres", 0);
        metrics::record_pool_discarded("postgres", 0);
        metrics::record_pool_retries("postgres", 0);
        let holders = Holders::new(config.leak_after);
        let searches = Parking::open(primary.clone(), Role::Read, &config, &holders);
        let pools = Self {
            searches,
            replicas: Replicas::new(replicas, &config, &holders),
            budget: Budget::new(),
            write: session::open(primary.clone(), Role::Write, &config, &Alive::now_known()),
            begin_write: session::begin_sql(Role::Write, &config),
            config,
            holders,
        };
        let options = session::options(primary, &config);
        let connecting = tokio::time::timeout(FIRST_CONNECTION, PgConnection::connect_with(&options)).await;
        let mut connection = connecting.unwrap_or(Err(sqlx::Error::PoolTimedOut)).map_err(Error::connect)?;
        check_server(&mut connection, &config).await?;
        connection.close().await.map_err(Error::connect)?;
        pools.open_first().await?;
        Ok(pools)
    }

    /// Parks a connection for the first statements, with more patience than a search has: a process that starts on a busy machine
    /// must not fail for it.
    async fn open_first(&self) -> Result<(), Error> {
        let reader = self.searches.acquire("start", FIRST_CONNECTION).await?;
        Ok(reader.done().await?)
    }

    /// A connection of the primary, for as long as the caller keeps it: statements that may be repeated rather go through
    /// the index's own methods.
    ///
    /// # Errors
    /// [`Error::Busy`] when none came free in time, [`Error::Unavailable`] when the database cannot be reached.
    ///
    /// # Cancel safety
    /// Dropping the future gives its place in the queue up.
    pub async fn acquire(&self, holder: &'static str) -> Result<Reader, Error> {
        let started = Instant::now();
        let reader = self.searches.acquire(holder, self.config.acquire_timeout).await;
        metrics::record_pool_acquire("postgres", started.elapsed());
        reader
    }

    /// As [`Pools::write`], for a caller who waits: no longer than the acquire timeout.
    pub(super) async fn write_now(&self, holder: &'static str) -> Result<Write, Error> {
        let write = tokio::time::timeout(self.config.acquire_timeout, self.write(holder));
        write.await.unwrap_or_else(|_| Err(sqlx::Error::PoolTimedOut.into()))
    }

    /// Begins a write on the primary.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when no connection to a server that takes writes came free within five seconds.
    ///
    /// # Cancel safety
    /// Dropping the future, or what it returned, writes nothing.
    pub(super) async fn write(&self, holder: &'static str) -> Result<Write, Error> {
        let started = Instant::now();
        let transaction = Box::pin(self.write.begin_with(self.begin_write)).await;
        metrics::record_pool_acquire("postgres", started.elapsed());
        Ok(Write { transaction: transaction?, _held: self.holders.enter(Role::Write, holder) })
    }

    /// Reports the connections to the metrics.
    pub fn observe(&self) {
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let read = self.searches.connections();
        let idle = count(self.write.num_idle());
        let write = (idle, self.write.size().saturating_sub(idle));
        let most = self.config.read_connections + self.config.write_connections;
        metrics::set_pool_connections("postgres", read.0 + write.0, read.1 + write.1, most);
        metrics::set_pool_role("read", (read, self.searches.waiting()));
        metrics::set_pool_role("write", (write, 0));
        self.replicas.observe();
    }

    /// Idle, used and free places of the searches' pool on the primary.
    #[must_use]
    pub fn read_usage(&self) -> (u32, u32, usize) {
        let (idle, used) = self.searches.connections();
        (idle, used, self.searches.free())
    }

    /// Drops the idle connections without a word to the server: after a silence they may be dead, and each would cost its
    /// next user a wait.
    pub(super) fn drop_idle(&self) {
        self.searches.drop_idle();
        while let Some(connection) = self.write.try_acquire() {
            drop(connection.detach());
        }
    }

    /// The database gave a sign of life elsewhere: when all connections are in use, that is what is wrong.
    pub(super) fn answered(&self, asked: Instant) {
        self.searches.alive().answered(asked);
    }

    /// The server processes that searches have waited for a while.
    pub(super) fn quiet(&self) -> Vec<i32> {
        self.holders.quiet()
    }

    /// Of the processes in `asked`, only those in `busy` are at work. Where a socket has died, idle ones may have too.
    pub(super) fn looked(&self, asked: &[i32], busy: &[i32]) {
        if self.holders.looked(asked, busy) {
            self.drop_idle();
        }
    }

    /// Gives up all connections of searches: the path to the server was dead, and a new connection is not.
    pub(super) fn abandon(&self) {
        self.searches.abandon();
        self.drop_idle();
    }

    /// Closes every connection, waiting for those in use.
    pub async fn close(&self) {
        self.searches.close().await;
        self.replicas.close().await;
        self.write.close().await;
    }

    /// Tells of connections that were not given back, until `stopping`.
    ///
    /// # Errors
    /// Never; the signature is that of a background task.
    pub(super) async fn watch_task(self, stopping: CancellationToken) -> Result<(), Infallible> {
        loop {
            tokio::select! {
                () = stopping.cancelled() => return Ok(()),
                () = tokio::time::sleep(self.holders.look_every()) => self.holders.report(),
            }
        }
    }
}

/// Refuses a server that is too old, or too small for the pools.
async fn check_server(connection: &mut PgConnection, config: &Config) -> Result<(), Error> {
    let asked = sqlx::raw_sql(
        "select current_setting('server_version_num')::int,
                current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
                    - coalesce(current_setting('reserved_connections', true), '0')::int",
    );
    let row = sqlx::Executor::fetch_one(connection, asked).await.map_err(Error::connect)?;
    let version: i32 = row.try_get(0)?;
    if version < OLDEST_SERVER {
        return Err(Error::ServerTooOld { major: version / 10_000 });
    }
    // Behind a pooler its own sizes count, which it does not tell.
    let allowed = u32::try_from(row.try_get::<i32, _>(1)?).unwrap_or(0);
    if !config.transaction_pooling && config.connections() > allowed {
        return Err(Error::PoolsTooLarge { config: Box::new(*config), allowed });
    }
    Ok(())
}
