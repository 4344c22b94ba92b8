//! How the real process starts, reloads and leaves.

use std::{
    io::Write,
    time::{Duration, Instant},
};

use doc_server::runtime::lifecycle::{Ended, Lifecycle, Signals};
use reqwest::header::CONNECTION;
use tempfile::NamedTempFile;
use tokio::{net::TcpListener, task::JoinHandle};

use crate::harness::{
    database::Database,
    eventually,
    served::{Provider, Served, ingest},
    within,
};

/// What an orchestrator waits, less a margin.
const LONGEST_STOP: Duration = Duration::from_secs(25);

/// A server whose searches wait for a provider that the test holds, and one such search.
struct Held {
    provider: Provider,
    database: Database,
    server: Served,
    search: JoinHandle<reqwest::Result<u16>>,
}

impl Held {
    async fn start(drain_delay_s: &str) -> Self {
        let (provider, database) = (Provider::start().await, Database::migrated().await);
        let mut settings = provider.settings();
        ingest(&database, &settings).await;
        // Longer than any test holds the search.
        settings.extend([("drain_delay_s", drain_delay_s), ("embed_timeout_ms", "20000")]);
        let server = Served::start(&database, &settings).await;
        provider.hold(true);
        let asked = server.client.get(format!("http://{}/api/search?query=pool&mode=vector", server.public));
        let asked = async move { asked.send().await.map(|answer| answer.status().as_u16()) };
        let search = Lifecycle::new().spawn_detached(asked);
        eventually("the provider is asked", async || provider.waiting() > 0).await;
        Self { provider, database, server, search }
    }
}

