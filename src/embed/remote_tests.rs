//! The remote backend against a local server that plays each provider's good and bad days.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::Mutex as StdMutex;

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
};
use serde_json::{Value, json};

use super::*;
use crate::embed::{Backend, Config, Embedder, tests::serve};

type Script = Arc<StdMutex<dyn FnMut(&Value, &HeaderMap) -> Response + Send>>;

async fn provider(answer: impl FnMut(&Value, &HeaderMap) -> Response + Send + 'static) -> String {
    async fn handle(State(script): State<Script>, headers: HeaderMap, Json(question): Json<Value>) -> Response {
        let mut script = script.lock().unwrap();
        script(&question, &headers)
    }
    let script: Script = Arc::new(StdMutex::new(answer));
    serve(Router::new().route("/v1/embeddings", post(handle)).with_state(script)).await
}

fn embedder(config: RemoteConfig) -> Embedder {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let config = Config { backend: Backend::Remote(config), queue_capacity: 64 };
    Embedder::new(config, &Lifecycle::new()).unwrap()
}

/// One vector per text, `[length of the text, 1]`, last text first.
fn vectors(question: &Value) -> Response {
    let texts = question["input"].as_array().unwrap();
    let item = |(index, text): (usize, &Value)| json!({"index": index, "embedding": [text.as_str().unwrap().len(), 1]});
    Json(json!({"data": texts.iter().enumerate().map(item).rev().collect::<Vec<_>>()})).into_response()
}

