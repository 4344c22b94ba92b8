//! How often a caller may ask: one bucket, however it names itself, on one replica or three, with Redis or without.

use std::{
    net::SocketAddr,
    num::NonZeroU32,
    time::{Duration, Instant},
};

use axum::{
    body::Body,
    extract::ConnectInfo,
    http::{Request, StatusCode},
};
use doc_server::{
    api::rate_limit::{Config, Group, Proxies, ProxyHeader},
    cache::shared,
    index::{
        View,
        keys::{NewKey, Scopes},
    },
    runtime::metrics,
};
use futures::future::join_all;
use insta::assert_json_snapshot;

use crate::harness::{
    PATIENCE, Stopwatch, TestApp,
    client::Reply,
    eventually,
    faulty::{Fault, Proxy},
    recorder,
    redis::Redis,
};

const PEER: [u8; 4] = [203, 0, 113, 7];

/// Requests a minute to health, which costs least.
fn limited(per_minute: u32) -> Config {
    let mut config = Config::default();
    config.groups[Group::Health as usize] = NonZeroU32::new(per_minute);
    config
}

/// One request of `peer` with this header.
async fn ask(app: &TestApp, path: &str, peer: [u8; 4], forwarded: Option<&str>) -> Reply {
    let mut request = Request::get(path);
    if let Some(addresses) = forwarded {
        request = request.header("x-forwarded-for", addresses);
    }
    let mut request = request.body(Body::empty()).unwrap();
    request.extensions_mut().insert(ConnectInfo(SocketAddr::from((peer, 4711))));
    app.send(request).await
}

/// Whether it was let through.
fn allowed(reply: &Reply) -> bool {
    match reply.status {
        StatusCode::OK => true,
        // By the limits, that is: a late sign of life of the database is health's own matter.
        StatusCode::SERVICE_UNAVAILABLE if reply.json()["checks"].is_object() => true,
        StatusCode::TOO_MANY_REQUESTS => false,
        other => panic!("{other}: {}", reply.text()),
    }
}

fn random_addresses() -> String {
    let address = || std::net::Ipv4Addr::from_bits(fastrand::u32(..));
    format!("{}, {}", address(), address())
}

