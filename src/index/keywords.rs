//! The keyword leg: real BM25 inside Postgres.
//!
//! Each chunk holds its terms (an array with a GIN index, to find candidates) and their saturated frequencies (a sparse
//! vector, to score them): the inner product with the query's inverse document frequencies is the BM25 score, to which
//! words that stand side by side in both add. Document frequencies are summed over the generations that the query names, so other sources never change its answer.
//! Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond", 2009.

use std::{collections::HashMap, time::Instant};

use pgvector::SparseVector;
use sqlx::{AssertSqlSafe, PgConnection, Row, postgres::PgRow};

use super::{
    Error, Index, Resolved,
    parked::Reader,
    reads::{Seen, seen, with_complete},
    terms::{DIMENSIONS, QueryTerms},
    vectors::{Hit, by_score, hits},
};
use crate::runtime::metrics;

/// Candidates scored for one query, rarest terms first. On 98,507 chunks of documentation, 2,000 hold 98.3 % of the
/// exhaustive top 10 in 2.2 ms (median); all candidates take up to 128 ms.
const MAX_CANDIDATES: i64 = 2_000;

/// Where even the rarest term is in more chunks than that, this many of them are scored: words such as `api`
/// alone cannot be told apart better, and the time stays bounded.
const MAX_SCORED: i64 = 10_000;

/// A query's terms with their weights in the resolved generations.
#[derive(Clone, Debug)]
pub struct Weighted {
    /// Terms that some chunk has, rarest first, with how many chunks have it.
    by_rarity: Vec<(i32, i64)>,
    /// Word or pair to how much it tells, times its weight in the query.
    weights: SparseVector,
}

impl Index {
    /// The chunks of `resolved` that score best for `terms`, best first, and the weights they were scored by; none of both
    /// when no chunk has any of the words.
    ///
    /// # Errors
    /// When the database does not answer in time.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the statement to its time limit and gives the connection back, or closes it.
    pub async fn matching(
        &self,
        resolved: &Resolved,
        terms: &QueryTerms,
        limit: u16,
    ) -> Result<Seen<(Vec<Hit>, Option<Weighted>)>, Error> {
        if terms.terms.is_empty() {
            return Ok(Seen::all((Vec::new(), None)));
        }
        let read = |mut connection: Reader| async move {
            let started = Instant::now();
            let weighted = weigh(self, &mut connection, resolved, terms).await?;
            let mut found = match &weighted.value {
                Some(weighted) => score(self, &mut connection, resolved, weighted, limit).await?,
                None => Seen::all(Vec::new()),
            };
            connection.done().await?;
            found.value.sort_by(by_score);
            metrics::record_index_search("keyword", started.elapsed());
            Ok(Seen { value: (found.value, weighted.value), complete: weighted.complete && found.complete })
        };
        self.pools.search("keyword leg", read).await
    }

    /// The keyword scores of these chunks, which must be distinct.
    ///
    /// # Errors
    /// When the database does not answer in time.
    pub async fn keyword_scores(&self, weighted: &Weighted, chunk_ids: &[i64]) -> Result<Seen<Vec<Hit>>, Error> {
        let sql = "select chunk_id, (-(weights <#> $1))::real from chunk_words where chunk_id = any($2)";
        let read = |mut connection: Reader| async move {
            let query = sqlx::query(sql).bind(&weighted.weights).bind(chunk_ids);
            let rows = self.rows("complete.keyword_scores", query, &mut connection).await?;
            connection.done().await?;
            let hit = |row: &PgRow| Ok(Hit { chunk_id: row.try_get(0)?, score: row.try_get(1)? });
            let value: Vec<Hit> = rows.iter().map(hit).collect::<Result<_, sqlx::Error>>()?;
            // Every chunk has its words, so counting is enough.
            let complete = value.len() == chunk_ids.len();
            Ok(Seen { value, complete })
        };
        self.pools.search("keyword scores", read).await
    }
}

