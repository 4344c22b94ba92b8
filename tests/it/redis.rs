//! The shared tier of the cache against real Redis servers, behind networks that fail. Whatever happens to Redis, lookups
//! end in time, nothing wrong is believed, and all is well again by itself.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use bytes::Bytes;
use deadpool_redis::redis::{Cmd, Value, cmd};
use doc_server::{
    cache::shared::{Config, Kind, Lease, Lookup, Mode, Name, Shared, Status, Stored},
    runtime::{lifecycle::Lifecycle, metrics},
};
use futures::future::join_all;

use crate::harness::{
    Stopwatch, eventually,
    faulty::{Fault, Proxy},
    process::free_address,
    recorder,
    redis::{Cluster, Redis},
    within,
};

/// What is promised: lookups in trouble cost at most this more than others at the 99th percentile.
const WORTH_OF_TROUBLE: Duration = Duration::from_millis(60);

/// How long an operation may take by default.
const BUDGET: Duration = Duration::from_millis(50);

/// What is promised: Redis is left alone within a second of an outage and used again within five of its end.
const LEFT_WITHIN: Duration = Duration::from_secs(1);
const BACK_WITHIN: Duration = Duration::from_secs(5);

/// What is promised after a change of primary.
const WRITES_BACK_WITHIN: Duration = Duration::from_secs(10);

const HOUR: Duration = Duration::from_hours(1);

/// One replica's handle on the shared tier; its tasks end with it.
struct Tier {
    shared: Shared,
    lifecycle: Lifecycle,
}

impl std::ops::Deref for Tier {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.shared
    }
}

impl Drop for Tier {
    fn drop(&mut self) {
        self.lifecycle.stop();
    }
}

impl Tier {
    fn new(urls: &str, change: impl FnOnce(&mut Config)) -> Self {
        recorder();
        // Patient: what is late on a busy machine would be an outage.
        let timeout = Duration::from_secs(1);
        let mut config = Config { urls: urls.to_owned(), connections: 3, timeout, ..Config::default() };
        change(&mut config);
        let lifecycle = Lifecycle::new();
        let shared = Shared::new(&config, &lifecycle).expect("usable settings").expect("an address");
        Self { shared, lifecycle }
    }

    /// On one server, once it is connected.
    async fn connected(address: SocketAddr) -> Self {
        Self::new(&format!("redis://{address}"), |_| {}).ready().await
    }

    async fn ready(self) -> Self {
        eventually("redis is used", async || self.is_healthy()).await;
        self
    }

    fn is_healthy(&self) -> bool {
        matches!(self.status(), Status::Healthy { .. })
    }

    async fn holds(&self, name: &Name, body: &str) -> bool {
        self.get(name).await == Lookup::Hit(stored(body))
    }

