//! Read replicas: which of them may be searched now.
//!
//! A task asks the primary how far its log is and each replica how far it has replayed it and whether it has the published
//! generations, four times a second. A replica that does not answer, is further behind than the bound, or lacks a generation is left
//! out until it is well again; so is one on which a read has just failed. That is for speed only: each read tells by
//! itself whether its snapshot held what it was for.

use std::{
    collections::VecDeque,
    convert::Infallible,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use sqlx::{Row, postgres::PgConnectOptions};
use tokio_util::sync::CancellationToken;

use super::{
    Error, Index,
    held::{Holders, Role},
    parked::{Parking, Reader},
    pool::Config,
    reads::{Seen, once},
};
use crate::runtime::metrics;

/// A replica that falls behind or dies costs at most the reads of this long a second attempt.
const PROBE_EVERY: Duration = Duration::from_millis(250);

/// A server that takes longer for one row is no help.
const PROBE_TIMEOUT: Duration = Duration::from_millis(500);

/// All replicas of one primary, searched in turn.
#[derive(Clone, Debug)]
pub(super) struct Replicas {
    all: Arc<[Replica]>,
    next: Arc<AtomicUsize>,
    max_lag: Duration,
}

/// One replica.
#[derive(Debug)]
pub(super) struct Replica {
    address: String,
    parking: Parking,
    usable: AtomicBool,
    reads: AtomicU64,
}

/// A replica as its last probe saw it.
#[derive(Clone, Debug)]
pub struct ReplicaStatus {
    /// `host:port`.
    pub address: String,
    /// Whether it is searched.
    pub usable: bool,
    /// Complete answers it has given.
    pub reads: u64,
}

/// Where the primary's log was, and when: newest last.
#[derive(Debug, Default)]
struct Positions(VecDeque<(Instant, i64)>);

impl Positions {
    /// Notes that the log had reached `position` at `at`; forgets what is older than the bound needs.
    fn note(&mut self, at: Instant, position: i64, max_lag: Duration) {
        self.0.push_back((at, position));
        while self.0.get(1).is_some_and(|(next, _)| next.elapsed() > max_lag) {
            self.0.pop_front();
        }
    }

    /// Whether a replica that has replayed `replayed` lacks nothing that is older than the bound.
    fn keeps_up(&self, replayed: i64, max_lag: Duration) -> bool {
        // The position that the log had reached at least `max_lag` ago; the oldest known where none is so old.
        let due = self.0.iter().rev().find(|(at, _)| at.elapsed() >= max_lag).or(self.0.front());
        due.is_some_and(|(_, position)| replayed >= *position)
    }
}

impl Replicas {
    /// None is used before its first probe.
    pub fn new(servers: Vec<PgConnectOptions>, config: &Config, holders: &Holders) -> Self {
        let replica = |server: PgConnectOptions| Replica {
            address: format!("{}:{}", server.get_host(), server.get_port()),
            parking: Parking::open(server, Role::Replica, config, holders),
            usable: AtomicBool::new(false),
            reads: AtomicU64::new(0),
        };
        let all = servers.into_iter().map(replica).collect();
        Self { all, next: Arc::default(), max_lag: config.replica_max_lag }
    }

    /// The one whose turn it is, of those that keep up.
    pub fn next(&self) -> Option<&Replica> {
        if self.all.is_empty() {
            return None;
        }
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        (0..self.all.len())
            .filter_map(|offset| self.all.get(turn.wrapping_add(offset) % self.all.len()))
            .find(|replica| replica.usable.load(Ordering::Relaxed))
    }

    /// Each with its last probe.
    pub fn status(&self) -> Vec<ReplicaStatus> {
        let status = |replica: &Replica| ReplicaStatus {
            address: replica.address.clone(),
            usable: replica.usable.load(Ordering::Relaxed),
            reads: replica.reads.load(Ordering::Relaxed),
        };
        self.all.iter().map(status).collect()
    }

    /// Reports their connections to the metrics.
    pub fn observe(&self) {
        let add = |sum: ((u32, u32), u32), replica: &Replica| {
            let (idle, used) = replica.parking.connections();
            ((sum.0.0 + idle, sum.0.1 + used), sum.1 + replica.parking.waiting())
        };
        metrics::set_pool_role("replica", self.all.iter().fold(((0, 0), 0), add));
        let usable = self.status().iter().filter(|replica| replica.usable).count();
        metrics::set_pool_replicas(usable, self.all.len());
    }

    /// Closes every connection, waiting for those in use.
    pub async fn close(&self) {
        futures::future::join_all(self.all.iter().map(|replica| replica.parking.close())).await;
    }
}

impl Replica {
    /// Runs `read` once here. Whatever is not a complete answer leaves this replica out until its next probe.
    pub async fn read<T, R>(
        &self,
        holder: &'static str,
        patience: Duration,
        read: &impl Fn(Reader) -> R,
    ) -> Result<Seen<T>, Error>
    where
        R: Future<Output = Result<Seen<T>, Error>>,
    {
        let seen = match self.parking.acquire(holder, patience).await {
            Ok(reader) => once(reader, read).await,
            Err(error) => Err(error),
        };
        match &seen {
            Ok(Seen { complete: true, .. }) => drop(self.reads.fetch_add(1, Ordering::Relaxed)),
            // Other connections are in use: it is well, only full.
            Err(Error::Busy { .. }) => {}
            _ => self.usable.store(false, Ordering::Relaxed),
        }
        seen
    }

    /// Says once what changed.
    fn set_usable(&self, usable: bool, why: &str) {
        if self.usable.swap(usable, Ordering::Relaxed) != usable {
            tracing::info!(replica = self.address, usable, why, "a read replica changed");
        }
    }

    async fn probe(&self, generations: &[i64], positions: &Mutex<Positions>, max_lag: Duration) {
        let asked = async {
            let mut reader = self.parking.acquire("replica probe", PROBE_TIMEOUT).await?;
            let row = sqlx::query(
                "select coalesce(pg_wal_lsn_diff(pg_last_wal_replay_lsn(), '0/0')::bigint, 9223372036854775807),
                        (select count(*) = cardinality($1::bigint[]) from generations
                         where id = any($1) and status <> 'building')",
            )
            .bind(generations)
            .fetch_one(&mut *reader)
            .await?;
            reader.done().await?;
            Ok::<(i64, bool), Error>((row.try_get(0)?, row.try_get(1)?))
        };
        let answer = tokio::time::timeout(PROBE_TIMEOUT, asked).await;
        let (usable, why) = match answer {
            Ok(Ok((replayed, true))) => {
                let positions = positions.lock().unwrap_or_else(PoisonError::into_inner);
                if positions.keeps_up(replayed, max_lag) { (true, "keeps up") } else { (false, "lags behind") }
            }
            Ok(Ok((_, false))) => (false, "lacks a published generation"),
            // All its connections are in use: what the last probe said still holds.
            Ok(Err(Error::Busy { .. })) => return,
            Ok(Err(_)) | Err(_) => {
                self.parking.drop_idle();
                (false, "does not answer")
            }
        };
        self.set_usable(usable, why);
    }
}

/// Probes the replicas until `stopping`. While the primary is away, the last that is known of its log counts.
///
/// # Errors
/// Never; the signature is that of a background task.
pub(super) async fn probe_task(index: Index, stopping: CancellationToken) -> Result<(), Infallible> {
    let replicas = index.pools.replicas.clone();
    let positions = Mutex::new(Positions::default());
    loop {
        tokio::select! {
            () = stopping.cancelled() => return Ok(()),
            () = tokio::time::sleep(PROBE_EVERY) => {}
        }
        let at = Instant::now();
        if let Ok(Ok(position)) = tokio::time::timeout(PROBE_TIMEOUT, position(&index)).await {
            positions.lock().unwrap_or_else(PoisonError::into_inner).note(at, position, replicas.max_lag);
        }
        let generations = index.published_generations();
        let probes = replicas.all.iter().map(|replica| replica.probe(&generations, &positions, replicas.max_lag));
        futures::future::join_all(probes).await;
    }
}

/// How far the primary's log is.
async fn position(index: &Index) -> Result<i64, Error> {
    let mut reader = index.pools.acquire("replica probe").await?;
    let asked = "select pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint";
    let position = sqlx::query_scalar(asked).fetch_one(&mut *reader).await?;
    reader.done().await?;
    Ok(position)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_keeps_up_that_has_replayed_what_is_older_than_the_bound() {
        let (now, bound) = (Instant::now(), Duration::from_secs(20));
        let ago = |millis| now.checked_sub(Duration::from_millis(millis)).unwrap_or(now);
        let mut positions = Positions::default();
        assert!(!positions.keeps_up(i64::MAX, bound), "nothing is known of the primary");
        for (millis, position) in [(60_000, 10), (30_000, 20), (10_000, 30)] {
            positions.note(ago(millis), position, bound);
        }
        assert!(positions.keeps_up(20, bound));
        assert!(!positions.keeps_up(19, bound));
        assert_eq!(positions.0.len(), 2, "older positions are forgotten");
    }
}
