//! How answers leave, whatever they say: compressed where the caller takes it, readable by the origins that are allowed, and
//! with the headers that keep a browser from doing more with a page than the page does.
//!
//! Searches compress their own answers, once for everybody (`coding`). Event streams and NDJSON are never compressed: a
//! compressor holds lines back. Nothing here fails or waits.

use std::time::Duration;

use axum::{
    Router,
    http::{HeaderName, HeaderValue, Method, header},
    middleware,
    response::Response,
};
use tower_http::{
    compression::{
        CompressionLayer, CompressionLevel, Predicate,
        predicate::{DefaultPredicate, NotForContentType},
    },
    cors::{AllowOrigin, CorsLayer},
};

use super::respond::X_CACHE;

/// Scripts, styles and requests from this server only; no inline script or style, no frame around it. `data:` is for the
/// pictures within the style sheet of the API's page.
const PAGE_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; \
     form-action 'self'; frame-ancestors 'none'",
);

/// How long a browser may keep the answer to a preflight: what most of them allow at most.
const PREFLIGHT_AGE: Duration = Duration::from_mins(10);

/// Pages and their assets.
pub fn pages<S: Clone + Send + Sync + 'static>(router: Router<S>) -> Router<S> {
    router.layer(middleware::map_response(guard_page))
}

async fn guard_page(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, PAGE_POLICY);
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    response
}

/// Compresses answers as they are sent.
pub fn compression() -> CompressionLayer<impl Predicate> {
    let lines = NotForContentType::new("application/x-ndjson");
    CompressionLayer::new().quality(CompressionLevel::Fastest).compress_when(DefaultPredicate::new().and(lines))
}

/// Lets pages of these origins (or of all, with `*`) call the API from a browser. None adds nothing: browsers then keep answers
/// from other sites' pages.
pub fn cors(origins: &str) -> Option<CorsLayer> {
    let list: Vec<HeaderValue> = origins.split(',').filter_map(|origin| origin.trim().parse().ok()).collect();
    let allowed = match list.as_slice() {
        _ if origins.trim().is_empty() => return None,
        [one] if one == "*" => AllowOrigin::any(),
        _ => AllowOrigin::list(list),
    };
    let sent = ["content-type", "authorization", "x-api-key", "x-request-id", "if-none-match", "idempotency-key"];
    let read = ["server-timing", "x-request-id", "ratelimit", "ratelimit-policy", "retry-after", "age", "etag"];
    let names = |list: &[&'static str]| list.iter().copied().map(HeaderName::from_static).collect::<Vec<_>>();
    Some(
        CorsLayer::new()
            .allow_origin(allowed)
            .allow_methods([Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
            .allow_headers(names(&sent))
            .expose_headers([names(&read), vec![X_CACHE]].concat())
            .max_age(PREFLIGHT_AGE),
    )
}

#[cfg(test)]
mod tests {
    use axum::{
        body::Body,
        http::{Request, Response},
        routing::get,
    };
    use tower::ServiceExt;

    use super::*;

    async fn coding_of(content_type: &'static str) -> Option<HeaderValue> {
        let answer = move || async move {
            let response = Response::builder().header(header::CONTENT_TYPE, content_type);
            response.body(Body::from("data: the same words again and again\n\n".repeat(100))).expect("a response")
        };
        let router = Router::new().route("/", get(answer)).layer(compression());
        let request = Request::get("/").header(header::ACCEPT_ENCODING, "gzip").body(Body::empty()).expect("a request");
        let response = router.oneshot(request).await.expect("an answer");
        response.headers().get(header::CONTENT_ENCODING).cloned()
    }

    #[tokio::test]
    async fn streams_are_not_compressed() {
        assert_eq!(coding_of("application/json").await, Some(HeaderValue::from_static("gzip")));
        assert_eq!(coding_of("text/event-stream").await, None);
        assert_eq!(coding_of("application/x-ndjson").await, None);
    }
}
