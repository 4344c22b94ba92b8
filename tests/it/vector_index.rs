//! Rebuilding the vector index: one kind at a time, swapped in whole, with searches going on.

use doc_server::index::{Error, build::VectorIndex};
use sqlx::Connection;

use crate::harness::{
    TestApp,
    fixtures::{borrowed, many_pages},
};

const HNSW: VectorIndex = VectorIndex::Hnsw { m: 16, ef_construction: 64 };
const IVFFLAT: VectorIndex = VectorIndex::IvfFlat { lists: Some(4) };

/// The methods of the valid vector indexes on the fake model's vectors.
async fn methods(app: &TestApp) -> Vec<String> {
    let sql = "select m.amname::text from pg_index i
               join pg_class c on c.oid = i.indexrelid join pg_am m on m.oid = c.relam
               where i.indrelid = 'chunk_vectors'::regclass and i.indisvalid
                 and c.relname like vector_index_name((select id from models where precision = 'fake')) || '%'";
    sqlx::query_scalar(sql).fetch_all(&mut app.database.connect().await).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_of_either_kind_replaces_the_other() {
    let app = TestApp::start().await;
    app.ingest(&borrowed(&many_pages(600)), "many", "1.0.0").await;
    assert_eq!(methods(&app).await, ["hnsw"]);
    for (kind, method) in [(IVFFLAT, "ivfflat"), (HNSW, "hnsw")] {
        let built = app.index.rebuild_vector_index(kind, |_, _| {}).await.unwrap();
        assert_eq!(built, ["hashed-words/fake"]);
        assert_eq!(methods(&app).await, [method]);
        let answer = app.search("query=common+own123&mode=vector&match_count=100").await;
        assert_eq!((&answer["count"], &answer["degraded"]), (&100.into(), &false.into()), "{method}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_rebuild_is_refused_while_one_runs() {
    let app = TestApp::start().await;
    app.ingest(&borrowed(&many_pages(5)), "many", "1.0.0").await;
    let mut other = app.database.connect().await;
    sqlx::query("select pg_advisory_lock(hashtextextended('doc-server vector index', 0))")
        .execute(&mut other)
        .await
        .unwrap();
    let refused = app.index.rebuild_vector_index(HNSW, |_, _| {}).await.unwrap_err();
    assert!(matches!(refused, Error::BuildRunning { .. }), "{refused}");
    other.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_stopped_rebuild_left_is_removed_by_the_next() {
    let app = TestApp::start().await;
    app.ingest(&borrowed(&many_pages(5)), "many", "1.0.0").await;
    app.execute(
        "do $$ declare model int := (select id from models where precision = 'fake');
         begin execute ivfflat_index_statement(model, vector_index_name(model) || '_next', 1, false); end $$",
    )
    .await;
    assert_eq!(methods(&app).await.len(), 2);
    app.index.rebuild_vector_index(HNSW, |_, _| {}).await.unwrap();
    assert_eq!(methods(&app).await, ["hnsw"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_vectors_there_is_nothing_to_rebuild() {
    let app = TestApp::start().await;
    assert!(app.index.rebuild_vector_index(HNSW, |_, _| {}).await.unwrap().is_empty());
}
