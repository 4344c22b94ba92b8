//! A real haproxy in front of two replicas, configured as an operator would: readiness is asked on the private door, and a
//! request is tried again only when no connection could be made.

use std::{
    net::SocketAddr,
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

use super::{process::free_addresses, served::Served, within};

/// A replica that is started again and again on the same doors.
pub type Doors = (SocketAddr, SocketAddr);

/// The running proxy; killed with this value.
pub struct Haproxy {
    /// Where it listens.
    pub address: SocketAddr,
    statistics: SocketAddr,
    process: Child,
    _folder: TempDir,
}

impl Haproxy {
    /// In front of replicas at these doors.
    pub fn start(replicas: &[Doors]) -> Self {
        let (address, statistics) = free_addresses();
        let folder = tempfile::tempdir().expect("a folder");
        let settings = folder.path().join("haproxy.cfg");
        let servers = replicas.iter().enumerate().fold(String::new(), |servers, (at, (public, private))| {
            format!("{servers}  server r{at} {public} check addr {} port {}\n", private.ip(), private.port())
        });
        let text = format!(
            "global\n  maxconn 2000\n\
             defaults\n  mode http\n  timeout connect 1s\n  timeout client 30s\n  timeout server 30s\n  retries 3\n  option redispatch\n  timeout check 10s\n\
             frontend front\n  bind {address}\n  default_backend replicas\n\
             backend replicas\n  balance roundrobin\n  option httpchk GET /readyz\n\
             \x20 default-server inter 1s fall 2 rise 1\n{servers}\
             frontend statistics\n  bind {statistics}\n  stats enable\n  stats uri /\n"
        );
        std::fs::write(&settings, text).expect("its settings");
        let process = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.tools/bin/haproxy"))
            .args(["-db", "-f"])
            .arg(&settings)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(folder.path().join("log")).expect("its log"))
            .spawn()
            .expect("haproxy: run scripts/setup test");
        Self { address, statistics, process, _folder: folder }
    }

    /// Returns once it sends requests to so many replicas.
    pub async fn uses(&self, replicas: usize, any: &Served) {
        let time = std::time::Duration::from_secs(30);
        within(time, &format!("haproxy uses {replicas} replicas"), async || {
            let table = any.try_get(self.statistics, "/;csv").await.unwrap_or_default().1;
            let up = |line: &&str| line.starts_with("replicas,r") && line.split(',').nth(17) == Some("UP");
            table.lines().filter(up).count() == replicas
        })
        .await;
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        let _ = (self.process.kill(), self.process.wait());
    }
}
