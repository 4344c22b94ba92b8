//! A provider that answers `/v1/embeddings` as `OpenAI` does (Ollama, TEI and `vLLM` do), called in batches.
//!
//! A batch that the provider finds faulty is halved until the faulty text stands alone. Where several calls may run at
//! once, one is kept free of passages, so that a query never waits for an import. `provider` makes the calls.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use tokio::time::Instant;
use tracing::Instrument;

use super::{
    Engine, Error, Identity, Status, TokenCounter,
    lazy::Lazy,
    provider::Provider,
    queue::{Worker, Workers},
    vector::{Embedded, Vector},
};
use crate::runtime::{lifecycle::Lifecycle, metrics};

/// A provider's key. Its `Debug` shows nothing of it.
#[derive(Clone)]
pub struct ApiKey(String);

impl ApiKey {
    /// Wraps the key.
    pub fn new(key: impl Into<String>) -> Self {
        Self(key.into())
    }

    /// The key itself.
    pub(super) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ApiKey(redacted)")
    }
}

/// How to reach a provider.
#[derive(Clone, Debug)]
pub struct RemoteConfig {
    /// Its address, with or without `/v1`.
    pub url: String,
    /// Sent as a bearer token.
    pub api_key: Option<ApiKey>,
    /// The provider's id of the model.
    pub model: String,
    /// Asked for, and then required, of each vector; without it the first vector decides.
    pub dimensions: Option<usize>,
    /// For one call with its retries.
    pub timeout: Duration,
    /// For the connection alone.
    pub connect_timeout: Duration,
    /// Texts in one call.
    pub batch_size: usize,
    /// Calls at the same time.
    pub concurrency: usize,
    /// The most tokens of a passage, by a cautious estimate: what a provider cuts off it does not tell.
    pub max_tokens: usize,
}

impl RemoteConfig {
    /// 32 texts a call is what every provider takes; 10 s covers one call to a busy provider and its retries.
    pub fn new(url: impl Into<String>, model: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            api_key: None,
            model: model.into(),
            dimensions: None,
            timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(2),
            batch_size: 32,
            concurrency: 4,
            max_tokens: 256,
        }
    }
}

/// The remote backend.
pub(super) struct Remote {
    provider: Arc<Provider>,
    lifecycle: Lifecycle,
    identity: Lazy<Identity>,
    tokens: Arc<TokenCounter>,
    /// What the last call came to.
    status: Mutex<Status>,
}

impl Remote {
    /// Calls nobody yet.
    ///
    /// # Errors
    /// When the address is none, the key cannot be sent, or a number cannot work.
    pub fn new(config: RemoteConfig, lifecycle: &Lifecycle) -> Result<Self, Error> {
        for (setting, value) in [
            ("embed_batch_size", config.batch_size),
            ("embed_concurrency", config.concurrency),
            ("embed_dimensions", config.dimensions.unwrap_or(1)),
        ] {
            if value == 0 {
                return Err(Error::setting(setting, "must be at least 1"));
            }
        }
        let provider = Arc::new(Provider::new(config)?);
        let (identity, tokens) = (Lazy::new(), Arc::new(TokenCounter::estimate()));
        Ok(Self { provider, lifecycle: lifecycle.clone(), identity, tokens, status: Mutex::new(Status::Idle) })
    }

    async fn drain(&self, mut worker: Worker) {
        while let Some(batch) = worker.next(self.provider.config().batch_size) {
            let mut outcomes = Vec::with_capacity(batch.texts().len());
            // Halves that still wait for their call, the first on top.
            let mut parts = vec![batch.texts()];
            while let Some(part) = parts.pop() {
                match self.call(part).instrument(batch.span()).await {
                    Ok(vectors) => {
                        outcomes.extend(vectors.into_iter().map(|vector| Ok(Embedded { vector, cut_from: None })));
                    }
                    Err(error) if part.len() > 1 && blames_a_text(&error) => {
                        let (first, second) = part.split_at(part.len() / 2);
                        parts.extend([second, first]);
                    }
                    Err(error) => outcomes.extend(part.iter().map(|_| Err(error.clone()))),
                }
            }
            batch.finish(outcomes);
        }
    }

    async fn call(&self, texts: &[Arc<str>]) -> Result<Vec<Vector>, Error> {
        let started = Instant::now();
        let result = self.provider.embed(texts).await;
        let outcome = if result.is_ok() { "ok" } else { "error" };
        metrics::record_embed_call(outcome, texts.len(), started.elapsed());
        *self.status.lock().unwrap_or_else(PoisonError::into_inner) = match &result {
            Ok(_) => Status::Ready,
            // That one text is faulty says nothing about the provider.
            Err(error) if blames_a_text(error) => Status::Ready,
            Err(error) => Status::Failed { reason: error.to_string() },
        };
        result
    }
}

impl Engine for Remote {
    fn workers(&self) -> Workers {
        let total = self.provider.config().concurrency;
        Workers { total, passages: (total - 1).max(1) }
    }

    fn max_tokens(&self) -> usize {
        self.provider.config().max_tokens
    }

    fn admit(&self, passage: &str) -> Result<(), Error> {
        self.tokens.admit(passage, self.max_tokens())
    }

    fn identity(&self) -> BoxFuture<'_, Result<Arc<Identity>, Error>> {
        let make = || {
            let provider = Arc::clone(&self.provider);
            async move { provider.identity().await }
        };
        self.identity.get(&self.lifecycle, make).boxed()
    }

    fn tokens(&self) -> BoxFuture<'_, Result<Arc<TokenCounter>, Error>> {
        futures::future::ready(Ok(Arc::clone(&self.tokens))).boxed()
    }

    fn ready(&self) -> BoxFuture<'_, Result<(), Error>> {
        futures::future::ready(Ok(())).boxed()
    }

    fn status(&self) -> Status {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn start(self: Arc<Self>, worker: Worker) {
        let lifecycle = self.lifecycle.clone();
        lifecycle.spawn_detached(async move { self.drain(worker).await });
    }
}

/// Whether the provider complains about what was sent rather than about who sent it, or about itself.
fn blames_a_text(error: &Error) -> bool {
    // Bad request, content too large, unprocessable content.
    matches!(error, Error::Provider { status: Some(400 | 413 | 422), .. })
}

#[cfg(test)]
#[path = "remote_tests.rs"]
mod tests;
