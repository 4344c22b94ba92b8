//! The front door: the route table and what stands before it, nothing else.
//!
//! Each route is one handler in the file of its resource, with its OpenAPI description beside it.

mod chunks;
mod coding;
mod credential;
pub mod debug;
mod docs;
mod door;
mod extract;
mod health;
pub mod identity;
mod keys;
mod observe;
mod pages;
pub mod policy;
pub mod rate_limit;
mod respond;
mod search;
pub mod shape;
mod shed;
mod sources;
mod ui;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{Request, State as Shared},
    middleware,
    response::Response,
    routing::get,
};
use utoipa::{OpenApi, openapi};
use utoipa_axum::{router::OpenApiRouter, routes};

pub use keys::KeyBody;
pub use respond::Problem;
pub use search::read_search;
pub use sources::SourceBody;

use self::{identity::Access, rate_limit::Limits};
use crate::{
    health::Health,
    index::Index,
    runtime::{
        lifecycle::Leaving,
        listen::{Front, Head},
    },
    search::Search,
};

/// What handlers share.
#[derive(Clone)]
pub struct State {
    /// The path of a search.
    pub search: Search,
    /// Sources, pages and chunks.
    pub index: Index,
    /// What the probes last saw.
    pub health: Arc<Health>,
    /// Who may do what.
    pub access: Access,
    /// The largest request body.
    pub max_body_bytes: usize,
    /// Origins whose pages may call the API from a browser, with commas; empty allows none.
    pub cors_origins: String,
    /// The longest a request is worked on, whatever its caller would wait.
    pub deadline: Duration,
    /// How often callers may ask.
    pub limits: Limits,
    /// Whether the process is leaving.
    pub leaving: Leaving,
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "doc-server",
        description = "Search documentation by meaning and by words. Failures are application/problem+json and say what to do.",
        license(name = "MIT", identifier = "MIT")
    ),
    tags(
        (name = "search", description = "Find passages."),
        (name = "documents", description = "Read what is published."),
        (name = "sources", description = "What is searched."),
        (name = "keys", description = "Who may ask."),
        (name = "operation", description = "How the server is.")
    )
)]
struct Description;

/// Every route of the API, with its description.
fn routes() -> OpenApiRouter<Arc<State>> {
    OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(search::search_documents, search::search_documents_post))
        .merge(others().layer(shape::compression()))
}

/// Every route but the search, which compresses its own answers.
fn others() -> OpenApiRouter<Arc<State>> {
    OpenApiRouter::new()
        .routes(routes!(sources::list_sources))
        .routes(routes!(sources::get_source, sources::change_source, sources::delete_source))
        .routes(routes!(pages::find_page))
        .routes(routes!(pages::get_page))
        .routes(routes!(chunks::get_chunk))
        .routes(routes!(health::get_health))
        .routes(routes!(keys::create_key, keys::list_keys))
        .routes(routes!(keys::revoke_key))
}

/// The routes and their description, which says who may use each.
fn described_routes() -> (Router<Arc<State>>, openapi::OpenApi) {
    let (router, mut description) = routes().split_for_parts();
    policy::describe(&mut description);
    (router, description)
}

/// Every route there is, without the layers.
fn all_routes() -> Router<Arc<State>> {
    let (router, description) = described_routes();
    let pages = docs::router(description).route("/", get(ui::show_page)).route("/assets/{name}", get(ui::get_asset));
    router.merge(shape::pages(pages).layer(shape::compression()))
}

/// The API's description, OpenAPI 3.1.
#[must_use]
pub fn openapi() -> openapi::OpenApi {
    described_routes().1
}

/// What answers at the public door: searches by the shortest way, all else through the router.
#[must_use]
pub fn front(state: State) -> Front {
    let state = Arc::new(state);
    let front = Front::new(router(Arc::clone(&state)));
    // The layer of the former adds to every answer.
    if shape::cors(&state.cors_origins).is_some() {
        return front;
    }
    front.with_early(Arc::new(move |head: &Head<'_>| search::early(&state, head)))
}

fn router(state: Arc<State>) -> Router {
    let routes = all_routes().fallback(unknown_route).method_not_allowed_fallback(answer_wrong_method);
    door::guard(routes, &state).with_state(state)
}

/// Gives a request up when its time is over. The connections it held are checked, and closed where they are dead.
async fn keep_deadline(
    Shared(deadline): Shared<Duration>,
    request: Request,
    next: middleware::Next,
) -> Result<Response, Problem> {
    door::within(deadline, next.run(request)).await
}

async fn unknown_route(uri: axum::http::Uri) -> Problem {
    Problem::not_found(format!("there is nothing at {}; /docs lists the routes", uri.path()))
}

async fn answer_wrong_method(method: axum::http::Method, uri: axum::http::Uri) -> Problem {
    wrong_method(&method, &uri)
}

fn wrong_method(method: &axum::http::Method, uri: &axum::http::Uri) -> Problem {
    let detail = format!("{} does not take {method}; /docs lists the routes and their methods", uri.path());
    Problem::new(axum::http::StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail)
}
