//! Through `PgBouncer` in transaction mode, where each transaction may meet another session: nothing relies on one.

use std::{process::Command, time::Duration};

use axum::{
    body::Body,
    http::{Request, StatusCode},
};
use futures::future::join_all;
use serde_json::json;
use tower::ServiceExt;

use crate::harness::{
    PATIENCE, TestApp, database, eventually,
    fixtures::{GUIDE, borrowed, many_pages},
    pooler::{self, Pooler},
    postgres::Server,
};

/// Fewer than a search and an import use at once.
const SERVER_CONNECTIONS: u32 = 4;

/// A server of its own, a pooler before it, and us before both.
async fn start(change: impl FnOnce(&mut doc_server::index::pool::Config)) -> (TestApp, Pooler, Server) {
    let server = Server::start().await;
    let pooler = Pooler::start(server.address(), SERVER_CONNECTIONS).await;
    let app = TestApp::builder()
        .with_background_tasks()
        .with_pool(|pool| {
            // A round trip more than without a pooler, on a busy machine.
            pool.acquire_timeout = PATIENCE;
            change(pool);
        })
        .through(&server.options(), &pooler)
        .start_at(server.options())
        .await;
    (app, pooler, server)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn imports_searches_and_changes_rely_on_no_session() {
    let (app, pooler, server) = start(|_| {}).await;
    app.ingest(&GUIDE, "guide", "1.0.0").await;
    app.ingest(&borrowed(&many_pages(30)), "many", "1.0.0").await;
    app.ingest(&borrowed(&many_pages(20)), "many", "1.0.0").await;
    let first = app.search("query=common+page&match_count=10").await;
    let cursor = first["next_cursor"].as_str().unwrap().to_owned();
    let chunk = format!("/api/chunks/{}", first["results"][0]["chunk_id"]);
    let paths = [
        "/api/search?query=connection+pool&mode=hybrid&cache=bypass".to_owned(),
        "/api/search?query=common&mode=keyword&cache=bypass".to_owned(),
        "/api/search?query=common+page&mode=vector&ef_search=400&cache=bypass".to_owned(),
        "/api/search?query=common+page&exact=true&cache=bypass".to_owned(),
        format!("/api/search?query=common+page&match_count=10&cursor={cursor}&cache=bypass"),
        "/api/pages?url=pool.md".to_owned(),
        chunk,
        "/api/sources".to_owned(),
    ];
    for _ in 0..10 {
        for (path, reply) in paths.iter().zip(join_all(paths.iter().map(|path| app.get(path))).await) {
            assert_eq!(reply.status, StatusCode::OK, "{path}: {}", reply.text());
            assert_ne!(reply.json()["degraded"], true, "{path}: {}", reply.text());
        }
        // Callers who leave in the middle of a transaction.
        let leave = |path: &String| {
            let request = Request::get(path).body(Body::empty()).unwrap();
            tokio::time::timeout(Duration::from_millis(fastrand::u64(0..15)), app.router().oneshot(request))
        };
        join_all(paths.iter().map(leave)).await;
        let changed = app.patch("/api/sources/many", &json!({ "title": "Many" })).await;
        assert_eq!(changed.status, StatusCode::OK, "{}", changed.text());
    }
    assert_eq!(app.delete("/api/sources/guide").await.status.as_u16() / 100, 2);
    let open = "select count(*) from pg_stat_activity where state like 'idle in transaction%'";
    eventually("no session is left in a transaction", async || server.number(open).await == 0).await;
    for log in [server.log(), pooler.log()] {
        assert!(!log.contains("prepared statement"), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_and_announcements_arrive() {
    let (app, _pooler, server) = start(|pool| pool.statement_timeout = Duration::from_secs(2)).await;
    app.ingest(&GUIDE, "guide", "1.0.0").await;
    let importer = TestApp::builder().start_at(server.options()).await;
    importer.ingest(&[("new.md", "# New\n\nA zebra crossing.\n")], "zoo", "1.0.0").await;
    eventually("what another has published is found", async || {
        app.get("/api/search?query=zebra&mode=keyword&cache=bypass").await.json()["count"] == 1
    })
    .await;
    // The time limit of a statement is one of the settings.
    app.execute(
        "alter table chunk_words rename to chunk_words_away;
         create view chunk_words as select chunk_words_away.* from chunk_words_away, pg_sleep(20)",
    )
    .await;
    let reply = app.get("/api/search?query=pool&mode=keyword&cache=bypass").await;
    assert_eq!(reply.status, StatusCode::GATEWAY_TIMEOUT, "{}", reply.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: every other test once more"]
async fn every_test_passes_through_it() {
    let (server, program) = (database::server(), std::env::current_exe().unwrap());
    let upstream = std::net::SocketAddr::new(server.get_host().parse().unwrap(), server.get_port());
    let pooler = Pooler::start(upstream, 20).await;
    let mut command = Command::new(program);
    command.env(pooler::EVERYWHERE, pooler.address().to_string()).args(["--test-threads", "2"]);
    // These have a server, a pooler or a proxy of their own, look at the connections that the pooler shares, or count statements,
    // of which a transaction through it has more.
    let output =
        command.args(["--skip", "pgbouncer::", "--skip", "replicas::", "--skip", "statements::"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    assert!(!said.contains("prepared statement") && !pooler.log().contains("prepared statement"), "{said}");
}
