//! The pools under what production does to them: connections that end, hang, are not given back, or lead to a server that is
//! the primary no more.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use axum::{
    body::Body,
    http::{Request, StatusCode, header},
};
use doc_server::{
    config::Settings,
    index::{self, Index},
};
use futures::future::join_all;
use serde_json::json;
use sqlx::Connection;
use tower::ServiceExt;

use crate::harness::{
    PATIENCE, Stopwatch, TestApp,
    database::Database,
    eventually,
    faulty::{Fault, Proxy},
    fixtures::{GUIDE, borrowed, many_pages},
    postgres::Server,
    within,
};

/// Past the caches: each goes to the database.
const SEARCH: &str = "/api/search?query=connection+pool&cache=bypass";

/// One that is answered from memory once it was asked.
const KEPT: &str = "/api/search?query=connection+pool";

/// Ends every session of the server under test, as a restart or an administrator does.
const END_SESSIONS: &str = "select pg_terminate_backend(pid) from pg_stat_activity
    where datname = current_database() and application_name like 'doc-server%'";

const OPEN_TRANSACTIONS: &str = "select count(*) from pg_stat_activity
    where datname = current_database() and state like 'idle in transaction%'";

/// The sum of a series without labels that differ.
async fn metric(app: &TestApp, name: &str) -> f64 {
    let text = app.admin("/metrics").await.text();
    let values = text.lines().filter(|line| line.starts_with(name)).filter_map(|line| line.rsplit(' ').next());
    values.filter_map(|value| value.parse::<f64>().ok()).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_search_is_lost_when_the_server_ends_its_sessions() {
    let app = TestApp::start().await;
    app.ingest(&GUIDE, "guide", "1.0.0").await;
    let before = metric(&app, "doc_server_pool_retries_total").await;
    for _ in 0..3 {
        join_all((0..4).map(|_| app.get(SEARCH))).await;
        app.execute(END_SESSIONS).await;
        let reply = app.get(SEARCH).await;
        assert_eq!((reply.status, &reply.json()["degraded"]), (StatusCode::OK, &json!(false)), "{}", reply.text());
    }
    assert!(metric(&app, "doc_server_pool_retries_total").await > before, "connections did break");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_starts_over_a_network_on_which_connecting_takes_longer_than_a_search_waits() {
    let database = Database::migrated().await;
    let proxy = Proxy::start(database.address());
    proxy.set(Fault::Delay(Duration::from_millis(60))).await;
    let options = database.options.clone().host("127.0.0.1").port(proxy.address().port());
    let index = Index::connect(options, index::Config::default()).await.expect("a first connection");
    let read = index.refresh_catalog().await;
    index.close().await;
    database.drop_now().await;
    read.expect("its first statement");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_not_given_back_is_told() {
    let app = TestApp::builder()
        .with_background_tasks()
        .with_pool(|pool| pool.leak_after = Duration::from_millis(300))
        .start()
        .await;
    let before = metric(&app, "doc_server_pool_leaked_total").await;
    let forgotten = app.index.pools().acquire("a planted leak").await.unwrap();
    within(Duration::from_mins(1), "the leak is told", async || {
        metric(&app, "doc_server_pool_leaked_total").await > before
    })
    .await;
    drop(forgotten);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn searches_are_refused_at_once_while_all_connections_are_held_and_answered_a_second_after() {
    let usual = |pool: &mut index::pool::Config| {
        let statement_timeout = Duration::from_mins(1);
        *pool = index::pool::Config { read_connections: 4, statement_timeout, ..index::pool::Config::default() };
    };
    let app = TestApp::builder().with_background_tasks().with_pool(usual).start().await;
    app.ingest(&GUIDE, "guide", "1.0.0").await;
    app.get(SEARCH).await;
    let mut holding = Vec::new();
    for _ in 0..4 {
        let (asked, mut reader) = (Stopwatch::start(), app.index.pools().acquire("holds").await);
        // Where the machine is slow to make one in time.
        while reader.is_err() && asked.elapsed() < PATIENCE {
            reader = app.index.pools().acquire("holds").await;
        }
        let mut reader = reader.unwrap();
        holding.push(app.lifecycle.spawn_detached(async move {
            let _ = sqlx::query("select pg_sleep(60)").execute(&mut *reader).await;
        }));
    }
    let sleeping =
        "select count(*) from pg_stat_activity where datname = current_database() and wait_event = 'PgSleep'";
    eventually("all connections sleep", async || app.count(sleeping).await == 4).await;
    let mut times = Vec::new();
    for _ in 0..20 {
        let asked = Stopwatch::start();
        let reply = app.get(SEARCH).await;
        times.push(asked.elapsed());
        assert_eq!((reply.status, reply.header("retry-after")), (StatusCode::SERVICE_UNAVAILABLE, "1"));
    }
    times.sort_unstable();
    // What is promised for the slowest of a hundred is 300 ms; on a busy machine many are later.
    assert!(times[4] <= Duration::from_millis(300) && times[18] <= Duration::from_secs(1), "{times:?}");
    for task in holding {
        task.abort();
    }
    within(Duration::from_secs(1), "searches are answered", async || app.get(SEARCH).await.status == StatusCode::OK)
        .await;
}

/// Gives up `rounds` requests, reads and writes, each at a random point, eight at a time.
async fn callers_leave(rounds: u64) {
    let app = TestApp::builder().with_pool(|pool| pool.read_connections = 8).start().await;
    app.ingest(&borrowed(&many_pages(20)), "many", "1.0.0").await;
    let request = |nth: u64| {
        let get = |path: &str| Request::get(path).body(Body::empty()).unwrap();
        match nth % 4 {
            // `ef_search` makes the vector leg a transaction of its own.
            0 => get("/api/search?query=common+page&match_count=50&ef_search=1000&cache=bypass"),
            1 => get("/api/search?query=own1+common&mode=keyword&cache=bypass"),
            2 => get("/api/pages?url=page-0001.md"),
            _ => {
                let change =
                    json!({ "title": format!("n{nth}"), "summary": format!("n{nth}"), "tags": [nth.to_string()] });
                Request::patch("/api/sources/many")
                    .header(header::CONTENT_TYPE, "application/json")
                    .body(Body::from(change.to_string()))
                    .unwrap()
            }
        }
    };
    let began = Instant::now();
    for nth in 0..4 {
        assert_eq!(app.router().oneshot(request(nth)).await.unwrap().status(), StatusCode::OK, "{nth}");
    }
    let longest = (began.elapsed() / 2).max(Duration::from_millis(2));
    let next = AtomicU64::new(0);
    let failed = AtomicU64::new(0);
    let caller = async || {
        while let nth @ 0.. = next.fetch_add(1, Ordering::Relaxed)
            && nth < rounds
        {
            let patience = longest.mul_f64(fastrand::f64());
            if let Ok(answered) = tokio::time::timeout(patience, app.router().oneshot(request(nth))).await
                && answered.unwrap().status() == StatusCode::INTERNAL_SERVER_ERROR
            {
                failed.fetch_add(1, Ordering::Relaxed);
            }
        }
    };
    join_all((0..8).map(|_| caller())).await;
    // An aborted transaction that was handed on would fail the next statement, which is an internal error.
    assert_eq!(failed.load(Ordering::Relaxed), 0);
    eventually("no session is left in a transaction", async || app.count(OPEN_TRANSACTIONS).await == 0).await;
    let halves = "select count(*) from sources where title <> summary or (title like 'n%' and title <> 'n' || tags[1])";
    assert_eq!(app.count(halves).await, 0, "a change is whole or not at all");
    eventually("every place is free", async || app.index.pools().read_usage().2 == 8).await;
    for nth in 0..40 {
        assert_eq!(app.router().oneshot(request(nth)).await.unwrap().status(), StatusCode::OK, "{nth}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_callers_who_leave_anywhere_poison_nothing() {
    callers_leave(1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: ten thousand requests"]
async fn ten_thousand_callers_who_leave_anywhere_poison_nothing() {
    callers_leave(10_000).await;
}

/// Statements wait for as long as the test holds a lock.
const GATE: &str = "alter table chunk_words rename to chunk_words_away;
    create view chunk_words as select chunk_words_away.*
    from chunk_words_away, (select pg_advisory_xact_lock_shared(4242) offset 0) gate";

/// All busy connections go silent for ever, `rounds` times, while new ones work; the one that listens too, or not.
async fn busy_sockets_go_silent(rounds: usize, listener_too: bool) {
    const BUSY: usize = 8;
    let mut builder = TestApp::builder()
        .behind_a_faulty_network()
        .with_background_tasks()
        .with_pool(|pool| pool.read_connections = 8);
    if !listener_too {
        builder = builder.listening_past_it();
    }
    let app = builder.start().await;
    app.ingest(&GUIDE, "guide", "1.0.0").await;
    app.execute(GATE).await;
    let mut gate = app.database.connect().await;
    for round in 0..rounds {
        sqlx::query("select pg_advisory_lock(4242)").execute(&mut gate).await.unwrap();
        let callers: Vec<_> = (0..BUSY)
            .map(|_| {
                let router = app.router();
                app.lifecycle.spawn_detached(async move {
                    loop {
                        let request = Request::get("/api/search?query=pool&mode=keyword&cache=bypass")
                            .body(Body::empty())
                            .unwrap();
                        let status = router.clone().oneshot(request).await.unwrap().status();
                        // Refused, as when eight connections are not made in time: as a caller would, it comes back.
                        if status != StatusCode::SERVICE_UNAVAILABLE {
                            return status;
                        }
                    }
                })
            })
            .collect();
        let waiting = "select count(*) from pg_locks where locktype = 'advisory' and not granted
                       and database = (select oid from pg_database where datname = current_database())";
        eventually("every connection is busy", async || app.count(waiting).await >= 8).await;
        app.network().set(Fault::BlackHole).await;
        sqlx::query("select pg_advisory_unlock(4242)").execute(&mut gate).await.unwrap();
        // The answers are lost on the way.
        eventually("every statement has ended", async || app.count(waiting).await == 0).await;
        app.network().restore().await;
        within(Duration::from_secs(5), "searches are answered again", async || {
            app.get("/api/search?query=pool&mode=keyword&cache=bypass").await.status == StatusCode::OK
        })
        .await;
        within(Duration::from_secs(10), "the pool is whole", async || {
            let (_, used, free) = app.index.pools().read_usage();
            (used, free) == (0, 8)
        })
        .await;
        for caller in callers {
            assert_eq!((round, caller.await.unwrap()), (round, StatusCode::OK));
        }
    }
    gate.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn busy_connections_that_go_silent_are_given_up() {
    busy_sockets_go_silent(3, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn busy_connections_that_go_silent_alone_are_given_up() {
    busy_sockets_go_silent(3, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: twenty silences"]
async fn busy_connections_that_go_silent_again_and_again_cost_no_place() {
    busy_sockets_go_silent(20, true).await;
    busy_sockets_go_silent(20, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_postgres_is_told_at_once_and_used_again_when_it_is_back() {
    let mut server = Server::start().await;
    let app = TestApp::builder().with_background_tasks().start_at(server.options()).await;
    app.ingest(&GUIDE, "guide", "1.0.0").await;
    eventually("an answer is kept", async || app.get(KEPT).await.header("x-cache") == "hit-l1").await;
    let kept = app.get(KEPT).await;
    server.kill();
    within(Duration::from_secs(2), "readiness tells it", async || {
        app.admin("/readyz").await.status == StatusCode::SERVICE_UNAVAILABLE
    })
    .await;
    let down = Instant::now();
    while down.elapsed() < Duration::from_secs(10) {
        assert_eq!(app.admin("/livez").await.status, StatusCode::OK);
        assert_eq!(app.get(SEARCH).await.status, StatusCode::SERVICE_UNAVAILABLE);
        let late = down.elapsed() > Duration::from_secs(5);
        let reply = app.get(KEPT).await;
        assert_eq!((reply.status, &reply.body), (StatusCode::OK, &kept.body));
        // Within the lease it cannot have been replaced unheard; after it, it is marked.
        if late {
            assert_eq!(reply.header("x-cache"), "stale");
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    server.launch().await;
    within(Duration::from_secs(5), "searches and readiness are well", async || {
        let reply = app.get(SEARCH).await;
        reply.status == StatusCode::OK
            && reply.json()["degraded"] == false
            && app.get(KEPT).await.header("x-cache") == "hit-l1"
            && app.admin("/readyz").await.status == StatusCode::OK
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_follow_a_failover_to_the_promoted_standby() {
    let primary = Server::start().await;
    let patient = TestApp::builder().with_pool(|pool| pool.acquire_timeout = Duration::from_secs(1));
    let app = patient.behind_a_faulty_network().with_background_tasks().start_at(primary.options()).await;
    app.ingest(&GUIDE, "guide", "1.0.0").await;
    let standby = primary.standby().await;
    let change = async |title: &str| app.patch("/api/sources/guide", &json!({ "title": title })).await.status;
    // Connections of the pools are open, and stay so.
    eventually("writes are taken", async || change("before").await == StatusCode::OK).await;
    primary.until_replayed_by(&standby).await;
    // The old primary is taken out of service, as a cluster manager does, but still answers.
    primary.execute("alter system set default_transaction_read_only = on").await;
    primary.execute("select pg_reload_conf()").await;
    app.network().lead_to(standby.address());
    // Sessions hear of it a moment later.
    eventually("nobody takes writes", async || change("between").await != StatusCode::OK).await;
    standby.execute("select pg_promote()").await;
    let promoted = Instant::now();
    within(Duration::from_secs(10), "writes are taken again", async || change("after").await == StatusCode::OK).await;
    // Those that fail must have done so by now.
    tokio::time::sleep_until((promoted + Duration::from_secs(10)).into()).await;
    for nth in 0..30 {
        assert_eq!(change(&format!("after {nth}")).await, StatusCode::OK);
    }
    assert_eq!(app.get("/api/sources/guide").await.json()["title"], "after 29", "reads have followed too");
    eventually("answers are whole", async || app.get(SEARCH).await.json()["degraded"] == false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_fails_every_read_is_asked_at_most_a_fifth_more() {
    const ASKED: i64 = 100;
    let app = TestApp::start().await;
    app.ingest(&GUIDE, "guide", "1.0.0").await;
    // Counts the attempt, which outlives its session, and ends the session.
    app.execute(
        "create sequence attempts;
         create function fail() returns void language plpgsql as $$
         begin perform nextval('attempts'); perform pg_terminate_backend(pg_backend_pid()); perform pg_sleep(10); end $$;
         alter table chunk_words rename to chunk_words_away;
         create view chunk_words as select chunk_words_away.* from chunk_words_away, (select fail() offset 0) gate",
    )
    .await;
    for _ in 0..ASKED {
        let reply = app.get("/api/search?query=pool&mode=keyword&cache=bypass").await;
        assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE, "{}", reply.text());
    }
    let attempts = app.count("select last_value from attempts").await;
    // Three retries are allowed before there are requests to have a fifth of.
    assert!((ASKED + 1..=ASKED * 6 / 5 + 3).contains(&attempts), "{attempts} attempts for {ASKED} searches");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_runs_on_for_callers_who_have_left() {
    let app = TestApp::builder()
        .with_pool(|pool| {
            pool.read_connections = 8;
            pool.statement_timeout = Duration::from_mins(1);
        })
        .start()
        .await;
    app.ingest(&GUIDE, "guide", "1.0.0").await;
    app.execute(
        "alter table chunk_words rename to chunk_words_away;
         create view chunk_words as select chunk_words_away.* from chunk_words_away, pg_sleep(50)",
    )
    .await;
    let request = || Request::get("/api/search?query=pool&mode=keyword&cache=bypass").body(Body::empty()).unwrap();
    let callers: Vec<_> = (0..8).map(|_| app.lifecycle.spawn_detached(app.router().oneshot(request()))).collect();
    let sleeping =
        "select count(*) from pg_stat_activity where datname = current_database() and wait_event = 'PgSleep'";
    eventually("all statements run", async || app.count(sleeping).await == 8).await;
    for caller in callers {
        caller.abort();
    }
    within(Duration::from_secs(10), "no statement runs", async || app.count(sleeping).await == 0).await;
    eventually("every place is free", async || app.index.pools().read_usage().2 == 8).await;
}

#[tokio::test]
async fn pools_that_the_server_has_no_room_for_are_refused_with_both_sides() {
    let database = Database::empty().await;
    let mut config = index::Config::default();
    config.pool.read_connections = 5_000;
    let refused = Index::connect(database.options.clone(), config).await.unwrap_err().to_string();
    database.drop_now().await;
    for part in ["database_read_connections (5000)", "database_write_connections (6)", "5007", "max_connections"] {
        assert!(refused.contains(part), "{refused}");
    }
}

#[test]
fn the_embedded_database_has_room_for_the_pools_of_the_settings() {
    let settings = Settings { database_read_connections: 200, ..Settings::default() };
    let pools = settings.index().pool.connections();
    assert!(settings.cluster().max_connections > 3 * pools, "{pools}");
}
