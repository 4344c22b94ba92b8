//! The search page at `/`: one document, one style sheet, one script, all in the binary.

use axum::{
    body::Body,
    http::{HeaderValue, Response, header},
};

use super::{extract::Segment, respond::Problem};

/// Changes with a release only, and is small: a day is long enough to matter and short enough to forget.
const CACHE_CONTROL: HeaderValue = HeaderValue::from_static("public, max-age=300");

/// The page itself.
pub async fn show_page() -> Response<Body> {
    asset("text/html; charset=utf-8", include_str!("../../assets/search.html"))
}

/// What the page loads.
pub async fn get_asset(Segment(name): Segment) -> Result<Response<Body>, Problem> {
    match name.as_str() {
        "search.css" => Ok(asset("text/css; charset=utf-8", include_str!("../../assets/search.css"))),
        "search.js" => Ok(asset("text/javascript; charset=utf-8", include_str!("../../assets/search.js"))),
        _ => Err(Problem::not_found(format!("there is no asset {name:?}"))),
    }
}

fn asset(content_type: &'static str, text: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, CACHE_CONTROL);
    response
}
