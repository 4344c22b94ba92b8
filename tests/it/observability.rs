//! Metrics, request ids, timings and probes: what operators and tools read.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    process::{Command, Stdio},
};

use axum::{
    body::Body,
    http::{Method, Request, StatusCode},
};
use insta::{assert_json_snapshot, assert_snapshot};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::{Reply, TestApp, database::Database, eventually, fixtures::GUIDE, served::Served};

/// A server that has done a bit of everything.
async fn busy() -> TestApp {
    let app = TestApp::start().await;
    app.ingest(&GUIDE, "guide", "1.0.0").await;
    for path in ["/api/search?query=pool", "/api/sources", "/api/sources/guide", "/api/health", "/no/such/path"] {
        app.get(path).await;
    }
    app.probe.fail_next(1);
    assert_eq!(app.search("query=exponential+backoff").await["degraded"], true);
    let address = app.listen().await;
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /api/health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    stream.read_to_end(&mut Vec::new()).await.unwrap();
    app.search.tidy();
    app.index.pools().observe();
    app
}

/// Each metric's type and label names.
fn families(text: &str) -> BTreeMap<String, (String, BTreeSet<String>)> {
    let mut families: BTreeMap<String, (String, BTreeSet<String>)> = BTreeMap::new();
    for line in text.lines() {
        if let Some(family) = line.strip_prefix("# TYPE ") {
            let (name, kind) = family.split_once(' ').unwrap();
            kind.clone_into(&mut families.entry(name.to_owned()).or_default().0);
        } else if let Some((series, labels)) = line.split_once('{').filter(|_| !line.starts_with('#')) {
            let suffixes = ["_bucket", "_sum", "_count"];
            let base = suffixes
                .iter()
                .find_map(|suffix| series.strip_suffix(suffix).filter(|base| families.contains_key(*base)));
            let names = labels.split("\",").filter_map(|label| Some(label.split_once('=')?.0.to_owned()));
            let family = families.entry(base.unwrap_or(series).to_owned()).or_default();
            family.1.extend(names.filter(|name| name != "le"));
        }
    }
    families
}

