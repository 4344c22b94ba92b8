//! Candidates to results: pure functions, no I/O, the same answer for the same input every time.
//!
//! Fuses the two legs into one order and drops what meets no threshold. Every result keeps its rank and score of each leg, so
//! that it can be explained.

mod fuse;

pub use fuse::{Leg, fuse};

/// A candidate of one leg, best first in its list.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// The chunk.
    pub chunk_id: i64,
    /// Vector leg: cosine similarity. Keyword leg: BM25.
    pub score: f32,
}

/// How the legs are made one list.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    serde::Serialize,
    serde::Deserialize,
    clap::ValueEnum,
    utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Fusion {
    /// Sum of the legs' normalised scores.
    #[default]
    Weighted,
    /// Reciprocal rank fusion: places only, scores ignored.
    Rrf,
}

/// What decides the order.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Options {
    /// How the legs are made one list.
    pub fusion: Fusion,
    /// Weight of the vector leg, 0 to 1; none takes the default, 0.7.
    pub alpha: Option<f32>,
    /// A result stays when its cosine similarity is at least this …
    pub min_similarity: Option<f32>,
    /// … or its BM25 score at least this. With neither, all stay.
    pub min_keyword_score: Option<f32>,
}

/// A result with what each leg says of it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Ranked {
    /// The chunk.
    pub chunk_id: i64,
    /// The score that decides the order: 0 to 1 when two legs are fused, the leg's own when there is one.
    pub score: f32,
    /// Place in the vector leg, from 1, when that found it.
    pub vector_rank: Option<usize>,
    /// Cosine similarity, when it is known.
    pub similarity: Option<f32>,
    /// Place in the keyword leg, from 1, when that found it.
    pub keyword_rank: Option<usize>,
    /// BM25 score, when it is known.
    pub keyword_score: Option<f32>,
}

impl Ranked {
    fn meets(&self, options: &Options) -> bool {
        let above = |minimum: Option<f32>, score: Option<f32>| {
            minimum.zip(score).is_some_and(|(minimum, score)| score >= minimum)
        };
        (options.min_similarity.is_none() && options.min_keyword_score.is_none())
            || above(options.min_similarity, self.similarity)
            || above(options.min_keyword_score, self.keyword_score)
    }
}