/// Looks up how many chunks have each term; none when no chunk has any.
async fn weigh(
    index: &Index,
    connection: &mut PgConnection,
    resolved: &Resolved,
    terms: &QueryTerms,
) -> Result<Seen<Option<Weighted>>, Error> {
    let ids: Vec<i32> = terms.terms.iter().map(|term| term.id).collect();
    let found = "select term, sum(chunks)::bigint as chunks from generation_terms
         where generation_id = any($1) and term = any($2)
         group by term";
    let query = sqlx::query(AssertSqlSafe(with_complete("$1", found))).bind(resolved.ids()).bind(ids);
    let rows = index.rows("keyword.weigh", query, connection).await?;
    let Seen { value: mut by_rarity, complete } =
        seen(&rows, "term", |row| Ok((row.try_get("term")?, row.try_get("chunks")?)))?;
    if by_rarity.is_empty() {
        return Ok(Seen { value: None, complete });
    }
    by_rarity.sort_unstable_by_key(|&(term, found)| (found, term));
    Ok(Seen { value: Some(weighted(by_rarity, resolved.chunks(), terms)), complete })
}

fn weighted(by_rarity: Vec<(i32, i64)>, chunks: i64, terms: &QueryTerms) -> Weighted {
    let tells: HashMap<i32, f32> =
        by_rarity.iter().map(|&(term, found)| (term, inverse_document_frequency(chunks, found))).collect();
    let words = terms.terms.iter().filter_map(|term| Some((term.id, tells.get(&term.id)? * term.weight)));
    // A pair tells as much as its words on average.
    let pairs = terms.pairs.iter().filter_map(|pair| {
        let (first, second) = (tells.get(&pair.first)?, tells.get(&pair.second)?);
        Some((pair.id, f32::midpoint(*first, *second)))
    });
    let weights: HashMap<i32, f32> = words.chain(pairs).collect();
    Weighted { by_rarity, weights: SparseVector::from_map(&weights, DIMENSIONS) }
}

/// How much a term tells, 0 and up: ln(1 + (chunks - found + 0.5) / (found + 0.5)).
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "counts far below 2^52; f32 is what is stored"
)]
fn inverse_document_frequency(chunks: i64, found: i64) -> f32 {
    let (chunks, found) = (chunks.max(found) as f64, found as f64);
    (1.0 + (chunks - found + 0.5) / (found + 0.5)).ln() as f32
}

/// The terms whose chunks are candidates: rarest first, while together they stay under the cap; at least one.
fn candidate_terms(by_rarity: &[(i32, i64)]) -> Vec<i32> {
    let mut candidates = 0;
    by_rarity
        .iter()
        .enumerate()
        .take_while(|(nth, (_, found))| {
            candidates += found;
            *nth == 0 || candidates <= MAX_CANDIDATES
        })
        .map(|(_, (term, _))| *term)
        .collect()
}

async fn score(
    index: &Index,
    connection: &mut PgConnection,
    resolved: &Resolved,
    weighted: &Weighted,
    limit: u16,
) -> Result<Seen<Vec<Hit>>, Error> {
    let found = "select chunk_id, (-(weights <#> $1))::real as score
         from (
            select chunk_id, weights from chunk_words
            where terms && $2
              and version_id = any($3)
              and born <= ($4::bigint[])[array_position($3::bigint[], version_id)]
              and died > ($4::bigint[])[array_position($3::bigint[], version_id)]
            limit $5
         ) candidates
         order by 2 desc, 1
         limit $6";
    let query = sqlx::query(AssertSqlSafe(with_complete("$4", found)))
        .bind(&weighted.weights)
        .bind(candidate_terms(&weighted.by_rarity))
        .bind(resolved.version_ids())
        .bind(resolved.ids())
        .bind(MAX_SCORED)
        .bind(i64::from(limit));
    let rows = index.rows("keyword.score", query, connection).await?;
    Ok(hits(&rows)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rarest_term_is_always_a_candidate_and_others_while_they_fit() {
        assert_eq!(candidate_terms(&[(1, 50_000), (2, 60_000)]), [1]);
        assert_eq!(candidate_terms(&[(1, 500), (2, 1_500), (3, 1)]), [1, 2]);
    }

    #[test]
    fn a_term_in_every_chunk_tells_almost_nothing() {
        assert!(inverse_document_frequency(1_000, 1_000) < 0.001);
        assert!(inverse_document_frequency(1_000, 1) > 6.0);
    }
}
