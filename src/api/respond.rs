//! Answers: JSON bodies, and every failure as RFC 9457 `application/problem+json` that says what to do about it.
//!
//! Internals (addresses, paths, SQL) never leave: they are logged with the request id that the problem carries.

use axum::{
    body::Body,
    http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header},
    response::IntoResponse,
};
use bytes::Bytes;
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    error::Error,
    index::{self, keys::Scope},
    runtime::metrics,
    search::Key,
};

/// Where an answer came from.
pub const X_CACHE: HeaderName = HeaderName::from_static("x-cache");

/// The content type of answers.
pub const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// How long a caller should wait when the database or the model is busy or away: about what a restart takes.
const RETRY_AFTER_SECONDS: u32 = 1;

/// A failure, as the caller sees it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Problem {
    /// Identifies the kind of problem.
    #[serde(rename = "type")]
    pub kind: String,
    /// The status in words.
    pub title: &'static str,
    /// The HTTP status.
    pub status: u16,
    /// What is wrong and what to do.
    pub detail: String,
    /// The kind of problem, for programs.
    pub code: &'static str,
    /// Names this request in the server's log.
    pub request_id: String,
    /// The fields that are wrong, when there are any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
    #[serde(skip)]
    retry_after: Option<u32>,
    /// How to prove who one is: `WWW-Authenticate`.
    #[serde(skip)]
    challenge: Option<String>,
}

/// One field that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldError {
    /// The parameter.
    pub field: String,
    /// What is wrong with it and what is allowed.
    pub message: String,
}

impl Problem {
    /// A problem of this status and code.
    #[must_use]
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("urn:doc-server:problem:{code}"),
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            detail: detail.into(),
            code,
            request_id: String::new(),
            errors: Vec::new(),
            retry_after: None,
            challenge: None,
        }
    }

    /// 422: a value that is not allowed.
    #[must_use]
    pub fn invalid(field: &str, message: impl Into<String>) -> Self {
        Self::invalid_fields(vec![FieldError { field: field.to_owned(), message: message.into() }])
    }

    /// 422 with all the fields that are wrong; at least one.
    #[must_use]
    pub fn invalid_fields(errors: Vec<FieldError>) -> Self {
        let detail = errors.first().map_or_else(String::new, |first| format!("{}: {}", first.field, first.message));
        Self { errors, ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_value", detail) }
    }

    /// 404 with what there is instead.
    #[must_use]
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", detail)
    }

    /// 401: who asks is not known. `error` is the code of RFC 6750, where a key was shown.
    #[must_use]
    pub(super) fn unauthorized(code: &'static str, detail: impl Into<String>, error: Option<&str>) -> Self {
        let error = error.map_or_else(String::new, |error| format!(", error=\"{error}\""));
        let challenge = Some(format!("Bearer realm=\"doc-server\"{error}"));
        Self { challenge, ..Self::new(StatusCode::UNAUTHORIZED, code, detail) }
    }

    /// 401: without a key this may not be done.
    #[must_use]
    pub(super) fn key_required(scope: Scope) -> Self {
        let detail = format!(
            "this needs a key with the scope {:?}; send it as Authorization: Bearer dsk_… or as X-API-Key",
            scope.name()
        );
        Self::unauthorized("key_required", detail, None)
    }

    /// 401: the key is worth nothing. Which of the three reasons it is, is for its owner to find out.
    #[must_use]
    pub(super) fn wrong_key() -> Self {
        let detail = "the key is unknown, revoked or expired; ask for another";
        Self::unauthorized("key_invalid", detail, Some("invalid_token"))
    }

    /// 403: the key is good, but not for this.
    #[must_use]
    pub(super) fn scope_missing(scope: Scope) -> Self {
        let detail = format!("the key lacks the scope {:?}; use one that has it", scope.name());
        let challenge =
            format!("Bearer realm=\"doc-server\", error=\"insufficient_scope\", scope=\"{}\"", scope.name());
        Self { challenge: Some(challenge), ..Self::new(StatusCode::FORBIDDEN, "scope_missing", detail) }
    }

    /// 503: whether the key is good cannot be asked now.
    #[must_use]
    pub(super) fn unconfirmed_key() -> Self {
        Self::unavailable("key_unconfirmed", "the database cannot be reached, so the key cannot be checked; try again")
    }

    /// 500 for a bug: the caller learns nothing but the request id.
    #[must_use]
    pub fn internal() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal_error",
            "something went wrong in the server; its log has the cause under this request id",
        )
    }

    /// 504: not finished in time.
    pub(super) fn deadline() -> Self {
        let detail = "the search did not finish in its time (timeout_ms, or the server's request_timeout_ms); allow it more, or narrow it to fewer sources";
        Self::new(StatusCode::GATEWAY_TIMEOUT, "deadline_exceeded", detail)
    }

    /// 503: too much is being worked on.
    pub(super) fn overloaded() -> Self {
        Self::unavailable("overloaded", "the server is busy; try again")
    }

    /// 429: over a limit for `seconds` more.
    pub(super) fn rate_limited(detail: String, seconds: u32) -> Self {
        Self { retry_after: Some(seconds), ..Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", detail) }
    }

    fn unavailable(code: &'static str, detail: &str) -> Self {
        Self { retry_after: Some(RETRY_AFTER_SECONDS), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, code, detail) }
    }

    /// The response with its body; `request_id` is known only to the layer that observes requests.
    pub(super) fn write(mut self, request_id: &str) -> Response<Bytes> {
        request_id.clone_into(&mut self.request_id);
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = Response::new(Bytes::from(body));
        *response.status_mut() = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if let Some(challenge) = self.challenge.and_then(|challenge| HeaderValue::try_from(challenge).ok()) {
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        response.extensions_mut().insert(Code(self.code));
        response
    }
}

