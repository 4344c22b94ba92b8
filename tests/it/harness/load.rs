//! Requests over real connections at a rate that does not wait for the answers, and what came of them.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use doc_server::runtime::lifecycle::Lifecycle;
use futures::future::join_all;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// One answer.
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    /// Its status; zero when the connection broke.
    pub status: u16,
    /// From its sending to its last byte. A generator that falls behind shows in the rate that was reached.
    pub took: Duration,
    /// When it came, from the beginning.
    pub at: Duration,
    /// Whether it says when to come back.
    pub retry_after: bool,
}

/// Head lines and path of the `n`th request.
pub type Request = dyn Fn(u64) -> (String, &'static str) + Send + Sync;

/// What is offered.
#[derive(Clone)]
pub struct Offer {
    /// To whom.
    pub address: SocketAddr,
    /// Each asks one thing after the other.
    pub connections: u32,
    /// Requests a second, all connections together; none asks again as soon as the answer is there.
    pub rate: Option<f64>,
    /// How long.
    pub time: Duration,
    /// What is asked.
    pub request: Arc<Request>,
}

impl Offer {
    /// Asks, and returns every answer.
    pub async fn run(&self) -> Vec<Answer> {
        let (lifecycle, answers, began) = (Lifecycle::new(), Arc::new(Mutex::new(Vec::new())), Instant::now());
        let connections = (0..self.connections).map(|nth| {
            let (offer, answers) = (self.clone(), Arc::clone(&answers));
            lifecycle.spawn_detached(async move {
                let mine = offer.connection(nth, began).await;
                answers.lock().unwrap_or_else(PoisonError::into_inner).extend(mine);
            })
        });
        join_all(connections.collect::<Vec<_>>()).await.into_iter().for_each(|ended| ended.expect("a connection"));
        std::mem::take(&mut *answers.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn connection(&self, nth: u32, began: Instant) -> Vec<Answer> {
        let pause = self.rate.map(|rate| Duration::from_secs_f64(f64::from(self.connections) / rate));
        // Evenly beside the other connections.
        let mut due = began + pause.unwrap_or_default().mul_f64(f64::from(nth) / f64::from(self.connections));
        let (mut stream, mut asked, mut answers) = (None, u64::from(nth), Vec::new());
        loop {
            if let Some(pause) = pause {
                tokio::time::sleep_until(due.into()).await;
                due += pause;
            }
            if began.elapsed() >= self.time {
                return answers;
            }
            let (path, head) = (self.request)(asked);
            asked += u64::from(self.connections);
            let sent = Instant::now();
            let answered = ask(&mut stream, self.address, &path, head).await;
            if answered.is_err() {
                stream = None;
            }
            let (status, retry_after) = answered.unwrap_or_default();
            answers.push(Answer { status, took: sent.elapsed(), at: began.elapsed(), retry_after });
        }
    }
}

async fn ask(
    stream: &mut Option<TcpStream>,
    address: SocketAddr,
    path: &str,
    head: &str,
) -> std::io::Result<(u16, bool)> {
    let stream = match stream {
        Some(stream) => stream,
        None => stream.insert(TcpStream::connect(address).await?),
    };
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n{head}\r\n").as_bytes()).await?;
    let (mut answer, mut buffer) = (Vec::with_capacity(4096), [0; 8192]);
    loop {
        let read = stream.read(&mut buffer).await?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        answer.extend_from_slice(&buffer[..read]);
        let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
        let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let length: usize = field("content-length:").and_then(|length| length.parse().ok()).unwrap_or(0);
        if answer.len() >= end + 4 + length {
            let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
            return Ok((status, field("retry-after:").is_some()));
        }
    }
}

/// The time that this share of them did not exceed.
pub fn quantile(answers: &[Answer], share: f64) -> Duration {
    let mut times: Vec<Duration> = answers.iter().map(|answer| answer.took).collect();
    times.sort_unstable();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index"
    )]
    let nth = (times.len() as f64 * share) as usize;
    times.get(nth.min(times.len().saturating_sub(1))).copied().unwrap_or_default()
}

/// Those of these statuses.
pub fn of(answers: &[Answer], statuses: &[u16]) -> Vec<Answer> {
    answers.iter().filter(|answer| statuses.contains(&answer.status)).copied().collect()
}

/// How many a second.
#[expect(clippy::cast_precision_loss, reason = "a rate")]
pub fn rate(answers: &[Answer], time: Duration) -> f64 {
    answers.len() as f64 / time.as_secs_f64()
}
