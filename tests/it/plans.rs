//! Plans on 50,000 chunks: each statement of a search uses its index, and no table of chunks is read from end to end.
//!
//! The data are random vectors of 32 numbers and words of a Zipf distribution, made by SQL in a few seconds; plans depend on how
//! many rows there are and how rare words are, not on what they say.

use std::collections::BTreeSet;

use doc_server::{
    index::{
        Index,
        build::VectorIndex,
        explain::Explained,
        generations::{ModelIdentity, Target},
        terms,
    },
    query::{Mode, Query},
    search::Explanation,
};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgConnection};

use crate::harness::TestApp;

/// Numbers in a vector: enough for a graph with neighbours, and quick to index.
const DIMENSIONS: usize = 32;

/// Different words; the nth is in about one of n chunks.
const WORDS: usize = 2_000;

/// A large source of 40,000 chunks and a small one of 10,000, which exact search reads.
const SOURCES: [(&str, i64); 2] = [("large", 2_000), ("small", 500)];

/// Chunks of a page.
const PAGE: i64 = 20;

/// Tables that hold a row for each chunk.
const CHUNK_TABLES: [&str; 4] = ["chunks", "chunk_vectors", "chunk_words", "code_examples"];

fn word(nth: usize) -> String {
    format!("topic{nth}word")
}

/// The number that stands for a word in the tables.
fn term(nth: usize) -> i32 {
    terms::of_query(&word(nth)).terms.first().expect("a word").id
}

/// A server over 50,000 chunks.
async fn filled() -> TestApp {
    let app = TestApp::builder().with_dimensions(DIMENSIONS).start().await;
    let identity = app.embedder.identity().await.unwrap();
    let model = app.index.register_model(&ModelIdentity::from(&*identity)).await.unwrap();
    let mut connection = app.database.connect().await;
    // Building an index at once is many times faster than row by row.
    let dropped = format!("drop index chunk_words_by_term; drop index chunk_vectors_model_{}", model.id);
    sqlx::raw_sql(AssertSqlSafe(dropped)).execute(&mut connection).await.unwrap();
    let mut builds = Vec::new();
    for (source_id, pages) in SOURCES {
        let target = Target {
            source_id: source_id.to_owned(),
            version: "1.0.0".to_owned(),
            title: source_id.to_owned(),
            url: String::new(),
        };
        let build = app.index.begin_build(&target, model).await.unwrap();
        fill(&mut connection, build.version_id, build.generation, pages).await;
        fill_legs(&mut connection, build.version_id, build.generation, model.id).await;
        builds.push(build);
    }
    let made = "create index chunk_words_by_term on chunk_words using gin (terms) with (fastupdate = off)";
    sqlx::raw_sql(made).execute(&mut connection).await.unwrap();
    let hnsw = VectorIndex::Hnsw { m: 8, ef_construction: 32 };
    app.index.rebuild_vector_index(hnsw, |_, _| {}).await.unwrap();
    for mut build in builds {
        app.index.publish(&mut build).await.unwrap();
        app.index.release(build).await;
    }
    sqlx::raw_sql("vacuum analyze").execute(&mut connection).await.unwrap();
    app
}

async fn fill(connection: &mut PgConnection, version: i64, generation: i64, pages: i64) {
    for statement in [
        "insert into pages (version_id, born, path, url, title, content_hash, content, content_type, words)
         select $1, $2, 'page-' || n || '.md', 'https://docs.example.org/' || $1 || '/' || n, 'Page ' || n,
                sha256(n::text::bytea), repeat('text of a page ', 100), 'text/markdown', 300
         from generate_series(1, $3) n",
        "insert into chunks (page_id, version_id, born, number, section, content, tokens, hash)
         select p.id, $1, $2, n, '{Section}', repeat('text of a chunk ', 40), 200, sha256((p.id || ' ' || n)::bytea)
         from pages p, generate_series(0, $3 - 1) n where p.version_id = $1",
        "insert into code_examples (chunk_id, version_id, born, code, context)
         select id, $1, $2, 'let x = 1;', '' from chunks where version_id = $1 and number % $3 = 0",
    ] {
        let number = if statement.contains("into pages") { pages } else { PAGE };
        let query = sqlx::query(statement).bind(version).bind(generation).bind(number);
        query.execute(&mut *connection).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
    }
}

async fn fill_legs(connection: &mut PgConnection, version: i64, generation: i64, model: i32) {
    let vectors = format!(
        "insert into chunk_vectors (chunk_id, version_id, born, model_id, embedding)
         select c.id, $1, $2, $3, (select array_agg(random() - 0.5) from generate_series(1, {DIMENSIONS} + 0 * c.id)
                                  )::real[]::vector::halfvec
         from chunks c where c.version_id = $1"
    );
    let query = sqlx::query(AssertSqlSafe(vectors)).bind(version).bind(generation).bind(model);
    query.execute(&mut *connection).await.unwrap();
    let words: Vec<i32> = (1..=WORDS).map(term).collect();
    sqlx::query(
        "insert into chunk_words (chunk_id, version_id, born, terms, weights)
         select id, $1, $2, terms,
                ('{' || (select string_agg(term || ':1.5', ',' order by term) from unnest(terms) term) || '}/1000000000')::sparsevec
         from (
            select c.id, array(
                select distinct ($3::int[])[1 + floor(power($4::float8, random()) - 1)::int]
                from generate_series(1, 20 + 0 * c.id)
            ) as terms
            from chunks c where c.version_id = $1
         ) chunk",
    )
    .bind(version)
    .bind(generation)
    .bind(words)
    .bind(i32::try_from(WORDS).unwrap())
    .execute(connection)
    .await
    .unwrap();
}