fn answer(body: &'static str) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

fn told(error: &Error) -> String {
    error.to_string().trim_start_matches("the embedding provider failed: ").to_owned()
}

#[tokio::test]
async fn sends_batches_with_the_key_and_orders_by_index() {
    let seen = Arc::new(StdMutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let url = provider(move |question, headers| {
        log.lock().unwrap().push((question.clone(), headers.get(header::AUTHORIZATION).cloned()));
        vectors(question)
    })
    .await;
    let mut config = RemoteConfig::new(format!("{url}/v1/"), "m");
    (config.api_key, config.dimensions, config.concurrency) = (Some(ApiKey::new("s3cret")), Some(2), 1);
    let embedder = embedder(config);
    assert_eq!(embedder.identity().await.unwrap().to_string(), "m/remote/2/m");
    assert!(seen.lock().unwrap().is_empty(), "nothing to ask for");
    let texts: Vec<String> = (1..=5).map(|length| "x".repeat(length)).collect();
    let found = embedder.embed_passages(&texts).await.unwrap();
    for (vector, length) in found.into_iter().map(Result::unwrap).zip(1_u8..) {
        assert!((vector[0] / vector[1] - f32::from(length)).abs() < 1e-4, "{vector:?}");
    }
    let seen = seen.lock().unwrap();
    assert!(seen.iter().all(|(_, key)| key.as_ref().unwrap() == "Bearer s3cret"));
    assert!(seen.iter().all(|(question, _)| question["model"] == "m" && question["dimensions"] == 2));
    assert_eq!(embedder.status(), Status::Ready);
}

#[tokio::test]
async fn learns_the_dimensions_from_one_call_and_requires_them_then() {
    let mut wide = false;
    let url = provider(move |question, _| {
        if std::mem::replace(&mut wide, true) {
            answer(r#"{"data": [{"index": 0, "embedding": [1, 2, 3]}]}"#)
        } else {
            vectors(question)
        }
    })
    .await;
    let embedder = embedder(RemoteConfig::new(url, "m"));
    assert_eq!(embedder.identity().await.unwrap().dimensions, 2);
    let error = embedder.embed_query("a").await.unwrap_err();
    assert_eq!(told(&error), "a vector of 3 numbers where the model has 2");
    assert_eq!(embedder.status(), Status::Failed { reason: error.to_string() });
}

#[tokio::test]
async fn answers_that_are_wrong_are_errors() {
    for (body, reason) in [
        (r#"{"data": []}"#, "0 vectors for 1 texts"),
        (r#"{"data": [{"index": 1, "embedding": [1, 2]}]}"#, "a vector with the index 1 where none is due"),
        (r#"{"data": [{"index": 0, "embedding": [0, 0]}]}"#, "a vector of zeros"),
        (r#"{"data": [{"index": 0, "embedding": []}]}"#, "a vector of zeros"),
        (r#"{"data": [{"index": 0, "embedding": [1e39, 0]}]}"#, "a vector with a number that is not finite"),
        (r#"{"data": [{"index": 0, "embedding": [null]}]}"#, "an answer that cannot be read"),
        ("<html>\n  hello</html>", "expected value at line 1 column 1): <html> hello</html>"),
    ] {
        let url = provider(move |_, _| answer(body)).await;
        let error = embedder(RemoteConfig::new(url, "m")).embed_query("a").await.unwrap_err();
        assert!(told(&error).contains(reason), "{error}");
    }
}

#[tokio::test]
async fn tries_again_after_429_and_5xx_but_not_after_other_refusals() {
    for (status, attempts) in [(429, 3), (500, 3), (503, 3), (401, 1), (404, 1), (302, 1)] {
        let mut count = 0;
        let url = provider(move |question, _| {
            count += 1;
            if count == 3 {
                return vectors(question);
            }
            let status = StatusCode::from_u16(status).unwrap();
            (status, [(header::RETRY_AFTER, "0"), (header::LOCATION, "/v1/embeddings")], "busy with s3cret")
                .into_response()
        })
        .await;
        let mut config = RemoteConfig::new(url, "m");
        config.api_key = Some(ApiKey::new("s3cret"));
        let found = embedder(config).embed_query("a").await;
        assert_eq!(found.is_ok(), attempts == 3, "{status}");
        if let Err(error) = found {
            assert_eq!(told(&error), format!("HTTP {status}: busy with (key)"));
        }
    }
}

#[tokio::test]
async fn does_not_wait_for_a_provider_that_asks_for_more_than_the_deadline() {
    let url = provider(|_, _| (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, "3600")]).into_response()).await;
    let error = embedder(RemoteConfig::new(url, "m")).embed_query("a").await.unwrap_err();
    assert_eq!(told(&error), "HTTP 429: ");
}

#[tokio::test]
async fn a_dead_provider_is_not_stormed() {
    let attempts = Arc::new(StdMutex::new(0));
    let count = Arc::clone(&attempts);
    let url = provider(move |_, _| {
        *count.lock().unwrap() += 1;
        (StatusCode::INTERNAL_SERVER_ERROR, [(header::RETRY_AFTER, "0")]).into_response()
    })
    .await;
    let embedder = embedder(RemoteConfig::new(url, "m"));
    for number in 0..50 {
        assert!(embedder.embed_query(&number.to_string()).await.is_err());
    }
    let attempts = *attempts.lock().unwrap();
    // A fifth more, and the reserve of three.
    assert!((55..=63).contains(&attempts), "{attempts}");
}

#[tokio::test]
async fn nobody_there_is_an_error_with_a_reason() {
    let embedder = embedder(RemoteConfig::new("http://127.0.0.1:1", "m"));
    let error = embedder.embed_query("a").await.unwrap_err();
    assert!(told(&error).contains("Connection refused"), "{error}");
}

#[tokio::test]
async fn silence_ends_at_the_deadline() {
    async fn silent() -> Response {
        futures::future::pending().await
    }
    let url = serve(Router::new().route("/v1/embeddings", post(silent))).await;
    let mut config = RemoteConfig::new(url, "m");
    config.timeout = Duration::from_millis(20);
    let error = embedder(config).embed_query("a").await.unwrap_err();
    assert_eq!(told(&error), "no answer within 20ms");
}

#[tokio::test]
async fn a_text_that_the_provider_refuses_loses_no_other() {
    let url = provider(|question, _| {
        let faulty = question["input"].as_array().unwrap().iter().any(|text| text == "bad");
        if faulty { (StatusCode::BAD_REQUEST, "cannot read this").into_response() } else { vectors(question) }
    })
    .await;
    let mut config = RemoteConfig::new(url, "m");
    config.concurrency = 1;
    let embedder = embedder(config);
    let texts: Vec<String> = ["a", "ab", "bad", "abcd", "abcde"].map(str::to_owned).into();
    let found = embedder.embed_passages(&texts).await.unwrap();
    assert_eq!(told(found[2].as_ref().unwrap_err()), "HTTP 400: cannot read this");
    for (index, length) in [(0, 1.0), (1, 2.0), (3, 4.0), (4, 5.0)] {
        let vector = found[index].as_ref().unwrap();
        assert!((vector[0] / vector[1] - length).abs() < 1e-4);
    }
    assert_eq!(embedder.status(), Status::Ready);
}

#[tokio::test]
async fn settings_that_cannot_work_are_named() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let good = RemoteConfig::new("http://localhost", "m");
    let key = |key| RemoteConfig { api_key: Some(ApiKey::new(key)), ..good.clone() };
    for (config, told) in [
        (RemoteConfig::new("localhost:80", "m"), "embed_url: \"localhost:80\": must begin with http:// or https://"),
        (RemoteConfig::new("", "m"), "embed_url: \"\": relative URL without a base"),
        (RemoteConfig { batch_size: 0, ..good.clone() }, "embed_batch_size: must be at least 1"),
        (key("a\nb"), "embed_api_key: is empty or has a character that no header may carry"),
        (key(""), "embed_api_key: is empty or has a character that no header may carry"),
    ] {
        assert_eq!(Remote::new(config, &Lifecycle::new()).err().unwrap().to_string(), told);
    }
    assert_eq!(format!("{:?}", ApiKey::new("s3cret")), "ApiKey(redacted)");
}
