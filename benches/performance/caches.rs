//! The same requests with the caches and without, on 50,000 chunks and with the real model: throughput and latency.

use std::time::Duration;

use super::{Ground, blocking, distinct_paths, load, server::Server, zipf::zipf};
use crate::{Failure, figures::print_ratio};

/// How many ask at the same time.
const CLIENTS: usize = 16;

/// Different questions, and requests for them.
const DISTINCT: usize = 100_000;
const REQUESTS: usize = 200_000;

/// Each side: the caches are empty at its beginning.
const TIME: Duration = Duration::from_secs(30);

pub async fn run(ground: &Ground<'_>) -> Result<(), Failure> {
    let settings = ground.large().await?;
    let paths = distinct_paths(&ground.texts, DISTINCT, "");
    let order = zipf(1.0, DISTINCT, REQUESTS);
    blocking(move || {
        let measure = |bytes: &[(&str, &str)]| -> Result<load::Load, Failure> {
            let server = Server::start(&settings, bytes)?;
            // Loads the model.
            load::drive(server.address, (&paths, &load::once(&paths[..1])), 1, None)?;
            load::drive(server.address, (&paths, &order), CLIENTS, Some(TIME))
        };
        // On a small machine legs wait in vain for a connection, each with a warning.
        let quiet = ("DOC_SERVER_LOG_LEVEL", "error");
        let off = measure(&[("DOC_SERVER_CACHE_BYTES", "0"), ("DOC_SERVER_CACHE_VECTOR_BYTES", "0"), quiet])?;
        let on = measure(&[quiet])?;
        for (name, load) in [("off", &off), ("on, from empty", &on)] {
            println!(
                "caches {name}: {:.0}/s, p50 {:.2} ms, p99 {:.2} ms, {} refused of {} in {} s",
                load.rate,
                load.p50,
                load.p99,
                load.refused,
                load.answered + load.refused,
                TIME.as_secs()
            );
        }
        print_ratio("Zipf load with caches, 16 clients", (on.rate, "/s"), (off.rate, "caches off"), "no bound");
        Ok(())
    })
    .await
}
