//! What all operations go through: the open connections, the breaker, and what a failure means for both.

use std::{
    sync::{Mutex, MutexGuard, PoisonError, RwLock},
    time::{Duration, Instant},
};

use deadpool_redis::redis::{Cmd, ErrorKind, RedisError, RedisResult, ServerErrorKind, Value};
use tokio::sync::Notify;

use super::{
    Status,
    config::{Config, Error},
    connect::{Connector, Line, Purpose},
    held::{Held, Share},
    name,
};
use crate::{cache::breaker::Breaker, runtime::metrics};

/// In a row. A restarting Redis gives as many within milliseconds, single slow answers never do.
const FAILURES_TO_OPEN: u32 = 5;

/// How long nothing but failures comes before Redis is left alone: longer than a pause of a busy machine, and short enough
/// that lookups which wait for their timeouts do not pile up.
const PATIENCE: Duration = Duration::from_millis(250);

/// Between probes of a Redis that is away.
const PROBE_PAUSE: Duration = Duration::from_secs(1);

/// All connections are renewed no more often than this when they lead to a server that only reads.
const RENEW_PAUSE: Duration = Duration::from_secs(1);

/// Answers of a server that works: the value is of another kind, there is no room, or it may not write now.
const NOT_AWAY: [&str; 4] = ["WRONGTYPE", "OOM", "MISCONF", "NOREPLICAS"];

/// An operation that brought nothing; it is counted already.
pub(super) struct Failure;

/// The way to Redis and what is known of it.
pub(super) struct Link {
    connector: Connector,
    reads: Held,
    bulk: Held,
    breaker: Mutex<Breaker>,
    status: RwLock<Status>,
    renewed: Mutex<Option<Instant>>,
    /// Told when a place is empty or the breaker opens.
    pub wake: Notify,
}

impl Link {
    /// Nothing is open yet.
    pub fn new(config: &Config) -> Result<Self, Error> {
        metrics::set_cache_breaker_open(true);
        Ok(Self {
            connector: Connector::new(config)?,
            reads: Held::new(config.connections - 1),
            bulk: Held::new(1),
            breaker: Mutex::new(Breaker::new(FAILURES_TO_OPEN, PATIENCE, PROBE_PAUSE, Instant::now())),
            status: RwLock::new(Status::Away { reason: "not connected yet".to_owned() }),
            renewed: Mutex::default(),
            wake: Notify::new(),
        })
    }

    /// A share of a connection, at once; none while Redis is left alone or nothing is connected.
    pub fn share(&self, purpose: Purpose) -> Option<Share> {
        if !self.breaker().is_closed() {
            return None;
        }
        let share = self.held(purpose).share();
        if share.is_none() {
            // Counted: making new ones may take long when the other side is silent.
            self.failed(&(ErrorKind::Io, "no connection is open").into());
            self.wake.notify_one();
        }
        share
    }

    /// Draws the conclusions from an answer.
    pub fn settle(&self, purpose: Purpose, share: &Share, answer: RedisResult<Value>) -> Result<Value, Failure> {
        match answer {
            Ok(value) => {
                self.breaker().succeeded();
                Ok(value)
            }
            // Somebody's list or hash under a name of ours is no value; a write replaces it.
            Err(error) if error.code() == Some("WRONGTYPE") => Ok(Value::Nil),
            Err(error) => {
                self.fail(purpose, share, &error);
                Err(Failure)
            }
        }
    }

    /// Draws the conclusions from the answers to one round of bulk operations: one failure at most.
    pub fn settle_all(&self, share: &Share, answers: Vec<RedisResult<Value>>) -> Vec<Result<Value, Failure>> {
        if let Some(Err(worst)) = answers.iter().find(|answer| answer.is_err()) {
            self.fail(Purpose::Bulk, share, worst);
        } else {
            self.breaker().succeeded();
        }
        answers.into_iter().map(|answer| answer.map_err(|_| Failure)).collect()
    }

    /// Notes a question that got no or a senseless answer; the connection goes after a few.
    pub fn strike(&self, purpose: Purpose, share: &Share) {
        if self.held(purpose).strike(share, Instant::now()) {
            self.wake.notify_one();
        }
    }

    /// Notes a question whose asker did not wait for its answer to the end.
    pub fn missed(&self, purpose: Purpose, share: &Share) {
        self.strike(purpose, share);
        self.failed(&(ErrorKind::Io, "no answer in time").into());
    }

