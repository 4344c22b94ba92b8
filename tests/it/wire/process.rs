//! The real process under attack, with good callers beside it whose answers are watched.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use doc_server::runtime::lifecycle::Lifecycle;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::harness::{
    TestApp,
    fixtures::GUIDE,
    process::{Running, doc_server, free_addresses},
    within,
};

/// Starting takes a second, more on a busy machine.
const START: Duration = Duration::from_mins(1);

/// A running `doc-server serve` with something to search.
pub struct Server {
    running: Running,
    pub public: SocketAddr,
    private: SocketAddr,
    /// Has its database.
    _app: TestApp,
}

impl Server {
    pub async fn start(settings: &[(&str, &str)]) -> Self {
        let app = TestApp::start().await;
        app.ingest(&GUIDE, "guide", "1.0.0").await;
        let (public, private) = free_addresses();
        let mut command = doc_server(["serve"]);
        command
            .env("DOC_SERVER_DATABASE_URL", app.database.url())
            .env("DOC_SERVER_EMBED_PROVIDER", "fake")
            .env("DOC_SERVER_LOG_LEVEL", "warn")
            .env("DOC_SERVER_BIND", public.to_string())
            .env("DOC_SERVER_ADMIN_BIND", private.to_string())
            .envs(settings.iter().copied());
        let server = Self { running: Running::start(&mut command), public, private, _app: app };
        within(START, "the server is ready", async || {
            server.admin("/readyz").await.is_some_and(|text| text.contains("200 OK"))
        })
        .await;
        server
    }

    async fn admin(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(self.private).await.ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await.ok()?;
        Some(text)
    }

    /// The sum of a metric's series that contain `label`.
    pub async fn metric(&self, name: &str, label: &str) -> f64 {
        let text = self.admin("/metrics").await.expect("the metrics");
        let series = text.lines().filter(|line| line.starts_with(name) && line.contains(label));
        series.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Resident memory, MB.
    pub fn memory(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.running.id())).expect("a running process");
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
        resident.trim().trim_end_matches(" kB").parse::<f64>().expect("a number") / 1_024.0
    }
}

/// What good callers saw.
#[derive(Default)]
pub struct Seen {
    pub answered: usize,
    pub failed: Vec<String>,
    times: Vec<Duration>,
}

impl Seen {
    /// The time within which this part of all was answered.
    pub fn quantile(&self, part: f64) -> Duration {
        let mut times = self.times.clone();
        times.sort_unstable();
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rank"
        )]
        let rank = (times.len() as f64 * part) as usize;
        times.get(rank.min(times.len().saturating_sub(1))).copied().unwrap_or_default()
    }
}

/// Good callers: ten connections, each asking ten times a second; until stopped.
pub struct Traffic {
    seen: Arc<Mutex<Seen>>,
    lifecycle: Lifecycle,
}

/// Connections of [`Traffic`].
pub const CALLERS: u32 = 10;

impl Traffic {
    pub fn start(address: SocketAddr) -> Self {
        let traffic = Self { seen: Arc::default(), lifecycle: Lifecycle::new() };
        for caller in 0..CALLERS {
            let (seen, stopping) = (Arc::clone(&traffic.seen), traffic.lifecycle.stopping());
            drop(traffic.lifecycle.spawn_detached(async move {
                stopping.run_until_cancelled(tokio::time::sleep(Duration::from_millis(10) * caller)).await;
                let mut ticks = tokio::time::interval(Duration::from_millis(100));
                let mut stream = None;
                while stopping.run_until_cancelled(ticks.tick()).await.is_some() {
                    let began = Instant::now();
                    let result = tokio::time::timeout(Duration::from_secs(10), ask(&mut stream, address)).await;
                    let mut seen = seen.lock().unwrap();
                    match result {
                        Ok(Ok(())) => {
                            seen.answered += 1;
                            seen.times.push(began.elapsed());
                        }
                        Ok(Err(error)) => seen.failed.push(error.to_string()),
                        Err(_) => seen.failed.push("no answer within 10 s".to_owned()),
                    }
                }
            }));
        }
        traffic
    }

    /// Ends it.
    pub async fn stop(self) -> Seen {
        self.lifecycle.stop();
        crate::harness::eventually("every caller has stopped", async || self.lifecycle.tasks() == 0).await;
        std::mem::take(&mut *self.seen.lock().unwrap())
    }

    /// What was seen since the last time.
    pub fn take(&self) -> Seen {
        std::mem::take(&mut *self.seen.lock().unwrap())
    }
}

/// One search over a connection that is kept.
async fn ask(kept: &mut Option<TcpStream>, address: SocketAddr) -> std::io::Result<()> {
    let mut stream = match kept.take() {
        Some(stream) => stream,
        None => TcpStream::connect(address).await?,
    };
    stream.write_all(b"GET /api/search?query=pool HTTP/1.1\r\nhost: x\r\n\r\n").await?;
    let (mut answer, mut buffer) = (Vec::new(), [0; 16 * 1024]);
    loop {
        let read = stream.read(&mut buffer).await?;
        if read == 0 {
            return Err(std::io::Error::other("closed"));
        }
        answer.extend_from_slice(&buffer[..read]);
        let text = String::from_utf8_lossy(&answer);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()?.parse::<usize>().ok());
        if length.is_some_and(|length| body.len() >= length) {
            if !head.starts_with("HTTP/1.1 200") {
                return Err(std::io::Error::other(head.lines().next().unwrap_or_default().to_owned()));
            }
            break;
        }
    }
    *kept = Some(stream);
    Ok(())
}
