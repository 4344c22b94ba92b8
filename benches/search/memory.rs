//! Resident memory of `doc-server serve` with the model loaded, after load, beside that of Postgres.

use std::{
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use doc_server::config::Settings;
use sqlx::{Connection, PgConnection};

use crate::{
    Failure,
    http::{Client, search_path},
    texts::Texts,
    throughput::throughput,
};

/// Long enough for pools and allocator to reach their size.
const LOAD: Duration = Duration::from_secs(20);

/// Connections of the load.
const CONNECTIONS: usize = 8;

/// Stops the server with the benchmark, however that ends.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub async fn run(settings: &Settings, texts: &Texts) -> Result<(), Failure> {
    let [address, admin] = [free_address()?, free_address()?];
    let mut command = Command::new(env!("CARGO_BIN_EXE_doc-server"));
    command.arg("serve").env("DOC_SERVER_DATABASE_URL", &settings.database_url);
    command.env("DOC_SERVER_BIND", address.to_string()).env("DOC_SERVER_ADMIN_BIND", admin.to_string());
    let server = Server(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
    wait_for(address)?;
    let paths: Vec<String> = texts.queries(3, 2_000).iter().map(|query| search_path(query, "")).collect();
    let before = resident(server.0.id())?;
    let paths = Arc::new(paths);
    let rate = tokio::task::spawn_blocking(move || throughput(address, &paths, CONNECTIONS, LOAD)).await??;
    let mut connection = PgConnection::connect(&settings.database_url).await?;
    let backend: i32 = sqlx::query_scalar("select pg_backend_pid()").fetch_one(&mut connection).await?;
    println!(
        "memory of serve: {before:.0} MB before the first query, {:.0} MB after {} s of {rate:.0} hybrid searches/s \
         (must 400, aim 250); Postgres: {:.0} MB, shared pages counted once",
        resident(server.0.id())?,
        LOAD.as_secs(),
        postgres(u32::try_from(backend)?)?
    );
    Ok(())
}

fn free_address() -> Result<SocketAddr, Failure> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

fn wait_for(address: SocketAddr) -> Result<(), Failure> {
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(30) {
        if Client::connect(address).and_then(|mut client| client.get("/api/health").map(drop)).is_ok() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Err("serve did not answer within 30 s".into())
}

/// A line of a process' file under `/proc`, in megabytes.
fn read(process: u32, file: &str, key: &str) -> Result<f64, Failure> {
    let text = std::fs::read_to_string(format!("/proc/{process}/{file}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(key)).ok_or("no such line")?;
    let kilobytes: f64 = line.trim_start_matches(':').trim().trim_end_matches(" kB").parse()?;
    Ok(kilobytes / 1024.0)
}

fn resident(process: u32) -> Result<f64, Failure> {
    read(process, "status", "VmRSS")
}

/// All processes of the server that `backend` belongs to, proportionally.
fn postgres(backend: u32) -> Result<f64, Failure> {
    let parent = |process: u32| -> Option<u32> {
        let text = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
        text.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
    };
    let postmaster = parent(backend).ok_or("Postgres runs where this process does not see it")?;
    let mut sum = read(postmaster, "smaps_rollup", "Pss")?;
    for entry in std::fs::read_dir("/proc")? {
        let Some(process) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        if parent(process) == Some(postmaster) {
            sum += read(process, "smaps_rollup", "Pss").unwrap_or(0.0);
        }
    }
    Ok(sum)
}
