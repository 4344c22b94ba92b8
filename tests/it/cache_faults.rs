//! Searches while Redis fails in every way: they are answered, and hardly later than without it.

use std::time::{Duration, Instant};

use axum::http::StatusCode;
use doc_server::cache::shared;
use futures::future::join_all;
use tokio::time::MissedTickBehavior;

use crate::harness::{
    TestApp, eventually,
    faulty::{Fault, Proxy},
    fixtures::GUIDE,
    redis::Redis,
    within,
};

/// Searches a second: all different, so each is computed.
const RATE: u64 = 200;

/// The same where other tests run beside it.
const RATE_BESIDE_OTHERS: u64 = 25;

/// What is promised: so much more than without trouble, at the 99th percentile.
const WORTH_OF_TROUBLE: Duration = Duration::from_millis(60);

async fn start(proxy: &Proxy) -> TestApp {
    let redis = shared::Config { urls: format!("redis://{}", proxy.address()), ..shared::Config::default() };
    let app = TestApp::builder().with_background_tasks().with_redis(redis).start().await;
    app.ingest(&GUIDE, "guide", "1.0.0").await;
    app
}

/// Different searches at a fixed rate, whatever becomes of those before (slower beside other tests, where the machine is): how long each took, and how many were answered.
async fn load(app: &TestApp, name: &str, (time, rate): (Duration, u64)) -> (Duration, usize, usize) {
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / u32::try_from(rate).unwrap());
    if rate < RATE {
        // Beside other tests the machine stands still at times; all that is late at once would be shed.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    }
    let mut asked = Vec::new();
    for nth in 0..time.as_secs() * rate {
        ticks.tick().await;
        let (router, path) = (app.router(), format!("/api/search?query={name}+{nth}"));
        asked.push(app.lifecycle.spawn_detached(async move {
            let started = Instant::now();
            let request = axum::http::Request::get(path).body(axum::body::Body::empty()).unwrap();
            let response = tower::ServiceExt::oneshot(router, request).await.unwrap();
            (started.elapsed(), response.status())
        }));
    }
    let replies: Vec<_> = join_all(asked).await.into_iter().map(|reply| reply.unwrap()).collect();
    let answered = replies.iter().filter(|(_, status)| *status == StatusCode::OK).count();
    let mut took: Vec<Duration> = replies.iter().map(|(took, _)| *took).collect();
    took.sort_unstable();
    (took[took.len() * 99 / 100], answered, took.len())
}

async fn searches_go_on(fault: Fault, (time, rate): (Duration, u64)) {
    let redis = Redis::start().await;
    let proxy = Proxy::start(redis.address());
    let app = start(&proxy).await;
    eventually("redis is used", async || app.redis_is_used().await).await;
    let (well, _, _) = load(&app, "well", (Duration::from_secs(5), rate)).await;
    proxy.set(fault).await;
    let (ill, answered, asked) = load(&app, "ill", (time, rate)).await;
    println!("{fault:?}: {answered} of {asked} answered, p99 {ill:?} against {well:?}");
    assert!(answered * 1_000 >= asked * 999, "{fault:?}: {answered} of {asked}");
    // Beside other tests the time says nothing.
    assert!(rate < RATE || ill <= well + WORTH_OF_TROUBLE, "{fault:?}: p99 {ill:?} against {well:?}");
    assert_eq!(app.get("/api/health").await.json()["checks"]["redis"]["status"], "degraded");
    proxy.restore().await;
    within(Duration::from_secs(5), "redis is used again", async || app.redis_is_used().await).await;
}

const FAULTS: [Fault; 5] =
    [Fault::Refuse, Fault::Reset, Fault::BlackHole, Fault::Delay(Duration::from_secs(2)), Fault::Garbage];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: a minute for each of five faults"]
async fn searches_go_on_for_a_minute_of_each_fault_of_redis() {
    for fault in FAULTS {
        searches_go_on(fault, (Duration::from_mins(1), RATE)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn searches_go_on_while_redis_says_nothing() {
    searches_go_on(Fault::BlackHole, (Duration::from_secs(5), RATE_BESIDE_OTHERS)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_starts_and_searches_with_redis_absent() {
    let redis = Redis::start().await;
    let proxy = Proxy::start(redis.address());
    proxy.set(Fault::Refuse).await;
    let app = start(&proxy).await;
    assert_eq!(app.search("query=backoff").await["degraded"], false);
    proxy.restore().await;
    within(Duration::from_secs(5), "redis is used once it is there", async || app.redis_is_used().await).await;
}
