//! Embed, search both legs, fuse: what an answer costs when nobody has asked before.
//!
//! A leg that fails leaves the other's answer, marked degraded with the reason; when none is left, the failure is the
//! answer. Never an empty list in place of an error.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::OnceCell;

use super::{Config, Timings, query_vectors::QueryVectors};
use crate::{
    answer::Answer,
    embed::{self, Embedder, Identity, Vector},
    error::Error,
    index::{
        self, Index, Resolved, Seen,
        generations::ModelIdentity,
        keywords::Weighted,
        terms,
        vectors::{self, Model, Scan},
    },
    query::{Caching, Cursor, MAX_DEPTH, Mode, Query},
    rank::{self, Candidate, Fusion, Leg, Ranked},
};

/// Results of each leg that are fused. More change the order hardly, and cost time.
const LEG_DEPTH: u16 = 100;

/// What is asked, of which documents, and whether what is kept may be used.
#[derive(Clone, Copy)]
pub(super) struct Ask<'a> {
    pub query: &'a Query,
    pub resolved: &'a Resolved,
    pub caching: Caching,
    /// Whether the shared tier may be asked for the vector.
    pub shared_answers: bool,
}

/// What a caller is told when a generation was removed, or not yet there, in the snapshot that was read.
const TORN: &str = "documents_replaced: some of the documents were replaced while this was answered; search again";

/// The stages that compute, in their order.
#[derive(Clone)]
pub(super) struct Stages {
    pub index: Index,
    pub embedder: Embedder,
    pub vectors: QueryVectors,
    pub config: Config,
    /// The row of the model in use, once it is known to have vectors.
    model: Arc<OnceCell<Model>>,
}

/// Ranked results and how they came about.
#[derive(Default)]
struct Found {
    ranked: Vec<Ranked>,
    /// Whether a leg returned all it was asked for, so that deeper results may exist.
    full: bool,
    degraded: Option<String>,
    /// A generation of the set was gone while it was read.
    torn: bool,
    query_truncated: bool,
    timings: Timings,
}

/// What the vector leg brought.
#[derive(Default)]
struct VectorLeg {
    hits: Vec<Candidate>,
    /// Similarities of what only words found.
    others: Vec<Candidate>,
    model: Option<Model>,
    /// The query's vector, for searching deeper.
    vector: Option<Vector>,
    query_truncated: bool,
    /// Some of the documents were embedded by another model and could not be compared.
    partial: bool,
    torn: bool,
    embed: Duration,
    search: Duration,
}

/// What the keyword leg brought.
#[derive(Default)]
struct KeywordLeg {
    hits: Vec<Candidate>,
    /// Scores of what only vectors found.
    others: Vec<Candidate>,
    weighted: Option<Weighted>,
    torn: bool,
    search: Duration,
}

impl Stages {
    pub fn new(index: Index, embedder: Embedder, vectors: QueryVectors, config: Config) -> Self {
        Self { index, embedder, vectors, config, model: Arc::default() }
    }

    /// Answers the question.
    pub async fn answer(&self, ask: Ask<'_>) -> Result<(Answer, Timings), Error> {
        let Ask { query, resolved, .. } = ask;
        let started = Instant::now();
        let offset = query.cursor.as_ref().map_or(0, |cursor| cursor.offset);
        let end = (offset + query.match_count).min(MAX_DEPTH);
        let found = self.find(ask, end).await?;
        let mut timings = found.timings;
        let fetching = Instant::now();
        let page = found.ranked.get(offset..end.min(found.ranked.len())).unwrap_or_default();
        let ids: Vec<i64> = page.iter().map(|result| result.chunk_id).collect();
        let passages = if ids.is_empty() { Seen::all(Vec::new()) } else { self.index.passages(&ids).await? };
        let torn = found.torn || !passages.complete;
        if torn && query.cursor.is_some() {
            return Err(Error::Index(index::Error::Gone));
        }
        timings.fetch = fetching.elapsed();
        let mut answer = Answer::new(query, resolved, page, passages.value);
        answer.has_more = end < MAX_DEPTH && (found.ranked.len() > end || found.full);
        answer.truncated = found.query_truncated;
        answer.degraded_reason = found.degraded.or_else(|| torn.then(|| TORN.to_owned()));
        answer.degraded = answer.degraded_reason.is_some();
        if answer.has_more && !answer.degraded {
            let cursor = Cursor { generations: resolved.ids(), offset: end, fingerprint: query.fingerprint() };
            answer.next_cursor = Some(cursor.encode());
        }
        timings.total = started.elapsed();
        Ok((answer, timings))
    }

