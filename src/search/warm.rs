//! A warm start: what was asked most before is in memory before it is asked again.
//!
//! Off the request path and bounded: one question after the other, in the order of how often they were asked, for half a
//! minute at most. What replicas have already is taken from the shared tier in bulk.

use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

use super::{Manner, Search, flight::Answered};
use crate::{
    error::Error,
    index::hot_searches::HotSearch,
    query::{Caching, Query},
    runtime::shed::Class,
};

/// Old values and sizes are looked after so often.
const TIDY_EVERY: Duration = Duration::from_secs(1);

/// A process that is killed forgets at most so much of what was hot.
const SAVE_EVERY: Duration = Duration::from_mins(1);

/// A database that hangs must not hold a process that leaves.
const SAVE_TIMEOUT: Duration = Duration::from_secs(1);

/// The load of a start must be over when the first callers come in numbers.
const WARM_FOR: Duration = Duration::from_secs(30);

/// Looks after the caches until `stopping`: drops what has ended, reports sizes, saves what is hot.
///
/// # Errors
/// Never; the signature is that of a background task.
pub async fn upkeep_task(search: Search, stopping: CancellationToken) -> Result<(), Infallible> {
    let mut saved = Instant::now();
    loop {
        tokio::select! {
            () = stopping.cancelled() => break,
            () = tokio::time::sleep(TIDY_EVERY) => {}
        }
        search.tidy();
        if saved.elapsed() >= SAVE_EVERY {
            saved = Instant::now();
            save(&search).await;
        }
    }
    save(&search).await;
    Ok(())
}

/// Brings what was hot in the last run into memory.
///
/// # Errors
/// Never; the signature is that of a background task.
pub async fn warm_task(search: Search, stopping: CancellationToken) -> Result<(), Infallible> {
    let warming = tokio::time::timeout(WARM_FOR, search.warm());
    match stopping.run_until_cancelled(warming).await {
        Some(Ok(Ok(warmed))) => tracing::info!(warmed, "answers of the last run are in memory"),
        Some(Ok(Err(error))) => tracing::warn!(%error, "cannot read what was hot in the last run"),
        Some(Err(_)) => tracing::info!("warming took its half minute; the rest comes with its callers"),
        None => {}
    }
    Ok(())
}

async fn save(search: &Search) {
    match tokio::time::timeout(SAVE_TIMEOUT, search.save_hot()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "cannot save what is hot"),
        Err(_) => tracing::warn!("the database did not take what is hot in time"),
    }
}

impl Search {
    /// Saves the questions that are asked most, for the next start.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn save_hot(&self) -> Result<(), Error> {
        let path = &self.path;
        let hot = path.results.hottest(path.config.warm_searches);
        // A cursor's documents are gone by the next start.
        let of_use = hot.iter().filter(|held| held.value.question.cursor.is_none());
        let searches: Vec<HotSearch> = of_use
            .filter_map(|held| {
                let question = serde_json::to_string(&*held.value.question).ok()?;
                Some(HotSearch { question, hits: held.hits().into() })
            })
            .collect();
        if searches.is_empty() {
            return Ok(());
        }
        Ok(path.stages.index.save_hot_searches(&searches).await?)
    }

    /// Asks what was asked most in the last run. Returns how many answers are in memory now.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn warm(&self) -> Result<usize, Error> {
        let path = &self.path;
        let most = i64::try_from(path.config.warm_searches).unwrap_or(i64::MAX);
        let saved = if most == 0 { Vec::new() } else { path.stages.index.hot_searches(most).await? };
        // What another release saved may not read.
        let questions: Vec<Query> =
            saved.iter().filter_map(|search| serde_json::from_str(&search.question).ok()).collect();
        self.fetch_known(&questions).await;
        let mut warmed = 0;
        let manner = Manner { caching: Caching::Use, class: Class::Batch };
        for question in questions {
            warmed += usize::from(self.run(question, manner, |_| false).await.is_ok());
        }
        Ok(warmed)
    }

    /// Takes what the shared tier has of them, in bulk.
    async fn fetch_known(&self, questions: &[Query]) {
        let mut wanted = Vec::with_capacity(questions.len());
        for question in questions {
            if let Ok((resolved, true)) = self.path.resolve(question).await
                && let Some(key) = self.path.key(question, &resolved).await
            {
                wanted.push((key, Arc::new(question.clone())));
            }
        }
        let decode = |question: Arc<Query>, body: bytes::Bytes| Some(Answered { body: body.into(), question });
        self.path.results.fetch_many(wanted, decode).await;
    }
}
