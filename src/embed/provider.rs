//! One provider over HTTP: a call with its deadline and retries, and the checks on what comes back.
//!
//! Each call ends within the timeout, its retries included. An answer is believed only when it has one finite, non-zero
//! vector of the right length for each text, in the order of its `index`. Redirects are not followed (they would carry
//! the texts elsewhere), and the key is never logged or quoted.

use std::{
    error::Error as _,
    fmt::Write,
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime},
};

use reqwest::{
    Client, Response, StatusCode, Url,
    header::{AUTHORIZATION, HeaderMap, HeaderValue, RETRY_AFTER},
    redirect::Policy,
};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep, timeout_at};

use super::{
    Error, Identity, RemoteConfig,
    retry::{ATTEMPTS, Budget, pause, retry_after},
    vector::{self, Vector},
};
use crate::runtime::telemetry;

/// 256 texts of 4,096 numbers of 20 characters are 21 MB; more is no answer to what was asked.
const MAX_ANSWER_BYTES: usize = 32 * 1024 * 1024;

/// What of a provider's complaint goes into an error: enough for its first sentence.
const QUOTED_CHARACTERS: usize = 200;

/// Makes the calls.
pub(super) struct Provider {
    config: RemoteConfig,
    endpoint: Url,
    client: reqwest::Client,
    budget: Budget,
    /// The length of its vectors, once known.
    dimensions: OnceLock<usize>,
}

/// Why one attempt failed, and whether another may do better.
struct Failure {
    error: Error,
    again: bool,
    /// What the provider asked for.
    after: Option<Duration>,
}

impl Failure {
    fn last(reason: impl Into<String>) -> Self {
        Self { error: Error::provider(reason), again: false, after: None }
    }

    fn transport(error: reqwest::Error) -> Self {
        Self { error: Error::provider(chain(error)), again: true, after: None }
    }
}

#[derive(Serialize)]
struct Question<'a> {
    model: &'a str,
    input: &'a [Arc<str>],
    encoding_format: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    dimensions: Option<usize>,
}

#[derive(Deserialize)]
struct Answer {
    data: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    index: usize,
    embedding: Vec<f32>,
}

impl Provider {
    /// Calls nobody yet.
    ///
    /// # Errors
    /// When the address is none, or the key cannot be sent.
    pub fn new(config: RemoteConfig) -> Result<Self, Error> {
        Ok(Self {
            endpoint: endpoint(&config.url)?,
            client: client(&config)?,
            budget: Budget::new(),
            dimensions: config.dimensions.map(OnceLock::from).unwrap_or_default(),
            config,
        })
    }

    /// As given.
    pub fn config(&self) -> &RemoteConfig {
        &self.config
    }

    /// Asks for one vector where nobody said how long they are.
    ///
    /// # Errors
    /// When the provider must be asked and fails.
    pub async fn identity(&self) -> Result<Identity, Error> {
        if self.dimensions.get().is_none() {
            self.embed(&["dimensions".into()]).await?;
        }
        let dimensions = self.dimensions.get().copied().unwrap_or_default();
        let model = &self.config.model;
        Ok(Identity { name: model.clone(), precision: "remote", dimensions, revision: model.clone() })
    }

    /// One call with its retries.
    ///
    /// # Errors
    /// What the last attempt failed of.
    pub async fn embed(&self, texts: &[Arc<str>]) -> Result<Vec<Vector>, Error> {
        let deadline = Instant::now() + self.config.timeout;
        self.budget.deposit();
        let mut attempt = 1;
        loop {
            let tried = timeout_at(deadline, self.attempt(texts)).await;
            let late = || Err(Failure::last(format!("no answer within {:?}", self.config.timeout)));
            let failure = match tried.unwrap_or_else(|_| late()) {
                Ok(vectors) => return Ok(vectors),
                Err(failure) => failure,
            };
            let wait = pause(attempt, failure.after);
            let worthwhile = failure.again && attempt < ATTEMPTS && Instant::now() + wait < deadline;
            if !worthwhile || !self.budget.withdraw() {
                return Err(failure.error);
            }
            tracing::debug!(attempt, ?wait, error = %failure.error, "embedding provider failed; trying again");
            sleep(wait).await;
            attempt += 1;
        }
    }

