//! The front door: the route table and the layer stack, nothing else.
//!
//! Each route is one handler in the file of its resource, with its OpenAPI description beside it.

mod chunks;
pub mod debug;
mod docs;
mod extract;
mod health;
mod observe;
mod pages;
mod respond;
mod search;
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
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::{OpenApi, openapi};
use utoipa_axum::{router::OpenApiRouter, routes};

pub use respond::Problem;

use crate::{health::Health, index::Index, runtime::lifecycle::Leaving, search::Search};

/// What handlers share.
#[derive(Clone)]
pub struct State {
    /// The path of a search.
    pub search: Search,
    /// Sources, pages and chunks.
    pub index: Index,
    /// What the probes last saw.
    pub health: Arc<Health>,
    /// The largest request body.
    pub max_body_bytes: usize,
    /// The longest a request is worked on: more than any statement may take, so that only a silent database meets it.
    pub deadline: Duration,
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
        (name = "operation", description = "How the server is.")
    )
)]
struct Description;

/// Every route of the API, with its description.
fn routes() -> OpenApiRouter<State> {
    OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(search::search_documents, search::search_documents_post))
        .routes(routes!(sources::list_sources))
        .routes(routes!(sources::get_source, sources::change_source, sources::delete_source))
        .routes(routes!(pages::find_page))
        .routes(routes!(pages::get_page))
        .routes(routes!(chunks::get_chunk))
        .routes(routes!(health::get_health))
}

/// The API's description, OpenAPI 3.1.
#[must_use]
pub fn openapi() -> openapi::OpenApi {
    routes().split_for_parts().1
}

/// The public router.
pub fn router(state: State) -> Router {
    let (router, description) = routes().split_for_parts();
    router
        .merge(docs::router(description))
        .route("/", get(ui::show_page))
        .route("/assets/{name}", get(ui::get_asset))
        .fallback(unknown_route)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(state.deadline, keep_deadline))
        .layer(CatchPanicLayer::custom(answer_panic))
        .layer(middleware::from_fn_with_state(state.leaving.clone(), observe::observe))
        .with_state(state)
}

/// Gives a request up when its time is over. The connections it held are checked, and closed where they are dead.
async fn keep_deadline(
    Shared(deadline): Shared<Duration>,
    request: Request,
    next: middleware::Next,
) -> Result<Response, Problem> {
    tokio::time::timeout(deadline, next.run(request)).await.map_err(|_| Problem::deadline())
}

async fn unknown_route(uri: axum::http::Uri) -> Problem {
    Problem::not_found(format!("there is nothing at {}; /docs lists the routes", uri.path()))
}

async fn wrong_method(method: axum::http::Method, uri: axum::http::Uri) -> Problem {
    let detail = format!("{} does not take {method}; /docs lists the routes and their methods", uri.path());
    Problem::new(axum::http::StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail)
}

#[expect(clippy::needless_pass_by_value, reason = "the layer passes the panic by value")]
fn answer_panic(panic: Box<dyn std::any::Any + Send>) -> axum::response::Response {
    let message = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    tracing::error!(panic = message.unwrap_or("without a message"), "a handler panicked");
    axum::response::IntoResponse::into_response(Problem::internal())
}
