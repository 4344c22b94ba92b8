//! Uncached hybrid searches by the size of the read pool, on 50,000 chunks and with the real model.

use std::time::Duration;

use super::{Ground, blocking, distinct_paths, load, server::Server};
use crate::{Failure, figures::median};

/// Sizes of the pool.
const SIZES: [&str; 5] = ["2", "4", "8", "16", "32"];

/// How many ask at the same time.
const CLIENTS: usize = 16;

/// Each size is measured in turn so many times, and the middle one counts.
const ROUNDS: usize = 3;

/// One measurement.
const TIME: Duration = Duration::from_secs(6);

pub async fn run(ground: &Ground<'_>) -> Result<(), Failure> {
    let settings = ground.large().await?;
    let paths = distinct_paths(&ground.texts, 20_000, "&cache=bypass");
    blocking(move || {
        let mut seen: Vec<Vec<load::Load>> = SIZES.iter().map(|_| Vec::new()).collect();
        for _ in 0..ROUNDS {
            for (size, loads) in SIZES.iter().zip(&mut seen) {
                let server = Server::start(&settings, &[("DOC_SERVER_DATABASE_READ_CONNECTIONS", size)])?;
                let order = load::once(&paths);
                // Loads the model and opens the connections.
                load::drive(server.address, (&paths, &order), CLIENTS, Some(Duration::from_secs(2)))?;
                loads.push(load::drive(server.address, (&paths, &order), CLIENTS, Some(TIME))?);
            }
        }
        for (size, loads) in SIZES.iter().zip(&seen) {
            let of = |value: fn(&load::Load) -> f64| median(loads.iter().map(value).collect());
            println!(
                "pools: {size} connections, {CLIENTS} clients: {:.0}/s, p50 {:.1} ms, p99 {:.1} ms, refused {:?}; rounds {:.0?}/s",
                of(|load| load.rate),
                of(|load| load.p50),
                of(|load| load.p99),
                loads.iter().map(|load| load.refused).collect::<Vec<_>>(),
                loads.iter().map(|load| load.rate).collect::<Vec<_>>(),
            );
        }
        Ok(())
    })
    .await
}
