//! Heads and bodies that are too much or no good, over real sockets: each gets its 4xx, and nothing breaks.

use std::{fmt::Write as _, net::SocketAddr};

use doc_server::runtime::listen::Config;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{connect, read_answer};
use crate::harness::{TestApp, fixtures::GUIDE};

const CAP: usize = 16 * 1024;

/// Writes everything and reads until the server closes, or the answer is there.
async fn send(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = connect(address).await;
    let (mut reader, mut writer) = stream.split();
    // A server that has refused may close before it has read all of it; what it said must be read before that.
    let writing = async { drop(writer.write_all(request).await) };
    tokio::join!(writing, read_answer(&mut reader)).1
}

fn post(body: &[u8], more: &str) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "POST /api/search HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n{more}\r\n"
    );
    [head.as_bytes(), body].concat()
}

fn chunked(body: &[u8]) -> Vec<u8> {
    let mut request =
        b"POST /api/search HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
            .to_vec();
    for chunk in body.chunks(1_000) {
        request.extend(format!("{:x}\r\n", chunk.len()).as_bytes());
        request.extend(chunk);
        request.extend(b"\r\n");
    }
    request.extend(b"0\r\n\r\n");
    request
}

/// A search whose body has exactly so many bytes.
fn search_of(length: usize) -> Vec<u8> {
    let mut body = b"{\"query\":\"pool\"}".to_vec();
    body.resize(length, b' ');
    body
}

async fn app() -> (TestApp, SocketAddr) {
    let app = TestApp::builder().with_max_body_bytes(CAP).start().await;
    app.ingest(&GUIDE, "guide", "1.0.0").await;
    let address = app.listen().await;
    (app, address)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_of_the_cap_is_read_and_one_byte_more_is_refused() {
    let (_app, address) = app().await;
    for (request, status) in [
        (post(&search_of(CAP), ""), 200),
        (post(&search_of(CAP + 1), ""), 413),
        (chunked(&search_of(CAP)), 200),
        (chunked(&search_of(CAP + 1)), 413),
        // Much more than the sockets hold: refused while it is still being sent.
        (post(&search_of(8 * 1024 * 1024), ""), 413),
        (chunked(&search_of(8 * 1024 * 1024)), 413),
    ] {
        let answer = send(address, &request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{} bytes: {answer}", request.len());
        assert!(status == 200 || answer.contains("body_too_large"), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_says_it_is_too_long_is_refused_before_it_is_sent() {
    let (_app, address) = app().await;
    let head = format!(
        "POST /api/search HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\nexpect: 100-continue\r\n\r\n",
        CAP + 1
    );
    let answer = send(address, head.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    let head = head.replace(&(CAP + 1).to_string(), "16");
    let mut stream = connect(address).await;
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut interim = [0; 25];
    stream.read_exact(&mut interim).await.unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"{\"query\":\"pool\"}").await.unwrap();
    assert!(read_answer(&mut stream).await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_of_too_many_or_too_long_fields_is_refused() {
    let (_app, address) = app().await;
    let with = |fields: usize, length: usize| {
        let mut head = "GET /api/sources HTTP/1.1\r\nhost: x\r\n".to_owned();
        for field in 1..fields {
            let _ = write!(head, "x-{field}: {}\r\n", "y".repeat(length));
        }
        head + "\r\n"
    };
    let cap = Config::default().max_header_bytes;
    for (head, status) in [
        (with(100, 1), 200),
        (with(101, 1), 431),
        (with(2, cap / 2), 200),
        (with(2, cap), 431),
        (with(2, 4 * 1024 * 1024), 431),
        (format!("GET /api/search?query=x&{} HTTP/1.1\r\nhost: x\r\n\r\n", "y".repeat(cap)), 431),
    ] {
        let answer = send(address, head.as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{} bytes: {answer}", head.len());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_are_no_search_are_refused_and_break_nothing() {
    let (app, address) = app().await;
    let deep = format!("{{\"query\":{}{}}}", "[".repeat(8_000), "]".repeat(8_000));
    let gzip = [&b"\x1f\x8b\x08\0\0\0\0\0\0\x03"[..], &[0xff; 1_000]].concat();
    for (name, body, more) in [
        ("deep", deep.as_bytes(), ""),
        ("deep, never closed", "[".repeat(10_000).as_bytes(), ""),
        ("no number", b"{\"query\":\"x\",\"alpha\":NaN}", ""),
        ("beyond all numbers", b"{\"query\":\"x\",\"alpha\":1e400}", ""),
        ("NUL written out", b"{\"query\":\"a\\u0000b\"}", ""),
        ("NUL as it is", b"{\"query\":\"a\0b\"}", ""),
        ("no UTF-8", b"{\"query\":\"\xff\xfe\"}", ""),
        ("gzip", &gzip, "content-encoding: gzip\r\n"),
        ("gzip that is called JSON", &gzip, ""),
    ] {
        let answer = send(address, &post(body, more)).await;
        assert!(answer.starts_with("HTTP/1.1 4"), "{name}: {answer}");
        assert!(answer.contains("application/problem+json"), "{name}: {answer}");
    }
    for broken in [
        &b"POST /api/search HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"[..],
        b"POST /api/search HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffff1\r\n",
        b"POST /api/search HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
        b"POST /api/search HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n{}",
        b"POST /api/search HTTP/1.1\r\nhost: x\r\ntransfer-encoding: gzip\r\n\r\n",
    ] {
        let answer = send(address, broken).await;
        assert!(answer.starts_with("HTTP/1.1 4"), "{}: {answer}", String::from_utf8_lossy(broken));
    }
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /api/health HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    assert!(read_answer(&mut stream).await.starts_with("HTTP/1.1 200"));
    assert_eq!(app.get("/api/health").await.status.as_u16(), 200);
}
