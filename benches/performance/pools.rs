//! Hybrid searches by the size of the read pool, on 50,000 chunks. No answer is kept, but the queries' vectors are: what varies
//! is the database's part, and embedding would hide it on a small machine.

use std::{sync::Arc, time::Duration};

use doc_server::config::Settings;

use super::{Ground, blocking, distinct_paths, load, server::Server};
use crate::{Failure, figures::median};

/// Sizes of the pool.
const SIZES: [&str; 5] = ["2", "4", "8", "16", "32"];

/// How many ask at the same time.
const CLIENTS: usize = 16;

/// Different searches: more than ask at once, few enough to embed for every size.
const SEARCHES: usize = 100;

/// Each size is measured in turn so many times, and the middle one counts.
const ROUNDS: usize = 3;

/// One measurement.
const TIME: Duration = Duration::from_secs(6);

/// What one size brought.
struct Seen {
    load: load::Load,
    /// Answers that miss a leg for want of a connection.
    degraded: usize,
}

pub async fn run(ground: &Ground<'_>) -> Result<(), Failure> {
    let settings = ground.large().await?;
    let paths = distinct_paths(&ground.texts, SEARCHES, "");
    blocking(move || {
        let mut seen: Vec<Vec<Seen>> = SIZES.iter().map(|_| Vec::new()).collect();
        for _ in 0..ROUNDS {
            for (size, loads) in SIZES.iter().zip(&mut seen) {
                loads.push(measure(&settings, size, &paths)?);
            }
        }
        for (size, loads) in SIZES.iter().zip(&seen) {
            let of = |value: fn(&load::Load) -> f64| median(loads.iter().map(|seen| value(&seen.load)).collect());
            let sum = |value: fn(&Seen) -> usize| loads.iter().map(value).sum::<usize>();
            println!(
                "pools: {size} connections, {CLIENTS} clients: {:.0}/s, p50 {:.1} ms, p99 {:.1} ms; of {} {} refused, {} degraded; \
                 rounds {:.0?}/s",
                of(|load| load.rate),
                of(|load| load.p50),
                of(|load| load.p99),
                sum(|seen| seen.load.answered + seen.load.refused),
                sum(|seen| seen.load.refused),
                sum(|seen| seen.degraded),
                loads.iter().map(|seen| seen.load.rate).collect::<Vec<_>>(),
            );
        }
        Ok(())
    })
    .await
}

fn measure(settings: &Settings, size: &str, paths: &Arc<Vec<String>>) -> Result<Seen, Failure> {
    // Its warnings of every leg that waited in vain are counted below.
    let more = [
        ("DOC_SERVER_DATABASE_READ_CONNECTIONS", size),
        ("DOC_SERVER_CACHE_BYTES", "0"),
        ("DOC_SERVER_LOG_LEVEL", "error"),
    ];
    let server = Server::start(settings, &more)?;
    let order = load::once(paths);
    // Embeds the queries and opens the connections.
    load::drive(server.address, (paths, &order), 1, None)?;
    load::drive(server.address, (paths, &order), CLIENTS, None)?;
    let degraded = || server.count("doc_server_search_degraded_total", "");
    let before = degraded()?;
    let load = load::drive(server.address, (paths, &order), CLIENTS, Some(TIME))?;
    Ok(Seen { load, degraded: usize::try_from(degraded()? - before)? })
}
