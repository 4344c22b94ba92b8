//! HTTP/2: with prior knowledge beside HTTP/1.1, its deadlines, and a farewell at the end.

use axum::body::Body;
use doc_server::runtime::{lifecycle::Lifecycle, listen::Config};
use http_body_util::BodyExt;
use hyper::{Request, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};

use super::door::{Door, SHORT, ask, patient, until_closed};
use crate::harness::{eventually, within};

/// What a caller begins with that knows.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Types of frames.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW: u8 = 8;

/// A real client on one connection.
pub struct Client {
    requests: http2::SendRequest<Body>,
    lifecycle: Lifecycle,
}

impl Client {
    pub async fn new<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S) -> Self {
        let (requests, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        let lifecycle = Lifecycle::new();
        drop(lifecycle.spawn_detached(connection));
        Self { requests, lifecycle }
    }

    /// The status and the body of `GET path`.
    pub async fn get(&mut self, path: &str) -> hyper::Result<(u16, String)> {
        let request = Request::get(format!("http://x{path}")).body(Body::empty()).unwrap();
        self.requests.ready().await?;
        let response = self.requests.send_request(request).await?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await?.to_bytes();
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    }
}

/// A connection on which the test writes and reads the frames itself.
struct Raw(TcpStream);

impl Raw {
    /// Says hello, with these settings (id, value).
    async fn connect(door: &Door, settings: &[(u16, u32)]) -> Self {
        let mut raw = Self(door.connect().await);
        let payload: Vec<u8> = settings
            .iter()
            .flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()[..]].concat())
            .collect();
        raw.0.write_all(PREFACE).await.unwrap();
        raw.write(SETTINGS, 0, 0, &payload).await;
        raw
    }

    async fn write(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()[..]].concat();
        self.0.write_all(&[&head, payload].concat()).await.unwrap();
    }

    /// `GET path`, ended and complete: fields of the static table, and the path and host written out.
    async fn get(&mut self, stream: u32, path: &str) {
        let mut fields = vec![0x82, 0x86, 0x04, u8::try_from(path.len()).unwrap()];
        fields.extend(path.as_bytes());
        fields.extend([0x01, 1, b'x']);
        self.write(HEADERS, 0x5, stream, &fields).await;
    }

    /// The next frame of a type, with pings answered on the way: its stream and payload. Nothing when the connection ends before it.
    async fn next(&mut self, wanted: u8) -> Option<(u32, Vec<u8>)> {
        loop {
            let mut head = [0; 9];
            let reading = tokio::time::timeout(crate::harness::PATIENCE, self.0.read_exact(&mut head));
            reading.await.expect("a frame, or the end").ok()?;
            let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
            self.0.read_exact(&mut payload).await.ok()?;
            if head[3] == PING && head[4] == 0 {
                self.write(PING, 1, 0, &payload).await;
            }
            if head[3] == wanted {
                return Some((u32::from_be_bytes([head[5], head[6], head[7], head[8]]), payload));
            }
        }
    }
}

