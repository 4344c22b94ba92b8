//! Every series this process exports: name, meaning, labels and buckets, in one place.
//!
//! The names are a contract: alerts, dashboards, the autoscaler and tests read them. Label values are
//! small closed sets (a route is its matched path, never the raw one), so the number of series is bounded.
//! Recording never fails and never blocks.

use std::{cell::RefCell, collections::HashMap, convert::Infallible, time::Duration};

use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tokio_util::sync::CancellationToken;

use super::allocator;

/// From a cached answer (half a millisecond) to the slowest one a caller waits for (10 s); about two buckets a
/// doubling where the promised latencies lie (20, 50, 100, 500 ms, 2 s, 5 s), so that a quantile is readable there.
const REQUEST_SECONDS: [f64; 15] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.035, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0];

/// Stage work: a query embedding is about 1 ms, one database leg 0.3-10 ms, an import batch up to seconds.
const STAGE_SECONDS: [f64; 14] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.3, 1.0, 5.0];

/// A batch holds 1 text (int8) up to the remote provider's limit of a few hundred.
const BATCH_TEXTS: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

const HTTP_REQUESTS: &str = "doc_server_http_requests_total";
const HTTP_SECONDS: &str = "doc_server_http_request_duration_seconds";
const HTTP_IN_FLIGHT: &str = "doc_server_http_in_flight";
const CACHE_REQUESTS: &str = "doc_server_cache_requests_total";
const CACHE_ENTRIES: &str = "doc_server_cache_entries";
const CACHE_BYTES: &str = "doc_server_cache_bytes";
const COALESCE_REQUESTS: &str = "doc_server_coalesce_requests_total";
const COALESCE_IN_FLIGHT: &str = "doc_server_coalesce_in_flight";
const DEGRADED: &str = "doc_server_search_degraded_total";
const EMBED_TEXTS: &str = "doc_server_embed_texts_total";
const EMBED_SECONDS: &str = "doc_server_embed_duration_seconds";
const EMBED_BATCH: &str = "doc_server_embed_batch_size";
const EMBED_QUEUE: &str = "doc_server_embed_queue_depth";
const INDEX_SEARCHES: &str = "doc_server_index_searches_total";
const INDEX_SECONDS: &str = "doc_server_index_search_duration_seconds";
const CATALOG_AGE: &str = "doc_server_index_catalog_age_seconds";
const CACHE_BREAKER: &str = "doc_server_cache_breaker_open";
const CACHE_WRITES_DROPPED: &str = "doc_server_cache_writes_dropped_total";
const POOL_CONNECTIONS: &str = "doc_server_pool_connections";
const POOL_ACQUIRE: &str = "doc_server_pool_acquire_duration_seconds";
const POOL_LEAKED: &str = "doc_server_pool_leaked_total";
const POOL_DISCARDED: &str = "doc_server_pool_discarded_total";
const POOL_RETRIES: &str = "doc_server_pool_retries_total";
const POOL_ROLE: &str = "doc_server_pool_role_connections";
const POOL_WAITING: &str = "doc_server_pool_waiting";
const POOL_REPLICAS: &str = "doc_server_pool_replicas";
const MEMORY_BYTES: &str = "doc_server_memory_bytes";
const SHED: &str = "doc_server_shed_total";
const SHED_LIMIT: &str = "doc_server_shed_limit";
const SHED_IN_USE: &str = "doc_server_shed_in_use";
const RATE_LIMITED: &str = "doc_server_rate_limited_total";
const RATE_LIMIT_LOCAL: &str = "doc_server_rate_limit_local_total";
const CONNECTIONS: &str = "doc_server_connections";
const CONNECTIONS_CLOSED: &str = "doc_server_connections_closed_total";
const CONNECTIONS_REFUSED: &str = "doc_server_connections_refused_total";
const SPANS_LOST: &str = "doc_server_trace_spans_lost_total";
const TLS_RELOADS: &str = "doc_server_tls_reloads_total";

