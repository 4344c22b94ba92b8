//! How often a caller may ask: requests a minute, for each group of routes, each address and each key.
//!
//! A request is counted by this process (`local`) and, where a Redis is configured, by all replicas together (`shared`). Whoever is
//! over the limit here is told so without asking Redis; while Redis is away, this count alone holds, so there is never no limit. The
//! answer says what is left in the fields of draft-ietf-httpapi-ratelimit-headers. Nothing is done where no limit is set.

mod address;
mod local;
mod routes;
mod shared;

use std::{
    fmt::{self, Write},
    mem,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    num::NonZeroU32,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::Body,
    extract::{ConnectInfo, Request},
    http::{HeaderMap, HeaderName, HeaderValue, Response},
    response::IntoResponse,
};
use futures::future::{BoxFuture, Either};
use tower::{Layer, Service};

pub use self::address::{Proxies, ProxyHeader};
pub use self::routes::Group;
use self::{
    local::{Local, interval},
    shared::Counts,
};
use super::{identity::Identity, respond::Problem};
use crate::{
    runtime::{listen::Head, metrics},
    search::Shared,
};

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// All limits are of a minute.
const WINDOW_SECONDS: u32 = 60;

/// Requests a minute; none where there is no limit.
#[derive(Clone, Copy, Debug, Default)]
pub struct Config {
    /// By [`Group`], for each identity: a key, or an address without one.
    pub groups: [Option<NonZeroU32>; Group::ALL.len()],
    /// For each address, on all limited routes together, whatever keys it uses.
    pub address: Option<NonZeroU32>,
    /// Who says what the address is.
    pub proxies: Proxies,
}

/// Whose requests are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Who {
    Address(IpAddr),
    /// By its row.
    Key(i64),
}

impl fmt::Display for Who {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(formatter),
            Self::Key(key) => write!(formatter, "key-{key}"),
        }
    }
}

/// One limit that a request is counted by.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    policy: &'static str,
    per_minute: NonZeroU32,
    who: Who,
}

/// What a count came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Decision {
    /// Requests that may come at once now.
    remaining: u32,
    /// How long the caller must wait, when it is over the limit.
    wait: Option<Duration>,
}

/// The limits of this process. Cheap to clone.
#[derive(Clone)]
pub struct Limits(Arc<Inner>);

struct Inner {
    config: Config,
    local: Local,
    counts: Option<Counts>,
}

impl fmt::Debug for Limits {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Limits").field("config", &self.0.config).finish_non_exhaustive()
    }
}

impl Limits {
    /// Counts with `redis`, where there is one.
    #[must_use]
    pub fn new(config: Config, redis: Option<Shared>) -> Self {
        metrics::record_rate_limit_local(0);
        for route in &routes::ROUTES {
            metrics::record_rate_limited(route.path, 0);
        }
        Self(Arc::new(Inner { config, local: Local::default(), counts: redis.map(Counts::new) }))
    }

    /// Counts a search without waiting: none where all replicas count together, or when it is one too many, which is to be said by
    /// the layer.
    pub(super) fn count_at_once(&self, identity: &Identity, head: &Head<'_>) -> Option<Counted> {
        let buckets = self.buckets(Some(identity), (head.peer.ip(), head.headers), Group::Search);
        if buckets.is_empty() {
            return Some(Counted::default());
        }
        if self.0.counts.is_some() {
            return None;
        }
        let decisions = self.check_here(&buckets);
        decisions.iter().all(|decision| decision.wait.is_none()).then_some(Counted { buckets, decisions })
    }

    /// The limits of a request: those of its address first, since whoever is over that has no say in the others.
    fn buckets(&self, identity: Option<&Identity>, (peer, headers): (IpAddr, &HeaderMap), group: Group) -> Vec<Bucket> {
        let Config { groups, address: of_address, proxies } = self.0.config;
        let key = identity.and_then(Identity::key);
        let own = key.and_then(|key| key.requests_per_minute).and_then(NonZeroU32::new);
        if own.is_none() && of_address.is_none() && groups[group as usize].is_none() {
            return Vec::new();
        }
        let address = || Who::Address(proxies.caller(peer, headers));
        let key = key.map(|key| Who::Key(key.id));
        // Probes of health come from one address and must not use up what callers behind the same proxy may ask.
        let of_address = of_address.filter(|_| group != Group::Health);
        let limits = [
            of_address.map(|per_minute| Bucket { policy: "address", per_minute, who: address() }),
            own.zip(key).map(|(per_minute, who)| Bucket { policy: "key", per_minute, who }),
            groups[group as usize].map(|per_minute| Bucket {
                policy: group.name(),
                per_minute,
                who: key.unwrap_or_else(address),
            }),
        ];
        limits.into_iter().flatten().collect()
    }

    /// The limits of a request that the router has matched.
    fn buckets_of(&self, request: &Request, group: Group) -> Vec<Bucket> {
        // Without one, which only tests are, everybody is one caller.
        let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
        let peer = peer.map_or(Ipv4Addr::UNSPECIFIED.into(), |ConnectInfo(peer)| peer.ip());
        self.buckets(request.extensions().get(), (peer, request.headers()), group)
    }

