//! The database goes away and comes back; callers give up half way. The server tells the truth meanwhile, answers at once,
//! and is well again by itself.

use std::time::{Duration, Instant};

use axum::{
    body::Body,
    http::{Request, StatusCode},
};
use futures::future::join_all;
use insta::assert_json_snapshot;
use tower::ServiceExt;

use crate::harness::{
    Builder, PATIENCE, Reply, Stopwatch, TestApp, eventually,
    faulty::Fault,
    fixtures::{GUIDE, borrowed, many_pages},
    redact, within,
};

const SEARCH: &str = "/api/search?query=connection+pool&cache=bypass";

/// What is promised: readiness and health turn within two seconds of a failure.
const NOTICED_WITHIN: Duration = Duration::from_secs(2);

/// What is promised: well again within five seconds, without a restart.
const WELL_WITHIN: Duration = Duration::from_secs(5);

/// A server with documents and background tasks, behind a network that can fail.
async fn start() -> TestApp {
    let hurried = TestApp::builder()
        .with_pool(|pool| pool.statement_timeout = Duration::from_millis(700))
        .with_embed_timeout(Duration::from_millis(500));
    start_with(hurried).await
}

async fn start_with(builder: Builder) -> TestApp {
    let app = builder.behind_a_faulty_network().with_background_tasks().start().await;
    app.ingest(&GUIDE, "guide", "1.0.0").await;
    app
}

async fn status(app: &TestApp, path: &str) -> StatusCode {
    app.get(path).await.status
}

fn is_whole(reply: &Reply) -> bool {
    reply.status == StatusCode::OK && reply.json()["degraded"] == false
}

async fn expect_well(app: &TestApp) {
    within(WELL_WITHIN, "searches, health and readiness are well", async || {
        is_whole(&app.get(SEARCH).await)
            && status(app, "/api/health").await == StatusCode::OK
            && app.admin("/readyz").await.status == StatusCode::OK
    })
    .await;
}