/// Makes the recorder global and returns the handle that renders it. Call once per process.
///
/// # Errors
/// When a recorder is already installed.
pub fn install() -> Result<PrometheusHandle, BuildError> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Full(HTTP_SECONDS.to_owned()), &REQUEST_SECONDS)?
        .set_buckets_for_metric(Matcher::Full(EMBED_BATCH.to_owned()), &BATCH_TEXTS)?
        .set_buckets_for_metric(Matcher::Suffix("_duration_seconds".to_owned()), &STAGE_SECONDS)?
        .install_recorder()?;
    describe();
    // Known before their first event, and where there is no Redis.
    set_cache_breaker_open(false);
    record_spans_lost(0);
    for reason in ["full", "away", "too_large"] {
        record_cache_writes_dropped(reason, 0);
    }
    metrics_process::Collector::default().describe();
    Ok(handle)
}

/// The Prometheus text of all series, with the process figures (CPU, memory, open files) read just now.
#[must_use]
pub fn render(handle: &PrometheusHandle) -> String {
    metrics_process::Collector::default().collect();
    set_memory();
    handle.run_upkeep();
    handle.render()
}

/// Folds recorded samples into their histograms until `stopping`: without it they would pile up while nobody asks for the
/// metrics.
///
/// # Errors
/// Never; the signature is that of a background task.
pub async fn upkeep_task(handle: PrometheusHandle, stopping: CancellationToken) -> Result<(), Infallible> {
    /// At 1,000 searches a second a few megabytes of samples.
    const EVERY: Duration = Duration::from_secs(5);
    loop {
        tokio::select! {
            () = stopping.cancelled() => return Ok(()),
            () = tokio::time::sleep(EVERY) => handle.run_upkeep(),
        }
    }
}

fn describe() {
    describe_counter!(HTTP_REQUESTS, "Requests answered, by matched route, method and status.");
    describe_histogram!(HTTP_SECONDS, Unit::Seconds, "Time from the parsed head to the finished handler.");
    describe_gauge!(HTTP_IN_FLIGHT, "Requests being handled now.");
    describe_counter!(CACHE_REQUESTS, "Lookups in a cache, by cache, layer and outcome.");
    describe_gauge!(CACHE_ENTRIES, "Values a cache keeps in this process.");
    describe_gauge!(CACHE_BYTES, Unit::Bytes, "Memory of the values a cache keeps in this process.");
    describe_counter!(COALESCE_REQUESTS, "Callers that started a piece of work (leader) or joined it (follower).");
    describe_gauge!(COALESCE_IN_FLIGHT, "Different pieces of work under way.");
    describe_counter!(DEGRADED, "Answers that miss a part of the search, by reason.");
    describe_counter!(EMBED_TEXTS, "Texts sent to the embedding model, by outcome.");
    describe_histogram!(EMBED_SECONDS, Unit::Seconds, "Time of one call to the embedding model, without queueing.");
    describe_histogram!(EMBED_BATCH, "Texts in one call to the embedding model.");
    describe_gauge!(EMBED_QUEUE, "Texts waiting for the embedding model.");
    describe_counter!(INDEX_SEARCHES, "Searches run in the database, by leg.");
    describe_histogram!(
        INDEX_SECONDS,
        Unit::Seconds,
        "Time of one leg's statements, without waiting for a connection."
    );
    describe_gauge!(
        CATALOG_AGE,
        Unit::Seconds,
        "How long ago the database last said what is published: up to 5 while it can be asked."
    );
    describe_gauge!(CACHE_BREAKER, "Whether Redis is left alone because it failed (1) or used (0).");
    describe_counter!(CACHE_WRITES_DROPPED, "Values and leases not written to Redis, by reason.");
    describe_gauge!(POOL_CONNECTIONS, "Connections of a pool, by state.");
    describe_histogram!(POOL_ACQUIRE, Unit::Seconds, "Time to get a connection from a pool.");
    describe_counter!(POOL_LEAKED, "Connections held longer than their bound; the log names the holder.");
    describe_counter!(POOL_DISCARDED, "Connections closed on return: left in a transaction, or silent.");
    describe_counter!(POOL_RETRIES, "Reads tried again on another connection.");
    describe_gauge!(POOL_ROLE, "Connections by what they are for and state.");
    describe_gauge!(POOL_WAITING, "Callers who wait for a connection now, by what it is for.");
    describe_gauge!(POOL_REPLICAS, "Read replicas, by whether they are searched now.");
    describe_gauge!(MEMORY_BYTES, Unit::Bytes, "What the allocator holds, by kind.");
    describe_counter!(SHED, "Requests turned away because too much is being worked on, by what was full.");
    describe_gauge!(SHED_LIMIT, "What all classes together may use for one more of this class to be let in.");
    describe_gauge!(SHED_IN_USE, "Searches and reads being worked on, by class.");
    describe_counter!(RATE_LIMITED, "Requests over a rate limit, by route.");
    describe_counter!(RATE_LIMIT_LOCAL, "Requests counted by this process alone because Redis was away.");
    describe_gauge!(CONNECTIONS, "Open connections of callers, by door.");
    describe_counter!(CONNECTIONS_CLOSED, "Connections that ended, by door and reason.");
    describe_counter!(CONNECTIONS_REFUSED, "Connections refused because the door was full.");
    describe_counter!(SPANS_LOST, "Spans that the collector did not take.");
    describe_counter!(TLS_RELOADS, "Times the certificate was read again, by outcome.");
}