/// A bucket and what flows into it meanwhile.
fn bucket(per_minute: u32, time: Duration) -> f64 {
    f64::from(per_minute) * (1.0 + time.as_secs_f64() / 60.0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_requests_with_invented_addresses_are_one_caller() {
    // One more every ten seconds.
    let app = TestApp::builder().with_limits(limited(6)).start().await;
    let (began, mut through) = (Instant::now(), 0_u32);
    for _ in 0..10_000 {
        let reply = ask(&app, "/api/health", PEER, Some(&random_addresses())).await;
        through += u32::from(allowed(&reply));
    }
    // The last one may have come just after it was asked for.
    let more = began.elapsed().as_secs() / 10;
    assert!(
        (6 + more.saturating_sub(1)..=6 + more).contains(&u64::from(through)),
        "{through} in {:?}",
        began.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn through_a_trusted_proxy_the_rightmost_hop_that_is_not_trusted_is_the_caller() {
    let mut limits = limited(3);
    limits.proxies = Proxies { trusted: 1, header: ProxyHeader::XForwardedFor };
    let app = TestApp::builder().with_limits(limits).start().await;
    for caller in ["198.51.100.1", "198.51.100.2", "2001:db8:1:1::1"] {
        let mut through = 0;
        for _ in 0..20 {
            let addresses = format!("{}, {caller}", random_addresses());
            through += u32::from(allowed(&ask(&app, "/api/health", PEER, Some(&addresses)).await));
        }
        assert_eq!(through, 3, "{caller}");
    }
    let neighbour = ask(&app, "/api/health", PEER, Some("2001:db8:1:1:ffff::2")).await;
    assert!(!allowed(&neighbour), "a network of IPv6 is one caller");
    assert!(allowed(&ask(&app, "/api/health", PEER, Some("2001:db8:1:2::1")).await));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_says_what_is_left_and_when_to_come_back() {
    let mut limits = Config { address: NonZeroU32::new(4), ..Config::default() };
    limits.groups[Group::Sources as usize] = NonZeroU32::new(2);
    let app = TestApp::builder().with_limits(limits).start().await;
    // The seconds that are told are those of callers who ask all within one.
    let mut attempt = 0;
    let (peer, [first, missing, refused, missing_chunk, refused_chunk]) = loop {
        attempt += 1;
        let (peer, began) = ([198, 51, 100, attempt], Instant::now());
        let paths = ["/api/sources", "/api/sources/none", "/api/sources", "/api/chunks/1", "/api/chunks/1"];
        let mut replies = Vec::new();
        for path in paths {
            replies.push(ask(&app, path, peer, None).await);
        }
        if began.elapsed() < Duration::from_secs(1) {
            break (peer, <[Reply; 5]>::try_from(replies).ok().unwrap());
        }
    };
    assert!(allowed(&first));
    assert_eq!(first.header("ratelimit-policy"), r#""address";q=4;w=60, "sources";q=2;w=60"#);
    assert_eq!(first.header("ratelimit"), r#""address";r=3;t=15, "sources";r=1;t=30"#);
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
    assert_eq!(missing.header("ratelimit"), r#""address";r=2;t=15, "sources";r=0;t=30"#, "failures count and tell too");
    assert!(!allowed(&refused));
    assert_json_snapshot!("problem_rate_limited", refused.problem());
    assert_eq!(
        (refused.header("retry-after"), refused.header("ratelimit")),
        ("30", r#""address";r=1;t=15, "sources";r=0;t=30"#)
    );
    // Another group of routes: the address's own limit holds there too.
    assert_eq!(missing_chunk.status, StatusCode::NOT_FOUND);
    let refused = (refused_chunk.status, refused_chunk.header("retry-after"));
    assert_eq!(refused, (StatusCode::TOO_MANY_REQUESTS, "15"));
    assert!(allowed(&ask(&app, "/api/sources", [203, 0, 113, 8], None).await), "another caller has its own");
    for unlimited in ["/api/health", "/openapi.json", "/"] {
        assert_eq!(ask(&app, unlimited, peer, None).await.status, StatusCode::OK, "{unlimited}");
    }
    let metrics = app.admin("/metrics").await.text();
    assert!(metrics.contains("doc_server_rate_limited_total{route=\"/api/chunks/{chunk_id}\"}"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_keys_own_limit_takes_the_place_of_the_routes() {
    let mut limits = Config { address: NonZeroU32::new(100), ..Config::default() };
    limits.groups[Group::Sources as usize] = NonZeroU32::new(2);
    let app = TestApp::builder().with_limits(limits).start().await;
    let new = NewKey {
        name: "busy".to_owned(),
        scopes: Scopes::parse(["search"]).unwrap(),
        view: View::everything(),
        requests_per_minute: Some(5),
        expires_at: None,
    };
    let (_, secret) = app.index.create_key(&new).await.unwrap();
    app.index.refresh_catalog().await.unwrap();
    for left in (0..5).rev() {
        let reply = app.get_as(secret.reveal(), "/api/sources").await;
        assert_eq!(reply.header("ratelimit-policy"), r#""address";q=100;w=60, "key";q=5;w=60"#);
        assert!(allowed(&reply) && reply.header("ratelimit").contains(&format!(r#""key";r={left};"#)));
        assert_eq!(reply.header("cache-control"), "private");
    }
    assert!(!allowed(&app.get_as(secret.reveal(), "/api/sources").await));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_limits_nothing_is_said_of_them() {
    let app = TestApp::start().await;
    for _ in 0..200 {
        let reply = ask(&app, "/api/health", PEER, None).await;
        assert!(allowed(&reply) && reply.headers.get("ratelimit").is_none());
    }
}

/// What three replicas let through together.
const PER_MINUTE: u32 = 600;

/// Three replicas that share a Redis at this address.
async fn replicas(address: SocketAddr, per_minute: u32) -> [TestApp; 3] {
    let redis = || shared::Config { urls: format!("redis://{address}"), ..shared::Config::default() };
    let builder = || TestApp::builder().with_background_tasks().with_redis(redis()).with_limits(limited(per_minute));
    let first = builder().start().await;
    let all = [builder().start_beside(&first).await, builder().start_beside(&first).await, first];
    for (nth, app) in all.iter().enumerate() {
        expect_redis(app, [192, 0, 2, u8::try_from(nth).unwrap()]).await;
    }
    all
}

/// Waits until Redis is used. `peer` asks for that alone: nothing is taken from another's bucket.
async fn expect_redis(app: &TestApp, peer: [u8; 4]) {
    eventually("redis is used", async || {
        ask(app, "/api/health", peer, None).await.json()["checks"]["redis"]["latency_ms"].is_number()
    })
    .await;
}

/// Asks all replicas as fast as they answer, until each has refused. Returns how many were let through, and how long the slowest of
/// a hundred answers took; none takes longer than a second.
async fn hammer(replicas: &[TestApp], peer: [u8; 4], time: Duration) -> (u32, Duration) {
    let each = replicas.iter().map(async |app| {
        let (began, mut through, mut times) = (Instant::now(), 0, Vec::new());
        while began.elapsed() < time || (times.len() == through && began.elapsed() < PATIENCE) {
            let asked = Stopwatch::start();
            through += usize::from(allowed(&ask(app, "/api/health", peer, None).await));
            times.push(asked.elapsed());
            // The others are polled by the same task.
            tokio::task::yield_now().await;
        }
        (through, times)
    });
    let (through, times): (Vec<_>, Vec<_>) = join_all(each).await.into_iter().unzip();
    let mut times = times.concat();
    times.sort_unstable();
    assert!(times.last().is_some_and(|slowest| *slowest < Duration::from_secs(1)), "{:?}", times.last());
    (u32::try_from(through.iter().sum::<usize>()).unwrap(), times[times.len() * 99 / 100])
}

/// How many were counted by a replica alone, in this process.
fn counted_alone() -> f64 {
    let text = metrics::render(&recorder());
    let line = text.lines().find(|line| line.starts_with("doc_server_rate_limit_local_total"));
    line.and_then(|line| line.rsplit(' ').next()).map_or(0.0, |count| count.parse().unwrap())
}

/// Fails unless as many were let through as one bucket holds.
async fn hold_one_limit(replicas: &[TestApp], network: [u8; 3], time: Duration) {
    for peer in 1..=5 {
        let (began, alone) = (Instant::now(), counted_alone());
        let through = f64::from(hammer(replicas, [network[0], network[1], network[2], peer], time).await.0);
        let (bucket, alone) = (bucket(PER_MINUTE, began.elapsed()), counted_alone() - alone);
        // Where Redis was late on a busy machine each replica rightly counted alone: again then, with another caller.
        if alone <= bucket / 100.0 {
            assert!((through / bucket - 1.0).abs() <= 0.1, "{through} of {bucket} together");
            return;
        }
    }
    panic!("Redis does not count for them");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_replicas_together_hold_the_limit_and_each_its_own_without_redis() {
    let time = Duration::from_secs(3);
    let redis = Redis::start().await;
    let proxy = Proxy::start(redis.address());
    let all = replicas(proxy.address(), PER_MINUTE).await;
    hold_one_limit(&all, [203, 0, 113], time).await;

    // A caller of its own for each fault. Each replica counts alone then: three buckets, and never no limit.
    for (nth, fault) in [(1, Fault::Refuse), (2, Fault::BlackHole)] {
        proxy.set(fault).await;
        let began = Instant::now();
        let (through, slowest) = hammer(&all, [198, 51, 100, nth], time).await;
        let most = 3.0 * bucket(PER_MINUTE, began.elapsed()) * 1.1;
        assert!(f64::from(through) <= most, "{fault:?}: {through} of {most}");
        assert!(through >= PER_MINUTE, "{fault:?}: {through}: who may ask is not turned away");
        assert!(slowest <= Duration::from_millis(250), "{fault:?}: {slowest:?}");
        proxy.restore().await;
        for app in &all {
            expect_redis(app, [192, 0, 2, 100 + nth]).await;
        }
    }
    hold_one_limit(&all, [192, 0, 3], time).await;
    let keys: Vec<String> = redis.ask(deadpool_redis::redis::cmd("KEYS").arg("doc-server:limit:*")).await;
    assert!(keys.contains(&"doc-server:limit:{health:203.0.113.1}".to_owned()), "{keys:?}");
}
