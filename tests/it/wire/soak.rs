//! Two thousand bad connections of each kind at once, against the real process: all are closed in time, and good callers notice nothing.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use doc_server::runtime::lifecycle::Lifecycle;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

use super::process::{CALLERS, Server, Traffic};
use crate::harness::within;

/// Of each kind.
const SOCKETS: usize = 2_000;

/// Those that send no whole request are closed in this time, and half as much again on a busy machine.
const HEAD: Duration = Duration::from_secs(10);

/// Those that send no whole body, or do not read.
const BODY: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Silent,
    HalfHead,
    HalfPreface,
    SlowBody,
    NeverReading,
}

impl Kind {
    fn deadline(self) -> Duration {
        if matches!(self, Self::SlowBody | Self::NeverReading) { BODY } else { HEAD }
    }
}

/// How one bad connection ended.
struct End {
    /// How long it was open; nothing when it cannot know.
    took: Option<Duration>,
    /// Whether it got an answer that says why.
    told: bool,
    /// Kept open by its owner, who does nothing with it.
    held: Option<TcpStream>,
}

/// One bad connection until the server ends it.
async fn misbehave(address: SocketAddr, kind: Kind) -> std::io::Result<End> {
    let socket = TcpSocket::new_v4()?;
    if kind == Kind::NeverReading {
        socket.set_recv_buffer_size(4_096)?;
    }
    let mut stream = socket.connect(address).await?;
    let began = Instant::now();
    match kind {
        Kind::Silent => {}
        Kind::HalfHead => stream.write_all(b"GET /api/search?query=pool HTTP/1.1\r\nhost: x\r\n").await?,
        Kind::HalfPreface => stream.write_all(b"PRI * HT").await?,
        Kind::SlowBody => return slow_body(stream, began).await,
        Kind::NeverReading => {
            // 48 KB: most of it stays in the system, which tells only the server when it gives up.
            stream.write_all(&b"GET /assets/search.js HTTP/1.1\r\nhost: x\r\n\r\n".repeat(3)).await?;
            return Ok(End { took: None, told: false, held: Some(stream) });
        }
    }
    let mut said = Vec::new();
    let _ = stream.read_to_end(&mut said).await;
    Ok(End { took: Some(began.elapsed()), told: !said.is_empty(), held: None })
}

async fn slow_body(stream: TcpStream, began: Instant) -> std::io::Result<End> {
    let (mut reader, mut writer) = stream.into_split();
    let head = "POST /api/search HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n";
    writer.write_all(head.as_bytes()).await?;
    let writing = async {
        while writer.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        std::future::pending::<()>().await;
    };
    let mut said = Vec::new();
    tokio::select! {
        () = writing => {}
        _ = reader.read_to_end(&mut said) => {}
    }
    Ok(End { took: Some(began.elapsed()), told: said.starts_with(b"HTTP/1.1 408"), held: None })
}

async fn soak(server: &Server, traffic: &Traffic, kind: Kind, usual: Duration) {
    let lifecycle = Lifecycle::new();
    let memory = server.memory();
    let mut tasks = Vec::new();
    let began = Instant::now();
    for number in 0..SOCKETS {
        tasks.push(lifecycle.spawn_detached(misbehave(server.public, kind)));
        // Two seconds for all: what is measured is how they are borne, not how fast they come.
        if number % 20 == 19 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    let opened = began.elapsed();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (held, used) = (server.metric("doc_server_connections{", "api").await, server.memory() - memory);
    let mut ends = Vec::new();
    for task in tasks {
        ends.push(task.await.unwrap().unwrap_or_else(|error| panic!("{kind:?}: {error}")));
    }
    within(2 * kind.deadline(), "the server holds good connections only", async || {
        server.metric("doc_server_connections{", "api").await <= f64::from(CALLERS)
    })
    .await;
    let seen = traffic.take();
    let longest = ends.iter().filter_map(|end| end.took).max().unwrap_or_else(|| began.elapsed());
    let told = ends.iter().filter(|end| end.told).count();
    drop(ends.into_iter().filter_map(|end| end.held).collect::<Vec<_>>());
    println!(
        "{kind:?}: {SOCKETS} opened in {opened:.1?}, {held} held after 2 s with {used:.0} MB more, the last closed after {longest:.1?}, \
         {told} were told why; good callers: {} answered, {} failed, p99 {:.1?} (alone {usual:.1?})",
        seen.answered,
        seen.failed.len(),
        seen.quantile(0.99),
    );
    assert!(longest <= kind.deadline() * 3 / 2, "{kind:?}: {longest:?}");
    assert!(seen.failed.is_empty(), "{kind:?}: {:?}", &seen.failed[..seen.failed.len().min(5)]);
    assert!(kind != Kind::SlowBody || told == SOCKETS, "{told} of {SOCKETS} got 408");
}

/// How many files this process, and the server it starts, may open.
fn open_files() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    line.split_whitespace().nth(3).unwrap().parse().unwrap_or(usize::MAX)
}

#[ignore = "long: two thousand bad connections of each of five kinds"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_connections_are_closed_and_good_callers_notice_nothing() {
    assert!(open_files() > 2 * SOCKETS, "raise the number of open files first: ulimit -n 5000");
    for (cleartext, slow_readers) in [("false", SOCKETS), ("true", 0)] {
        let server = Server::start(&[("DOC_SERVER_LISTEN_HTTP2_CLEARTEXT", cleartext)]).await;
        let traffic = Traffic::start(server.public);
        tokio::time::sleep(Duration::from_secs(5)).await;
        let usual = traffic.take().quantile(0.99);
        println!("HTTP/2 in the clear: {cleartext}");
        let all = [Kind::Silent, Kind::HalfHead, Kind::HalfPreface, Kind::SlowBody, Kind::NeverReading];
        // The last two do not depend on the setting.
        for kind in all.into_iter().take(if cleartext == "true" { 3 } else { 5 }) {
            soak(&server, &traffic, kind, usual).await;
        }
        for (reason, number) in [("first_byte", SOCKETS), ("header", 2 * SOCKETS), ("slow_reader", slow_readers)] {
            let label = format!("door=\"api\",reason=\"{reason}\"");
            let closed = server.metric("doc_server_connections_closed_total{", &label).await;
            #[expect(clippy::cast_precision_loss, reason = "a few thousand")]
            let expected = number as f64;
            assert!((closed - expected).abs() < 0.5, "{closed} were closed for {reason}, not {expected}");
        }
        traffic.stop().await;
    }
}
