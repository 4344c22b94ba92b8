//! What is known of every request: its id, its span, its metrics, one line in the log.
//!
//! The outermost layer: it sees every answer, also those of unmatched routes and caught panics, and writes the problems'
//! bodies because it alone knows the request id.

use std::{sync::Arc, time::Instant};

use axum::{
    body::Body,
    extract::{MatchedPath, Request, State as Shared},
    http::{HeaderMap, HeaderName, HeaderValue, Response, Version, header},
    middleware::Next,
};
use tracing::Instrument;

use super::respond::Problem;
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
    let route = request.extensions().get::<MatchedPath>().map_or("unmatched", MatchedPath::as_str).to_owned();
    let span = tracing::info_span!(
        "request", request_id = %id, %method, %route,
        trace_id = tracing::field::Empty, otel.kind = tracing::field::Empty
    );
    telemetry::adopt(&span, |name| request.headers().get(name)?.to_str().ok());
    let version = request.version();
    let mut response = next.run(request).instrument(span.clone()).await;
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        response = problem.write(&id);
    }
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    // Only HTTP/1 needs to be told: HTTP/2 has a frame for it, which the accept loop sends.
    if leaving.is_leaving() && version <= Version::HTTP_11 {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    let (status, elapsed) = (response.status().as_u16(), started.elapsed());
    metrics::record_http_request(&route, method.as_str(), status, elapsed);
    tracing::info!(parent: &span, status, elapsed_ms = elapsed.as_secs_f64() * 1_000.0, "answered");
    telemetry::finish(&span, status);
    drop(in_flight);
    response
}

/// The caller's id when it is short and plain, else a new one.
fn request_id(headers: &HeaderMap) -> Arc<str> {
    headers
        .get(REQUEST_ID)
        .and_then(|value| value.to_str().ok())
        .filter(|id| (1..=MAX_REQUEST_ID).contains(&id.len()))
        .filter(|id| id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:/".contains(&byte)))
        .map_or_else(|| new_request_id().into(), Arc::from)
}

fn new_request_id() -> String {
    format!("{:032x}", fastrand::u128(..))
}
