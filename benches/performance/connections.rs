//! Many open connections: cached searches at a fixed rate, half of what the server can do, on 1,000 connections and on 64.

use std::time::Duration;

use super::{Ground, blocking, check, load, server::Server, tools};
use crate::{
    Failure,
    figures::{median, print_ratio},
    http::{Client, search_path},
};

/// Both sides take turns so many times, and the middle one counts.
const ROUNDS: usize = 5;

/// One measurement.
const TIME: Duration = Duration::from_secs(5);

pub async fn run(ground: &Ground<'_>) -> Result<(), Failure> {
    let (settings, full) = (ground.small.clone(), ground.full);
    blocking(move || {
        let server = Server::start(&settings, &[])?;
        let path = search_path("how do I wait for a task to end", "");
        Client::connect(server.address)?.get(&path)?;
        if full { measure(&server, path) } else { check_answers(&server, &path) }
    })
    .await
}

/// Each request is answered, from memory.
fn check_answers(server: &Server, path: &str) -> Result<(), Failure> {
    let before = server.searches()?;
    let load = load::at_rate(server.address, path, 500, (1_000.0, Duration::from_secs(1)))?;
    let searches = server.searches()? - before;
    println!("connections: {} answers on 500 connections | {searches} database searches (must 0)", load.answered);
    check((load.answered, searches) == (1_000, 0), || "not every answer came from memory".to_owned())
}

fn measure(server: &Server, path: String) -> Result<(), Failure> {
    let Some(wrk) = tools::find("wrk", "connections") else { return Ok(()) };
    let paths = [path];
    let capacity = tools::wrk(&wrk, server.address, &paths, TIME)?.rate;
    let rate = capacity / 2.0;
    let (mut many, mut few, mut halves) = (Vec::new(), Vec::new(), (Vec::new(), Vec::new()));
    for _ in 0..ROUNDS {
        let load = load::at_rate(server.address, &paths[0], 1_000, (rate, TIME))?;
        many.push(load.p99);
        halves.0.push(load.p50);
        let load = load::at_rate(server.address, &paths[0], 64, (rate, TIME))?;
        few.push(load.p99);
        halves.1.push(load.p50);
    }
    println!(
        "connections: {rate:.0}/s, half of {capacity:.0}/s; p50 {:.2} | {:.2} ms; p99 rounds {many:.2?} | {few:.2?}",
        median(halves.0),
        median(halves.1)
    );
    print_ratio(
        "cached p99, 1,000 connections",
        (median(many), "ms"),
        (median(few), "64 connections"),
        "must 3, aim 1.5",
    );
    Ok(())
}
