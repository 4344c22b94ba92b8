//! A search that is answered from memory, by the real process, against nginx with the very bytes as a file.

use std::time::Duration;

use super::{Ground, blocking, check, server::Server, tools};
use crate::{
    Failure,
    figures::{median, print_ratio},
    http::{Client, search_path},
};

/// Both sides take turns so many times, and the middle one counts: the machine has neighbours.
const ROUNDS: usize = 3;

/// One measurement.
const TIME: Duration = Duration::from_secs(5);

pub async fn run(ground: &Ground<'_>) -> Result<(), Failure> {
    let (Some(wrk), Some(nginx)) = (tools::find("wrk", "cached"), tools::find("nginx", "cached")) else {
        return Ok(());
    };
    let settings = ground.small.clone();
    blocking(move || {
        let server = Server::start(&settings, &[])?;
        let paths = [search_path("how do I wait for a task to end", "")];
        let mut client = Client::connect(server.address)?;
        let body = client.get(&paths[0])?.to_vec();
        let nginx = tools::Nginx::start(&nginx, &body)?;
        let hits = || server.count("doc_server_cache_requests_total", "cache=\"results\",layer=\"l1\",outcome=\"hit\"");
        let (mut ours, mut theirs, mut costs) = (Vec::new(), Vec::new(), (Vec::new(), Vec::new()));
        let (mut asked, before) = (0, hits()?);
        for _ in 0..ROUNDS {
            let (seen, cost) = tools::costing(server.process(), || tools::wrk(&wrk, server.address, &paths, TIME))?;
            asked += seen.requests;
            ours.push(seen.rate);
            costs.0.push(cost);
            let (seen, cost) = tools::costing(nginx.process(), || tools::wrk(&wrk, nginx.address, &paths, TIME))?;
            theirs.push(seen.rate);
            costs.1.push(cost);
        }
        // Some are answered after wrk has stopped counting.
        let hits = hits()? - before;
        check(hits >= asked, || format!("{asked} answers, but {hits} hits in memory"))?;
        println!("cached: {} bytes; rounds {ours:.0?} | {theirs:.0?}", body.len());
        let costs = ((median(costs.0), "µs"), (median(costs.1), "nginx"));
        print_ratio("cached search, processor time a request", costs.0, costs.1, "no bound");
        print_ratio(
            "cached search, wrk -t2 -c64",
            (median(ours), "/s"),
            (median(theirs), "nginx"),
            "must 0.6, aim 0.9",
        );
        Ok(())
    })
    .await
}
