//! Traces: what a collector gets of a request, what is passed on, and that a collector which is away harms nobody.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use tokio::net::TcpListener;

use crate::harness::{
    Stopwatch,
    collector::{Collector, Span},
    database::Database,
    eventually,
    process::free_address,
    served::{Provider, Served, ingest},
};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

/// The spans of a search.
const STAGES: [&str; 7] = ["cache", "coalesce", "embed", "index", "rank", "request", "search"];

/// A server whose provider is a stand-in, with these settings; and documents to find.
async fn server(provider: &Provider, settings: &[(&str, &str)]) -> (Database, Served) {
    let database = Database::migrated().await;
    ingest(&database, &provider.settings()).await;
    let mut all = provider.settings();
    all.extend(settings);
    let server = Served::start(&database, &all).await;
    (database, server)
}

async fn search(server: &Served, query: &str, traceparent: &str) -> u16 {
    let url = format!("http://{}/api/search?query={query}", server.public);
    let asked = server.client.get(url).header("traceparent", traceparent).header("x-request-id", query);
    asked.send().await.expect("an answer").status().as_u16()
}

async fn end(database: Database, server: Served) -> String {
    server.signal("INT");
    let (code, log) = server.ended(Duration::from_secs(25)).await;
    assert_eq!(code, Some(0), "{log}");
    database.drop_now().await;
    log
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trace_has_a_span_for_each_stage_and_joins_the_callers() {
    let (provider, collector) = (Provider::start().await, Collector::start().await);
    // The log's level has nothing to do with what is exported; the caller has decided, so the ratio has not either.
    let settings = [("otlp_endpoint", collector.url.as_str()), ("otlp_sample_ratio", "0"), ("log_format", "json")];
    let (database, server) = server(&provider, &settings).await;
    let before = provider.headers().len();
    assert_eq!(search(&server, "pool", &format!("00-{TRACE}-{CALLER}-01")).await, 200);
    assert_eq!(search(&server, "unsampled", &format!("00-{}-{CALLER}-00", "1".repeat(32))).await, 200);
    eventually("all spans have arrived", async || {
        let spans = collector.spans();
        STAGES.iter().all(|stage| spans.iter().any(|span| span.name == *stage))
    })
    .await;
    let passed_on: Vec<String> = provider.headers()[before..]
        .iter()
        .map(|headers| headers["traceparent"].to_str().unwrap().to_owned())
        .collect();
    let log = end(database, server).await;

    let spans = collector.spans();
    assert!(spans.iter().all(|span| span.trace == TRACE), "{spans:#?}");
    let root = spans.iter().find(|span| span.name == "request").unwrap();
    assert_eq!((root.parent.as_str(), root.kind), (CALLER, 2));
    assert_eq!((root.attributes["route"].as_str(), root.attributes["request_id"].as_str()), ("/api/search", "pool"));
    let names: BTreeSet<&str> = spans.iter().map(|span| span.name.as_str()).collect();
    assert_eq!(names, STAGES.into());
    let leads_to_root = |span: &Span| {
        let mut at = span.clone();
        while let Some(parent) = spans.iter().find(|other| other.id == at.parent) {
            at = parent.clone();
        }
        at.id == root.id
    };
    assert!(spans.iter().all(leads_to_root), "{spans:#?}");

    let embed = spans.iter().find(|span| span.name == "embed").unwrap();
    assert!(passed_on.contains(&format!("00-{TRACE}-{}-01", embed.id)), "{passed_on:?}");
    assert!(passed_on.iter().any(|sent| sent.starts_with(&format!("00-{}", "1".repeat(32))) && sent.ends_with("-00")));
    let line = log.lines().find(|line| line.contains("answered") && line.contains("\"request_id\":\"pool\""));
    assert!(line.expect("its line").contains(&format!("\"trace_id\":\"{TRACE}\"")), "{line:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_is_away_or_silent_harms_no_request() {
    let silent = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    for address in [silent.local_addr().unwrap(), free_address()] {
        let provider = Provider::start().await;
        let endpoint = format!("http://{address}");
        let settings = [("otlp_endpoint", endpoint.as_str()), ("otlp_sample_ratio", "1")];
        let (database, server) = server(&provider, &settings).await;
        // More spans than the queue holds.
        let mut times = Vec::new();
        for number in 0..600 {
            let began = Stopwatch::start();
            assert_eq!(search(&server, &format!("q{number}"), "").await, 200);
            times.push(began.elapsed());
        }
        times.sort_unstable();
        // The queue is full after two thirds of them: harm would be done to more than a few.
        let (of_twenty, slowest) = (times[times.len() * 95 / 100], times[times.len() - 1]);
        assert!(of_twenty < Duration::from_secs(1) && slowest < Duration::from_secs(5), "{of_twenty:?}, {slowest:?}");
        let told = Instant::now();
        end(database, server).await;
        assert!(told.elapsed() < Duration::from_secs(10), "{:?}", told.elapsed());
    }
}
