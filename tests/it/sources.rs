//! `/api/sources`: listed, shown, changed, deleted.

use axum::http::StatusCode;
use insta::assert_json_snapshot;
use serde_json::{Value, json};

use crate::harness::{TestApp, fixtures::GUIDE, redact};

/// The names in a list of sources.
fn names(list: &Value) -> Vec<&str> {
    list["sources"].as_array().unwrap().iter().map(|source| source["source_id"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shows_what_is_published_of_a_source() {
    let app = TestApp::start().await;
    assert_json_snapshot!("sources_none", app.get("/api/sources").await.json());
    app.ingest(&GUIDE, "guide", "1.0.0").await;
    app.ingest(&GUIDE[..2], "guide", "2.0.0").await;
    let list = app.get("/api/sources").await;
    assert_eq!(list.status, StatusCode::OK);
    assert_json_snapshot!("sources", redact(&list.json()));
    assert_eq!(app.get("/api/sources/guide").await.json(), list.json()["sources"][0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_with_slashes_and_signs_is_found_by_its_encoded_name() {
    let app = TestApp::start().await;
    app.ingest(&GUIDE[..1], "scope/@pkg-1.x", "1.0.0").await;
    let reply = app.get("/api/sources/scope%2F%40pkg-1.x").await;
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
    assert_eq!(reply.json()["source_id"], "scope/@pkg-1.x");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_in_pages_and_filters_by_text_and_label() {
    let app = TestApp::start().await;
    for source in ["delta", "alpha", "charlie", "bravo"] {
        app.ingest(&GUIDE[..1], source, "1.0.0").await;
    }
    let mut walked = Vec::new();
    let mut path = "/api/sources?limit=3".to_owned();
    loop {
        let list = app.get(&path).await.json();
        walked.extend(names(&list).into_iter().map(str::to_owned));
        assert_eq!(list["count"], list["sources"].as_array().unwrap().len());
        match list["next_cursor"].as_str() {
            Some(cursor) => path = format!("/api/sources?limit=3&cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!(walked, ["alpha", "bravo", "charlie", "delta"]);
    app.patch("/api/sources/bravo", &json!({ "tags": ["rust", "web"], "summary": "The SECOND letter" })).await;
    for (parameters, found) in [
        ("q=ALPH", vec!["alpha"]),
        ("q=second", vec!["bravo"]),
        ("tag=web", vec!["bravo"]),
        ("tag=we", vec![]),
        ("q=a&tag=rust", vec!["bravo"]),
    ] {
        assert_eq!(names(&app.get(&format!("/api/sources?{parameters}")).await.json()), found, "{parameters}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_sets_what_it_names_and_keeps_the_rest() {
    let app = TestApp::start().await;
    app.ingest(&GUIDE[..1], "guide", "1.0.0").await;
    let first =
        json!({ "title": "The Guide", "summary": "All of it", "url": "https://example.org", "tags": ["a", "b"] });
    let reply = app.patch("/api/sources/guide", &first).await;
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
    let reply = app.patch("/api/sources/guide", &json!({ "title": "Guide", "tags": [], "summary": null })).await;
    let shown = reply.json();
    assert_eq!((&shown["title"], &shown["tags"]), (&json!("Guide"), &json!([])));
    assert_eq!((&shown["summary"], &shown["url"]), (&json!("All of it"), &json!("https://example.org")));
    assert_eq!(app.patch("/api/sources/guide", &json!({})).await.json()["title"], "Guide");
    let other_replica = TestApp::builder().start_beside(&app).await;
    assert_eq!(other_replica.get("/api/sources/guide").await.json()["title"], "Guide");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_is_none_is_refused() {
    let app = TestApp::start().await;
    app.ingest(&GUIDE[..1], "guide", "1.0.0").await;
    let reply = app.patch("/api/sources/guide", &json!({ "url": "nope nope" })).await;
    assert_eq!(reply.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", reply.text());
    assert_eq!(reply.json()["errors"][0]["field"], "url");
    assert_eq!(app.patch("/api/sources/guide", &json!({ "url": "" })).await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_of_nothing_usable_leaves_neither_source_nor_version() {
    let app = TestApp::start().await;
    let unusable = tempfile::tempdir().unwrap();
    std::fs::write(unusable.path().join("binary.md"), [0, 159, 146, 150]).unwrap();
    let told = app.try_ingest(unusable.path(), "bin", "1.0.0").await.unwrap_err().to_string();
    assert!(told.contains("none of 1 files"), "{told}");
    assert_eq!(app.get("/api/sources/bin").await.status, StatusCode::NOT_FOUND);

    app.ingest(&GUIDE[..1], "guide", "1.0.0").await;
    for version in ["1.0.0", "2.0.0"] {
        app.try_ingest(unusable.path(), "guide", version).await.unwrap_err();
    }
    app.index.refresh_catalog().await.unwrap();
    let versions = app.get("/api/sources/guide").await.json()["versions"].clone();
    assert_eq!(versions.as_array().unwrap().len(), 1, "{versions}");
    assert_eq!(versions[0]["status"], "published");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_keeps_the_title_that_a_person_gave() {
    let app = TestApp::start().await;
    app.ingest(&GUIDE[..1], "guide", "1.0.0").await;
    app.patch("/api/sources/guide", &json!({ "title": "The Guide", "default_version": "1.x" })).await;
    app.ingest(&GUIDE[..2], "guide", "2.0.0").await;
    let source = app.get("/api/sources/guide").await.json();
    assert_eq!((&source["title"], &source["default_version"]), (&json!("The Guide"), &json!("1.0.0")));
    app.patch("/api/sources/guide", &json!({ "default_version": "latest" })).await;
    assert_eq!(app.get("/api/sources/guide").await.json()["default_version"], "2.0.0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_source_is_gone_at_once_and_its_name_is_free() {
    let app = TestApp::start().await;
    app.ingest(&GUIDE, "guide", "1.0.0").await;
    app.ingest(&[("page.md", "# Pool\n\nAnother pool.\n")], "other", "1.0.0").await;
    let found = app.search("query=pool&source=guide").await;
    let (chunk, page) = (found["results"][0]["chunk_id"].clone(), found["results"][0]["page_id"].clone());

    let reply = app.delete("/api/sources/guide").await;
    assert_eq!((reply.status, reply.body.len()), (StatusCode::NO_CONTENT, 0));
    for path in [
        "/api/sources/guide".to_owned(),
        "/api/search?query=pool&source=guide".to_owned(),
        format!("/api/chunks/{chunk}"),
        format!("/api/pages/{page}"),
        "/api/pages?url=pool.md".to_owned(),
    ] {
        assert_eq!(app.get(&path).await.status, StatusCode::NOT_FOUND, "{path}");
    }
    for mode in ["hybrid", "vector", "keyword"] {
        let rest = app.search(&format!("query=pool&match_count=100&mode={mode}")).await;
        assert_eq!((&rest["count"], &rest["results"][0]["source_id"]), (&json!(1), &json!("other")), "{mode}");
    }
    assert_eq!(app.delete("/api/sources/guide").await.status, StatusCode::NOT_FOUND);

    app.ingest(&GUIDE[..2], "guide", "1.0.0").await;
    let again = app.get("/api/sources/guide").await.json();
    assert_eq!(again["page_count"], 2);
    assert_eq!(app.search("query=pool&source=guide").await["results"][0]["url"], "pool.md");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_hears_of_changes_from_another() {
    let app = TestApp::start().await;
    let replica = TestApp::builder().with_background_tasks().start_beside(&app).await;
    assert_eq!(replica.get("/api/sources").await.json()["count"], 0);
    let listening = "select count(*) from pg_locks where locktype = 'advisory' and objsubid = 2
                     and database = (select oid from pg_database where datname = current_database())";
    crate::harness::eventually("the replica listens", async || app.count(listening).await > 0).await;
    // Whoever changes something waits for those that listen.
    app.ingest(&GUIDE[..1], "guide", "1.0.0").await;
    assert_eq!(replica.get("/api/sources").await.json()["count"], 1, "the publish is heard");
    app.delete("/api/sources/guide").await;
    assert_eq!(replica.get("/api/sources").await.json()["count"], 0, "the deletion is heard");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parameter_that_a_route_does_not_take_changes_nothing() {
    let app = TestApp::start().await;
    app.ingest(&GUIDE[..1], "guide", "1.0.0").await;
    let replies = [
        app.get("/api/sources/guide?version=1.0.0").await,
        app.delete("/api/sources/guide?version=1.0.0").await,
        app.patch("/api/sources/guide?version=1.0.0", &json!({"title": "Other"})).await,
        app.post("/api/search?source=other", &json!({"query": "pool"})).await,
    ];
    for reply in replies {
        assert_eq!(reply.status, StatusCode::BAD_REQUEST);
        assert_eq!(reply.json()["code"], "unknown_parameter");
    }
    assert_eq!(app.get("/api/sources/guide").await.json()["title"], "guide");
}
