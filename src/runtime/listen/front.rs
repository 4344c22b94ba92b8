//! What a door asks about each request: first what can be said at once, then the router.
//!
//! A router puts each of its layers, and each request on its way through them, on the heap. For most answers that is nothing beside
//! their work; for one that lies ready in memory it is most of it. So a door may be given one function that sees a request's
//! head before the router does. It does not wait; what it answers lies ready or is on its way. What it does not answer, or
//! panics over, goes to the router as it came.

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
use futures::future::BoxFuture;

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

/// What is answered before the router.
pub enum Early {
    /// It lay ready.
    Ready(Response<Bytes>),
    /// It is on its way. Dropped, nobody waits for it any more.
    Coming(BoxFuture<'static, Response<Bytes>>),
}

/// Answers a head, or leaves it to the router.
pub type Answers = dyn Fn(&Head<'_>) -> Option<Early> + Send + Sync;

/// What answers at a door. Cheap to clone.
#[derive(Clone)]
pub struct Front {
    router: Router,
    early: Option<Arc<Answers>>,
}

impl Front {
    /// The router alone.
    #[must_use]
    pub fn new(router: Router) -> Self {
        Self { router, early: None }
    }

    /// Asks `early` before the router.
    #[must_use]
    pub fn with_early(self, early: Arc<Answers>) -> Self {
        Self { early: Some(early), ..self }
    }

    /// The router.
    pub fn router(&self) -> &Router {
        &self.router
    }

    /// What is answered without the router.
    #[must_use]
    pub fn early(&self, head: &Head<'_>) -> Option<Early> {
        let early = self.early.as_ref()?;
        // The router answers a panic with 500; here it would only end the connection.
        catch_unwind(AssertUnwindSafe(|| early(head))).ok().flatten()
    }
}

impl From<Router> for Front {
    fn from(router: Router) -> Self {
        Self::new(router)
    }
}

impl fmt::Debug for Front {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Front").field("early", &self.early.is_some()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_leaves_the_request_to_the_router() {
        let front = Front::new(Router::new()).with_early(Arc::new(|head: &Head<'_>| {
            assert!(head.uri.path() != "/panic", "as asked");
            Some(Early::Ready(Response::new(Bytes::from_static(b"here"))))
        }));
        let answer = |path: &str| {
            let (uri, headers) = (path.parse().expect("a path"), HeaderMap::new());
            let peer = ([127, 0, 0, 1], 1).into();
            front.early(&Head { method: &Method::GET, uri: &uri, version: Version::HTTP_11, headers: &headers, peer })
        };
        assert!(matches!(answer("/"), Some(Early::Ready(response)) if response.body() == "here"));
        assert!(answer("/panic").is_none());
    }
}
