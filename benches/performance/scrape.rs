//! What one look at the metrics of a full process costs: every route asked well and badly, samples of a busy minute waiting.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Ground, blocking, check, distinct_paths, load, server::Server};
use crate::{Failure, figures::median, http::Client};

/// Every route, and what callers get wrong.
const PATHS: [&str; 13] = [
    "/",
    "/docs/",
    "/openapi.json",
    "/api/health",
    "/api/sources",
    "/api/sources/none",
    "/api/pages",
    "/api/pages/1",
    "/api/chunks/1",
    "/api/search",
    "/api/search?query=x&match_count=0",
    "/no/such/route",
    "/assets/none",
];

/// So many searches leave their samples before each look: what a second of load brings.
const SEARCHES: usize = 2_000;

/// How many ask at the same time.
const CLIENTS: usize = 8;

/// More series than this are no closed sets of labels.
const MOST_SERIES: usize = 2_000;

pub async fn run(ground: &Ground<'_>) -> Result<(), Failure> {
    let (settings, rounds) = (ground.small.clone(), ground.either(30, 2));
    let searches = distinct_paths(&ground.texts, ground.either(SEARCHES, 50), "");
    blocking(move || {
        let server = Server::start(&settings, &[])?;
        let (mut front, mut admin) = (Client::connect(server.address)?, Client::connect(server.admin())?);
        for path in PATHS {
            front.ask(path)?;
        }
        let (mut times, mut bytes, mut series) = (Vec::new(), 0, 0);
        for _ in 0..rounds {
            load::drive(server.address, (&searches, &load::once(&searches)), CLIENTS, None)?;
            let began = Instant::now();
            let text = admin.get("/metrics")?;
            times.push(began.elapsed().as_secs_f64() * 1_000.0);
            bytes = text.len();
            series = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty() && line[0] != b'#').count();
            // The next finds the samples of its own searches only.
            std::thread::sleep(Duration::from_millis(100));
        }
        let longest = times.iter().copied().fold(0.0, f64::max);
        println!(
            "scrape: {:.2} ms, at most {longest:.2} ms (must 5), {series} series, {} kB, {} searches before each",
            median(times),
            bytes / 1_000,
            Arc::clone(&searches).len()
        );
        check((100..MOST_SERIES).contains(&series), || format!("{series} series"))
    })
    .await
}
