//! Load with latencies: closed (each client asks when it is answered) and at a fixed rate, whatever the server does.

use std::{
    collections::VecDeque,
    io::Write,
    net::{SocketAddr, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use crate::{Failure, http::Client};

/// What a load brought.
#[derive(Debug, Default)]
pub struct Load {
    /// Answers a second.
    pub rate: f64,
    /// Milliseconds.
    pub p50: f64,
    /// Milliseconds.
    pub p99: f64,
    /// Answers with success.
    pub answered: usize,
    /// Others: 503 and the like.
    pub refused: usize,
}

impl Load {
    fn of(mut latencies: Vec<Duration>, refused: usize, took: Duration) -> Self {
        latencies.sort_unstable();
        let at = |share: usize| {
            latencies.get(latencies.len() * share / 100).map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
        };
        #[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
        let rate = latencies.len() as f64 / took.as_secs_f64();
        Self { rate, p50: at(50), p99: at(99), answered: latencies.len(), refused }
    }
}

/// Places in a list of paths, in the order in which they are asked for.
pub type Order = Arc<Vec<u32>>;

/// Every path once.
pub fn once(paths: &[String]) -> Order {
    Arc::new((0..paths.len()).filter_map(|place| u32::try_from(place).ok()).collect())
}

/// So many clients go through `order` together, to its end or until `time` is over; it begins again when it ends early.
pub fn drive(
    address: SocketAddr,
    (paths, order): (&Arc<Vec<String>>, &Order),
    clients: usize,
    time: Option<Duration>,
) -> Result<Load, Failure> {
    let (next, started) = (Arc::new(AtomicUsize::new(0)), Instant::now());
    let threads: Vec<_> = (0..clients)
        .map(|_| {
            let (next, paths, order) = (Arc::clone(&next), Arc::clone(paths), Arc::clone(order));
            std::thread::spawn(move || -> Result<(Vec<Duration>, usize), Failure> {
                let (mut client, mut latencies, mut refused) = (Client::connect(address)?, Vec::new(), 0);
                loop {
                    let nth = next.fetch_add(1, Ordering::Relaxed);
                    let over = time.map_or(nth >= order.len(), |time| started.elapsed() >= time);
                    if over {
                        return Ok((latencies, refused));
                    }
                    let asked = Instant::now();
                    let path = &paths[order[nth % order.len()] as usize];
                    match client.ask(path)? {
                        200 => latencies.push(asked.elapsed()),
                        _ => refused += 1,
                    }
                }
            })
        })
        .collect();
    let (mut latencies, mut refused) = (Vec::new(), 0);
    for thread in threads {
        let (some, not) = thread.join().map_err(|_| "a client panicked")??;
        latencies.extend(some);
        refused += not;
    }
    Ok(Load::of(latencies, refused, started.elapsed()))
}

/// When each request of a connection was due that is not answered yet.
type Due = Arc<Mutex<VecDeque<Instant>>>;

/// Asks for `path` at `rate` a second for `time`, on `connections` in turn. A request's latency counts from when it was due, so a
/// server that stalls cannot hide it by being asked less.
pub fn at_rate(
    address: SocketAddr,
    path: &str,
    connections: usize,
    (rate, time): (f64, Duration),
) -> Result<Load, Failure> {
    let mut open = Vec::with_capacity(connections);
    for _ in 0..connections {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        open.push((stream, Due::default()));
    }
    let readers = readers(&open)?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: bench\r\n\r\n");
    let (started, mut sent) = (Instant::now(), 0_u32);
    loop {
        let due = started + Duration::from_secs_f64(f64::from(sent) / rate);
        if due.duration_since(started) >= time {
            break;
        }
        // The kernel wakes a sleeper some 60 µs late; a shorter wait is none.
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let (stream, queue) = &mut open[sent as usize % connections];
        queue.lock().unwrap_or_else(PoisonError::into_inner).push_back(due);
        stream.write_all(request.as_bytes())?;
        sent += 1;
    }
    let took = started.elapsed();
    let mut latencies = Vec::with_capacity(sent as usize);
    for _ in 0..sent {
        latencies.push(
            readers
                .answers
                .recv_timeout(Duration::from_secs(10))
                .map_err(|_| format!("{} of {sent} requests were answered", latencies.len()))?,
        );
    }
    readers.ended.store(true, Ordering::Relaxed);
    Ok(Load::of(latencies, 0, took))
}

/// One thread that reads all connections, as an event loop would.
struct Readers {
    answers: mpsc::Receiver<Duration>,
    ended: Arc<AtomicBool>,
}

fn readers(open: &[(TcpStream, Due)]) -> Result<Readers, Failure> {
    let (tell, answers) = mpsc::channel();
    let ended = Arc::new(AtomicBool::new(false));
    let mut streams = Vec::new();
    for (stream, due) in open {
        let stream = stream.try_clone()?;
        streams.push((stream, Arc::clone(due)));
    }
    let over = Arc::clone(&ended);
    std::thread::spawn(move || read_all(streams, &tell, &over));
    Ok(Readers { answers, ended })
}

fn read_all(streams: Vec<(TcpStream, Due)>, tell: &mpsc::Sender<Duration>, over: &AtomicBool) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
    runtime.block_on(async {
        let mut reading = futures::stream::FuturesUnordered::new();
        for (stream, due) in streams {
            reading.push(read_one(stream, due, tell.clone()));
        }
        let ends = async {
            while !over.load(Ordering::Relaxed) {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let all = async { while futures::StreamExt::next(&mut reading).await.is_some() {} };
        tokio::select! {
            () = ends => {}
            () = all => {}
        }
    });
}

/// Reads answers until the connection ends, and tells how late each was.
async fn read_one(stream: TcpStream, due: Due, tell: mpsc::Sender<Duration>) -> Option<()> {
    // Writing goes on through the other handle, whose requests are far smaller than the socket's buffer.
    let stream = tokio::net::TcpStream::from_std({
        stream.set_nonblocking(true).ok()?;
        stream
    })
    .ok()?;
    let (mut buffer, mut filled) = (vec![0_u8; 64 * 1024], 0);
    loop {
        stream.readable().await.ok()?;
        match stream.try_read(&mut buffer[filled..]) {
            Ok(0) => return None,
            Ok(read) => filled += read,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
            Err(_) => return None,
        }
        while let Some(length) = answer_length(&buffer[..filled]) {
            let sent = due.lock().unwrap_or_else(PoisonError::into_inner).pop_front()?;
            let _ = tell.send(sent.elapsed());
            buffer.copy_within(length..filled, 0);
            filled -= length;
        }
    }
}

/// The length of the first answer, once all of it is there.
fn answer_length(bytes: &[u8]) -> Option<usize> {
    let head = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&bytes[..head]).ok()?;
    let length = text.lines().find_map(|line| line.strip_prefix("content-length: "))?;
    let whole = head + length.trim().parse::<usize>().ok()?;
    (bytes.len() >= whole).then_some(whole)
}
