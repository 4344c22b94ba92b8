//! Answers that only Redis has (this process keeps none), each of another key so that nothing is coalesced, against redis-benchmark
//! with one of them.

use std::time::{Duration, Instant};

use doc_server::config::Settings;

use super::{Ground, blocking, check, distinct_paths, load, server::Server, tools};
use crate::{
    Failure,
    figures::{median, print_ratio},
    http::Client,
};

/// Both sides take turns so many times, and the middle one counts.
const ROUNDS: usize = 3;

/// Clients that fill Redis and look whether all is there: so few that none waits for a connection to the database.
const CLIENTS: usize = 4;

/// How long is waited for what must come.
const PATIENCE: Duration = Duration::from_mins(1);

/// One measurement.
const TIME: Duration = Duration::from_secs(5);

/// Requests of one measurement of the other side: about as long.
const REQUESTS: u64 = 300_000;

pub async fn run(ground: &Ground<'_>) -> Result<(), Failure> {
    let Some(redis) = tools::find("redis-server", "shared") else { return Ok(()) };
    let paths = distinct_paths(&ground.texts, ground.either(2_000, 100), "");
    let (settings, full) = (ground.small.clone(), ground.full);
    blocking(move || {
        let redis = tools::Redis::start(&redis)?;
        let url = format!("redis://{}", redis.address);
        let server = start(&settings, &url, full)?;
        let order = load::once(&paths);
        load::drive(server.address, (&paths, &order), CLIENTS, None)?;
        // Answers are written behind their callers, each beside its query's vector.
        let (asked, wanted) = (Instant::now(), 2 * paths.len());
        while redis.ask("DBSIZE")?.parse::<usize>()? < wanted {
            check(asked.elapsed() < PATIENCE, || format!("Redis has not the {wanted} values after {PATIENCE:?}"))?;
            std::thread::sleep(Duration::from_millis(10));
        }
        check_hits(&server, (&paths, &order))?;
        if full { measure(&server, &redis, &paths) } else { Ok(()) }
    })
    .await
}

/// Starts a server that keeps nothing itself; returns once it uses Redis.
fn start(settings: &Settings, url: &str, full: bool) -> Result<Server, Failure> {
    let none = [("DOC_SERVER_CACHE_BYTES", "0"), ("DOC_SERVER_CACHE_VECTOR_BYTES", "0"), ("DOC_SERVER_REDIS_URL", url)];
    // Where only hits are counted, none may be missed for the machine's slowness.
    let patient = (!full).then_some(("DOC_SERVER_REDIS_TIMEOUT_MS", "1000"));
    let server = Server::start(settings, &none.into_iter().chain(patient).collect::<Vec<_>>())?;
    let asked = Instant::now();
    let mut client = Client::connect(server.address)?;
    while !redis_is_used(client.get("/api/health")?)? {
        check(asked.elapsed() < PATIENCE, || format!("the server does not use Redis after {PATIENCE:?}"))?;
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(server)
}

fn redis_is_used(health: &[u8]) -> Result<bool, Failure> {
    let health: serde_json::Value = serde_json::from_slice(health)?;
    Ok(health["checks"]["redis"]["latency_ms"].is_number())
}

/// Each is found in Redis, and nothing is searched for.
fn check_hits(server: &Server, (paths, order): (&std::sync::Arc<Vec<String>>, &load::Order)) -> Result<(), Failure> {
    let hits = || server.count("doc_server_cache_requests_total", "cache=\"results\",layer=\"l2\",outcome=\"hit\"");
    let before = (hits()?, server.searches()?);
    let load = load::drive(server.address, (paths, order), CLIENTS, None)?;
    let (hits, searches) = (hits()? - before.0, server.searches()? - before.1);
    println!("shared: {} requests | {hits} hits in Redis, {searches} database searches (must 0)", load.answered);
    check((hits, searches) == (load.answered as u64, 0), || "not every answer came from Redis".to_owned())
}

fn measure(server: &Server, redis: &tools::Redis, paths: &[String]) -> Result<(), Failure> {
    let (Some(wrk), Some(benchmark)) = (tools::find("wrk", "shared"), tools::find("redis-benchmark", "shared")) else {
        return Ok(());
    };
    let (key, length) = usual_key(redis)?;
    let (mut ours, mut theirs, mut costs) = (Vec::new(), Vec::new(), (Vec::new(), Vec::new()));
    for _ in 0..ROUNDS {
        let (seen, cost) = tools::costing(server.process(), || tools::wrk(&wrk, server.address, paths, TIME))?;
        ours.push(seen.rate);
        costs.0.push(cost);
        let get = || tools::redis_benchmark(&benchmark, redis, &key, REQUESTS);
        let (seen, cost) = tools::costing(redis.process(), get)?;
        theirs.push(seen.rate);
        costs.1.push(cost);
    }
    println!("shared: {length} bytes in Redis; rounds {ours:.0?} | {theirs:.0?}");
    let costs = ((median(costs.0), "µs"), (median(costs.1), "redis-server"));
    print_ratio("answer from Redis, processor time a request", costs.0, costs.1, "no bound");
    let sides = ((median(ours), "/s"), (median(theirs), "redis-benchmark get"));
    print_ratio("answer from Redis, wrk -t2 -c64", sides.0, sides.1, "must 0.4");
    Ok(())
}

/// The answer of middle length among a hundred.
fn usual_key(redis: &tools::Redis) -> Result<(String, usize), Failure> {
    let mut found = Vec::new();
    while found.len() < 100 {
        let key = redis.ask("RANDOMKEY")?;
        if key.contains(":results:") {
            let length: usize = redis.ask(&format!("STRLEN {key}"))?.parse()?;
            found.push((length, key));
        }
    }
    found.sort();
    let (length, key) = found.swap_remove(50);
    Ok((key, length))
}
