//! Removing what no search can reach: after the grace period, and never what one can.

use std::time::Duration;

use crate::harness::{
    TestApp, eventually,
    fixtures::{GUIDE, borrowed, many_pages},
    folder_of,
};

const TABLES: [&str; 6] = [
    "select count(*) from pages",
    "select count(*) from chunks",
    "select count(*) from chunk_vectors",
    "select count(*) from chunk_words",
    "select count(*) from code_examples",
    "select count(*) from generation_terms",
];

async fn rows(app: &TestApp) -> Vec<i64> {
    let mut counts = Vec::new();
    for table in TABLES {
        counts.push(app.count(table).await);
    }
    counts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replaced_documents_go_after_the_grace_period_and_published_ones_stay() {
    let app = TestApp::start().await;
    app.ingest(&GUIDE[..3], "guide", "1.0.0").await;
    app.ingest(&GUIDE[..2], "other", "1.0.0").await;
    let expected = rows(&app).await;
    app.ingest(&GUIDE, "guide", "1.0.0").await;
    app.ingest(&GUIDE[..3], "guide", "1.0.0").await;
    let everything = "/api/search?query=the&mode=vector&match_count=100";
    let before = app.get(everything).await.body;
    assert_eq!(app.index.remove_unreachable(Duration::from_hours(1)).await.unwrap(), 0, "within the grace period");
    assert_eq!(app.index.remove_unreachable(Duration::ZERO).await.unwrap(), 4);
    assert_eq!(rows(&app).await, expected);
    assert_eq!(app.count("select count(*) from generations").await, 2);
    assert_eq!(app.get(everything).await.body, before);
    assert_eq!(app.index.remove_unreachable(Duration::ZERO).await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_source_goes_with_everything_it_had() {
    let app = TestApp::start().await;
    app.ingest(&borrowed(&many_pages(120)), "many", "1.0.0").await;
    app.ingest(&GUIDE, "many", "2.0.0").await;
    app.delete("/api/sources/many").await;
    assert_eq!(app.index.remove_unreachable(Duration::ZERO).await.unwrap(), 127);
    assert_eq!(rows(&app).await, [0; 6]);
    for table in ["select count(*) from sources", "select count(*) from versions", "select count(*) from generations"] {
        assert_eq!(app.count(table).await, 0, "{table}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_build_that_runs_or_waits_to_be_resumed_is_left_alone() {
    let app = TestApp::start().await;
    app.ingest(&GUIDE[..2], "guide", "1.0.0").await;
    let folder = folder_of(&[("retry.md", "# Retry\n\nAnother text.\n"), ("new.md", "# New\n\nA new page.\n")]);
    app.probe.hold();
    let cleaning = async {
        eventually("the import embeds", async || app.probe.texts() > 2).await;
        assert_eq!(app.index.remove_unreachable(Duration::ZERO).await.unwrap(), 0);
        app.probe.release();
    };
    let (report, ()) = tokio::join!(app.try_ingest(folder.path(), "guide", "1.0.0"), cleaning);
    assert_eq!(report.unwrap().written, 2);
    assert_eq!(app.index.remove_unreachable(Duration::ZERO).await.unwrap(), 2);
    assert_eq!(app.search("query=text+page&mode=keyword").await["count"], 2);
}
