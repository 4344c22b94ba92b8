//! `/debug/pprof/` of the real process: profiles that `go tool pprof` reads, while it works.

use std::{collections::BTreeSet, io::Read, time::Duration};

use doc_server::runtime::lifecycle::Lifecycle;
use flate2::read::GzDecoder;
use pprof::protos::{Message, Profile};
use tokio_util::sync::CancellationToken;

use crate::harness::{
    database::Database,
    eventually,
    served::{Served, ingest},
};

/// A server that is kept busy until this value is dropped.
struct Busy {
    server: Served,
    database: Database,
    stop: tokio_util::sync::DropGuard,
}

impl Busy {
    /// With four clients whose searches are all made anew, so that every stage works and allocates.
    async fn start(settings: &[(&str, &str)]) -> Self {
        let database = Database::migrated().await;
        ingest(&database, &[]).await;
        let server = Served::start(&database, settings).await;
        let (stop, lifecycle) = (CancellationToken::new(), Lifecycle::new());
        for _ in 0..4 {
            let (stop, url) = (stop.clone(), format!("http://{}/api/search?cache=bypass&query=pool", server.public));
            let client = reqwest::Client::builder().no_proxy().build().unwrap();
            lifecycle.spawn_detached(async move {
                while !stop.is_cancelled() {
                    let _ = client.get(&url).send().await;
                }
            });
        }
        Self { server, database, stop: stop.drop_guard() }
    }

    async fn finish(self) {
        drop(self.stop);
        self.server.signal("INT");
        let (code, log) = self.server.ended(Duration::from_secs(25)).await;
        assert_eq!(code, Some(0), "{log}");
        self.database.drop_now().await;
    }
}

async fn bytes(server: &Served, path: &str) -> (u16, Vec<u8>) {
    let answer = server.client.get(format!("http://{}{path}", server.private)).send().await.expect("an answer");
    (answer.status().as_u16(), answer.bytes().await.expect("a body").to_vec())
}

/// The profile in gzipped protobuf.
fn read(gzipped: &[u8]) -> Profile {
    let mut bytes = Vec::new();
    GzDecoder::new(gzipped).read_to_end(&mut bytes).expect("gzip");
    Profile::decode(bytes.as_slice()).expect("a profile")
}

/// Names of the functions in it.
fn functions(profile: &Profile) -> BTreeSet<String> {
    let name = |at: i64| profile.string_table[usize::try_from(at).unwrap()].clone();
    profile.function.iter().map(|function| name(function.name)).collect()
}

/// Whether functions of the search's path can be told, those that were inlined by their files.
fn names_ours(names: &BTreeSet<String>) -> bool {
    names.iter().any(|name| name.contains("(doc_server/search/"))
}

/// At most so many more than asked, where the server got little to do.
const MORE_ROUNDS: usize = 30;

