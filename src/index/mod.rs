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
mod epoch;
pub mod explain;
mod follow;
pub mod generations;
mod held;
pub mod hot_searches;
pub mod keys;
pub mod keywords;
pub mod migrations;
mod parked;
pub mod passages;
pub mod pool;
mod reads;
mod replicas;
mod retry;
mod session;
pub mod sources;
pub mod terms;
pub mod vectors;
mod view;

use std::{sync::Arc, time::Duration};

use sqlx::postgres::PgConnectOptions;

pub use catalog::Catalog;
pub use parked::Reader;
use pool::Pools;
pub use reads::Seen;
pub use replicas::ReplicaStatus;
pub use sources::{Resolved, ResolvedGeneration, Selection};
pub use view::View;

use crate::runtime::lifecycle::Lifecycle;

/// Where the database is and how it is used.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Sizes and bounds of the connection pools.
    pub pool: pool::Config,
    /// The way past a pooler, for what needs a session: listening, locks, migrations, index builds. None when there is no
    /// pooler.
    pub direct: Option<PgConnectOptions>,
    /// Streaming replicas that are searched instead of the primary while they keep up.
    pub replicas: Vec<PgConnectOptions>,
}

/// Reads an address; the error says what one looks like.
///
/// # Errors
/// When it is none.
pub fn parse_url(url: &str) -> Result<PgConnectOptions, String> {
    url.parse().map_err(|error| format!("{error}; use postgres://user:password@host:5432/database"))
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
    /// Pools that the server has no room for.
    #[error(
        "database_read_connections ({}) and database_write_connections ({}) and one that listens are {} connections, but the \
         server's max_connections leaves {allowed}; lower the two settings, or raise max_connections",
        config.read_connections, config.write_connections, config.connections()
    )]
    PoolsTooLarge {
        /// Our sizes.
        config: Box<pool::Config>,
        /// What the server gives to all its clients together.
        allowed: u32,
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
    /// The connection broke, or its server ended, under the statement: another connection may work.
    #[error("the connection to the database broke: {0}")]
    Lost(String),
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
    /// There are as many valid keys as every replica can keep in memory.
    #[error("there are {most} valid keys, which is the most; revoke some first")]
    TooManyKeys {
        /// How many.
        most: i64,
    },
    /// Anything unexpected: a bug or a broken database.
    #[error("database error: {0}")]
    Database(Arc<sqlx::Error>),
}

impl Error {
    /// Whether trying again later may help.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Busy { .. } | Self::Timeout | Self::Unavailable(_) | Self::Lost(_))
    }

    #[expect(clippy::needless_pass_by_value, reason = "the signature of map_err")]
    fn connect(error: sqlx::Error) -> Self {
        let reason = match &error {
            sqlx::Error::Database(refused) => match refused.code().as_deref() {
                Some("28P01" | "28000") => {
                    format!("{}; check the user and password in database_url", refused.message())
                }
                Some("3D000") => format!("{}; create it, or name another in database_url", refused.message()),
                Some("08P01") if refused.message().contains("startup parameter") => {
                    format!("{}; if database_url is a PgBouncer, set database_direct_url beside it", refused.message())
                }
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
            sqlx::Error::Io(_) => Self::Lost(error.to_string()),
            sqlx::Error::Tls(_)
            | sqlx::Error::PoolClosed
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::WorkerCrashed
            | sqlx::Error::Protocol(_) => Self::Unavailable(error.to_string()),
            sqlx::Error::Database(refused) => match refused.code().as_deref() {
                // Cancelled by statement_timeout.
                Some("57014") => Self::Timeout,
                // Shutting down, crashed, starting up, connection failures.
                Some(code) if code.starts_with("57P") || code.starts_with("08") => {
                    Self::Lost(refused.message().to_owned())
                }
                // Too many connections or no memory, and read-only in a failover; a wrong password after a good one is a fault
                // of the other side too.
                Some(code) if code.starts_with("53") => Self::Unavailable(refused.message().to_owned()),
                Some("25006" | "28P01" | "28000" | "3D000") => Self::Unavailable(refused.message().to_owned()),
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
    /// Past any pooler.
    direct: PgConnectOptions,
    /// Set on a handle whose reading statements are explained.
    recorder: Option<explain::Recorder>,
}

impl Index {
    /// Connects. The schema may still be missing: see [`Index::migrate`].
    ///
    /// # Errors
    /// [`Error::Connect`] says what is wrong: no server, a wrong password, no such database.
    pub async fn connect(options: PgConnectOptions, config: Config) -> Result<Self, Error> {
        let direct = config.direct.unwrap_or_else(|| options.clone());
        let pools = Pools::connect(options, config.replicas, config.pool).await?;
        Ok(Self { pools, catalog: Arc::default(), direct, recorder: None })
    }

    /// The pools, for their metrics.
    #[must_use]
    pub fn pools(&self) -> &Pools {
        &self.pools
    }

    /// Starts following what others publish, the state of replicas, and connections that are not given back. Without it the catalog
    /// is re-read when its lease ends, and replicas are not searched.
    pub fn follow(&self, lifecycle: &Lifecycle) {
        lifecycle.spawn("catalog", follow::follow_task(self.clone(), lifecycle.stopping()));
        lifecycle.spawn("pools", self.pools.clone().watch_task(lifecycle.stopping()));
        if !self.replicas().is_empty() {
            lifecycle.spawn("replicas", replicas::probe_task(self.clone(), lifecycle.stopping()));
        }
    }

    /// The replicas as their last probes saw them.
    #[must_use]
    pub fn replicas(&self) -> Vec<ReplicaStatus> {
        self.pools.replicas.status()
    }

    /// Asks the database for a sign of life.
    ///
    /// # Errors
    /// When it gives none within the acquire timeout.
    pub async fn ping(&self) -> Result<Duration, Error> {
        let started = std::time::Instant::now();
        let asking = async |mut reader: parked::Reader| {
            sqlx::query("select 1").execute(&mut *reader).await?;
            Ok(reader.done().await?)
        };
        reads::once(self.pools.acquire("ping").await?, &asking).await?;
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
