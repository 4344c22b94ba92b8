//! How answers leave: compressed for those who take it, closed to other sites' pages, and with a browser's guards.

use std::io::Read;

use axum::{body::Body, http::Request};

use crate::harness::{Reply, TestApp, fixtures::GUIDE};

async fn ask(app: &TestApp, path: &str, headers: &[(&str, &str)]) -> Reply {
    let request = headers.iter().fold(Request::get(path), |request, (name, value)| request.header(*name, *value));
    app.send(request.body(Body::empty()).unwrap()).await
}

fn ungzip(bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(bytes).read_to_end(&mut plain).expect("gzip");
    plain
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_is_the_same_in_every_coding_and_from_the_cache() {
    let app = TestApp::start().await;
    app.ingest(&GUIDE, "guide", "1.0.0").await;
    let path = "/api/search?query=connection+pool&match_count=20";
    let plain = ask(&app, path, &[]).await;
    assert!(plain.body.len() > 1_024, "long enough to be worth compressing: {}", plain.body.len());
    assert_eq!((plain.header("content-encoding"), plain.header("vary")), ("", "accept-encoding"));
    for _ in 0..2 {
        let gzip = ask(&app, path, &[("accept-encoding", "gzip")]).await;
        assert_eq!((gzip.header("content-encoding"), gzip.header("x-cache")), ("gzip", "hit-l1"));
        assert_eq!(ungzip(&gzip.body), plain.body);
        assert_eq!(gzip.header("etag"), plain.header("etag"));
        let zstd = ask(&app, path, &[("accept-encoding", "gzip;q=0.5, zstd")]).await;
        assert_eq!(zstd.header("content-encoding"), "zstd");
        assert_eq!(zstd::decode_all(&zstd.body[..]).expect("zstd"), plain.body);
    }
    let tag = plain.header("etag").to_owned();
    let unchanged = ask(&app, path, &[("accept-encoding", "br"), ("if-none-match", &tag)]).await;
    assert_eq!((unchanged.status.as_u16(), unchanged.body.len()), (304, 0));
    assert_eq!(unchanged.header("content-encoding"), "");
    let refused = ask(&app, path, &[("accept-encoding", "gzip;q=0, identity")]).await;
    assert_eq!((refused.header("content-encoding"), &refused.body), ("", &plain.body));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_else_is_compressed_as_it_is_sent() {
    let app = TestApp::start().await;
    let plain = ask(&app, "/openapi.json", &[]).await;
    let gzip = ask(&app, "/openapi.json", &[("accept-encoding", "gzip")]).await;
    assert_eq!(gzip.header("content-encoding"), "gzip");
    assert_eq!(ungzip(&gzip.body), plain.body);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_other_sites_read_answers_only_where_that_is_allowed() {
    let origin = [("origin", "https://docs.example.org")];
    let closed = TestApp::start().await;
    assert_eq!(ask(&closed, "/api/sources", &origin).await.header("access-control-allow-origin"), "");
    let open = TestApp::builder().with_cors_origins("https://docs.example.org").start().await;
    let allowed = |reply: &Reply| reply.header("access-control-allow-origin").to_owned();
    let reply = ask(&open, "/api/search?query=pool", &origin).await;
    assert_eq!(allowed(&reply), "https://docs.example.org");
    assert!(reply.header("access-control-expose-headers").contains("x-cache"));
    assert_eq!(allowed(&ask(&open, "/api/sources", &[("origin", "https://evil.example")]).await), "");
    let preflight = Request::options("/api/search")
        .header("origin", "https://docs.example.org")
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "content-type");
    let reply = open.send(preflight.body(Body::empty()).unwrap()).await;
    assert_eq!((reply.status.as_u16(), allowed(&reply).as_str()), (200, "https://docs.example.org"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn browsers_are_told_to_do_no_more_than_the_page_needs() {
    let app = TestApp::start().await;
    for path in ["/", "/assets/search.js", "/docs/", "/openapi.json", "/api/sources", "/nothing"] {
        assert_eq!(ask(&app, path, &[]).await.header("x-content-type-options"), "nosniff", "{path}");
    }
    for path in ["/", "/docs/"] {
        let reply = ask(&app, path, &[]).await;
        let policy = reply.header("content-security-policy");
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{path}: {policy}");
        assert_eq!(reply.header("x-frame-options"), "DENY", "{path}");
    }
}
