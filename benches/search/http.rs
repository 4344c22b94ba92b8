//! Keep-alive HTTP clients as thin as can be, so that what is measured is the server; and the server in this process.

use std::{
    fmt::Write as _,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};

use doc_server::{
    api,
    app::App,
    health::Health,
    index::keys::Scopes,
    runtime::{lifecycle::Lifecycle, listen},
    search::Search,
};

use crate::Failure;

/// One connection.
pub struct Client {
    stream: BufReader<TcpStream>,
    body: Vec<u8>,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Result<Self, Failure> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::with_capacity(64 * 1024, stream), body: Vec::new() })
    }

    /// Asks and reads the whole answer, which must be a success.
    pub fn get(&mut self, path: &str) -> Result<&[u8], Failure> {
        match self.ask(path)? {
            200 => Ok(&self.body),
            status => Err(format!("{path}: {status} {}", String::from_utf8_lossy(&self.body)).into()),
        }
    }

    /// Asks, reads the whole answer and tells its status.
    pub fn ask(&mut self, path: &str) -> Result<u16, Failure> {
        self.stream.get_mut().write_all(format!("GET {path} HTTP/1.1\r\nhost: bench\r\n\r\n").as_bytes())?;
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        let status = line.trim().to_owned();
        let mut length = 0;
        loop {
            line.clear();
            self.stream.read_line(&mut line)?;
            if line.trim().is_empty() {
                break;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
        }
        self.body.resize(length, 0);
        self.stream.read_exact(&mut self.body)?;
        status.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(|| format!("{path}: {status:?}").into())
    }
}

/// Serves `search` on a free port until the lifecycle stops.
pub async fn serve(app: &App, search: Search, lifecycle: &Lifecycle) -> Result<SocketAddr, Failure> {
    let listener = listen::bind("bind", "127.0.0.1:0".parse()?).await?;
    let address = listener.local_addr()?;
    let health = Arc::new(Health::new(app.embedder.clone(), None));
    let access = api::identity::Access::new(search.clone(), api::identity::Open::UntilFirstKey, Scopes::NONE);
    let state = api::State {
        leaving: lifecycle.leaving(),
        search,
        access,
        index: app.index.clone(),
        health,
        cors_origins: String::new(),
        max_body_bytes: 1 << 20,
        deadline: Duration::from_secs(30),
        limits: api::rate_limit::Limits::new(api::rate_limit::Config::default(), None),
    };
    let serving = listen::serve_task(listener, api::front(state), listen::Config::default(), lifecycle.clone());
    lifecycle.spawn("bench", serving);
    Ok(address)
}

/// The address of a search.
pub fn search_path(query: &str, more: &str) -> String {
    let mut path = "/api/search?query=".to_owned();
    for byte in query.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' => path.push(char::from(byte)),
            _ => {
                let _ = write!(path, "%{byte:02X}");
            }
        }
    }
    path + more
}
