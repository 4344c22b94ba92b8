//! What is promised of overload, measured: ten times what can be done for a minute, over real connections.
//!
//! The database is made slow (50 ms a round trip) and few searches may run at once, so that the generator beside the server has a
//! processor core. Prints its figures: `make test-long`, or this test alone with `--include-ignored --nocapture`.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use crate::harness::{
    TestApp,
    faulty::Fault,
    fixtures::{borrowed, many_pages},
    load::{Answer, Offer, of, quantile, rate},
};

/// Searches that run at once.
const LIMIT: usize = 16;

/// Each way, so a round trip to the database takes twice as long.
const DELAY: Duration = Duration::from_millis(25);

const PROMISED_SHED: Duration = Duration::from_millis(20);

async fn start() -> TestApp {
    let limit = |config: &mut doc_server::search::Config| config.shed.most = LIMIT;
    // With them, as in a server: without, the catalog would be read on the way of requests every five seconds.
    let app = TestApp::builder().behind_a_faulty_network().with_background_tasks().with_search(limit).start().await;
    app.ingest(&borrowed(&many_pages(200)), "many", "1.0.0").await;
    app.network().set(Fault::Delay(DELAY)).await;
    app
}

/// Searches that nobody has asked before, with these head lines.
fn new_searches(address: SocketAddr, head: &'static str) -> Offer {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let request = move |_| {
        let nth = NEXT.fetch_add(1, Ordering::Relaxed);
        (format!("/api/search?query=own{}+common+{nth}&mode=keyword", nth % 200), head)
    };
    Offer { address, connections: 1, rate: None, time: Duration::from_secs(3), request: Arc::new(request) }
}

fn resident_megabytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or_default() / 1_024
}

fn well(answers: &[Answer]) -> Vec<Answer> {
    of(answers, &[200])
}

fn shed(answers: &[Answer]) -> Vec<Answer> {
    of(answers, &[503, 429])
}

#[expect(clippy::cast_precision_loss, reason = "a share")]
fn share(part: &[Answer], of: &[Answer]) -> f64 {
    part.len() as f64 / of.len().max(1) as f64
}

/// From the end of the load: after which second everything is well and as quick as before.
fn normal_after(answers: &[Answer], quick: Duration) -> u64 {
    let bad = answers.iter().filter(|answer| answer.status != 200 || answer.took > quick);
    bad.map(|answer| answer.at.as_secs() + 1).max().unwrap_or(0)
}

/// Before the load: the 99th percentile of one caller alone, and the answers a second of as many as may be worked on.
async fn at_rest(address: SocketAddr) -> (Duration, f64) {
    let unloaded = quantile(&new_searches(address, "").run().await, 0.99);
    let (connections, time) = (u32::try_from(LIMIT).unwrap(), Duration::from_secs(10));
    let full = well(&Offer { connections, time, ..new_searches(address, "") }.run().await);
    let peak = rate(&full, time);
    println!("alone: p99 {unloaded:?}; {LIMIT} at once: {peak:.1} answers/s, p99 {:?}", quantile(&full, 0.99));
    (unloaded, peak)
}

/// Ten times the peak for a minute: what came of it, and the most that was in use.
async fn tenfold(app: &TestApp, address: SocketAddr, peak: f64) -> (Vec<Answer>, usize) {
    let (before, most, minute) = (resident_megabytes(), AtomicUsize::new(0), Duration::from_mins(1));
    let offer = Offer { connections: 600, rate: Some(peak * 10.0), time: minute, ..new_searches(address, "") };
    let watching = async {
        loop {
            most.fetch_max(app.search.gate().in_use(), Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let answers = tokio::select! { answers = offer.run() => answers, () = watching => unreachable!() };
    let (good, turned, most) = (well(&answers), shed(&answers), most.into_inner());
    let goodput = rate(&good, minute);
    println!(
        "ten times for 60 s: offered {:.0}/s, reached {:.0}/s; goodput {goodput:.1}/s, {:.1} % of peak; p99 {:?}",
        peak * 10.0,
        rate(&answers, minute),
        100.0 * goodput / peak,
        quantile(&good, 0.99),
    );
    println!(
        "turned away: {:.1} %, p50 {:?}, p99 {:?}, slowest {:?}; in use at most {most}; resident {before} -> {} MB",
        100.0 * share(&turned, &answers),
        quantile(&turned, 0.5),
        quantile(&turned, 0.99),
        quantile(&turned, 1.0),
        resident_megabytes(),
    );
    assert_eq!(good.len() + turned.len(), answers.len(), "every caller is told one or the other");
    assert!(turned.iter().all(|answer| answer.retry_after));
    (answers, most)
}

/// A quarter of the peak by people beside ten times the peak by programs: the shares that are answered.
async fn people_and_programs(address: SocketAddr, peak: f64) -> (f64, f64) {
    let time = Duration::from_secs(30);
    let people = Offer { connections: 60, rate: Some(peak / 4.0), time, ..new_searches(address, "") };
    let bulk = new_searches(address, "priority: u=7\r\n");
    let programs = Offer { connections: 400, rate: Some(peak * 10.0), time, ..bulk };
    let (people, programs) = tokio::join!(people.run(), programs.run());
    let shares = (share(&well(&people), &people), share(&well(&programs), &programs));
    println!(
        "people at 1/4 beside programs at 10 times the peak, 30 s: {:.2} % of {} and {:.1} % of {} answered; p99 {:?} and, turned away, {:?}",
        100.0 * shares.0,
        people.len(),
        100.0 * shares.1,
        programs.len(),
        quantile(&well(&people), 0.99),
        quantile(&shed(&programs), 0.99),
    );
    shares
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: two minutes of load"]
async fn ten_times_what_can_be_done_for_a_minute() {
    let app = start().await;
    let address = app.listen().await;
    let (unloaded, peak) = at_rest(address).await;
    let (answers, most) = tenfold(&app, address, peak).await;

    let time = Duration::from_secs(10);
    let half = Offer { connections: 60, rate: Some(peak / 2.0), time, ..new_searches(address, "") };
    let after = half.run().await;
    let normal = normal_after(&after, unloaded * 3);
    println!(
        "half of the peak after it: {} answers, well and within 3 x unloaded from second {normal} on",
        after.len()
    );
    let (served, bulk) = people_and_programs(address, peak).await;

    let goodput = rate(&well(&answers), Duration::from_mins(1));
    assert!(goodput >= 0.9 * peak, "{goodput} of {peak}");
    assert!(quantile(&shed(&answers), 0.99) <= PROMISED_SHED);
    assert!(most <= LIMIT);
    assert!(quantile(&well(&answers), 0.99) <= unloaded * 3);
    assert!(normal <= 5, "normal after {normal} s");
    assert!(served >= 0.994, "{served}");
    assert!(bulk > 0.0 && bulk < 0.5, "{bulk}");
}
