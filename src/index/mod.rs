//! Vectors and words to candidates: the only way to the database.
//!
//! [`Index`] is a cheap handle. Searches read published generations only, through the read pool; imports build
//! generations beside them and publish in one transaction. When the database is away, calls fail with
//! [`Error::Unavailable`] within the acquire timeout and work again as soon as it is back, without a restart.

pub mod build;
pub mod catalog;
pub mod cleanup;
pub mod cluster;
pub mod database;
pub mod documents;
pub mod generations;
pub mod keywords;
pub mod migrations;
mod parked;
pub mod passages;
pub mod pool;
pub mod sources;
pub mod terms;
pub mod vectors;

use std::{sync::Arc, time::Duration};

use sqlx::postgres::PgConnectOptions;

pub use catalog::Catalog;
use pool::Pools;
pub use sources::{Resolved, ResolvedGeneration, Selection};

use crate::runtime::lifecycle::Lifecycle;

/// Where the database is and how it is used.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Sizes and bounds of the connection pools.
    pub pool: pool::Config,
}

/// Why the database did not answer. Messages are for operators; what a caller may see is decided by the front door.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The first connection failed.
    #[error("cannot use the database: {reason}")]
    Connect {
        /// What is wrong and what to do.
        reason: String,
    },
    /// A Postgres that lacks what the schema needs.
    #[error("the database is Postgres {major}, 15 or newer is needed")]
    ServerTooOld {
        /// Its major version.
        major: i32,
    },
    /// Migrations that this binary brings are not applied.
    #[error("the database lacks {pending} migrations; run `doc-server migrate`, or start without --no-migrate")]
    MigrationsPending {
        /// How many.
        pending: usize,
    },
    /// The database is newer than this binary.
    #[error("the database has migration {version}, which this binary does not know; run a newer doc-server")]
    SchemaNewer {
        /// The unknown migration.
        version: i64,
    },
    /// A migration failed.
    #[error("migration failed: {0}")]
    Migration(String),
    /// No connection came free in time.
    #[error("no database connection came free within {waited:?}")]
    Busy {
        /// How long the caller waited.
        waited: Duration,
    },
    /// The statement ran into its time limit.
    #[error("the database did not finish in time")]
    Timeout,
    /// The database cannot be reached now.
    #[error("the database cannot be reached: {0}")]
    Unavailable(String),
    /// No such source, version, page or chunk.
    #[error("{0}")]
    NotFound(String),
    /// The generations of a cursor are gone.
    #[error("the documents this cursor points into were removed; search again")]
    Gone,
    /// Another import builds this version now.
    #[error("another import of {source_id} {version} is running; wait for it, or stop it")]
    BuildRunning {
        /// The source.
        source_id: String,
        /// Its version.
        version: String,
    },
    /// Anything unexpected: a bug or a broken database.
    #[error("database error: {0}")]
    Database(Arc<sqlx::Error>),
}

impl Error {
    /// Whether trying again later may help.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Busy { .. } | Self::Timeout | Self::Unavailable(_))
    }

    #[expect(clippy::needless_pass_by_value, reason = "the signature of map_err")]
    fn connect(error: sqlx::Error) -> Self {
        let reason = match &error {
            sqlx::Error::Database(refused) => match refused.code().as_deref() {
                Some("28P01" | "28000") => {
                    format!("{}; check the user and password in database_url", refused.message())
                }
                Some("3D000") => format!("{}; create it, or name another in database_url", refused.message()),
                _ => refused.message().to_owned(),
            },
            sqlx::Error::Io(io) => format!("{io}; is Postgres running at the address in database_url?"),
            sqlx::Error::PoolTimedOut => {
                "it did not answer in time; is Postgres running at the address in database_url?".to_owned()
            }
            other => other.to_string(),
        };
        Self::Connect { reason }
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::PoolClosed
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::WorkerCrashed
            | sqlx::Error::Protocol(_) => Self::Unavailable(error.to_string()),
            sqlx::Error::Database(refused) => match refused.code().as_deref() {
                // Cancelled by statement_timeout.
                Some("57014") => Self::Timeout,
                // Shutting down, crashed, starting up, too many connections, connection failures; a wrong password after
                // a good one is a fault of the other side too.
                Some(code) if code.starts_with("57P") || code.starts_with("53") || code.starts_with("08") => {
                    Self::Unavailable(refused.message().to_owned())
                }
                Some("28P01" | "28000" | "3D000") => Self::Unavailable(refused.message().to_owned()),
                _ => Self::Database(Arc::new(error)),
            },
            _ => Self::Database(Arc::new(error)),
        }
    }
}

/// The handle: pools and the catalog of what is published.
#[derive(Clone, Debug)]
pub struct Index {
    pools: Pools,
    catalog: Arc<catalog::Shared>,
    options: PgConnectOptions,
}

impl Index {
    /// Connects. The schema may still be missing: see [`Index::migrate`].
    ///
    /// # Errors
    /// [`Error::Connect`] says what is wrong: no server, a wrong password, no such database.
    pub async fn connect(options: PgConnectOptions, config: Config) -> Result<Self, Error> {
        let pools = Pools::connect(options.clone(), config.pool).await?;
        Ok(Self { pools, catalog: Arc::default(), options })
    }

    /// The pools, for their metrics.
    #[must_use]
    pub fn pools(&self) -> &Pools {
        &self.pools
    }

    /// Starts following what others publish. Without it the catalog is re-read when its lease ends.
    pub fn follow(&self, lifecycle: &Lifecycle) {
        lifecycle.spawn("catalog", catalog::follow_task(self.clone(), lifecycle.stopping()));
    }

    /// Asks the database for a sign of life.
    ///
    /// # Errors
    /// When it gives none within the acquire timeout.
    pub async fn ping(&self) -> Result<Duration, Error> {
        let started = std::time::Instant::now();
        let mut connection = self.pools.read().await?;
        sqlx::query("select 1").execute(&mut *connection).await?;
        Ok(started.elapsed())
    }

    /// Forgets the idle connections, which may be dead after a silence of the database.
    pub fn drop_idle(&self) {
        self.pools.drop_idle();
    }

    /// Closes every connection.
    pub async fn close(&self) {
        self.pools.close().await;
    }
}