fn cleartext(config: Config) -> Config {
    let mut config = config;
    config.http2.cleartext = true;
    config
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prior_knowledge_and_http1_are_served_at_one_door() {
    let door = Door::open(cleartext(patient())).await;
    let mut client = Client::new(door.connect().await).await;
    for _ in 0..10 {
        assert_eq!(client.get("/").await.unwrap(), (200, "here".to_owned()));
    }
    assert_eq!(client.get("/medium").await.unwrap().1.len(), super::door::MEDIUM);
    let mut old = door.connect().await;
    assert!(ask(&mut old, "/").await.ends_with("here"));
    // In pieces, as the network may deliver it.
    let mut slow = door.connect().await;
    for piece in ["G", "E", "T / HTTP/1.1\r\nhost: x\r\n", "\r\n"] {
        slow.write_all(piece.as_bytes()).await.unwrap();
        tokio::time::sleep(SHORT / 10).await;
    }
    assert!(super::read_answer(&mut slow).await.ends_with("here"));
    let mut other = door.connect().await;
    other.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nno").await.unwrap();
    other.write_all(&[0xff; 64]).await.unwrap();
    until_closed(&mut other).await;
    drop((client, old, slow));
    door.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_setting_it_is_not_served_in_the_clear() {
    let door = Door::open(patient()).await;
    let mut raw = Raw::connect(&door, &[]).await;
    assert_eq!(raw.next(SETTINGS).await, None);
    door.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn its_bounds_are_told_to_the_caller() {
    let door = Door::open(cleartext(patient())).await;
    let mut raw = Raw::connect(&door, &[]).await;
    let (_, payload) = raw.next(SETTINGS).await.unwrap();
    let settings: Vec<(u16, u32)> = payload
        .chunks(6)
        .map(|pair| (u16::from_be_bytes([pair[0], pair[1]]), u32::from_be_bytes([pair[2], pair[3], pair[4], pair[5]])))
        .collect();
    for expected in [(3, 100), (4, 64 * 1024), (6, 32 * 1024)] {
        assert!(settings.contains(&expected), "{expected:?} in {settings:?}");
    }
    drop(raw);
    door.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_connection_is_told_before_it_is_closed() {
    let door = Door::open(cleartext(Config { idle_timeout: 2 * SHORT, header_timeout: 4 * SHORT, ..patient() })).await;
    let mut raw = Raw::connect(&door, &[]).await;
    raw.get(1, "/").await;
    assert_eq!(raw.next(HEADERS).await.unwrap().0, 1);
    assert!(raw.next(GOAWAY).await.is_some());
    eventually("it is closed although the caller does not answer", async || door.connections() == 0).await;
    door.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_between_requests_are_not_taken_for_a_slow_head() {
    let door = Door::open(cleartext(Config { header_timeout: 6 * SHORT, ..patient() })).await;
    let mut raw = Raw::connect(&door, &[]).await;
    raw.get(1, "/").await;
    raw.next(HEADERS).await.unwrap();
    // A window update for the connection, and then silence for longer than a head may take.
    raw.write(WINDOW, 0, 0, &[0, 0, 0, 9]).await;
    tokio::time::sleep(8 * SHORT).await;
    raw.get(3, "/").await;
    assert_eq!(raw.next(HEADERS).await.unwrap().0, 3);
    drop(raw);
    door.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_not_read_is_reset_and_others_go_on() {
    let door = Door::open(cleartext(Config { write_timeout: 4 * SHORT, ..patient() })).await;
    // A window of 1,000 bytes for each answer, never widened.
    let mut raw = Raw::connect(&door, &[(4, 1_000)]).await;
    raw.get(1, "/large").await;
    raw.get(3, "/").await;
    let answered = [raw.next(HEADERS).await.unwrap().0, raw.next(HEADERS).await.unwrap().0];
    assert!(answered == [1, 3] || answered == [3, 1], "{answered:?}");
    assert_eq!(raw.next(RESET).await.unwrap().0, 1);
    raw.get(5, "/").await;
    assert_eq!(raw.next(HEADERS).await.unwrap().0, 5);
    drop(raw);
    door.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_answer_that_is_not_read_is_reset_too() {
    let door = Door::open(cleartext(Config { write_timeout: 4 * SHORT, ..patient() })).await;
    let mut raw = Raw::connect(&door, &[(4, 2)]).await;
    raw.get(1, "/").await;
    assert_eq!(raw.next(HEADERS).await.unwrap().0, 1);
    assert_eq!(raw.next(RESET).await.unwrap().0, 1, "two of its four bytes fit into the window");
    drop(raw);
    door.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_that_goes_on_gets_everything() {
    let door = Door::open(cleartext(Config { write_timeout: 8 * SHORT, ..patient() })).await;
    // Room for one frame of sixteen at a time, for longer in all than a part may wait.
    let mut raw = Raw::connect(&door, &[(4, 16_384)]).await;
    raw.write(WINDOW, 0, 0, &(1_u32 << 20).to_be_bytes()).await;
    raw.get(1, "/medium").await;
    let mut total = 0;
    let reading = async {
        while total < super::door::MEDIUM {
            let (stream, payload) = raw.next(DATA).await.expect("more of it");
            assert_eq!(stream, 1);
            total += payload.len();
            tokio::time::sleep(3 * SHORT / 5).await;
            raw.write(WINDOW, 0, 1, &16_384_u32.to_be_bytes()).await;
        }
    };
    tokio::time::timeout(crate::harness::PATIENCE, reading).await.expect("all of it");
    assert_eq!(total, super::door::MEDIUM);
    drop(raw);
    door.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_the_end_callers_are_told_and_open_requests_answered() {
    let door = Door::open(cleartext(patient())).await;
    let mut client = Client::new(door.connect().await).await;
    let mut raw = Raw::connect(&door, &[]).await;
    raw.next(SETTINGS).await.unwrap();
    let asking = async {
        let answer = client.get("/wait").await;
        (answer, client)
    };
    let stopping = async {
        eventually("the request is open", async || door.connections() == 3).await;
        door.lifecycle.stop();
        assert!(raw.next(GOAWAY).await.is_some());
        door.release.notify_one();
    };
    let ((answer, mut client), ()) = tokio::join!(asking, stopping);
    assert_eq!(answer.unwrap(), (200, "waited".to_owned()));
    assert!(client.get("/").await.is_err(), "no further request on this connection");
    eventually("the client's connection has ended", async || client.lifecycle.tasks() == 0).await;
    drop(raw);
    within(crate::harness::PATIENCE, "all has ended", async || door.lifecycle.tasks() == 0).await;
}
