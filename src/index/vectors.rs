//! The vector leg: the chunks whose vectors are nearest to the query's.
//!
//! The graph index is walked with iterative scans, so that a filter does not cost results; where the generations hold so
//! few chunks that comparing them all is cheaper than walking the graph until enough of them turn up, that is done
//! instead, and the answer is exact.

use std::time::Instant;

use pgvector::HalfVector;
use sqlx::{AssertSqlSafe, PgConnection, Row, postgres::PgRow};

use super::{
    Error, Index, Resolved,
    parked::Reader,
    reads::{Seen, seen, with_complete},
};
use crate::runtime::metrics;

/// A model's row and the size of its vectors, as the SQL of its index names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Model {
    /// Its row.
    pub id: i32,
    /// Numbers in a vector.
    pub dimensions: usize,
}

/// A chunk and its score in one leg.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hit {
    /// The chunk.
    pub chunk_id: i64,
    /// Vector leg: cosine similarity, -1 to 1. Keyword leg: BM25, 0 and up.
    pub score: f32,
}

/// How the nearest vectors are come by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scan {
    /// The cheaper of the two.
    #[default]
    Cheaper,
    /// By comparing with every vector of the set.
    Exact,
    /// Through the index, however few vectors the set has.
    Index,
}

/// How to search the vectors.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// The most hits to return.
    pub limit: u16,
    /// How to come by them.
    pub scan: Scan,
    /// Candidates the index scan keeps, for this search only.
    pub ef_search: Option<u16>,
}

/// Walking the graph to one match costs about as much as comparing this many vectors one after the other, so with `m` of `n`
/// vectors allowed a walk costs about `500 n / m` comparisons and the comparison of all `m`. From timings at 50,000 chunks.
const COMPARISONS_PER_STEP: i64 = 500;

/// Whether comparing all vectors of the set is cheaper than walking the graph until enough of them turn up.
fn exact_is_cheaper(resolved: &Resolved) -> bool {
    let allowed = resolved.chunks();
    allowed.saturating_mul(allowed) <= COMPARISONS_PER_STEP.saturating_mul(resolved.total_chunks)
}

/// Through the index, and whether the generations are there. `$2` and `$3` are the versions and their generations; a row outside them fails the comparison with
/// null. No condition names the version alone, or the planner might prefer that index to the vectors' own. Public for the
/// benchmarks, which run the same statement without us.
#[must_use]
pub fn approximate_sql(model: Model) -> String {
    let found = format!(
        "select chunk_id, (1 - (embedding::halfvec({d}) <=> $1))::real as score
         from chunk_vectors
         where model_id = {m}
           and born <= ($3::bigint[])[array_position($2::bigint[], version_id)]
           and died > ($3::bigint[])[array_position($2::bigint[], version_id)]
         order by embedding::halfvec({d}) <=> $1
         limit $4",
        d = model.dimensions,
        m = model.id
    );
    with_complete("$3", &found)
}

/// Past the index: `+ 0` makes an order that no index has. The versions are part of the text, because how many rows they have
/// decides whether the table or its index by version is read.
fn exact_sql(model: Model, resolved: &Resolved) -> String {
    let versions: Vec<String> = resolved.version_ids().iter().map(ToString::to_string).collect();
    let found = format!(
        "select chunk_id, (1 - (embedding::halfvec({d}) <=> $1))::real as score
         from chunk_vectors
         where model_id = {m}
           and version_id in ({versions})
           and born <= ($3::bigint[])[array_position($2::bigint[], version_id)]
           and died > ($3::bigint[])[array_position($2::bigint[], version_id)]
         order by (embedding::halfvec({d}) <=> $1) + 0
         limit $4",
        d = model.dimensions,
        m = model.id,
        versions = versions.join(", ")
    );
    with_complete("$3", &found)
}

