//! Each deadline of a connection alone: it ends what it is for, in time, and nothing else.

use std::time::Duration;

use doc_server::runtime::listen::Config;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::Instant,
};

use super::door::{Door, LONG, SHORT, ask, patient, until_closed};
use crate::harness::{Stopwatch, TestApp, eventually, within};

/// A deadline is met late on a busy machine, but never early.
fn assert_about(took: Duration, deadline: Duration) {
    // The callers' clocks start before the server's.
    assert!(took >= deadline, "closed after {took:?}, before {deadline:?}");
    assert!(took < deadline + Duration::from_secs(5), "closed after {took:?}, long after {deadline:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_connection_is_closed() {
    for cleartext in [false, true] {
        let mut config = Config { first_byte_timeout: SHORT, ..patient() };
        config.http2.cleartext = cleartext;
        let door = Door::open(config).await;
        let began = Instant::now();
        assert_eq!(until_closed(&mut door.connect().await).await, "");
        assert_about(began.elapsed(), SHORT);
        door.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_head_is_not_waited_for() {
    for (cleartext, half) in [
        (false, "GET / HTTP/1.1\r\nhost: x\r\n"),
        (true, "GET / HTTP/1.1\r\nhost: x\r\n"),
        (false, "PRI * HT"),
        (true, "PRI * HT"),
        (true, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    ] {
        let mut config = Config { header_timeout: SHORT, ..patient() };
        config.http2.cleartext = cleartext;
        let door = Door::open(config).await;
        let mut stream = door.connect().await;
        let began = Instant::now();
        stream.write_all(half.as_bytes()).await.unwrap();
        let said = until_closed(&mut stream).await;
        assert!(!said.contains("HTTP/1.1 2"), "{half:?}: {said}");
        assert_about(began.elapsed(), SHORT);
        door.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_in_drops_gets_no_more_time() {
    let door = Door::open(Config { header_timeout: SHORT, ..patient() }).await;
    let mut stream = door.connect().await;
    let began = Instant::now();
    let sending = async {
        stream.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
        // Fails once the server has closed.
        while stream.write_all(b"x: y\r\n").await.is_ok() {
            tokio::time::sleep(SHORT / 10).await;
        }
    };
    tokio::time::timeout(crate::harness::PATIENCE, sending).await.expect("closed although bytes keep coming");
    assert_about(began.elapsed(), SHORT);
    door.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_connection_is_kept_longer_than_a_head_and_then_closed() {
    let door = Door::open(Config { first_byte_timeout: 8 * SHORT, header_timeout: SHORT, ..patient() }).await;
    let mut stream = door.connect().await;
    assert!(ask(&mut stream, "/").await.ends_with("here"));
    // Longer than the other deadlines.
    tokio::time::sleep(9 * SHORT).await;
    assert!(ask(&mut stream, "/").await.ends_with("here"), "kept between requests");
    door.close().await;

    let door = Door::open(Config { idle_timeout: SHORT, ..patient() }).await;
    let mut stream = door.connect().await;
    let began = Instant::now();
    assert!(ask(&mut stream, "/").await.ends_with("here"));
    assert_eq!(until_closed(&mut stream).await, "");
    assert_about(began.elapsed(), SHORT);
    door.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_of_a_second_head_is_not_waited_for_either() {
    let door = Door::open(Config { header_timeout: SHORT, ..patient() }).await;
    let mut stream = door.connect().await;
    ask(&mut stream, "/").await;
    let began = Instant::now();
    stream.write_all(b"GET / HT").await.unwrap();
    until_closed(&mut stream).await;
    assert_about(began.elapsed(), SHORT);
    door.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_on_a_request_meets_no_deadline_of_the_connection() {
    let config = Config {
        first_byte_timeout: 8 * SHORT,
        header_timeout: SHORT,
        idle_timeout: SHORT,
        body_timeout: SHORT,
        write_timeout: SHORT,
        ..patient()
    };
    let door = Door::open(config).await;
    let mut stream = door.connect().await;
    stream.write_all(b"GET /wait HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    assert!(
        tokio::time::timeout(10 * SHORT, stream.read(&mut [0])).await.is_err(),
        "neither closed nor answered while the handler works"
    );
    door.release.notify_one();
    assert!(super::read_answer(&mut stream).await.ends_with("waited"));
    door.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_body_gets_408() {
    let app = TestApp::start().await;
    let address = app.listen_with(Config { body_timeout: SHORT, ..patient() }).await;
    let head = "POST /api/search HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n";
    for (framing, drop) in [("content-length: 1000", "x"), ("transfer-encoding: chunked", "1\r\nx\r\n")] {
        let (mut reader, mut writer) = TcpStream::connect(address).await.unwrap().into_split();
        let began = Instant::now();
        writer.write_all(format!("{head}{framing}\r\n\r\n").as_bytes()).await.unwrap();
        let dripping = async {
            while writer.write_all(drop.as_bytes()).await.is_ok() {
                tokio::time::sleep(SHORT / 10).await;
            }
        };
        let reading = async {
            let answer = super::read_answer(&mut reader).await;
            (answer, began.elapsed())
        };
        let ((), (answer, took)) = tokio::join!(dripping, reading);
        assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("body_timeout"), "{answer}");
        assert_about(took, SHORT);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_nobody_reads_holds_nothing() {
    let door = Door::open(patient()).await;
    let mut stream = door.connect().await;
    stream.write_all(b"POST /ignore HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\nx").await.unwrap();
    let said = until_closed(&mut stream).await;
    assert!(said.starts_with("HTTP/1.1 200") && said.ends_with("unread"), "{said}");
    drop(stream);
    door.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_does_not_read_is_given_up() {
    let door = Door::open(Config { write_timeout: SHORT, ..patient() }).await;
    let mut stream = door.connect().await;
    let began = Instant::now();
    stream.write_all(b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    // The answer has begun, or is over already.
    let _ = stream.peek(&mut [0]).await;
    eventually("it is given up", async || door.connections() == 0).await;
    assert_about(began.elapsed(), SHORT);
    drop(stream);
    door.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_system_holds_for_a_caller_that_does_not_read_is_given_up_too() {
    // The whole answer leaves the process at once, so that the connection looks idle.
    let door = Door::open(Config { write_timeout: 4 * SHORT, ..patient() }).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let mut stream = socket.connect(door.address).await.unwrap();
    stream.write_all(b"GET /medium HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let _ = stream.peek(&mut [0]).await;
    within(Duration::from_secs(15), "the system reports that nobody reads", async || door.connections() == 0).await;
    drop(stream);
    door.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_that_goes_on_gets_everything() {
    const TIMEOUT: Duration = Duration::from_secs(1);
    let door = Door::open(Config { write_timeout: TIMEOUT, idle_timeout: LONG, ..patient() }).await;
    for _ in 0..10 {
        let (began, (total, pause)) = (Instant::now(), read_slowly(&door).await);
        if total > super::door::LARGE {
            assert!(began.elapsed() > TIMEOUT, "it read for longer than it may pause");
            return door.close().await;
        }
        // The machine stood still for about as long as a reader may.
        assert!(pause > TIMEOUT / 2, "cut after {total} bytes, of which some were read each {pause:?}");
    }
    panic!("the machine stands still all the time");
}

/// Reads a large answer in small parts: how many bytes came, and the longest pause between two.
async fn read_slowly(door: &Door) -> (usize, Duration) {
    let mut stream = door.connect().await;
    stream.write_all(b"GET /large HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut buffer = vec![0; 512 * 1024];
    let (mut total, mut pause, mut last) = (0, Duration::ZERO, Instant::now());
    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
        total += read;
        (pause, last) = (pause.max(last.elapsed()), Instant::now());
        tokio::time::sleep(SHORT / 20).await;
    }
    (total, pause.max(last.elapsed()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_listener_sends_away_who_waits_longest_without_a_request() {
    let door = Door::open(Config { max_connections: 3, ..patient() }).await;
    let mut silent = door.connect().await;
    let (mut kept, mut busy) = (door.connect().await, door.connect().await);
    ask(&mut kept, "/").await;
    busy.write_all(b"GET /wait HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    eventually("all are served", async || door.connections() == 3).await;
    // Who waits for less than a second is not sent away.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let mut newcomer = door.connect().await;
    assert!(ask(&mut newcomer, "/").await.ends_with("here"));
    assert_eq!(until_closed(&mut silent).await, "", "the one that never asked");
    assert!(ask(&mut kept, "/").await.ends_with("here"), "one that asked stays");
    door.release.notify_one();
    assert!(super::read_answer(&mut busy).await.ends_with("waited"));
    door.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_full_of_requests_refuses_at_once() {
    let door = Door::open(Config { max_connections: 1, ..patient() }).await;
    let mut busy = door.connect().await;
    busy.write_all(b"GET /wait HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    eventually("one is served", async || door.connections() == 1).await;
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let asked = Stopwatch::start();
    let said = until_closed(&mut door.connect().await).await;
    assert!(said.starts_with("HTTP/1.1 503") && said.contains("retry-after: 1"), "{said}");
    assert!(asked.elapsed() < Duration::from_secs(5), "it waited for the one that is served");
    door.release.notify_one();
    assert!(super::read_answer(&mut busy).await.ends_with("waited"));
    drop(busy);
    eventually("its place is free", async || door.connections() == 0).await;
    assert!(ask(&mut door.connect().await, "/").await.ends_with("here"));
    door.close().await;
}

/// On one thread, so that the runtime has not heard of the connection when the listener ends.
#[tokio::test]
async fn who_was_let_in_by_the_system_alone_is_served_before_the_end() {
    use std::io::Write as _;
    let door = Door::open(patient()).await;
    assert!(ask(&mut door.connect().await, "/").await.ends_with("here"));
    eventually("nobody is served", async || door.connections() == 0).await;
    let mut late = std::net::TcpStream::connect(door.address).unwrap();
    late.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    door.lifecycle.stop();
    late.set_nonblocking(true).unwrap();
    let said = until_closed(&mut TcpStream::from_std(late).unwrap()).await;
    assert!(said.ends_with("here"), "{said:?}");
    door.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_waits_for_requests_but_not_for_silence() {
    let door = Door::open(patient()).await;
    let (mut silent, mut half, mut idle, mut busy) =
        (door.connect().await, door.connect().await, door.connect().await, door.connect().await);
    half.write_all(b"GET / HT").await.unwrap();
    ask(&mut idle, "/").await;
    busy.write_all(b"GET /wait HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    eventually("all are served", async || door.connections() == 4).await;
    // Let in by the system, and not yet by the server.
    let mut late = door.connect().await;
    late.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    door.lifecycle.stop();
    let said = until_closed(&mut late).await;
    assert!(said.ends_with("here"), "{said}");
    for stream in [&mut silent, &mut half, &mut idle] {
        assert_eq!(until_closed(stream).await, "");
    }
    door.release.notify_one();
    assert!(super::read_answer(&mut busy).await.ends_with("waited"));
    door.close().await;
}
