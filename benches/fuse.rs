//! Fusing two legs of 100 candidates, half of them found by both: what a hybrid search adds to its legs in this process.
//!
//! `cargo bench --bench fuse`

use divan::{Bencher, black_box};
use doc_server::rank::{Candidate, Fusion, Leg, Options, fuse};

fn main() {
    divan::main();
}

/// 100 candidates from `first` on, best first, with scores that fall unevenly.
fn leg(first: u16, scale: f32) -> Vec<Candidate> {
    (0..100)
        .map(|place| Candidate {
            chunk_id: i64::from(first + (place * 37) % 100),
            score: scale / (1.0 + f32::from(place)),
        })
        .collect()
}

fn fused(bencher: Bencher, fusion: Fusion) {
    let (vector, keyword) = (leg(0, 0.9), leg(50, 20.0));
    let others = |leg: &[Candidate], of: &[Candidate]| -> Vec<Candidate> {
        let known: Vec<i64> = leg.iter().map(|candidate| candidate.chunk_id).collect();
        of.iter().filter(|candidate| !known.contains(&candidate.chunk_id)).copied().collect()
    };
    let (no_similarity, no_score) = (others(&vector, &keyword), others(&keyword, &vector));
    let options = Options { fusion, ..Options::default() };
    bencher.bench_local(|| {
        let (vector, keyword) =
            (Leg { found: &vector, others: &no_similarity }, Leg { found: &keyword, others: &no_score });
        fuse(black_box(vector), black_box(keyword), &options)
    });
}

#[divan::bench]
fn weighted(bencher: Bencher) {
    fused(bencher, Fusion::Weighted);
}

#[divan::bench]
fn rrf(bencher: Bencher) {
    fused(bencher, Fusion::Rrf);
}
