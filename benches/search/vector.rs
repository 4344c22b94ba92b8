//! Uncached vector search over HTTP, its vector known already, against pgbench with the same statements at the same concurrency.

use std::{collections::HashMap, sync::Arc, time::Duration};

use doc_server::{
    app::App,
    config::Settings,
    embed::{Backend, Config, Embedder, FakeConfig, Vector},
    index::{
        Selection, View,
        generations::ModelIdentity,
        vectors::{Options, Scan},
    },
    runtime::lifecycle::Lifecycle,
    search::{Parts, Search},
};

use crate::{
    Failure,
    http::{search_path, serve},
    median,
    pgbench::{Pgbench, Statements},
    print_ratio,
    texts::Texts,
    throughput::throughput,
};

/// Different searches on both sides; pgbench takes 128 scripts at most.
const SEARCHES: usize = 100;

/// Each side is measured in turn so many times, and the middle one counts: the machine has neighbours.
const ROUNDS: usize = 3;

/// One measurement.
const SECONDS: u64 = 4;

pub async fn run(settings: &Settings, texts: &Texts) -> Result<(), Failure> {
    let app = App::open(settings).await?;
    let queries = texts.queries(0, SEARCHES);
    let mut known: HashMap<String, Vector> = HashMap::new();
    for query in &queries {
        known.insert(query.clone(), app.embedder.embed_query(query).await?.vector);
    }
    let pgbench = Pgbench::new(settings, &statements(&app, &queries, &known).await?)?;
    let lifecycle = Lifecycle::new();
    let identity = Some((*app.embedder.identity().await?).clone());
    let fake = Backend::Fake(FakeConfig { known: Arc::new(known), identity, ..FakeConfig::default() });
    let embedder = Embedder::new(Config { backend: fake, queue_capacity: 1_024 }, &lifecycle)?;
    app.index.follow(&lifecycle);
    let search = Search::new(Parts { index: app.index.clone(), embedder, shared: None }, settings.search(), &lifecycle);
    let address = serve(&app, search, &lifecycle).await?;
    let paths =
        Arc::new(queries.iter().map(|query| search_path(query, "&mode=vector&cache=bypass")).collect::<Vec<_>>());
    for connections in [1, 4] {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let (paths, time) = (Arc::clone(&paths), Duration::from_secs(SECONDS));
            let served = tokio::task::spawn_blocking(move || throughput(address, &paths, connections, time));
            ours.push(served.await??);
            theirs.push(pgbench.run(connections, SECONDS)?);
        }
        let what = format!("vector search over HTTP, {connections} connections");
        print_ratio(&what, (median(ours), "/s"), (median(theirs), "pgbench"), "must 0.5, aim 0.8");
    }
    lifecycle.stop();
    app.close().await;
    Ok(())
}

async fn statements(app: &App, queries: &[String], known: &HashMap<String, Vector>) -> Result<Statements, Failure> {
    let identity = app.embedder.identity().await?;
    let model = app.index.find_model(&ModelIdentity::from(&*identity)).await?.ok_or("no vectors of this model")?;
    let resolved = app.index.catalog().await?.resolve(&Selection::default(), &View::everything())?;
    let (mut searches, mut found) = (Vec::new(), 0);
    for query in queries {
        let nearest = async |scan| {
            let options = Options { limit: 100, scan, ef_search: None };
            let hits = app.index.nearest(&resolved, model, &known[query], options).await?.value;
            Ok::<Vec<i64>, Failure>(hits.iter().take(10).map(|hit| hit.chunk_id).collect())
        };
        let (exact, approximate) = (nearest(Scan::Exact).await?, nearest(Scan::Index).await?);
        found += exact.iter().filter(|id| approximate.contains(id)).count();
        searches.push((known[query].to_vec(), approximate[..5.min(approximate.len())].to_vec()));
    }
    #[expect(clippy::cast_precision_loss, reason = "a thousand")]
    let recall = found as f64 / (queries.len() * 10) as f64;
    println!("recall@10 of the index against exact search: {recall:.4} (must 0.97)");
    Ok(Statements { model, versions: resolved.version_ids(), generations: resolved.ids(), searches })
}
