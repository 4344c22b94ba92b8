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
    let app = TestApp::builder().behind_a_faulty_network().with_search(limit).start().await;
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: two minutes of load"]
async fn ten_times_what_can_be_done_for_a_minute() {
    let app = start().await;
    let address = app.listen().await;
    let alone = new_searches(address, "").run().await;
    let unloaded = quantile(&alone, 0.99);
    let peak_time = Duration::from_secs(10);
    let places = u32::try_from(LIMIT).unwrap();
    let full = Offer { connections: places, time: peak_time, ..new_searches(address, "") }.run().await;
    let peak = rate(&well(&full), peak_time);
    println!("alone: p99 {unloaded:?}; {LIMIT} at once: {peak:.1} answers/s, p99 {:?}", quantile(&well(&full), 0.99));

    let (before, most) = (resident_megabytes(), AtomicUsize::new(0));
    let minute = Duration::from_secs(60);
    let tenfold = Offer { connections: 600, rate: Some(peak * 10.0), time: minute, ..new_searches(address, "") };
    let watching = async {
        loop {
            most.fetch_max(app.search.gate().in_use(), Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let answers = tokio::select! { answers = tenfold.run() => answers, () = watching => unreachable!() };
    let (good, turned) = (well(&answers), shed(&answers));
    let goodput = rate(&good, minute);
    println!(
        "ten times for 60 s: offered {:.0}/s, reached {:.0}/s, goodput {goodput:.1}/s ({:.1} % of peak), accepted p99 {:?}",
        peak * 10.0,
        rate(&answers, minute),
        100.0 * goodput / peak,
        quantile(&good, 0.99),
    );
    println!(
        "turned away: {} ({:.1} %), p50 {:?}, p99 {:?}, slowest {:?}; in use at most {}; resident {before} -> {} MB",
        turned.len(),
        100.0 * share(&turned, &answers),
        quantile(&turned, 0.5),
        quantile(&turned, 0.99),
        quantile(&turned, 1.0),
        most.load(Ordering::Relaxed),
        resident_megabytes(),
    );
    assert_eq!(good.len() + turned.len(), answers.len(), "every caller is told one or the other");
    assert!(turned.iter().all(|answer| answer.retry_after));

    let half =
        Offer { connections: 60, rate: Some(peak / 2.0), time: Duration::from_secs(10), ..new_searches(address, "") };
    let after = half.run().await;
    let normal = normal_after(&after, unloaded * 3);
    println!(
        "at half of the peak after it: {} answers, all well and within 3 x unloaded from second {normal} on",
        after.len()
    );

    let time = Duration::from_secs(30);
    let people = Offer { connections: 60, rate: Some(peak / 4.0), time, ..new_searches(address, "") };
    let programs =
        Offer { connections: 400, rate: Some(peak * 10.0), time, ..new_searches(address, "priority: u=7\r\n") };
    let (people, programs) = tokio::join!(people.run(), programs.run());
    let (served, bulk) = (share(&well(&people), &people), share(&well(&programs), &programs));
    println!(
        "a quarter of the peak by people beside ten times the peak by programs, 30 s: {:.2} % of {} and {:.1} % of {} answered; people's p99 {:?}, programs' shed p99 {:?}",
        100.0 * served,
        people.len(),
        100.0 * bulk,
        programs.len(),
        quantile(&well(&people), 0.99),
        quantile(&shed(&programs), 0.99),
    );

    assert!(goodput >= 0.9 * peak, "{goodput} of {peak}");
    assert!(quantile(&turned, 0.99) <= PROMISED_SHED);
    assert!(most.into_inner() <= LIMIT);
    assert!(quantile(&good, 0.99) <= unloaded * 3);
    assert!(normal <= 5, "normal after {normal} s");
    assert!(served >= 0.994, "{served}");
    assert!(bulk > 0.0 && bulk < 0.5, "{bulk}");
}
