//! What is known of every request: its id, its span, its metrics, one line in the log.
//!
//! The outermost layer: it sees every answer, also those of unmatched routes and caught panics, and writes the problems'
//! bodies because it alone knows the request id.

use std::time::Instant;

use axum::{
    body::Body,
    extract::{MatchedPath, Request, State as Shared},
    http::{HeaderMap, HeaderName, HeaderValue, Response, Version, header},
    middleware::Next,
};
use tracing::Instrument;

use super::{rate_limit, respond::Problem};
use crate::runtime::{lifecycle::Leaving, metrics, telemetry};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longer ids are not echoed: they would be a way to fill the log.
const MAX_REQUEST_ID: usize = 128;

/// Wraps the whole router.
pub async fn observe(Shared(leaving): Shared<Leaving>, request: Request, next: Next) -> Response<Body> {
    let started = Instant::now();
    let in_flight = metrics::InFlight::start();
    let id = request_id(request.headers());
    let method = request.method().clone();
    let matched = request.extensions().get::<MatchedPath>().cloned();
    let route = matched.as_ref().map_or("unmatched", MatchedPath::as_str);
    let name = id.to_str().unwrap_or_default();
    let span = tracing::info_span!(
        "request", request_id = name, %method, route,
        trace_id = tracing::field::Empty, otel.kind = tracing::field::Empty
    );
    telemetry::adopt(&span, |name| request.headers().get(name)?.to_str().ok());
    let version = request.version();
    let mut response = next.run(request).instrument(span.clone()).await;
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        let mut refused = problem.write(name);
        rate_limit::keep_headers(&mut response, &mut refused);
        response = refused;
    }
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, id.clone());
    // A browser takes the content type at its word.
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // Only HTTP/1 needs to be told: HTTP/2 has a frame for it, which the accept loop sends.
    if leaving.is_leaving() && version <= Version::HTTP_11 {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    let (status, elapsed) = (response.status().as_u16(), started.elapsed());
    metrics::record_http_request(route, method.as_str(), status, elapsed);
    tracing::info!(parent: &span, status, elapsed_ms = elapsed.as_secs_f64() * 1_000.0, "answered");
    telemetry::finish(&span, status);
    drop(in_flight);
    response
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
    let mut number = fastrand::u128(..).to_le_bytes().into_iter().flat_map(|byte| [byte & 15, byte >> 4]);
    let digits: [u8; 32] = std::array::from_fn(|_| b"0123456789abcdef"[usize::from(number.next().unwrap_or_default())]);
    HeaderValue::from_bytes(&digits).unwrap_or_else(|_| HeaderValue::from_static("none"))
}
