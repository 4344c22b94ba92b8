//! The embedded database end to end, with the real binary: started, attached to, killed, started again, stopped.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{
    data_dir,
    fixtures::GUIDE,
    folder_of,
    process::{Ended, Running, doc_server, free_addresses, run},
};

/// Creating a cluster takes a few seconds, more on a busy machine.
const START: Duration = Duration::from_mins(1);

/// A data directory of its own, whose programs are the real ones; its Postgres ends with it.
struct Home {
    folder: TempDir,
    public: SocketAddr,
    private: SocketAddr,
}

impl Home {
    fn new() -> Self {
        let runtime = data_dir().join("runtime");
        assert!(
            runtime.join("postgres/bin/postgres").exists(),
            "no Postgres in {}: run `make setup`",
            runtime.display()
        );
        // In /tmp, which the account that Postgres runs as can enter.
        let folder = tempfile::Builder::new().prefix("doc-server-it-").tempdir_in("/tmp").unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        std::os::unix::fs::symlink(runtime, folder.path().join("runtime")).unwrap();
        let (public, private) = free_addresses();
        Self { folder, public, private }
    }

    /// The binary on this data directory.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = doc_server(arguments);
        command
            .env("DOC_SERVER_DATA_DIR", self.folder.path())
            .env("DOC_SERVER_EMBED_PROVIDER", "fake")
            // A busy machine is slow, not faulty.
            .env("DOC_SERVER_DATABASE_ACQUIRE_TIMEOUT_MS", "5000")
            .env("DOC_SERVER_BIND", self.public.to_string())
            .env("DOC_SERVER_ADMIN_BIND", self.private.to_string());
        command
    }

    fn run(&self, arguments: &[&str]) -> Ended {
        let ended = run(&mut self.command(arguments));
        assert_eq!(ended.code, Some(0), "{arguments:?}: {}{}", ended.stdout, ended.stderr);
        ended
    }

    /// Starts the server and waits until it is ready.
    fn serve(&self) -> Running {
        let server = Running::start(&mut self.command(&["serve"]));
        wait_until("it is ready", || get(self.private, "/readyz").is_some_and(|(status, _)| status == 200));
        server
    }

    fn search(&self, query: &str) -> Value {
        let (status, body) = get(self.public, &format!("/api/search?query={query}")).expect("an answer");
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }

    /// The embedded database asks for a password, so it shows what a wrong one looks like.
    fn expect_wrong_password_told(&self) {
        let socket = self.folder.path().canonicalize().unwrap().join("cluster/socket");
        let host = socket.to_str().unwrap().replace('/', "%2F");
        let url = format!("postgres://doc_server:wrong@{host}:5432/doc_server");
        let ended = run(self.command(&["migrate"]).env("DOC_SERVER_DATABASE_URL", url));
        assert_eq!(ended.code, Some(1));
        let said = "check the user and password in database_url";
        assert!(ended.stderr.contains(said) && !ended.stderr.contains("wrong@"), "{}", ended.stderr);
    }

    fn pid_file(&self) -> PathBuf {
        self.folder.path().join("cluster/data/postmaster.pid")
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let Some(pid) = first_line(&self.pid_file()) else { return };
        let _ = Command::new("kill").args(["-s", "QUIT", &pid]).status();
        let began = Instant::now();
        while Path::new("/proc").join(&pid).exists() && began.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn first_line(path: &Path) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.lines().next()?.to_owned())
}

/// Returns once `condition` holds.
fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < START, "not within {START:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// One request on a connection of its own; none while nobody listens.
fn get(address: SocketAddr, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

#[test]
fn serves_from_its_own_database_through_kills_and_stops_in_order() {
    let (home, guide) = (Home::new(), folder_of(&GUIDE));
    let server = home.serve();
    let ingested = home.run(&["ingest", guide.path().to_str().unwrap(), "--source", "guide", "--version", "1.0.0"]);
    assert!(ingested.stdout.contains("published guide 1.0.0: 7 pages"), "{}", ingested.stdout);
    // The import was another process: the server hears of it.
    wait_until("it has heard of the import", || home.search("exponential+backoff")["count"] != 0);
    assert!(home.run(&["search", "exponential backoff"]).stdout.contains("retry.md"), "attached to the running one");
    wait_until("it is healthy", || run(&mut home.command(&["healthcheck"])).code == Some(0));
    home.expect_wrong_password_told();

    server.signal("KILL");
    assert_eq!(server.wait(START), None, "ended by a signal");
    let server = home.serve();
    assert_eq!(home.search("exponential+backoff")["results"][0]["url"], "retry.md");

    server.signal("TERM");
    assert_eq!(server.wait(START), Some(0));
    // It may be writing for longer than the last to leave waits for it.
    wait_until("the last to leave has stopped Postgres", || !home.pid_file().exists());
    assert!(home.run(&["search", "backoff", "--json"]).stdout.contains("retry.md"), "starts it for itself alone");
    wait_until("it has stopped it again", || !home.pid_file().exists());
}

#[test]
fn a_taken_port_starts_no_database() {
    let home = Home::new();
    let _holder = std::net::TcpListener::bind(home.public).unwrap();
    let ended = run(&mut home.command(&["serve"]));
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("is taken by"), "{}", ended.stderr);
    assert!(!home.folder.path().join("cluster").exists());
}

#[test]
fn missing_programs_are_told_with_the_way_out() {
    let home = Home::new();
    let ended = run(home.command(&["migrate"]).env("DOC_SERVER_POSTGRES_DIR", "/nowhere/at/all"));
    assert_eq!(ended.code, Some(1));
    let (missing, way_out) = ("/nowhere/at/all", "run scripts/setup run, or set DOC_SERVER_DATABASE_URL");
    assert!(ended.stderr.contains(missing) && ended.stderr.contains(way_out), "{}", ended.stderr);
}
