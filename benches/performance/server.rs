//! `doc-server serve` as its own process, as in production but for its log level, and what it tells of itself.

use std::{
    net::SocketAddr,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use doc_server::config::{EmbedProvider, Settings};

use crate::{Failure, http::Client};

/// A program that ends with the benchmark, however that ends.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Asked first: nginx's workers would outlive a master that is killed.
        let asked = Command::new("kill").args(["-s", "TERM", &self.0.id().to_string()]).status();
        let started = Instant::now();
        while asked.is_ok() && started.elapsed() < Duration::from_secs(20) {
            if !matches!(self.0.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = (self.0.kill(), self.0.wait());
    }
}

/// A running server.
pub struct Server {
    running: Running,
    pub address: SocketAddr,
    admin: SocketAddr,
}

impl Server {
    /// Starts it with more settings; returns once it answers.
    pub fn start(settings: &Settings, more: &[(&str, &str)]) -> Result<Self, Failure> {
        let [address, admin] = [free_address()?, free_address()?];
        let provider = if settings.embed_provider == EmbedProvider::Fake { "fake" } else { "local" };
        let mut command = Command::new(env!("CARGO_BIN_EXE_doc-server"));
        command.arg("serve").env("DOC_SERVER_DATABASE_URL", &settings.database_url);
        command.env("DOC_SERVER_BIND", address.to_string()).env("DOC_SERVER_ADMIN_BIND", admin.to_string());
        // Nobody watches readiness here.
        command.env("DOC_SERVER_DRAIN_DELAY_S", "0");
        command.env("DOC_SERVER_EMBED_PROVIDER", provider).env("DOC_SERVER_LOG_LEVEL", "warn");
        // What another part asked must not be in memory already.
        command.env("DOC_SERVER_CACHE_WARM_SEARCHES", "0");
        command.env("DOC_SERVER_DATABASE_ACQUIRE_TIMEOUT_MS", settings.database_acquire_timeout_ms.to_string());
        command.envs(more.iter().copied());
        let running = Running(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit()).spawn()?);
        wait_for(address, "/api/health")?;
        Ok(Self { running, address, admin })
    }

    /// The sum of all its series that have this name and label.
    pub fn count(&self, name: &str, label: &str) -> Result<u64, Failure> {
        let mut client = Client::connect(self.admin)?;
        Ok(sum(&String::from_utf8_lossy(client.get("/metrics")?), name, label))
    }

    /// The private door.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Searches that it ran in the database, of both legs.
    pub fn searches(&self) -> Result<u64, Failure> {
        self.count("doc_server_index_searches_total", "")
    }

    /// Its process.
    pub fn process(&self) -> u32 {
        self.running.0.id()
    }

    /// Resident memory in megabytes.
    pub fn resident(&self) -> Result<f64, Failure> {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.running.0.id()))?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
        let kilobytes: f64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kilobytes / 1024.0)
    }
}

/// Processor seconds that a process and its children have used so far. Unlike rates, they hardly depend on what else the machine
/// does.
pub fn processor_seconds(process: u32) -> Result<f64, Failure> {
    /// The kernel counts in hundredths for everybody who reads.
    const TICKS: f64 = 100.0;
    let mut sum = 0.0;
    for entry in std::fs::read_dir("/proc")? {
        let Some(id) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let Ok(text) = std::fs::read_to_string(format!("/proc/{id}/stat")) else { continue };
        // After the name in brackets: state, parent, …, user and system time.
        let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let number = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).unwrap_or_default();
        let parent = fields.get(1).and_then(|field| field.parse::<u32>().ok());
        if id == process || parent == Some(process) {
            sum += (number(11) + number(12)) / TICKS;
        }
    }
    Ok(sum)
}

/// An address that was free just now.
pub fn free_address() -> Result<SocketAddr, Failure> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// Returns once `path` is answered with success.
pub fn wait_for(address: SocketAddr, path: &str) -> Result<(), Failure> {
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(30) {
        if Client::connect(address).and_then(|mut client| client.get(path).map(drop)).is_ok() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Err(format!("http://{address}{path} was not answered within 30 s").into())
}

/// The sum of all series in `text` that have this name and contain this label.
pub fn sum(text: &str, name: &str, label: &str) -> u64 {
    let of_name = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
    let values = text.lines().filter(of_name).filter(|line| line.contains(label));
    let sum: f64 = values.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts and sizes")]
    let whole = sum as u64;
    whole
}
