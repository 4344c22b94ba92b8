//! Fusion of the vector and the keyword leg.

use std::collections::HashMap;

use super::{Candidate, Fusion, Options, Ranked};

/// Cormack, Clarke and Büttcher's constant for reciprocal rank fusion (SIGIR 2009).
const RRF_K: f32 = 60.0;

/// The weight of vectors when the caller gives none.
const DEFAULT_ALPHA: f32 = 0.6;

/// One list from two legs, best first. With one leg empty the order and scores are the other's.
#[must_use]
pub fn fuse(vector: &[Candidate], keyword: &[Candidate], options: &Options) -> Vec<Ranked> {
    let mut found: HashMap<i64, Ranked> = HashMap::with_capacity(vector.len() + keyword.len());
    for (place, candidate) in (1..).zip(vector) {
        entry(&mut found, candidate.chunk_id).vector = Some((place, candidate.score));
    }
    for (place, candidate) in (1..).zip(keyword) {
        entry(&mut found, candidate.chunk_id).keyword = Some((place, candidate.score));
    }
    let mut ranked: Vec<Ranked> = found.into_values().collect();
    let alpha = options.alpha.unwrap_or(DEFAULT_ALPHA);
    let (vector_range, keyword_range) = (Range::of(vector), Range::of(keyword));
    for result in &mut ranked {
        result.score = match options.fusion {
            _ if keyword.is_empty() => result.vector.map_or(0.0, |(_, score)| score),
            _ if vector.is_empty() => result.keyword.map_or(0.0, |(_, score)| score),
            Fusion::Rrf => reciprocal_rank(result.vector) + reciprocal_rank(result.keyword),
            Fusion::Weighted => {
                alpha * vector_range.normalise(result.vector) + (1.0 - alpha) * keyword_range.normalise(result.keyword)
            }
        };
    }
    ranked.retain(|result| result.meets(options));
    ranked.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.chunk_id.cmp(&b.chunk_id)));
    ranked
}

fn entry(found: &mut HashMap<i64, Ranked>, chunk_id: i64) -> &mut Ranked {
    found.entry(chunk_id).or_insert(Ranked { chunk_id, score: 0.0, vector: None, keyword: None })
}

#[expect(clippy::cast_precision_loss, reason = "places are at most a few thousand")]
fn reciprocal_rank(leg: Option<(usize, f32)>) -> f32 {
    leg.map_or(0.0, |(place, _)| 1.0 / (RRF_K + place as f32))
}

/// The scores of one leg, best and worst.
struct Range {
    lowest: f32,
    highest: f32,
}

impl Range {
    fn of(candidates: &[Candidate]) -> Self {
        let scores = candidates.iter().map(|candidate| candidate.score);
        Self { lowest: scores.clone().fold(f32::INFINITY, f32::min), highest: scores.fold(f32::NEG_INFINITY, f32::max) }
    }

    /// 0 for the leg's worst candidate and for one it did not find, 1 for its best.
    fn normalise(&self, leg: Option<(usize, f32)>) -> f32 {
        let width = self.highest - self.lowest;
        match leg {
            None => 0.0,
            Some(_) if width <= f32::EPSILON => 1.0,
            Some((_, score)) => (score - self.lowest) / width,
        }
    }
}
