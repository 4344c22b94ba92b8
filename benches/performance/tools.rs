//! The programs on the other side: nginx, wrk, redis-server, redis-benchmark. `scripts/setup bench` installs them.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use super::server::{Running, free_address, processor_seconds, wait_for};
use crate::Failure;

/// Where a program is, or nothing with a line that says what is left out.
pub fn find(name: &str, part: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/bin").join(name);
    if path.exists() {
        return Some(path);
    }
    println!("{part}: skipped, {name} is missing; scripts/setup bench installs it");
    None
}

/// nginx that serves one file at `/api/search`.
pub struct Nginx {
    running: Running,
    _folder: tempfile::TempDir,
    pub address: SocketAddr,
}

impl Nginx {
    pub fn start(program: &Path, body: &[u8]) -> Result<Self, Failure> {
        let (folder, address) = (tempfile::tempdir()?, free_address()?);
        // As root its workers are another user, who must get in.
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755))?;
        std::fs::create_dir(folder.path().join("api"))?;
        std::fs::write(folder.path().join("api/search"), body)?;
        let settings = include_str!("../nginx.conf").replace("127.0.0.1:8052", &address.to_string());
        let file = folder.path().join("nginx.conf");
        std::fs::write(&file, settings)?;
        let mut command = Command::new(program);
        command.arg("-p").arg(folder.path()).arg("-c").arg(&file).args(["-e", "error.log"]);
        let running = Running(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
        wait_for(address, "/api/search")?;
        Ok(Self { running, _folder: folder, address })
    }

    /// Its first process, the parent of the others.
    pub fn process(&self) -> u32 {
        self.running.0.id()
    }
}

/// What `work` answers, and microseconds of processor time that `process` used for each request.
pub fn costing(process: u32, work: impl FnOnce() -> Result<Seen, Failure>) -> Result<(Seen, f64), Failure> {
    let before = processor_seconds(process)?;
    let seen = work()?;
    #[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
    let each = (processor_seconds(process)? - before) * 1e6 / seen.requests.max(1) as f64;
    Ok((seen, each))
}

/// What wrk saw.
pub struct Seen {
    /// Requests a second.
    pub rate: f64,
    pub requests: u64,
}

/// Asks for `paths` in turn by 64 connections of two threads, as fast as they are answered. Every answer must be a success.
pub fn wrk(program: &Path, address: SocketAddr, paths: &[String], time: Duration) -> Result<Seen, Failure> {
    wrk_with(program, address, (paths, None), time)
}

/// The same with a header.
pub fn wrk_with(
    program: &Path,
    address: SocketAddr,
    (paths, header): (&[String], Option<&str>),
    time: Duration,
) -> Result<Seen, Failure> {
    let mut command = Command::new(program);
    command.args(["-t2", "-c64", &format!("-d{}s", time.as_secs())]);
    if let Some(header) = header {
        command.args(["-H", header]);
    }
    let folder = tempfile::tempdir()?;
    if paths.len() > 1 {
        // Written requests, made once: the script costs wrk little.
        let list: Vec<String> = paths.iter().map(|path| format!("wrk.format('GET', '{path}')")).collect();
        let list = list.join(",\n");
        let script = format!(
            "local all\nlocal at = math.random(0, 1000000)\nfunction init() all = {{\n{list}\n}} end\n\
             function request() at = at + 1; return all[at % #all + 1] end\n"
        );
        let file = folder.path().join("paths.lua");
        std::fs::write(&file, script)?;
        command.arg("-s").arg(file);
    }
    let first = paths.first().map_or("/", String::as_str);
    let output = command.arg(format!("http://{address}{first}")).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let number = |key: &str| text.lines().find_map(|line| line.trim().strip_prefix(key)?.trim().parse().ok());
    let requests = text.lines().find_map(|line| line.trim().split_once(" requests in ")?.0.parse().ok());
    match (number("Requests/sec:"), requests) {
        (Some(rate), Some(requests)) if !text.contains("Non-2xx") && !text.contains("Socket errors") => {
            Ok(Seen { rate, requests })
        }
        _ => Err(format!("wrk: {text} {}", String::from_utf8_lossy(&output.stderr)).into()),
    }
}

/// A Redis without persistence.
pub struct Redis {
    running: Running,
    _folder: tempfile::TempDir,
    pub address: SocketAddr,
}

impl Redis {
    pub fn start(program: &Path) -> Result<Self, Failure> {
        let (folder, address) = (tempfile::tempdir()?, free_address()?);
        let mut command = Command::new(program);
        command.args(["--port", &address.port().to_string(), "--bind", "127.0.0.1", "--save", "", "--dir"]);
        command.arg(folder.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let redis = Self { running: Running(command.spawn()?), _folder: folder, address };
        for _ in 0..500 {
            if redis.ask("PING").is_ok() {
                return Ok(redis);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Err("redis-server did not answer within 5 s".into())
    }

    /// Its process.
    pub fn process(&self) -> u32 {
        self.running.0.id()
    }

    /// One command whose answer is a line or one text.
    pub fn ask(&self, command: &str) -> Result<String, Failure> {
        let mut stream = BufReader::new(TcpStream::connect(self.address)?);
        stream.get_mut().write_all(format!("{command}\r\n").as_bytes())?;
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let rest = line.get(1..).unwrap_or_default().trim().to_owned();
        if !line.starts_with('$') {
            return Ok(rest);
        }
        let mut text = vec![0; rest.parse()?];
        stream.read_exact(&mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

/// `GET key` by 64 connections without pipelining, requests a second.
pub fn redis_benchmark(program: &Path, redis: &Redis, key: &str, requests: u64) -> Result<Seen, Failure> {
    let mut command = Command::new(program);
    command.args([
        "-p",
        &redis.address.port().to_string(),
        "-c",
        "64",
        "-n",
        &requests.to_string(),
        "--csv",
        "get",
        key,
    ]);
    let output = command.output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    // "test","rps",… as a head, then the figures.
    let rate = text.lines().last().and_then(|line| line.split("\",\"").nth(1)?.trim_matches('"').parse().ok());
    match rate {
        Some(rate) => Ok(Seen { rate, requests }),
        None => Err(format!("redis-benchmark: {text} {}", String::from_utf8_lossy(&output.stderr)).into()),
    }
}
