//! The accept loop: connections in, each served by one front until it closes, meets a deadline or the process stops.
//!
//! Bounded: at most `max_connections` at once; a newcomer to a full listener takes the place of who waits longest without an
//! open request, or is told 503. Each connection has a deadline for whatever it waits for. On shutdown those that the system
//! has let in are the last to be accepted; each open one is told and finishes its requests.

mod bind;
mod body;
mod bounds;
mod connection;
mod front;
mod http2;
mod open;
mod stream;
mod supervise;
pub mod tls;
mod watch;

use std::{convert::Infallible, io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use tokio::net::{TcpListener, TcpStream};

pub use self::{
    bind::bind,
    body::BodyTimeout,
    bounds::{Config, Http2},
    front::{Answers, Early, Front, Head},
};
use self::{
    connection::{Connection, Door},
    open::{Open, Place},
    supervise::Supervised,
    watch::{End, Watch},
};
use super::{lifecycle::Lifecycle, metrics};

/// After a failed accept (out of file descriptors) the loop waits this long, so that it does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A newcomer waits so long for the place of one that was sent away; its task needs microseconds.
const ROOM_PATIENCE: Duration = Duration::from_millis(250);

/// What a newcomer gets for whom there is no place. It may not be read: its request was not waited for.
const FULL: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// Why a listener cannot start.
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
    /// The address cannot be opened.
    #[error("{setting}: cannot listen on {address}: {source}")]
    Bind {
        /// The setting that names the address.
        setting: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// A certificate or key that cannot be used.
    #[error("{setting}: {} cannot be used: {reason}", path.display())]
    Tls {
        /// The setting that names the file.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// Serves `front` on `listener` until the lifecycle stops, then lets open requests finish.
///
/// # Errors
/// Never; the signature is that of a background task.
pub async fn serve_task(
    listener: TcpListener,
    front: impl Into<Front>,
    config: Config,
    lifecycle: Lifecycle,
) -> Result<(), Infallible> {
    let (stopping, stopped) = (lifecycle.stopping(), lifecycle.stopped());
    let ends: Vec<_> = End::ALL.iter().map(|end| end.label()).collect();
    metrics::describe_connections(config.door, &ends);
    let door = Arc::new(Door { front: front.into(), config: Arc::new(config), lifecycle });
    let open = Arc::new(Open::default());
    loop {
        let accepted = tokio::select! {
            () = stopping.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => admit(stream, peer, &door, &open).await,
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, door = door.config.door, "cannot accept connections");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    open.close();
    admit_the_last(listener, &door, &open).await;
    if stopped.run_until_cancelled(open.emptied()).await.is_none() {
        open.cut();
    }
    Ok(())
}

/// Whom the system has already let in is served too; dropping the listener would reset them. The system itself is asked: the runtime
/// may not have heard of them yet.
async fn admit_the_last(listener: TcpListener, door: &Arc<Door>, open: &Arc<Open>) {
    let Ok(listener) = listener.into_std() else { return };
    // More cannot have been waiting; who comes meanwhile must not keep the listener open.
    for _ in 0..=bind::BACKLOG {
        tokio::task::consume_budget().await;
        match listener.accept().and_then(|(stream, peer)| Ok((into_async(stream)?, peer))) {
            Ok((stream, peer)) => admit(stream, peer, door, open).await,
            Err(error) if is_of_one_connection(&error) => {}
            // Nobody is left, or nobody more can be let in.
            Err(_) => return,
        }
    }
}

fn into_async(stream: std::net::TcpStream) -> io::Result<TcpStream> {
    stream.set_nonblocking(true)?;
    TcpStream::from_std(stream)
}

/// Whether only the connection failed that was to be accepted.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// Starts to serve one connection, or refuses it.
async fn admit(stream: TcpStream, peer: SocketAddr, door: &Arc<Door>, open: &Arc<Open>) {
    let config = &door.config;
    let watch = Arc::new(Watch::new(config.tls.is_some()));
    let Some(place) = find_place(&watch, open, config.max_connections).await else {
        metrics::record_connection_refused(config.door);
        if config.tls.is_none() {
            let _ = stream.try_write(FULL);
        }
        return;
    };
    if set_options(&stream, config).is_err() {
        return;
    }
    let counted = metrics::OpenConnection::start(config.door);
    let connection = Connection { door: Arc::clone(door), peer, watch: Arc::clone(&watch) }.serve(stream);
    let supervised = Supervised::new(connection, watch, Arc::clone(config));
    drop(door.lifecycle.spawn_detached(async move {
        counted.end(supervised.await.label());
        drop(place);
    }));
}

async fn find_place(watch: &Arc<Watch>, open: &Arc<Open>, most: usize) -> Option<Place> {
    if let Some(place) = open.enter(watch, most) {
        return Some(place);
    }
    if open.make_room() > 0 {
        open.wait_for_room(most, ROOM_PATIENCE).await;
    }
    open.enter(watch, most)
}

fn set_options(stream: &TcpStream, config: &Config) -> io::Result<()> {
    // Answers are written whole; waiting for more bytes would only add up to 40 ms.
    stream.set_nodelay(true)?;
    // What the system holds for a caller that does not read, or is gone, is given up like what we hold.
    #[cfg(target_os = "linux")]
    socket2::SockRef::from(stream).set_tcp_user_timeout(Some(config.write_timeout))?;
    Ok(())
}
