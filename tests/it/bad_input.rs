//! Whatever a caller sends wrong: a 4xx `application/problem+json` that names the field and what is allowed, never a 5xx and
//! never a panic.

use axum::{
    body::Body,
    http::{Method, Request, StatusCode, header},
};
use insta::assert_json_snapshot;
use serde_json::{Value, json};

use crate::harness::{Reply, TestApp, client::Problems, fixtures::GUIDE};

async fn with_guide() -> TestApp {
    let app = TestApp::builder().with_max_body_bytes(16 * 1024).start().await;
    app.ingest(&GUIDE, "guide", "1.0.0").await;
    app
}

/// A request with a body of its own content type.
async fn send(app: &TestApp, method: Method, path: &str, content_type: &str, body: impl Into<Body>) -> Reply {
    let request = Request::builder().method(method).uri(path).header(header::CONTENT_TYPE, content_type);
    app.send(request.body(body.into()).unwrap()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_private_door_says_what_it_has() {
    let app = TestApp::start().await;
    for (path, status, code) in [("/nothing", 404, "not_found"), ("/debug/cache/clear", 405, "method_not_allowed")] {
        let reply = app.admin(path).await;
        assert_eq!((reply.status.as_u16(), &reply.json()["code"]), (status, &json!(code)), "{path}");
        let detail = reply.json()["detail"].to_string();
        assert!(detail.contains(path) && detail.contains("/debug/pprof/"), "{detail}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parameters_are_refused_by_name_with_what_is_allowed() {
    let app = with_guide().await;
    let long = format!("query={}", "x".repeat(2_001));
    let mut problems = Problems::new();
    for (name, parameters) in [
        ("unknown parameter", "query=x&limit=5"),
        ("two unknown parameters", "query=x&limit=5&offset=1"),
        ("no query", "match_count=5"),
        ("empty query", "query="),
        ("blank query", "query=%20%09"),
        ("query of 2,001 characters", &long),
        ("query twice", "query=a&query=b"),
        ("NUL in query", "query=a%00b"),
        ("match_count 0", "query=x&match_count=0"),
        ("match_count 101", "query=x&match_count=101"),
        ("match_count five", "query=x&match_count=five"),
        ("match_count 5.5", "query=x&match_count=5.5"),
        ("unknown mode", "query=x&mode=semantic"),
        ("unknown fusion", "query=x&fusion=sum"),
        ("unknown content", "query=x&content=all"),
        ("alpha too large", "query=x&alpha=1.1"),
        ("alpha NaN", "query=x&alpha=NaN"),
        ("min_similarity infinite", "query=x&min_similarity=inf"),
        ("min_keyword_score negative", "query=x&min_keyword_score=-1"),
        ("ef_search 0", "query=x&ef_search=0"),
        ("exact maybe", "query=x&exact=maybe"),
        ("empty source", "query=x&source="),
        ("empty version", "query=x&version="),
        ("several at once", "query=&match_count=0&mode=semantic&alpha=2"),
    ] {
        let reply = app.get(&format!("/api/search?{parameters}")).await;
        assert!(reply.status.is_client_error(), "{name}: {}", reply.text());
        problems.insert(name.to_owned(), reply.problem());
    }
    assert_json_snapshot!("bad_parameters", problems);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_sources_and_versions_are_not_found_and_say_what_there_is() {
    let app = with_guide().await;
    app.ingest(&GUIDE, "guide", "2.0.0").await;
    let mut problems = Problems::new();
    for (name, parameters) in [
        ("unknown source", "source=tokio"),
        ("pattern without a match", "source=tok*"),
        ("unknown version", "version=3.0.0"),
        ("unknown version of a source", "version=3.0.0&source=guide"),
        ("range without a match", "version=3.x&source=guide"),
    ] {
        let reply = app.get(&format!("/api/search?query=x&{parameters}")).await;
        assert_eq!(reply.status, StatusCode::NOT_FOUND, "{name}: {}", reply.text());
        problems.insert(name.to_owned(), reply.problem());
    }
    assert_json_snapshot!("unknown_sources_and_versions", problems);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn text_that_is_not_utf8_is_refused() {
    let app = with_guide().await;
    let mut problems = Problems::new();
    for (name, path) in [
        ("value", "/api/search?query=%ff%fe"),
        ("name", "/api/search?%ff=1&query=x"),
        ("overlong", "/api/search?query=%c0%af"),
        ("source in a path", "/api/sources/%ff"),
        ("page in a path", "/api/pages/%ff"),
        ("chunk in a path", "/api/chunks/%ff"),
    ] {
        let reply = app.get(path).await;
        assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{name}: {}", reply.text());
        problems.insert(name.to_owned(), reply.problem());
    }
    let body = b"{\"query\": \"\xff\xfe\"}".to_vec();
    let reply = send(&app, Method::POST, "/api/search", "application/json", body).await;
    problems.insert("body".to_owned(), reply.problem());
    assert_json_snapshot!("not_utf8", problems);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compressed_body_is_refused_for_that() {
    let app = TestApp::start().await;
    for (coding, status) in [("gzip", 415), ("identity", 200)] {
        let request = Request::post("/api/search").header("content-type", "application/json");
        let request = request.header("content-encoding", coding).body(Body::from("{\"query\": \"x\"}")).unwrap();
        assert_eq!(app.send(request).await.status.as_u16(), status, "{coding}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_are_refused_with_the_reason() {
    let app = with_guide().await;
    let json = "application/json";
    let large = json!({ "query": "x", "source": "y".repeat(20_000) }).to_string();
    let deep = format!("{{\"query\": {}", "[".repeat(10_000));
    let mut problems = Problems::new();
    for (name, content_type, body, status) in [
        ("over the cap", json, large.as_str(), 413),
        ("malformed", json, "{\"query\": ", 400),
        ("nothing", json, "", 400),
        ("a list", json, "[]", 400),
        ("nested 10,000 deep", json, deep.as_str(), 400),
        ("a number beyond all bounds", json, "{\"query\": \"x\", \"alpha\": 1e400}", 400),
        ("not a number", json, "{\"query\": \"x\", \"alpha\": NaN}", 400),
        ("a name twice", json, "{\"query\": \"x\", \"query\": \"y\"}", 400),
        ("text after the end", json, "{\"query\": \"x\"} {}", 400),
        ("a form", "application/x-www-form-urlencoded", "query=x", 415),
        ("text", "text/plain", "{\"query\": \"x\"}", 415),
        ("unknown field", json, "{\"query\": \"x\", \"limit\": 5}", 400),
        ("a number as query", json, "{\"query\": 5}", 422),
        ("text as match_count", json, "{\"query\": \"x\", \"match_count\": \"5\"}", 422),
        ("NUL", json, "{\"query\": \"a\\u0000b\"}", 422),
        ("half a surrogate pair", json, "{\"query\": \"\\ud800\"}", 400),
        ("an object as source", json, "{\"query\": \"x\", \"source\": {}}", 422),
        ("101 sources", json, &json!({ "query": "x", "source": vec!["a"; 101] }).to_string(), 422),
    ] {
        let reply = send(&app, Method::POST, "/api/search", content_type, body.to_owned()).await;
        assert_eq!(reply.status.as_u16(), status, "{name}: {}", reply.text());
        problems.insert(name.to_owned(), reply.problem());
    }
    assert_json_snapshot!("bad_bodies", problems);
    let mixed_case =
        send(&app, Method::POST, "/api/search", "Application/JSON; charset=utf-8", "{\"query\":\"x\"}").await;
    assert_eq!(mixed_case.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_without_a_content_type_is_refused() {
    let app = with_guide().await;
    let request = Request::post("/api/search").body(Body::from("{\"query\":\"x\"}")).unwrap();
    let reply = app.send(request).await;
    assert_eq!(reply.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    reply.problem();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_routes_and_wrong_methods_are_problems_too() {
    let app = with_guide().await;
    let mut problems = Problems::new();
    for (method, path, status) in [
        (Method::GET, "/api/serach", 404),
        (Method::GET, "/nothing/here?query=x", 404),
        (Method::GET, "/assets/nothing.js", 404),
        (Method::GET, "/api/pages/none", 422),
        (Method::GET, "/api/pages/9223372036854775808", 422),
        (Method::GET, "/api/pages/404404404", 404),
        (Method::GET, "/api/chunks/none", 422),
        (Method::GET, "/api/chunks/404404404", 404),
        (Method::GET, "/api/chunks/1?before=21", 422),
        (Method::GET, "/api/sources/nobody", 404),
        (Method::DELETE, "/api/search", 405),
        (Method::PUT, "/api/sources/guide", 405),
        (Method::POST, "/api/health", 405),
        (Method::from_bytes(b"BREW").unwrap(), "/api/search", 405),
    ] {
        let name = format!("{method} {path}");
        let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
        let reply = app.send(request).await;
        assert_eq!(reply.status.as_u16(), status, "{name}: {}", reply.text());
        problems.insert(name, reply.problem());
    }
    assert_json_snapshot!("unknown_routes_and_methods", problems);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_values_never_make_a_server_error() {
    let app = with_guide().await;
    let values = [
        "",
        "0",
        "-1",
        "1e309",
        "NaN",
        "null",
        "true",
        "[]",
        "{}",
        "%00",
        "%ff",
        "'",
        "%22",
        "%25",
        "*",
        "**",
        "a*b*c*d",
        "..%2f",
        "9223372036854775808",
        "%F0%9F%9A%80",
        "%E2%80%AE",
        "%0d%0aX-Injected:%201",
    ];
    let fields = [
        "query",
        "match_count",
        "source",
        "version",
        "mode",
        "alpha",
        "fusion",
        "min_similarity",
        "min_keyword_score",
        "exact",
        "ef_search",
        "content",
        "highlight",
        "explain",
        "cursor",
    ];
    for field in fields {
        for value in values {
            let query = if field == "query" { "" } else { "query=pool&" };
            let reply = app.get(&format!("/api/search?{query}{field}={value}")).await;
            assert!(!reply.status.is_server_error(), "{field}={value}: {}", reply.text());
            assert_eq!(reply.header("x-injected"), "", "{field}={value}");
        }
    }
    for body in [json!(null), json!(5), json!("x"), json!([{}]), json!({ "query": {} }), json!({ "": 1, "query": "x" })]
    {
        let reply = app.post("/api/search", &body).await;
        assert!(reply.status.is_client_error(), "{body}: {}", reply.text());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_of_a_source_are_checked_as_strictly() {
    let app = with_guide().await;
    let mut problems = Problems::new();
    for (name, body) in [
        ("unknown field", json!({ "name": "x" })),
        ("title too long", json!({ "title": "x".repeat(201) })),
        ("title a number", json!({ "title": 5 })),
        ("tags with an empty one", json!({ "tags": ["a", ""] })),
        ("too many tags", json!({ "tags": vec!["a"; 51] })),
        ("unknown default_version", json!({ "default_version": "9.x" })),
        ("a list", Value::Array(Vec::new())),
    ] {
        let reply = app.patch("/api/sources/guide", &body).await;
        assert!(reply.status.is_client_error(), "{name}: {}", reply.text());
        problems.insert(name.to_owned(), reply.problem());
    }
    problems.insert(
        "unknown source".to_owned(),
        app.patch("/api/sources/nobody", &json!({ "title": "x" })).await.problem(),
    );
    problems.insert(
        "unknown source and version".to_owned(),
        app.patch("/api/sources/nobody", &json!({ "default_version": "9.x" })).await.problem(),
    );
    assert_json_snapshot!("bad_changes_of_a_source", problems);
}
