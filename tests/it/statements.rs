//! How many statements each route sends to the database: always the same number, however much it finds.
//!
//! The driver tells of every statement it sends (`sqlx::query`); a listener on all threads of the test's own runtime writes
//! them down, so that also what a request hands to other tasks is counted.

use std::{
    collections::BTreeSet,
    fmt::Debug,
    sync::{Arc, LazyLock, Mutex},
};

use axum::http::Method;
use doc_server::api;
use serde_json::json;
use tracing::{
    Event, Subscriber,
    dispatcher::{self, Dispatch},
    field::{Field, Visit},
};
use tracing_subscriber::{
    Layer,
    layer::{Context, SubscriberExt},
    registry,
};

use crate::harness::{
    Reply, TestApp,
    fixtures::{borrowed, many_pages},
};

/// Every statement since the last look.
#[derive(Clone, Default)]
struct Statements(Arc<Mutex<Vec<String>>>);

impl Statements {
    /// Those of requests. Not counted are the pool's check of a returned connection, which no request waits for, what comes
    /// once for each connection (its settings and checks, the driver's look-up of a type's number), and the ends of transactions.
    fn take(&self) -> Vec<String> {
        let all = std::mem::take(&mut *self.0.lock().unwrap());
        let other = |text: &String| {
            ["set ", "show ", "BEGIN", "COMMIT"].iter().any(|start| text.starts_with(start))
                || ["statement_timestamp()", "pg_catalog.pg_type", "pg_backend_pid()"]
                    .iter()
                    .any(|part| text.contains(part))
        };
        all.into_iter().filter(|text| !other(text)).collect()
    }
}

impl<S: Subscriber> Layer<S> for Statements {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() == "sqlx::query" {
            let mut text = Text::default();
            event.record(&mut text);
            self.0.lock().unwrap().push(format!("{} {}", text.summary, text.whole));
        }
    }
}

#[derive(Default)]
struct Text {
    summary: String,
    whole: String,
}

