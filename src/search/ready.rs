//! The shortest way through a search: the answer lies ready in this process, and nothing has to be waited for.

use std::{sync::Arc, time::Instant};

use super::{Key, Outcome, Search, Served, flight::Answered, from_kept, unchanged};
use crate::{cache::Held, index::Resolved, query::Query};

/// An answer that is kept here, fresh, and of the documents that are published.
pub struct Ready {
    key: Key,
    held: Arc<Held<Answered>>,
    resolved: Arc<Resolved>,
}

impl Search {
    /// The kept answer to `query`, by a catalog that is believed. None says nothing: [`Search::run`] finds out.
    #[must_use]
    pub fn ready(&self, query: &Query) -> Option<Ready> {
        // The generations of a page are looked up in the database.
        if query.cursor.is_some() || self.path.config.cache.result_bytes == 0 {
            return None;
        }
        let resolve = self.with_believed_catalog(|catalog| catalog.resolve(&query.selection, &query.view));
        let resolved = resolve?.ok()?;
        let key = self.path.known_key(query, &resolved)?;
        let held = self.path.results.look_again(&key)?;
        Some(Ready { key, held, resolved })
    }

    /// Takes it, which counts as a hit. `has` as for [`Search::run`]; the caller has waited since `started`.
    pub fn take(&self, ready: Ready, has: impl Fn(&Key) -> bool, started: Instant) -> Outcome {
        let Ready { key, held, resolved } = ready;
        self.path.results.record_hit();
        if has(&key) {
            return unchanged(Some(&held), key, true, started);
        }
        self.refresh_ahead(&held, key, &resolved);
        from_kept(&held, key, Served::Local, started)
    }
}
