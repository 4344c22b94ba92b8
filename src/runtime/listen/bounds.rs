//! What one listener allows, with the reason for each default.

use std::{sync::Arc, time::Duration};

use super::tls::Certificates;

/// The bounds of one listener.
#[derive(Clone, Debug)]
pub struct Config {
    /// What its metrics are called: `api` or `admin`.
    pub door: &'static str,
    /// Connections served at once. 10,000 is what Envoy's guide for the edge allows, and what one process can hold with the usual
    /// limit of 20,000 files or more.
    pub max_connections: usize,
    /// From the accepted connection to its first byte. A caller has its request ready when it connects; those who
    /// connect ahead of need (browsers) connect again. Together with the next one at most 10 s.
    pub first_byte_timeout: Duration,
    /// From the first byte of a request to the end of its head. A head is one or two packets: 5 s outlast two lost ones.
    pub header_timeout: Duration,
    /// How long a connection is kept between requests. Longer than the 60 s that proxies keep theirs, or a proxy would
    /// send on a connection that is being closed.
    pub idle_timeout: Duration,
    /// From the head of a request to the end of its body. 1 MiB takes 8 s at 1 Mbit/s.
    pub body_timeout: Duration,
    /// How long a caller may take nothing of an answer that waits for it.
    pub write_timeout: Duration,
    /// The largest request head. A query of 2,000 characters takes 18 KiB when each is three bytes, written as `%XX`.
    pub max_header_bytes: usize,
    /// HTTP/2.
    pub http2: Http2,
    /// Encrypts when it is there.
    pub tls: Option<Arc<Certificates>>,
    /// From the accepted connection to the end of the TLS handshake. Two round trips: as long as a head.
    pub handshake_timeout: Duration,
}

/// HTTP/2's own bounds: those of Envoy's guide for the edge.
#[derive(Clone, Copy, Debug)]
pub struct Http2 {
    /// Spoken with callers who agree on it in the TLS handshake.
    pub negotiated: bool,
    /// Spoken without TLS with callers who begin with it ("prior knowledge"). Off: few do, and the sniffing costs every connection a read.
    pub cleartext: bool,
    /// Requests open at once on one connection.
    pub max_streams: u32,
    /// Bytes of one request body on their way. One request of 64 KiB fits; a slow handler holds no more.
    pub stream_window: u32,
    /// Bytes of all bodies of a connection on their way.
    pub connection_window: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            door: "api",
            max_connections: 10_000,
            first_byte_timeout: Duration::from_secs(5),
            header_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(75),
            body_timeout: Duration::from_secs(20),
            write_timeout: Duration::from_secs(20),
            max_header_bytes: 32 * 1024,
            http2: Http2::default(),
            tls: None,
            handshake_timeout: Duration::from_secs(5),
        }
    }
}

impl Default for Http2 {
    fn default() -> Self {
        Self {
            negotiated: true,
            cleartext: false,
            max_streams: 100,
            stream_window: 64 * 1024,
            connection_window: 1024 * 1024,
        }
    }
}
