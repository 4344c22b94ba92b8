//! A real Redis in a test: one server, a primary with replicas, a cluster of three, or a sentinel, on free ports of
//! loopback. Each lives in a folder of its own and is killed, by its process id, when its value is dropped.

use std::{
    net::SocketAddr,
    process::{Child, Command, Stdio},
};

use deadpool_redis::redis::{AsyncConnectionConfig, Client, Cmd, FromRedisValue, RedisResult, Value, cmd};
use tempfile::TempDir;

use super::{PATIENCE, eventually, process::free_address};

/// Slots of a cluster.
const SLOTS: u16 = 16_384;

/// One running server.
pub struct Redis {
    child: Child,
    address: SocketAddr,
    program: Vec<String>,
    _folder: TempDir,
}

impl Redis {
    /// An empty server.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// An empty server with more settings, as `--name value`.
    pub async fn start_with(settings: &[&str]) -> Self {
        let started = Self::try_start(free_address(), settings).await;
        started.expect("redis-server does not start; scripts/setup test installs it")
    }

    /// An empty server at an address that is free.
    pub async fn start_at(address: SocketAddr) -> Self {
        Self::try_start(address, &[]).await.unwrap_or_else(|| panic!("redis-server does not start at {address}"))
    }

    /// An empty replica.
    pub async fn start_replica_of(primary: SocketAddr) -> Self {
        let replica = Self::start().await;
        replica.follow(Some(primary)).await;
        eventually("the replica follows", async || replica.info("replication").await.contains("master_link_status:up"))
            .await;
        replica
    }

    /// A sentinel that watches `primary` as `name` and decides alone, after three seconds of silence.
    pub async fn start_sentinel(name: &str, primary: SocketAddr) -> Self {
        let (address, folder) = (free_address(), tempfile::tempdir().expect("a folder"));
        let port = primary.port();
        let settings = format!(
            "port {}\nbind 127.0.0.1\ndir {}\nsentinel monitor {name} 127.0.0.1 {port} 1\n\
             sentinel down-after-milliseconds {name} 3000\nsentinel failover-timeout {name} 2000\n",
            address.port(),
            folder.path().display(),
        );
        let file = folder.path().join("sentinel.conf");
        std::fs::write(&file, settings).expect("a file");
        let program = vec![file.display().to_string(), "--sentinel".to_owned()];
        Self::run(address, folder, program).await.expect("the sentinel does not start")
    }

