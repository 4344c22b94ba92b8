//! What a connection is told before statements run on it, and what it must be when it comes back.
//!
//! Talking to Postgres itself, settings are the session's and statements stay prepared. Through a pooler in transaction mode
//! the server process may be another for each transaction, so there every use is one transaction that brings its settings
//! (`set local`), and no statement outlives it. A connection that comes back in the middle of something is closed.

use std::{
    fmt::Write,
    time::{Duration, Instant},
};

use sqlx::{
    Executor, PgConnection, PgPool, Row,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use super::{
    held::Role,
    pool::{Alive, Config},
};
use crate::runtime::metrics;

/// A check on a healthy local or same-zone connection takes well under 1 ms. One that is given up in the middle of a statement waits for
/// that to end: a short one keeps its connection, a long one is stopped with it, and its place is free within the acquire timeout.
const RELEASE_CHECK_TIMEOUT: Duration = Duration::from_millis(100);

/// Shorter on the way out of the pool: within the acquire timeout there must be time left to connect instead.
const ACQUIRE_CHECK_TIMEOUT: Duration = Duration::from_millis(100);

/// The longest an import waits for a connection: nobody waits for the answer, and a server that was away for a moment costs it
/// nothing. Readers have a patience of their own.
const PATIENCE: Duration = Duration::from_secs(5);

/// A statement whose connection was closed stops in the server within this. With the check above, a caller who is gone or late costs the
/// database a fifth of a second more and no longer. A look is one system call, and only long statements are looked at.
const STOP_WHEN_ALONE: (&str, &str) = ("client_connection_check_interval", "100ms");

/// The settings of each role's statements.
fn settings(role: Role, config: &Config) -> Vec<(&'static str, String)> {
    let mut settings = vec![(STOP_WHEN_ALONE.0, STOP_WHEN_ALONE.1.to_owned()), ("jit", "off".to_owned())];
    match role {
        // No statement timeout for imports, which may rightly take long.
        Role::Write => settings.push(("idle_in_transaction_session_timeout", "60s".to_owned())),
        Role::Read | Role::Replica => settings.extend([
            ("idle_in_transaction_session_timeout", "10s".to_owned()),
            ("statement_timeout", config.statement_timeout.as_millis().to_string()),
            ("hnsw.ef_search", config.ef_search.to_string()),
            ("hnsw.iterative_scan", "relaxed_order".to_owned()),
            ("ivfflat.probes", config.ivfflat_probes.to_string()),
            ("ivfflat.iterative_scan", "relaxed_order".to_owned()),
            ("synchronize_seqscans", "off".to_owned()),
            // A search's statements have one good plan each, whatever their values. Left to itself Postgres finds the plan
            // for given values a little cheaper and plans anew every time: 0.1 to 0.15 ms a statement.
            ("plan_cache_mode", "force_generic_plan".to_owned()),
        ]),
    }
    settings
}

/// Begins a transaction with the settings of `role`: one message to the server.
pub(super) fn begin_sql(role: Role, config: &Config) -> &'static str {
    let mut sql = "begin;".to_owned();
    if config.transaction_pooling {
        // sqlx names its statements also when it keeps none, and another client's may be left in this session by that name.
        sql.push_str(" deallocate all;");
        for (name, value) in settings(role, config) {
            let _ = write!(sql, " set local {name} = '{value}';");
        }
    }
    // Once a pool.
    Box::leak(sql.into_boxed_str())
}

/// The options as the way to the server wants them.
pub(super) fn options(options: PgConnectOptions, config: &Config) -> PgConnectOptions {
    let options = options.application_name("doc-server");
    if !config.transaction_pooling {
        return options;
    }
    // PgBouncer refuses a start-up parameter it does not know, and tracks prepared statements only since 1.21.
    options.extra_float_digits(None).statement_cache_capacity(0)
}

/// A pool that connects when first used.
pub(super) fn open(server: PgConnectOptions, role: Role, config: &Config, alive: &Alive) -> PgPool {
    let mut session = String::new();
    if !config.transaction_pooling {
        for (name, value) in settings(role, config) {
            let _ = write!(session, "set {name} = '{value}';");
        }
    }
    let session: &'static str = Box::leak(session.into_boxed_str());
    let connections = if role == Role::Write { config.write_connections } else { config.read_connections };
    let (connected, released) = (alive.clone(), alive.clone());
    PgPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(PATIENCE)
        .test_before_acquire(false)
        .after_connect(move |connection, _| {
            let connected = connected.clone();
            Box::pin(async move {
                let asked = Instant::now();
                connection.execute(sqlx::raw_sql(session)).await?;
                if role == Role::Write {
                    require_writable(connection).await?;
                }
                connected.answered(asked);
                Ok(())
            })
        })
        // A write is rare and long: one more question finds the connection that died or became read-only in a failover.
        .before_acquire(move |connection, _| {
            Box::pin(async move {
                match role {
                    Role::Write => require_writable(connection).await.map(|()| true),
                    Role::Read | Role::Replica => Ok(true),
                }
            })
        })
        .after_release(move |connection, _| {
            let released = released.clone();
            Box::pin(async move {
                let asked = Instant::now();
                let clean = is_clean(connection).await;
                match clean {
                    Ok(_) => released.answered(asked),
                    Err(_) => metrics::record_pool_discarded("postgres", 1),
                }
                clean
            })
        })
        .connect_lazy_with(options(server, config))
}

/// Asks whether writes are allowed: not on a standby, nor on a primary that was taken out of service. An error makes the pool
/// close the connection and make another, so a promoted standby at the same address is found.
async fn require_writable(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let row = bounded(ACQUIRE_CHECK_TIMEOUT, connection.fetch_one(sqlx::raw_sql("show transaction_read_only"))).await?;
    match row.try_get::<&str, _>(0)? {
        "off" => Ok(()),
        _ => Err(sqlx::Error::Protocol("the server is read-only; waiting for the new primary".to_owned())),
    }
}

/// Whether the session is idle and outside a transaction. Through the simple protocol the two times are equal only in a
/// statement that is its own transaction. An error, not `false`: sqlx closes gracefully on `false`, which a dead
/// socket would never finish.
async fn is_clean(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let row =
        bounded(RELEASE_CHECK_TIMEOUT, connection.fetch_one(sqlx::raw_sql("select now() = statement_timestamp()")))
            .await?;
    if row.try_get::<bool, _>(0)? {
        return Ok(true);
    }
    Err(sqlx::Error::Protocol("released inside a transaction".to_owned()))
}

async fn bounded<T>(time: Duration, asked: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    let silent = || sqlx::Error::Protocol("the socket is silent".to_owned());
    tokio::time::timeout(time, asked).await.map_err(|_| silent())?
}
