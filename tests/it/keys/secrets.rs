//! The secret of a key is in one answer: not in the database, not in a list, not in the log.

use std::{
    fmt::{Debug, Write as _},
    sync::{Arc, LazyLock, Mutex},
};

use axum::http::Method;
use serde_json::{Value, json};
use tracing::{
    Event, Subscriber,
    dispatcher::{self, Dispatch},
    field::{Field, Visit},
    span,
};
use tracing_subscriber::{
    Layer,
    layer::{Context, SubscriberExt},
    registry,
};

use super::UNKNOWN;
use crate::harness::TestApp;

/// Makes a key over HTTP as the first caller of an open server.
async fn make(app: &TestApp, body: &Value) -> Value {
    let made = app.post("/api/keys", body).await;
    assert_eq!(made.status, 201, "{}", made.text());
    assert_eq!(made.header("cache-control"), "no-store");
    made.json()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_told_once_listed_without_its_secret_and_revoked() {
    let app = TestApp::start().await;
    let made = make(&app, &json!({ "name": " ci ", "scopes": ["admin"], "requests_per_minute": 60 })).await;
    let secret = made["secret"].as_str().unwrap();
    assert!(secret.starts_with("dsk_") && secret.len() == 68, "a recognisable form");
    let reader = app
        .ask(
            secret,
            Method::POST,
            "/api/keys",
            Some(&json!({
                "name": "reader", "scopes": ["search", "jobs:write"], "sources": ["team-*", "guide"],
                "expires_at": "2100-01-01T00:00:00+01:00"
            })),
        )
        .await
        .json();
    let listed = app.get_as(secret, "/api/keys").await.json();
    let mut shown = listed["keys"].clone();
    for key in shown.as_array_mut().unwrap() {
        assert!(key["hint"].as_str().unwrap().starts_with("dsk_"));
        for field in ["hint", "created_at"] {
            key.as_object_mut().unwrap().remove(field);
        }
    }
    assert_eq!(
        shown,
        json!([
            { "key_id": made["key_id"], "name": "ci", "scopes": ["admin"], "sources": null, "requests_per_minute": 60,
              "status": "valid", "expires_at": null, "revoked_at": null },
            { "key_id": reader["key_id"], "name": "reader", "scopes": ["search", "jobs:write"],
              "sources": ["guide", "team-*"], "requests_per_minute": null, "status": "valid",
              "expires_at": "2099-12-31T23:00:00Z", "revoked_at": null },
        ])
    );
    let first = app.get_as(secret, "/api/keys?limit=1").await.json();
    assert_eq!((&first["count"], &first["keys"][0]["name"]), (&json!(1), &json!("ci")));
    let cursor = first["next_cursor"].as_str().unwrap();
    let second = app.get_as(secret, &format!("/api/keys?limit=1&cursor={cursor}")).await.json();
    assert_eq!((&second["keys"][0]["name"], &second["next_cursor"]), (&json!("reader"), &Value::Null));

    let path = format!("/api/keys/{}", reader["key_id"]);
    assert_eq!(app.ask(secret, Method::DELETE, &path, None).await.status, 204);
    assert_eq!(app.ask(secret, Method::DELETE, &path, None).await.status, 404, "it is revoked already");
    let listed = app.get_as(secret, "/api/keys").await.json();
    assert_eq!(listed["keys"][1]["status"], "revoked");
    assert!(listed["keys"][1]["revoked_at"].is_string());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_cannot_be_is_refused_by_field() {
    let app = TestApp::start().await;
    for (body, field) in [
        (json!({ "scopes": ["search"] }), "name"),
        (json!({ "name": "x" }), "scopes"),
        (json!({ "name": "x", "scopes": [] }), "scopes"),
        (json!({ "name": "x", "scopes": ["read"] }), "scopes"),
        (json!({ "name": "x", "scopes": ["search"], "sources": [] }), "sources"),
        (json!({ "name": "x", "scopes": ["search"], "sources": ["a b"] }), "sources"),
        (json!({ "name": "x", "scopes": ["search", "admin"], "sources": ["a"] }), "sources"),
        (json!({ "name": "x", "scopes": ["search"], "requests_per_minute": 0 }), "requests_per_minute"),
        (json!({ "name": "x", "scopes": ["search"], "expires_at": "2000-01-01T00:00:00Z" }), "expires_at"),
        (json!({ "name": "x", "scopes": ["search"], "expires_at": "tomorrow" }), "expires_at"),
    ] {
        let refused = app.post("/api/keys", &body).await;
        assert_eq!(refused.status, 422, "{body}: {}", refused.text());
        assert_eq!(refused.json()["errors"][0]["field"], field, "{body}: {}", refused.text());
    }
    assert_eq!(app.count("select count(*) from api_keys").await, 0);
    assert_eq!(app.get("/api/sources").await.status, 200, "still open");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn there_are_at_most_ten_thousand_valid_keys() {
    let app = TestApp::builder().insecurely_open().start().await;
    app.execute(super::NINE_THOUSAND_KEYS).await;
    app.execute(
        "insert into api_keys (name, hash, hint, scopes)
         select 'more', sha256(convert_to('more' || nth, 'UTF8')), 'dsk_…', '{search}' from generate_series(1, 999) nth",
    )
    .await;
    let body = json!({ "name": "one more", "scopes": ["search"] });
    let last = make(&app, &body).await;
    let refused = app.post("/api/keys", &body).await;
    assert_eq!((refused.status.as_u16(), &refused.problem()["body"]["code"]), (409, &json!("too_many_keys")));
    assert_eq!(app.delete(&format!("/api/keys/{}", last["key_id"])).await.status, 204);
    make(&app, &body).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dump_of_the_database_holds_no_secret() {
    let app = TestApp::start().await;
    let mut secrets = vec![make(&app, &json!({ "name": "first", "scopes": ["admin"] })).await["secret"].clone()];
    for _ in 0..19 {
        secrets.push(app.make_key(&["search"], &["guide"]).await.1.into());
    }
    let program = crate::harness::data_dir().join("runtime/postgres/bin/pg_dump");
    let dumped = std::process::Command::new(program).args(["--inserts", &app.database.url()]).output().unwrap();
    assert!(dumped.status.success(), "{}", String::from_utf8_lossy(&dumped.stderr));
    let dump = String::from_utf8(dumped.stdout).unwrap();
    assert!(dump.contains("INSERT INTO public.api_keys") && dump.contains("'first'"), "the dump holds the keys");
    for secret in secrets {
        let (secret, hidden) = (secret.as_str().unwrap(), |text: &str| !dump.contains(text));
        let digits = secret.trim_start_matches("dsk_");
        let as_bytes = secret.bytes().fold(String::new(), |digits, byte| digits + &format!("{byte:02x}"));
        let base64 = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, secret);
        // Of the digits only the first eight are there, as the hint.
        assert!(dump.contains(&format!("{}…", &secret[..12])), "the hint tells keys apart");
        for text in [secret, digits, &digits[8..24], &*as_bytes, &*base64] {
            assert!(hidden(text), "{text} is in the dump");
        }
    }
}

/// All that is said, at every level.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<String>>);

impl<S: Subscriber> Layer<S> for Log {
    fn on_new_span(&self, attributes: &span::Attributes<'_>, _: &span::Id, _: Context<'_, S>) {
        attributes.record(&mut Writing(&self.0));
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        event.record(&mut Writing(&self.0));
    }
}

struct Writing<'a>(&'a Mutex<String>);

impl Visit for Writing<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        writeln!(self.0.lock().unwrap(), "{}={value:?}", field.name()).unwrap();
    }
}

