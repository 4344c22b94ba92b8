//! A real `PgBouncer` in transaction mode, with so few server connections that hardly any transaction follows another on the
//! same one.

use std::{
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
};

use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};
use tempfile::TempDir;

use super::{eventually, postgres::unprivileged, process::free_address};

/// Tests of a process started with this talk to its databases through the pooler at this address.
pub const EVERYWHERE: &str = "DOC_SERVER_TEST_POOLER";

/// The running program; it ends with this value.
pub struct Pooler {
    folder: TempDir,
    port: u16,
    process: Child,
}

impl Pooler {
    /// In front of the server at `upstream`, with `connections` to it for each database.
    pub async fn start(upstream: SocketAddr, connections: u32) -> Self {
        let folder = tempfile::Builder::new().prefix("doc-server-it-").tempdir_in("/tmp").expect("a folder");
        let port = free_address().port();
        let settings = folder.path().join("pgbouncer.ini");
        // No `ignore_startup_parameters`: an operator's may lack it too.
        let text = format!(
            "[databases]\n* = host={} port={} user=postgres\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = any\npool_mode = transaction\ndefault_pool_size = {connections}\n\
             max_client_conn = 1000\n",
            upstream.ip(),
            upstream.port()
        );
        std::fs::write(&settings, text).expect("its settings");
        let log = std::fs::File::create(folder.path().join("log")).expect("its log");
        if super::postgres::is_root() {
            // It refuses to be root.
            let owned = Command::new("chown").args(["-R", "nobody:nogroup"]).arg(folder.path()).status();
            assert!(owned.expect("chown").success());
        }
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/bin/pgbouncer");
        let mut command = unprivileged(&program);
        command.arg(&settings).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let process = command.spawn().expect("pgbouncer: run scripts/setup test");
        let pooler = Self { folder, port, process };
        let options = pooler.options(&PgConnectOptions::new().username("postgres").database("postgres"));
        eventually("pgbouncer answers", async || PgConnection::connect_with(&options).await.is_ok()).await;
        pooler
    }

    /// The way to the database of `options` through it.
    pub fn options(&self, options: &PgConnectOptions) -> PgConnectOptions {
        options.clone().host("127.0.0.1").port(self.port).extra_float_digits(None).statement_cache_capacity(0)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = (self.process.kill(), self.process.wait());
    }
}
