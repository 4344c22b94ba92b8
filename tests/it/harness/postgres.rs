//! Postgres servers of one test: to be killed, to be followed by a real streaming standby, to be promoted.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use sqlx::{AssertSqlSafe, Connection, PgConnection, postgres::PgConnectOptions};
use tempfile::TempDir;

use super::{process::free_address, within};

/// Starting takes half a second, recovering from a kill one; a machine that builds meanwhile needs more.
const START_PATIENCE: Duration = Duration::from_secs(30);

/// A server on loopback; it and its data are gone when dropped.
pub struct Server {
    /// In `/tmp`, whose path a socket's name fits.
    folder: TempDir,
    port: u16,
    process: Option<Child>,
}

impl Server {
    /// A new, empty one.
    pub async fn start() -> Self {
        let mut server = Self::prepare();
        let data = server.data();
        let data = data.to_str().expect("a path of ASCII");
        Self::run("initdb", &["-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"]);
        let settings = "fsync = off\nshared_buffers = 32MB\nlisten_addresses = '127.0.0.1'\n\
                        unix_socket_directories = ''\nwal_receiver_status_interval = '100ms'\n";
        let written = server.data().join("postgresql.conf");
        let text = std::fs::read_to_string(&written).expect("the settings") + settings;
        std::fs::write(&written, text).expect("the settings");
        server.launch().await;
        server
    }

    /// A streaming standby of this one.
    pub async fn standby(&self) -> Self {
        let mut standby = Self::prepare();
        let (data, port) = (standby.data(), self.port.to_string());
        let data = data.to_str().expect("a path of ASCII");
        let arguments =
            ["-h", "127.0.0.1", "-p", &port, "-U", "postgres", "-D", data, "-R", "-X", "stream", "-c", "fast"];
        Self::run("pg_basebackup", &arguments);
        standby.launch().await;
        standby
    }

    fn prepare() -> Self {
        let folder = tempfile::Builder::new().prefix("doc-server-it-").tempdir_in("/tmp").expect("a folder");
        if is_root() {
            let owned = Command::new("chown").arg("nobody:nogroup").arg(folder.path()).status().expect("chown");
            assert!(owned.success());
        }
        let port = free_address().port();
        Self { folder, port, process: None }
    }

    /// Starts it, also after [`Server::kill`], and waits until it answers.
    pub async fn launch(&mut self) {
        let begun = std::time::Instant::now();
        while !self.try_launch().await {
            // After a kill, until the last of the old processes has left.
            assert!(begun.elapsed() < START_PATIENCE, "{}", self.log());
        }
    }

    async fn try_launch(&mut self) -> bool {
        let log =
            std::fs::File::options().create(true).append(true).open(self.folder.path().join("log")).expect("a log");
        let mut command = program("postgres");
        command.arg("-D").arg(self.data()).args(["-p", &self.port.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.process = Some(command.spawn().expect("postgres"));
        loop {
            if PgConnection::connect_with(&self.options()).await.is_ok() {
                return true;
            }
            if self.process.as_mut().is_some_and(|process| process.try_wait().expect("its state").is_some()) {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Kills the postmaster outright.
    pub fn kill(&mut self) {
        let mut process = self.process.take().expect("a running server");
        process.kill().expect("a kill");
        process.wait().expect("its end");
    }

    /// How to connect to it.
    pub fn options(&self) -> PgConnectOptions {
        PgConnectOptions::new().host("127.0.0.1").port(self.port).username("postgres").database("postgres")
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    /// Runs statements on it.
    pub async fn execute(&self, sql: &str) {
        let mut connection = PgConnection::connect_with(&self.options()).await.expect("the server");
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
            .execute(&mut connection)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    /// One number of it.
    pub async fn number(&self, sql: &'static str) -> i64 {
        let mut connection = PgConnection::connect_with(&self.options()).await.expect("the server");
        sqlx::query_scalar(sql).fetch_one(&mut connection).await.unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// Waits until `standby` has replayed all that this one has written.
    pub async fn until_replayed_by(&self, standby: &Self) {
        let written = self.number("select pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint").await;
        within(START_PATIENCE, "the standby has replayed everything", async || {
            standby.number("select pg_wal_lsn_diff(pg_last_wal_replay_lsn(), '0/0')::bigint").await >= written
        })
        .await;
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn run(name: &str, arguments: &[&str]) {
        let output = program(name).args(arguments).output().expect("a program of Postgres");
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            // Without a last checkpoint: nobody reads the data again.
            let _ = Command::new("kill").args(["-s", "QUIT", &process.id().to_string()]).status();
            let _ = process.wait();
        }
    }
}

/// Whether tests run as root.
pub fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
}

/// A program of Postgres, which refuses to be root.
fn program(name: &str) -> Command {
    unprivileged(&super::data_dir().join("runtime/postgres/bin").join(name))
}

/// A program as an ordinary user, that ends with us.
pub fn unprivileged(path: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "INT"]);
    if is_root() {
        command.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups"]);
    }
    command.arg(path).current_dir("/");
    command
}
