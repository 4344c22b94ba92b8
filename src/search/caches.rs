//! The caches as an operator sees them: what they hold, and the way to empty them.

use serde::Serialize;

use super::Search;
use crate::cache::{Tiers, Value, shared};

/// What the caches hold.
#[derive(Clone, Debug, Serialize)]
pub struct Caches {
    /// Each cache of this process.
    pub caches: Vec<Held>,
    /// Different searches that are being computed now.
    pub in_flight: usize,
    /// Callers that wait for them.
    pub waiting: usize,
    /// How the tier is that replicas share: `not configured`, `used`, or `away`.
    pub shared: &'static str,
}

/// One cache of this process.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Held {
    /// `results` or `vectors`.
    pub cache: &'static str,
    /// Values in it.
    pub entries: u64,
    /// Their memory.
    pub bytes: u64,
}

/// What was emptied.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Cleared {
    /// Values of this process.
    pub local: u64,
    /// Values that replicas shared; none where there is no such tier, or it could not be reached.
    pub shared: Option<u64>,
}

fn held<V: Value>(tiers: &Tiers<V>) -> Held {
    let (entries, bytes) = tiers.tidy();
    Held { cache: tiers.kind().as_str(), entries, bytes }
}

impl Search {
    /// What the caches hold now.
    #[must_use]
    pub fn caches(&self) -> Caches {
        Caches {
            caches: vec![held(&self.path.results), held(&self.path.stages.vectors.kept)],
            in_flight: self.in_flight(),
            waiting: self.waiting(),
            shared: match self.path.shared.as_ref().map(shared::Shared::status) {
                None => "not configured",
                Some(shared::Status::Healthy { .. }) => "used",
                Some(shared::Status::Away { .. }) => "away",
            },
        }
    }

    /// Empties the caches of this process and the shared tier. Other replicas keep what they hold.
    pub async fn clear_caches(&self) -> Cleared {
        let local = self.caches().caches.iter().map(|cache| cache.entries).sum();
        self.path.results.clear();
        self.path.stages.vectors.kept.clear();
        let shared = match &self.path.shared {
            None => None,
            Some(shared) => match shared.clear().await {
                Ok(removed) => Some(removed),
                Err(error) => {
                    tracing::warn!(%error, "the shared tier was not emptied");
                    None
                }
            },
        };
        Cleared { local, shared }
    }
}
