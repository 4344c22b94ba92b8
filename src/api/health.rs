//! `GET /api/health`: what the probes last saw. Never asks the database itself, so it answers at once whatever is down.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::State as Shared,
    http::{Response, StatusCode},
};

use super::{
    State,
    respond::{self, Problem},
};
use crate::health::{Report, Status};

/// Tell how the server is.
#[utoipa::path(
    get, path = "/api/health", tag = "operation",
    responses(
        (status = 200, description = "Healthy, or degraded: answering with a part missing", body = Report),
        (status = 429, description = "Over a rate limit; Retry-After says for how long", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Unhealthy: searches cannot be answered", body = Report),
    )
)]
pub async fn get_health(Shared(state): Shared<Arc<State>>) -> Result<Response<Body>, Problem> {
    let report = state.health.report();
    let mut response = respond::json(&report)?;
    if report.status == Status::Unhealthy {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    Ok(response)
}