    fn fail(&self, purpose: Purpose, share: &Share, error: &RedisError) {
        tracing::debug!(%error, ?purpose, "redis did not answer a command");

        match error.kind() {
            ErrorKind::Server(ServerErrorKind::ReadOnly) => self.renew(),
            _ if error.is_timeout() => self.strike(purpose, share),
            // A cluster's connection mends itself; when it does not, strikes replace it.
            _ if matches!(share.line, Line::Cluster(_)) => self.strike(purpose, share),
            ErrorKind::Server(_) | ErrorKind::Extension => {}
            _ => {
                self.held(purpose).remove(share);
                self.wake.notify_one();
            }
        }
        let works = error.code().is_some_and(|code| NOT_AWAY.contains(&code))
            || error.kind() == ErrorKind::Server(ServerErrorKind::ReadOnly);
        if !works {
            self.failed(error);
        }
    }

    /// The primary has moved and these connections lead to what is a replica now.
    fn renew(&self) {
        let mut renewed = self.renewed.lock().unwrap_or_else(PoisonError::into_inner);
        if renewed.is_none_or(|at| at.elapsed() > RENEW_PAUSE) {
            *renewed = Some(Instant::now());
            tracing::warn!("redis is read-only at the other end of these connections; making new ones");
            self.let_go();
            self.wake.notify_one();
        }
    }

    /// One more failure for the breaker.
    fn failed(&self, error: &RedisError) {
        if self.breaker().failed(Instant::now()) {
            tracing::warn!(%error, "redis is away; going on without it");
            self.set_status(Status::Away { reason: error.to_string() });
            metrics::set_cache_breaker_open(true);
            // Some of them would stay silent for ever.
            self.let_go();
            self.wake.notify_one();
        }
    }

    fn let_go(&self) {
        self.reads.clear();
        self.bulk.clear();
    }

    /// When the next probe of a Redis that is away is due; none while it is not away.
    pub fn probe_in(&self) -> Option<Duration> {
        self.breaker().probe_in(Instant::now())
    }

    /// Asks a Redis that is away, on a new connection, whether it is back.
    pub async fn probe(&self) {
        if !self.breaker().take_probe(Instant::now()) {
            return;
        }
        match self.open_and_ask().await {
            Ok(latency) => {
                tracing::info!("redis answers");
                // Held until all say so: whoever sees that Redis is well writes to it, and a new failure is told after this.
                let mut breaker = self.breaker();
                breaker.close(Instant::now());
                self.set_status(Status::Healthy { latency });
                metrics::set_cache_breaker_open(false);
            }
            Err(error) => {
                let away = Status::Away { reason: error.to_string() };
                if self.status() != away {
                    tracing::warn!(%error, "redis is away; going on without it");
                }
                self.set_status(away);
            }
        }
    }

    async fn open_and_ask(&self) -> RedisResult<Duration> {
        let mut line = self.connector.open(Purpose::Reads).await?;
        let started = Instant::now();
        line.ask(&probe_command()).await?;
        let latency = started.elapsed();
        // Whoever is told that Redis is back may write at once.
        self.bulk.fill(0, self.connector.open(Purpose::Bulk).await?);
        self.reads.fill(0, line);
        Ok(latency)
    }

    /// Fills the empty places and measures how long an answer takes now.
    pub async fn maintain(&self) {
        let fill = async |purpose, place| match self.connector.open(purpose).await {
            Ok(line) => self.held(purpose).fill(place, line),
            Err(error) => self.failed(&error),
        };
        let reads = self.reads.empty().into_iter().map(|place| fill(Purpose::Reads, place));
        let bulk = self.bulk.empty().into_iter().map(|place| fill(Purpose::Bulk, place));
        tokio::join!(futures::future::join_all(reads), futures::future::join_all(bulk));
        // A write that found a dead connection would be lost.
        self.measure(Purpose::Bulk).await;
        if let Some(latency) = self.measure(Purpose::Reads).await {
            self.set_status(Status::Healthy { latency });
        }
    }

    async fn measure(&self, purpose: Purpose) -> Option<Duration> {
        let mut share = self.held(purpose).share_in_turn().filter(|_| self.breaker().is_closed())?;
        let started = Instant::now();
        let answer = share.line.ask(&probe_command()).await;
        self.settle(purpose, &share, answer).ok().map(|_| started.elapsed())
    }

    /// Reports the connections to the metrics.
    pub fn observe(&self) {
        let (reads, bulk) = (self.reads.count(), self.bulk.count());
        let places = u32::try_from(self.reads.places() + self.bulk.places()).unwrap_or(u32::MAX);
        metrics::set_pool_connections("redis", reads.0 + bulk.0, reads.1 + bulk.1, places);
    }

    pub fn status(&self) -> Status {
        self.status.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_status(&self, status: Status) {
        *self.status.write().unwrap_or_else(PoisonError::into_inner) = status;
    }

    fn held(&self, purpose: Purpose) -> &Held {
        match purpose {
            Purpose::Reads => &self.reads,
            Purpose::Bulk => &self.bulk,
        }
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A lookup as any other, which a loading server, a replica without primary or a broken cluster refuse; they would all
/// answer a PING.
fn probe_command() -> Cmd {
    Cmd::get(format!("{}probe", name::PREFIX))
}