async fn metrics(app: &TestApp) -> String {
    let reply = app.admin("/metrics").await;
    assert_eq!(reply.status, StatusCode::OK);
    assert_eq!(reply.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    reply.text()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_metric_has_its_agreed_name_type_and_labels() {
    let app = busy().await;
    let text = metrics(&app).await;
    let shown: Vec<String> = families(&text)
        .into_iter()
        .map(|(name, (kind, labels))| {
            let labels = labels.into_iter().collect::<Vec<_>>().join(",");
            format!("{name}{{{labels}}} {kind}")
        })
        .collect();
    assert_snapshot!("metrics", shown.join("\n"));
    for line in text.lines().filter(|line| line.starts_with("# TYPE ")) {
        let name = line.split(' ').nth(2).unwrap();
        assert!(text.contains(&format!("# HELP {name} ")), "{name} has no help");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn routes_and_methods_in_metrics_are_closed_sets() {
    let app = busy().await;
    app.get("/api/pages/123456?offset=7").await;
    let brewed = Request::builder().method(Method::from_bytes(b"BREW").unwrap()).uri("/api/search");
    app.send(brewed.body(Body::empty()).unwrap()).await;
    let text = metrics(&app).await;
    let requests: Vec<&str> = text.lines().filter(|line| line.starts_with("doc_server_http_requests_total{")).collect();
    for label in ["route=\"/api/sources/{source_id}\"", "route=\"/api/pages/{page_id}\"", "route=\"unmatched\""] {
        assert!(requests.iter().any(|line| line.contains(label)), "{label} in {requests:?}");
    }
    for raw in ["123456", "no/such", "sources/guide\"", "BREW"] {
        assert!(!requests.iter().any(|line| line.contains(raw)), "{raw} in {requests:?}");
    }
    assert!(requests.iter().any(|line| line.contains("method=\"other\"")), "{requests:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promtool_finds_nothing_to_criticise() {
    let Ok(mut promtool) =
        Command::new("promtool").args(["check", "metrics"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn()
    else {
        eprintln!("skipped: promtool is not installed");
        return;
    };
    let app = busy().await;
    // The names of the process figures are Prometheus' own.
    promtool.stdin.take().unwrap().write_all(metrics(&app).await.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The series of a process of its own, without their values.
async fn series(server: &Served) -> BTreeSet<String> {
    let text = server.admin("/metrics").await.1;
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines.map(|line| line.rsplit_once(' ').unwrap().0.to_owned()).collect()
}

/// Requests that all differ from those of any other round, in every part that a caller can choose.
async fn storm(server: &Served, round: usize) {
    let (front, back) = (format!("http://{}", server.public), format!("http://{}", server.private));
    for number in round * 40..(round + 1) * 40 {
        for url in [
            format!("{front}/x{number}/y"),
            format!("{front}/api/sources/s{number}"),
            format!("{front}/api/pages/{number}"),
            format!("{front}/api/chunks/{number}"),
            format!("{front}/api/search?query=q{number}"),
            format!("{front}/api/search?query=q&source=s{number}&version={number}"),
            format!("{front}/api/search?p{number}=1"),
            format!("{back}/debug/x{number}"),
            format!("{back}/x{number}"),
        ] {
            let method = Method::from_bytes(format!("BREW{number}").as_bytes()).unwrap();
            for method in [Method::GET, method] {
                let asked = server.client.request(method, &url).header("x-request-id", format!("id{number}"));
                let asked =
                    asked.header("user-agent", format!("agent{number}")).header("host", format!("host{number}"));
                asked.send().await.unwrap();
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_callers_send_makes_a_series() {
    let database = Database::migrated().await;
    let server = Served::start(&database, &[]).await;
    storm(&server, 0).await;
    // What the caches hold is told once a second only, and this one last.
    eventually("all series are there", async || {
        series(&server).await.iter().any(|series| series.starts_with("doc_server_index_catalog_age_seconds"))
    })
    .await;
    let before = series(&server).await;
    storm(&server, 1).await;
    let after = series(&server).await;
    let new: Vec<&String> = after.difference(&before).collect();
    assert!(new.is_empty() && before.len() > 100, "{} series, and new ones: {new:#?}", before.len());
    server.signal("INT");
    assert_eq!(server.ended(std::time::Duration::from_secs(25)).await.0, Some(0));
    database.drop_now().await;
}

async fn with_request_id(app: &TestApp, id: &[u8]) -> Reply {
    app.send(Request::get("/api/sources").header("x-request-id", id).body(Body::empty()).unwrap()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plain_request_id_is_echoed_and_any_other_replaced() {
    let app = TestApp::start().await;
    for id in ["a", "0af7651916cd43dd8448eb211c80319c", "trace:1/2_3-4.5", &"x".repeat(128)] {
        assert_eq!(with_request_id(&app, id.as_bytes()).await.header("x-request-id"), id);
    }
    let mut made = BTreeSet::new();
    for id in [&b""[..], b"with space", b"quote\"", b"<script>", b"caf\xc3\xa9", b"\xff\xfe", &[b'x'; 129]] {
        let reply = with_request_id(&app, id).await;
        let own = reply.header("x-request-id").to_owned();
        assert!(own.len() == 32 && own.bytes().all(|byte| byte.is_ascii_hexdigit()), "{own}");
        made.insert(own);
    }
    assert_eq!(made.len(), 7, "each request has its own");
    let problem = app.get("/api/search").await;
    assert_eq!(problem.json()["request_id"], problem.header("x-request-id"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_timing_tells_each_stage_in_milliseconds() {
    let app = busy().await;
    let timing = app.get("/api/search?query=pool&cache=bypass").await.header("server-timing").to_owned();
    let stages: BTreeMap<&str, f64> = timing
        .split(", ")
        .map(|stage| {
            let (name, duration) = stage.split_once(";dur=").unwrap();
            (name, duration.parse().unwrap())
        })
        .collect();
    let names: Vec<_> = stages.keys().copied().collect();
    assert_eq!(names, ["embed", "fetch", "keyword", "rank", "total", "vector"]);
    assert!(stages.values().all(|stage| (0.0..=stages["total"]).contains(stage)), "{timing}");
    let words = app.get("/api/search?query=pool&mode=keyword&cache=bypass").await;
    assert!(!words.header("server-timing").contains("embed"), "{}", words.header("server-timing"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probes_tell_life_and_readiness_and_leaving() {
    let app = TestApp::start().await;
    let told = async || {
        let (live, ready) = (app.admin("/livez").await, app.admin("/readyz").await);
        (live.status.as_u16(), live.text(), ready.status.as_u16(), ready.text())
    };
    assert_eq!(told().await, (200, "alive\n".to_owned(), 200, "ready\n".to_owned()));
    app.lifecycle.stop();
    assert_eq!(told().await, (200, "alive\n".to_owned(), 503, "stopping\n".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_private_door_serves_nothing_public_and_the_public_one_nothing_private() {
    let app = TestApp::start().await;
    for path in ["/metrics", "/livez", "/readyz", "/debug/pprof/"] {
        assert_eq!(app.get(path).await.status, StatusCode::NOT_FOUND, "{path}");
    }
    for path in ["/api/search?query=x", "/api/sources", "/docs/"] {
        assert_eq!(app.admin(path).await.status, StatusCode::NOT_FOUND, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_tells_each_part() {
    let app = TestApp::start().await;
    let reply = app.get("/api/health").await;
    assert_eq!(reply.status, StatusCode::OK);
    let report = reply.json();
    assert_eq!((&report["status"], &report["version"]), (&"healthy".into(), &env!("CARGO_PKG_VERSION").into()));
    let parts: Vec<&String> = report["checks"].as_object().unwrap().keys().collect();
    assert_eq!(parts, ["embedder", "postgres", "queue", "redis"]);
    assert_json_snapshot!("health", crate::harness::redact(&report));
}