    /// The ranked results, at least one more than `end` where there are that many.
    async fn find(&self, ask: Ask<'_>, end: usize) -> Result<Found, Error> {
        let Ask { query, resolved, .. } = ask;
        if resolved.generations.is_empty() {
            return Ok(Found::default());
        }
        let (mut found, vector) = self.find_at(ask, None, LEG_DEPTH).await?;
        // Pages beyond the first candidates go on with deeper ones, and never change the order of those before.
        if query.cursor.is_some() && found.full && found.ranked.len() <= end {
            let depth = u16::try_from(MAX_DEPTH).unwrap_or(u16::MAX);
            let (deeper, _) = self.find_at(ask, vector, depth).await?;
            let known: HashSet<i64> = found.ranked.iter().map(|result| result.chunk_id).collect();
            found.full = false;
            found.degraded = found.degraded.or(deeper.degraded);
            found.torn |= deeper.torn;
            found.ranked.extend(deeper.ranked.into_iter().filter(|result| !known.contains(&result.chunk_id)));
        }
        Ok(found)
    }

    /// Both legs to `depth`, fused. `vector` is the query's, when it is known already.
    async fn find_at(
        &self,
        ask: Ask<'_>,
        vector: Option<Vector>,
        depth: u16,
    ) -> Result<(Found, Option<Vector>), Error> {
        let Ask { query, resolved, .. } = ask;
        let (vector, keyword) = tokio::join!(
            async {
                match query.mode {
                    Mode::Keyword => Ok(VectorLeg::default()),
                    Mode::Hybrid | Mode::Vector => self.vector_leg(ask, vector, depth).await,
                }
            },
            async {
                match query.mode {
                    Mode::Vector => Ok(KeywordLeg::default()),
                    Mode::Hybrid | Mode::Keyword => self.keyword_leg(query, resolved, depth).await,
                }
            }
        );
        let thresholds = applicable(&query.rank, &vector, &keyword);
        let (mut vector, mut keyword, mut degraded) = settle(query.mode, vector, keyword)?;
        let ranking = Instant::now();
        if query.mode == Mode::Hybrid
            && query.rank.fusion == Fusion::Weighted
            && let Err(error) = self.complete(resolved, &mut vector, &mut keyword).await
        {
            tracing::warn!(%error, "some scores are missing");
            degraded.get_or_insert("scores_incomplete: results are complete, their order may not be".to_owned());
        }
        let legs = (
            Leg { found: &vector.hits, others: &vector.others },
            Leg { found: &keyword.hits, others: &keyword.others },
        );
        let ranked = rank::fuse(legs.0, legs.1, &thresholds);
        let timings = Timings {
            embed: (query.mode != Mode::Keyword).then_some(vector.embed),
            vector: (query.mode != Mode::Keyword).then_some(vector.search),
            keyword: (query.mode != Mode::Vector).then_some(keyword.search),
            rank: ranking.elapsed(),
            ..Timings::default()
        };
        // Deeper candidates score less, so they cannot meet a threshold that cut these.
        let full = ranked.len() >= usize::from(depth);
        let torn = vector.torn || keyword.torn;
        let found = Found { ranked, full, degraded, torn, query_truncated: vector.query_truncated, timings };
        Ok((found, vector.vector))
    }

    /// Looks up each leg's score of what only the other found.
    async fn complete(
        &self,
        resolved: &Resolved,
        vector: &mut VectorLeg,
        keyword: &mut KeywordLeg,
    ) -> Result<(), Error> {
        let missing = |of: &[Candidate], among: &[Candidate]| -> Vec<i64> {
            let known: HashSet<i64> = of.iter().map(|candidate| candidate.chunk_id).collect();
            among.iter().map(|candidate| candidate.chunk_id).filter(|id| !known.contains(id)).collect()
        };
        let (no_similarity, no_score) = (missing(&vector.hits, &keyword.hits), missing(&keyword.hits, &vector.hits));
        let (similarities, scores) = tokio::join!(
            async {
                match (&vector.vector, vector.model) {
                    (Some(query), Some(model)) if !no_similarity.is_empty() => {
                        self.index.similarities(resolved, model, query, &no_similarity).await
                    }
                    _ => Ok(Seen::all(Vec::new())),
                }
            },
            async {
                match &keyword.weighted {
                    Some(weighted) if !no_score.is_empty() => self.index.keyword_scores(weighted, &no_score).await,
                    _ => Ok(Seen::all(Vec::new())),
                }
            }
        );
        let (similarities, scores) = (similarities?, scores?);
        vector.others = candidates(&similarities.value);
        vector.torn |= !similarities.complete;
        keyword.others = candidates(&scores.value);
        keyword.torn |= !scores.complete;
        Ok(())
    }

    async fn keyword_leg(&self, query: &Query, resolved: &Resolved, depth: u16) -> Result<KeywordLeg, Error> {
        let started = Instant::now();
        let found = self.index.matching(resolved, &terms::of_query(&query.text), depth).await?;
        let (hits, weighted) = found.value;
        let (hits, others, search) = (candidates(&hits), Vec::new(), started.elapsed());
        Ok(KeywordLeg { hits, others, weighted, torn: !found.complete, search })
    }

