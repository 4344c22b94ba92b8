//! Searches are answered before the layers, and at once when the answer lies ready: just what the layers would have answered.

use std::collections::BTreeMap;

use axum::{body::Body, http::Request};
use doc_server::api::rate_limit;

use crate::harness::{Reply, TestApp, fixtures::GUIDE};

fn request(path: &str, headers: &[(&str, &str)]) -> Request<Body> {
    let request = headers.iter().fold(Request::get(path), |request, (name, value)| request.header(*name, *value));
    request.body(Body::empty()).expect("a request")
}

/// All that is said, but for what differs from one request to the next.
fn said(reply: &Reply) -> (u16, BTreeMap<String, String>, bytes::Bytes) {
    let mut headers: BTreeMap<_, _> =
        reply.headers.iter().map(|(name, value)| (name.to_string(), format!("{value:?}"))).collect();
    for own in ["x-request-id", "server-timing"] {
        let value = headers.insert(own.to_owned(), String::new());
        assert!(value.is_some() || reply.status.is_client_error(), "{own}");
    }
    // It may turn between the two.
    if let Some(age) = headers.get_mut("age") {
        let seconds = age.trim_matches('"').parse::<u64>();
        assert!(seconds.is_ok_and(|seconds| seconds < 60), "{age}");
        age.clear();
    }
    // The router's answers leave without a length: the listener adds it.
    headers.remove("content-length");
    (reply.status.as_u16(), headers, reply.body.clone())
}

const QUESTION: &str = "/api/search?query=connection+pool&match_count=20";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_said_at_once_is_what_the_layers_say() {
    let app = TestApp::builder().with_background_tasks().start().await;
    app.ingest(&GUIDE, "guide", "1.0.0").await;
    let made = app.get(QUESTION).await;
    let tag = made.header("etag").to_owned();
    for headers in [
        &[] as &[(&str, &str)],
        &[("accept-encoding", "gzip, br")],
        &[("accept-encoding", "zstd"), ("origin", "https://docs.example.org")],
        &[("if-none-match", &tag)],
        &[("if-none-match", "*")],
        &[("if-none-match", "\"another\"")],
    ] {
        let at_once =
            app.at_once(&request(QUESTION, headers)).await.unwrap_or_else(|| panic!("{headers:?}: not at once"));
        let through = app.send_through_layers(request(QUESTION, headers)).await;
        assert_eq!(said(&at_once), said(&through), "{headers:?}");
    }
    let named = app.at_once(&request(QUESTION, &[("x-request-id", "mine")])).await.expect("at once");
    assert_eq!(named.header("x-request-id"), "mine");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_answered_early_is_what_the_layers_answer() {
    let app = TestApp::builder().with_background_tasks().start().await;
    app.ingest(&GUIDE, "guide", "1.0.0").await;
    let tag = app.get(QUESTION).await.header("etag").to_owned();
    let refresh = format!("{QUESTION}&cache=refresh");
    for (path, headers, status) in [
        (format!("{QUESTION}&cache=bypass"), &[] as &[(&str, &str)], 200),
        (format!("{QUESTION}&cache=bypass&timeout_ms=60000"), &[("origin", "https://docs.example.org")], 200),
        (refresh.clone(), &[("accept-encoding", "gzip")], 200),
        (refresh, &[("if-none-match", &tag)], 200),
        (format!("{QUESTION}&source=nowhere"), &[("x-request-id", "mine")], 404),
    ] {
        let early = app.early(&request(&path, headers)).await.unwrap_or_else(|| panic!("{path}: not early"));
        let through = app.send_through_layers(request(&path, headers)).await;
        assert_eq!(early.status.as_u16(), status, "{path}: {}", early.text());
        assert_eq!(said(&early), said(&through), "{path} {headers:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_to_wait_or_is_refused_is_not_said_at_once() {
    let app = TestApp::builder().with_background_tasks().start().await;
    app.ingest(&GUIDE, "guide", "1.0.0").await;
    assert!(app.at_once(&request(QUESTION, &[])).await.is_none(), "nobody has asked it yet");
    let _ = app.get(QUESTION).await;
    assert!(app.at_once(&request(QUESTION, &[])).await.is_some());
    for path in [
        "/api/search?query=connection+pool&match_count=20&cache=refresh",
        "/api/search?query=connection+pool&match_count=20&cache=bypass",
        "/api/search?query=connection+pool&match_count=0",
        "/api/search?query=connection+pool&match_count=20&unknown=1",
        "/api/search?query=connection+pool&match_count=20&source=nowhere",
        "/api/search?query=%FF",
        "/api/search/?query=connection+pool&match_count=20",
        "/api/sources",
    ] {
        assert!(app.at_once(&request(path, &[])).await.is_none(), "{path}");
    }
    let wrong_key = [("authorization", "Bearer dsk_wrong")];
    assert!(app.at_once(&request(QUESTION, &wrong_key)).await.is_none());
    assert_eq!(app.send(request(QUESTION, &wrong_key)).await.status.as_u16(), 401);
    // New documents are another answer.
    app.ingest(&GUIDE, "guide", "2.0.0").await;
    assert!(app.at_once(&request(QUESTION, &[])).await.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_at_once_are_counted_as_all_others() {
    let limits = rate_limit::Config { address: std::num::NonZeroU32::new(5), ..rate_limit::Config::default() };
    let app = TestApp::builder().with_limits(limits).start().await;
    app.ingest(&GUIDE, "guide", "1.0.0").await;
    assert_eq!(app.get(QUESTION).await.header("x-cache"), "miss");
    for left in (0..4).rev() {
        let reply = app.at_once(&request(QUESTION, &[])).await.expect("within the limit");
        assert!(reply.header("ratelimit").contains(&format!("r={left};")), "{}", reply.header("ratelimit"));
    }
    let refused = app.at_once(&request(QUESTION, &[])).await.expect("refused at once too");
    assert_eq!((refused.status.as_u16(), refused.header("x-cache")), (429, ""));
    assert_eq!(refused.header("content-type"), "application/problem+json");
    assert_eq!(refused.json()["request_id"], refused.header("x-request-id"));
}