impl Index {
    /// The chunks of `resolved` nearest to `vector`, best first.
    ///
    /// # Errors
    /// When the database does not answer in time.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the statement to its time limit and gives the connection back, or closes it.
    pub async fn nearest(
        &self,
        resolved: &Resolved,
        model: Model,
        vector: &[f32],
        options: Options,
    ) -> Result<Seen<Vec<Hit>>, Error> {
        let scan = match options.scan {
            Scan::Cheaper if exact_is_cheaper(resolved) => Scan::Exact,
            Scan::Cheaper => Scan::Index,
            chosen => chosen,
        };
        let options = Options { scan, ..options };
        let read = |mut connection: Reader| async move {
            let started = Instant::now();
            if let Some(ef_search) = options.ef_search.filter(|_| scan == Scan::Index) {
                connection.begin().await?;
                sqlx::query("select set_config('hnsw.ef_search', $1, true)")
                    .bind(ef_search.to_string())
                    .execute(&mut *connection)
                    .await?;
            }
            let mut hits = fetch(self, &mut connection, resolved, (model, vector), options).await?;
            // A scan gives up when the matches are far from the query; what is left of the set is then compared whole.
            let wanted = resolved.chunks().min(i64::from(options.limit));
            if hits.complete && scan != Scan::Exact && i64::try_from(hits.value.len()).is_ok_and(|found| found < wanted)
            {
                let exact = Options { scan: Scan::Exact, ..options };
                hits = fetch(self, &mut connection, resolved, (model, vector), exact).await?;
            }
            connection.done().await?;
            // An iterative scan may return a later batch's nearer neighbour late.
            hits.value.sort_by(by_score);
            metrics::record_index_search("vector", started.elapsed());
            Ok(hits)
        };
        self.pools.search("vector leg", read).await
    }

    /// The cosine similarities of these chunks of `resolved` to `vector`; those without a vector of `model` are left out.
    ///
    /// # Errors
    /// When the database does not answer in time.
    pub async fn similarities(
        &self,
        resolved: &Resolved,
        model: Model,
        vector: &[f32],
        chunk_ids: &[i64],
    ) -> Result<Seen<Vec<Hit>>, Error> {
        let found = "select chunk_id, (1 - (embedding <=> $1))::real as score from chunk_vectors
                     where chunk_id = any($2) and model_id = $3";
        let sql = &with_complete("$4", found);
        let read = |mut connection: Reader| async move {
            let query = sqlx::query(AssertSqlSafe(sql.clone()))
                .bind(HalfVector::from_f32_slice(vector))
                .bind(chunk_ids)
                .bind(model.id)
                .bind(resolved.ids());
            let rows = self.rows("complete.similarities", query, &mut connection).await?;
            connection.done().await?;
            Ok(hits(&rows)?)
        };
        self.pools.search("similarities", read).await
    }
}

/// The rows of a leg's statement.
pub(super) fn hits(rows: &[PgRow]) -> Result<Seen<Vec<Hit>>, sqlx::Error> {
    seen(rows, "chunk_id", |row| Ok(Hit { chunk_id: row.try_get("chunk_id")?, score: row.try_get("score")? }))
}

/// Best first; equal scores in the order of the chunks, so that an answer is the same every time.
pub(super) fn by_score(a: &Hit, b: &Hit) -> std::cmp::Ordering {
    b.score.total_cmp(&a.score).then(a.chunk_id.cmp(&b.chunk_id))
}

async fn fetch(
    index: &Index,
    connection: &mut PgConnection,
    resolved: &Resolved,
    (model, vector): (Model, &[f32]),
    options: Options,
) -> Result<Seen<Vec<Hit>>, Error> {
    let exact = options.scan == Scan::Exact;
    let sql = if exact { exact_sql(model, resolved) } else { approximate_sql(model) };
    // Safe: the only parts put into the text are numbers of ours.
    let query = sqlx::query(AssertSqlSafe(sql))
        // Each set of versions has an exact statement of its own: none is worth keeping.
        .persistent(!exact)
        .bind(HalfVector::from_f32_slice(vector))
        .bind(resolved.version_ids())
        .bind(resolved.ids())
        .bind(i64::from(options.limit));
    let rows = index.rows(if exact { "vector.exact" } else { "vector.approximate" }, query, connection).await?;
    Ok(hits(&rows)?)
}
