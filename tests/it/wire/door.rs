//! A listener alone, with a router of the test's own: what the listener does needs no database.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    routing::{get, post},
};
use doc_server::runtime::{
    lifecycle::Lifecycle,
    listen::{self, Config},
};
use http_body_util::BodyExt;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    sync::Notify,
};

use crate::harness::{eventually, recorder};

/// Larger than what the system takes for a caller that does not read.
pub const LARGE: usize = 64 * 1024 * 1024;

/// Smaller than that: all of it leaves the process at once.
pub const MEDIUM: usize = 256 * 1024;

/// Deadlines that a test waits for, far enough apart to be told from one another.
pub const SHORT: Duration = Duration::from_millis(250);

/// Longer than any test.
pub const LONG: Duration = Duration::from_mins(10);

/// A running listener; its tasks must end with it.
pub struct Door {
    pub address: SocketAddr,
    pub lifecycle: Lifecycle,
    /// Lets `/wait` answer.
    pub release: Arc<Notify>,
}

/// No deadline that a test would meet unless it sets it.
pub fn patient() -> Config {
    Config {
        first_byte_timeout: LONG,
        header_timeout: LONG,
        idle_timeout: LONG,
        body_timeout: LONG,
        write_timeout: LONG,
        handshake_timeout: LONG,
        ..Config::default()
    }
}

impl Door {
    /// Serves `/` (text), `/large`, `/medium`, `/wait` (until released) and `POST /echo`.
    pub async fn open(config: Config) -> Self {
        recorder();
        let release = Arc::new(Notify::new());
        let released = Arc::clone(&release);
        let router = Router::new()
            .route("/", get(|| async { "here" }))
            .route("/large", get(|| async { vec![b'x'; LARGE] }))
            .route("/medium", get(|| async { vec![b'x'; MEDIUM] }))
            .route("/ignore", post(|| async { "unread" }))
            .route(
                "/echo",
                post(|body: Body| async {
                    body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default()
                }),
            )
            .route(
                "/wait",
                get(move || async move {
                    released.notified().await;
                    "waited"
                }),
            );
        let listener = listen::bind("bind", ([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let lifecycle = Lifecycle::new();
        lifecycle.spawn("door", listen::serve_task(listener, router, config, lifecycle.clone()));
        Self { address, lifecycle, release }
    }

    /// A connection to it.
    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Connections it holds: one task each, beside the accept loop's.
    pub fn connections(&self) -> usize {
        self.lifecycle.tasks() - 1
    }

    /// Stops it; everything must end by itself.
    pub async fn close(self) {
        self.lifecycle.stop();
        eventually("every task of the listener has ended", async || self.lifecycle.tasks() == 0).await;
    }
}

/// Sends a head and reads the answer to `GET path`.
pub async fn ask<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, path: &str) -> String {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
    super::read_answer(stream).await
}

/// Waits until the server ends `stream`, and returns what it said last.
pub async fn until_closed<S: AsyncRead + Unpin>(stream: &mut S) -> String {
    let mut said = Vec::new();
    let reading = stream.read_to_end(&mut said);
    // A reset is an end too.
    let _ = tokio::time::timeout(crate::harness::PATIENCE, reading).await.expect("the server closes the connection");
    String::from_utf8_lossy(&said).into_owned()
}
