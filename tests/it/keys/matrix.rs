//! Every route of the table, asked by everybody who must not get through, and by one who may: so each refusal is the key's doing.

use axum::http::{Method, Request, header};
use doc_server::{
    api::policy::{self, Needs, Policy},
    index::keys::Scope,
};
use serde_json::{Value, json};

use super::{UNKNOWN, expired_key, revoked_key};
use crate::harness::{Reply, TestApp, fixtures::GUIDE};

/// A server for keys alone, with two sources, and what the requests name in `guide`.
struct Scene {
    app: TestApp,
    page: String,
    chunk: String,
    victim: i64,
}

impl Scene {
    async fn new() -> Self {
        let app = TestApp::builder().closed(&[]).with_background_tasks().start().await;
        app.ingest(&GUIDE, "guide", "1.0.0").await;
        app.ingest(&[("mine.md", "# Mine\n\nAnother pool.\n")], "mine", "1.0.0").await;
        let (_, admin) = app.make_key(&["admin"], &[]).await;
        let found = app.get_as(&admin, "/api/search?query=pool&source=guide").await.json();
        let id = |field: &str| found["results"][0][field].to_string();
        let (page, chunk) = (id("page_id"), id("chunk_id"));
        let (victim, _) = app.make_key(&["search"], &[]).await;
        Self { app, page, chunk, victim }
    }

    /// A request of the route that succeeds for whoever may.
    fn target(&self, policy: &Policy) -> (Method, String, Option<Value>) {
        let path = policy.path.replace("{source_id}", "guide").replace("{page_id}", &self.page);
        let path = path.replace("{chunk_id}", &self.chunk).replace("{key_id}", &self.victim.to_string());
        let path = path.replace("{name}", "search.css").replace("{*rest}", "index.css");
        let (path, body) = match (policy.method.as_str(), policy.path) {
            ("GET", "/api/search") => (path + "?query=pool&source=guide", None),
            ("GET", "/api/pages") => (path + "?url=pool.md&source=guide", None),
            ("POST", "/api/search") => (path, Some(json!({ "query": "pool", "source": ["guide"] }))),
            ("POST", "/api/keys") => (path, Some(json!({ "name": "new", "scopes": ["search"] }))),
            ("PATCH", _) => (path, Some(json!({ "title": "Changed" }))),
            _ => (path, None),
        };
        (policy.method.clone(), path, body)
    }

    async fn ask(&self, key: Option<&str>, policy: &Policy) -> Reply {
        let (method, path, body) = self.target(policy);
        match (key, method.as_str()) {
            (Some(key), _) => self.app.ask(key, method, &path, body.as_ref()).await,
            (None, "POST") => self.app.post(&path, &body.unwrap()).await,
            (None, "PATCH") => self.app.patch(&path, &body.unwrap()).await,
            (None, "DELETE") => self.app.delete(&path).await,
            (None, _) => self.app.get(&path).await,
        }
    }
}

