//! The search page at `/`: one document, one style sheet, one script and an icon, all in the binary.
//!
//! A browser asks again each time and mostly hears `304`: after an upgrade the page never runs with an old script.

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, Response, StatusCode, header},
};

use super::{extract::Segment, respond::Problem};

/// May be stored, must be asked about before use.
const CACHE_CONTROL: HeaderValue = HeaderValue::from_static("no-cache");

const ICON: &str = concat!(
    r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16" fill="none" stroke="#4a70d9" stroke-width="2">"##,
    r#"<circle cx="6.5" cy="6.5" r="4.5"/><path d="m10 10 5 5"/></svg>"#
);

/// The page itself.
pub async fn show_page(headers: HeaderMap) -> Response<Body> {
    asset(&headers, "text/html; charset=utf-8", include_str!("../../assets/search.html"))
}

/// What the page loads.
pub async fn get_asset(Segment(name): Segment, headers: HeaderMap) -> Result<Response<Body>, Problem> {
    let (content_type, text) = match name.as_str() {
        "search.css" => ("text/css; charset=utf-8", include_str!("../../assets/search.css")),
        "search.js" => ("text/javascript; charset=utf-8", include_str!("../../assets/search.js")),
        "icon.svg" => ("image/svg+xml", ICON),
        _ => return Err(Problem::not_found(format!("there is no asset {name:?}"))),
    };
    Ok(asset(&headers, content_type, text))
}

fn asset(request: &HeaderMap, content_type: &'static str, text: &'static str) -> Response<Body> {
    let tag = format!("W/\"{:016x}\"", fingerprint(text.as_bytes()));
    let known = request.get_all(header::IF_NONE_MATCH).iter().any(|value| matches(value, &tag));
    let mut response = Response::new(if known { Body::empty() } else { Body::from(text) });
    if known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, CACHE_CONTROL);
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(header::ETAG, tag);
    }
    if !known {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    }
    response
}

/// Whether `If-None-Match` names the tag; weak tags compare without their mark.
fn matches(value: &HeaderValue, tag: &str) -> bool {
    let bare = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    value.to_str().is_ok_and(|tags| tags.split(',').any(|one| one.trim() == "*" || bare(one) == bare(tag)))
}

/// FNV-1a: tells releases apart, the same on every replica. Weak tags, since a proxy may compress.
fn fingerprint(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_browser_that_has_the_asset_gets_no_body() {
        let first = asset(&HeaderMap::new(), "text/css", "a {}");
        assert_eq!(first.status(), StatusCode::OK);
        let tag = first.headers()[header::ETAG].to_str().expect("ASCII").to_owned();
        let ask = |tags: &str| {
            let value = HeaderValue::from_str(tags).expect("a header value");
            asset(&HeaderMap::from_iter([(header::IF_NONE_MATCH, value)]), "text/css", "a {}").status()
        };
        assert_eq!(ask(&tag), StatusCode::NOT_MODIFIED);
        assert_eq!(ask(&format!("\"other\", {}", tag.trim_start_matches("W/"))), StatusCode::NOT_MODIFIED);
        assert_eq!(ask("*"), StatusCode::NOT_MODIFIED);
        assert_eq!(ask("\"other\""), StatusCode::OK);
    }
}
