//! Repeated and simultaneous questions: how often the work behind an answer is done, and that the answers are right. Nothing
//! here is timed but what is promised as a time; `benches/performance_benchmarks.rs` measures.

use std::{
    collections::{BTreeMap, HashSet},
    time::{Duration, Instant},
};

use axum::http::StatusCode;
use doc_server::cache::shared;
use futures::future::join_all;
use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::harness::{
    PATIENCE, Reply, Stopwatch, TestApp,
    client::texts,
    eventually,
    faulty::{Fault, Proxy},
    fixtures::GUIDE,
    redis::Redis,
    within,
};

const SEARCH: &str = "/api/search?query=connection+pool";

/// As many callers as the figure that is promised.
const CALLERS: usize = 1_000;

async fn with_guide(builder: crate::harness::Builder) -> TestApp {
    let app = builder.start().await;
    app.ingest(&GUIDE, "guide", "1.0.0").await;
    app
}

/// Patient: what is late on a busy machine would be a miss.
fn redis_config(redis: &Redis) -> shared::Config {
    let timeout = Duration::from_secs(1);
    shared::Config { urls: format!("redis://{}", redis.address()), timeout, ..shared::Config::default() }
}

/// Returns once the answer is kept: one from which the machine's slowness took a leg is not.
async fn kept(app: &TestApp) {
    eventually("the answer is kept", async || app.get(SEARCH).await.header("x-cache") == "hit-l1").await;
}

