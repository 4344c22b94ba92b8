//! `/api/pages`: a page by its address or id, whole or in parts.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use axum::http::StatusCode;
use insta::assert_json_snapshot;
use serde_json::{Value, json};

use crate::harness::{TestApp, client::Problems, eventually, fixtures::GUIDE, redact, within};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_is_read_by_its_address_and_by_its_id() {
    let app = TestApp::start().await;
    app.ingest(&GUIDE, "guide", "1.0.0").await;
    let by_url = app.get("/api/pages?url=pool.md").await;
    assert_eq!(by_url.status, StatusCode::OK, "{}", by_url.text());
    assert_json_snapshot!("page", redact(&by_url.json()));
    let id = by_url.json()["page_id"].clone();
    assert_eq!(app.get(&format!("/api/pages/{id}")).await.body, by_url.body);
    for (url, content_type) in [("changes.html", "text/html"), ("notes.txt", "text/plain")] {
        assert_eq!(app.get(&format!("/api/pages?url={url}")).await.json()["content_type"], content_type);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_is_read_in_parts_that_make_the_whole() {
    let app = TestApp::start().await;
    app.ingest(&GUIDE, "guide", "1.0.0").await;
    let whole = app.get("/api/pages?url=unicode.md").await.json();
    let mut text = String::new();
    let mut offset = json!(0);
    while !offset.is_null() {
        let part = app.get(&format!("/api/pages?url=unicode.md&max_tokens=3&offset={offset}")).await.json();
        assert_eq!((&part["offset"], &part["total_characters"]), (&offset, &whole["total_characters"]));
        text.push_str(part["content"].as_str().unwrap());
        offset = part["next_offset"].clone();
    }
    assert_eq!(text, whole["content"].as_str().unwrap());
    let beyond = app.get("/api/pages?url=unicode.md&offset=100000").await.json();
    assert_eq!((&beyond["content"], &beyond["next_offset"]), (&json!(""), &Value::Null));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_in_several_versions_means_the_default_one_unless_named() {
    let app = TestApp::start().await;
    for version in ["2.0.0", "1.0.0"] {
        app.ingest(&[("page.md", &format!("# Page\n\nOf {version}.\n"))], "guide", version).await;
    }
    for (parameters, version) in [("", "2.0.0"), ("&version=1.x", "1.0.0"), ("&version=1.0.0&source=guide", "1.0.0")] {
        let page = app.get(&format!("/api/pages?url=page.md{parameters}")).await.json();
        assert_eq!(page["version"], version, "{parameters}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_there_or_not_allowed_is_a_problem() {
    let app = TestApp::start().await;
    app.ingest(&GUIDE, "guide", "1.0.0").await;
    let mut problems = Problems::new();
    for path in [
        "/api/pages",
        "/api/pages?url=",
        "/api/pages?url=nothing.md",
        "/api/pages?url=pool.md&source=nobody",
        "/api/pages?url=pool.md&source=guide&source=other",
        "/api/pages?url=pool.md&max_tokens=0",
        "/api/pages?url=pool.md&offset=-1",
        "/api/pages?url=pool.md&page=2",
    ] {
        let reply = app.get(path).await;
        assert!(reply.status.is_client_error(), "{path}: {}", reply.text());
        problems.insert(path.to_owned(), reply.problem());
    }
    assert_json_snapshot!("bad_pages", problems);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_id_is_remembered_for_a_second_and_no_longer() {
    let app = TestApp::builder().behind_a_faulty_network().start().await;
    app.ingest(&GUIDE, "guide", "1.0.0").await;
    for place in ["/api/pages", "/api/chunks"] {
        let path = remembered_at(&app, place).await;
        within(Duration::from_secs(2), "asked again", async || {
            app.get(&path).await.status == StatusCode::SERVICE_UNAVAILABLE
        })
        .await;
    }
    app.network().restore().await;
}

/// Asks for what is not there, and once more without a database; returns what was remembered.
async fn remembered_at(app: &TestApp, place: &str) -> String {
    for attempt in 0..10 {
        // Not one that is remembered from the attempt before.
        let path = format!("{place}/{}", 999_000 + attempt);
        app.network().restore().await;
        let asked = Cell::new(Instant::now());
        eventually("it is not there", async || {
            asked.set(Instant::now());
            app.get(&path).await.status == StatusCode::NOT_FOUND
        })
        .await;
        app.network().break_networking().await;
        let reply = app.get(&path).await;
        // Unless the machine stood still until it was rightly forgotten.
        if asked.get().elapsed() < Duration::from_millis(800) {
            assert_eq!(reply.status, StatusCode::NOT_FOUND, "remembered: {path}");
            return path;
        }
    }
    panic!("the machine stands still all the time");
}