    async fn try_start(address: SocketAddr, settings: &[&str]) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        let (port, path) = (address.port().to_string(), folder.path().display().to_string());
        let usual = ["--port", &port, "--bind", "127.0.0.1", "--dir", &path, "--save", "", "--appendonly", "no"];
        let program = usual.iter().chain(settings).map(|&word| word.to_owned()).collect();
        Self::run(address, folder, program).await
    }

    async fn run(address: SocketAddr, folder: TempDir, program: Vec<String>) -> Option<Self> {
        let child = spawn(&program);
        let mut started = Self { child, address, program, _folder: folder };
        started.answers().await.then_some(started)
    }

    /// Whether it answers before it ends.
    async fn answers(&mut self) -> bool {
        while self.child.try_wait().expect("its state").is_none() {
            if self.try_ask::<Value>(&cmd("PING")).await.is_ok() {
                return true;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        false
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// As a setting.
    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// One command on a connection of its own.
    pub async fn try_ask<T: FromRedisValue>(&self, command: &Cmd) -> RedisResult<T> {
        let patient =
            AsyncConnectionConfig::new().set_connection_timeout(Some(PATIENCE)).set_response_timeout(Some(PATIENCE));
        let client = Client::open(self.url())?;
        let mut connection = client.get_multiplexed_async_connection_with_config(&patient).await?;
        command.query_async(&mut connection).await
    }

    /// One command that must succeed.
    #[track_caller]
    pub fn ask<T: FromRedisValue>(&self, command: &Cmd) -> impl Future<Output = T> {
        let caller = std::panic::Location::caller();
        async move { self.try_ask(command).await.unwrap_or_else(|error| panic!("{caller}: {error}")) }
    }

    /// Puts these bytes in place of every value.
    pub async fn overwrite_all(&self, bytes: &str) {
        for key in self.ask::<Vec<String>>(cmd("KEYS").arg("*")).await {
            let _: () = self.ask(&Cmd::set(key, bytes)).await;
        }
    }

    /// How many values it has, without leases.
    pub async fn values(&self) -> usize {
        let keys = self.ask::<Vec<String>>(cmd("KEYS").arg("*")).await;
        keys.iter().filter(|key| !key.contains(":lease:")).count()
    }

    /// A section of what it says of itself; empty when it does not answer.
    pub async fn info(&self, section: &str) -> String {
        // Always asked until something shows: a server that changes its role ends its connections.
        self.try_ask(cmd("INFO").arg(section)).await.unwrap_or_default()
    }

    /// The port of the node that has a slot of the cluster, as far as this node knows.
    async fn owner_of(&self, slot: u16) -> u16 {
        type Node = (String, u16, String, Vec<Value>);
        let ranges: Vec<(u16, u16, Node)> = self.ask(cmd("CLUSTER").arg("SLOTS")).await;
        let found = ranges.into_iter().find(|(first, last, _)| (first..=last).contains(&&slot));
        found.map_or(0, |(_, _, (_, port, ..))| port)
    }

    /// Makes it a replica, or a primary.
    pub async fn follow(&self, primary: Option<SocketAddr>) {
        let (host, port) = primary.map_or(("NO".to_owned(), "ONE".to_owned()), |primary| {
            (primary.ip().to_string(), primary.port().to_string())
        });
        self.ask::<Value>(cmd("REPLICAOF").arg(host).arg(port)).await;
    }

    /// Kills it, as a crash would.
    pub fn kill(&mut self) {
        let _ = (self.child.kill(), self.child.wait());
    }

    /// Starts it again, empty, at the same address.
    pub async fn restart(&mut self) {
        self.kill();
        self.child = spawn(&self.program);
        assert!(self.answers().await, "redis-server does not start again");
    }
}

fn spawn(program: &[String]) -> Child {
    Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.tools/bin/redis-server"))
        .args(program)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("redis-server; scripts/setup test installs it")
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Three primaries without replicas, which share the slots.
pub struct Cluster {
    /// The nodes.
    pub nodes: Vec<Redis>,
}

impl Cluster {
    /// A cluster that works.
    pub async fn start() -> Self {
        let mut nodes = Vec::new();
        for _ in 0..3 {
            let bus = free_address().port().to_string();
            nodes.push(Redis::start_with(&["--cluster-enabled", "yes", "--cluster-port", &bus]).await);
        }
        let third = SLOTS / 3;
        for (node, (first, last)) in nodes.iter().zip([(0, third), (third + 1, 2 * third), (2 * third + 1, SLOTS - 1)])
        {
            node.ask::<Value>(cmd("CLUSTER").arg("ADDSLOTSRANGE").arg(first).arg(last)).await;
        }
        for node in &nodes[1..] {
            let bus: u16 = node.program.last().and_then(|port| port.parse().ok()).expect("its bus port");
            let mut meet = cmd("CLUSTER");
            meet.arg("MEET").arg("127.0.0.1").arg(node.address.port()).arg(bus);
            nodes[0].ask::<Value>(&meet).await;
        }
        let cluster = Self { nodes };
        eventually("the cluster works", async || {
            let mut well = true;
            for node in &cluster.nodes {
                let info: String = node.ask(cmd("CLUSTER").arg("INFO")).await;
                well &= info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3");
            }
            well
        })
        .await;
        cluster
    }

    /// As a setting: one node tells the others.
    pub fn url(&self) -> String {
        self.nodes[0].url()
    }

    /// The slot of a key.
    pub async fn slot(&self, key: &str) -> u16 {
        self.nodes[0].ask(cmd("CLUSTER").arg("KEYSLOT").arg(key)).await
    }

    /// The node that has a slot, once all nodes agree.
    pub async fn owner(&self, slot: u16) -> usize {
        let port = std::cell::Cell::new(0);
        eventually("all nodes agree on a slot", async || {
            let mut ports = Vec::new();
            for node in &self.nodes {
                ports.push(node.owner_of(slot).await);
            }
            port.set(ports[0]);
            ports.iter().all(|other| *other == ports[0])
        })
        .await;
        self.nodes.iter().position(|node| node.address.port() == port.get()).expect("one of the nodes")
    }

    /// Moves a slot with its keys to another node, as an operator's tools do; returns once all nodes know.
    pub async fn migrate(&self, slot: u16, to: usize) {
        let from = self.owner(slot).await;
        let (source, target) = (&self.nodes[from], &self.nodes[to]);
        let id = async |node: &Redis| -> String { node.ask(cmd("CLUSTER").arg("MYID")).await };
        let (source_id, target_id) = (id(source).await, id(target).await);
        target.ask::<Value>(cmd("CLUSTER").arg("SETSLOT").arg(slot).arg("IMPORTING").arg(&source_id)).await;
        source.ask::<Value>(cmd("CLUSTER").arg("SETSLOT").arg(slot).arg("MIGRATING").arg(&target_id)).await;
        loop {
            let keys: Vec<String> = source.ask(cmd("CLUSTER").arg("GETKEYSINSLOT").arg(slot).arg(10)).await;
            if keys.is_empty() {
                break;
            }
            for key in keys {
                let mut migrate = cmd("MIGRATE");
                migrate.arg("127.0.0.1").arg(target.address.port()).arg(key).arg(0).arg(30_000);
                source.ask::<Value>(&migrate).await;
            }
        }
        for node in [target, source].into_iter().chain(&self.nodes) {
            node.ask::<Value>(cmd("CLUSTER").arg("SETSLOT").arg(slot).arg("NODE").arg(&target_id)).await;
        }
        assert_eq!(self.owner(slot).await, to);
    }
}
