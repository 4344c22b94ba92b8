//! Secrets are planted everywhere a server has or gets any, and looked for everywhere it tells something.

use std::{io::Read, time::Duration};

use base64::Engine;
use flate2::read::GzDecoder;
use reqwest::Method;

use crate::harness::{
    collector::Collector,
    database::Database,
    eventually, folder_of,
    process::free_address,
    served::{Provider, Served, ingest},
};

/// Each is planted once, under its number.
fn canary(number: usize) -> String {
    format!("canary{number:02}wk7q")
}

/// What is looked for: a canary as it is, and as HTTP's Basic scheme would write it.
fn forms(number: usize) -> [Vec<u8>; 2] {
    let basic = base64::engine::general_purpose::STANDARD.encode(format!("user:{}", canary(number)));
    [canary(number).into_bytes(), basic.into_bytes()]
}

const PLANTED: usize = 20;

/// The id of a request, which is told.
const NO_SECRET: &str = "no-secret-wk7q";

/// Where `form` is told, with what stands around it.
fn places(told: &[(String, Vec<u8>)], form: &[u8]) -> Vec<String> {
    let place = |(place, text): &(String, Vec<u8>)| {
        let at = text.windows(form.len()).position(|window| window == form)?;
        let around = &text[at.saturating_sub(200)..(at + 100).min(text.len())];
        Some(format!("{} in {place}: {}", String::from_utf8_lossy(form), String::from_utf8_lossy(around)))
    };
    told.iter().filter_map(place).collect()
}

/// A server with a secret in each setting that may hold one, at the level that logs everything.
async fn planted(database: &Database, provider: &Provider, collector: &Collector, file: &str) -> Served {
    let with_password =
        |number: usize| database.url().replacen("postgres@", &format!("postgres:{}@", canary(number)), 1);
    // Nobody listens there: what goes wrong is told, without the password.
    let redis = format!("redis://user:{}@{}", canary(4), free_address());
    let settings = [
        ("--database-url", with_password(1)),
        ("--config", file.to_owned()),
        ("database_direct_url", with_password(2)),
        ("database_read_urls", with_password(3)),
        ("redis_url", redis),
        ("redis_mode", "sentinel".to_owned()),
        ("redis_sentinel_master", "primary".to_owned()),
        ("redis_sentinel_password", canary(5)),
        ("embed_provider", "remote".to_owned()),
        ("embed_url", provider.url.clone()),
        ("embed_model", "test".to_owned()),
        ("embed_dimensions", "4".to_owned()),
        ("HTTPS_PROXY", format!("http://user:{}@127.0.0.1:9", canary(6))),
        ("OTEL_EXPORTER_OTLP_HEADERS", format!("x-api-key={}", canary(8))),
        ("otlp_endpoint", collector.url.clone()),
        ("otlp_sample_ratio", "1".to_owned()),
        ("log_level", "trace".to_owned()),
        ("heap_profiling", "true".to_owned()),
    ];
    let settings: Vec<(&str, &str)> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let mut server = Served::spawn("", &settings);
    server.ready().await;
    server
}

/// Requests that carry secrets, good and bad.
async fn ask_with_secrets(server: &Served) {
    let front = format!("http://{}", server.public);
    let search = format!("{front}/api/search?query=pool");
    let with = |name: &'static str, value: String| server.client.get(&search).header(name, value);
    let requests = [
        with("authorization", format!("Bearer {}", canary(9))),
        with("authorization", format!("Basic {}", String::from_utf8(forms(10)[1].clone()).unwrap())),
        with("x-api-key", canary(11)),
        with("cookie", format!("session={}", canary(12))),
        with("proxy-authorization", format!("Bearer {}", canary(13))),
        with("x-request-id", NO_SECRET.to_owned()),
        // Too long to be an id: replaced, and not told.
        with("x-request-id", format!("{}{}", canary(14), "x".repeat(200))),
        server.client.get(format!("{search}&api_key={}", canary(15))),
        server.client.get(format!("{front}/api/pages?access_token={}", canary(16))),
        server.client.get(format!("{front}/nothing/here?token={}", canary(17))),
        server.client.post(format!("{front}/api/search")).json(&serde_json::json!({"password": canary(18)})),
        server
            .client
            .post(format!("{front}/api/search"))
            .header("content-type", "application/json")
            .body(format!("{{\"query\": \"{}", canary(19))),
        server.client.request(Method::DELETE, format!("{front}/api/sources/none?key={}", canary(20))),
    ];
    for request in requests {
        request.send().await.expect("an answer");
    }
    assert_eq!(server.get("/api/search?query=pool&cache=bypass").await.0, 200);
}

/// Everything the server tells, by where.
async fn told(server: &Served) -> Vec<(String, Vec<u8>)> {
    let mut told = Vec::new();
    for path in [
        "/metrics",
        "/readyz",
        "/debug/pprof/cmdline",
        "/debug/cache/stats",
        "/debug/pprof/profile?seconds=1",
        "/debug/pprof/heap",
        "/debug/pprof/flamegraph?seconds=1",
    ] {
        let answer = server.client.get(format!("http://{}{path}", server.private)).send().await.expect("an answer");
        assert_eq!(answer.status(), 200, "{path}");
        let body = answer.bytes().await.expect("a body").to_vec();
        let mut plain = Vec::new();
        let body = if GzDecoder::new(body.as_slice()).read_to_end(&mut plain).is_ok() { plain } else { body };
        told.push((path.to_owned(), body));
    }
    told.push(("/api/health".to_owned(), server.get("/api/health").await.1.into_bytes()));
    told
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_is_ever_told() {
    let (provider, collector) = (Provider::start().await, Collector::start().await);
    let database = Database::migrated().await;
    ingest(&database, &provider.settings()).await;
    let key = format!("embed_api_key = \"{}\"\n", canary(7));
    let folder = folder_of(&[("settings.toml", key.as_str())]);
    let file = folder.path().join("settings.toml");
    let server = planted(&database, &provider, &collector, file.to_str().unwrap()).await;
    ask_with_secrets(&server).await;

    // Files that cannot be used, with a secret in the very line that is wrong.
    for bad in [format!("embed_api_key = \"{}\n", canary(7)), format!("embed_api_key = {}\n", canary(7))] {
        let before = server.log().matches("kept the old ones").count();
        std::fs::write(&file, bad).unwrap();
        server.signal("HUP");
        eventually("the file is refused", async || server.log().matches("kept the old ones").count() > before).await;
    }
    eventually("spans have arrived", async || collector.spans().iter().any(|span| span.name == "rank")).await;
    let mut told = told(&server).await;
    server.signal("INT");
    let (code, log) = server.ended(Duration::from_secs(25)).await;
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("TRACE") && log.contains("redis"), "everything is logged: {log}");
    told.push(("the log".to_owned(), log.into_bytes()));
    told.push(("the collector".to_owned(), collector.bytes()));

    // They were planted: whom they are for has got them.
    let keys: Vec<_> = provider.headers().iter().filter_map(|headers| headers.get("authorization").cloned()).collect();
    assert!(keys.iter().any(|key| key.to_str().unwrap().contains(&canary(7))), "{keys:?}");
    let found: Vec<String> = (1..=PLANTED).flat_map(forms).flat_map(|form| places(&told, &form)).collect();
    assert!(found.is_empty(), "{found:#?}");
    // What is no secret is found, by log, collector and metrics.
    assert_eq!(places(&told, NO_SECRET.as_bytes()).len(), 2, "a request's id");
    assert!(places(&told, b"/api/sources/{source_id}").len() >= 3, "a route");
    database.drop_now().await;
}
