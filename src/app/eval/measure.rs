//! Asking a set's queries in each mode, and the vector index against exact search.

use std::{collections::HashSet, time::Instant};

use futures::{StreamExt, TryStreamExt, stream};
use serde::Serialize;

use super::{
    metrics::{Quality, overlap, percentile},
    sets::{Judged, Set},
};
use crate::{
    app::{App, Error, terminal::Meter},
    index::{
        Selection, View,
        generations::ModelIdentity,
        vectors::{Options, Scan},
    },
    query::{Content, Mode, Query},
    rank,
};

/// Chunks asked for, so that ten different documents are among them though a long one brings several of its own.
const CHUNKS: usize = 50;

/// Queries asked at once where only their results matter: keeps the model and the database both busy.
const AT_ONCE: usize = 4;

/// Searches that are timed in each mode, one after the other: enough for a 95th percentile, a second or two of time.
const TIMED: usize = 200;

/// Chunks that approximate and exact search are compared in.
const COMPARED: usize = 10;

/// What was measured of a set.
#[derive(Debug, Serialize)]
pub struct Measurement {
    /// The set's name.
    pub set: String,
    /// Its documents.
    pub documents: i64,
    /// The chunks they were cut into.
    pub chunks: i64,
    /// Queries asked.
    pub queries: usize,
    /// One entry a mode.
    pub modes: Vec<ModeMeasurement>,
    /// The vector index.
    pub approximate: Approximate,
}

/// One mode.
#[derive(Debug, Serialize)]
pub struct ModeMeasurement {
    /// The mode.
    pub mode: Mode,
    /// The mean over all queries.
    #[serde(flatten)]
    pub quality: Quality,
    /// Of searches one after the other, five results each.
    pub latency_ms: Latency,
}

/// The vector index against comparing every vector.
#[derive(Debug, Serialize)]
pub struct Approximate {
    /// The share of the ten nearest chunks that the index finds.
    pub recall_at_10: f64,
    /// Through the index, without embedding.
    pub latency_ms: Latency,
    /// Comparing every vector.
    pub exact_latency_ms: Latency,
}

/// In milliseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Latency {
    /// Half of them are faster.
    pub p50: f64,
    /// Nineteen of twenty are faster.
    pub p95: f64,
}

impl Latency {
    fn of(mut milliseconds: Vec<f64>) -> Self {
        Self { p50: percentile(&mut milliseconds, 0.5), p95: percentile(&mut milliseconds, 0.95) }
    }
}

/// Asks everything.
///
/// # Errors
/// When a search fails or is degraded: a figure made of half an answer would mislead.
pub async fn measure(app: &App, set: &Set, ranking: rank::Options) -> Result<Measurement, Error> {
    let selection = Selection { sources: set.sources.iter().map(|(name, _)| name.clone()).collect(), version: None };
    let catalog = app.index.refresh_catalog().await?;
    let published = selection.sources.iter().filter_map(|name| catalog.source(name, &View::everything()));
    let published = published.flat_map(|source| &source.versions).filter_map(|version| version.published.as_ref());
    let (documents, chunks) = published.fold((0, 0), |sum, of| (sum.0 + of.pages, sum.1 + of.chunks));
    let mut modes = Vec::new();
    for mode in [Mode::Hybrid, Mode::Vector, Mode::Keyword] {
        let quality = quality(app, set, mode, ranking).await?;
        modes.push(ModeMeasurement { mode, quality, latency_ms: latency(app, set, mode, ranking).await? });
    }
    let approximate = approximate(app, set).await?;
    Ok(Measurement { set: set.name.clone(), documents, chunks, queries: set.queries.len(), modes, approximate })
}

async fn quality(app: &App, set: &Set, mode: Mode, ranking: rank::Options) -> Result<Quality, Error> {
    let mut meter = Meter::new("queries");
    let mut qualities = Vec::with_capacity(set.queries.len());
    let mut asked = stream::iter(&set.queries)
        .map(|judged| async move {
            let query = Query { match_count: CHUNKS, content: Content::None, ..query(judged, mode, ranking) };
            let (answer, _) = app.search.answer(&query).await?;
            if let Some(reason) = answer.degraded_reason {
                return Err(Error::Failed(format!("{:?} was answered in part: {reason}", judged.text)));
            }
            let mut seen = HashSet::new();
            let found = answer.results.iter().map(|result| result.url.as_str());
            let documents: Vec<&str> = found.filter(|document| seen.insert(*document)).collect();
            Ok(Quality::of(&documents, &judged.judgements))
        })
        .buffer_unordered(AT_ONCE);
    while let Some(quality) = asked.try_next().await? {
        qualities.push(quality);
        meter.show(qualities.len() as u64, set.queries.len() as u64, &format!("{}, {mode:?}", set.name));
    }
    meter.clear();
    Ok(Quality::mean(&qualities))
}

fn query(judged: &Judged, mode: Mode, rank: rank::Options) -> Query {
    let selection = Selection { sources: vec![judged.source.clone()], version: None };
    Query { text: judged.text.clone(), selection, mode, rank, ..Query::default() }
}

async fn latency(app: &App, set: &Set, mode: Mode, ranking: rank::Options) -> Result<Latency, Error> {
    let mut milliseconds = Vec::new();
    for judged in sample(set) {
        let started = Instant::now();
        app.search.answer(&query(judged, mode, ranking)).await?;
        milliseconds.push(started.elapsed().as_secs_f64() * 1e3);
    }
    Ok(Latency::of(milliseconds))
}

/// Queries spread evenly over the set.
fn sample(set: &Set) -> impl Iterator<Item = &Judged> {
    set.queries.iter().step_by(set.queries.len().div_ceil(TIMED).max(1))
}

async fn approximate(app: &App, set: &Set) -> Result<Approximate, Error> {
    let identity = app.embedder.identity().await.map_err(Error::from)?;
    let model = app.index.register_model(&ModelIdentity::from(&*identity)).await?;
    let catalog = app.index.catalog().await?;
    let (mut recalls, mut times) = (Vec::new(), [Vec::new(), Vec::new()]);
    for judged in sample(set) {
        let vector = app.embedder.embed_query(&judged.text).await?.vector;
        let resolved =
            catalog.resolve(&query(judged, Mode::Vector, rank::Options::default()).selection, &View::everything())?;
        let mut found = [Vec::new(), Vec::new()];
        for (nth, scan) in [Scan::Exact, Scan::Index].into_iter().enumerate() {
            // As deep as a search asks, since that decides what an iterative scan finds.
            let options = Options { limit: 100, scan, ef_search: None };
            let started = Instant::now();
            let hits = app.index.nearest(&resolved, model, &vector, options).await?.value;
            times[nth].push(started.elapsed().as_secs_f64() * 1e3);
            found[nth] = hits.iter().take(COMPARED).map(|hit| hit.chunk_id).collect();
        }
        recalls.push(overlap(&found[1], &found[0]));
    }
    let [exact, index] = times;
    #[expect(clippy::cast_precision_loss, reason = "at most a few hundred")]
    let count = recalls.len().max(1) as f64;
    Ok(Approximate {
        recall_at_10: recalls.iter().sum::<f64>() / count,
        latency_ms: Latency::of(index),
        exact_latency_ms: Latency::of(exact),
    })
}
