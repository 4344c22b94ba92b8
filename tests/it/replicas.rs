//! A real streaming standby is searched while it keeps up, and never costs an answer or a part of one.

use std::time::Duration;

use axum::http::StatusCode;
use futures::future::join_all;

use crate::harness::{Builder, PATIENCE, TestApp, eventually, fixtures::GUIDE, postgres::Server, within};

/// Past the caches: each goes to the database.
const SEARCH: &str = "/api/search?query=connection+pool&cache=bypass";

/// A primary with a standby, and a server that searches the standby.
async fn start() -> (TestApp, Server, Server) {
    let primary = Server::start().await;
    let standby = primary.standby().await;
    let app = patient().with_background_tasks().with_replica(standby.options()).start_at(primary.options()).await;
    app.ingest(&GUIDE, "guide", "1.0.0").await;
    usable(&app, true).await;
    (app, primary, standby)
}

/// A third of it is the replica's.
fn patient() -> Builder {
    TestApp::builder().with_pool(|pool| pool.acquire_timeout = Duration::from_secs(6))
}

async fn usable(app: &TestApp, expected: bool) {
    let what = if expected { "the replica is searched" } else { "the replica is left out" };
    within(PATIENCE, what, async || app.index.replicas()[0].usable == expected).await;
}

fn reads(app: &TestApp) -> u64 {
    app.index.replicas()[0].reads
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_keeps_up_answers_searches_pages_and_chunks_like_the_primary() {
    let (app, primary, _standby) = start().await;
    let alone = patient().start_at(primary.options()).await;
    let answer = app.get(SEARCH).await.json();
    let chunk = format!("/api/chunks/{}", answer["results"][0]["chunk_id"]);
    let page = format!("/api/pages/{}", answer["results"][0]["page_id"]);
    for path in [
        SEARCH,
        &chunk,
        &page,
        "/api/pages?url=pool.md",
        "/api/search?query=pool&ef_search=500&mode=vector&cache=bypass",
    ] {
        let before = reads(&app);
        let expected = alone.get(path).await;
        // It is left out where it was late with a sign of life.
        eventually(&format!("{path} is read from the replica"), async || {
            let reply = app.get(path).await;
            assert_eq!((reply.status, reply.text()), (StatusCode::OK, expected.text()), "{path}");
            reads(&app) > before
        })
        .await;
    }
    assert_eq!(app.get("/api/pages/999999").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lagging_replica_never_shortens_an_answer() {
    let (app, _primary, standby) = start().await;
    for round in 0..5 {
        standby.execute("select pg_wal_replay_pause()").await;
        // Published, acknowledged, and not on the replica, which still counts as well.
        let (word, source) = (format!("zebra{round}"), format!("zoo{round}"));
        let text = format!("# Crossing\n\nA {word} crosses the road.\n");
        app.ingest(&[("zoo.md", text.as_str())], &source, "1.0.0").await;
        for mode in ["keyword", "vector", "hybrid"] {
            let answer = app.search(&format!("query={word}&mode={mode}&source={source}&cache=bypass")).await;
            assert_eq!((&answer["count"], &answer["degraded"]), (&1.into(), &false.into()), "{round} {mode}: {answer}");
        }
        let page = app.get("/api/pages?url=zoo.md").await;
        assert_eq!(page.status, StatusCode::OK, "{}", page.text());
        usable(&app, false).await;
        standby.execute("select pg_wal_replay_resume()").await;
        usable(&app, true).await;
        let before = reads(&app);
        eventually("it is searched again", async || {
            let answer = app.search(&format!("query={word}&mode=keyword&source={source}&cache=bypass")).await;
            assert_eq!(answer["count"], 1);
            reads(&app) > before
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_only_lags_is_left_out_until_it_has_caught_up() {
    let (app, primary, standby) = start().await;
    standby.execute("select pg_wal_replay_pause()").await;
    // Nothing is published: only the log moves on.
    primary.execute("create table noise as select generate_series(1, 1000)").await;
    usable(&app, false).await;
    assert_eq!(app.get(SEARCH).await.status, StatusCode::OK);
    standby.execute("select pg_wal_replay_resume()").await;
    usable(&app, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_dies_costs_no_answer() {
    let (app, _primary, mut standby) = start().await;
    join_all((0..8).map(|_| app.get(SEARCH))).await;
    standby.kill();
    for nth in 0..20 {
        let reply = app.get(SEARCH).await;
        assert_eq!((nth, reply.status), (nth, StatusCode::OK), "{}", reply.text());
        assert_eq!(reply.json()["degraded"], false, "{nth}");
    }
    usable(&app, false).await;
    standby.launch().await;
    usable(&app, true).await;
}
