//! The key that a request shows: `Authorization: Bearer …` or `X-API-Key: …`.

use axum::http::{HeaderMap, HeaderName, header};

/// The other way to send a key, for clients that cannot set `Authorization`.
const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// More keys than one: which is meant is not guessed.
#[derive(Debug, PartialEq, Eq)]
pub struct Ambiguous;

/// The key's secret, if one is shown. Other schemes of `Authorization` are not for this server: a proxy may have used them.
///
/// # Errors
/// When different keys are shown.
pub fn secret(headers: &HeaderMap) -> Result<Option<&[u8]>, Ambiguous> {
    let bearers = headers.get_all(header::AUTHORIZATION).iter().filter_map(|value| bearer(value.as_bytes()));
    let plain = headers.get_all(X_API_KEY).iter().map(|value| value.as_bytes().trim_ascii());
    let mut secrets = bearers.chain(plain);
    let first = secrets.next();
    if secrets.all(|other| Some(other) == first) { Ok(first) } else { Err(Ambiguous) }
}

/// Takes the key out, so that nothing behind can write it down.
pub fn forget(headers: &mut HeaderMap) {
    headers.remove(header::AUTHORIZATION);
    headers.remove(X_API_KEY);
}

fn bearer(value: &[u8]) -> Option<&[u8]> {
    const SCHEME: &[u8] = b"bearer";
    let (scheme, secret) = value.split_at_checked(SCHEME.len())?;
    let separated = secret.is_empty() || secret.starts_with(b" ");
    (scheme.eq_ignore_ascii_case(SCHEME) && separated).then(|| secret.trim_ascii())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn shown(headers: &[(&'static str, &'static str)]) -> Result<Option<String>, Ambiguous> {
        let headers = headers.iter().fold(HeaderMap::new(), |mut all, (name, value)| {
            all.append(HeaderName::from_static(name), HeaderValue::from_static(value));
            all
        });
        secret(&headers).map(|secret| secret.map(|bytes| String::from_utf8_lossy(bytes).into_owned()))
    }

    #[test]
    fn a_key_is_read_from_either_header() {
        let one = |secret: &str| Ok(Some(secret.to_owned()));
        assert_eq!(shown(&[]), Ok(None));
        assert_eq!(shown(&[("authorization", "Bearer dsk_1")]), one("dsk_1"));
        assert_eq!(shown(&[("authorization", "bearer  dsk_1 ")]), one("dsk_1"));
        assert_eq!(shown(&[("x-api-key", "dsk_1")]), one("dsk_1"));
        assert_eq!(shown(&[("authorization", "Bearer dsk_1"), ("x-api-key", "dsk_1")]), one("dsk_1"));
        // Nothing where a key should be is a wrong key, not none.
        assert_eq!(shown(&[("authorization", "Bearer")]), one(""));
        assert_eq!(shown(&[("x-api-key", "")]), one(""));
    }

    #[test]
    fn other_schemes_are_none_and_two_keys_are_refused() {
        assert_eq!(shown(&[("authorization", "Basic dXNlcjpwYXNz")]), Ok(None));
        assert_eq!(shown(&[("authorization", "Bearertoken")]), Ok(None));
        assert_eq!(shown(&[("authorization", "Bearer dsk_1"), ("x-api-key", "dsk_2")]), Err(Ambiguous));
        assert_eq!(shown(&[("x-api-key", "dsk_1"), ("x-api-key", "dsk_2")]), Err(Ambiguous));
    }
}
