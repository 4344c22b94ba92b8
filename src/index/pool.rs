//! The two connection pools: one for searches, one for imports and administration, so that an import can never
//! take a search's connection.
//!
//! A connection is got within the acquire timeout or the caller is told that the database is busy. A connection that
//! comes back inside a transaction, with a pending answer or on a dead socket is closed, never reused: sqlx 0.9.0 would
//! otherwise hand a poisoned one to the next caller and leak the permit of a dead one.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use sqlx::{
    Executor, PgConnection, PgPool, Row,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use super::{
    Error,
    parked::{Parking, Reader},
};
use crate::runtime::metrics;

/// A check on a healthy local or same-zone connection takes well under 1 ms; one that needs 300 is better replaced.
const RELEASE_CHECK_TIMEOUT: Duration = Duration::from_millis(300);

/// A statement whose caller is gone stops in the server within this.
const STOP_WHEN_ALONE: &str = "set client_connection_check_interval = '1s';";

/// Sizes and bounds of the pools.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Connections for searches: two a running search (one a leg).
    pub read_connections: u32,
    /// Connections for imports, administration and background work.
    pub write_connections: u32,
    /// The longest a request waits for a connection before it is told to come back.
    pub acquire_timeout: Duration,
    /// The longest a search statement may run in the server.
    pub statement_timeout: Duration,
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
            acquire_timeout: Duration::from_millis(300),
            statement_timeout: Duration::from_secs(10),
            // Finds 0.978 of the true ten nearest among 50,000 noisy vectors, 100 finds 0.967: docs/performance.
            ef_search: 160,
            ivfflat_probes: 16,
        }
    }
}

/// The pools of one database.
#[derive(Clone, Debug)]
pub struct Pools {
    read: PgPool,
    searches: Parking,
    write: PgPool,
    acquire_timeout: Duration,
    alive: Alive,
}

/// When the database last gave a sign of life: connected, or answered the check of a released connection.
#[derive(Clone, Debug)]
pub(super) struct Alive(Arc<Mutex<Instant>>);

impl Alive {
    pub(super) fn now(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn since(&self) -> Duration {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }
}

impl Pools {
    /// Opens both pools and one connection of each, so that a wrong address or password is known at once.
    pub(super) async fn connect(options: PgConnectOptions, config: Config) -> Result<Self, Error> {
        let options = options.application_name("doc-server");
        metrics::record_pool_leaked("postgres", 0);
        // A search's statements have one good plan each, whatever their values. Left to itself Postgres finds the plan for
        // given values a little cheaper and plans anew every time: 0.1 to 0.15 ms a statement.
        let read_settings = format!(
            "set statement_timeout = {}; set idle_in_transaction_session_timeout = '10s'; {STOP_WHEN_ALONE} \
             set hnsw.ef_search = {}; set hnsw.iterative_scan = relaxed_order; \
             set ivfflat.probes = {}; set ivfflat.iterative_scan = relaxed_order; \
             set synchronize_seqscans = off; set jit = off; set plan_cache_mode = force_generic_plan;",
            config.statement_timeout.as_millis(),
            config.ef_search,
            config.ivfflat_probes
        );
        // No statement timeout for imports and index builds, which may rightly take long.
        let write_settings =
            format!("set idle_in_transaction_session_timeout = '60s'; {STOP_WHEN_ALONE} set jit = off;");
        let alive = Alive(Arc::new(Mutex::new(Instant::now())));
        let read = open(options.clone(), config.read_connections, &config, (read_settings, alive.clone()));
        let write = open(options, config.write_connections, &config, (write_settings, alive.clone()));
        let searches = Parking::new(read.clone(), config.read_connections, config.acquire_timeout, alive.clone());
        let pools = Self { read, searches, write, acquire_timeout: config.acquire_timeout, alive };
        let mut connection = pools.read.acquire().await.map_err(Error::connect)?;
        let version: i32 = sqlx::query("select current_setting('server_version_num')::int")
            .fetch_one(&mut *connection)
            .await
            .map_err(Error::connect)?
            .get(0);
        if version < OLDEST_SERVER {
            return Err(Error::ServerTooOld { major: version / 10_000 });
        }
        Ok(pools)
    }

