//! More is asked than can be answered, or callers wait less long than the database takes: they are told at once, what is kept is
//! still given, and nothing goes on for those who are gone.

use std::time::Duration;

use axum::{
    body::Body,
    http::{Request, StatusCode},
};
use futures::future::join_all;
use insta::assert_json_snapshot;
use serde_json::json;

use crate::harness::{Stopwatch, TestApp, client::Reply, eventually, fixtures::GUIDE, within};

/// Makes the keyword leg wait, as a long statement would.
const SLOW_WORDS: &str = "alter table chunk_words rename to chunk_words_away;
    create view chunk_words as select chunk_words_away.* from chunk_words_away, pg_sleep(50)";

/// Searches that run in the database.
const RUNNING: &str = "select count(*) from pg_stat_activity
    where datname = current_database() and state = 'active' and query like '%weights <#>%' and pid <> pg_backend_pid()";

/// A server with documents on which so many searches are computed at once.
async fn with_room_for(searches: usize) -> TestApp {
    let limit = |config: &mut doc_server::search::Config| {
        (config.shed.most, config.shed.least) = (searches, searches);
    };
    let app = TestApp::builder().with_search(limit).start().await;
    app.ingest(&GUIDE, "guide", "1.0.0").await;
    app
}

async fn get_with(app: &TestApp, path: &str, priority: &str) -> Reply {
    app.send(Request::get(path).header("priority", priority).body(Body::empty()).unwrap()).await
}