/// Whether nobody listens at the front door any more.
async fn is_closed(server: &Served) -> bool {
    server.try_get(server.public, "/api/health").await.is_none()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readiness_turns_at_once_and_requests_are_served_for_the_drain_delay() {
    let database = Database::migrated().await;
    let server = Served::start(&database, &[("drain_delay_s", "5")]).await;
    let keeping = reqwest::Client::builder().no_proxy().build().unwrap();
    let sources = format!("http://{}/api/sources", server.public);
    assert!(!keeping.get(&sources).send().await.unwrap().headers().contains_key(CONNECTION));

    let told = Instant::now();
    server.signal("TERM");
    within(Duration::from_secs(3), "readiness turns", async || server.readiness().await.0 == 503).await;
    assert_eq!(server.readiness().await.1, "stopping\n");
    let mut answers = 0;
    while answers < 2 || told.elapsed() < Duration::from_millis(1_500) {
        let answer = keeping.get(&sources).send().await.expect("still served");
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()[CONNECTION], "close");
        answers += 1;
    }
    let (code, log) = server.ended(LONGEST_STOP).await;
    assert_eq!(code, Some(0), "{log}");
    assert!((Duration::from_secs(5)..LONGEST_STOP).contains(&told.elapsed()), "{:?}", told.elapsed());
    database.drop_now().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flights_finish_and_the_private_door_closes_last() {
    let Held { provider, database, server, search } = Held::start("0").await;
    server.signal("TERM");
    eventually("nobody new is let in", async || is_closed(&server).await).await;
    assert_eq!(server.admin("/livez").await, (200, "alive\n".to_owned()));
    assert_eq!(server.readiness().await, (503, "stopping\n".to_owned()));
    assert!(server.admin("/metrics").await.1.contains("doc_server_http_in_flight 1\n"));
    provider.hold(false);
    assert_eq!(search.await.unwrap().expect("an answer"), 200);
    let (code, log) = server.ended(LONGEST_STOP).await;
    assert_eq!(code, Some(0), "{log}");
    database.drop_now().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_leaves_at_once() {
    for drain_delay_s in ["0", "10"] {
        let Held { provider: _provider, database, server, search } = Held::start(drain_delay_s).await;
        server.signal("TERM");
        eventually("it has heard", async || server.readiness().await.0 == 503).await;
        let told = Instant::now();
        server.signal("TERM");
        let (code, log) = server.ended(LONGEST_STOP).await;
        assert_eq!(code, Some(1), "{log}");
        assert!(told.elapsed() < Duration::from_secs(8), "{:?}", told.elapsed());
        let answered = search.await.unwrap();
        assert!(!matches!(answered, Ok(200)), "the search was cut off: {answered:?}");
        database.drop_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ctrl_c_does_not_wait_for_load_balancers() {
    let database = Database::migrated().await;
    let server = Served::start(&database, &[("drain_delay_s", "10")]).await;
    let told = Instant::now();
    server.signal("INT");
    let (code, log) = server.ended(LONGEST_STOP).await;
    assert_eq!(code, Some(0), "{log}");
    assert!(told.elapsed() < Duration::from_secs(8), "{:?}", told.elapsed());
    database.drop_now().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_private_door_is_open_before_the_database() {
    let silent = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("postgres://nobody@{}/nothing", silent.local_addr().unwrap());
    let server = Served::spawn(&url, &[]);
    eventually("the private door is open", async || server.readiness().await.0 != 0).await;
    // It gives a first connection up after five seconds, and ends.
    let (alive, ready, profiles, metrics) = tokio::join!(
        server.admin("/livez"),
        server.readiness(),
        server.admin("/debug/pprof/"),
        server.admin("/metrics")
    );
    assert_eq!(alive, (200, "alive\n".to_owned()));
    assert_eq!(ready, (503, "starting\n".to_owned()));
    assert_eq!(profiles, (503, "starting\n".to_owned()));
    assert!(metrics.1.contains("process_start_time_seconds"));
    server.signal("TERM");
    let (code, log) = server.ended(LONGEST_STOP).await;
    assert_eq!(code, Some(130), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_background_task_ends_the_process_with_a_failure() {
    for panics in [false, true] {
        let lifecycle = Lifecycle::new();
        let outer = lifecycle.outliving();
        let (stopping, outer_stopping) = (lifecycle.stopping(), outer.stopping());
        lifecycle.spawn("well", async move {
            stopping.cancelled().await;
            Ok::<_, String>(())
        });
        outer.spawn("door", async move {
            outer_stopping.cancelled().await;
            Ok::<_, String>(())
        });
        lifecycle.spawn("ill", async move {
            assert!(!panics, "as planned");
            Err::<(), _>("as planned")
        });
        let mut signals = Signals::listen().unwrap();
        assert_eq!(lifecycle.finish(&mut signals, Duration::ZERO).await, Ended::Badly);
        assert_eq!((lifecycle.tasks(), outer.tasks()), (0, 1), "the door is still open");
        outer.close(Duration::from_secs(5)).await;
        assert_eq!(outer.tasks(), 0);
    }
}

/// A settings file that a test changes.
struct File(NamedTempFile);

impl File {
    fn new(text: &str) -> Self {
        let file = Self(NamedTempFile::new().unwrap());
        file.write(text);
        file
    }

    fn write(&self, text: &str) {
        let mut file = self.0.reopen().unwrap();
        file.set_len(0).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hangup_reloads_what_is_safe_and_names_the_rest() {
    let database = Database::migrated().await;
    let file = File::new("log_level = \"info\"\n");
    let path = file.0.path().to_str().unwrap();
    let server = Served::start(&database, &[("--config", path)]).await;
    assert_eq!(server.admin("/debug/pprof/heap").await.0, 409);
    server.get("/api/sources/nothing").await;
    server.logged("answered status=404 code=\"not_found\"").await;
    assert!(!server.log().contains("DEBUG"));

    file.write("log_level = \"debug\"\nheap_profiling = true\nmax_searches = 7\nembed_api_key = \"hunter2\"\n");
    server.signal("HUP");
    server.logged("read the settings again").await;
    let log = server.log();
    assert!(
        log.contains("after a restart only") && log.contains("embed_api_key") && log.contains("max_searches"),
        "{log}"
    );
    assert!(!log.contains("hunter2"), "{log}");
    assert_eq!(server.admin("/debug/pprof/heap").await.0, 200);
    server.get("/api/search?query=pool").await;
    server.logged("DEBUG").await;

    for (bad, told) in [("log_level = \"loud\"\n", "is not a level"), ("colour = 1\n", "colour is no setting")] {
        file.write(bad);
        server.signal("HUP");
        server.logged(told).await;
    }
    assert_eq!(server.admin("/debug/pprof/heap").await.0, 200, "what cannot be used changes nothing");
    file.write("log_level = \"warn\"\n");
    server.signal("HUP");
    eventually("the next file is used", async || server.admin("/debug/pprof/heap").await.0 == 409).await;
    assert_eq!(server.admin("/debug/pprof/heap").await.0, 409, "the file said nothing of heap profiling any more");
    server.signal("TERM");
    let (code, log) = server.ended(LONGEST_STOP).await;
    assert_eq!(code, Some(0), "{log}");
    database.drop_now().await;
}