    async fn attempt(&self, texts: &[Arc<str>]) -> Result<Vec<Vector>, Failure> {
        let RemoteConfig { model, dimensions, .. } = &self.config;
        let question = Question { model, input: texts, encoding_format: "float", dimensions: *dimensions };
        let asked = self.client.post(self.endpoint.clone()).json(&question);
        // Makes the provider's work a part of the request's trace.
        let asked = telemetry::outgoing().iter().fold(asked, |asked, (name, value)| asked.header(name, value));
        let response = asked.send().await.map_err(Failure::transport)?;
        let status = response.status();
        let after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let after = after.and_then(|value| retry_after(value, SystemTime::now()));
        let body = body(response).await?;
        if status != StatusCode::OK {
            let again = status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error();
            let reason = format!("HTTP {}: {}", status.as_u16(), self.quote(&body));
            return Err(Failure { error: Error::Provider { status: Some(status.as_u16()), reason }, again, after });
        }
        let answer: Answer = serde_json::from_slice(&body).map_err(|error| {
            Failure::last(format!("an answer that cannot be read ({error}): {}", self.quote(&body)))
        })?;
        self.vectors(answer, texts.len()).map_err(Failure::last)
    }

    /// One checked vector for each text, by `index`.
    fn vectors(&self, answer: Answer, texts: usize) -> Result<Vec<Vector>, String> {
        if answer.data.len() != texts {
            return Err(format!("{} vectors for {texts} texts", answer.data.len()));
        }
        let mut vectors = vec![None; texts];
        let mut dimensions = self.dimensions.get().copied();
        for Item { index, embedding } in answer.data {
            let place = vectors.get_mut(index).filter(|place| place.is_none());
            let Some(place) = place else { return Err(format!("a vector with the index {index} where none is due")) };
            let expected = *dimensions.get_or_insert(embedding.len());
            *place = Some(vector::unit(embedding, expected)?);
        }
        // An answer that is wrong must not decide how long all others have to be: only a whole one comes here.
        let dimensions = dimensions.unwrap_or_default();
        let known = *self.dimensions.get_or_init(|| dimensions);
        if known != dimensions {
            return Err(format!("vectors of {dimensions} numbers where the model has {known}"));
        }
        Ok(vectors.into_iter().flatten().collect())
    }

    /// The beginning of a provider's complaint, on one line and without the key.
    fn quote(&self, body: &[u8]) -> String {
        let mut text = String::from_utf8_lossy(body).split_whitespace().collect::<Vec<_>>().join(" ");
        if let Some(key) = &self.config.api_key {
            text = text.replace(key.reveal(), "(key)");
        }
        text.chars().take(QUOTED_CHARACTERS).collect()
    }
}

fn client(config: &RemoteConfig) -> Result<Client, Error> {
    let mut headers = HeaderMap::new();
    if let Some(key) = &config.api_key {
        let value = HeaderValue::try_from(format!("Bearer {}", key.reveal())).ok().filter(|_| !key.reveal().is_empty());
        let Some(mut value) = value else {
            return Err(Error::setting("embed_api_key", "is empty or has a character that no header may carry"));
        };
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    let builder = Client::builder().default_headers(headers).connect_timeout(config.connect_timeout);
    builder.redirect(Policy::none()).build().map_err(|error| Error::setting("embed_url", chain(error)))
}

/// Where to post: `/v1/embeddings` below the address, of which as much as it has already is not repeated.
fn endpoint(address: &str) -> Result<Url, Error> {
    let wrong = |reason: &dyn std::fmt::Display| Error::setting("embed_url", format!("{address:?}: {reason}"));
    let mut url = Url::parse(address.trim()).map_err(|error| wrong(&error))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(wrong(&"must begin with http:// or https://"));
    }
    let path = url.path().trim_end_matches('/').to_owned();
    if !path.ends_with("/embeddings") {
        let rest = if path.ends_with("/v1") { "/embeddings" } else { "/v1/embeddings" };
        url.set_path(&format!("{path}{rest}"));
    }
    Ok(url)
}

/// The whole body, unless it is longer than any answer.
async fn body(mut response: Response) -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(Failure::transport)? {
        if body.len() + chunk.len() > MAX_ANSWER_BYTES {
            return Err(Failure::last(format!("an answer of more than {MAX_ANSWER_BYTES} bytes")));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// An error with its causes, without the address: that may hold a password.
pub(super) fn chain(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}
