//! The API's description: the committed file is what the code says, and it says every route.

use std::{collections::BTreeSet, fs, path::Path};

use serde_json::Value;

use crate::harness::{TestApp, fixtures::GUIDE};

const UPDATE: &str = "run `cargo run --release -- openapi > docs/openapi.json`, read what changed, and commit it";

#[test]
fn the_committed_description_is_what_the_code_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/openapi.json");
    let committed = fs::read_to_string(path).unwrap_or_default();
    let generated = doc_server::api::openapi().to_pretty_json().unwrap() + "\n";
    let differs = committed.lines().zip(generated.lines()).position(|(a, b)| a != b);
    assert!(
        committed == generated,
        "docs/openapi.json differs from line {:?} on; {UPDATE}",
        differs.map(|line| line + 1)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_hands_out_the_same_description() {
    let app = TestApp::start().await;
    let served = app.get("/openapi.json").await.json();
    let generated: Value = serde_json::from_str(&doc_server::api::openapi().to_json().unwrap()).unwrap();
    assert_eq!(served, generated);
    assert!(served["openapi"].as_str().unwrap().starts_with("3.1"));
}

/// Every path and method of the description.
fn operations(description: &Value) -> BTreeSet<(String, String)> {
    let paths = description["paths"].as_object().unwrap();
    let methods = |path: &Value| path.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    paths.iter().flat_map(|(path, item)| methods(item).into_iter().map(move |method| (path.clone(), method))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_described_operation_answers_and_every_failure_has_a_described_status() {
    let app = TestApp::start().await;
    app.ingest(&GUIDE, "guide", "1.0.0").await;
    let description = app.get("/openapi.json").await.json();
    for (path, method) in operations(&description) {
        let operation = &description["paths"][&path][&method];
        assert!(operation["operationId"].is_string() && operation["tags"][0].is_string(), "{method} {path}");
        let described = operation["responses"].as_object().unwrap();
        let asked = path
            .replace("{source_id}", "guide")
            .replace("{page_id}", "1")
            .replace("{chunk_id}", "1")
            .replace("{key_id}", "1");
        for target in [asked.clone(), format!("{asked}?query=pool&url=pool.md"), format!("{asked}?nonsense=1")] {
            let request = axum::http::Request::builder().method(method.to_uppercase().as_str()).uri(&target);
            let request = request.header("content-type", "application/json").body("{\"title\": 5}".into()).unwrap();
            let reply = app.send(request).await;
            let status = reply.status.as_u16().to_string();
            assert!(described.contains_key(&status), "{method} {target} answers {status}: {}", reply.text());
        }
    }
}

#[test]
fn every_route_of_the_router_is_described() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/api");
    let mut handlers = BTreeSet::new();
    for entry in walkdir::WalkDir::new(source).into_iter().flatten().filter(|entry| entry.file_type().is_file()) {
        let text = fs::read_to_string(entry.path()).unwrap();
        handlers.extend(text.match_indices("path = \"/api/").map(|(at, _)| {
            let rest = &text[at + "path = \"".len()..];
            rest[..rest.find('"').unwrap()].to_owned()
        }));
    }
    let description: Value = serde_json::from_str(&doc_server::api::openapi().to_json().unwrap()).unwrap();
    let described: BTreeSet<String> = operations(&description).into_iter().map(|(path, _)| path).collect();
    assert_eq!(handlers, described, "a handler with a path that no router has, or the other way round");
    let router = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/api/mod.rs")).unwrap();
    assert!(!router.contains(".route(\"/api/"), "routes of the API are added by `routes!`, which describes them");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_pages_load_nothing_from_elsewhere() {
    let app = TestApp::start().await;
    for page in ["/", "/docs/"] {
        let reply = app.get(page).await;
        assert_eq!(reply.status, 200, "{page}");
        let text = reply.text();
        for loaded in loaded_by(&text) {
            assert!(!loaded.contains("//"), "{page} loads {loaded}");
            let target = if loaded.starts_with('/') {
                loaded.clone()
            } else {
                format!("{page}{}", loaded.trim_start_matches("./"))
            };
            assert_eq!(app.get(&target).await.status, 200, "{page} loads {target}");
        }
    }
    let initializer = app.get("/docs/swagger-initializer.js").await.text();
    assert!(!initializer.contains("http://") && !initializer.contains("https://"), "{initializer}");
    assert!(initializer.contains("/openapi.json"), "{initializer}");
}

/// What the tags of a document load.
fn loaded_by(document: &str) -> Vec<String> {
    let attribute = |tag: &str, name: &str| {
        let at = tag.find(&format!("{name}=\""))? + name.len() + 2;
        Some(tag[at..at + tag[at..].find('"')?].to_owned())
    };
    document
        .split('<')
        .filter_map(|tag| match tag.split([' ', '>']).next()? {
            "script" | "img" | "iframe" => attribute(tag, "src"),
            "link" => attribute(tag, "href"),
            _ => None,
        })
        .filter(|loaded| !loaded.starts_with("data:"))
        .collect()
}
