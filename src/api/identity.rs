//! Who asks, and whether they may: decided once for each request, before everything that costs something.
//!
//! Keys are looked up in the catalog in memory, so a request costs no statement; only when that is older than five seconds
//! (nothing is heard of the database) it is read first. What cannot be confirmed is refused, with one exception: while the
//! database is away, keys that it confirmed before get answers from memory for the stale window, as these answers are given.

use std::{future::ready, sync::Arc};

use axum::{
    Router,
    body::Body,
    extract::{FromRequestParts, MatchedPath, Request, State as Shared},
    http::{HeaderMap, HeaderValue, Response, header, request::Parts},
    middleware::{self, Next},
};

use super::{
    credential, observe,
    policy::{self, Needs, Policy},
    respond::Problem,
    wrong_method,
};
use crate::{
    index::{
        Catalog, View,
        keys::{Key, Scope, Scopes},
    },
    runtime::lifecycle::Leaving,
    search::Search,
};

/// When callers without a key may do everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Open {
    /// Always: somebody insists on it.
    Always,
    /// On an address that only this machine reaches, until the first key is made.
    UntilFirstKey,
    /// Never.
    Never,
}

/// Who a request comes from. In its extensions, put there before any handler runs.
#[derive(Clone, Debug)]
pub struct Identity {
    key: Option<Arc<Key>>,
    scopes: Scopes,
}

impl Identity {
    fn without_key(scopes: Scopes) -> Self {
        Self { key: None, scopes }
    }

    /// The key it showed; none for a caller without one.
    #[must_use]
    pub fn key(&self) -> Option<&Key> {
        self.key.as_deref()
    }

    /// What it may do.
    #[must_use]
    pub fn scopes(&self) -> Scopes {
        self.scopes
    }

    /// Which sources it may see.
    #[must_use]
    pub fn view(&self) -> View {
        self.key.as_ref().map_or(View::everything(), |key| key.view.clone())
    }

    /// Keeps an answer that a key was needed for out of caches that others share: of `Authorization` they know that, of `X-API-Key`
    /// they do not.
    pub(super) fn keep_private<B>(&self, response: &mut Response<B>) {
        if self.key.is_some() {
            let headers = response.headers_mut();
            headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("private"));
        }
    }

    /// A limit of its own, where its key has one.
    #[must_use]
    pub fn requests_per_minute(&self) -> Option<u32> {
        self.key.as_ref()?.requests_per_minute
    }
}

/// A handler behind no identity is a bug, and answers nobody.
impl<S: Send + Sync> FromRequestParts<S> for Identity {
    type Rejection = Problem;

    fn from_request_parts(parts: &mut Parts, _: &S) -> impl Future<Output = Result<Self, Problem>> {
        ready(parts.extensions.get::<Self>().cloned().ok_or_else(Problem::internal))
    }
}

/// Decides who may. Cheap to clone.
#[derive(Clone)]
pub struct Access {
    search: Search,
    open: Open,
    without_key: Scopes,
}

impl Access {
    /// By the keys in the catalog of `search`; callers without one have the scopes `without_key`, or all while `open`.
    #[must_use]
    pub fn new(search: Search, open: Open, without_key: Scopes) -> Self {
        Self { search, open, without_key }
    }

    /// Puts an [`Identity`] into the request.
    ///
    /// # Errors
    /// 401 and 403 for who may not, 405 for a method that the route has not, 503 while that cannot be said.
    pub(super) async fn identify(&self, mut request: Request) -> Result<Request, Problem> {
        // Without a route there is nothing to protect: the answer is 404.
        let Some(path) = request.extensions().get::<MatchedPath>() else { return Ok(request) };
        let Some(policy) = policy::of(request.method(), path.as_str()) else {
            return Err(wrong_method(request.method(), request.uri()));
        };
        let identity = if let Some(known) = self.at_once(policy, request.headers()) {
            known?
        } else {
            // A body is no part of the decision, and is not shared between threads.
            let headers = request.headers().clone();
            self.after_reading(policy, &headers).await?
        };
        if identity.key.is_some() {
            credential::forget(request.headers_mut());
        }
        request.extensions_mut().insert(identity);
        Ok(request)
    }

