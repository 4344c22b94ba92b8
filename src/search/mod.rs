//! The path of one search, free of HTTP: the API, the command line and the evaluation all come through [`Search::run`].
//!
//! ```text
//! resolve   which published generations the query means
//!   (cache     have we answered this?             comes here: keyed by the query and those generations)
//!   (coalesce  is someone already answering it?   comes here: one flight per key around the rest)
//! embed     text -> vector        \  at the same time,
//! index     words -> candidates   /  each leg on its own connection
//! index     vector -> candidates
//! rank      candidates -> results
//! index     the text of the results
//! ```
//!
//! The last four are in [`legs`](self).

mod legs;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use self::legs::Stages;
use crate::{
    answer::Answer,
    embed::Embedder,
    error::Error,
    index::{Catalog, Index},
    query::Query,
};

/// How long each stage took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timings {
    /// Text to vector, waiting included.
    pub embed: Option<Duration>,
    /// The vector leg.
    pub vector: Option<Duration>,
    /// The keyword leg.
    pub keyword: Option<Duration>,
    /// Fusion.
    pub rank: Duration,
    /// Reading the results' text.
    pub fetch: Duration,
    /// All of it.
    pub total: Duration,
}

/// An answer ready to be sent.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The answer as JSON.
    pub body: Bytes,
    /// Incomplete: must not be cached.
    pub degraded: bool,
    /// Complete, and every generation it names was read: may be cached under them.
    pub cacheable: bool,
    /// How long each stage took.
    pub timings: Timings,
}

/// Bounds of a search.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// The longest a search waits for its vector before it answers from words alone; covers loading the model on first use.
    pub embed_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self { embed_timeout: Duration::from_secs(3) }
    }
}

/// The stages in their order.
#[derive(Clone)]
pub struct Search {
    stages: Stages,
}

impl Search {
    /// Puts the stages together; loads nothing.
    #[must_use]
    pub fn new(index: Index, embedder: Embedder, config: Config) -> Self {
        Self { stages: Stages::new(index, embedder, config) }
    }

    /// Every source and what of it is published.
    ///
    /// # Errors
    /// When the database has been away for longer than the catalog's lease.
    pub async fn catalog(&self) -> Result<Arc<Catalog>, Error> {
        Ok(self.stages.index.catalog().await?)
    }

    /// Answers `query` as JSON.
    ///
    /// # Errors
    /// For an unknown source or version, for a cursor whose documents are gone, and when no leg could answer.
    pub async fn run(&self, query: &Query) -> Result<Outcome, Error> {
        let (answer, timings) = self.answer(query).await?;
        let body = serde_json::to_vec(&answer).map_err(|error| Error::Internal(error.to_string()))?;
        Ok(Outcome { body: body.into(), degraded: answer.degraded, cacheable: !answer.degraded, timings })
    }

    /// Answers `query`.
    ///
    /// Answers `query`.
    ///
    /// # Errors
    /// As [`Search::run`].
    pub async fn answer(&self, query: &Query) -> Result<(Answer, Timings), Error> {
        let resolved = match &query.cursor {
            Some(cursor) => self.stages.index.resolve_pinned(&cursor.generations).await?,
            None => self.stages.index.catalog().await?.resolve(&query.selection)?,
        };
        self.stages.answer(query, &resolved).await
    }
}