/// Which problem an answer tells, for the log.
#[derive(Clone, Copy)]
pub(super) struct Code(pub &'static str);

/// The observing layer writes the body, since only it knows the request id.
impl IntoResponse for Problem {
    fn into_response(self) -> Response<Body> {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        response.extensions_mut().insert(self);
        response
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::Invalid { field, message } => Self::invalid(field, message),
            Error::Index(error) => error.into(),
            Error::Embed(_) | Error::EmbedTimeout => {
                tracing::error!(%error, "embedding failed");
                Self::unavailable(
                    "embedder_unavailable",
                    "the embedding model is not available; try again, or search with mode=keyword",
                )
            }
            Error::Overloaded(_) => {
                // Thousands a second, each with its line of the request: the metrics count them.
                tracing::debug!(%error, "search refused");
                Self::overloaded()
            }
            Error::OtherModel { .. } => {
                tracing::error!(%error, "embedding model mismatch");
                Self::unavailable(
                    "embedding_model_mismatch",
                    "the documents were embedded by another model than the one in use; import them again, or search with mode=keyword",
                )
            }
            Error::Internal(_) => {
                tracing::error!(%error, "internal error");
                Self::internal()
            }
        }
    }
}

impl From<index::Error> for Problem {
    fn from(error: index::Error) -> Self {
        match &error {
            index::Error::NotFound(detail) => Self::not_found(detail.clone()),
            index::Error::Gone => Self::new(StatusCode::GONE, "cursor_expired", error.to_string()),
            index::Error::BuildRunning { .. } => Self::new(StatusCode::CONFLICT, "import_running", error.to_string()),
            index::Error::TooManyKeys { .. } => Self::new(StatusCode::CONFLICT, "too_many_keys", error.to_string()),
            index::Error::Busy { .. } => {
                tracing::warn!(%error, "no database connection");
                metrics::record_shed("connections", 1);
                Self::overloaded()
            }
            index::Error::Timeout => {
                tracing::warn!(%error, "database timeout");
                Self::deadline()
            }
            index::Error::Database(_) => {
                tracing::error!(%error, "database error");
                Self::internal()
            }
            _ => {
                tracing::error!(%error, "database unavailable");
                Self::unavailable("database_unavailable", "the database cannot be reached; try again")
            }
        }
    }
}

/// `200 OK` with JSON that is written already.
pub fn json_bytes(body: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    response.headers_mut().insert(header::CONTENT_TYPE, JSON);
    response
}

/// `200 OK` with `value` as JSON.
///
/// # Errors
/// Never for the types of this crate: a value that cannot be written is a bug.
pub fn json(value: &impl Serialize) -> Result<Response<Body>, Problem> {
    let body = serde_json::to_vec(value).map_err(|error| Problem::from(Error::Internal(error.to_string())))?;
    Ok(json_bytes(body.into()))
}

/// Of `headers`, those that [`has_tag`] reads.
pub fn conditions(headers: &HeaderMap) -> HeaderMap {
    headers.get_all(header::IF_NONE_MATCH).iter().map(|value| (header::IF_NONE_MATCH, value.clone())).collect()
}

/// Whether `If-None-Match` names the answer of `key`: in a list, weak or strong, or as `*`.
pub fn has_tag(headers: &HeaderMap, key: &Key) -> bool {
    if !headers.contains_key(header::IF_NONE_MATCH) {
        return false;
    }
    let tag = key.name();
    headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok()).any(|list| {
        list.split(',').map(str::trim).any(|item| {
            item == "*" || item.strip_prefix("W/").unwrap_or(item).trim_matches('"').as_bytes() == tag.as_slice()
        })
    })
}