/// One answered request. `route` is the matched path or `unmatched`; a method outside HTTP's own counts as `other`, since callers
/// may send any word.
pub fn record_http_request(route: &str, method: &str, status: u16, elapsed: Duration) {
    /// RFC 9110 and PATCH.
    const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"];
    let method = METHODS.into_iter().find(|known| *known == method).unwrap_or("other");
    HTTP_SERIES.with_borrow_mut(|known| {
        if let Some(series) = known.get(route)
            && let Some((.., count)) = series.counts.iter().find(|(of, with, _)| (*of, *with) == (method, status))
        {
            count.increment(1);
            series.seconds.record(elapsed);
            return;
        }
        let series = known.entry(route.into()).or_insert_with(|| RouteSeries {
            seconds: histogram!(HTTP_SECONDS, "route" => route.to_owned()),
            counts: Vec::new(),
        });
        let labels = [("route", route.to_owned()), ("method", method.to_owned()), ("status", status.to_string())];
        let count = counter!(HTTP_REQUESTS, &labels);
        count.increment(1);
        series.seconds.record(elapsed);
        series.counts.push((method, status, count));
    });
}

/// The series of one route, found without making their labels again.
struct RouteSeries {
    seconds: Histogram,
    /// By method and status: a handful.
    counts: Vec<(&'static str, u16, Counter)>,
}

thread_local! {
    /// Each thread has its own, so that none waits for another. As many entries as there are series.
    static HTTP_SERIES: RefCell<HashMap<Box<str>, RouteSeries>> = RefCell::default();
    static IN_FLIGHT: Gauge = gauge!(HTTP_IN_FLIGHT);
    /// By cache, layer and outcome: a handful.
    static CACHE_SERIES: RefCell<Vec<([&'static str; 3], Counter)>> = RefCell::default();
}

/// Counts one request as in flight until dropped, also when its handler panics or its caller leaves.
#[derive(Debug)]
pub struct InFlight(());

impl InFlight {
    /// Starts counting.
    #[must_use]
    pub fn start() -> Self {
        IN_FLIGHT.with(|gauge| gauge.increment(1.0));
        Self(())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        IN_FLIGHT.with(|gauge| gauge.decrement(1.0));
    }
}

/// What a lookup found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheOutcome {
    /// A fresh value.
    Hit,
    /// A value past its time to live.
    Stale,
    /// Nothing.
    Miss,
    /// The caller asked not to look.
    Bypass,
    /// The tier failed.
    Error,
}

impl CacheOutcome {
    const fn label(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Stale => "stale",
            Self::Miss => "miss",
            Self::Bypass => "bypass",
            Self::Error => "error",
        }
    }
}

/// One lookup in the cache of `kind` (`results`, `vectors`) at `layer` (`l1`, `l2`).
pub fn record_cache(kind: &'static str, layer: &'static str, outcome: CacheOutcome) {
    let labels = [kind, layer, outcome.label()];
    CACHE_SERIES.with_borrow_mut(|known| {
        if let Some((_, count)) = known.iter().find(|(of, _)| *of == labels) {
            count.increment(1);
            return;
        }
        let count = counter!(CACHE_REQUESTS, "cache" => kind, "layer" => layer, "outcome" => outcome.label());
        count.increment(1);
        known.push((labels, count));
    });
}

/// What the cache of `kind` keeps in this process.
#[expect(clippy::cast_precision_loss, reason = "a gauge is a float; sizes stay far below 2^52")]
pub fn set_cache_size(kind: &'static str, entries: u64, bytes: u64) {
    gauge!(CACHE_ENTRIES, "cache" => kind).set(entries as f64);
    gauge!(CACHE_BYTES, "cache" => kind).set(bytes as f64);
}

/// The series of the flights of one kind, looked up once: each request that is not answered from memory records all three.
#[derive(Debug)]
pub struct Coalesced {
    /// Callers that started a piece of work.
    pub leaders: Counter,
    /// Callers that joined one.
    pub followers: Counter,
    in_flight: Gauge,
}

impl Coalesced {
    /// Those of the cache of `kind`.
    #[must_use]
    pub fn new(kind: &'static str) -> Self {
        let callers = |role| counter!(COALESCE_REQUESTS, "cache" => kind, "role" => role);
        let in_flight = gauge!(COALESCE_IN_FLIGHT, "cache" => kind);
        Self { leaders: callers("leader"), followers: callers("follower"), in_flight }
    }

