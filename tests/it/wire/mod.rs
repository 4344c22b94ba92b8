//! Where the wire matters: connections that are kept, broken requests, deadlines, TLS, HTTP/2, abuse, and an orderly end.

mod abuse;
mod bodies;
mod deadlines;
mod door;
mod http2;
mod process;
mod soak;
mod tls;

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::harness::{TestApp, eventually, fixtures::GUIDE};

async fn connect(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).await.unwrap()
}

/// Reads one answer with its body, by its content length.
async fn read_answer<S: AsyncRead + Unpin>(stream: &mut S) -> String {
    let mut answer = Vec::new();
    loop {
        let mut buffer = [0; 4096];
        let read = stream.read(&mut buffer).await.unwrap();
        answer.extend_from_slice(&buffer[..read]);
        let text = String::from_utf8_lossy(&answer).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length =
                head.to_lowercase().split("content-length: ").nth(1).and_then(|rest| rest.lines().next()?.parse().ok());
            if read == 0 || length.is_none_or(|length: usize| body.len() >= length) {
                return text;
            }
        }
        assert!(read > 0, "closed early: {text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_serves_one_request_after_the_other() {
    let app = TestApp::start().await;
    app.ingest(&GUIDE, "guide", "1.0.0").await;
    let mut stream = connect(app.listen().await).await;
    for path in ["/api/search?query=pool", "/api/sources", "/nothing", "/api/health"] {
        stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
        let answer = read_answer(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 "), "{path}: {answer}");
        assert!(answer.contains("x-request-id: "), "{path}: {answer}");
    }
    stream.write_all(b"HEAD /api/sources HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).await.unwrap();
    assert!(rest.starts_with("HTTP/1.1 200") && rest.ends_with("\r\n\r\n"), "{rest}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_requests_harm_nobody_else() {
    let app = TestApp::start().await;
    let address = app.listen().await;
    for broken in [
        &b"\0\0\0\0"[..],
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /api/search HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{",
        b"POST /api/search HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /api/search?query=\xff HTTP/1.1\r\nhost: x\r\n\r\n",
    ] {
        let mut stream = connect(address).await;
        stream.write_all(broken).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await.expect("an end");
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    let mut stream = connect(address).await;
    stream.write_all(b"GET /api/health HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    assert!(read_answer(&mut stream).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_request_is_answered_before_the_server_leaves() {
    let app = TestApp::start().await;
    app.ingest(&GUIDE, "guide", "1.0.0").await;
    let address = app.listen().await;
    let (mut idle, mut busy) = (connect(address).await, connect(address).await);
    let before = app.probe.texts();
    app.probe.hold();
    busy.write_all(b"GET /api/search?query=pool HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    eventually("the request is being worked on", async || app.probe.texts() > before).await;
    app.lifecycle.stop();
    eventually("nobody new is let in", async || TcpStream::connect(address).await.is_err()).await;
    app.probe.release();
    let answer = read_answer(&mut busy).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"degraded\":false"), "{answer}");
    eventually("every connection has ended", async || app.lifecycle.tasks() == 0).await;
    assert_eq!(idle.read(&mut [0]).await.unwrap_or(0), 0, "idle connections are closed at once");
}