fn count(replies: &[Reply]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for reply in replies {
        *counts.entry(reply.header("x-cache").to_owned()).or_default() += 1;
    }
    counts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_identical_cold_searches_are_one_search() {
    let app = with_guide(TestApp::builder()).await;
    let before = app.probe.texts();
    app.probe.hold();
    let asking = join_all((0..CALLERS).map(|_| app.get(SEARCH)));
    let releasing = async {
        eventually("the one embedding is under way", async || app.probe.texts() > before).await;
        app.probe.release();
    };
    let (replies, ()) = tokio::join!(asking, releasing);
    let bodies: HashSet<_> = replies.iter().map(|reply| (reply.status, reply.body.clone())).collect();
    assert_eq!(bodies.len(), 1, "one answer for all");
    assert_eq!(replies[0].status, StatusCode::OK);
    assert_eq!(app.probe.texts() - before, 1, "one embedding");
    let counts = count(&replies);
    assert_eq!(counts.get("miss"), Some(&1), "{counts:?}");
    assert_eq!(counts.values().sum::<usize>(), CALLERS);
    assert!(counts.keys().all(|outcome| ["miss", "coalesced", "hit-l1"].contains(&outcome.as_str())), "{counts:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_callers_reset_takes_nothing_from_the_others() {
    let app = with_guide(TestApp::builder()).await;
    let (address, before) = (app.listen().await, app.probe.texts());
    app.probe.hold();
    let mut first = TcpStream::connect(address).await.unwrap();
    first.set_zero_linger().unwrap();
    first.write_all(format!("GET {SEARCH} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
    eventually("the first caller's search is under way", async || app.probe.texts() > before).await;
    let others = join_all((1..CALLERS).map(|_| app.get(SEARCH)));
    let going = async {
        // They wait before the first one goes: had nobody waited, its search would rightly end with it.
        eventually("others wait", async || app.search.waiting() >= CALLERS).await;
        drop(first);
        eventually("the first is gone", async || app.search.waiting() < CALLERS).await;
        app.probe.release();
    };
    let (replies, ()) = tokio::join!(others, going);
    assert!(replies.iter().all(|reply| reply.status == StatusCode::OK));
    assert_eq!(count(&replies).get("coalesced"), Some(&(CALLERS - 1)));
    assert_eq!(app.probe.texts() - before, 1, "one embedding, the first caller's");
    assert_eq!(app.search.in_flight(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_every_caller_leaves_nothing_goes_on() {
    let patient = TestApp::builder().with_pool(|pool| pool.acquire_timeout = PATIENCE);
    let app = with_guide(patient.behind_a_faulty_network()).await;
    app.network().set(Fault::Delay(Duration::from_secs(2))).await;
    let asking = join_all((0..50).map(|_| app.get(SEARCH)));
    assert!(tokio::time::timeout(Duration::from_millis(100), asking).await.is_err(), "all leave before the answer");
    within(Duration::from_secs(2), "no flight is left", async || app.search.in_flight() == 0).await;
    let active = "select count(*) from pg_stat_activity where datname = current_database()
                  and backend_type = 'client backend' and state = 'active' and pid <> pg_backend_pid()";
    within(Duration::from_secs(10), "no statement is left", async || app.count(active).await == 0).await;
    app.network().restore().await;
    eventually("the next is answered", async || app.get(SEARCH).await.status == StatusCode::OK).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_waits_with_others_keeps_its_own_deadline() {
    let app = with_guide(TestApp::builder()).await;
    let before = app.probe.texts();
    app.probe.hold();
    let patient = app.get(SEARCH);
    let hasty = async {
        eventually("the patient one is first", async || app.probe.texts() > before).await;
        let left = tokio::time::timeout(Duration::from_millis(100), app.get(SEARCH)).await;
        assert!(left.is_err(), "nothing is answered yet");
        eventually("only the patient one waits", async || app.search.waiting() == 1).await;
        app.probe.release();
    };
    let (reply, ()) = tokio::join!(patient, hasty);
    assert_eq!((reply.status, reply.header("x-cache")), (StatusCode::OK, "miss"));
    assert_eq!(app.probe.texts() - before, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_is_told_to_its_wave_and_to_nobody_after() {
    let app = with_guide(TestApp::builder()).await;
    let vectors = "/api/search?query=connection+pool&mode=vector";
    let before = app.probe.texts();
    app.probe.fail_next(1);
    app.probe.hold();
    let asking = join_all((0..100).map(|_| app.get(vectors)));
    let releasing = async {
        eventually("all wait", async || app.search.waiting() >= 100).await;
        app.probe.release();
    };
    let (replies, ()) = tokio::join!(asking, releasing);
    assert!(replies.iter().all(|reply| reply.status == StatusCode::SERVICE_UNAVAILABLE), "the whole wave is told");
    assert_eq!(app.probe.texts() - before, 1);
    let next = app.get(vectors).await;
    assert_eq!((next.status, next.header("x-cache")), (StatusCode::OK, "miss"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_search_is_answered_from_memory_and_says_so() {
    let app = with_guide(TestApp::builder()).await;
    let first = app.get(SEARCH).await;
    let before = app.probe.texts();
    let second = app.get(SEARCH).await;
    assert_eq!((first.header("x-cache"), second.header("x-cache")), ("miss", "hit-l1"));
    assert_eq!((&first.body, first.header("etag")), (&second.body, second.header("etag")));
    assert!(first.header("etag").len() > 2 && second.header("age").parse::<u64>().unwrap() < 10);
    let other = app.get("/api/search?query=connection+pool&match_count=4").await;
    assert_eq!(other.header("x-cache"), "miss");
    assert_ne!(other.header("etag"), first.header("etag"));
    assert_eq!(app.probe.texts(), before, "the vector of the same words is known");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_decide_whether_a_kept_answer_will_do() {
    let app = with_guide(TestApp::builder()).await;
    let cache = async |mode: &str| app.get(&format!("{SEARCH}&cache={mode}")).await;
    assert_eq!(cache("bypass").await.header("x-cache"), "bypass");
    assert_eq!(cache("use").await.header("x-cache"), "miss", "a bypass keeps nothing");
    let before = app.probe.texts();
    let refreshed = cache("refresh").await;
    assert_eq!((refreshed.header("x-cache"), refreshed.header("age")), ("bypass", "0"));
    assert_eq!(app.probe.texts(), before + 1, "made anew, the vector too");
    assert_eq!(cache("use").await.header("x-cache"), "hit-l1");
    assert_eq!(cache("no").await.status, StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_the_caller_has_is_not_sent_again_even_while_the_database_is_away() {
    let app = with_guide(TestApp::builder().behind_a_faulty_network()).await;
    kept(&app).await;
    let tag = app.get(SEARCH).await.header("etag").to_owned();
    let again = async |condition: &str| {
        let request = axum::http::Request::get(SEARCH).header("if-none-match", condition);
        app.send(request.body(axum::body::Body::empty()).unwrap()).await
    };
    app.network().break_networking().await;
    let strong = tag.trim_start_matches("W/");
    for condition in [tag.clone(), format!("\"other\", {tag}"), strong.to_owned(), "*".to_owned()] {
        let reply = again(&condition).await;
        assert_eq!((reply.status, reply.body.len()), (StatusCode::NOT_MODIFIED, 0), "{condition}");
        assert_eq!((reply.header("x-cache"), reply.header("etag")), ("hit-l1", tag.as_str()));
    }
    assert_eq!(again("\"other\"").await.status, StatusCode::OK);
    app.network().restore().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kept_answers_are_given_as_stale_while_the_database_is_away_for_a_bounded_time() {
    let stale = Duration::from_secs(6);
    let builder = TestApp::builder().behind_a_faulty_network().with_background_tasks();
    let app = with_guide(builder.with_search(|search| search.cache.lifetime.stale = stale)).await;
    let begun = Instant::now();
    kept(&app).await;
    let (made, fresh) = (Instant::now(), app.get(SEARCH).await);
    app.network().break_networking().await;
    within(Duration::from_secs(6), "the lease ends", async || app.get(SEARCH).await.header("x-cache") == "stale").await;
    let (asked, since) = (Stopwatch::start(), made.elapsed());
    let kept = app.get(SEARCH).await;
    assert!(asked.elapsed() < Duration::from_secs(1), "at once: {:?}", asked.elapsed());
    assert_eq!((kept.status, &kept.body), (StatusCode::OK, &fresh.body));
    let age = kept.header("age").parse::<u64>().unwrap();
    let true_age = since.as_secs().saturating_sub(1)..=begun.elapsed().as_secs() + 1;
    assert!(true_age.contains(&age), "its true age: {age} s, not {true_age:?}");
    assert_eq!(app.get("/api/search?query=never+asked").await.status, StatusCode::SERVICE_UNAVAILABLE);
    for path in ["/api/sources", "/api/sources/guide"] {
        let sources = app.get(path).await;
        assert_eq!((sources.status, sources.header("x-cache")), (StatusCode::OK, "stale"), "{path}");
    }
    // The lease, then the window.
    within(Duration::from_secs(5) + stale + Duration::from_secs(2), "the stale window ends", async || {
        app.get(SEARCH).await.status == StatusCode::SERVICE_UNAVAILABLE
    })
    .await;
    app.network().restore().await;
    within(Duration::from_secs(5), "all is well again", async || {
        let reply = app.get(SEARCH).await;
        reply.status == StatusCode::OK && reply.header("x-cache") != "stale"
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_misses_a_part_is_not_kept() {
    let app = with_guide(TestApp::builder()).await;
    app.probe.fail_next(1);
    let degraded = app.get(SEARCH).await;
    assert_eq!((degraded.json()["degraded"].as_bool(), degraded.header("etag")), (Some(true), ""));
    let whole = app.get(SEARCH).await;
    assert_eq!((whole.json()["degraded"].as_bool(), whole.header("x-cache")), (Some(false), "miss"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_publish_is_acknowledged_no_replica_answers_from_before() {
    let one = with_guide(TestApp::builder().with_background_tasks()).await;
    let other = TestApp::builder().with_background_tasks().start_beside(&one).await;
    for round in 0..20 {
        // Both have what is published now in memory.
        for app in [&one, &other] {
            app.get("/api/search?query=colour&source=news").await;
            app.get("/api/search?query=colour&source=news").await;
        }
        let text = format!("# News\n\nThe colour is number {round}.");
        one.ingest(&[("news.md", text.as_str())], "news", "1").await;
        for (name, app) in [("one", &one), ("other", &other)] {
            let answer = app.search("query=colour&source=news&match_count=1").await;
            assert!(
                texts(&answer, "content")[0].contains(&format!("number {round}.")),
                "{name}, round {round}: {answer}"
            );
        }
        if round % 5 == 4 {
            assert_eq!(one.delete("/api/sources/news").await.status, StatusCode::NO_CONTENT);
            for app in [&one, &other] {
                assert_eq!(app.get("/api/search?query=colour&source=news").await.status, StatusCode::NOT_FOUND);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_hears_nothing_answers_from_before_for_five_seconds_at_most() {
    let one = with_guide(TestApp::builder().with_background_tasks()).await;
    let deaf = TestApp::builder().with_background_tasks().behind_a_faulty_network().start_beside(&one).await;
    kept(&deaf).await;
    deaf.network().set(Fault::BlackHole).await;
    // The publish waits as long for the one that does not hear it.
    let publishing = one.ingest(&[("pool.md", "# Connection pool\n\nAll is new.")], "guide", "2.0.0");
    // From then on what it gives is marked.
    let marked = within(Duration::from_secs(6), "the old answer is not given as fresh", async || {
        deaf.get(SEARCH).await.header("x-cache") == "stale"
    });
    tokio::join!(publishing, marked);
    let acknowledged = deaf.get(SEARCH).await;
    assert!(acknowledged.header("x-cache") == "stale" || acknowledged.text().contains("All is new."));
    deaf.network().restore().await;
    within(Duration::from_secs(5), "it answers from what is published", async || {
        let reply = deaf.get(SEARCH).await;
        reply.text().contains("All is new.")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_share_answers_and_vectors_through_redis() {
    let redis = Redis::start().await;
    let start = || TestApp::builder().with_redis(redis_config(&redis));
    let one = with_guide(start()).await;
    let other = start().start_beside(&one).await;
    eventually("both use redis", async || one.redis_is_used().await && other.redis_is_used().await).await;
    let first = one.get(SEARCH).await;
    assert_eq!(first.header("x-cache"), "miss");
    eventually("the answer is shared", async || redis.values().await == 2).await;
    let shared = other.get(SEARCH).await;
    assert_eq!(
        (shared.header("x-cache"), &shared.body, shared.header("etag")),
        ("hit-l2", &first.body, first.header("etag"))
    );
    assert_eq!(other.get(SEARCH).await.header("x-cache"), "hit-l1");
    let asked = other.get("/api/search?query=connection+pool&match_count=3").await;
    assert_eq!(asked.header("x-cache"), "miss");
    assert_eq!(other.probe.texts(), 0, "the other's vector was taken");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fleet_does_cold_work_once() {
    let redis = Redis::start().await;
    let far = Proxy::start(redis.address());
    // What the other sees of Redis is old: the answer may be written and the lease given back behind its back.
    far.set(Fault::Delay(Duration::from_millis(20))).await;
    let through = shared::Config { urls: format!("redis://{}", far.address()), ..redis_config(&redis) };
    let one = with_guide(TestApp::builder().with_background_tasks().with_redis(redis_config(&redis))).await;
    let other = TestApp::builder().with_background_tasks().with_redis(through).start_beside(&one).await;
    eventually("both use redis", async || one.redis_is_used().await && other.redis_is_used().await).await;
    let (mut round, mut asked) = (0, 0);
    while round < 20 {
        asked += 1;
        let path = format!("{SEARCH}+{asked}");
        let (before, others) = (one.probe.texts(), other.probe.texts());
        let began = Stopwatch::start();
        one.probe.hold();
        let leading = async { join_all((0..50).map(|_| one.get(&path))).await };
        let following = async {
            eventually("one computes", async || one.probe.texts() > before).await;
            let asking = join_all((0..50).map(|_| other.get(&path)));
            let releasing = async {
                eventually("the other waits", async || other.search.waiting() >= 50).await;
                // Each round at another moment of what the other does.
                tokio::time::sleep(Duration::from_millis(10) * round).await;
                one.probe.release();
            };
            tokio::join!(asking, releasing).0
        };
        let (led, followed) = tokio::join!(leading, following);
        // The machine stood still for about as long as Redis is waited for: the other may rightly have gone on alone.
        if began.stood_still() > Duration::from_millis(300) {
            assert!(asked < 100, "{round} of {asked} rounds were without a stall");
            continue;
        }
        round += 1;
        assert!(led.iter().chain(&followed).all(|reply| reply.body == led[0].body && reply.status == StatusCode::OK));
        let texts = (one.probe.texts() - before, other.probe.texts() - others);
        assert_eq!(texts, (1, 0), "one embedding in the fleet");
        assert_eq!(count(&followed).get("miss"), None, "{round}: {:?}", count(&followed));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_dies_with_the_lease_is_waited_for_two_seconds_at_most() {
    let redis = Redis::start().await;
    let start = || TestApp::builder().with_redis(redis_config(&redis));
    let dying = with_guide(start()).await;
    let other = start().start_beside(&dying).await;
    eventually("both use redis", async || dying.redis_is_used().await && other.redis_is_used().await).await;
    let before = dying.probe.texts();
    dying.probe.hold();
    // Its flight ends with its only caller, and its lease is never given back.
    let leaving = async {
        let asking = dying.get(SEARCH);
        tokio::select! {
            _ = asking => panic!("held"),
            () = eventually("it computes", async || dying.probe.texts() > before) => {}
        }
    };
    leaving.await;
    let asked = Stopwatch::start();
    let reply = other.get(SEARCH).await;
    assert_eq!((reply.status, reply.header("x-cache")), (StatusCode::OK, "miss"));
    assert!(asked.elapsed() < Duration::from_secs(3), "{:?}", asked.elapsed());
    dying.probe.release();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_read_in_redis_is_a_miss_and_is_overwritten() {
    let redis = Redis::start().await;
    let app = with_guide(
        TestApp::builder().with_redis(redis_config(&redis)).with_search(|search| search.cache.result_bytes = 0),
    )
    .await;
    eventually("redis is used", async || app.redis_is_used().await).await;
    let first = app.get(SEARCH).await;
    eventually("it is shared", async || app.get(SEARCH).await.header("x-cache") == "hit-l2").await;
    for broken in ["", "garbage", "\u{1}\u{1}\u{0}truncated"] {
        redis.overwrite_all(broken).await;
        let reply = app.get(SEARCH).await;
        assert_eq!(
            (reply.status, &reply.body, reply.header("x-cache")),
            (StatusCode::OK, &first.body, "miss"),
            "{broken:?}"
        );
        eventually("it is overwritten", async || app.get(SEARCH).await.header("x-cache") == "hit-l2").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_sees_what_the_caches_hold_and_empties_them() {
    let redis = Redis::start().await;
    let app = with_guide(TestApp::builder().with_redis(redis_config(&redis))).await;
    eventually("redis is used", async || app.redis_is_used().await).await;
    app.get(SEARCH).await;
    eventually("both values are shared", async || redis.values().await == 2).await;
    let held = app.admin("/debug/cache/stats").await.json();
    assert_eq!((&held["caches"][0]["entries"], &held["caches"][1]["entries"]), (&1.into(), &1.into()), "{held}");
    assert_eq!(held["shared"], "used");
    let cleared = app.admin_post("/debug/cache/clear", &serde_json::Value::Null).await.json();
    assert_eq!((&cleared["local"], &cleared["shared"]), (&2.into(), &2.into()));
    assert_eq!(app.get(SEARCH).await.header("x-cache"), "miss");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn searches_of_different_sources_never_meet() {
    let app = TestApp::start().await;
    let sources: Vec<String> = (0..8).map(|nth| format!("tenant-{nth}")).collect();
    for source in &sources {
        app.ingest(&[("a.md", &format!("# Shared words\n\nThe secret of {source} is here."))], source, "1").await;
    }
    let asked: Vec<_> =
        (0..400).map(|nth| (nth % 8, format!("/api/search?query=shared+words&source=tenant-{}", nth % 8))).collect();
    let replies = join_all(asked.iter().map(async |(nth, path)| (*nth, app.get(path).await))).await;
    for (nth, reply) in replies {
        assert_eq!(texts(&reply.json(), "source_id"), [sources[nth].clone()], "{}", reply.text());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_asked_most_is_in_memory_after_a_start() {
    let app = with_guide(TestApp::builder()).await;
    for _ in 0..3 {
        app.get(SEARCH).await;
    }
    app.get("/api/search?query=asked+once").await;
    app.search.save_hot().await.unwrap();
    let next = TestApp::builder().start_beside(&app).await;
    assert_eq!(next.search.warm().await.unwrap(), 1, "only what was found again is hot");
    assert_eq!(next.get(SEARCH).await.header("x-cache"), "hit-l1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hot_answer_is_made_anew_before_it_ends() {
    let builder = TestApp::builder().with_search(|search| search.cache.lifetime.ttl = Duration::from_secs(4));
    let app = with_guide(builder.with_background_tasks()).await;
    let (began, mut renewals, mut ended, mut last) = (Stopwatch::start(), 0, 0, None);
    while renewals < 3 {
        assert!(began.elapsed() < PATIENCE, "{renewals} times made anew while it was given");
        let asked = Stopwatch::start();
        let reply = app.get(SEARCH).await;
        let age = reply.header("age").parse::<u64>().unwrap();
        assert!(age <= 4 || reply.header("x-cache") == "stale", "nobody gets an old one: {age} s");
        // Where it ends before it is made anew, whoever asks next waits, and that is no hit.
        let hit = reply.header("x-cache") == "hit-l1";
        renewals += usize::from(hit && last.is_some_and(|last| age < last));
        ended += usize::from(!hit && last.is_some() && asked.stood_still().is_zero());
        last = hit.then_some(age);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    // On a busy machine, where making it takes longer than is left of its life.
    assert!(ended < renewals, "{ended} times somebody waited");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_question_that_was_asked_before_and_after_a_publish_is_saved_as_one() {
    let app = with_guide(TestApp::builder()).await;
    for version in ["2.0.0", "3.0.0"] {
        for _ in 0..2 {
            assert_eq!(app.get(SEARCH).await.status, StatusCode::OK);
        }
        app.ingest(&GUIDE, "guide", version).await;
    }
    app.search.save_hot().await.expect("saved");
    let saved = app.index.hot_searches(10).await.expect("read");
    assert_eq!(saved.iter().map(|hot| hot.hits).collect::<Vec<_>>(), [2], "{saved:?}");
}
