//! Requests as people make them, a few questions often and many rarely: how many of them reach the database.

use std::{collections::HashSet, sync::Arc};

use super::{Ground, Served, blocking, check, distinct_paths, load};
use crate::Failure;

/// How many ask at the same time: to measure, and to check, when none may have to wait for a connection.
const CLIENTS: (usize, usize) = (32, 8);

/// The exponents with their bounds: the one that is promised, a flatter one, and all questions alike.
const ALPHAS: [(f64, &str, &str); 3] = [(1.0, " (must 0.3)", " (must 70 %)"), (0.85, "", ""), (0.0, "", "")];

pub async fn run(ground: &Ground<'_>) -> Result<(), Failure> {
    let (requests, distinct) = ground.either((200_000, 100_000), (2_000, 1_000));
    let paths = distinct_paths(&ground.texts, distinct, "");
    for alpha in ground.either(&ALPHAS[..], &ALPHAS[..1]) {
        let order = zipf(alpha.0, distinct, requests);
        let served = Served::start(&ground.small, ground.small.search()).await?;
        let counted = count(ground, &served, (&paths, &order), *alpha).await;
        served.stop().await;
        counted?;
    }
    let clients = ground.either(CLIENTS.0, CLIENTS.1);
    let sample = zipf(1.0, distinct, requests / 40);
    let off = Arc::new(paths.iter().map(|path| format!("{path}&cache=bypass")).collect::<Vec<_>>());
    let served = Served::start(&ground.small, ground.small.search()).await?;
    let before = ground.searches("keyword");
    let (address, order) = (served.address, Arc::clone(&sample));
    let load = blocking(move || load::drive(address, (&off, &order), clients, None)).await?;
    let searches = ground.searches("keyword") - before;
    served.stop().await;
    println!("zipf: caches off: {} requests | {searches} database searches", load.answered);
    check(searches == sample.len() as u64, || "without caches every request is one search".to_owned())
}

async fn count(
    ground: &Ground<'_>,
    served: &Served,
    (paths, order): (&Arc<Vec<String>>, &load::Order),
    (alpha, most, least): (f64, &str, &str),
) -> Result<(), Failure> {
    let counts = || {
        let cache = |outcome: &str| {
            let label = format!("cache=\"results\",layer=\"l1\",outcome=\"{outcome}\"");
            ground.count("doc_server_cache_requests_total", &label)
        };
        let coalesced = ground.count("doc_server_coalesce_requests_total", "cache=\"results\",role=\"follower\"");
        let degraded = ground.count("doc_server_search_degraded_total", "");
        [ground.searches("vector"), ground.searches("keyword"), cache("hit"), coalesced, degraded]
    };
    let before = counts();
    let (address, asked, sent) = (served.address, Arc::clone(paths), Arc::clone(order));
    let clients = ground.either(CLIENTS.0, CLIENTS.1);
    let load = blocking(move || load::drive(address, (&asked, &sent), clients, None)).await?;
    let after = counts();
    let [vector, keyword, hits, coalesced, degraded] = [0, 1, 2, 3, 4].map(|at| after[at] - before[at]);
    let requests = order.len() as u64;
    let distinct = order.iter().collect::<HashSet<_>>().len() as u64;
    #[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
    let share = |of: u64| of as f64 / requests as f64;
    println!(
        "zipf, alpha {alpha:.2}: {requests} requests of {distinct} different | {keyword} database searches, {:.3} of caches off{}; \
         hits {:.1} %, {coalesced} of them coalesced{}; {:.0}/s, p50 {:.2} ms, p99 {:.2} ms",
        share(keyword),
        most,
        100.0 * share(hits + coalesced),
        least,
        load.rate,
        load.p50,
        load.p99,
    );
    // Neither is kept, so both make more work for the database: then the figures are those of a machine that was overloaded.
    if load.refused as u64 + degraded > 0 {
        println!("zipf: {} requests were refused and {degraded} searches degraded, {vector} by vector", load.refused);
    }
    if ground.full {
        return Ok(());
    }
    check((load.refused, degraded) == (0, 0), || "the database was too busy to count".to_owned())?;
    check(vector == keyword, || format!("{vector} vector searches but {keyword} keyword searches"))?;
    // All of it fits into memory here, so each question is searched for once.
    check(keyword == distinct, || format!("{keyword} searches for {distinct} questions"))?;
    check(served.probe.texts() as u64 == distinct, || format!("{} embeddings", served.probe.texts()))
}

/// `requests` draws among `distinct` places, the first most often: place `n` as often as `1 / n^alpha`. The same in every run.
pub fn zipf(alpha: f64, distinct: usize, requests: usize) -> load::Order {
    let mut random = fastrand::Rng::with_seed(7);
    let mut sum = 0.0;
    #[expect(clippy::cast_precision_loss, reason = "a hundred thousand")]
    let sums: Vec<f64> = (1..=distinct)
        .map(|place| {
            sum += (place as f64).powf(-alpha);
            sum
        })
        .collect();
    let draw = |random: &mut fastrand::Rng| {
        let at = random.f64() * sum;
        u32::try_from(sums.partition_point(|upto| *upto < at).min(distinct - 1)).unwrap_or(0)
    };
    Arc::new((0..requests).map(|_| draw(&mut random)).collect())
}
