//! `/api/chunks/{id}`: a passage with those around it.

use axum::http::StatusCode;
use insta::assert_json_snapshot;
use serde_json::Value;

use crate::harness::{TestApp, fixtures::GUIDE, redact};

/// A page of several chunks: each section fills one.
fn long_page() -> String {
    let section = |nth: usize| format!("## Section {nth}\n\n{}\n\n", format!("Word{nth} and more words. ").repeat(40));
    (1..=6).fold("# Long page\n\n".to_owned(), |page, nth| page + &section(nth))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_passage_is_read_with_its_neighbours_in_page_order() {
    let app = TestApp::start().await;
    app.ingest(&[("long.md", &long_page())], "guide", "1.0.0").await;
    let found = app.search("query=word3&mode=keyword&match_count=1").await;
    let hit = &found["results"][0];
    let (id, number) = (hit["chunk_id"].as_i64().unwrap(), hit["chunk_number"].as_i64().unwrap());
    assert!(number > 0, "{hit}");
    let numbers = async |parameters: &str| -> Vec<i64> {
        let body = app.get(&format!("/api/chunks/{id}{parameters}")).await.json();
        body["chunks"].as_array().unwrap().iter().map(|chunk| chunk["chunk_number"].as_i64().unwrap()).collect()
    };
    assert_eq!(numbers("").await, [number]);
    assert_eq!(numbers("?before=1&after=1").await, [number - 1, number, number + 1]);
    let all = numbers("?before=20&after=20").await;
    assert_eq!(all, (0..i64::try_from(all.len()).unwrap()).collect::<Vec<_>>());
    let alone = app.get(&format!("/api/chunks/{id}")).await.json();
    assert_eq!(alone["chunks"][0]["content"], hit["content"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_passage_of_code_tells_its_language() {
    let app = TestApp::start().await;
    app.ingest(&GUIDE, "guide", "1.0.0").await;
    let found = app.search("query=unpack+archive&mode=keyword&match_count=1").await;
    let reply = app.get(&format!("/api/chunks/{}?after=1", found["results"][0]["chunk_id"])).await;
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
    assert_json_snapshot!("chunk", redact(&reply.json()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_passage_that_was_replaced_is_gone() {
    let app = TestApp::start().await;
    app.ingest(&GUIDE[..2], "guide", "1.0.0").await;
    let found = app.search("query=backoff&mode=keyword").await;
    let id: &Value = &found["results"][0]["chunk_id"];
    assert_eq!(app.get(&format!("/api/chunks/{id}")).await.status, StatusCode::OK);
    app.ingest(&GUIDE[..1], "guide", "1.0.0").await;
    assert_eq!(app.get(&format!("/api/chunks/{id}")).await.status, StatusCode::NOT_FOUND);
}