/// Profiles again and again while the server works and allocates.
async fn profile_under_load(rounds: usize, seconds: u64) {
    let mut busy = Busy::start(&[("heap_profiling", "true")]).await;
    let path = format!("/debug/pprof/profile?seconds={seconds}");
    let (mut seen, mut samples) = (BTreeSet::new(), 0);
    // A server that is given little time is seen little, and elsewhere: more rounds then.
    let enough = |seen: &BTreeSet<String>, samples: usize| samples > 10 && names_ours(seen);
    for round in 0..rounds + MORE_ROUNDS {
        if round >= rounds && enough(&seen, samples) {
            break;
        }
        let (profile, heap) = tokio::join!(bytes(&busy.server, &path), bytes(&busy.server, "/debug/pprof/heap"));
        assert_eq!((profile.0, heap.0), (200, 200), "round {round}: {}", busy.server.log());
        let cpu = read(&profile.1);
        samples += cpu.sample.len();
        seen.extend(functions(&cpu));
        assert!(busy.server.is_running(), "round {round}");
    }
    assert!(enough(&seen, samples), "{samples} samples: {seen:?}");
    eventually("the picture names ours", async || {
        let (status, picture) = bytes(&busy.server, "/debug/pprof/flamegraph?seconds=1").await;
        let picture = String::from_utf8(picture).unwrap();
        assert!(status == 200 && picture.contains("<svg"), "{picture}");
        picture.contains("doc_server/search/")
    })
    .await;
    busy.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processor_time_is_profiled_under_load_and_symbols_are_readable() {
    profile_under_load(4, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: five minutes of profiles under load"]
async fn profiles_under_load_for_minutes_crash_nothing() {
    profile_under_load(100, 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_profile_at_a_time_and_a_minute_at_most() {
    let database = Database::migrated().await;
    let server = Served::start(&database, &[]).await;
    let url = format!("http://{}/debug/pprof/profile?seconds=20", server.private);
    let first = async {
        // Refused while the second is recorded instead.
        while server.client.get(&url).send().await.unwrap().status() == 429 {}
    };
    let second = async {
        let path = "/debug/pprof/flamegraph?seconds=1";
        // Until the first has begun, this one is recorded.
        eventually("the second is refused", async || server.admin(path).await.0 == 429).await;
        let refused = server.client.get(format!("http://{}{path}", server.private)).send().await.unwrap();
        refused.headers()["retry-after"].to_str().unwrap().parse::<u64>().unwrap()
    };
    // Its caller leaves: the next is not refused.
    let retry_after = tokio::select! {
        () = first => panic!("twenty seconds are over"),
        seconds = second => seconds,
    };
    assert!((1..=21).contains(&retry_after), "{retry_after}");
    eventually("the profile ends with its caller", async || {
        server.admin("/debug/pprof/profile?seconds=1").await.0 == 200
    })
    .await;
    for path in ["profile?seconds=61", "profile?seconds=0", "flamegraph?seconds=x"] {
        assert_eq!(server.admin(&format!("/debug/pprof/{path}")).await.0, 400, "{path}");
    }
    assert!(server.admin("/debug/pprof/").await.1.contains("flamegraph"));
    assert_eq!(server.admin("/debug/pprof/nothing").await.0, 404);
    server.signal("INT");
    assert_eq!(server.ended(Duration::from_secs(25)).await.0, Some(0));
    database.drop_now().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_is_profiled_once_asked_without_a_restart() {
    let busy = Busy::start(&[]).await;
    let (status, told) = busy.server.admin("/debug/pprof/heap").await;
    assert!(status == 409 && told.contains("active=true"), "{status} {told}");
    let switch = async |active: &str| {
        let url = format!("http://{}/debug/pprof/heap{active}", busy.server.private);
        let answer = busy.server.client.post(url).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    assert_eq!(switch("").await.0, 400);
    assert_eq!(switch("?active=true").await, (200, "heap profiling is on\n".to_owned()));
    eventually("something is sampled", async || {
        let (status, heap) = bytes(&busy.server, "/debug/pprof/heap").await;
        assert_eq!(status, 200);
        !functions(&read(&heap)).is_empty()
    })
    .await;
    assert_eq!(switch("?active=false").await, (200, "heap profiling is off\n".to_owned()));
    assert_eq!(busy.server.admin("/debug/pprof/heap").await.0, 409);
    busy.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn profiles_leave_only_to_the_machine_itself() {
    let database = Database::migrated().await;
    let (public, private) = crate::harness::process::free_addresses();
    let mut command = crate::harness::served::serving(&database.url(), (public, private), &[]);
    command.env("DOC_SERVER_ADMIN_BIND", format!("0.0.0.0:{}", private.port()));
    let mut server = Served::run_command(&mut command, (public, private));
    server.ready().await;
    for path in ["", "/profile?seconds=1", "/flamegraph?seconds=1", "/heap", "/cmdline"] {
        assert_eq!(server.admin(&format!("/debug/pprof{path}")).await.0, 401, "{path}");
    }
    server.signal("INT");
    assert_eq!(server.ended(Duration::from_secs(25)).await.0, Some(0));
    database.drop_now().await;
}