/// Different searches that wait for the model, until the probe releases it.
fn searches(app: &TestApp, count: usize) -> impl Future<Output = Vec<Reply>> + use<'_> {
    join_all((0..count).map(|nth| async move { app.get(&format!("/api/search?query=held+{nth}")).await }))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_server_turns_searches_away_at_once_and_gives_what_it_has() {
    let app = with_room_for(2).await;
    let kept = app.get("/api/search?query=retries").await;
    assert_eq!(kept.status, StatusCode::OK);
    app.probe.hold();
    let asking = async {
        eventually("both places are taken", async || app.search.gate().in_use() == 2).await;
        let refused = app.get("/api/search?query=one+more").await;
        assert_eq!((refused.status, refused.header("retry-after")), (StatusCode::SERVICE_UNAVAILABLE, "1"));
        assert_json_snapshot!("problem_overloaded", refused.problem());
        let mut times = Vec::new();
        for nth in 0..50 {
            let asked = Stopwatch::start();
            let reply = app.get(&format!("/api/search?query=another+{nth}&cache=bypass")).await;
            times.push(asked.elapsed());
            assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE, "{}", reply.text());
        }
        times.sort_unstable();
        assert!(times[25] <= Duration::from_millis(20), "{times:?}");
        assert_eq!(app.get("/api/chunks/1").await.status, StatusCode::SERVICE_UNAVAILABLE, "the database is full");
        for path in
            ["/api/search?query=retries", "/api/health", "/api/sources", "/api/sources/guide", "/openapi.json", "/"]
        {
            assert_eq!(app.get(path).await.status, StatusCode::OK, "{path}");
        }
        assert_eq!(app.admin("/metrics").await.status, StatusCode::OK);
        app.probe.release();
    };
    let ((), replies) = tokio::join!(asking, searches(&app, 2));
    assert!(replies.iter().all(|reply| reply.status == StatusCode::OK), "who was let in is answered");
    assert_eq!(app.search.gate().in_use(), 0);
    assert_eq!(app.get("/api/search?query=one+more").await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_what_is_being_computed_needs_no_place() {
    let app = with_room_for(1).await;
    app.probe.hold();
    let asking = join_all((0..200).map(|_| app.get("/api/search?query=the+same")));
    let releasing = async {
        eventually("all wait", async || app.search.waiting() >= 200).await;
        // With no second place it could not be more than one.
        eventually("one computes for all", async || app.search.gate().in_use() == 1).await;
        app.probe.release();
    };
    let (replies, ()) = tokio::join!(asking, releasing);
    assert!(replies.iter().all(|reply| reply.status == StatusCode::OK));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_give_way_to_people() {
    let app = with_room_for(4).await;
    app.probe.hold();
    let asking = async {
        eventually("half of the places are taken", async || app.search.gate().in_use() == 2).await;
        let batch = get_with(&app, "/api/search?query=bulk", "u=7").await;
        assert_eq!(batch.status, StatusCode::SERVICE_UNAVAILABLE, "the share of batch work is in use");
        let person = get_with(&app, "/api/search?query=bulk", "u=3");
        let releasing = async {
            eventually("a person is let in", async || app.search.gate().in_use() == 3).await;
            // The same question of a person must not depend on a program that gives way.
            let same = get_with(&app, "/api/search?query=bulk", "u=6").await;
            assert_eq!(same.status, StatusCode::SERVICE_UNAVAILABLE);
            app.probe.release();
        };
        let (person, ()) = tokio::join!(person, releasing);
        assert_eq!(person.status, StatusCode::OK);
    };
    tokio::join!(asking, searches(&app, 2));
    let batch = get_with(&app, "/api/search?query=bulk+again", "u=7").await;
    assert_eq!(batch.status, StatusCode::OK, "there is room");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_says_how_long_it_waits_and_its_statement_ends_with_it() {
    let app = TestApp::builder().with_pool(|pool| pool.statement_timeout = Duration::from_mins(1)).start().await;
    app.ingest(&GUIDE, "guide", "1.0.0").await;
    app.execute(SLOW_WORDS).await;
    for method in ["GET", "POST"] {
        let waiting = async {
            let asked = Stopwatch::start();
            let reply = if method == "GET" {
                app.get("/api/search?query=pool&mode=keyword&timeout_ms=2000").await
            } else {
                app.post("/api/search", &json!({ "query": "pool", "mode": "keyword", "timeout_ms": 2_000 })).await
            };
            (reply, asked.elapsed())
        };
        let started = eventually("its statement runs", async || app.count(RUNNING).await == 1);
        let ((reply, took), ()) = tokio::join!(waiting, started);
        assert_eq!(reply.status, StatusCode::GATEWAY_TIMEOUT, "{}", reply.text());
        assert!((1_900..5_000).contains(&took.as_millis()), "{took:?}");
        if method == "GET" {
            assert_json_snapshot!("problem_timeout", reply.problem());
        }
        // It would go on for 50 s.
        within(Duration::from_secs(5), "its statement is stopped", async || app.count(RUNNING).await == 0).await;
        eventually("its place is free", async || app.search.gate().in_use() == 0).await;
    }
    eventually("every place is free", async || app.index.pools().read_usage().1 == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_in_a_hurry_leaves_and_the_search_goes_on_for_the_others() {
    let app = with_room_for(4).await;
    let before = app.probe.texts();
    app.probe.hold();
    let patient = app.get("/api/search?query=connection+pool");
    let hasty = async {
        eventually("the patient one is first", async || app.search.waiting() == 1).await;
        let asked = Stopwatch::start();
        let reply = app.get("/api/search?query=connection+pool&timeout_ms=100").await;
        assert_eq!(reply.status, StatusCode::GATEWAY_TIMEOUT);
        // The search itself is held until after it.
        assert!(asked.elapsed() <= Duration::from_secs(1), "{:?}", asked.elapsed());
        app.probe.release();
    };
    let (reply, ()) = tokio::join!(patient, hasty);
    assert_eq!((reply.status, reply.header("x-cache")), (StatusCode::OK, "miss"));
    assert_eq!(app.probe.texts() - before, 1);
    let again = app.get("/api/search?query=connection+pool&timeout_ms=5000").await;
    assert_eq!((again.status, again.header("x-cache")), (StatusCode::OK, "hit-l1"), "the answer is the same");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_metrics_tell_what_was_turned_away_and_why() {
    let app = with_room_for(1).await;
    app.probe.hold();
    let shed = async || {
        let text = app.admin("/metrics").await.text();
        let line = text.lines().find(|line| line.starts_with("doc_server_shed_total{reason=\"batch_share\"}")).unwrap();
        line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()
    };
    let before = shed().await;
    let asking = async {
        eventually("the place is taken", async || app.search.gate().in_use() == 1).await;
        get_with(&app, "/api/search?query=bulk", "u=7").await;
        assert!(shed().await > before);
        app.probe.release();
    };
    tokio::join!(asking, searches(&app, 1));
}
