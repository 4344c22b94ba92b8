//! What `eval` prints: a table for people, one JSON document for programs.

use serde_json::json;

use super::measure::{Latency, Measurement};
use crate::{app::Error, rank};

/// Prints one set.
pub fn print_table(measured: &Measurement) {
    println!(
        "\n{}: {} documents in {} chunks, {} queries",
        measured.set, measured.documents, measured.chunks, measured.queries
    );
    println!(
        "{:<10} {:>8} {:>10} {:>8} {:>8} {:>9} {:>9}",
        "mode", "nDCG@10", "recall@10", "MRR@10", "hit@5", "p50 ms", "p95 ms"
    );
    for mode in &measured.modes {
        let (quality, latency) = (&mode.quality, &mode.latency_ms);
        println!(
            "{:<10} {:>8.4} {:>10.4} {:>8.4} {:>8.4} {:>9.2} {:>9.2}",
            format!("{:?}", mode.mode).to_lowercase(),
            quality.ndcg_at_10,
            quality.recall_at_10,
            quality.mrr_at_10,
            quality.hit_at_5,
            latency.p50,
            latency.p95
        );
    }
    let approximate = &measured.approximate;
    let show = |latency: &Latency| format!("{:.2} ms (p95 {:.2})", latency.p50, latency.p95);
    println!(
        "vector index against exact: recall@10 {:.4}, {} against {}",
        approximate.recall_at_10,
        show(&approximate.latency_ms),
        show(&approximate.exact_latency_ms)
    );
}

/// Prints all sets.
///
/// # Errors
/// Never in practice: numbers and names become JSON.
pub fn print_json(measured: &[Measurement], ranking: rank::Options) -> Result<(), Error> {
    let report = json!({ "alpha": ranking.alpha, "fusion": ranking.fusion, "sets": measured });
    let text = serde_json::to_string_pretty(&report).map_err(|error| Error::Failed(error.to_string()))?;
    println!("{text}");
    Ok(())
}
