//! The embedded default: doc-server's own durable Postgres, where no database is configured.
//!
//! The first process of a data directory starts it, others attach, the last to leave stops it; a process that is killed
//! leaves it running for the next. What was committed survives the kill of any of them. It listens on one Unix socket and
//! never on TCP. Opening waits at most five minutes for recovery, and says every second what for; what cannot work is
//! refused with the way out. `tests.rs` runs all of it against the real server.

mod account;
mod control;
mod create;
mod error;
mod layout;
mod locks;
mod postmaster;
mod probe;
mod settings;
mod start;
#[cfg(test)]
mod tests;

use std::{
    convert::Infallible, fmt::Write as _, fs::DirBuilder, os::unix::fs::DirBuilderExt, path::PathBuf, sync::Arc,
    time::Duration,
};

use sqlx::postgres::{PgConnectOptions, PgSslMode};
use tokio::time::{Instant, sleep};

pub use self::error::Error;
use self::{
    account::Account,
    control::Programs,
    error::at,
    layout::Layout,
    locks::{Control, Presence},
};
use crate::runtime::lifecycle::Lifecycle;

/// The superuser of the cluster and the name that our connections carry.
const USER: &str = "doc_server";

/// Waiting is told this often.
const PROGRESS: Duration = Duration::from_secs(1);

/// How often the server is looked after; a killed one is back within this and its recovery.
const WATCH: Duration = Duration::from_secs(1);

/// The longest pause after restarts that fail: soon enough after an operator has made room on the disk.
const WATCH_MAX: Duration = Duration::from_secs(30);

/// Where the cluster is, and its size.
#[derive(Clone, Debug)]
pub struct Config {
    /// Everything of the cluster lies here, below the data directory of doc-server.
    pub data_dir: PathBuf,
    /// The programs of Postgres: a directory with `bin`, `lib` and `share`.
    pub postgres_dir: PathBuf,
    /// Connections of all processes together.
    pub max_connections: u32,
    /// The memory in which Postgres keeps pages, in megabytes.
    pub shared_buffers_mb: u32,
    /// The name of the database.
    pub database: String,
}

impl Config {
    /// The usual cluster of a data directory: 100 connections (a few pools), 128 MB of page memory
    /// (Postgres' own default; the kernel's cache does the rest).
    #[must_use]
    pub fn new(data_dir: PathBuf, postgres_dir: PathBuf) -> Self {
        Self { data_dir, postgres_dir, max_connections: 100, shared_buffers_mb: 128, database: USER.to_owned() }
    }
}

/// A running Postgres that this process uses, and that stays at least as long as this value.
pub struct Cluster {
    config: Config,
    layout: Layout,
    account: Account,
    /// Never logged.
    password: String,
    /// Held shared for as long as we use the server.
    presence: Presence,
}

impl Cluster {
    /// Starts the cluster, or attaches to the running one that another process started. The first time it is made.
    ///
    /// # Errors
    /// Every variant of [`Error`] but those of stopping; nothing that this call started is left running, except a server
    /// that still recovers.
    ///
    /// # Cancel safety
    /// Giving up frees the locks. A server that was being started goes on, and the next call attaches to it.
    pub async fn open(config: &Config) -> Result<Self, Error> {
        let begun = Instant::now();
        let root = &config.data_dir;
        DirBuilder::new().recursive(true).mode(0o755).create(root).map_err(at("create", root))?;
        let layout = Layout::new(&root.canonicalize().map_err(at("find", root))?);
        let control = Control::take(&layout.control).await?;
        let account = Account::choose(&layout.data)?;
        account.let_through(&layout.root)?;
        account.check_reach(&layout.root)?;
        let presence = Presence::enter(&layout.users, &control)?;
        let password = create::password(&layout)?;
        let cluster = Self { config: config.clone(), layout, account, password, presence };
        let started = cluster.bring_up(&control).await?;
        let (elapsed, data) = (begun.elapsed().as_millis(), cluster.layout.data.display());
        if started {
            tracing::info!(elapsed, %data, account = %cluster.account, "started the embedded Postgres");
        } else {
            tracing::info!(elapsed, %data, "attached to the running embedded Postgres");
        }
        Ok(cluster)
    }

    /// How to connect: by the Unix socket, as the superuser, to the database.
    #[must_use]
    pub fn connect_options(&self) -> PgConnectOptions {
        self.options(&self.config.database)
    }