#[test]
fn the_log_never_holds_a_key_at_any_level() {
    // With one listener alone, tracing remembers for all threads what the first of them wants to hear.
    static ANOTHER: LazyLock<Dispatch> = LazyLock::new(|| Dispatch::new(registry()));
    LazyLock::force(&ANOTHER);
    let log = Log::default();
    let listener = Dispatch::new(registry().with(log.clone()));
    let on_thread = listener.clone();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .on_thread_start(move || std::mem::forget(dispatcher::set_default(&on_thread)))
        .build()
        .unwrap();
    let secrets = dispatcher::with_default(&listener, || runtime.block_on(use_keys()));
    let said = log.0.lock().unwrap();
    assert!(said.contains("a key was made") && said.contains("api_keys"), "everything is heard, statements too");
    for secret in secrets {
        assert!(!said.contains(&secret), "{secret} is in the log");
        assert!(!said.contains(&secret[12..28]), "a part of {secret} is in the log");
    }
}

/// Keys in every way they are used, right and wrong; returns their secrets.
async fn use_keys() -> Vec<String> {
    let app = TestApp::builder().with_background_tasks().start().await;
    let wrong = format!("dsk_{}", "7e57ab1e".repeat(8));
    let made = make(&app, &json!({ "name": "canary", "scopes": ["admin"] })).await;
    let secret = made["secret"].as_str().unwrap().to_owned();
    let address = app.listen().await;
    let client = reqwest::Client::builder().no_proxy().timeout(crate::harness::PATIENCE).build().unwrap();
    for key in [&*secret, &wrong, UNKNOWN] {
        for path in ["/api/sources", "/api/search?query=pool", "/api/keys", "/nothing", "/api/search?nonsense=1"] {
            app.get_as(key, path).await;
            let url = format!("http://{address}{path}");
            client.get(&url).bearer_auth(key).send().await.unwrap();
            client.get(&url).header("x-api-key", key).send().await.unwrap();
        }
    }
    let body = json!({ "name": "canary 2", "scopes": ["search"] });
    let second = app.ask(&secret, Method::POST, "/api/keys", Some(&body)).await.json();
    let second_secret = second["secret"].as_str().unwrap().to_owned();
    app.ask(&secret, Method::DELETE, &format!("/api/keys/{}", second["key_id"]), None).await;
    app.get_as(&second_secret, "/api/sources").await;
    drop(app);
    vec![secret, second_secret, wrong]
}
