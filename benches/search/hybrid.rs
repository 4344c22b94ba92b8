//! A hybrid search of a text never seen, over HTTP with the real model, against its parts measured alone: embedding the text, and the
//! slower of the two legs. Whole and parts take turns, so that the machine's moods hit both.

use std::time::Instant;

use doc_server::{
    app::App,
    config::Settings,
    index::{Selection, View, generations::ModelIdentity, terms, vectors::Options},
    runtime::lifecycle::Lifecycle,
};

use crate::{
    Failure,
    http::{Client, search_path, serve},
    median, print_ratio,
    texts::Texts,
};

/// Enough for a steady median, a few seconds of time.
const QUERIES: usize = 400;

/// What a search asks each leg for.
const DEPTH: u16 = 100;

pub async fn run(settings: &Settings, texts: &Texts) -> Result<(), Failure> {
    let app = App::open(settings).await?;
    app.embedder.warm().await?;
    let lifecycle = Lifecycle::new();
    app.index.follow(&lifecycle);
    let address = serve(&app, app.search.clone(), &lifecycle).await?;
    let identity = app.embedder.identity().await?;
    let model = app.index.find_model(&ModelIdentity::from(&*identity)).await?.ok_or("no vectors of this model")?;
    let resolved = app.index.catalog().await?.resolve(&Selection::default(), &View::everything())?;
    let milliseconds = |since: Instant| since.elapsed().as_secs_f64() * 1e3;
    let [mut whole, mut embed, mut vector, mut keyword] = [const { Vec::new() }; 4];
    let mut client = Client::connect(address)?;
    for (asked, part) in texts.queries(1, QUERIES).iter().zip(texts.queries(2, QUERIES)) {
        let path = search_path(asked, "");
        let started = Instant::now();
        client = tokio::task::spawn_blocking(move || client.get(&path).map(drop).map(|()| client)).await??;
        whole.push(milliseconds(started));
        let started = Instant::now();
        let embedded = app.embedder.embed_query(&part).await?.vector;
        embed.push(milliseconds(started));
        let started = Instant::now();
        app.index.nearest(&resolved, model, &embedded, Options { limit: DEPTH, ..Options::default() }).await?;
        vector.push(milliseconds(started));
        let started = Instant::now();
        app.index.matching(&resolved, &terms::of_query(&part), DEPTH).await?;
        keyword.push(milliseconds(started));
    }
    let (whole, embed, vector, keyword) = (median(whole), median(embed), median(vector), median(keyword));
    println!("hybrid parts, p50: embed {embed:.2} ms, vector leg {vector:.2} ms, keyword leg {keyword:.2} ms");
    let parts = embed + vector.max(keyword);
    print_ratio("hybrid search of a new text, p50", (whole, "ms"), (parts, "its parts"), "must 1.5, aim 1.2");
    lifecycle.stop();
    app.close().await;
    Ok(())
}
