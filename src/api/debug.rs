//! `/debug` of the private door: how the database carries a search out, and what the caches hold.
//!
//! It reads the parameters of a search as the front door does, so it is built here and put into the private door's router. SQL and
//! plans leave only to the machine itself: on any other address every route here answers 403.

use std::time::Duration;

use axum::{
    Router,
    body::Body,
    extract::{Request, State as Shared},
    http::{Response, StatusCode},
    middleware::{self, Next},
    routing::{get, post},
};

use super::{
    extract::{Fields, refuse_parameters},
    keep_deadline, observe,
    respond::{self, Problem},
    search::query_from,
    unknown_route, wrong_method,
};
use crate::{runtime::lifecycle::Leaving, search::Search};

/// What handlers share.
#[derive(Clone)]
pub struct State {
    /// The path of a search.
    pub search: Search,
    /// The largest request body.
    pub max_body_bytes: usize,
    /// The longest a request is worked on.
    pub deadline: Duration,
    /// Whether the door is bound to a loopback address.
    pub loopback: bool,
    /// Whether the process is leaving.
    pub leaving: Leaving,
}

/// The routes below `/debug`.
pub fn router(state: State) -> Router {
    let routes = Router::new()
        .route("/explain", post(explain_search))
        .route("/cache/stats", get(show_caches))
        .route("/cache/clear", post(clear_caches))
        .fallback(unknown_route)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(state.deadline, keep_deadline))
        .with_state(state.clone());
    Router::new().nest("/debug", guarded(routes, state.loopback, state.leaving))
}

/// `routes` behind the check of who may use `/debug`, with their ids and metrics.
pub fn guarded(routes: Router, loopback: bool, leaving: Leaving) -> Router {
    routes
        .layer(middleware::from_fn_with_state(loopback, require_loopback))
        .layer(middleware::from_fn_with_state(leaving, observe::observe))
}

/// Tells how the database carries a search out: the parameters of `POST /api/search`, as JSON.
async fn explain_search(Shared(state): Shared<State>, request: Request) -> Result<Response<Body>, Problem> {
    refuse_parameters(request.uri().query())?;
    let (query, _) = query_from(Fields::from_body(request, state.max_body_bytes).await?)?;
    respond::json(&state.search.explain(&query).await?)
}

/// Tells what the caches hold.
async fn show_caches(Shared(state): Shared<State>, request: Request) -> Result<Response<Body>, Problem> {
    refuse_parameters(request.uri().query())?;
    respond::json(&state.search.caches())
}

/// Empties the caches of this process and the shared tier.
async fn clear_caches(Shared(state): Shared<State>, request: Request) -> Result<Response<Body>, Problem> {
    refuse_parameters(request.uri().query())?;
    respond::json(&state.search.clear_caches().await)
}

async fn require_loopback(
    Shared(loopback): Shared<bool>,
    request: Request,
    next: Next,
) -> Result<Response<Body>, Problem> {
    if loopback {
        return Ok(next.run(request).await);
    }
    let detail = "/debug is served only where admin_bind is a loopback address; use doc-server explain on the server";
    Err(Problem::new(StatusCode::FORBIDDEN, "not_on_loopback", detail))
}