    /// Stores and waits until it can be looked up.
    async fn keep(&self, name: &Name, body: &str) {
        eventually("the value is stored", async || {
            // A write is dropped while Redis is taken to be away.
            self.put(name.clone(), stored(body), HOUR);
            let held = async {
                while !self.holds(name, body).await {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(2), held).await.is_ok()
        })
        .await;
    }
}

fn stored(body: &str) -> Stored {
    Stored { body: Bytes::from(body.to_owned()), made_at_ms: 1_795_000_000_000 }
}

/// A name of its own for each text.
fn name(text: &str) -> Name {
    Name::new(Kind::Results, blake3::hash(text.as_bytes()).as_bytes())
}

#[tokio::test]
async fn a_value_comes_back_as_it_was_and_ends_with_its_lifetime() {
    let redis = Redis::start().await;
    let (one, other) = (Tier::connected(redis.address()).await, Tier::connected(redis.address()).await);
    let (name, body) = (name("tokio"), "{\"results\":[\"the connection pool\"]}".repeat(200));
    assert_eq!(other.get(&name).await, Lookup::Miss);
    one.put(name.clone(), stored(&body), Duration::from_secs(100));
    eventually("another replica sees it", async || other.holds(&name, &body).await).await;
    let bytes: usize = redis.ask(&Cmd::strlen(name.as_str())).await;
    assert!(bytes < body.len() / 4, "{bytes} of {} bytes", body.len());
    let lifetime: u64 = redis.ask(&Cmd::pttl(name.as_str())).await;
    assert!((90_000..=100_000).contains(&lifetime), "{lifetime} ms");

    one.put(name.clone(), stored("short"), Duration::from_millis(50));
    eventually("it ended", async || other.get(&name).await == Lookup::Miss).await;
}

#[tokio::test]
async fn values_that_cannot_be_believed_are_misses_and_are_replaced() {
    let redis = Redis::start().await;
    let tier = Tier::connected(redis.address()).await;
    let (good, asked) = (name("good"), name("asked"));
    tier.keep(&good, "body").await;
    let bytes: Vec<u8> = redis.ask(&Cmd::get(good.as_str())).await;
    let other_schema: Vec<u8> = bytes.iter().enumerate().map(|(at, byte)| byte + u8::from(at == 0)).collect();
    let truncated = &bytes[..bytes.len() - 1];
    for (what, value) in [("garbage", &b"garbage"[..]), ("empty", b""), ("cut", truncated), ("newer", &other_schema)] {
        redis.ask::<Value>(&Cmd::set(good.as_str(), value)).await;
        assert_eq!(tier.get(&good).await, Lookup::Miss, "{what}");
        tier.keep(&good, "body again").await;
    }
    // A right value under a name that it does not belong to, and one that is no string at all.
    redis.ask::<Value>(&Cmd::set(asked.as_str(), &bytes[..])).await;
    assert_eq!(tier.get(&asked).await, Lookup::Miss);
    redis.ask::<Value>(&Cmd::del(asked.as_str())).await;
    redis.ask::<Value>(&Cmd::lpush(asked.as_str(), "a list")).await;
    assert_eq!(tier.get(&asked).await, Lookup::Miss);
    tier.keep(&asked, "body").await;
    assert!(tier.is_healthy(), "broken values are not an outage");
}

#[tokio::test]
async fn starts_without_redis_and_uses_it_once_it_is_there() {
    let address = free_address();
    let tier = Tier::new(&format!("redis://:secret-word@{address}"), |_| {});
    eventually("the absence is told", async || {
        matches!(tier.status(), Status::Away { reason } if reason.contains("refused") && !reason.contains("secret-word"))
    })
    .await;
    assert_eq!(tier.get(&name("a")).await, Lookup::Error);
    assert!(matches!(tier.try_lease(&name("a"), HOUR).await, Lease::Away));
    let dropped = || count("doc_server_cache_writes_dropped_total{reason=\"away\"}");
    let before = dropped();
    tier.put(name("a"), stored("lost"), HOUR);
    eventually("the write is counted as dropped", async || dropped() > before).await;

    let redis = Redis::start_at(address).await;
    redis.ask::<Value>(cmd("CONFIG").arg("SET").arg("requirepass").arg("secret-word")).await;
    within(BACK_WITHIN, "it is used", async || tier.get(&name("a")).await == Lookup::Miss).await;
    tier.put(name("a"), stored("kept"), HOUR);
    within(BACK_WITHIN, "values are stored", async || tier.holds(&name("a"), "kept").await).await;
}

/// A counter of the process, 0 before its first sample.
fn count(series: &str) -> u64 {
    let text = metrics::render(&recorder());
    let value = text.lines().find_map(|line| line.strip_prefix(series));
    value.map_or(0, |value| value.trim().parse().expect("a number"))
}

/// 200 lookups a second for `time`: how long the slowest of a hundred took.
async fn look_up(tier: &Tier, time: Duration) -> Duration {
    const EVERY: Duration = Duration::from_millis(5);
    let (began, name) = (tokio::time::Instant::now(), name("hot"));
    let lookups = u32::try_from(time.as_millis() / EVERY.as_millis()).unwrap();
    let mut took = join_all((0..lookups).map(|nth| {
        let name = &name;
        async move {
            tokio::time::sleep_until(began + EVERY * nth).await;
            let asked = Stopwatch::start();
            tier.get(name).await;
            asked.elapsed()
        }
    }))
    .await;
    took.sort();
    took[took.len() * 99 / 100]
}

/// Under 200 lookups a second: none waits longer than it may, Redis is soon left alone, hardly asked meanwhile, and soon
/// used again.
async fn withstands(fault: Fault) {
    const LEFT_ALONE: Duration = Duration::from_secs(5);
    let redis = Redis::start().await;
    let proxy = Proxy::start(redis.address());
    let tier = Tier::new(&format!("redis://{}", proxy.address()), |config| config.timeout = BUDGET).ready().await;
    tier.keep(&name("hot"), "body").await;
    let well = look_up(&tier, Duration::from_secs(1)).await;

    proxy.set(fault).await;
    let watching = async {
        within(LEFT_WITHIN, "redis is left alone", async || !tier.is_healthy()).await;
        let (left, accepted) = (Instant::now(), proxy.accepted());
        tokio::time::sleep(LEFT_ALONE).await;
        assert!(!tier.is_healthy());
        let probes = proxy.accepted() - accepted;
        assert!(probes <= left.elapsed().as_secs() + 2, "{probes} probes in {:?}", left.elapsed());
        probes
    };
    let (ill, probes) = tokio::join!(look_up(&tier, LEFT_WITHIN + LEFT_ALONE), watching);
    assert!(fault == Fault::Refuse || probes > 0, "somebody must look whether it is back");
    assert!(ill <= well + WORTH_OF_TROUBLE, "{ill:?} in trouble, {well:?} otherwise");

    proxy.restore().await;
    within(BACK_WITHIN, "redis is used again", async || tier.holds(&name("hot"), "body").await).await;
    tier.keep(&name("new"), "written after the outage").await;
}

#[tokio::test]
async fn withstands_a_redis_that_refuses_connections() {
    withstands(Fault::Refuse).await;
}

#[tokio::test]
async fn withstands_a_redis_that_resets_connections() {
    withstands(Fault::Reset).await;
}

#[tokio::test]
async fn withstands_a_silent_network() {
    withstands(Fault::BlackHole).await;
}

#[tokio::test]
async fn withstands_a_slow_network() {
    withstands(Fault::Delay(Duration::from_secs(2))).await;
}

#[tokio::test]
async fn withstands_a_redis_that_answers_garbage() {
    withstands(Fault::Garbage).await;
}

#[tokio::test]
async fn a_primary_that_became_a_replica_is_left_for_the_new_one() {
    let first = Redis::start().await;
    let second = Redis::start_replica_of(first.address()).await;
    let proxy = Proxy::start(first.address());
    let tier = Tier::connected(proxy.address()).await;
    tier.keep(&name("before"), "body").await;
    let copied = async || second.ask::<bool>(&Cmd::exists(name("before").as_str())).await;
    eventually("the replica has it too", copied).await;

    // The address leads to the new primary; connections made before still end at the old one, which only reads now.
    second.follow(None).await;
    first.follow(Some(second.address())).await;
    proxy.lead_to(second.address());
    let nth = std::sync::atomic::AtomicU32::new(0);
    within(WRITES_BACK_WITHIN, "writes reach the new primary", async || {
        let text = nth.fetch_add(1, std::sync::atomic::Ordering::Relaxed).to_string();
        tier.put(name(&text), stored("body"), HOUR);
        tokio::time::sleep(Duration::from_millis(20)).await;
        second.ask::<bool>(&Cmd::exists(name(&text).as_str())).await
    })
    .await;
    eventually("what was there before is read", async || tier.holds(&name("before"), "body").await).await;
    eventually("leases are given", async || matches!(tier.try_lease(&name("before"), HOUR).await, Lease::Held(_)))
        .await;
}

#[tokio::test]
async fn a_restarted_redis_is_used_again() {
    let mut redis = Redis::start().await;
    let tier = Tier::connected(redis.address()).await;
    tier.keep(&name("a"), "body").await;
    redis.restart().await;
    within(BACK_WITHIN, "it is used again", async || {
        tier.put(name("b"), stored("body"), HOUR);
        tokio::time::sleep(Duration::from_millis(20)).await;
        tier.holds(&name("b"), "body").await
    })
    .await;
    assert_eq!(tier.get(&name("a")).await, Lookup::Miss);
}

#[tokio::test]
async fn many_are_looked_up_at_once_and_all_can_be_removed() {
    let redis = Redis::start().await;
    let tier = Tier::connected(redis.address()).await;
    looks_up_many_and_removes_all(&tier, &redis).await;
}

#[tokio::test]
async fn a_user_needs_only_the_permissions_that_are_documented() {
    let redis = Redis::start().await;
    let mut user = cmd("ACL");
    user.arg("SETUSER").arg("docs").arg("on").arg(">secret-word").arg("~doc-server:*");
    for command in ["get", "set", "exists", "eval", "del", "scan", "unlink"] {
        user.arg(format!("+{command}"));
    }
    redis.ask::<Value>(&user).await;
    let tier = Tier::new(&format!("redis://docs:secret-word@{}", redis.address()), |_| {}).ready().await;
    looks_up_many_and_removes_all(&tier, &redis).await;
    leases_and_gives_back(&tier).await;
}

async fn leases_and_gives_back(tier: &Tier) {
    let name = name("cold");
    let lease = tier.try_lease(&name, HOUR).await;
    let Lease::Held(token) = lease else { panic!("{lease:?}") };
    tier.put(name.clone(), stored("body"), HOUR);
    tier.release(token);
    eventually("the lease is given back", async || !tier.still_leased(&name).await).await;
    assert!(tier.holds(&name, "body").await);
}

async fn looks_up_many_and_removes_all(tier: &Tier, beside: &Redis) {
    const MANY: usize = 150;
    let names: Vec<Name> = (0..MANY).map(|nth| name(&nth.to_string())).collect();
    for (nth, name) in names.iter().enumerate().filter(|(nth, _)| !nth.is_multiple_of(3)) {
        tier.put(name.clone(), stored(&nth.to_string()), HOUR);
    }
    let expected = |nth: usize| (!nth.is_multiple_of(3)).then(|| stored(&nth.to_string()));
    eventually("all are found in their order", async || {
        tier.get_many(&names).await == (0..MANY).map(expected).collect::<Vec<_>>()
    })
    .await;
    // The key of somebody else; its tag puts it on the first node of a cluster.
    let foreign = "doc-server-of-others:{06S}";
    beside.ask::<Value>(&Cmd::set(foreign, "stays")).await;
    assert_eq!(tier.clear().await.unwrap(), 100);
    assert_eq!(tier.get_many(&names).await, vec![None; MANY]);
    assert_eq!(beside.ask::<String>(&Cmd::get(foreign)).await, "stays");
}

#[tokio::test]
async fn one_of_two_holds_a_lease_until_it_gives_it_back() {
    let redis = Redis::start().await;
    let (one, other) = (Tier::connected(redis.address()).await, Tier::connected(redis.address()).await);
    let name = name("cold");
    assert!(!other.still_leased(&name).await);
    let (mine, theirs) = tokio::join!(one.try_lease(&name, HOUR), other.try_lease(&name, HOUR));
    let (token, holder, loser) = match (mine, theirs) {
        (Lease::Held(token), Lease::Busy) => (token, &one, &other),
        (Lease::Busy, Lease::Held(token)) => (token, &other, &one),
        both => panic!("one must win: {both:?}"),
    };
    assert!(loser.still_leased(&name).await);
    // Whoever sees the lease gone finds the value.
    holder.put(name.clone(), stored("body"), HOUR);
    holder.release(token);
    eventually("the lease is given back", async || !loser.still_leased(&name).await).await;
    assert!(loser.holds(&name, "body").await);
}

#[tokio::test]
async fn a_late_holder_cannot_give_back_the_lease_of_the_next() {
    let redis = Redis::start().await;
    let tier = Tier::connected(redis.address()).await;
    let name = name("cold");
    let Lease::Held(late) = tier.try_lease(&name, Duration::from_millis(100)).await else { panic!("nobody else") };
    eventually("a dead holder's lease ends by itself", async || !tier.still_leased(&name).await).await;
    let Lease::Held(_next) = tier.try_lease(&name, HOUR).await else { panic!("it had ended") };
    tier.release(late);
    // Writes are made in their order, so the release has been made once this is stored.
    tier.keep(&name, "written after the release").await;
    assert!(tier.still_leased(&name).await);
}

#[tokio::test]
async fn a_cluster_is_used_through_any_of_its_nodes() {
    let cluster = Cluster::start().await;
    let tier = Tier::new(&cluster.url(), |config| config.mode = Mode::Cluster).ready().await;
    looks_up_many_and_removes_all(&tier, &cluster.nodes[0]).await;
    leases_and_gives_back(&tier).await;
}

#[tokio::test]
async fn a_cluster_moves_a_slot_under_load_without_an_error() {
    let cluster = Cluster::start().await;
    // A pause of a busy machine is no error of the move.
    let patient = |config: &mut Config| (config.mode, config.timeout) = (Mode::Cluster, LEFT_WITHIN);
    let tier = Tier::new(&cluster.url(), patient).ready().await;
    let hot = name("hot");
    tier.keep(&hot, "body").await;
    let slot = cluster.slot(hot.as_str()).await;
    let from = cluster.owner(slot).await;
    let moving = async {
        for step in [1, 2, 0] {
            cluster.migrate(slot, (from + step) % 3).await;
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    };
    let done = tokio_util::sync::CancellationToken::new();
    let asking = async {
        let mut asked = 0;
        while !done.is_cancelled() {
            let began = Stopwatch::start();
            let lookups = join_all((0..8).map(|_| tier.get(&hot))).await;
            // Unless the machine stood still for about as long as a lookup may take.
            if began.stood_still() < LEFT_WITHIN / 2 {
                assert_eq!(lookups, vec![Lookup::Hit(stored("body")); 8], "after {asked} lookups");
            }
            asked += lookups.len();
        }
        asked
    };
    let (asked, ()) = tokio::join!(asking, async {
        moving.await;
        done.cancel();
    });
    assert!(asked > 100, "{asked} lookups while the slot moved");
    tier.keep(&hot, "written after the move").await;
}

#[tokio::test]
async fn a_sentinel_names_the_primary_also_after_it_died() {
    let mut first = Redis::start().await;
    let second = Redis::start_replica_of(first.address()).await;
    let sentinel = Redis::start_sentinel("docs", first.address()).await;
    eventually("the sentinel knows the replica", async || {
        let replicas: Vec<Value> = sentinel.ask(cmd("SENTINEL").arg("REPLICAS").arg("docs")).await;
        !replicas.is_empty()
    })
    .await;
    let tier = Tier::new(&sentinel.url(), |config| {
        config.mode = Mode::Sentinel;
        "docs".clone_into(&mut config.sentinel_master);
    })
    .ready()
    .await;
    tier.keep(&name("a"), "body").await;
    assert_eq!(first.ask::<u64>(&cmd("DBSIZE")).await, 1, "at the primary");

    first.kill();
    within(Duration::from_secs(90), "the replica is the primary", async || {
        second.info("replication").await.contains("role:master")
    })
    .await;
    within(WRITES_BACK_WITHIN, "it is used", async || {
        tier.put(name("b"), stored("body"), HOUR);
        tokio::time::sleep(Duration::from_millis(20)).await;
        tier.holds(&name("b"), "body").await
    })
    .await;
}