    /// Counts one request in this process by all its limits until one is over: that one is last.
    fn check_here(&self, buckets: &[Bucket]) -> Vec<Decision> {
        let mut decisions: Vec<Decision> = Vec::with_capacity(buckets.len());
        for bucket in buckets {
            let decision = self.0.local.check(bucket);
            decisions.push(decision);
            if decision.wait.is_some() {
                break;
            }
        }
        decisions
    }

    /// The same with all replicas.
    async fn check(&self, buckets: &[Bucket]) -> Vec<Decision> {
        let mut decisions = self.check_here(buckets);
        let over = decisions.last().is_some_and(|decision| decision.wait.is_some());
        let Some(counts) = self.0.counts.as_ref().filter(|_| !over) else { return decisions };
        for (nth, bucket) in buckets.iter().enumerate() {
            let Some(decision) = counts.check(bucket).await else {
                metrics::record_rate_limit_local(1);
                continue;
            };
            decisions[nth] = decision;
            if decision.wait.is_some() {
                decisions.truncate(nth + 1);
                return decisions;
            }
        }
        decisions
    }
}

/// Counts a request, and answers 429 where it is one too many.
impl<S> Layer<S> for Limits {
    type Service = Limited<S>;

    fn layer(&self, inner: S) -> Limited<S> {
        Limited { limits: self.clone(), inner }
    }
}

/// A service behind [`Limits`].
#[derive(Clone)]
pub struct Limited<S> {
    limits: Limits,
    inner: S,
}

/// Written as a service: a request that nothing limits costs a look at its route and no memory.
impl<S> Service<Request> for Limited<S>
where
    S: Service<Request, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Either<S::Future, BoxFuture<'static, Result<Response<Body>, S::Error>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let route = routes::of(&request);
        let buckets = route.map_or_else(Vec::new, |route| self.limits.buckets_of(&request, route.group));
        let (Some(route), false) = (route, buckets.is_empty()) else { return Either::Left(self.inner.call(request)) };
        // The clone is not ready yet, the one that is must be called.
        let clone = self.inner.clone();
        let (mut inner, limits) = (mem::replace(&mut self.inner, clone), self.limits.clone());
        Either::Right(Box::pin(async move {
            let decisions = limits.check(&buckets).await;
            let over = decisions.last().and_then(|last| Some((last.wait?, buckets.get(decisions.len() - 1)?)));
            let mut response = match over {
                None => inner.call(request).await?,
                Some((wait, bucket)) => {
                    metrics::record_rate_limited(route.path, 1);
                    refusal(wait, bucket).into_response()
                }
            };
            Counted { buckets, decisions }.show(&mut response);
            Ok(response)
        }))
    }
}

fn refusal(wait: Duration, bucket: &Bucket) -> Problem {
    let whose = match bucket.policy {
        "address" => "from this address".to_owned(),
        "key" => "with this key".to_owned(),
        group => format!("to {group}"),
    };
    let detail = format!("more than {} requests a minute {whose}; wait as long as Retry-After says", bucket.per_minute);
    Problem::rate_limited(detail, seconds(wait))
}

/// What a request was counted by, and what that came to.
#[derive(Debug, Default)]
pub(super) struct Counted {
    buckets: Vec<Bucket>,
    decisions: Vec<Decision>,
}

impl Counted {
    /// Tells the caller what is left of its limits, where it has any.
    pub(super) fn show<B>(&self, response: &mut Response<B>) {
        if self.buckets.is_empty() {
            return;
        }
        let (mut policies, mut left) = (String::new(), String::new());
        for (bucket, decision) in self.buckets.iter().zip(&self.decisions) {
            let comma = if policies.is_empty() { "" } else { ", " };
            let Bucket { policy, per_minute, .. } = bucket;
            // More is available once the first request of the last minute is worth another.
            let more = seconds(decision.wait.unwrap_or_else(|| interval(*per_minute)));
            // Writing to a string cannot fail.
            let _ = write!(policies, "{comma}\"{policy}\";q={per_minute};w={WINDOW_SECONDS}");
            let _ = write!(left, "{comma}\"{policy}\";r={};t={more}", decision.remaining);
        }
        for (name, value) in [(RATE_LIMIT_POLICY, policies), (RATE_LIMIT, left)] {
            if let Ok(value) = HeaderValue::try_from(value) {
                response.headers_mut().insert(name, value);
            }
        }
    }
}

/// Brings what is left of the limits from an answer to the one that takes its place.
pub(super) fn keep_headers(from: &mut Response<Body>, to: &mut Response<Body>) {
    for name in [RATE_LIMIT_POLICY, RATE_LIMIT] {
        if let Some(value) = from.headers_mut().remove(&name) {
            to.headers_mut().insert(name, value);
        }
    }
}

/// Whole seconds, never less than the wait nor zero.
fn seconds(wait: Duration) -> u32 {
    u32::try_from(wait.as_millis().div_ceil(1_000)).unwrap_or(u32::MAX).max(1)
}
