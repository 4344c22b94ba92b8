//! How long a key is believed: revoked ones for five seconds at most on every server, and what holds while the database is away.

use std::time::{Duration, Instant};

use axum::http::{Method, StatusCode};

use super::UNKNOWN;
use crate::harness::{Stopwatch, TestApp, eventually, faulty::Fault, fixtures::GUIDE, within};

/// What is promised, wherever the revocation happened.
const WORTH_NOTHING_WITHIN: Duration = Duration::from_secs(5);

const SEARCH: &str = "/api/search?query=pool";

async fn status(app: &TestApp, key: &str, path: &str) -> StatusCode {
    app.get_as(key, path).await.status
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_key_is_worth_nothing_anywhere_once_that_is_acknowledged() {
    let app = TestApp::builder().closed(&[]).with_background_tasks().start().await;
    let replica = TestApp::builder().closed(&[]).with_background_tasks().start_beside(&app).await;
    app.ingest(&GUIDE, "guide", "1.0.0").await;
    let (_, admin) = app.make_key(&["admin"], &[]).await;
    for _ in 0..5 {
        let (id, key) = app.make_key(&["search"], &[]).await;
        // A new key is known everywhere when it is told.
        assert_eq!(
            (status(&app, &key, SEARCH).await, status(&replica, &key, SEARCH).await),
            (StatusCode::OK, StatusCode::OK)
        );
        let asked = Stopwatch::start();
        let revoked = replica.ask(&admin, Method::DELETE, &format!("/api/keys/{id}"), None).await;
        assert_eq!(revoked.status, 204, "{}", revoked.text());
        assert!(asked.elapsed() < WORTH_NOTHING_WITHIN, "{:?}", asked.elapsed());
        let refused = (status(&app, &key, SEARCH).await, status(&replica, &key, SEARCH).await);
        assert_eq!(refused, (StatusCode::UNAUTHORIZED, StatusCode::UNAUTHORIZED), "also answers that are kept");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_hears_nothing_believes_a_revoked_key_for_five_seconds_at_most() {
    let app = TestApp::builder().closed(&[]).start().await;
    app.ingest(&GUIDE, "guide", "1.0.0").await;
    let (id, key) = app.make_key(&["search"], &[]).await;
    // Without background tasks nothing is heard.
    let deaf = TestApp::builder().closed(&[]).start_beside(&app).await;
    assert_eq!(status(&deaf, &key, SEARCH).await, 200);
    assert!(app.index.revoke_key(id).await.unwrap());
    let revoked = Instant::now();
    eventually("the key is refused", async || {
        let late = revoked.elapsed() > WORTH_NOTHING_WITHIN;
        let reply = deaf.get_as(&key, SEARCH).await;
        // It is marked where the reading itself takes longer than a request waits for it.
        assert!(!late || reply.status == 401 || reply.header("x-cache") == "stale", "{}", reply.text());
        reply.status == 401
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_ends_at_its_time() {
    let app = TestApp::builder().closed(&[]).start().await;
    let (_, admin) = app.make_key(&["admin"], &[]).await;
    let end = chrono::Utc::now() + chrono::TimeDelta::seconds(2);
    let body = serde_json::json!({ "name": "short", "scopes": ["search"], "expires_at": end.to_rfc3339() });
    let made = app.ask(&admin, Method::POST, "/api/keys", Some(&body)).await;
    assert_eq!(made.status, 201, "{}", made.text());
    let key = made.json()["secret"].as_str().unwrap().to_owned();
    let seen = status(&app, &key, "/api/sources").await;
    assert!(seen == 200 || chrono::Utc::now() > end, "{seen}");
    eventually("its time has come", async || chrono::Utc::now() >= end).await;
    assert_eq!(status(&app, &key, "/api/sources").await, 401);
    let listed = app.get_as(&admin, "/api/keys").await.json();
    assert_eq!(listed["keys"][1]["status"], "expired");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_database_is_away_a_known_key_gets_what_is_in_memory_and_nothing_else() {
    let app = TestApp::builder().closed(&["search"]).start().await;
    app.ingest(&GUIDE, "guide", "1.0.0").await;
    let (id, key) = app.make_key(&["search", "sources:write"], &["guide"]).await;
    let (_, admin) = app.make_key(&["admin"], &[]).await;
    let cut = TestApp::builder().closed(&[]).with_background_tasks().behind_a_faulty_network().start_beside(&app).await;
    eventually("an answer is kept", async || cut.get_as(&key, SEARCH).await.header("x-cache") == "hit-l1").await;
    eventually("pages are read", async || status(&cut, &key, "/api/pages?url=pool.md").await == 200).await;

    cut.network().set(Fault::Refuse).await;
    // Its revocation cannot be heard here.
    assert!(app.index.revoke_key(id).await.unwrap());
    eventually("answers are given as stale", async || cut.get_as(&key, SEARCH).await.header("x-cache") == "stale")
        .await;
    assert_eq!(status(&cut, &key, "/api/sources").await, 200);
    let change = serde_json::json!({ "title": "Changed" });
    for (method, path) in [
        (Method::GET, "/api/pages?url=pool.md"),
        (Method::GET, "/api/pages/1"),
        (Method::GET, "/api/chunks/1"),
        (Method::PATCH, "/api/sources/guide"),
        (Method::DELETE, "/api/sources/guide"),
    ] {
        let reply = cut.ask(&key, method, path, Some(&change)).await;
        assert_eq!((reply.status.as_u16(), &reply.json()["code"]), (503, &"key_unconfirmed".into()), "{path}");
        assert_eq!(reply.header("retry-after"), "1");
    }
    assert_eq!(cut.get_as(&admin, "/api/keys").await.json()["code"], "key_unconfirmed");
    // Whether it is wrong, or so new that it is not known here, cannot be told.
    assert_eq!(cut.get_as(UNKNOWN, SEARCH).await.json()["code"], "key_unconfirmed");
    assert_eq!(cut.get(SEARCH).await.status, 401, "a caller without a key is told so as ever");
    assert_eq!(cut.get("/assets/search.css").await.status, 200);

    cut.network().restore().await;
    within(WORTH_NOTHING_WITHIN, "the revocation is known", async || status(&cut, &key, SEARCH).await == 401).await;
    eventually("others are believed", async || status(&cut, &admin, SEARCH).await == 200).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_the_stale_window_nothing_is_believed() {
    let app = TestApp::builder().closed(&[]).start().await;
    app.ingest(&GUIDE, "guide", "1.0.0").await;
    let (_, key) = app.make_key(&["search"], &[]).await;
    let cut = TestApp::builder()
        .closed(&[])
        .with_background_tasks()
        .behind_a_faulty_network()
        .with_search(|search| search.cache.lifetime.stale = Duration::from_secs(1))
        .start_beside(&app)
        .await;
    eventually("an answer is kept", async || cut.get_as(&key, SEARCH).await.header("x-cache") == "hit-l1").await;
    cut.network().set(Fault::Refuse).await;
    within(Duration::from_secs(20), "nothing is believed any more", async || {
        status(&cut, &key, SEARCH).await == 503 && status(&cut, &key, "/api/sources").await == 503
    })
    .await;
    cut.network().restore().await;
    within(WORTH_NOTHING_WITHIN, "the key is confirmed again", async || status(&cut, &key, SEARCH).await == 200).await;
}
