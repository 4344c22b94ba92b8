//! One leg fails: the other answers and says so. Nothing is left: an error, never an empty list.

use std::time::Duration;

use axum::http::StatusCode;
use insta::assert_json_snapshot;
use serde_json::Value;

use crate::harness::{TestApp, client::texts, eventually, fixtures::GUIDE, redact};

async fn with_guide() -> TestApp {
    let app = TestApp::start().await;
    app.ingest(&GUIDE, "guide", "1.0.0").await;
    app
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_model_leaves_answers_from_words() {
    let app = with_guide().await;
    app.probe.fail_next(1);
    let answer = app.search("query=exponential+backoff&match_count=1&explain=true").await;
    assert_json_snapshot!("answer_from_words_alone", redact(&answer));
    app.probe.fail_next(1);
    let reply = app.get("/api/search?query=exponential+backoff&mode=vector").await;
    assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_json_snapshot!("problem_embedder_unavailable", reply.problem());
    app.probe.fail_next(1);
    let words = app.search("query=exponential+backoff&mode=keyword").await;
    assert_eq!(words["degraded"], false, "words need no model");
    app.probe.fail_next(0);
    let well = app.search("query=exponential+backoff").await;
    assert_eq!((&well["degraded"], &well["degraded_reason"]), (&Value::Bool(false), &Value::Null));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_is_too_slow_leaves_answers_from_words() {
    let app = TestApp::builder().with_embed_timeout(Duration::from_millis(50)).start().await;
    app.ingest(&GUIDE, "guide", "1.0.0").await;
    app.probe.hold();
    let answer = app.search("query=exponential+backoff").await;
    assert_eq!(answer["degraded_reason"], "embedder_timeout: answered from words alone");
    assert_eq!(answer["next_cursor"], Value::Null, "a page of a degraded answer could not be gone on with");
    assert_eq!(texts(&answer, "url"), ["retry.md"]);
    let reply = app.get("/api/search?query=exponential+backoff&mode=vector").await;
    assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE);
    app.probe.release();
    eventually("the model answers again", async || app.search("query=backoff").await["degraded"] == false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_keyword_leg_leaves_answers_from_vectors() {
    let app = with_guide().await;
    app.execute("alter table chunk_words rename to chunk_words_away").await;
    let answer = app.search("query=exponential+backoff&match_count=1").await;
    assert_eq!(answer["degraded_reason"], "keyword_search_unavailable: answered from vectors alone");
    assert_eq!(texts(&answer, "url"), ["retry.md"]);
    assert_eq!(app.search("query=exponential+backoff&mode=vector").await["degraded"], false);
    let reply = app.get("/api/search?query=exponential+backoff&mode=keyword").await;
    assert_json_snapshot!("problem_keyword_leg", reply.problem());
    app.execute("alter table chunk_words_away rename to chunk_words").await;
    assert_eq!(app.search("query=exponential+backoff").await["degraded"], false);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_vector_leg_leaves_answers_from_words() {
    let app = with_guide().await;
    app.execute("alter table chunk_vectors rename to chunk_vectors_away").await;
    let answer = app.search("query=exponential+backoff").await;
    assert_eq!(answer["degraded_reason"], "vector_search_unavailable: answered from words alone");
    assert_eq!(texts(&answer, "url"), ["retry.md"]);
    let reply = app.get("/api/search?query=exponential+backoff&mode=vector").await;
    assert_json_snapshot!("problem_vector_leg", reply.problem());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_legs_failing_is_an_error_that_tells_no_internals() {
    let app = with_guide().await;
    app.execute("alter table chunk_words rename to chunk_words_away").await;
    app.probe.fail_next(1);
    let reply = app.get("/api/search?query=exponential+backoff").await;
    assert!(reply.status.is_server_error());
    assert!(!reply.text().contains("chunk_words"), "{}", reply.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn vectors_of_another_model_are_never_compared() {
    let app = with_guide().await;
    let other = TestApp::builder().with_dimensions(128).start_beside(&app).await;
    let answer = other.search("query=exponential+backoff").await;
    assert_eq!(answer["degraded_reason"], "embedding_model_mismatch: answered from words alone");
    let reply = other.get("/api/search?query=exponential+backoff&mode=vector").await;
    assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_json_snapshot!("problem_model_mismatch", reply.problem());
    // A second source, by the other model: each searches its own, and says what it could not compare.
    other.ingest(&[("page.md", "# Backoff\n\nAnother exponential backoff.\n")], "second", "1.0.0").await;
    let mixed = other.search("query=exponential+backoff&mode=vector").await;
    assert_eq!(texts(&mixed, "source_id"), ["second"]);
    assert!(mixed["degraded_reason"].as_str().unwrap().starts_with("embedding_model_mismatch"));
    let own = other.search("query=exponential+backoff&mode=vector&source=second").await;
    assert_eq!(own["degraded"], false);
}
