//! Callers without a key: everything while a server is open, what was named for them elsewhere; and the private door.

use std::time::{Duration, Instant};

use axum::http::{Method, StatusCode};
use serde_json::json;

use super::{UNKNOWN, expired_key, revoked_key};
use crate::harness::{TestApp, client::Reply, eventually, fixtures::GUIDE};

const SEARCH: &str = "/api/search?query=pool";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_of_this_machine_alone_is_open_until_its_first_key() {
    let app = TestApp::start().await;
    app.ingest(&GUIDE, "guide", "1.0.0").await;
    let replica = TestApp::builder().start_beside(&app).await;
    for server in [&app, &replica] {
        assert_eq!(server.get(SEARCH).await.status, 200);
        assert_eq!(server.get("/api/keys").await.json(), json!({ "keys": [], "count": 0, "next_cursor": null }));
        let wrong = server.get_as(UNKNOWN, SEARCH).await;
        assert_eq!(wrong.status, 401, "a wrong key is never taken for none");
    }
    let made = app.post("/api/keys", &json!({ "name": "first", "scopes": ["admin"] })).await;
    assert_eq!(made.status, 201, "{}", made.text());
    let first = made.json();
    let key = first["secret"].as_str().unwrap();
    assert_eq!(app.get(SEARCH).await.status, 401);
    assert_eq!(app.get_as(key, SEARCH).await.status, 200);
    // It listens to nothing, so it hears of the key when it reads the catalog again, after five seconds at most; where the reading
    // takes longer than a request waits, what it gives is marked.
    let closed = Instant::now();
    eventually("the replica is closed too", async || {
        let late = closed.elapsed() > Duration::from_secs(5);
        let reply = replica.get(SEARCH).await;
        assert!(!late || reply.status == 401 || reply.header("x-cache") == "stale", "{}", reply.text());
        reply.status == 401
    })
    .await;
    // It does not open again because the last key goes.
    let revoked = app.ask(key, Method::DELETE, &format!("/api/keys/{}", first["key_id"]), None).await;
    assert_eq!(revoked.status, 204);
    assert_eq!(
        (app.get(SEARCH).await.status, app.get_as(key, SEARCH).await.status),
        (StatusCode::UNAUTHORIZED, StatusCode::UNAUTHORIZED)
    );
    app.execute("delete from api_keys").await;
    app.index.refresh_catalog().await.unwrap();
    assert_eq!(app.get(SEARCH).await.status, 401, "not even when somebody deletes the rows");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_without_a_key_may_do_what_was_named_for_them() {
    let app = TestApp::builder().closed(&["search"]).start().await;
    app.ingest(&GUIDE, "guide", "1.0.0").await;
    for path in [SEARCH, "/api/sources", "/api/sources/guide", "/api/pages?url=pool.md"] {
        assert_eq!(app.get(path).await.status, 200, "{path}");
    }
    let change = json!({ "title": "Changed" });
    for reply in [
        app.patch("/api/sources/guide", &change).await,
        app.delete("/api/sources/guide").await,
        app.get("/api/keys").await,
        app.post("/api/keys", &json!({ "name": "mine", "scopes": ["admin"] })).await,
    ] {
        assert_eq!((reply.status.as_u16(), &reply.problem()["body"]["code"]), (401, &json!("key_required")));
    }
    assert_eq!(app.get_as(UNKNOWN, SEARCH).await.status, 401, "a wrong key is never taken for none");
    let (_, key) = app.make_key(&["sources:write"], &[]).await;
    assert_eq!(app.get_as(&key, SEARCH).await.status, 403, "a key has its own scopes, not those of no key");
    assert_eq!(app.ask(&key, Method::PATCH, "/api/sources/guide", Some(&change)).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_open_on_purpose_stays_open() {
    let app = TestApp::builder().insecurely_open().start().await;
    app.ingest(&GUIDE, "guide", "1.0.0").await;
    let (_, key) = app.make_key(&["search"], &[]).await;
    assert_eq!(app.get("/api/keys").await.status, 200);
    assert_eq!(app.get_as(&key, "/api/keys").await.status, 403, "a key still says what its bearer may");
    assert_eq!(app.get_as(UNKNOWN, SEARCH).await.status, 401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn debug_needs_an_admin_key_where_others_reach_it() {
    let app = TestApp::builder().closed(&["search", "sources:write"]).with_background_tasks().start().await;
    let (_, admin) = app.make_key(&["admin"], &[]).await;
    let (_, reader) = app.make_key(&["search"], &[]).await;
    let (expired, revoked) = (expired_key(&app).await, revoked_key(&app).await);
    let told = |reply: &Reply| (reply.status.as_u16(), reply.problem()["body"]["code"].as_str().unwrap().to_owned());
    for path in ["/debug/cache/stats", "/debug/explain", "/debug/nothing"] {
        assert_eq!(told(&app.admin(path).await), (401, "key_required".to_owned()), "{path}");
        assert!(app.admin(path).await.header("www-authenticate").starts_with("Bearer"), "{path}");
        for key in [UNKNOWN, &expired, &revoked] {
            assert_eq!(told(&app.admin_as(key, path).await), (401, "key_invalid".to_owned()), "{path}");
        }
        assert_eq!(told(&app.admin_as(&reader, path).await), (403, "scope_missing".to_owned()), "{path}");
    }
    assert_eq!(app.admin_as(&admin, "/debug/cache/stats").await.status, 200);
    assert_eq!(app.admin_as(&admin, "/debug/nothing").await.status, 404);
    // What collects metrics and probes has no key.
    for path in ["/metrics", "/livez", "/readyz"] {
        assert_eq!(app.admin(path).await.status, 200, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn debug_is_closed_there_while_keys_cannot_be_checked() {
    let app = TestApp::builder().closed(&[]).start().await;
    let (_, admin) = app.make_key(&["admin"], &[]).await;
    let cut = TestApp::builder().closed(&[]).with_background_tasks().behind_a_faulty_network().start_beside(&app).await;
    eventually("the key is known", async || cut.admin_as(&admin, "/debug/cache/stats").await.status == 200).await;
    cut.network().set(crate::harness::faulty::Fault::Refuse).await;
    eventually("the key cannot be checked", async || cut.admin_as(&admin, "/debug/cache/stats").await.status == 503)
        .await;
    assert_eq!(cut.admin("/debug/cache/stats").await.status, 401);
    let local = TestApp::start().await;
    assert_eq!(local.admin("/debug/cache/stats").await.status, 200, "on loopback whoever comes may");
}
