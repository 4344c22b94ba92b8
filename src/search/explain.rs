//! A search with what the database did for it: every statement of both legs, of the fusion and of the reading, in order.
//!
//! The search is a real one, past the cache and every shared flight, so that all its statements run.

use std::sync::Arc;

use serde::Serialize;

use super::{Search, legs::Ask};
use crate::{
    error::Error,
    index::explain::Explained,
    query::{Caching, Query},
};

/// A search and its statements.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    /// What was looked for.
    pub query: String,
    /// The published generations that were searched.
    pub generations: Vec<i64>,
    /// How many results it had.
    pub count: usize,
    /// Why it is incomplete, if it is: then statements are missing too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub degraded_reason: Option<String>,
    /// In the order in which they ran; the two legs run at the same time.
    pub statements: Vec<Explained>,
}

impl Search {
    /// Searches, and tells how the database carried it out.
    ///
    /// # Errors
    /// As [`Search::run`].
    pub async fn explain(&self, query: &Query) -> Result<Explanation, Error> {
        let mut stages = self.path.stages.clone();
        let (index, recorder) = stages.index.explaining();
        let catalog = index.catalog().await?;
        let resolved = match &query.cursor {
            Some(cursor) => Arc::new(index.resolve_pinned(&catalog, &cursor.generations, &query.view).await?),
            None => catalog.resolve(&query.selection, &query.view)?,
        };
        stages.index = index;
        let (answer, _) =
            stages.answer(Ask { query, resolved: &resolved, caching: Caching::Bypass, shared_answers: false }).await?;
        Ok(Explanation {
            query: query.text.clone(),
            generations: answer.index.generations,
            count: answer.count,
            degraded_reason: answer.degraded_reason,
            statements: recorder.take(),
        })
    }
}
