//! How the server is, as background probes last saw it.
//!
//! Answers from memory at once, also while the database hangs. What is not configured or not yet needed is healthy.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{PoisonError, RwLock},
    time::Duration,
};

use serde::Serialize;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use crate::{
    cache::shared::{self, Shared},
    embed::{self, Embedder},
    index::{Error as IndexError, Index},
};

/// Readiness must turn within two seconds of a failure.
const PROBE_EVERY: Duration = Duration::from_secs(1);

/// A database that answers a ping slower than this is as good as away.
const PROBE_TIMEOUT: Duration = Duration::from_millis(900);

/// How a part is, from best to worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// As it should be.
    Healthy,
    /// Answers go on with something missing.
    Degraded,
    /// Searches cannot be answered.
    Unhealthy,
}

/// One part's state.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Check {
    /// How it is.
    pub status: Status,
    /// How long it took to answer the last probe.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<f64>,
    /// More about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

impl Check {
    fn new(status: Status, detail: &str) -> Self {
        Self { status, latency_ms: None, detail: Some(detail.to_owned()) }
    }
}

/// How the server is.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Report {
    /// The worst of the checks that matter.
    pub status: Status,
    /// The server's version.
    pub version: &'static str,
    /// Seconds since it started.
    pub uptime_s: u64,
    /// Each part: `postgres`, `redis`, `embedder`, `queue`.
    pub checks: BTreeMap<&'static str, Check>,
}

/// What the probes last saw.
pub struct Health {
    started: Instant,
    postgres: RwLock<Check>,
    embedder: Embedder,
    shared: Option<Shared>,
}

impl Health {
    /// Nothing has been seen yet: the database counts as away.
    #[must_use]
    pub fn new(embedder: Embedder, shared: Option<Shared>) -> Self {
        let postgres = RwLock::new(Check::new(Status::Unhealthy, "not probed yet"));
        Self { started: Instant::now(), postgres, embedder, shared }
    }

    /// The state now, from memory.
    #[must_use]
    pub fn report(&self) -> Report {
        let postgres = self.postgres.read().unwrap_or_else(PoisonError::into_inner).clone();
        let checks = BTreeMap::from([
            ("postgres", postgres),
            ("embedder", embedder_check(&self.embedder.status())),
            ("redis", redis_check(self.shared.as_ref())),
            ("queue", Check::new(Status::Healthy, "not used")),
        ]);
        let worst = checks.values().map(|check| check.status).max();
        Report {
            status: worst.unwrap_or(Status::Healthy),
            version: env!("CARGO_PKG_VERSION"),
            uptime_s: self.started.elapsed().as_secs(),
            checks,
        }
    }

    /// Whether searches can be answered.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.postgres.read().unwrap_or_else(PoisonError::into_inner).status != Status::Unhealthy
    }

    /// Asks the database for a sign of life and remembers the answer.
    pub async fn probe(&self, index: &Index) {
        index.pools().observe();
        let check = match tokio::time::timeout(PROBE_TIMEOUT, index.ping()).await {
            Ok(Ok(took)) => {
                Check { status: Status::Healthy, latency_ms: Some(took.as_secs_f64() * 1_000.0), detail: None }
            }
            Ok(Err(IndexError::Busy { .. })) => Check::new(Status::Degraded, "all database connections are in use"),
            Ok(Err(error)) => {
                tracing::warn!(%error, "the database does not answer");
                // One by one they would each cost a search after the database is back.
                index.drop_idle();
                Check::new(Status::Unhealthy, "the database cannot be reached")
            }
            Err(_) => {
                index.drop_idle();
                Check::new(Status::Unhealthy, "the database does not answer in time")
            }
        };
        *self.postgres.write().unwrap_or_else(PoisonError::into_inner) = check;
    }
}

/// Words are still searched without a model, so a failed one degrades only.
fn embedder_check(status: &embed::Status) -> Check {
    match status {
        embed::Status::Idle => Check::new(Status::Healthy, "idle: the model loads on first need"),
        embed::Status::Loading => Check::new(Status::Healthy, "loading the model"),
        embed::Status::Ready => Check { status: Status::Healthy, latency_ms: None, detail: None },
        embed::Status::Failed { .. } => Check::new(Status::Degraded, "the model cannot be used; the log says why"),
    }
}

/// Searches go on without the shared cache, at a price.
fn redis_check(shared: Option<&Shared>) -> Check {
    match shared.map(Shared::status) {
        None => Check::new(Status::Healthy, "not configured"),
        Some(shared::Status::Healthy { latency }) => {
            Check { status: Status::Healthy, latency_ms: Some(latency.as_secs_f64() * 1_000.0), detail: None }
        }
        Some(shared::Status::Away { .. }) => Check::new(Status::Degraded, "redis cannot be used; the log says why"),
    }
}

/// Probes until `stopping`.
///
/// # Errors
/// Never; the signature is that of a background task.
pub async fn probe_task(
    health: std::sync::Arc<Health>,
    index: Index,
    stopping: CancellationToken,
) -> Result<(), Infallible> {
    loop {
        tokio::select! {
            () = stopping.cancelled() => return Ok(()),
            () = tokio::time::sleep(PROBE_EVERY) => health.probe(&index).await,
        }
    }
}