async fn expect_told(app: &TestApp) {
    within(NOTICED_WITHIN, "health and readiness tell the outage", async || {
        status(app, "/api/health").await == StatusCode::SERVICE_UNAVAILABLE
            && app.admin("/readyz").await.status == StatusCode::SERVICE_UNAVAILABLE
    })
    .await;
    assert_eq!(app.admin("/livez").await.status, StatusCode::OK, "the process itself lives");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_resets_connections_is_told_and_recovered_from() {
    let app = start().await;
    expect_well(&app).await;
    assert_json_snapshot!("health_well", redact(&app.get("/api/health").await.json()));

    app.network().break_networking().await;
    let asked = Stopwatch::start();
    let reply = app.get(SEARCH).await;
    assert!(asked.elapsed() < Duration::from_secs(1), "told within a second: {:?}", asked.elapsed());
    assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_json_snapshot!("problem_database_unavailable", reply.problem());
    expect_told(&app).await;
    assert_json_snapshot!("health_without_database", redact(&app.get("/api/health").await.json()));
    for path in ["/api/pages?url=pool.md", "/api/pages/1", "/api/chunks/1"] {
        assert_eq!(status(&app, path).await, StatusCode::SERVICE_UNAVAILABLE, "{path}");
    }

    app.network().restore().await;
    expect_well(&app).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_search_pays_for_connections_that_died_in_an_outage() {
    // Nothing of it is about time.
    let app = start_with(TestApp::builder().with_pool(|pool| pool.acquire_timeout = PATIENCE)).await;
    // As many connections as the pool has, all idle when the outage begins.
    join_all((0..40).map(|_| app.get(SEARCH))).await;
    app.network().break_networking().await;
    expect_told(&app).await;
    app.network().restore().await;
    within(WELL_WITHIN, "ready, without any search", async || app.admin("/readyz").await.status == StatusCode::OK)
        .await;
    for nth in 0..20 {
        let reply = app.get(SEARCH).await;
        assert_eq!((nth, reply.status), (nth, StatusCode::OK), "{}", reply.text());
        assert_eq!(reply.json()["degraded"], false, "{nth}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_refuses_connections_is_told_and_recovered_from() {
    let app = start().await;
    app.network().set(Fault::Refuse).await;
    expect_told(&app).await;
    let asked = Stopwatch::start();
    let replies = join_all((0..20).map(|_| app.get(SEARCH))).await;
    assert!(asked.elapsed() < Duration::from_secs(2), "many callers wait no longer than one: {:?}", asked.elapsed());
    for reply in replies {
        assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!((reply.header("retry-after"), &reply.json()["code"]), ("1", &"database_unavailable".into()));
    }
    app.network().restore().await;
    expect_well(&app).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_answered_a_moment_ago_is_not_called_busy_once_it_refuses() {
    let app = start().await;
    for idle in [true, false] {
        expect_well(&app).await;
        app.network().set(Fault::Refuse).await;
        if !idle {
            // No connection is left that could be seen to have died.
            app.index.drop_idle();
        }
        for reply in join_all((0..20).map(|_| app.get(SEARCH))).await {
            assert_eq!(reply.json()["code"], "database_unavailable", "{}", reply.text());
        }
        app.network().restore().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_network_is_told_and_recovered_from() {
    let app = start().await;
    // Connections that are in use when the network goes silent, and stay silent for ever.
    join_all((0..8).map(|_| app.get(SEARCH))).await;
    app.network().set(Fault::BlackHole).await;
    let asking = async { join_all((0..8).map(|_| app.get(SEARCH))).await };
    let (replies, ()) = tokio::join!(asking, expect_told(&app));
    for reply in replies {
        assert!(reply.status.is_server_error(), "{}", reply.text());
    }
    let asked = Stopwatch::start();
    assert_eq!(status(&app, "/api/health").await, StatusCode::SERVICE_UNAVAILABLE);
    assert!(asked.elapsed() < Duration::from_millis(500), "health is told from memory");
    app.network().restore().await;
    expect_well(&app).await;
    // As many at once as there are connections: no permit was lost.
    within(WELL_WITHIN, "eight at once are well", async || {
        join_all((0..8).map(|_| app.get(SEARCH))).await.iter().all(is_whole)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_break_is_over_by_itself() {
    let app = start().await;
    for _ in 0..3 {
        app.network().cut();
        expect_well(&app).await;
    }
    eventually("the database answers", async || app.index.ping().await.is_ok()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_network_makes_answers_late_and_not_wrong() {
    let app = start_with(TestApp::builder().with_pool(|pool| pool.acquire_timeout = PATIENCE)).await;
    let before = app.get(SEARCH).await;
    assert!(is_whole(&before), "{}", before.text());
    app.network().set(Fault::Delay(Duration::from_millis(15))).await;
    let reply = app.get(SEARCH).await;
    assert_eq!((reply.status, reply.body), (StatusCode::OK, before.body));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_published_during_a_break_are_found_after_it() {
    let app = start().await;
    let importer = TestApp::builder().start_beside(&app).await;
    app.network().break_networking().await;
    importer.ingest(&[("new.md", "# New\n\nA zebra crossing.\n")], "zoo", "1.0.0").await;
    app.network().restore().await;
    within(WELL_WITHIN, "the new source is found", async || {
        let reply = app.get("/api/search?query=zebra&mode=keyword").await;
        reply.status == StatusCode::OK && reply.json()["count"] == 1
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_that_give_up_poison_no_connection() {
    let app = TestApp::builder().with_pool(|pool| pool.read_connections = 4).start().await;
    app.ingest(&borrowed(&many_pages(60)), "many", "1.0.0").await;
    // `ef_search` makes the vector leg a transaction of its own, which a caller may leave open.
    let path = "/api/search?query=common+page&match_count=50&ef_search=1000&cache=bypass";
    let whole = {
        let began = Instant::now();
        assert_eq!(app.get(path).await.status, StatusCode::OK);
        began.elapsed().max(Duration::from_millis(1))
    };
    for nth in 0..200_u32 {
        let request = Request::get(path).body(Body::empty()).unwrap();
        // Given up anywhere between the first and the last step.
        let patience = whole * (nth % 50) / 50;
        let _ = tokio::time::timeout(patience, app.router().oneshot(request)).await;
    }
    let open = "select count(*) from pg_stat_activity
                where datname = current_database() and state like 'idle in transaction%'";
    eventually("no session is left in a transaction", async || app.count(open).await == 0).await;
    for _ in 0..20 {
        assert_eq!(app.get(path).await.status, StatusCode::OK);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_is_stopped_in_the_server_once_its_caller_is_gone() {
    let app = TestApp::builder().with_pool(|pool| pool.statement_timeout = Duration::from_mins(1)).start().await;
    app.ingest(&GUIDE, "guide", "1.0.0").await;
    // Makes the keyword leg wait, as a long statement would.
    app.execute(
        "alter table chunk_words rename to chunk_words_away;
         create view chunk_words as select chunk_words_away.* from chunk_words_away, pg_sleep(50)",
    )
    .await;
    let request = Request::get("/api/search?query=pool&mode=keyword").body(Body::empty()).unwrap();
    let running = "select count(*) from pg_stat_activity
                   where datname = current_database() and state = 'active' and query like '%weights <#>%'
                     and pid <> pg_backend_pid()";
    tokio::select! {
        reply = app.router().oneshot(request) => panic!("{reply:?}"),
        () = eventually("the statement runs", async || app.count(running).await == 1) => (),
    }
    within(Duration::from_secs(10), "the statement is stopped", async || app.count(running).await == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_that_runs_too_long_is_a_deadline_not_an_outage() {
    let app = TestApp::builder().with_pool(|pool| pool.statement_timeout = Duration::from_secs(2)).start().await;
    app.ingest(&GUIDE, "guide", "1.0.0").await;
    app.execute(
        "alter table chunk_words rename to chunk_words_away;
         create view chunk_words as select chunk_words_away.* from chunk_words_away, pg_sleep(20)",
    )
    .await;
    let reply = app.get("/api/search?query=pool&mode=keyword").await;
    assert_eq!(reply.status, StatusCode::GATEWAY_TIMEOUT, "{}", reply.text());
    assert_json_snapshot!("problem_deadline", reply.problem());
    let hybrid = app.get("/api/search?query=pool").await.json();
    assert_eq!(hybrid["degraded_reason"], "keyword_search_unavailable: answered from vectors alone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_searches_than_connections_wait_or_are_told_to_come_back() {
    let app = TestApp::builder().with_pool(|pool| pool.read_connections = 2).start().await;
    app.ingest(&GUIDE, "guide", "1.0.0").await;
    let replies = join_all((0..60).map(|_| app.get(SEARCH))).await;
    let mut well = 0;
    for reply in replies {
        match reply.status {
            StatusCode::OK => well += 1,
            StatusCode::SERVICE_UNAVAILABLE => assert_eq!(reply.header("retry-after"), "1"),
            other => panic!("{other}: {}", reply.text()),
        }
    }
    assert!(well >= 2, "{well} of 60");
    expect_ok(&app).await;
}

async fn expect_ok(app: &TestApp) {
    assert_eq!(status(app, SEARCH).await, StatusCode::OK);
}
