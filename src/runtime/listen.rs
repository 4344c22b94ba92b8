//! The accept loop: connections in, each served by one router until it closes or the process stops.
//!
//! Bounded: at most `max_connections` at once (further ones wait in the kernel's backlog), and a request head must
//! arrive within `header_timeout`. On shutdown no connection is accepted, each open one finishes its request.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, extract::ConnectInfo};
use hyper::server::conn::http1;
use hyper_util::{rt::TokioIo, rt::TokioTimer, server::graceful::GracefulShutdown, service::TowerToHyperService};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tower::ServiceExt;

use super::lifecycle::Lifecycle;

/// After a failed accept (out of file descriptors) the loop waits this long, so that it does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The bounds of one listener.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Connections served at once. 10,000 is what one process can hold with the usual limit of 65,536 files.
    pub max_connections: usize,
    /// From the first byte of a request to the end of its head, and how long an idle connection is kept. Longer than
    /// the 60 s that proxies keep theirs, or a proxy would send on a connection that is being closed.
    pub header_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self { max_connections: 10_000, header_timeout: Duration::from_secs(75) }
    }
}

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Somebody else has the port.
    #[error("{setting}: {address} is taken{holder}; stop that process or set {setting} to another address")]
    Taken {
        /// The setting that names the address.
        setting: &'static str,
        /// The address.
        address: SocketAddr,
        /// ` by PROGRAM (process N)` where the system tells.
        holder: String,
    },
    /// Anything else.
    #[error("{setting}: cannot listen on {address}: {source}")]
    Bind {
        /// The setting that names the address.
        setting: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Opens `address`, named by `setting` in errors.
///
/// # Errors
/// When the port is taken (by whom, where the system tells) or the address is not ours.
pub async fn bind(setting: &'static str, address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|source| match source.kind() {
        std::io::ErrorKind::AddrInUse => Error::Taken { setting, address, holder: holder_of(address.port()) },
        _ => Error::Bind { setting, address, source },
    })
}

/// Serves `router` on `listener` until the lifecycle stops, then lets open requests finish.
///
/// # Errors
/// Never; the signature is that of a background task.
pub async fn serve_task(
    listener: TcpListener,
    router: Router,
    config: Config,
    lifecycle: Lifecycle,
) -> Result<(), Infallible> {
    let stopping = lifecycle.stopping();
    let permits = Arc::new(Semaphore::new(config.max_connections));
    let graceful = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            () = stopping.cancelled() => break,
            accepted = accept(&listener, &permits) => accepted,
        };
        let Ok((stream, peer, permit)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let connection = graceful.watch(connection(stream, peer, router.clone(), config));
        let stopped = lifecycle.stopped();
        lifecycle.spawn_detached(async move {
            // A connection that breaks is the client's affair: its requests are logged by the router.
            let _ = stopped.run_until_cancelled(connection).await;
            drop(permit);
        });
    }
    drop(listener);
    let stopped = lifecycle.stopped();
    tokio::select! {
        () = graceful.shutdown() => {}
        () = stopped.cancelled() => {}
    }
    Ok(())
}

async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> Result<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit), std::io::Error> {
    let permit = Arc::clone(permits).acquire_owned().await.map_err(std::io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    // Answers are written whole; waiting for more bytes would only add up to 40 ms.
    stream.set_nodelay(true)?;
    Ok((stream, peer, permit))
}

fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    config: Config,
) -> impl hyper_util::server::graceful::GracefulConnection<Error = hyper::Error> {
    let service = router.map_request(move |mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        request.map(axum::body::Body::new)
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(config.header_timeout)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service))
}

/// ` by PROGRAM (process N)` for the process of this machine that listens on `port`, or nothing where `/proc`
/// does not tell (another user's process, another system).
fn holder_of(port: u16) -> String {
    let inodes = listening_inodes(port);
    let Ok(processes) = std::fs::read_dir("/proc") else { return String::new() };
    for process in processes.flatten() {
        let Some(id) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let Ok(files) = std::fs::read_dir(process.path().join("fd")) else { continue };
        let holds = files
            .flatten()
            .filter_map(|file| std::fs::read_link(file.path()).ok())
            .any(|target| inodes.iter().any(|inode| target.as_os_str() == format!("socket:[{inode}]").as_str()));
        if holds {
            let name = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return format!(" by {} (process {id})", name.trim());
        }
    }
    String::new()
}

/// The inodes of the sockets that listen on `port`, from the kernel's tables (state 0A is LISTEN).
fn listening_inodes(port: u16) -> Vec<String> {
    let suffix = format!(":{port:04X}");
    ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| std::fs::read_to_string(table).ok())
        .flat_map(|table| {
            table
                .lines()
                .map(|line| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
                .filter(|fields| fields.len() > 9 && fields[1].ends_with(&suffix) && fields[3] == "0A")
                .map(|mut fields| fields.swap_remove(9))
                .collect::<Vec<_>>()
        })
        .collect()
}
