//! Cursors: every result once, in one order, in the documents of the first answer.

use std::collections::HashSet;

use axum::http::StatusCode;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use insta::assert_json_snapshot;
use serde_json::{Value, json};

use crate::harness::{
    TestApp,
    client::each,
    fixtures::{GUIDE, borrowed, many_pages},
};

/// Walks every page of `parameters` and returns the results' chunks in their order.
async fn walk(app: &TestApp, parameters: &str) -> Vec<Value> {
    let mut chunks = Vec::new();
    let mut cursor = String::new();
    loop {
        let answer = app.search(&format!("{parameters}{cursor}")).await;
        chunks.extend(each(&answer, "chunk_id"));
        assert_eq!(answer["has_more"], answer["next_cursor"].is_string(), "{parameters}{cursor}");
        match answer["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return chunks,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn walking_all_pages_gives_each_result_once_a_thousand_deep() {
    let app = TestApp::start().await;
    app.ingest(&borrowed(&many_pages(1_050)), "many", "1.0.0").await;
    // An analyze between two pages may bring another plan, which puts equals at the last place in another order.
    app.execute("analyze").await;
    for mode in ["hybrid", "vector", "vector&exact=true", "keyword"] {
        let parameters = format!("query=common+page&mode={mode}&content=none");
        let by_hundred = walk(&app, &format!("{parameters}&match_count=100")).await;
        assert_eq!(by_hundred.len(), 1_000, "{mode}");
        assert_eq!(by_hundred.iter().collect::<HashSet<_>>().len(), 1_000, "{mode}: no result twice");
        let by_other_number = walk(&app, &format!("{parameters}&match_count=70")).await;
        assert_eq!(by_other_number, by_hundred, "{mode}: the same order whatever the page size");
    }
    // Another source whose passages are all nearer: the index walk goes past them until enough are found.
    let nearer: Vec<_> =
        (0..1_050).map(|nth| (format!("{nth}.md"), format!("# Common page\n\nCommon page {nth}.\n"))).collect();
    app.ingest(&borrowed(&nearer), "nearer", "1.0.0").await;
    app.execute("analyze").await;
    for mode in ["hybrid", "vector", "vector&ef_search=10", "keyword"] {
        let answer = app.search(&format!("query=common+page&mode={mode}&source=many&match_count=100")).await;
        assert_eq!(answer["count"], 100, "{mode}");
    }
    let all = walk(&app, "query=common+page&mode=vector&source=many&content=none&match_count=100").await;
    assert_eq!(all.iter().collect::<HashSet<_>>().len(), 1_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn few_results_end_without_an_empty_page() {
    let app = TestApp::start().await;
    app.ingest(&borrowed(&many_pages(30)), "many", "1.0.0").await;
    for mode in ["hybrid", "vector", "keyword"] {
        for size in [7, 10, 30] {
            let chunks = walk(&app, &format!("query=common&mode={mode}&match_count={size}")).await;
            assert_eq!(chunks.len(), 30, "{mode} by {size}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cursor_goes_only_with_the_query_that_made_it() {
    let app = TestApp::start().await;
    app.ingest(&GUIDE, "guide", "1.0.0").await;
    let answer = app.search("query=the+call&mode=vector&match_count=2").await;
    let cursor = answer["next_cursor"].as_str().unwrap();
    let page = app.search(&format!("query=the+call&mode=vector&match_count=3&cursor={cursor}")).await;
    assert_eq!(page["count"], 3, "another page size is no other query");
    for other in ["query=another&mode=vector", "query=the+call&mode=keyword", "query=the+call&mode=vector&source=guide"]
    {
        let reply = app.get(&format!("/api/search?{other}&cursor={cursor}")).await;
        assert_eq!(reply.status, StatusCode::UNPROCESSABLE_ENTITY, "{other}");
        assert_json_snapshot!("cursor_of_another_query", reply.problem());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forged_cursor_is_refused_or_harmless() {
    let app = TestApp::start().await;
    app.ingest(&GUIDE, "guide", "1.0.0").await;
    let answer = app.search("query=the+call&mode=vector&match_count=2").await;
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(answer["next_cursor"].as_str().unwrap()).unwrap();
    let cursor: Value = serde_json::from_slice(&bytes).unwrap();
    let with = |field: &str, value: Value| {
        let mut forged = cursor.clone();
        forged[field] = value;
        BASE64_URL_SAFE_NO_PAD.encode(forged.to_string())
    };
    for (forged, status) in [
        (with("o", json!(u64::MAX)), 422),
        (with("o", json!(1_001)), 422),
        (with("o", json!(-1)), 422),
        (with("g", json!([i64::MAX])), 410),
        (with("g", json!("x")), 422),
        ("AAAA".to_owned(), 422),
        ("%2E%2E".to_owned(), 422),
    ] {
        let reply = app.get(&format!("/api/search?query=the+call&mode=vector&cursor={forged}")).await;
        assert_eq!(reply.status.as_u16(), status, "{forged}: {}", reply.text());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cursor_outlives_publishes_until_its_documents_are_removed() {
    let app = TestApp::start().await;
    let pages = many_pages(20);
    app.ingest(&borrowed(&pages), "many", "1.0.0").await;
    let first = app.search("query=common&match_count=5&source=many").await;
    let cursor = first["next_cursor"].as_str().unwrap();
    let next = format!("/api/search?query=common&match_count=5&source=many&cursor={cursor}");
    let before = app.get(&next).await;
    assert_eq!(before.status, StatusCode::OK);
    app.ingest(&[("other.md", "# Other\n\ncommon\n")], "other", "1.0.0").await;
    app.ingest(&borrowed(&pages[..10]), "many", "1.0.0").await;
    assert_eq!(app.search("query=common&match_count=100&source=many").await["count"], 10);
    assert_eq!(app.get(&next).await.body, before.body, "it reads the documents of the first answer");
    app.index.remove_unreachable(std::time::Duration::ZERO).await.unwrap();
    let gone = app.get(&next).await;
    assert_eq!(gone.status, StatusCode::GONE);
    assert_json_snapshot!("cursor_of_removed_documents", gone.problem());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cursor_into_a_deleted_source_is_gone_at_once() {
    let app = TestApp::start().await;
    app.ingest(&borrowed(&many_pages(20)), "many", "1.0.0").await;
    let first = app.search("query=common&match_count=5").await;
    let next = format!("/api/search?query=common&match_count=5&cursor={}", first["next_cursor"].as_str().unwrap());
    app.delete("/api/sources/many").await;
    assert_eq!(app.get(&next).await.status, StatusCode::GONE);
}
