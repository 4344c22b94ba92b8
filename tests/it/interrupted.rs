//! An import that stops anywhere: what is published stays as it was, and the next run goes on to the end.

use std::{path::Path, sync::atomic::Ordering};

use doc_server::{
    error::Error,
    index,
    work::import::{self, Progress, Report},
};
use sqlx::Connection;

use crate::harness::{
    PATIENCE, TestApp, eventually,
    fixtures::{borrowed, many_pages},
    folder_of, import_of, write,
};

const PAGES: usize = 40;

/// A search whose bytes show any change of what is published.
const EVERYTHING: &str = "/api/search?query=common+page+fresh&match_count=100&explain=true";

/// A server with a published folder, and that folder with other text in every page.
async fn published(app: &TestApp) -> tempfile::TempDir {
    let pages = many_pages(PAGES);
    app.ingest(&borrowed(&pages), "many", "1.0.0").await;
    let folder = folder_of(&borrowed(&pages));
    for (path, text) in &pages {
        write(folder.path(), path, format!("{text}\nA fresh sentence.\n"));
    }
    folder
}

/// Runs an import until `pages` are done, then drops it: what a kill does, as far as the database can tell.
async fn drop_after(app: &TestApp, folder: &Path, pages: u64) {
    let (import, progress) = (import_of(folder, "many", "1.0.0"), Progress::default());
    tokio::select! {
        report = run_when_free(app, &import, &progress) => panic!("it ended before {pages} pages: {report:?}"),
        () = eventually("enough pages are done", async || progress.pages_done.load(Ordering::Relaxed) >= pages) => {}
    }
}

/// The lock of a dropped import goes with its connection, which Postgres notices a moment later.
async fn run_when_free(app: &TestApp, import: &import::Import, progress: &Progress) -> Result<Report, Error> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        match import::run(&app.index, &app.embedder, import, progress).await {
            Err(Error::Index(index::Error::BuildRunning { .. })) if tokio::time::Instant::now() < deadline => {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
            ended => return ended,
        }
    }
}

/// The run that ends it.
async fn finish(app: &TestApp, folder: &Path) -> Report {
    let import = import_of(folder, "many", "1.0.0");
    let report = run_when_free(app, &import, &Progress::default()).await.unwrap();
    let answer = app.search("query=fresh&mode=keyword&match_count=100").await;
    assert_eq!(answer["count"], PAGES, "everything is published");
    assert_eq!(app.count("select count(*) from generations where status = 'building'").await, 0);
    report
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_after_any_page_leaves_what_is_published_and_the_next_run_goes_on() {
    let app = TestApp::start().await;
    let folder = published(&app).await;
    let before = app.get(EVERYTHING).await.body;
    let embedded_before = app.probe.texts();
    for pages in [0, 1, 7, 20] {
        drop_after(&app, folder.path(), pages).await;
        assert_eq!(app.get(EVERYTHING).await.body, before, "after {pages} pages");
    }
    let report = finish(&app, folder.path()).await;
    assert!(report.resumed);
    assert!(report.unchanged >= 20, "what was written is not written again: {report:?}");
    let embedded = app.probe.texts() - embedded_before;
    // Six pages are in work at once, and each of the four stops may lose those.
    assert!((PAGES..=PAGES + 4 * 6).contains(&embedded), "{embedded} texts");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resumed_import_takes_the_folder_as_it_is_now() {
    let app = TestApp::start().await;
    let folder = published(&app).await;
    drop_after(&app, folder.path(), 15).await;
    // What the first run wrote or ended is undone, removed or changed once more.
    for (path, text) in &many_pages(PAGES)[..10] {
        write(folder.path(), path, text);
    }
    std::fs::remove_file(folder.path().join("page-0010.md")).unwrap();
    write(folder.path(), "page-0011.md", "# Page 11\n\nRewritten again.\n");
    let import = import_of(folder.path(), "many", "1.0.0");
    run_when_free(&app, &import, &Progress::default()).await.unwrap();
    let source = app.get("/api/sources/many").await.json();
    assert_eq!(source["page_count"], PAGES - 1);
    let fresh = app.search("query=fresh&mode=keyword&match_count=100").await;
    assert_eq!(fresh["count"], PAGES - 12);
    assert_eq!(app.search("query=rewritten&mode=keyword").await["count"], 1);
    let again = app.try_ingest(folder.path(), "many", "1.0.0").await.unwrap();
    assert!(again.published.is_none() && again.written == 0, "{again:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_in_the_middle_of_publishing_publishes_nothing() {
    let app = TestApp::start().await;
    let folder = published(&app).await;
    let before = app.get(EVERYTHING).await.body;
    let mut other = app.database.connect().await;
    let mut held = other.begin().await.unwrap();
    sqlx::query("select from generations where status = 'published' for update").execute(&mut *held).await.unwrap();
    let (import, progress) = (import_of(folder.path(), "many", "1.0.0"), Progress::default());
    let blocked = async || {
        let waiting = "select count(*) from pg_stat_activity where datname = current_database()
                       and wait_event_type = 'Lock' and query like 'update generations set status%'";
        app.count(waiting).await == 1
    };
    tokio::select! {
        report = import::run(&app.index, &app.embedder, &import, &progress) => panic!("published: {report:?}"),
        () = eventually("the publish waits for the lock", blocked) => {}
    }
    held.rollback().await.unwrap();
    assert_eq!(app.get(EVERYTHING).await.body, before);
    let report = finish(&app, folder.path()).await;
    assert_eq!((report.resumed, report.written), (true, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_goes_away_fails_the_import_and_the_next_run_goes_on() {
    let patient = TestApp::builder().with_pool(|pool| pool.acquire_timeout = PATIENCE);
    let app = patient.behind_a_faulty_network().start().await;
    let folder = published(&app).await;
    let before = app.get(EVERYTHING).await;
    assert!(before.status == 200 && before.json()["degraded"] == false, "{}", before.text());
    let before = before.body;
    let (import, progress) = (import_of(folder.path(), "many", "1.0.0"), Progress::default());
    let breaking = async {
        eventually("some pages are done", async || progress.pages_done.load(Ordering::Relaxed) >= 10).await;
        app.network().break_networking().await;
    };
    let (failed, ()) = tokio::join!(import::run(&app.index, &app.embedder, &import, &progress), breaking);
    assert!(failed.is_err(), "{failed:?}");
    app.network().restore().await;
    eventually("searches work again", async || app.get(EVERYTHING).await.body == before).await;
    assert!(finish(&app, folder.path()).await.resumed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_import_that_stops_shows_nothing() {
    let app = TestApp::start().await;
    let folder = folder_of(&borrowed(&many_pages(PAGES)));
    drop_after(&app, folder.path(), 10).await;
    assert_eq!(app.search("query=common").await["count"], 0);
    let import = import_of(folder.path(), "many", "1.0.0");
    assert!(run_when_free(&app, &import, &Progress::default()).await.unwrap().resumed);
    assert_eq!(app.search("query=common&match_count=100").await["count"], PAGES);
}
