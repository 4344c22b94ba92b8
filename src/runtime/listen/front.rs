//! What a door asks about each request: first what can be said at once, then the router.
//!
//! A router puts each of its layers, and each request on its way through them, on the heap. For most answers that is nothing beside
//! their work; for one that lies ready in memory it is most of it. So a door may be given one function that sees a request's
//! head before the router does. Nothing in it may wait. What it does not answer, or panics over, goes to the router as it came.

use std::{
    fmt,
    net::SocketAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use axum::{
    Router,
    http::{HeaderMap, Method, Response, Uri, Version},
};
use bytes::Bytes;

/// The head of a request that has no body.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// Its method.
    pub method: &'a Method,
    /// Its path and query.
    pub uri: &'a Uri,
    /// The protocol it came by.
    pub version: Version,
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// Who sent it: a caller or a proxy.
    pub peer: SocketAddr,
}

/// The answer to a head, if it can be given without waiting.
pub type AtOnce = dyn Fn(&Head<'_>) -> Option<Response<Bytes>> + Send + Sync;

/// What answers at a door. Cheap to clone.
#[derive(Clone)]
pub struct Front {
    router: Router,
    at_once: Option<Arc<AtOnce>>,
}

impl Front {
    /// The router alone.
    #[must_use]
    pub fn new(router: Router) -> Self {
        Self { router, at_once: None }
    }

    /// Asks `at_once` before the router.
    #[must_use]
    pub fn with_at_once(self, at_once: Arc<AtOnce>) -> Self {
        Self { at_once: Some(at_once), ..self }
    }

    /// The router.
    pub fn router(&self) -> &Router {
        &self.router
    }

    /// What can be said without the router.
    #[must_use]
    pub fn at_once(&self, head: &Head<'_>) -> Option<Response<Bytes>> {
        let at_once = self.at_once.as_ref()?;
        // The router answers a panic with 500; here it would only end the connection.
        catch_unwind(AssertUnwindSafe(|| at_once(head))).ok().flatten()
    }
}

impl From<Router> for Front {
    fn from(router: Router) -> Self {
        Self::new(router)
    }
}

impl fmt::Debug for Front {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Front").field("at_once", &self.at_once.is_some()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_leaves_the_request_to_the_router() {
        let front = Front::new(Router::new()).with_at_once(Arc::new(|head: &Head<'_>| {
            assert!(head.uri.path() != "/panic", "as asked");
            Some(Response::new(Bytes::from_static(b"here")))
        }));
        let answer = |path: &str| {
            let (uri, headers) = (path.parse().expect("a path"), HeaderMap::new());
            let peer = ([127, 0, 0, 1], 1).into();
            front.at_once(&Head { method: &Method::GET, uri: &uri, version: Version::HTTP_11, headers: &headers, peer })
        };
        assert_eq!(answer("/").expect("an answer").body(), "here");
        assert!(answer("/panic").is_none());
    }
}
