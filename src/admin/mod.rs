//! The private door: metrics and probes, on a listener of its own.
//!
//! `/livez` says that the process runs, `/readyz` whether it should get requests: not before the database answers, not while it
//! stops. Neither asks the database. `/debug` is put in by the composition root: it reads searches as the front door does.

use std::sync::Arc;

use axum::{
    Router,
    extract::State as Shared,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio_util::sync::CancellationToken;

use crate::{health::Health, runtime::metrics};

/// The text format's version, as Prometheus asks for it.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What handlers share.
#[derive(Clone)]
pub struct State {
    /// Renders the metrics.
    pub metrics: PrometheusHandle,
    /// What the probes last saw.
    pub health: Arc<Health>,
    /// Cancelled when the process is leaving.
    pub stopping: CancellationToken,
}

/// The private router, with the routes below `/debug`.
pub fn router(state: State, debug: Router) -> Router {
    Router::new()
        .route("/metrics", get(show_metrics))
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(show_readiness))
        .with_state(state)
        .merge(debug)
}

async fn show_metrics(Shared(state): Shared<State>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, METRICS_TYPE)], metrics::render(&state.metrics))
}

async fn show_readiness(Shared(state): Shared<State>) -> (StatusCode, &'static str) {
    if state.stopping.is_cancelled() {
        (StatusCode::SERVICE_UNAVAILABLE, "stopping\n")
    } else if state.health.is_ready() {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "the database cannot be reached\n")
    }
}
