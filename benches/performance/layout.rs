//! HNSW against IVFFlat: recall, latency, build time and size at 10,000, 50,000 and 200,000 chunks.

use std::{collections::HashMap, time::Instant};

use doc_server::{
    app::App,
    config::Settings,
    embed::Vector,
    index::{
        Resolved, Selection, View,
        build::VectorIndex,
        generations::ModelIdentity,
        vectors::{Model, Options, Scan},
    },
};
use sqlx::{Connection, PgConnection};

use super::Ground;
use crate::{
    Failure,
    data::{self, Size},
    figures::median,
};

/// Chunks in the database.
const SIZES: [usize; 3] = [10_000, 50_000, 200_000];

/// Searches of each setting.
const SEARCHES: usize = 200;

/// What a search asks the leg for; recall is of the first ten.
const DEPTH: u16 = 100;

/// What is searched, and what is right.
struct Questions {
    vectors: Vec<Vector>,
    nearest: Vec<Vec<i64>>,
}

pub async fn run(ground: &Ground<'_>) -> Result<(), Failure> {
    println!("layout: chunks | index | build s | size MB | setting | recall@10 | p50 ms | p99 ms");
    for chunks in SIZES {
        let settings = ground.layout(chunks).await?;
        let app = App::open(&settings).await?;
        let questions = questions(&app, ground).await?;
        for kind in [VectorIndex::Hnsw { m: 16, ef_construction: 64 }, VectorIndex::IvfFlat { lists: None }] {
            let started = Instant::now();
            app.index.rebuild_vector_index(kind, |_, _| {}).await?;
            let built = started.elapsed().as_secs_f64();
            let size = size(&settings, model(&app).await?).await?;
            let (name, values) = match kind {
                VectorIndex::Hnsw { .. } => ("hnsw", [40, 100, 160, 400].as_slice()),
                VectorIndex::IvfFlat { .. } => ("ivfflat", [4, 16, 64].as_slice()),
            };
            for value in values {
                let measured = measure(&settings, kind, *value, &questions).await?;
                println!("layout: {chunks} | {name} | {built:.1} | {size:.1} | {value} | {measured}");
            }
        }
        app.close().await;
    }
    Ok(())
}

impl Ground<'_> {
    /// A database with so many chunks, without words.
    async fn layout(&self, chunks: usize) -> Result<Settings, Failure> {
        // Nobody waits here: writing pages may.
        let settings = Settings { database_acquire_timeout_ms: 10_000, ..self.place.database("_layout").await? };
        data::prepare(&settings, &self.texts, Size { chunks, words: false }).await?;
        Ok(settings)
    }
}

async fn model(app: &App) -> Result<Model, Failure> {
    let identity = app.embedder.identity().await?;
    Ok(app.index.find_model(&ModelIdentity::from(&*identity)).await?.ok_or("no vectors of this model")?)
}

async fn questions(app: &App, ground: &Ground<'_>) -> Result<Questions, Failure> {
    let (model, resolved) =
        (model(app).await?, app.index.catalog().await?.resolve(&Selection::default(), &View::everything())?);
    let mut questions = Questions { vectors: Vec::new(), nearest: Vec::new() };
    for query in ground.texts.queries(0, SEARCHES) {
        let vector = app.embedder.embed_query(&query).await?.vector;
        let options = Options { limit: 10, scan: Scan::Exact, ef_search: None };
        questions.nearest.push(nearest(app, (&resolved, model), &vector, options).await?);
        questions.vectors.push(vector);
    }
    Ok(questions)
}

async fn nearest(
    app: &App,
    (resolved, model): (&Resolved, Model),
    vector: &Vector,
    options: Options,
) -> Result<Vec<i64>, Failure> {
    let hits = app.index.nearest(resolved, model, vector, options).await?.value;
    Ok(hits.iter().take(10).map(|hit| hit.chunk_id).collect())
}

/// On a pool of its own, whose sessions have the setting: recall and latency.
async fn measure(settings: &Settings, kind: VectorIndex, value: u16, questions: &Questions) -> Result<String, Failure> {
    let mut settings = settings.clone();
    match kind {
        VectorIndex::Hnsw { .. } => settings.ef_search = value,
        VectorIndex::IvfFlat { .. } => settings.ivfflat_probes = value,
    }
    let app = App::open(&settings).await?;
    let (model, resolved) =
        (model(&app).await?, app.index.catalog().await?.resolve(&Selection::default(), &View::everything())?);
    let options = Options { limit: DEPTH, scan: Scan::Index, ef_search: None };
    let mut times: HashMap<bool, Vec<f64>> = HashMap::new();
    let mut found = 0;
    // The first round fills Postgres' memory.
    for measured in [false, true] {
        for (vector, right) in questions.vectors.iter().zip(&questions.nearest) {
            let started = Instant::now();
            let hits = nearest(&app, (&resolved, model), vector, options).await?;
            times.entry(measured).or_default().push(started.elapsed().as_secs_f64() * 1e3);
            found += if measured { right.iter().filter(|id| hits.contains(id)).count() } else { 0 };
        }
    }
    app.close().await;
    let mut times = times.remove(&true).unwrap_or_default();
    times.sort_by(f64::total_cmp);
    let p99 = times.get(times.len() * 99 / 100).copied().unwrap_or(f64::NAN);
    #[expect(clippy::cast_precision_loss, reason = "a few thousand")]
    let recall = found as f64 / questions.nearest.iter().map(Vec::len).sum::<usize>() as f64;
    Ok(format!("{recall:.4} | {:.2} | {p99:.2}", median(times)))
}

async fn size(settings: &Settings, model: Model) -> Result<f64, Failure> {
    let mut connection = PgConnection::connect(&settings.database_url).await?;
    let bytes: i64 = sqlx::query_scalar("select pg_relation_size(vector_index_name($1)::regclass)")
        .bind(model.id)
        .fetch_one(&mut connection)
        .await?;
    #[expect(clippy::cast_precision_loss, reason = "a few hundred megabytes")]
    let megabytes = bytes as f64 / 1e6;
    Ok(megabytes)
}
