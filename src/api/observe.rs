//! What is known of every request: its id, its span, its metrics, one line in the log.
//!
//! Outside of all else: it sees every answer, also those of unmatched routes and caught panics, and writes the problems'
//! bodies because it alone knows the request id.

use std::{pin::pin, time::Instant};

use axum::{
    body::Body,
    extract::{MatchedPath, Request, State as Shared},
    http::{HeaderMap, HeaderName, HeaderValue, Method, Response, Version, header},
    middleware::Next,
};
use bytes::Bytes;
use tracing::{Instrument, Span};

use super::{
    rate_limit,
    respond::{Code, Problem},
};
use crate::runtime::{lifecycle::Leaving, metrics, telemetry};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longer ids are not echoed: they would be a way to fill the log.
const MAX_REQUEST_ID: usize = 128;

/// Observes each request of a router, as its outermost layer.
pub async fn observe_all(Shared(leaving): Shared<Leaving>, request: Request, next: Next) -> Response<Body> {
    observe(&leaving, request, |request| next.run(request)).await
}

/// Observes one request, which `answer` answers.
pub async fn observe<A>(leaving: &Leaving, request: Request, answer: impl FnOnce(Request) -> A) -> Response<Body>
where
    A: Future<Output = Response<Body>>,
{
    let matched = request.extensions().get::<MatchedPath>().cloned();
    let route = matched.as_ref().map_or("unmatched", MatchedPath::as_str);
    let began = Began { at: Instant::now(), version: request.version() };
    let observed = Observed::new(route, request.method(), request.headers(), began);
    let mut response = pin!(answer(request)).instrument(observed.span()).await;
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        let mut refused = observed.write(problem).map(Body::from);
        rate_limit::keep_headers(&mut response, &mut refused);
        response = refused;
    }
    observed.finish(&mut response, leaving);
    response
}

/// When a request came, and by which protocol.
#[derive(Clone, Copy, Debug)]
pub struct Began {
    /// When its head was complete.
    pub at: Instant,
    /// The protocol.
    pub version: Version,
}

/// One request, from its head to its answer.
pub struct Observed<'a> {
    route: &'a str,
    method: Method,
    began: Began,
    id: HeaderValue,
    span: Span,
    _in_flight: metrics::InFlight,
}

impl<'a> Observed<'a> {
    /// `route` is the matched path.
    pub fn new(route: &'a str, method: &Method, headers: &HeaderMap, began: Began) -> Self {
        let (id, method) = (request_id(headers), method.clone());
        let span = tracing::info_span!(
            "request", request_id = id.to_str().unwrap_or_default(), %method, route,
            trace_id = tracing::field::Empty, otel.kind = tracing::field::Empty
        );
        telemetry::adopt(&span, |name| headers.get(name)?.to_str().ok());
        Self { route, method, began, id, span, _in_flight: metrics::InFlight::start() }
    }

    /// The answer that says the problem.
    pub fn write(&self, problem: Problem) -> Response<Bytes> {
        problem.write(self.id.to_str().unwrap_or_default())
    }

    /// What happens for this request happens in it.
    pub fn span(&self) -> Span {
        self.span.clone()
    }

    /// Puts on the answer what every answer has, and records it.
    pub fn finish<B>(self, response: &mut Response<B>, leaving: &Leaving) {
        let Self { route, method, began, id, span, _in_flight } = self;
        let headers = response.headers_mut();
        headers.insert(REQUEST_ID, id);
        // A browser takes the content type at its word.
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        // Only HTTP/1 needs to be told: HTTP/2 has a frame for it, which the accept loop sends.
        if leaving.is_leaving() && began.version <= Version::HTTP_11 {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        let (status, elapsed) = (response.status().as_u16(), began.at.elapsed());
        metrics::record_http_request(route, method.as_str(), status, elapsed);
        // Whole microseconds.
        let elapsed_ms = (elapsed.as_secs_f64() * 1e6).round() / 1e3;
        let code = response.extensions().get::<Code>().map(|code| code.0);
        tracing::info!(parent: &span, status, code, elapsed_ms, "answered");
        telemetry::finish(&span, status);
    }
}

/// The caller's id when it is short and plain, else a new one.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:/".contains(byte);
    headers
        .get(REQUEST_ID)
        .filter(|id| (1..=MAX_REQUEST_ID).contains(&id.len()) && id.as_bytes().iter().all(plain))
        .map_or_else(new_request_id, HeaderValue::clone)
}

/// 32 hexadecimal digits.
fn new_request_id() -> HeaderValue {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut digits = [0; 32];
    for (pair, byte) in digits.chunks_exact_mut(2).zip(fastrand::u128(..).to_le_bytes()) {
        pair.copy_from_slice(&[DIGITS[usize::from(byte & 15)], DIGITS[usize::from(byte >> 4)]]);
    }
    HeaderValue::from_bytes(&digits).unwrap_or_else(|_| HeaderValue::from_static("none"))
}