impl Visit for Text {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "summary" => value.clone_into(&mut self.summary),
            "db.statement" => value.clone_into(&mut self.whole),
            _ => {}
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

/// Runs a test on a runtime whose threads all tell their statements.
fn counting(test: impl AsyncFnOnce(Statements)) {
    // With one listener alone, tracing asks the thread that meets an event first whether anybody listens there, and another
    // test's thread says no for good. With two it asks them both.
    static ANOTHER: LazyLock<Dispatch> = LazyLock::new(|| Dispatch::new(registry()));
    LazyLock::force(&ANOTHER);
    let statements = Statements::default();
    let listener = Dispatch::new(registry().with(statements.clone()));
    let on_thread = listener.clone();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        // It listens as long as its thread lives.
        .on_thread_start(move || std::mem::forget(dispatcher::set_default(&on_thread)))
        .build()
        .unwrap();
    dispatcher::with_default(&listener, || runtime.block_on(test(statements)));
}

/// One request of a route: the way to ask for little, the way to ask for much, and its statements.
struct Case {
    /// Method and path as the API's description names them.
    route: &'static str,
    little: String,
    much: String,
    statements: usize,
}

fn case(route: &'static str, little: impl Into<String>, much: impl Into<String>, statements: usize) -> Case {
    Case { route, little: little.into(), much: much.into(), statements }
}

/// `little` and `much` are paths, or JSON bodies of routes that take one.
fn cases(ids: &Ids) -> Vec<Case> {
    let search =
        |more: &str, count: usize| format!("/api/search?query=common+part&cache=bypass{more}&match_count={count}");
    let all = |more: &str, statements| case("GET /api/search", search(more, 1), search(more, 20), statements);
    vec![
        // Nearest vectors, words' frequencies, best by words, the scores of either leg that the other lacks, the text.
        all("", 6),
        all("&source=many", 6),
        all("&fusion=rrf", 4),
        all("&mode=vector", 2),
        all("&mode=keyword", 3),
        // The generations of the cursor are in the catalog.
        case(
            "GET /api/search",
            format!("{}&cursor={}", search("", 1), ids.cursor),
            format!("{}&cursor={}", search("", 20), ids.cursor),
            6,
        ),
        case(
            "POST /api/search",
            json!({ "query": "common part", "match_count": 1, "cache": "bypass" }).to_string(),
            json!({ "query": "common part", "match_count": 20, "cache": "bypass" }).to_string(),
            6,
        ),
        case("GET /api/sources", "/api/sources?limit=1", "/api/sources?limit=20", 0),
        case("GET /api/sources", "/api/sources?limit=1&q=many&tag=none", "/api/sources?q=s", 0),
        case("GET /api/sources/{source_id}", "/api/sources/one", "/api/sources/many", 0),
        // The change, the count of changes, the catalog read again, and who has yet to see it.
        case(
            "PATCH /api/sources/{source_id}",
            json!({ "title": "New" }).to_string(),
            json!({ "title": "Newer", "summary": "s", "tags": ["a", "b"], "default_version": "1.0.0" }).to_string(),
            4,
        ),
        case(
            "GET /api/pages",
            format!("/api/pages?url={}", ids.short_url),
            format!("/api/pages?url={}", ids.long_url),
            1,
        ),
        case(
            "GET /api/pages/{page_id}",
            format!("/api/pages/{}", ids.short_page),
            format!("/api/pages/{}", ids.long_page),
            1,
        ),
        case(
            "GET /api/chunks/{chunk_id}",
            format!("/api/chunks/{}", ids.chunk),
            format!("/api/chunks/{}?before=20&after=20", ids.chunk),
            1,
        ),
        case("GET /api/health", "/api/health", "/api/health", 0),
        case("DELETE /api/sources/{source_id}", "/api/sources/one", "/api/sources/many", 4),
        // As a change of a source, and the keys with the catalog.
        case(
            "POST /api/keys",
            json!({ "name": "a", "scopes": ["search"] }).to_string(),
            json!({ "name": "b", "scopes": ["search", "sources:write"], "sources": ["a", "b*"] }).to_string(),
            5,
        ),
        case("GET /api/keys", "/api/keys?limit=1", "/api/keys", 1),
        case("DELETE /api/keys/{key_id}", "/api/keys/1", "/api/keys/2", 5),
    ]
}

/// What the requests name.
struct Ids {
    cursor: String,
    short_page: String,
    long_page: String,
    short_url: String,
    long_url: String,
    chunk: String,
}

async fn ask(app: &TestApp, case: &Case, how: &str) -> Reply {
    let (method, path) = case.route.split_once(' ').unwrap();
    match method {
        "GET" => app.get(how).await,
        "DELETE" => app.delete(how).await,
        "PATCH" => app.patch("/api/sources/many", &serde_json::from_str(how).unwrap()).await,
        "POST" => app.post(path, &serde_json::from_str(how).unwrap()).await,
        other => panic!("{other}"),
    }
}

/// 300 pages of one chunk, a page of many chunks, and twenty more sources.
async fn filled() -> (TestApp, Ids) {
    // A key that is made must not close it to the others.
    let app = TestApp::builder().insecurely_open().start().await;
    app.ingest(&borrowed(&many_pages(300)), "many", "1.0.0").await;
    let sections: String = (0..45).fold("# Long\n\n".to_owned(), |text, nth| {
        text + &format!("## Section {nth}\n\n{}\n\n", format!("passage{nth} speaks of matters. ").repeat(40))
    });
    app.ingest(&[("long.md", &sections)], "long", "1.0.0").await;
    app.ingest(&[("one.md", "# One\n\nAlone.\n")], "one", "1.0.0").await;
    for nth in 0..20 {
        app.ingest(&[("page.md", "# Some\n\nOf some source.\n")], &format!("s{nth}"), "1.0.0").await;
    }
    let long = app.search("query=passage7+speaks&source=long&match_count=1").await["results"][0].clone();
    let short = app.search("query=Alone&source=one&match_count=1").await["results"][0].clone();
    let cursor = app.search("query=common+part&match_count=5").await["next_cursor"].as_str().unwrap().to_owned();
    let text = |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let ids = Ids {
        cursor,
        short_page: text(&short["page_id"]),
        long_page: text(&long["page_id"]),
        short_url: text(&short["url"]),
        long_url: text(&long["url"]),
        chunk: text(&long["chunk_id"]),
    };
    (app, ids)
}

#[test]
fn each_route_sends_the_same_statements_for_one_result_and_for_twenty() {
    counting(async |statements| {
        let (app, ids) = filled().await;
        let cases = cases(&ids);
        let described = serde_json::to_value(api::openapi()).unwrap();
        let mut routes = BTreeSet::new();
        for (path, operations) in described["paths"].as_object().unwrap() {
            for method in operations.as_object().unwrap().keys().filter(|name| name.parse::<Method>().is_ok()) {
                routes.insert(format!("{} {path}", method.to_uppercase()));
            }
        }
        let covered: BTreeSet<String> = cases.iter().map(|case| case.route.to_owned()).collect();
        assert_eq!(covered, routes, "each route has a case");
        for case in &cases {
            for how in [&case.little, &case.much] {
                // A catalog that grows old in between would be read by the request.
                app.index.refresh_catalog().await.unwrap();
                statements.take();
                let reply = ask(&app, case, how).await;
                let sent = statements.take();
                assert!(reply.status.is_success(), "{} {how}: {}", case.route, reply.text());
                assert_eq!(sent.len(), case.statements, "{} {how}: {sent:#?}", case.route);
            }
        }
        drop(app);
    });
}

#[test]
fn a_key_costs_a_request_no_statement() {
    counting(async |statements| {
        let app = TestApp::builder().closed(&[]).start().await;
        app.ingest(&[("one.md", "# One\n\nAlone.\n")], "one", "1.0.0").await;
        let (_, key) = app.make_key(&["search"], &["o*"]).await;
        assert_eq!(app.get_as(&key, "/api/search?query=alone").await.status, 200);
        app.index.refresh_catalog().await.unwrap();
        statements.take();
        let wrong = key.replace("dsk_", "dsk_0")[..key.len()].to_owned();
        for secret in [&*key, &*wrong, "dsk_none"] {
            let reply = app.get_as(secret, "/api/search?query=alone").await;
            assert_eq!(reply.status == 200, secret == key, "{}", reply.text());
        }
        assert_eq!(statements.take(), Vec::<String>::new());
        drop(app);
    });
}

#[test]
fn a_statement_of_another_task_is_counted() {
    counting(async |statements| {
        let app = TestApp::start().await;
        statements.take();
        let index = app.index.clone();
        let (told, done) = tokio::sync::oneshot::channel();
        app.lifecycle.spawn_detached(async move {
            index.refresh_catalog().await.unwrap();
            told.send(()).unwrap();
        });
        done.await.unwrap();
        let sent = statements.take();
        assert!(sent.len() == 1 && sent[0].contains("s.default_version"), "{sent:#?}");
        drop(app);
    });
}
