//! The private door: metrics, probes and profiles, on a listener of its own.
//!
//! It is open before the database is and after the public door has closed. `/livez` says that the process runs, `/readyz` whether
//! it should get requests: not before the database answers, not from the moment that it is asked to stop. Neither asks the
//! database. `/debug` is put in by the composition root once it is there: it reads searches, and knows who may come in.

mod profiles;

use std::sync::{Arc, OnceLock};

use axum::{
    Router,
    extract::{Request, State as Shared},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use metrics_exporter_prometheus::PrometheusHandle;
use tower::ServiceExt;

pub use profiles::router as profiles;

use crate::{
    health::Health,
    runtime::{lifecycle::Leaving, metrics},
};

/// The text format's version, as Prometheus asks for it.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What handlers share.
#[derive(Clone)]
pub struct State {
    /// Renders the metrics.
    pub metrics: PrometheusHandle,
    /// Whether the process is leaving.
    pub leaving: Leaving,
    /// What is there only once the database is open.
    pub opened: Opened,
}

/// What is there only once the database is open. Cheap to clone.
#[derive(Clone, Default)]
pub struct Opened(Arc<OnceLock<Inside>>);

struct Inside {
    health: Arc<Health>,
    debug: Router,
}

impl Opened {
    /// From now on readiness is what the probes of `health` see, and the routes of `debug` are there. Only the first call counts.
    pub fn set(&self, health: Arc<Health>, debug: Router) {
        let _ = self.0.set(Inside { health, debug });
    }
}

/// The private router.
pub fn router(state: State) -> Router {
    Router::new()
        .route("/metrics", get(show_metrics))
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(show_readiness))
        .fallback(pass_inside)
        .with_state(state)
}

async fn show_metrics(Shared(state): Shared<State>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, METRICS_TYPE)], metrics::render(&state.metrics))
}

async fn show_readiness(Shared(state): Shared<State>) -> (StatusCode, &'static str) {
    let away = |told| (StatusCode::SERVICE_UNAVAILABLE, told);
    match state.opened.0.get() {
        _ if state.leaving.is_leaving() => away("stopping\n"),
        None => away("starting\n"),
        Some(inside) if inside.health.is_ready() => (StatusCode::OK, "ready\n"),
        Some(_) => away("the database cannot be reached\n"),
    }
}

/// Everything else is `/debug`, or nothing.
async fn pass_inside(Shared(state): Shared<State>, request: Request) -> Response {
    match state.opened.0.get() {
        Some(inside) => inside.debug.clone().oneshot(request).await.unwrap_or_else(|never| match never {}),
        None => (StatusCode::SERVICE_UNAVAILABLE, "starting\n").into_response(),
    }
}
