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
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    num::NonZeroU32,
    sync::Arc,
    time::Duration,
};

use axum::{
    body::Body,
    extract::{ConnectInfo, Request},
    http::{HeaderMap, HeaderName, HeaderValue, Response},
};
use bytes::Bytes;

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
    /// By [`Group`], for each identity: a key without a limit of its own, or an address without a key.
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

    /// Counts a search without waiting: none where all replicas count together.
    pub(super) fn count_at_once(&self, route: &'static str, identity: &Identity, head: &Head<'_>) -> Option<Counted> {
        let buckets = self.buckets(Some(identity), (head.peer.ip(), head.headers), Group::Search);
        if buckets.is_empty() {
            return Some(Counted::default());
        }
        if self.0.counts.is_some() {
            return None;
        }
        let decisions = self.check_here(&buckets);
        Some(Counted { route, buckets, decisions })
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
            groups[group as usize].filter(|_| own.is_none()).map(|per_minute| Bucket {
                policy: group.name(),
                per_minute,
                who: key.unwrap_or_else(address),
            }),
        ];
        limits.into_iter().flatten().collect()
    }

    /// Counts a request that the router has matched.
    pub(super) fn count(&self, request: &Request) -> impl Future<Output = Counted> + Send + use<'_> {
        let route = routes::of(request);
        // Without one, which only tests are, everybody is one caller.
        let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
        let peer = peer.map_or(Ipv4Addr::UNSPECIFIED.into(), |ConnectInfo(peer)| peer.ip());
        let identity = request.extensions().get();
        let buckets = route.map(|route| self.buckets(identity, (peer, request.headers()), route.group));
        async move {
            let buckets = buckets.unwrap_or_default();
            let decisions = if buckets.is_empty() { Vec::new() } else { self.check(&buckets).await };
            Counted { route: route.map_or("", |route| route.path), buckets, decisions }
        }
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
    /// As it was matched.
    route: &'static str,
    buckets: Vec<Bucket>,
    decisions: Vec<Decision>,
}

impl Counted {
    /// The limit that it is over.
    fn over(&self) -> Option<(Duration, &Bucket)> {
        Some((self.decisions.last()?.wait?, self.buckets.get(self.decisions.len() - 1)?))
    }

    /// What to answer when it is one too many, which is counted.
    pub(super) fn refusal(&self) -> Option<Problem> {
        let (wait, bucket) = self.over()?;
        metrics::record_rate_limited(self.route, 1);
        Some(refusal(wait, bucket))
    }

    /// Tells the caller what is left of its limits, where it has any.
    pub(super) fn show<B>(&self, response: &mut Response<B>) {
        if self.buckets.is_empty() {
            return;
        }
        // `write!` takes as long as all else about a limit.
        let (mut policies, mut left, mut digits) =
            (Vec::with_capacity(64), Vec::with_capacity(64), itoa::Buffer::new());
        for (bucket, decision) in self.buckets.iter().zip(&self.decisions) {
            if !policies.is_empty() {
                policies.extend_from_slice(b", ");
                left.extend_from_slice(b", ");
            }
            let Bucket { policy, per_minute, .. } = bucket;
            // More is available once the first request of the last minute is worth another.
            let more = seconds(decision.wait.unwrap_or_else(|| interval(*per_minute)));
            let mut field = |text: &mut Vec<u8>, name: &str, number: u32| {
                text.extend_from_slice(name.as_bytes());
                text.extend_from_slice(digits.format(number).as_bytes());
            };
            for text in [&mut policies, &mut left] {
                text.push(b'"');
                text.extend_from_slice(policy.as_bytes());
                text.push(b'"');
            }
            field(&mut policies, ";q=", per_minute.get());
            field(&mut policies, ";w=", WINDOW_SECONDS);
            field(&mut left, ";r=", decision.remaining);
            field(&mut left, ";t=", more);
        }
        for (name, value) in [(RATE_LIMIT_POLICY, policies), (RATE_LIMIT, left)] {
            if let Ok(value) = HeaderValue::from_maybe_shared(Bytes::from(value)) {
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