    /// Who asks, if that can be said at once; none when the catalog must be read first.
    pub(super) fn at_once(&self, policy: &Policy, headers: &HeaderMap) -> Option<Result<Identity, Problem>> {
        let Needs::Scope(scope) = policy.needs else { return Some(Ok(Identity::without_key(self.without_key))) };
        let Ok(secret) = credential::secret(headers) else { return Some(Err(ambiguous())) };
        match (secret, self.open) {
            (None, Open::Always) => Some(Ok(Identity::without_key(Scopes::ALL))),
            (None, _) if self.without_key.allow(scope) => Some(Ok(Identity::without_key(self.without_key))),
            (None, Open::Never) => Some(Err(Problem::key_required(scope))),
            (secret, _) => self.search.with_believed_catalog(|catalog| Self::decide(catalog, scope, secret)),
        }
    }

    /// The same when the catalog in memory is believed no longer.
    async fn after_reading(&self, policy: &Policy, headers: &HeaderMap) -> Result<Identity, Problem> {
        let Needs::Scope(scope) = policy.needs else { return Ok(Identity::without_key(self.without_key)) };
        let secret = credential::secret(headers).map_err(|_| ambiguous())?;
        let (catalog, confirmed) = self.search.catalog_or_last().await?;
        let known = secret.is_some_and(|secret| catalog.keys.find(secret).is_some());
        if secret.is_some() && !confirmed && !(known && policy.from_memory) {
            return Err(Problem::unconfirmed_key());
        }
        Self::decide(&catalog, scope, secret)
    }

    fn decide(catalog: &Catalog, scope: Scope, secret: Option<&[u8]>) -> Result<Identity, Problem> {
        let Some(secret) = secret else {
            let closed = catalog.keys.any_was_made();
            return if closed { Err(Problem::key_required(scope)) } else { Ok(Identity::without_key(Scopes::ALL)) };
        };
        let key = catalog.keys.find(secret).ok_or_else(Problem::wrong_key)?;
        if !key.scopes.allow(scope) {
            return Err(Problem::scope_missing(scope));
        }
        Ok(Identity { key: Some(Arc::clone(key)), scopes: key.scopes })
    }
}

fn ambiguous() -> Problem {
    Problem::unauthorized("key_ambiguous", "the request shows more than one key; send one", Some("invalid_request"))
}

/// The check of the private door's `/debug`.
#[derive(Clone)]
pub struct AdminDoor {
    /// Decides who may.
    pub access: Access,
    /// Whether the door is bound to an address that only this machine reaches: then whoever comes may.
    pub loopback: bool,
}

impl AdminDoor {
    /// Puts `routes` behind the check: on any but a loopback address they need a key with the scope `admin`. What is refused, and
    /// every other problem of theirs, is answered as at the front door.
    pub fn guard(self, routes: Router, leaving: Leaving) -> Router {
        routes
            .layer(middleware::from_fn_with_state(self, require_admin))
            .layer(middleware::from_fn_with_state(leaving, observe::observe_all))
    }
}

async fn require_admin(
    Shared(door): Shared<AdminDoor>,
    mut request: Request,
    next: Next,
) -> Result<Response<Body>, Problem> {
    if !door.loopback {
        door.admit(request.headers_mut()).await?;
    }
    Ok(next.run(request).await)
}

impl AdminDoor {
    /// Neither open mode nor scopes of callers without a key count here.
    async fn admit(&self, headers: &mut HeaderMap) -> Result<(), Problem> {
        let secret = credential::secret(headers).map_err(|_| ambiguous())?;
        let secret = secret.ok_or_else(|| Problem::key_required(Scope::Admin))?;
        let (catalog, confirmed) = self.access.search.catalog_or_last().await?;
        if !confirmed {
            return Err(Problem::unconfirmed_key());
        }
        Access::decide(&catalog, Scope::Admin, Some(secret))?;
        credential::forget(headers);
        Ok(())
    }
}