/// The scope that a route needs, for those that need one.
fn protected() -> impl Iterator<Item = (&'static Policy, Scope)> {
    policy::all().iter().filter_map(|policy| match policy.needs {
        Needs::Nothing => None,
        Needs::Scope(scope) => Some((policy, scope)),
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_route_refuses_whoever_may_not_and_answers_whoever_may() {
    let scene = Scene::new().await;
    let app = &scene.app;
    let (expired, revoked) = (expired_key(app).await, revoked_key(app).await);
    let (_, reader) = app.make_key(&["search"], &[]).await;
    let (_, other) = app.make_key(&["search", "sources:write", "jobs:write", "config:write"], &["mine"]).await;
    let (_, admin) = app.make_key(&["admin"], &[]).await;
    let nobody = [None, Some(UNKNOWN), Some("nonsense"), Some(""), Some(&*expired), Some(&*revoked)];
    for (policy, scope) in protected() {
        let route = format!("{} {}", policy.method, policy.path);
        for key in nobody {
            let reply = scene.ask(key, policy).await;
            assert_eq!(reply.status, 401, "{route} with {key:?}: {}", reply.text());
            let (challenge, code) = (reply.header("www-authenticate"), reply.problem()["body"]["code"].clone());
            assert!(challenge.starts_with("Bearer realm=\"doc-server\""), "{route}: {challenge}");
            assert_eq!(code, if key.is_none() { "key_required" } else { "key_invalid" }, "{route} with {key:?}");
        }
        let reply = scene.ask(Some(&reader), policy).await;
        if scope == Scope::Search {
            assert_eq!(reply.status, 200, "{route}: {}", reply.text());
        } else {
            assert_eq!(reply.status, 403, "{route}: {}", reply.text());
            assert!(reply.json()["detail"].as_str().unwrap().contains(scope.name()), "{route}: {}", reply.text());
            assert!(reply.header("www-authenticate").contains("insufficient_scope"), "{route}");
        }
        let reply = scene.ask(Some(&other), policy).await;
        match (scope, policy.path) {
            (Scope::Admin, _) => assert_eq!(reply.status, 403, "{route}: {}", reply.text()),
            (_, "/api/sources") => {
                assert_eq!((reply.status.as_u16(), &reply.json()["count"]), (200, &json!(1)), "{route}");
                assert!(!reply.text().contains("guide"), "{route}: {}", reply.text());
            }
            _ => assert_eq!(reply.status, 404, "{route}: {}", reply.text()),
        }
    }
    // Nothing of that has changed anything, and the same requests are good ones. What deletes comes last.
    let mut routes: Vec<_> = protected().collect();
    routes.sort_by_key(|(policy, _)| policy.method == Method::DELETE);
    for (policy, _) in routes {
        let reply = scene.ask(Some(&admin), policy).await;
        assert!(reply.status.is_success(), "{} {}: {}", policy.method, policy.path, reply.text());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_public_answers_everybody_even_with_a_wrong_key() {
    let scene = Scene::new().await;
    for policy in policy::all().iter().filter(|policy| policy.needs == Needs::Nothing) {
        for key in [None, Some(UNKNOWN)] {
            let reply = scene.ask(key, policy).await;
            let well = reply.status.is_success() || reply.status.is_redirection();
            assert!(well, "{}: {} {}", policy.path, reply.status, reply.text());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_of_others_is_told_like_one_that_does_not_exist() {
    let scene = Scene::new().await;
    let (app, unused) = (&scene.app, 999_999_999);
    let (_, other) = app.make_key(&["search", "sources:write"], &["mine"]).await;
    let pairs = [
        ("GET", "/api/search?query=pool&source=guide".to_owned(), "/api/search?query=pool&source=nope1".to_owned()),
        ("GET", "/api/search?query=pool&source=gu*".to_owned(), "/api/search?query=pool&source=no*".to_owned()),
        ("GET", "/api/sources/guide".to_owned(), "/api/sources/nope1".to_owned()),
        ("PATCH", "/api/sources/guide".to_owned(), "/api/sources/nope1".to_owned()),
        ("DELETE", "/api/sources/guide".to_owned(), "/api/sources/nope1".to_owned()),
        ("GET", "/api/pages?url=pool.md&source=guide".to_owned(), "/api/pages?url=pool.md&source=nope1".to_owned()),
        ("GET", "/api/pages?url=pool.md".to_owned(), "/api/pages?url=nope.md".to_owned()),
        ("GET", format!("/api/pages/{}", scene.page), format!("/api/pages/{unused}")),
        ("GET", format!("/api/chunks/{}?before=1", scene.chunk), format!("/api/chunks/{unused}?before=1")),
    ];
    for (method, hidden, missing) in pairs {
        let body = (method == "PATCH").then(|| json!({ "title": "Theirs" }));
        let method: Method = method.parse().unwrap();
        let tell = async |path: &str| {
            let reply = app.ask(&other, method.clone(), path, body.as_ref()).await;
            assert_eq!(reply.status, 404, "{path}: {}", reply.text());
            let told = reply.problem()["body"]["detail"].as_str().unwrap().to_owned();
            [("guide", "X"), ("nope1", "X"), ("gu*", "X"), ("no*", "X"), ("pool.md", "X"), ("nope.md", "X")]
                .iter()
                .fold(told, |told, (name, other)| told.replace(name, other))
                .replace(&scene.page, "N")
                .replace(&scene.chunk, "N")
                .replace(&unused.to_string(), "N")
        };
        assert_eq!(tell(&hidden).await, tell(&missing).await, "{hidden}");
    }
    let (_, admin) = app.make_key(&["admin"], &[]).await;
    assert_eq!(app.get_as(&admin, "/api/sources/guide").await.json()["title"], "guide", "nothing has changed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_may_come_in_either_header_but_only_one() {
    let app = TestApp::builder().closed(&[]).with_background_tasks().start().await;
    let (_, key) = app.make_key(&["search"], &[]).await;
    let ask = async |headers: &[(header::HeaderName, String)]| {
        let request = headers
            .iter()
            .fold(Request::get("/api/sources"), |request, (name, value)| request.header(name.clone(), value));
        app.send(request.body(axum::body::Body::empty()).unwrap()).await
    };
    let (bearer, plain) = (header::AUTHORIZATION, header::HeaderName::from_static("x-api-key"));
    assert_eq!(ask(&[(bearer.clone(), format!("bearer {key}"))]).await.status, 200);
    assert_eq!(ask(&[(plain.clone(), key.clone())]).await.status, 200);
    assert_eq!(ask(&[(plain.clone(), key.clone()), (bearer.clone(), format!("Bearer {key}"))]).await.status, 200);
    let both = ask(&[(plain, UNKNOWN.to_owned()), (bearer.clone(), format!("Bearer {key}"))]).await;
    assert_eq!((both.status.as_u16(), &both.problem()["body"]["code"]), (401, &json!("key_ambiguous")));
    // A proxy's own scheme is no key of this server.
    let basic = ask(&[(bearer, "Basic dXNlcjpwYXNz".to_owned())]).await;
    assert_eq!(basic.problem()["body"]["code"], "key_required");
}
