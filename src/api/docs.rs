//! `/openapi.json` and `/docs`: the API's description and a page to read and try it, which loads nothing from elsewhere.

use std::sync::Arc;

use axum::Router;
use utoipa::openapi::OpenApi;
use utoipa_swagger_ui::{Config, SwaggerUi};

use super::State;

/// The routes of the description.
pub fn router(description: OpenApi) -> Router<Arc<State>> {
    // Operations open at once; there is no validator, which would send the description to a stranger's server.
    let config = Config::default().validator_url("none").doc_expansion("list");
    SwaggerUi::new("/docs").url("/openapi.json", description).config(config).into()
}
