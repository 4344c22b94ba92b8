//! What the look at the caller costs each request: a router that does nothing else, with and without it.

use std::time::{Duration, Instant};

use axum::{Router, body::Body, http::Request, routing::get};
use doc_server::{
    api::identity::{Access, Identify, Open},
    index::keys::Scopes,
};
use tower::ServiceExt;

use crate::harness::TestApp;

/// Requests of one measurement: a tenth of a second or so.
const REQUESTS: u32 = 50_000;

/// A cached search takes about 20 µs of a core; whoever may ask must not be a quarter of it.
const BOUND: Duration = Duration::from_micros(5);

/// The time of one request: the best of several rounds, since other tests run beside.
async fn time(router: &Router, key: Option<&str>) -> Duration {
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let started = Instant::now();
        for _ in 0..REQUESTS {
            let mut request = Request::get("/api/search?query=pool");
            if let Some(key) = key {
                request = request.header("authorization", key);
            }
            let reply = router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
            assert_eq!(reply.status(), 200);
        }
        best = best.min(started.elapsed() / REQUESTS);
    }
    best
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: a measurement, worth something on a quiet machine only"]
async fn the_look_at_the_caller_costs_a_small_part_of_a_cached_search() {
    let app = TestApp::builder().with_background_tasks().start().await;
    let bare = Router::new().route("/api/search", get(async || "found"));
    let behind = |open| bare.clone().layer(Identify::new(Access::new(app.search.clone(), open, Scopes::NONE)));
    app.index.refresh_catalog().await.unwrap();
    let (nothing, before) = (time(&bare, None).await, time(&behind(Open::UntilFirstKey), None).await);
    let open = time(&behind(Open::Always), None).await;
    app.execute(super::NINE_THOUSAND_KEYS).await;
    let mut reading = Duration::MAX;
    for _ in 0..10 {
        let started = Instant::now();
        app.index.refresh_catalog().await.unwrap();
        reading = reading.min(started.elapsed());
    }
    println!("reading the catalog with 9,000 keys takes {reading:?}");
    let (_, secret) = app.make_key(&["search"], &["team-*", "guide"]).await;
    let bearer = format!("Bearer {secret}");
    let (nothing_with_header, key) =
        (time(&bare, Some(&bearer)).await, time(&behind(Open::Never), Some(&bearer)).await);
    println!("without the layer {nothing:?}, with a key in the header {nothing_with_header:?}");
    println!("insecure_open {open:?}, no key made yet {before:?}, a key of nine thousand {key:?}");
    for (with, without) in [(open, nothing), (before, nothing), (key, nothing_with_header)] {
        assert!(with.saturating_sub(without) < BOUND, "{with:?} against {without:?}");
    }
}