fn query(text: &str, mode: Mode, source: Option<&str>) -> Query {
    let mut query = Query { text: text.to_owned(), match_count: 20, mode, ..Query::default() };
    query.selection.sources = source.map(str::to_owned).into_iter().collect();
    query
}

/// `name: index index` of each statement, once each.
fn used(explanation: &Explanation) -> BTreeSet<String> {
    let shown = |statement: &Explained| {
        let names = statement.indexes.iter().map(|index| index.name.as_str());
        // Whether the generations are there is read of a table of a few rows, with or without its index.
        let names: Vec<&str> = names.filter(|name| *name != "generations_pkey").collect();
        format!("{}: {}", statement.name, names.join(" ")).trim_end_matches([' ', ':']).to_owned()
    };
    explanation.statements.iter().map(shown).collect()
}

/// The statements that read a whole table of chunks.
fn whole(statements: &[Explained]) -> Vec<String> {
    let reads = |statement: &&Explained| statement.whole_tables.iter().any(|table| CHUNK_TABLES.contains(&&**table));
    statements.iter().filter(reads).map(|one| format!("{} reads {:?}", one.name, one.whole_tables)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_statement_of_a_search_uses_its_index_on_50_000_chunks() {
    let app = filled().await;
    assert_eq!(app.count("select count(*) from chunk_vectors").await, 50_000);
    let model = app.count("select id::bigint from models where precision = 'fake'").await;
    let hnsw = format!("chunk_vectors_model_{model}");
    let rare = format!("{} {}", word(1_500), word(900));
    let common = word(1);
    let graph = format!("vector.approximate: {hnsw}");
    let weigh = "keyword.weigh: generation_terms_pkey";
    let score = "keyword.score: chunk_words_by_term";
    let similarities = "complete.similarities: chunk_vectors_pkey";
    let scores = "complete.keyword_scores: chunk_words_pkey";
    let passages = "fetch.passages: chunks_pkey pages_pkey";
    let exact = "vector.exact: chunk_vectors_by_version";
    for (query, expected) in [
        (query(&rare, Mode::Hybrid, None), vec![&*graph, weigh, score, similarities, scores, passages]),
        (query(&common, Mode::Hybrid, None), vec![&*graph, weigh, score, similarities, scores, passages]),
        (query(&rare, Mode::Hybrid, Some("large")), vec![&*graph, weigh, score, similarities, scores, passages]),
        (query(&rare, Mode::Vector, Some("large")), vec![&*graph, passages]),
        (query(&rare, Mode::Keyword, Some("small")), vec![weigh, score, passages]),
        (Query { ef_search: Some(40), ..query(&rare, Mode::Vector, Some("large")) }, vec![&*graph, passages]),
        (Query { exact: true, ..query(&rare, Mode::Vector, Some("small")) }, vec![exact, passages]),
    ] {
        let explained = app.search.explain(&query).await.unwrap();
        let expected: BTreeSet<String> = expected.into_iter().map(str::to_owned).collect();
        assert_eq!(used(&explained), expected, "{query:?}\n{}", plans(&explained));
        assert_eq!(whole(&explained.statements), Vec::<String>::new(), "{query:?}");
    }
    let middle = app.count("select id from chunks where number = 10 limit 1").await;
    reading_routes_use_their_indexes(&app.index, middle).await;
    a_dropped_index_is_noticed(&app, &hnsw, &rare).await;
}

/// What a failing test shows.
fn plans(explanation: &Explanation) -> String {
    let plan = |one: &Explained| format!("{}\n{:#}", one.name, one.plan["Plan"]);
    explanation.statements.iter().map(plan).collect::<Vec<_>>().join("\n")
}

async fn reading_routes_use_their_indexes(index: &Index, chunk: i64) {
    let (index, recorder) = index.explaining();
    let catalog = index.catalog().await.unwrap();
    let resolved = catalog.resolve(&doc_server::index::Selection::default()).unwrap();
    index.page_at("https://docs.example.org/1/7", &resolved).await.unwrap().expect("a page");
    let page = index.page(7).await.unwrap().expect("a page");
    assert_eq!(page.path, "page-7.md");
    assert_eq!(index.chunk_with_neighbours(chunk, 2, 2).await.unwrap().len(), 5);
    index.resolve_pinned(&catalog, &resolved.ids()).await.unwrap();
    let statements = recorder.take();
    assert_eq!(whole(&statements), Vec::<String>::new());
    for (statement, expected) in statements.iter().zip(["pages_by_url", "pages_pkey", "chunks_page_id_number_key"]) {
        assert!(!statement.whole_tables.contains(&"pages".to_owned()), "{}", statement.name);
        let used: Vec<&str> = statement.indexes.iter().map(|index| &*index.name).collect();
        assert!(used.contains(&expected), "{}: {used:?}", statement.name);
    }
}

/// The same checks, without the indexes: they must see it.
async fn a_dropped_index_is_noticed(app: &TestApp, hnsw: &str, rare: &str) {
    let mut connection = app.database.connect().await;
    let dropped = format!("drop index {hnsw}; drop index chunk_words_by_term");
    sqlx::raw_sql(AssertSqlSafe(dropped)).execute(&mut connection).await.unwrap();
    let explained = app.search.explain(&query(rare, Mode::Hybrid, Some("large"))).await.unwrap();
    let whole = whole(&explained.statements);
    assert!(whole.iter().any(|told| told.starts_with("vector.approximate reads")), "{whole:?}");
    assert!(whole.iter().any(|told| told.starts_with("keyword.score reads")), "{whole:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_explanation_shows_the_statements_that_run_with_their_settings_and_generic_plans() {
    let app = TestApp::start().await;
    app.ingest(&crate::harness::fixtures::GUIDE, "guide", "1.0.0").await;
    let reply = app.admin_post("/debug/explain", &json!({ "query": "connection pool timeout", "ef_search": 77 })).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let explained = reply.json();
    let statements = explained["statements"].as_array().expect("statements");
    let names: BTreeSet<&str> = statements.iter().map(|one| one["name"].as_str().unwrap()).collect();
    for name in ["vector.exact", "keyword.weigh", "keyword.score", "fetch.passages"] {
        assert!(names.contains(name), "{names:?}");
    }
    for statement in statements {
        let name = statement["name"].as_str().unwrap();
        assert_eq!(statement["settings"]["plan_cache_mode"], "force_generic_plan", "{name}");
        assert_eq!(statement["settings"]["statement_timeout"], "10s", "{name}");
        assert!(statement["sql"].as_str().unwrap().contains("$1"), "{name}");
        let (plan, buffers) = (&statement["plan"]["Plan"], &statement["buffers"]);
        assert!(has_parameter(plan), "{name}: a plan for these values only: {plan:#}");
        assert!(buffers["hit"].as_u64().unwrap() + buffers["read"].as_u64().unwrap() > 0, "{name}");
    }
    let through_the_graph = json!({ "query": "pool", "mode": "vector", "ef_search": 77, "match_count": 3 });
    let answered = app.search("query=pool&mode=vector&ef_search=77&match_count=3").await;
    let explained = app.admin_post("/debug/explain", &through_the_graph).await.json();
    assert_eq!(explained["count"], answered["count"]);
    assert_eq!(explained["generations"], answered["index"]["generations"]);
}

/// Whether some part of a plan still names a parameter.
fn has_parameter(node: &Value) -> bool {
    match node {
        Value::String(text) => (1..=6).any(|nth| text.contains(&format!("${nth}"))),
        Value::Array(values) => values.iter().any(has_parameter),
        Value::Object(fields) => fields.values().any(has_parameter),
        _ => false,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_private_door_refuses_what_the_front_door_refuses() {
    let app = TestApp::start().await;
    app.ingest(&crate::harness::fixtures::GUIDE, "guide", "1.0.0").await;
    for body in [
        json!({ "query": "pool", "colour": "red" }),
        json!({ "query": "" }),
        json!({ "query": "pool", "ef_search": 0 }),
        json!({ "query": "pool", "source": "nothing-of-that-name" }),
        json!({}),
    ] {
        let (public, private) = (app.post("/api/search", &body).await, app.admin_post("/debug/explain", &body).await);
        assert!(public.status.is_client_error(), "{body}: {}", public.status);
        assert_eq!(private.problem(), public.problem(), "{body}");
    }
    let wrong = app.admin("/debug/explain").await;
    assert_eq!(wrong.status, 405);
    assert_eq!(wrong.problem()["body"]["code"], "method_not_allowed");
    assert_eq!(app.admin("/debug/nothing").await.problem()["body"]["code"], "not_found");
    assert_eq!(app.get("/debug/explain").await.status, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plans_are_shown_on_loopback_only() {
    let app = TestApp::start().await;
    let router = doc_server::api::debug::router(doc_server::api::debug::State {
        search: app.search.clone(),
        max_body_bytes: 1_000,
        deadline: crate::harness::PATIENCE,
        leaving: doc_server::runtime::lifecycle::Leaving::default(),
        loopback: false,
    });
    for path in ["/debug/explain", "/debug/nothing"] {
        let refused = crate::harness::client::post_to(&router, path, &json!({ "query": "pool" })).await;
        assert_eq!(refused.status, 403, "{path}");
        assert_eq!(refused.problem()["body"]["code"], "not_on_loopback");
    }
}
