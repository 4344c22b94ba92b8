//! Importing: what is embedded, written, shared and published.

use std::{collections::BTreeMap, time::Duration};

use doc_server::{embed, error::Error, index, work::import};
use serde_json::{Value, json};

use crate::harness::{
    TestApp,
    client::texts,
    eventually,
    faulty::Fault,
    fixtures::{GUIDE, borrowed, many_pages},
    folder_of, import_of, write,
};

/// The chunk of each page that a search for everything finds.
async fn chunks_by_url(app: &TestApp, parameters: &str) -> BTreeMap<String, Vec<i64>> {
    let answer = app.search(&format!("query=the&mode=vector&match_count=100{parameters}")).await;
    let mut chunks: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for result in answer["results"].as_array().unwrap() {
        let ids = chunks.entry(result["url"].as_str().unwrap().to_owned()).or_default();
        ids.push(result["chunk_id"].as_i64().unwrap());
        ids.sort_unstable();
    }
    chunks
}

async fn generation(app: &TestApp, source: &str) -> i64 {
    let source = app.get(&format!("/api/sources/{source}")).await.json();
    source["versions"][0]["generation"].as_i64().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unchanged_folder_embeds_writes_and_publishes_nothing() {
    let app = TestApp::start().await;
    let first = app.ingest(&GUIDE, "guide", "1.0.0").await;
    assert_eq!((first.written, first.unchanged, first.resumed), (7, 0, false));
    assert_eq!(first.chunks_embedded, u64::try_from(app.probe.texts()).unwrap());
    let (generation_before, texts) = (generation(&app, "guide").await, app.probe.texts());
    let again = app.ingest(&GUIDE, "guide", "1.0.0").await;
    assert_eq!((again.written, again.unchanged, again.removed, again.chunks_embedded), (0, 7, 0, 0));
    assert!(again.published.is_none());
    assert_eq!((generation(&app, "guide").await, app.probe.texts()), (generation_before, texts));
    assert_eq!(app.count("select count(*) from generations").await, 1, "the empty build is gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_changed_page_is_embedded_and_the_others_are_shared_not_copied() {
    let app = TestApp::start().await;
    app.ingest(&GUIDE, "guide", "1.0.0").await;
    let (before, rows) = (chunks_by_url(&app, "").await, app.count("select count(*) from chunks").await);
    let mut files = GUIDE;
    files[1] = ("retry.md", "# Retries\n\nRetry with a budget instead.\n");
    let report = app.ingest(&files, "guide", "1.0.0").await;
    assert_eq!((report.written, report.unchanged, report.chunks_embedded), (1, 6, 1));
    let after = chunks_by_url(&app, "").await;
    assert_ne!(after["retry.md"], before["retry.md"]);
    for url in before.keys().filter(|url| *url != "retry.md") {
        assert_eq!(after[url], before[url], "{url}");
    }
    assert_eq!(app.count("select count(*) from chunks").await, rows + 1);
    assert_eq!(texts(&app.search("query=budget&mode=keyword").await, "url"), ["retry.md"]);
    assert_eq!(app.search("query=jitter&mode=keyword").await["count"], 0, "what was replaced is not found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_page_is_gone_and_a_renamed_one_is_not_embedded_again() {
    let app = TestApp::start().await;
    app.ingest(&GUIDE, "guide", "1.0.0").await;
    let mut files = GUIDE[1..].to_vec();
    files[0].0 = "guides/retrying.md";
    let report = app.ingest(&files, "guide", "1.0.0").await;
    assert_eq!((report.written, report.unchanged, report.removed, report.chunks_embedded), (1, 5, 2, 0));
    let urls: Vec<String> = chunks_by_url(&app, "").await.into_keys().collect();
    assert!(!urls.contains(&"pool.md".to_owned()) && !urls.contains(&"retry.md".to_owned()), "{urls:?}");
    assert!(urls.contains(&"guides/retrying.md".to_owned()), "{urls:?}");
    assert_eq!(app.get("/api/pages?url=retry.md").await.status, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn going_back_to_an_earlier_text_publishes_it_again() {
    let app = TestApp::start().await;
    let (old, new) = ([("page.md", "# Page\n\nThe first text.\n")], [("page.md", "# Page\n\nThe second text.\n")]);
    for files in [&old, &new, &old, &new] {
        let report = app.ingest(files, "guide", "1.0.0").await;
        assert_eq!(report.written, 1);
        let page = app.get("/api/pages?url=page.md").await.json();
        assert_eq!(page["content"], files[0].1);
    }
    assert_eq!(app.probe.texts(), 2, "known texts are not embedded again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_address_of_a_source_is_put_before_each_path() {
    let app = TestApp::start().await;
    let folder = folder_of(&GUIDE[..4]);
    let mut import = import_of(folder.path(), "guide", "1.0.0");
    import.base_url = "https://docs.example.org/guide/".to_owned();
    import::run(&app.index, &app.embedder, &import, &import::Progress::default()).await.unwrap();
    let page = app.get("/api/pages?url=https://docs.example.org/guide/install/linux.md").await.json();
    assert_eq!((&page["path"], &page["title"]), (&json!("install/linux.md"), &json!("Installing on Linux")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn versions_of_a_source_live_beside_each_other() {
    let app = TestApp::start().await;
    app.ingest(&GUIDE, "guide", "1.0.0").await;
    let report = app.ingest(&GUIDE[..2], "guide", "2.0.0").await;
    assert_eq!((report.written, report.removed), (2, 0));
    assert_eq!(chunks_by_url(&app, "&version=1.0.0").await.len(), 7);
    assert_eq!(chunks_by_url(&app, "&version=2.0.0").await.len(), 2);
    app.ingest(&GUIDE[..1], "guide", "1.0.0").await;
    assert_eq!(chunks_by_url(&app, "&version=1.0.0").await.len(), 1);
    assert_eq!(chunks_by_url(&app, "&version=2.0.0").await.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn code_examples_are_stored_with_their_language_and_introduction() {
    let app = TestApp::start().await;
    let report = app.ingest(&GUIDE, "guide", "1.0.0").await;
    assert_eq!(report.published.unwrap().code_examples, 2);
    let mut connection = app.database.connect().await;
    let rows: Vec<(String, String, String)> =
        sqlx::query_as("select language, code, context from code_examples order by language")
            .fetch_all(&mut connection)
            .await
            .unwrap();
    assert_eq!((rows[0].0.as_str(), rows[0].1.lines().count()), ("bash", 2));
    assert_eq!((rows[1].0.as_str(), rows[1].1.as_str()), ("rust", "let count: usize = \"five\";"));
    assert!(rows[1].2.contains("E0308"), "{:?}", rows[1].2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_import_of_a_version_is_refused_while_the_first_runs() {
    let app = TestApp::start().await;
    let folder = folder_of(&GUIDE);
    app.probe.hold();
    let (search_side, path) = (TestApp::builder().start_beside(&app).await, folder.path());
    let first = app.try_ingest(path, "guide", "1.0.0");
    let others = async {
        eventually("the first embeds", async || app.probe.texts() > 0).await;
        let second = search_side.try_ingest(path, "guide", "1.0.0").await;
        let refused = second.unwrap_err();
        assert!(matches!(&refused, Error::Index(index::Error::BuildRunning { .. })), "{refused}");
        assert_eq!(refused.to_string(), "another import of guide 1.0.0 is running; wait for it, or stop it");
        search_side.try_ingest(path, "guide", "2.0.0").await.expect("another version is free");
        app.probe.release();
    };
    let (first, ()) = tokio::join!(first, others);
    assert_eq!(first.unwrap().written, 7);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_a_build_is_seen_before_it_is_published() {
    let app = TestApp::start().await;
    app.ingest(&GUIDE[..3], "guide", "1.0.0").await;
    let before = app.get("/api/search?query=connection+pool+watcher&match_count=100").await.body;
    let folder = folder_of(&GUIDE);
    write(folder.path(), "pool.md", "# Pool\n\nConnections of a watcher.\n");
    app.probe.hold();
    let looking = async {
        eventually("new pages are being embedded", async || app.probe.texts() > 4).await;
        let seen = app.get("/api/search?query=connection+pool+watcher&match_count=100&mode=keyword").await.json();
        assert!(!texts(&seen, "url").contains(&"changes.html".to_owned()));
        assert_eq!(app.get("/api/pages?url=changes.html").await.status, 404);
        app.probe.release();
    };
    let (report, ()) = tokio::join!(app.try_ingest(folder.path(), "guide", "1.0.0"), looking);
    assert_eq!(report.unwrap().written, 5);
    assert_ne!(app.get("/api/search?query=connection+pool+watcher&match_count=100").await.body, before);
    assert_eq!(app.get("/api/pages?url=changes.html").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_shows_its_first_import_as_building() {
    let app = TestApp::start().await;
    let folder = folder_of(&GUIDE);
    app.probe.hold();
    let looking = async {
        eventually("the import embeds", async || app.probe.texts() > 0).await;
        app.index.refresh_catalog().await.unwrap();
        let source = app.get("/api/sources/guide").await.json();
        assert_eq!((&source["versions"][0]["status"], &source["default_version"]), (&json!("building"), &Value::Null));
        let reply = app.get("/api/search?query=pool&source=guide").await;
        assert_eq!(reply.status, 404);
        assert!(reply.text().contains("its first import has not finished"), "{}", reply.text());
        assert_eq!(app.search("query=pool").await["count"], 0);
        app.probe.release();
    };
    let (report, ()) = tokio::join!(app.try_ingest(folder.path(), "guide", "1.0.0"), looking);
    report.unwrap();
    assert_eq!(app.get("/api/sources/guide").await.json()["versions"][0]["status"], "published");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_passage_that_could_not_be_embedded_is_told_and_made_good_by_the_next_import() {
    let app = TestApp::start().await;
    app.probe.fail_next(1);
    let report = app.ingest(&GUIDE[..2], "guide", "1.0.0").await;
    assert_eq!(report.chunks_without_embedding, 1);
    let source = app.get("/api/sources/guide").await.json();
    assert_eq!((&source["stale"], &source["chunks_without_embedding"]), (&json!(true), &json!(1)));
    let by_words = app.search("query=connection+backoff&mode=keyword").await;
    assert_eq!(by_words["count"], 2, "words find it all the same");
    let again = app.ingest(&GUIDE[..2], "guide", "1.0.0").await;
    assert_eq!((again.chunks_embedded, again.chunks_without_embedding), (1, 0));
    assert_eq!(app.get("/api/sources/guide").await.json()["stale"], false);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_model_embeds_everything_anew() {
    let app = TestApp::start().await;
    app.ingest(&GUIDE, "guide", "1.0.0").await;
    let other = TestApp::builder().with_dimensions(64).start_beside(&app).await;
    let report = other.ingest(&GUIDE, "guide", "1.0.0").await;
    assert_eq!((report.written, report.unchanged), (7, 0));
    assert_eq!(report.chunks_embedded, u64::try_from(other.probe.texts()).unwrap());
    let answer = other.search("query=exponential+backoff&mode=vector&match_count=1").await;
    assert_eq!((&answer["degraded"], texts(&answer, "url")), (&json!(false), vec!["retry.md".to_owned()]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleting_a_source_while_it_is_imported_leaves_it_deleted() {
    let app = TestApp::start().await;
    app.ingest(&GUIDE[..1], "guide", "1.0.0").await;
    let folder = folder_of(&GUIDE);
    app.probe.hold();
    let deleting = async {
        eventually("new pages are being embedded", async || app.probe.texts() > 1).await;
        assert_eq!(app.delete("/api/sources/guide").await.status, 204);
        app.probe.release();
    };
    let (report, ()) = tokio::join!(app.try_ingest(folder.path(), "guide", "1.0.0"), deleting);
    assert_eq!(report.unwrap_err().to_string(), "the source was deleted while it was imported; import it again");
    assert_eq!(app.get("/api/sources/guide").await.status, 404);
    assert_eq!(app.search("query=pool").await["count"], 0);
    app.ingest(&GUIDE, "guide", "1.0.0").await;
    assert_eq!(app.get("/api/sources/guide").await.json()["page_count"], 7);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_imports_at_once_publish_all_of_them() {
    let app = TestApp::start().await;
    let pages = many_pages(15);
    let files = borrowed(&pages);
    let reports =
        futures::future::join_all(["a", "b", "c", "d"].map(|source| app.ingest(&files, source, "1.0.0"))).await;
    assert!(reports.iter().all(|report| report.published.is_some_and(|published| published.pages == 15)));
    assert_eq!(app.search("query=common&match_count=100&mode=keyword").await["count"], 60);
    assert_eq!(app.embedder.status(), embed::Status::Ready);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_that_has_ended_leaves_the_way_free() {
    let app = TestApp::builder().behind_a_faulty_network().start().await;
    let mut looking = app.database.connect().await;
    // What the server sends without waiting for an answer has not arrived when the import has ended.
    app.network().set(Fault::Delay(Duration::from_millis(20))).await;
    app.ingest(&GUIDE[..1], "guide", "1.0.0").await;
    let locks = "select count(*) from pg_locks l join pg_database d on d.oid = l.database
                 where locktype = 'advisory' and datname = current_database()";
    let held: i64 = sqlx::query_scalar(locks).fetch_one(&mut looking).await.unwrap();
    assert_eq!(held, 0);
}