    /// How many pieces of work are under way.
    pub fn set_in_flight(&self, flights: usize) {
        self.in_flight.set(u32::try_from(flights).unwrap_or(u32::MAX));
    }
}

/// One answer that misses a part, by the code of its reason.
pub fn record_degraded(reason: &str) {
    counter!(DEGRADED, "reason" => reason.to_owned()).increment(1);
}

/// One finished call to the embedding model: `texts` of them took `elapsed`; `outcome` is `ok` or `error`.
pub fn record_embed_call(outcome: &'static str, texts: usize, elapsed: Duration) {
    counter!(EMBED_TEXTS, "outcome" => outcome).increment(texts as u64);
    histogram!(EMBED_SECONDS).record(elapsed);
    histogram!(EMBED_BATCH).record(u32::try_from(texts).unwrap_or(u32::MAX));
}

/// Texts that were never embedded, by why: `rejected` (queue full) or `abandoned` (the caller left first).
pub fn record_embed_dropped(outcome: &'static str, texts: usize) {
    counter!(EMBED_TEXTS, "outcome" => outcome).increment(texts as u64);
}

/// Texts that wait for the model now.
pub fn set_embed_queue_depth(texts: usize) {
    gauge!(EMBED_QUEUE).set(u32::try_from(texts).unwrap_or(u32::MAX));
}

/// One leg (`vector` or `keyword`) run in the database.
pub fn record_index_search(leg: &'static str, elapsed: Duration) {
    counter!(INDEX_SEARCHES, "leg" => leg).increment(1);
    histogram!(INDEX_SECONDS, "leg" => leg).record(elapsed);
}

/// How long ago the database was last asked what is published.
pub fn set_catalog_age(age: Duration) {
    gauge!(CATALOG_AGE).set(age.as_secs_f64());
}

/// Whether the shared tier of the cache is left alone.
pub fn set_cache_breaker_open(open: bool) {
    gauge!(CACHE_BREAKER).set(u8::from(open));
}

/// Writes to the shared tier that were not made, by why: `full` (too much waits), `away` (Redis did not take it) or
/// `too_large`. Zero makes the series known before the first.
pub fn record_cache_writes_dropped(reason: &'static str, writes: u64) {
    counter!(CACHE_WRITES_DROPPED, "reason" => reason).increment(writes);
}

/// The connections of `pool` (`postgres` or `redis`) by state.
pub fn set_pool_connections(pool: &'static str, idle: u32, used: u32, max: u32) {
    for (state, count) in [("idle", idle), ("used", used), ("max", max)] {
        gauge!(POOL_CONNECTIONS, "pool" => pool, "state" => state).set(count);
    }
}

/// One connection taken from `pool` after waiting `elapsed`.
pub fn record_pool_acquire(pool: &'static str, elapsed: Duration) {
    histogram!(POOL_ACQUIRE, "pool" => pool).record(elapsed);
}

/// Connections of `pool` that were held longer than their bound. Zero makes the series known before the first.
pub fn record_pool_leaked(pool: &'static str, connections: u64) {
    counter!(POOL_LEAKED, "pool" => pool).increment(connections);
}

/// Connections that came back to `pool` unusable and were closed. Zero as above.
pub fn record_pool_discarded(pool: &'static str, connections: u64) {
    counter!(POOL_DISCARDED, "pool" => pool).increment(connections);
}

/// Reads through `pool` that were tried again. Zero as above.
pub fn record_pool_retries(pool: &'static str, reads: u64) {
    counter!(POOL_RETRIES, "pool" => pool).increment(reads);
}

/// One Postgres pool: `role` is `read`, `write` or `replica` (all replicas together); idle and used connections, and callers who
/// wait for one.
pub fn set_pool_role(role: &'static str, ((idle, used), waiting): ((u32, u32), u32)) {
    for (state, count) in [("idle", idle), ("used", used)] {
        gauge!(POOL_ROLE, "pool" => "postgres", "role" => role, "state" => state).set(count);
    }
    gauge!(POOL_WAITING, "pool" => "postgres", "role" => role).set(waiting);
}

/// How many of the replicas are searched now.
pub fn set_pool_replicas(usable: usize, all: usize) {
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    gauge!(POOL_REPLICAS, "state" => "used").set(count(usable));
    gauge!(POOL_REPLICAS, "state" => "left_out").set(count(all.saturating_sub(usable)));
}

/// What the allocator holds now.
#[expect(clippy::cast_precision_loss, reason = "a gauge is a float; sizes stay far below 2^52")]
fn set_memory() {
    let Some(figures) = allocator::figures() else { return };
    for (kind, bytes) in [
        ("allocated", figures.allocated),
        ("active", figures.active),
        ("metadata", figures.metadata),
        ("resident", figures.resident),
        ("mapped", figures.mapped),
        ("retained", figures.retained),
    ] {
        gauge!(MEMORY_BYTES, "kind" => kind).set(bytes as f64);
    }
}

/// Requests turned away because too much is being worked on; `reason` says what was full: `limit`, `batch_share`, `import_share`, `flights` or
/// `connections`. Zero makes the series known before the first.
pub fn record_shed(reason: &'static str, requests: u64) {
    counter!(SHED, "reason" => reason).increment(requests);
}

/// What all classes together may use for one more of `class` to be let in.
pub fn set_shed_limit(class: &'static str, limit: usize) {
    gauge!(SHED_LIMIT, "class" => class).set(u32::try_from(limit).unwrap_or(u32::MAX));
}

/// How many of `class` are being worked on.
pub fn set_shed_in_use(class: &'static str, in_use: usize) {
    gauge!(SHED_IN_USE, "class" => class).set(u32::try_from(in_use).unwrap_or(u32::MAX));
}

/// Requests over a rate limit. Zero as above.
pub fn record_rate_limited(route: &'static str, requests: u64) {
    counter!(RATE_LIMITED, "route" => route).increment(requests);
}

/// Requests that this process alone counted because Redis was away. Zero as above.
pub fn record_rate_limit_local(requests: u64) {
    counter!(RATE_LIMIT_LOCAL).increment(requests);
}

/// Makes the series of a door known before its first connection; `ends` are all reasons there are.
pub fn describe_connections(door: &'static str, ends: &[&'static str]) {
    gauge!(CONNECTIONS, "door" => door).increment(0.0);
    counter!(CONNECTIONS_REFUSED, "door" => door).increment(0);
    for &end in ends {
        counter!(CONNECTIONS_CLOSED, "door" => door, "reason" => end).increment(0);
    }
}

/// A connection that found no place at `door`.
pub fn record_connection_refused(door: &'static str) {
    counter!(CONNECTIONS_REFUSED, "door" => door).increment(1);
}

/// Counts one connection as open until dropped.
#[derive(Debug)]
pub struct OpenConnection(&'static str);

impl OpenConnection {
    /// Starts counting.
    #[must_use]
    pub fn start(door: &'static str) -> Self {
        gauge!(CONNECTIONS, "door" => door).increment(1.0);
        Self(door)
    }

    /// It ended, for one of the reasons given to [`describe_connections`].
    pub fn end(self, reason: &'static str) {
        counter!(CONNECTIONS_CLOSED, "door" => self.0, "reason" => reason).increment(1);
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        gauge!(CONNECTIONS, "door" => self.0).decrement(1.0);
    }
}

/// Spans that the collector did not take. Zero makes the series known before the first.
pub fn record_spans_lost(spans: u64) {
    counter!(SPANS_LOST).increment(spans);
}

/// The certificate's files were read again.
pub fn record_tls_reload(taken: bool) {
    counter!(TLS_RELOADS, "outcome" => if taken { "taken" } else { "failed" }).increment(1);
}
