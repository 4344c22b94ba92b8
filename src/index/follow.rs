//! Hearing what others publish, and noticing when nothing can be heard any more.
//!
//! One connection of its own listens. It is asked for a sign of life 2.5 times a second, since a socket can die without a word
//! and announcements with it; one that misses it for a second is given up. It also reads the catalog, so that a
//! pool whose connections are all in use does not age it. After a loss the next connection is tried at once, then twice a second,
//! and begins by reading the catalog; when the loss was a silence, or the server took writes no more and the next one does, all
//! search connections that are as old are given up with it. While a search waits long, each ping also looks whether the server
//! is at work on it: one socket can die alone.

use std::{convert::Infallible, time::Duration};

use sqlx::{Acquire, Executor, PgConnection, Row, postgres::PgListener};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Error, Index, catalog::CHANNEL, epoch::Seen};

/// Twice a lease of the catalog, so that the lease does not end while the database answers.
const REFRESH_EVERY: Duration = Duration::from_millis(2_500);

/// A pause after which a sign of life is due.
const PING_EVERY: Duration = Duration::from_millis(400);

/// Two signs of life missed. With the pause before, a silence is noticed within a second and a half.
const PING_TIMEOUT: Duration = Duration::from_secs(1);

/// A server that was away is listened to within a second of its return.
const RECONNECT_EVERY: Duration = Duration::from_millis(500);

/// A listener that died without a word must not be waited for at each publish: it pings often, so one that does not is gone.
const END_WHEN_SILENT: &str = "set idle_session_timeout = '5s'";

/// Why a connection is listened to no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lost {
    /// The process stops.
    Stopping,
    /// The server or the network said so.
    Closed,
    /// Nothing was said.
    Silent,
    /// The server takes no writes: after a failover, the primary may be another at the same address.
    ReadOnly,
}

/// Keeps the catalog current until `stopping`. While nothing can be heard, the lease decides.
///
/// # Errors
/// Never; the signature is that of a background task.
pub(super) async fn follow_task(index: Index, stopping: CancellationToken) -> Result<(), Infallible> {
    let mut last = Lost::Closed;
    while !stopping.is_cancelled() {
        let listener = tokio::select! {
            () = stopping.cancelled() => break,
            listener = tokio::time::timeout(REFRESH_EVERY, listen(&index)) => listener,
        };
        match listener.unwrap_or_else(|_| Err(Error::Unavailable("it did not answer in time".to_owned()))) {
            Ok((listener, writable)) => {
                if last == Lost::Silent || (last == Lost::ReadOnly && writable) {
                    tracing::warn!(?last, "another connection to the database works; older ones are given up");
                    index.pools.abandon();
                }
                last = follow(&index, listener, writable, &stopping).await;
                // What is published from now on is not heard, and nobody waits for this process to hear it.
                index.doubt_catalog();
            }
            Err(error) => {
                tracing::warn!(%error, "cannot listen for publishes; trying again");
                tokio::select! {
                    () = stopping.cancelled() => break,
                    () = tokio::time::sleep(RECONNECT_EVERY) => {}
                }
            }
        }
    }
    Ok(())
}

/// A listening connection, and whether its server takes writes.
async fn listen(index: &Index) -> Result<(PgListener, bool), Error> {
    let pool = sqlx::postgres::PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(REFRESH_EVERY)
        .connect_lazy_with(index.direct.clone().application_name("doc-server listener"));
    let mut listener = PgListener::connect_with(&pool).await?;
    // A loss is told, since announcements may be lost with it.
    listener.eager_reconnect(false);
    listener.execute(sqlx::raw_sql(END_WHEN_SILENT)).await?;
    listener.listen(CHANNEL).await?;
    let writable = is_writable(&mut listener).await?;
    Ok((listener, writable))
}

/// Re-reads after each announcement and each interval, until the connection is lost or the process stops.
async fn follow(index: &Index, mut listener: PgListener, writable: bool, stopping: &CancellationToken) -> Lost {
    let Ok(mut seen) = begin(&mut listener).await else { return Lost::Closed };
    loop {
        // What happened between the last reading and `listen` is caught by reading first.
        if let Some(lost) = refresh(index, &mut listener, &mut seen).await {
            return lost;
        }
        let due = Instant::now() + REFRESH_EVERY;
        loop {
            tokio::select! {
                () = stopping.cancelled() => return Lost::Stopping,
                () = tokio::time::sleep_until(due) => break,
                () = tokio::time::sleep(PING_EVERY) => match ping(index, &mut listener).await {
                    Ok(now) if now == writable => {}
                    Ok(_) => return Lost::ReadOnly,
                    Err(lost) => return lost,
                },
                heard = listener.try_recv() => match heard {
                    Ok(Some(_)) => break,
                    Ok(None) | Err(_) => return Lost::Closed,
                },
            }
        }
        // One that never took writes may be meant to; the address is tried again now and then.
        if !writable {
            return Lost::ReadOnly;
        }
    }
}

async fn begin(listener: &mut PgListener) -> Result<Seen, Error> {
    let begun = async { Seen::nothing(listener.acquire().await?).await };
    let begun = tokio::time::timeout(PING_TIMEOUT, begun).await;
    begun.unwrap_or_else(|_| Err(Error::Unavailable("a lock was not taken in time".to_owned())))
}

/// Reads the catalog; an error of the statement alone keeps the connection.
async fn refresh(index: &Index, listener: &mut PgListener, seen: &mut Seen) -> Option<Lost> {
    let asked = Instant::now().into_std();
    let Ok(connection) = listener.acquire().await else { return Some(Lost::Closed) };
    match index.refresh_catalog_on(connection).await {
        Ok(catalog) => {
            index.pools.answered(asked);
            // Given up half way, it might leave a lock that nobody takes back: it goes with its connection.
            let told = tokio::time::timeout(PING_TIMEOUT, seen.advance(connection, catalog.epoch)).await;
            return if matches!(told, Ok(Ok(()))) { None } else { Some(Lost::Silent) };
        }
        Err(error) => tracing::warn!(%error, "cannot read the catalog"),
    }
    ping(index, listener).await.err()
}

/// Whether the server takes writes, as its sign of life; also a look at the statements that searches wait for.
async fn ping(index: &Index, listener: &mut PgListener) -> Result<bool, Lost> {
    let asked = Instant::now().into_std();
    match tokio::time::timeout(PING_TIMEOUT, look(index, listener)).await {
        Ok(Ok(writable)) => {
            index.pools.answered(asked);
            Ok(writable)
        }
        Ok(Err(_)) => Err(Lost::Closed),
        Err(_) => Err(Lost::Silent),
    }
}

async fn look(index: &Index, listener: &mut PgListener) -> Result<bool, sqlx::Error> {
    let quiet = index.pools.quiet();
    if !quiet.is_empty() {
        let connection: &mut PgConnection = listener.acquire().await?;
        // One that waits for us to read its answer is not at work either.
        let busy = sqlx::query_scalar(
            "select pid from pg_stat_activity
             where pid = any($1) and state = 'active' and wait_event is distinct from 'ClientWrite'",
        );
        index.pools.looked(&quiet, &busy.bind(&quiet).fetch_all(connection).await?);
    }
    is_writable(listener).await
}

async fn is_writable(listener: &mut PgListener) -> Result<bool, sqlx::Error> {
    let connection: &mut PgConnection = listener.acquire().await?;
    let row = connection.fetch_one(sqlx::raw_sql("show transaction_read_only")).await?;
    Ok(row.try_get::<&str, _>(0)? == "off")
}
