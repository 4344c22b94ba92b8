//! A rollout: two replicas behind haproxy are replaced one after the other, again and again, and no request fails.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use doc_server::runtime::lifecycle::Lifecycle;

use crate::harness::{
    database::Database,
    eventually,
    haproxy::{Doors, Haproxy},
    process::free_addresses,
    served::{Served, ingest, serving},
};

/// Requests a second.
const RATE: u64 = 200;

/// The proxy asks once a second, and two refusals count: time enough for it on a busy machine, where what is late is no failure.
async fn start(database: &Database, doors: Doors) -> Served {
    let patient = [("database_acquire_timeout_ms", "5000"), ("shed_least_searches", "64")];
    let settings = [("drain_delay_s", "8"), ("log_level", "warn"), patient[0], patient[1]];
    let mut server = Served::run_command(&mut serving(&database.url(), doors, &settings), doors);
    server.ready().await;
    server
}

/// What became of the requests.
#[derive(Default)]
struct Load {
    sent: AtomicUsize,
    answered: AtomicUsize,
    failures: Mutex<Vec<String>>,
}

/// Sends at a fixed rate, whether answers come or not.
async fn send(load: Arc<Load>, proxy: String, time: Duration) {
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(30)).build().unwrap();
    let lifecycle = Lifecycle::new();
    let mut clock = tokio::time::interval(Duration::from_secs(1) / u32::try_from(RATE).unwrap());
    let words = ["pool", "retry", "backoff", "connection", "timeout", "task"];
    let requests = time.as_secs() * RATE;
    for number in 0..usize::try_from(requests).unwrap() {
        clock.tick().await;
        // Most are answered from memory, some are made anew.
        let caching = if number.is_multiple_of(50) { "bypass" } else { "use" };
        let url = format!("{proxy}/api/search?query={}&cache={caching}", words[number % words.len()]);
        let (load, client) = (Arc::clone(&load), client.clone());
        load.sent.fetch_add(1, Ordering::SeqCst);
        lifecycle.spawn_detached(async move {
            let failure = match client.get(url).send().await {
                Ok(answer) if answer.status() == 200 => answer.bytes().await.err().map(|error| error.to_string()),
                Ok(answer) => Some(format!("request {number}: {}", answer.status())),
                Err(error) => Some(format!("request {number}: {error:?}")),
            };
            load.failures.lock().unwrap().extend(failure);
            load.answered.fetch_add(1, Ordering::SeqCst);
        });
    }
}

/// Replaces replicas in turn for `time`, under load; returns how often one was replaced.
async fn roll(time: Duration) -> usize {
    let database = Database::migrated().await;
    ingest(&database, &[]).await;
    let doors = [free_addresses(), free_addresses()];
    let mut replicas = vec![start(&database, doors[0]).await, start(&database, doors[1]).await];
    let proxy = Haproxy::start(&doors);
    proxy.uses(2, &replicas[0]).await;

    let load = Arc::new(Load::default());
    let lifecycle = Lifecycle::new();
    let sending = lifecycle.spawn_detached(send(Arc::clone(&load), format!("http://{}", proxy.address), time));
    let mut replaced = 0;
    while !sending.is_finished() {
        let old = replicas.remove(0);
        old.signal("TERM");
        let (code, log) = old.ended(Duration::from_secs(25)).await;
        assert_eq!(code, Some(0), "{log}");
        let new = start(&database, doors[replaced % 2]).await;
        proxy.uses(2, &new).await;
        replicas.push(new);
        replaced += 1;
    }
    let sent = load.sent.load(Ordering::SeqCst);
    eventually("every request has ended", async || load.answered.load(Ordering::SeqCst) == sent).await;
    let failures = std::mem::take(&mut *load.failures.lock().unwrap());
    println!("{} failed of {sent} while replicas were replaced {replaced} times", failures.len());
    assert!(failures.is_empty(), "{} of {sent} failed: {:#?}", failures.len(), &failures[..failures.len().min(10)]);
    assert_eq!(sent, usize::try_from(time.as_secs() * RATE).unwrap());
    drop(replicas);
    database.drop_now().await;
    replaced
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replacing_both_replicas_fails_no_request() {
    assert!(roll(Duration::from_secs(10)).await >= 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: a minute of replacing replicas"]
async fn a_minute_of_rollouts_fails_no_request() {
    assert!(roll(Duration::from_mins(1)).await >= 4);
}
