//! Bounded memory: a million different questions pass through a server, whose caches hold some ten thousand.

use std::{sync::Arc, time::Duration};

use super::{Ground, Served, blocking, check, load, server::Server};
use crate::{Failure, http::search_path, texts::Texts};

/// Different questions, and after how many the memory is read.
const KEYS: usize = 1_000_000;
const STEP: usize = 100_000;

/// How many ask at the same time.
const CLIENTS: usize = 8;

/// One in so many is searched by meaning too, which fills the cache of vectors; by words alone is quicker.
const HYBRID: usize = 10;

/// The weight may be above the bound for a moment, by one part in so many.
const SLACK: u64 = 20;

pub async fn run(ground: &Ground<'_>) -> Result<(), Failure> {
    check_bound(ground).await?;
    if !ground.full {
        return Ok(());
    }
    let (settings, texts) = (ground.small.clone(), questions(&ground.texts));
    blocking(move || {
        let server = Server::start(&settings, &[])?;
        println!("memory: {:.0} MB before the first key", server.resident()?);
        let mut read = Vec::new();
        for step in 0..KEYS / STEP {
            let paths = Arc::new((0..STEP).map(|nth| path(&texts, step * STEP + nth)).collect::<Vec<_>>());
            load::drive(server.address, (&paths, &load::once(&paths)), CLIENTS, None)?;
            read.push(server.resident()?);
            println!("memory: {:.0} MB after {} keys", server.resident()?, (step + 1) * STEP);
        }
        // Sizes are counted once a second.
        std::thread::sleep(Duration::from_secs(2));
        let [results, vectors] = ["results", "vectors"].map(|kind| server.count("doc_server_cache_bytes", kind));
        let (results, vectors) = (results?, vectors?);
        let (first, last) = (read[1], read[read.len() - 1]);
        println!(
            "memory: {last:.0} MB after {KEYS} keys | {first:.0} MB after {} | ratio {:.3} (flat); weight {} of {} and {} of {} bytes",
            2 * STEP,
            last / first,
            results,
            settings.cache_bytes,
            vectors,
            settings.cache_vector_bytes
        );
        within(results, settings.cache_bytes)?;
        within(vectors, settings.cache_vector_bytes)
    })
    .await
}

/// A small cache through which many times its size passes.
async fn check_bound(ground: &Ground<'_>) -> Result<(), Failure> {
    const CAP: u64 = 1_000_000;
    let mut config = ground.small.search();
    config.cache.result_bytes = CAP;
    let served = Served::start(&ground.small, config).await?;
    let texts = questions(&ground.texts);
    let paths = Arc::new((0..2_000).map(|nth| path(&texts, nth)).collect::<Vec<_>>());
    let (address, asked) = (served.address, Arc::clone(&paths));
    let load = blocking(move || load::drive(address, (&asked, &load::once(&asked)), CLIENTS, None)).await?;
    served.search.tidy();
    let weight = ground.count("doc_server_cache_bytes", "results");
    served.stop().await;
    println!("memory: {} different answers | {weight} bytes kept (must {CAP} + 5 %)", load.answered);
    check(load.answered == paths.len(), || format!("{} refused", load.refused))?;
    check(weight > CAP / 2, || "so little was kept that the bound was not met".to_owned())?;
    within(weight, CAP)
}

fn within(weight: u64, cap: u64) -> Result<(), Failure> {
    check(weight <= cap + cap / SLACK, || format!("{weight} bytes are kept, {cap} are allowed"))
}

/// Some questions, which a number makes different ones.
fn questions(texts: &Texts) -> Vec<String> {
    texts.queries(900, 1_000)
}

fn path(questions: &[String], nth: usize) -> String {
    let text = format!("{} {nth}", questions[nth % questions.len()]);
    search_path(&text, if nth.is_multiple_of(HYBRID) { "" } else { "&mode=keyword" })
}
