//! The real model, through the whole import and search: meaning is found, and a text's vector is its own.

use crate::harness::{TestApp, client::texts};

/// Pages whose questions share no telling word with them.
const PAGES: [(&str, &str, &str); 10] = [
    (
        "boil.md",
        "# Boiling pasta\n\nBring salted water to the boil and cook the noodles until soft.",
        "how do I prepare spaghetti",
    ),
    ("tyres.md", "# Tyres\n\nCheck the air pressure of your wheels before a long drive.", "inflating a car's rubber"),
    (
        "lock.md",
        "# Mutual exclusion\n\nA mutex lets one thread at a time into a critical section.",
        "prevent data races between concurrent tasks",
    ),
    (
        "backup.md",
        "# Backups\n\nCopy the files to another disk every night so that nothing is lost.",
        "protect against losing my data when hardware dies",
    ),
    (
        "sleep.md",
        "# Rest\n\nAdults need about eight hours in bed each night.",
        "how long should a grown person slumber",
    ),
    (
        "index.md",
        "# Speeding up lookups\n\nA B-tree lets the database find rows without reading the whole table.",
        "my SQL select is slow",
    ),
    (
        "garden.md",
        "# Tomatoes\n\nWater the seedlings in the morning and give them plenty of sun.",
        "growing vegetables",
    ),
    (
        "login.md",
        "# Signing in\n\nEnter your name and password, then confirm with the code on your phone.",
        "two factor authentication",
    ),
    (
        "tax.md",
        "# Yearly return\n\nDeclare your income to the revenue office before the end of May.",
        "when do I have to pay the government",
    ),
    (
        "dog.md",
        "# Puppies\n\nA young dog should be walked often and never left alone for long.",
        "taking care of a pet",
    ),
];

fn files() -> Vec<(&'static str, &'static str)> {
    PAGES.iter().map(|(path, text, _)| (*path, *text)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn finds_the_page_that_means_what_was_asked() {
    let app = TestApp::builder().with_real_model().start().await;
    app.ingest(&files(), "life", "1.0.0").await;
    for mode in ["vector", "hybrid"] {
        let mut missed = Vec::new();
        for (path, _, question) in PAGES {
            let answer = app.search(&format!("query={}&mode={mode}&match_count=1", question.replace(' ', "+"))).await;
            assert_eq!(answer["degraded"], false);
            if texts(&answer, "url") != [path] {
                missed.push((question, texts(&answer, "url")));
            }
        }
        assert!(missed.is_empty(), "{mode}: {missed:?}");
    }
    let source = app.get("/api/sources/life").await.json();
    assert_eq!(source["embedding_model"], "all-MiniLM-L6-v2/int8");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_text_has_the_same_vector_whatever_is_imported_beside_it() {
    let app = TestApp::builder().with_real_model().start().await;
    let mut beside = files();
    let long = "A sentence that goes on about something else entirely. ".repeat(60);
    beside.push(("long.md", &long));
    app.ingest(&files()[2..3], "alone", "1.0.0").await;
    app.ingest(&beside, "beside", "1.0.0").await;
    beside.reverse();
    app.ingest(&beside, "reversed", "1.0.0").await;
    let vectors = "select count(distinct embedding::text) from chunk_vectors v join chunks c on c.id = v.chunk_id
                   where c.content like '%mutex%'";
    let rows = "select count(*) from chunks where content like '%mutex%'";
    assert_eq!((app.count(rows).await, app.count(vectors).await), (3, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_tells_how_far_the_model_is() {
    let app = TestApp::builder().with_real_model().start().await;
    let embedder = async || app.get("/api/health").await.json()["checks"]["embedder"].clone();
    let idle = embedder().await;
    assert_eq!((&idle["status"], &idle["detail"]), (&"healthy".into(), &"idle: the model loads on first need".into()));
    app.ingest(&files()[..1], "life", "1.0.0").await;
    app.search("query=noodles&mode=vector").await;
    let ready = embedder().await;
    assert_eq!((&ready["status"], ready.get("detail")), (&"healthy".into(), None));
}