    async fn vector_leg(&self, ask: Ask<'_>, vector: Option<Vector>, depth: u16) -> Result<VectorLeg, Error> {
        let Ask { query, resolved, caching, shared_answers } = ask;
        let started = Instant::now();
        let (model, known) = match vector {
            Some(vector) => (self.model(resolved).await?, (vector, false)),
            None => tokio::time::timeout(self.config.embed_timeout, async {
                let model = self.model(resolved).await?;
                let found = self.vectors.of(&query.text, (caching, shared_answers)).await?;
                Ok::<_, Error>((model, (found.vector, found.truncated)))
            })
            .await
            .map_err(|_| Error::EmbedTimeout)??,
        };
        let (vector, query_truncated) = known;
        let embed = started.elapsed();
        let searching = Instant::now();
        let scan = if query.exact { Scan::Exact } else { Scan::Cheaper };
        let options = vectors::Options { limit: depth, scan, ef_search: query.ef_search };
        let hits = self.index.nearest(resolved, model, &vector, options).await?;
        let partial = resolved.generations.iter().any(|generation| generation.model_id != model.id);
        Ok(VectorLeg {
            hits: candidates(&hits.value),
            others: Vec::new(),
            torn: !hits.complete,
            model: Some(model),
            vector: Some(vector),
            query_truncated,
            partial,
            embed,
            search: searching.elapsed(),
        })
    }

    /// The row of the model in use.
    async fn model(&self, resolved: &Resolved) -> Result<Model, Error> {
        let model = self
            .model
            .get_or_try_init(|| async {
                let identity = self.embedder.identity().await?;
                let other = || Error::OtherModel { in_use: identity.to_string() };
                self.index.find_model(&ModelIdentity::from(&*identity)).await?.ok_or_else(other)
            })
            .await?;
        if resolved.generations.iter().any(|generation| generation.model_id == model.id) {
            return Ok(*model);
        }
        Err(Error::OtherModel { in_use: self.embedder.identity().await?.to_string() })
    }
}

impl From<&Identity> for ModelIdentity {
    fn from(identity: &Identity) -> Self {
        Self {
            name: identity.name.clone(),
            precision: identity.precision.to_owned(),
            dimensions: identity.dimensions,
            revision: identity.revision.clone(),
        }
    }
}

fn candidates(hits: &[vectors::Hit]) -> Vec<Candidate> {
    hits.iter().map(|hit| Candidate { chunk_id: hit.chunk_id, score: hit.score }).collect()
}

/// A threshold of a leg that failed would drop what the other found.
fn applicable(
    options: &rank::Options,
    vector: &Result<VectorLeg, Error>,
    keyword: &Result<KeywordLeg, Error>,
) -> rank::Options {
    rank::Options {
        min_similarity: options.min_similarity.filter(|_| vector.is_ok()),
        min_keyword_score: options.min_keyword_score.filter(|_| keyword.is_ok()),
        ..*options
    }
}

/// What is left of two legs, and the reason when that is not all; an error when nothing is.
fn settle(
    mode: Mode,
    vector: Result<VectorLeg, Error>,
    keyword: Result<KeywordLeg, Error>,
) -> Result<(VectorLeg, KeywordLeg, Option<String>), Error> {
    match (mode, vector, keyword) {
        (Mode::Vector, vector, _) => vector.map(|leg| with_reason(leg, KeywordLeg::default())),
        (Mode::Keyword, _, keyword) => Ok((VectorLeg::default(), keyword?, None)),
        (Mode::Hybrid, Ok(vector), Ok(keyword)) => Ok(with_reason(vector, keyword)),
        (Mode::Hybrid, Err(error), Ok(keyword)) => {
            tracing::warn!(%error, "vector leg failed; answering from words alone");
            Ok((VectorLeg::default(), keyword, Some(reason(&error, "vector"))))
        }
        (Mode::Hybrid, Ok(vector), Err(error)) => {
            tracing::warn!(%error, "keyword leg failed; answering from vectors alone");
            Ok((vector, KeywordLeg::default(), Some(reason(&error, "keyword"))))
        }
        (Mode::Hybrid, Err(_), Err(error)) => Err(error),
    }
}

fn with_reason(vector: VectorLeg, keyword: KeywordLeg) -> (VectorLeg, KeywordLeg, Option<String>) {
    let reason = vector.partial.then(|| {
        "embedding_model_mismatch: some of the sources were embedded by another model; import them again".to_owned()
    });
    (vector, keyword, reason)
}

/// What a caller is told: which part failed and what the answer is made of. The cause is in the log.
fn reason(error: &Error, leg: &str) -> String {
    let code = match error {
        Error::EmbedTimeout => "embedder_timeout",
        Error::Embed(embed::Error::Overloaded { .. }) => "embedder_overloaded",
        Error::Embed(_) => "embedder_unavailable",
        Error::OtherModel { .. } => "embedding_model_mismatch",
        _ if leg == "vector" => "vector_search_unavailable",
        _ => "keyword_search_unavailable",
    };
    let rest = if leg == "vector" { "words" } else { "vectors" };
    format!("{code}: answered from {rest} alone")
}