    /// A connection for a search.
    ///
    /// # Errors
    /// [`Error::Busy`] when none came free in time, [`Error::Unavailable`] when the database cannot be reached.
    ///
    /// # Cancel safety
    /// Dropping the future gives its place in the queue up.
    pub async fn read(&self) -> Result<Reader, Error> {
        let started = Instant::now();
        let connection = self.searches.acquire().await.map_err(|error| match error {
            // A pool whose attempts to connect fail times out just like one whose connections are all in use.
            sqlx::Error::PoolTimedOut if self.alive.since() < SIGN_OF_LIFE => {
                Error::Busy { waited: self.acquire_timeout }
            }
            other => Error::from(other),
        });
        metrics::record_pool_acquire("postgres", started.elapsed());
        connection
    }

    /// The pool for imports and administration.
    #[must_use]
    pub fn write(&self) -> &PgPool {
        &self.write
    }

    /// Reports both pools' connections to the metrics.
    pub fn observe(&self) {
        let count = |pool: &PgPool| {
            let idle = u32::try_from(pool.num_idle()).unwrap_or(u32::MAX);
            (idle, pool.size().saturating_sub(idle), pool.options().get_max_connections())
        };
        let (mut read, write) = (count(&self.read), count(&self.write));
        let parked = u32::try_from(self.searches.parked()).unwrap_or(u32::MAX);
        (read.0, read.1) = (read.0.saturating_add(parked), read.1.saturating_sub(parked));
        metrics::set_pool_connections("postgres", read.0 + write.0, read.1 + write.1, read.2 + write.2);
    }

    /// Drops the idle connections without a word to the server: after a silence they may be dead, and each would cost its
    /// next user a wait.
    pub(super) fn drop_idle(&self) {
        self.searches.drop_parked();
        for pool in [&self.read, &self.write] {
            while let Some(connection) = pool.try_acquire() {
                drop(connection.detach());
            }
        }
    }

    /// Closes every connection, waiting for those in use.
    pub async fn close(&self) {
        self.searches.close().await;
        self.write.close().await;
    }
}

/// A database whose connections are all in use lets go of one more often than this, or is as good as away. Half a second, a
/// probe's pause and its wait are below the two seconds in which readiness turns.
const SIGN_OF_LIFE: Duration = Duration::from_millis(500);

/// `nulls not distinct` and SQL-standard function bodies came with 15.
const OLDEST_SERVER: i32 = 150_000;

fn open(options: PgConnectOptions, connections: u32, config: &Config, (settings, alive): (String, Alive)) -> PgPool {
    let connected = alive.clone();
    let settings: &'static str = Box::leak(settings.into_boxed_str());
    PgPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(config.acquire_timeout)
        .test_before_acquire(false)
        .after_connect(move |connection, _| {
            let connected = connected.clone();
            Box::pin(async move {
                sqlx::raw_sql(settings).execute(connection).await?;
                connected.now();
                Ok(())
            })
        })
        .after_release(move |connection, _| {
            let alive = alive.clone();
            Box::pin(async move {
                let clean = is_clean(connection).await;
                match clean {
                    Ok(_) => alive.now(),
                    Err(_) => metrics::record_pool_leaked("postgres", 1),
                }
                clean
            })
        })
        .connect_lazy_with(options)
}

/// Whether the session is idle and outside a transaction. Through the simple protocol the two times are equal only in a
/// statement that is its own transaction. An error, not `false`: sqlx closes gracefully on `false`, which a dead
/// socket would never finish.
async fn is_clean(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let check = connection.fetch_one(sqlx::raw_sql("select now() = statement_timestamp()"));
    match tokio::time::timeout(RELEASE_CHECK_TIMEOUT, check).await {
        Ok(Ok(row)) if row.try_get::<bool, _>(0)? => Ok(true),
        Ok(Ok(_)) => Err(sqlx::Error::Protocol("released inside a transaction".to_owned())),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(sqlx::Error::Protocol("released on a silent socket".to_owned())),
    }
}
