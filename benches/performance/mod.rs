//! The parts and what they stand on.

mod cached;
mod caches;
mod connections;
mod identical;
mod layers;
mod layout;
mod load;
mod memory;
mod pools;
mod scrape;
mod server;
mod shared;
mod tools;
mod zipf;

use std::{sync::Arc, time::Duration};

use doc_server::{
    app::App,
    config::{EmbedProvider, Settings},
    embed::{Backend, Config, Embedder, FakeConfig, Probe},
    index::terms,
    runtime::{lifecycle::Lifecycle, metrics},
    search::{self, Parts, Search},
};
use metrics_exporter_prometheus::PrometheusHandle;

use crate::{
    Failure,
    data::{self, Size},
    http,
    place::Place,
    texts::Texts,
};

/// Each part, whether it is measured unless others are named, and whether `cargo test` checks it.
pub const PARTS: [(&str, bool, bool); 11] = [
    ("identical", true, true),
    ("cached", true, false),
    ("layers", true, false),
    ("shared", true, true),
    ("zipf", true, true),
    ("caches", true, false),
    ("connections", true, true),
    ("memory", true, true),
    ("pools", true, false),
    ("scrape", true, true),
    ("layout", false, false),
];

/// Chunks of the small database: answers are of usual size, and a search costs little beside what is measured.
const SMALL: usize = 2_000;

/// Chunks for checks.
const SMALLEST: usize = 200;

/// What the parts stand on.
pub struct Ground<'a> {
    place: &'a Place,
    /// The small database, with hashed words instead of a model.
    pub small: Settings,
    pub texts: Texts,
    /// Measure; else check counts on little data.
    pub full: bool,
    recorder: PrometheusHandle,
}

impl<'a> Ground<'a> {
    /// With the small database filled.
    pub async fn open(place: &'a Place, texts: Texts, full: bool) -> Result<Self, Failure> {
        let suffix = if full { "_performance" } else { "_performance_check" };
        let mut small = Settings { embed_provider: EmbedProvider::Fake, ..place.database(suffix).await? };
        if !full {
            // Counts are checked, beside whatever else the machine does: nobody may be refused for its slowness.
            small.database_acquire_timeout_ms = 5_000;
        }
        let chunks = if full { SMALL } else { SMALLEST };
        data::prepare(&small, &texts, Size { chunks, words: true }).await?;
        Ok(Self { place, small, texts, full, recorder: metrics::install()? })
    }

    /// The database of 50,000 chunks and the real model's vectors, filled.
    pub async fn large(&self) -> Result<Settings, Failure> {
        let settings = self.place.database("_bench").await?;
        data::prepare(&settings, &self.texts, data::USUAL).await?;
        Ok(settings)
    }

    /// The value for measuring, or the one for checking.
    pub fn either<T>(&self, measured: T, checked: T) -> T {
        if self.full { measured } else { checked }
    }

    /// The sum of all series of this process that have this name and label.
    pub fn count(&self, name: &str, label: &str) -> u64 {
        server::sum(&self.recorder.render(), name, label)
    }

    /// Searches of one leg that this process ran in the database.
    pub fn searches(&self, leg: &str) -> u64 {
        self.count("doc_server_index_searches_total", &format!("leg=\"{leg}\""))
    }
}

/// A server in this process, on the small database, whose model can be counted and held.
pub struct Served {
    app: App,
    pub lifecycle: Lifecycle,
    pub search: Search,
    pub probe: Probe,
    pub address: std::net::SocketAddr,
}

impl Served {
    pub async fn start(settings: &Settings, config: search::Config) -> Result<Self, Failure> {
        let app = App::open(settings).await?;
        let (lifecycle, probe) = (Lifecycle::new(), Probe::default());
        let fake = Backend::Fake(FakeConfig { probe: probe.clone(), ..FakeConfig::default() });
        let embedder = Embedder::new(Config { backend: fake, queue_capacity: 1_024 }, &lifecycle)?;
        app.index.follow(&lifecycle);
        let search = Search::new(Parts { index: app.index.clone(), embedder, shared: None }, config, &lifecycle);
        let address = http::serve(&app, search.clone(), &lifecycle).await?;
        Ok(Self { app, lifecycle, search, probe, address })
    }

    pub async fn stop(self) {
        self.probe.release();
        self.lifecycle.stop();
        self.app.close().await;
    }
}

/// Runs the parts that are named.
pub async fn run(ground: &Ground<'_>, parts: &[&str]) -> Result<(), Failure> {
    for part in parts {
        let ran = match *part {
            "identical" => Box::pin(identical::run(ground)).await,
            "cached" => Box::pin(cached::run(ground)).await,
            "layers" => Box::pin(layers::run(ground)).await,
            "shared" => Box::pin(shared::run(ground)).await,
            "zipf" => Box::pin(zipf::run(ground)).await,
            "caches" => Box::pin(caches::run(ground)).await,
            "connections" => Box::pin(connections::run(ground)).await,
            "memory" => Box::pin(memory::run(ground)).await,
            "pools" => Box::pin(pools::run(ground)).await,
            "scrape" => Box::pin(scrape::run(ground)).await,
            _ => Box::pin(layout::run(ground)).await,
        };
        ran.map_err(|error| format!("{part}: {error}"))?;
    }
    Ok(())
}

/// Fails with the sentence that `what` makes unless `holds`.
fn check(holds: bool, what: impl FnOnce() -> String) -> Result<(), Failure> {
    if holds { Ok(()) } else { Err(what().into()) }
}

/// Blocking work beside the runtime.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Failure> + Send + 'static) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work).await?
}

/// Returns once `condition` holds, or fails after half a minute.
async fn eventually(what: &str, condition: impl AsyncFn() -> Result<bool, Failure>) -> Result<(), Failure> {
    for _ in 0..3_000 {
        if condition().await? {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Err(format!("not within 30 s: {what}").into())
}

/// Addresses of searches that all have different keys, from the corpus' own words. Each has a word to look for, so that both legs search.
fn distinct_paths(texts: &Texts, count: usize, more: &str) -> Arc<Vec<String>> {
    let mut seen = std::collections::HashSet::new();
    let mut queries = Vec::with_capacity(count);
    for lot in 1_000.. {
        for query in texts.queries(lot, count) {
            let searched = !terms::of_query(&query).terms.is_empty();
            if queries.len() < count && searched && seen.insert(query.clone()) {
                queries.push(http::search_path(&query, more));
            }
        }
        if queries.len() == count {
            break;
        }
    }
    Arc::new(queries)
}