    /// The same for programs such as psql. It holds the password: not for logs.
    #[must_use]
    pub fn url(&self) -> String {
        let (database, host) = (encode(&self.config.database), encode(&self.layout.socket.to_string_lossy()));
        // The socket's directory as a percent-encoded host: the one form that libpq and sqlx both read.
        format!("postgres://{USER}:{}@{host}:{}/{database}", self.password, layout::PORT)
    }

    /// Restarts the server if it has died; returns whether it had. Cheap while it lives: two reads of `/proc`.
    ///
    /// # Errors
    /// Those of [`Cluster::open`].
    ///
    /// # Cancel safety
    /// As [`Cluster::open`].
    pub async fn ensure_running(&self) -> Result<bool, Error> {
        if self.lives().await {
            return Ok(false);
        }
        let control = Control::take(&self.layout.control).await?;
        self.bring_up(&control).await
    }

    /// Keeps the server running until the lifecycle stops: one that was killed, or stopped by hand, is back within a
    /// second and its recovery. A restart that fails is logged and tried again after 2, 4, … at most 30 s; meanwhile the process answers what it can.
    ///
    /// # Errors
    /// Never; the signature is that of a background task.
    pub async fn supervise_task(self: Arc<Self>, lifecycle: Lifecycle) -> Result<(), Infallible> {
        let stopping = lifecycle.stopping();
        let _ = stopping.run_until_cancelled(self.supervise()).await;
        Ok(())
    }

    /// Leaves: the last process to leave stops Postgres, the others only detach. Dropping the value instead detaches
    /// and leaves Postgres running for the next process.
    ///
    /// # Errors
    /// When Postgres has not stopped within a minute, or the locks or its programs are gone.
    ///
    /// # Cancel safety
    /// Giving up frees the locks; Postgres goes on stopping, or running.
    pub async fn close(self) -> Result<(), Error> {
        let begun = Instant::now();
        let control = Control::take(&self.layout.control).await?;
        if !self.presence.leave(&self.layout.users, &control)? {
            tracing::info!("left the embedded Postgres to the processes that still use it");
            return Ok(());
        }
        self.stop().await?;
        tracing::info!(elapsed = begun.elapsed().as_millis(), "stopped the embedded Postgres");
        Ok(())
    }

    fn options(&self, database: &str) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass()
            .socket(&self.layout.socket)
            .port(layout::PORT)
            .username(USER)
            .password(&self.password)
            .database(database)
            .application_name("doc-server")
            .ssl_mode(PgSslMode::Disable)
    }

    /// Whether the server lives: by its process or, where that is not to be seen, by its socket.
    async fn lives(&self) -> bool {
        postmaster::find(&self.layout, &self.account).is_some() || probe::listens(&self.layout.socket_file()).await
    }

    async fn supervise(&self) {
        let mut pause = WATCH;
        loop {
            sleep(pause).await;
            match self.ensure_running().await {
                Ok(false) => pause = WATCH,
                Ok(true) => {
                    tracing::warn!("the embedded Postgres had died and was started again");
                    pause = (pause * 2).min(WATCH_MAX);
                }
                Err(error) => {
                    pause = (pause * 2).min(WATCH_MAX);
                    let again = pause.as_secs();
                    tracing::error!(%error, again, "the embedded Postgres is down and cannot be started");
                }
            }
        }
    }

    /// Stops the server if it is to be seen.
    async fn stop(&self) -> Result<(), Error> {
        if postmaster::find(&self.layout, &self.account).is_none() {
            if probe::listens(&self.layout.socket_file()).await {
                tracing::warn!("the embedded Postgres runs where this process does not see it; it is left running");
            }
            return Ok(());
        }
        let programs = Programs::find(&self.config.postgres_dir, &self.account)?;
        let mut stopping = std::pin::pin!(programs.stop(&self.account, &self.layout));
        loop {
            if let Ok(stopped) = tokio::time::timeout(PROGRESS, &mut stopping).await {
                return stopped;
            }
            tracing::info!("waiting for the embedded Postgres to stop");
        }
    }
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Without the password.
        formatter
            .debug_struct("Cluster")
            .field("config", &self.config)
            .field("account", &self.account)
            .finish_non_exhaustive()
    }
}

/// Percent-encodes everything that has a meaning in a URL.
fn encode(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
        encoded
    })
}
