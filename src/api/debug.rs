//! `/debug` of the private door: how the database carries a search out, and what the caches hold.
//!
//! It reads the parameters of a search as the front door does, so it is built here and put into the private door's router. SQL and
//! plans leave only to the machine itself: on any other address every route here needs a key with the scope `admin`.

use std::time::Duration;

use axum::{
    Router,
    body::Body,
    extract::{Request, State as Shared},
    http::{Method, Response, StatusCode, Uri},
    middleware,
    routing::{get, post},
};

use super::{
    extract::{Fields, refuse_parameters},
    identity::AdminDoor,
    keep_deadline,
    respond::{self, Problem},
    search::query_from,
};
use crate::{index::View, runtime::lifecycle::Leaving, search::Search};

/// What handlers share.
#[derive(Clone)]
pub struct State {
    /// The path of a search.
    pub search: Search,
    /// The largest request body.
    pub max_body_bytes: usize,
    /// The longest a request is worked on.
    pub deadline: Duration,
    /// Who may come in.
    pub door: AdminDoor,
    /// Whether the process is leaving.
    pub leaving: Leaving,
}

/// The routes below `/debug`.
pub fn router(state: State) -> Router {
    let routes = Router::new()
        .route("/debug/explain", post(explain_search))
        .route("/debug/cache/stats", get(show_caches))
        .route("/debug/cache/clear", post(clear_caches))
        .fallback(unknown_route)
        .method_not_allowed_fallback(answer_wrong_method)
        .layer(middleware::from_fn_with_state(state.deadline, keep_deadline))
        .with_state(state.clone());
    state.door.guard(routes, state.leaving)
}

/// What this door has.
const ROUTES: &str = "GET /metrics, /livez, /readyz, /debug/pprof/ and /debug/cache/stats, POST /debug/explain and \
                      /debug/cache/clear";

async fn unknown_route(uri: Uri) -> Problem {
    Problem::not_found(format!("there is nothing at {}; this door has {ROUTES}", uri.path()))
}

async fn answer_wrong_method(method: Method, uri: Uri) -> Problem {
    let detail = format!("{} does not take {method}; this door has {ROUTES}", uri.path());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail)
}

/// Tells how the database carries a search out: the parameters of `POST /api/search`, as JSON.
async fn explain_search(Shared(state): Shared<State>, request: Request) -> Result<Response<Body>, Problem> {
    refuse_parameters(request.uri().query())?;
    let asked = query_from(Fields::from_body(request, state.max_body_bytes).await?, View::everything())?;
    respond::json(&state.search.explain(&asked.query).await?)
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
