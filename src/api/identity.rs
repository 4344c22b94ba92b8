//! Who asks, and whether they may: decided once for each request, before everything that costs something.
//!
//! Keys are looked up in the catalog in memory, so a request costs no statement; only when that is older than five seconds
//! (nothing is heard of the database) it is read first. What cannot be confirmed is refused, with one exception: while the
//! database is away, keys that it confirmed before get answers from memory for the stale window, as these answers are given.

use std::{
    future::{Ready, ready},
    mem,
    sync::Arc,
    task::{Context, Poll},
};

use axum::{
    Router,
    body::Body,
    extract::{FromRequestParts, MatchedPath, Request, State as Shared},
    http::{HeaderMap, Response, request::Parts},
    middleware::{self, Next},
    response::IntoResponse,
};
use futures::future::{BoxFuture, Either};
use tower::{Layer, Service};

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

/// The layer that puts an [`Identity`] into each request, or refuses it.
#[derive(Clone)]
pub struct Identify(Access);

impl Identify {
    /// By `access`.
    #[must_use]
    pub fn new(access: Access) -> Self {
        Self(access)
    }
}

impl<S> Layer<S> for Identify {
    type Service = Identifying<S>;

    fn layer(&self, inner: S) -> Identifying<S> {
        Identifying { access: self.0.clone(), inner }
    }
}

/// A service behind [`Identify`].
#[derive(Clone)]
pub struct Identifying<S> {
    access: Access,
    inner: S,
}

/// Written as a service, since nearly every request is decided at once: it then costs neither a task's box nor a lock.
impl<S> Service<Request> for Identifying<S>
where
    S: Service<Request, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Either<Either<S::Future, Ready<Result<Response<Body>, S::Error>>>, Answering<S>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let refuse = |problem: Problem| Either::Left(Either::Right(ready(Ok(problem.into_response()))));
        // Without a route there is nothing to protect: the answer is 404.
        let Some(path) = request.extensions().get::<MatchedPath>() else {
            return Either::Left(Either::Left(self.inner.call(request)));
        };
        let Some(policy) = policy::of(request.method(), path.as_str()) else {
            return refuse(wrong_method(request.method(), request.uri()));
        };
        match self.access.at_once(policy, request.headers()) {
            Some(Ok(identity)) => {
                admit(&mut request, identity);
                Either::Left(Either::Left(self.inner.call(request)))
            }
            Some(Err(problem)) => refuse(problem),
            None => {
                // The clone is not ready yet, the one that is must be called.
                let clone = self.inner.clone();
                let ready = mem::replace(&mut self.inner, clone);
                Either::Right(answer_after_reading(self.access.clone(), policy, ready, request))
            }
        }
    }
}

/// An answer that waits for the catalog first.
type Answering<S> = BoxFuture<'static, Result<Response<Body>, <S as Service<Request>>::Error>>;

fn answer_after_reading<S>(access: Access, policy: &'static Policy, mut inner: S, mut request: Request) -> Answering<S>
where
    S: Service<Request, Response = Response<Body>> + Send + 'static,
    S::Future: Send,
{
    Box::pin(async move {
        // A body is no part of the decision, and is not shared between threads.
        let headers = request.headers().clone();
        match access.after_reading(policy, &headers).await {
            Ok(identity) => {
                admit(&mut request, identity);
                inner.call(request).await
            }
            Err(problem) => Ok(problem.into_response()),
        }
    })
}

fn admit(request: &mut Request, identity: Identity) {
    if identity.key.is_some() {
        credential::forget(request.headers_mut());
    }
    request.extensions_mut().insert(identity);
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
            .layer(middleware::from_fn_with_state(leaving, observe::observe))
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
