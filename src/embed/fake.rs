//! Hashed words instead of a model: for tests of everything above this stage, never for real use.
//!
//! Texts that share words are near each other, equal texts are equal, and nothing is loaded. A [`Probe`] counts the
//! texts, holds them, and makes them fail, so that tests need neither time nor luck.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures::{FutureExt, future::BoxFuture};
use tokio::sync::watch;

use super::{
    Engine, Error, Identity, Status, TokenCounter,
    queue::{Outcome, Worker, Workers},
    vector::{self, Embedded},
};
use crate::runtime::{lifecycle::Lifecycle, metrics};

/// As the real default model, so that chunk sizes are the same.
const MAX_TOKENS: usize = 256;

/// The share of the text as a whole: tells word orders apart without moving a vector far, and keeps a text without any
/// word, or whose words cancel each other out, from being a zero vector.
const WHOLE: f32 = 0.1;

/// What the fake pretends to be.
#[derive(Clone, Debug)]
pub struct FakeConfig {
    /// The length of its vectors.
    pub dimensions: usize,
    /// The test's hand on it.
    pub probe: Probe,
    /// Texts whose vectors are given, of unit length: for benchmarks of everything but the model.
    pub known: Arc<HashMap<String, vector::Vector>>,
    /// The model whose vectors they are; none is a model of its own.
    pub identity: Option<Identity>,
}

impl Default for FakeConfig {
    fn default() -> Self {
        Self { dimensions: 384, probe: Probe::default(), known: Arc::default(), identity: None }
    }
}

/// Watches and steers a fake; clones share one state.
#[derive(Clone, Debug)]
pub struct Probe {
    texts: Arc<AtomicUsize>,
    failures: Arc<AtomicUsize>,
    held: Arc<watch::Sender<bool>>,
}

impl Default for Probe {
    fn default() -> Self {
        Self { texts: Arc::default(), failures: Arc::default(), held: Arc::new(watch::Sender::new(false)) }
    }
}

impl Probe {
    /// How many texts were begun so far.
    pub fn texts(&self) -> usize {
        self.texts.load(Ordering::SeqCst)
    }

    /// Lets every text wait until [`Probe::release`].
    pub fn hold(&self) {
        self.held.send_replace(true);
    }

    /// Lets all texts go on.
    pub fn release(&self) {
        self.held.send_replace(false);
    }

    /// Makes the next `count` texts fail.
    pub fn fail_next(&self, count: usize) {
        self.failures.store(count, Ordering::SeqCst);
    }

    async fn begin(&self) -> Result<(), Error> {
        self.texts.fetch_add(1, Ordering::SeqCst);
        // The sender lives as long as this probe.
        let _ = self.held.subscribe().wait_for(|held| !held).await;
        let failed = self.failures.try_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if failed.is_ok() { Err(Error::Model("the fake was asked to fail".to_owned())) } else { Ok(()) }
    }
}

/// The fake backend.
pub(super) struct Fake {
    config: FakeConfig,
    lifecycle: Lifecycle,
    tokens: Arc<TokenCounter>,
}

impl Fake {
    /// Ready at once.
    pub fn new(config: FakeConfig, lifecycle: &Lifecycle) -> Self {
        Self { config, lifecycle: lifecycle.clone(), tokens: Arc::new(TokenCounter::estimate()) }
    }

    async fn embed(&self, text: &str) -> Outcome {
        self.config.probe.begin().await?;
        let vector = match self.config.known.get(text) {
            Some(vector) => Arc::clone(vector),
            None => hashed(text, self.config.dimensions).map_err(Error::Model)?,
        };
        Ok(Embedded { vector, cut_from: None })
    }
}

impl Engine for Fake {
    fn workers(&self) -> Workers {
        Workers { total: 2, passages: 2 }
    }

    fn max_tokens(&self) -> usize {
        MAX_TOKENS
    }

    fn admit(&self, passage: &str) -> Result<(), Error> {
        self.tokens.admit(passage, MAX_TOKENS)
    }

    fn identity(&self) -> BoxFuture<'_, Result<Arc<Identity>, Error>> {
        let own = || Identity {
            name: "hashed-words".to_owned(),
            precision: "fake",
            dimensions: self.config.dimensions,
            revision: "1".to_owned(),
        };
        let identity = self.config.identity.clone().unwrap_or_else(own);
        futures::future::ready(Ok(Arc::new(identity))).boxed()
    }

    fn tokens(&self) -> BoxFuture<'_, Result<Arc<TokenCounter>, Error>> {
        futures::future::ready(Ok(Arc::clone(&self.tokens))).boxed()
    }

    fn ready(&self) -> BoxFuture<'_, Result<(), Error>> {
        futures::future::ready(Ok(())).boxed()
    }

    fn status(&self) -> Status {
        Status::Ready
    }

    fn start(self: Arc<Self>, mut worker: Worker) {
        let lifecycle = self.lifecycle.clone();
        lifecycle.spawn_detached(async move {
            while let Some(batch) = worker.next(1) {
                let started = tokio::time::Instant::now();
                let outcome = self.embed(&batch.texts()[0]).await;
                metrics::record_embed_call(if outcome.is_ok() { "ok" } else { "error" }, 1, started.elapsed());
                batch.finish([outcome]);
            }
        });
    }
}

fn hashed(text: &str, dimensions: usize) -> Result<vector::Vector, String> {
    let mut values = vec![0.0; dimensions];
    let mut add = |word: &str, weight: f32| {
        let hash = blake3::hash(word.as_bytes());
        let [a, b, c, d, sign, ..] = *hash.as_bytes();
        let place = u32::from_le_bytes([a, b, c, d]) as usize % dimensions.max(1);
        if let Some(value) = values.get_mut(place) {
            *value += if sign & 1 == 0 { weight } else { -weight };
        }
    };
    let lower = text.to_lowercase();
    for word in lower.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()) {
        add(word, 1.0);
    }
    add(text, WHOLE);
    vector::unit(values, dimensions)
}
