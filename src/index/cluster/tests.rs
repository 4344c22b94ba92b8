//! The real server of `scripts/setup run`, in directories of their own: started, attached to, killed, refused, stopped.
//!
//! Each test ends what it started, also when it fails. As root they run Postgres under another account, as it must be.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use sqlx::{AssertSqlSafe, Connection, PgConnection, postgres::PgConnectOptions};
use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout};

use super::{Cluster, Config, Error, account::Account, create, layout::Layout, postmaster};
use crate::runtime::lifecycle::Lifecycle;

/// What `scripts/setup run` has put into the data directory.
fn postgres_dir() -> PathBuf {
    let set = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let data = match set("DOC_SERVER_DATA_DIR") {
        Some(data) => data,
        None if invoker() == 0 => PathBuf::from("/var/lib/doc-server"),
        None => set("XDG_DATA_HOME").unwrap_or_else(|| set("HOME").unwrap().join(".local/share")).join("doc-server"),
    };
    let postgres = data.join("runtime/postgres");
    assert!(postgres.join("bin/postgres").exists(), "{} has no Postgres: run scripts/setup run", postgres.display());
    postgres
}

/// The account that runs the tests.
fn invoker() -> u32 {
    fs::metadata("/proc/self").unwrap().uid()
}

/// A directory for one cluster, and the end of whatever still runs there when the test is over.
struct Home {
    _directory: TempDir,
    config: Config,
}

impl Home {
    fn new() -> Self {
        Self::below("")
    }

    fn below(path: &str) -> Self {
        // Not in the temporary directory of the caller, which another account may be unable to enter.
        let directory = tempfile::Builder::new().prefix("cluster-test-").tempdir_in("/tmp").unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let mut config = Config::new(directory.path().join(path).join("cluster"), postgres_dir());
        config.shared_buffers_mb = 16;
        Self { _directory: directory, config }
    }

    fn layout(&self) -> Layout {
        Layout::new(&self.config.data_dir.canonicalize().unwrap())
    }

    fn pid(&self) -> Option<u32> {
        let layout = self.layout();
        postmaster::find(&layout, &Account::choose(&layout.data).unwrap())
    }

    async fn open(&self) -> Cluster {
        Cluster::open(&self.config).await.unwrap()
    }

    /// Kills the server as the kernel would when memory runs out, and waits until it is gone.
    async fn kill_server(&self) {
        let killed = self.pid();
        signal("-KILL", killed.unwrap());
        // A task may have started the next one meanwhile.
        while self.pid() == killed {
            sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if let Ok(root) = self.config.data_dir.canonicalize() {
            let layout = Layout::new(&root);
            for pid in postmaster::orphans(&layout) {
                signal("-QUIT", pid);
            }
            if !layout.socket.starts_with(&root) {
                let _ = fs::remove_dir_all(&layout.socket);
            }
        }
    }
}

fn signal(which: &str, pid: u32) {
    Command::new("kill").args([which, &pid.to_string()]).stderr(Stdio::null()).status().unwrap();
}

async fn ask(cluster: &Cluster, question: &str) -> String {
    let mut connection = PgConnection::connect_with(&cluster.connect_options()).await.unwrap();
    let answer = sqlx::query_scalar(AssertSqlSafe(question)).fetch_one(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    answer
}

async fn tell(cluster: &Cluster, statement: &str) {
    let mut connection = PgConnection::connect_with(&cluster.connect_options()).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

async fn refusal(config: &Config) -> Error {
    Cluster::open(config).await.expect_err("the cluster must not open")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_starts_it_others_attach_the_last_stops_it() {
    let home = Home::new();
    let first = home.open().await;
    tell(&first, "create extension vector; create table kept as select 'here' as word").await;
    let server = home.pid().unwrap();

    let second = home.open().await;
    assert_eq!(home.pid(), Some(server), "the second attaches");
    first.close().await.unwrap();
    assert_eq!(ask(&second, "select word from kept").await, "here", "the first only leaves");
    second.close().await.unwrap();
    assert_eq!(home.pid(), None, "the last stops it");
    assert!(!home.layout().socket_file().exists(), "and in order");

    let third = home.open().await;
    assert_eq!(ask(&third, "select word from kept").await, "here");
    drop(third);
    assert!(home.pid().is_some(), "a process that is killed leaves it running");
    let adopted = home.open().await;
    assert_eq!(ask(&adopted, "select word from kept").await, "here");
    adopted.close().await.unwrap();
    assert_eq!(home.pid(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_durable_private_and_not_roots() {
    let home = Home::new();
    let cluster = home.open().await;
    for (setting, value) in [
        ("fsync", "on"),
        ("synchronous_commit", "on"),
        ("full_page_writes", "on"),
        ("data_checksums", "on"),
        ("listen_addresses", ""),
        ("server_encoding", "UTF8"),
        ("max_connections", "100"),
        ("shared_buffers", "16MB"),
        ("jit", "off"),
        ("client_connection_check_interval", "1s"),
        ("password_encryption", "scram-sha-256"),
    ] {
        assert_eq!(ask(&cluster, &format!("select current_setting('{setting}')")).await, value, "{setting}");
    }
    let locale =
        "select concat_ws(' ', datlocprovider, datctype, datlocale) from pg_database where datname = 'doc_server'";
    assert_eq!(ask(&cluster, locale).await, "b C.UTF-8 C.UTF-8");
    assert_eq!(
        ask(&cluster, "select string_agg(distinct auth_method, ' ') from pg_hba_file_rules").await,
        "scram-sha-256"
    );

    let (layout, server) = (home.layout(), home.pid().unwrap());
    let invoker = invoker();
    let owner = fs::metadata(format!("/proc/{server}")).unwrap().uid();
    assert_ne!(owner, 0);
    assert!(invoker == 0 || owner == invoker);
    let facts = |path: &Path| fs::metadata(path).map(|found| (found.uid(), found.mode() & 0o777)).unwrap();
    assert_eq!(facts(&layout.password), (invoker, 0o600));
    for directory in [&layout.data, &layout.socket, &layout.log] {
        assert_eq!(facts(directory), (owner, 0o700), "{}", directory.display());
    }
    let session = |pid: &str| -> String {
        // The fields after the name: state, parent, process group, session.
        let status = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        status.rsplit(") ").next().unwrap().split(' ').nth(3).unwrap().to_owned()
    };
    assert_ne!(session(&server.to_string()), session("self"), "an interrupt from the terminal does not reach it");

    let password = fs::read_to_string(&layout.password).unwrap();
    assert!(!format!("{cluster:?}").contains(&password));
    let from_url = PgConnectOptions::from_str(&cluster.url()).unwrap();
    PgConnection::connect_with(&from_url).await.unwrap().close().await.unwrap();
    let wrong = cluster.connect_options().password("wrong");
    assert!(PgConnection::connect_with(&wrong).await.is_err());
    cluster.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_is_started_again_with_its_data() {
    let home = Home::new();
    let cluster = Arc::new(home.open().await);
    tell(&cluster, "create table kept as select 'here' as word").await;

    home.kill_server().await;
    assert!(cluster.ensure_running().await.unwrap());
    assert!(!cluster.ensure_running().await.unwrap());
    assert_eq!(ask(&cluster, "select word from kept").await, "here");

    home.kill_server().await;
    let other = home.open().await;
    assert_eq!(ask(&other, "select word from kept").await, "here");
    other.close().await.unwrap();

    let lifecycle = Lifecycle::new();
    lifecycle.spawn("cluster", Arc::clone(&cluster).supervise_task(lifecycle.clone()));
    home.kill_server().await;
    let killed = Instant::now();
    while home.pid().is_none() || PgConnection::connect_with(&cluster.connect_options()).await.is_err() {
        assert!(killed.elapsed() < Duration::from_mins(1), "the task brings it back");
        sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(ask(&cluster, "select word from kept").await, "here");
    lifecycle.stop();
    while Arc::strong_count(&cluster) > 1 {
        sleep(Duration::from_millis(5)).await;
    }
    Arc::into_inner(cluster).unwrap().close().await.unwrap();
    assert_eq!(home.pid(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_that_outlive_a_killed_server_are_ended() {
    let home = Home::new();
    let cluster = home.open().await;
    let mut busy = PgConnection::connect_with(&cluster.connect_options()).await.unwrap();
    // It never waits for anything, so it does not notice that its server is gone.
    let endless = "do $$ begin loop perform 1; end loop; end $$";
    let running = sqlx::raw_sql(endless).execute(&mut busy);
    let restart = async {
        let active =
            "select count(*)::text from pg_stat_activity where state = 'active' and query like 'do $$ begin loop%'";
        while ask(&cluster, active).await != "1" {
            sleep(Duration::from_millis(5)).await;
        }
        home.kill_server().await;
        assert!(!postmaster::orphans(&home.layout()).is_empty(), "the statement is still at work");
        cluster.ensure_running().await.unwrap()
    };
    let (ended, restarted) = timeout(Duration::from_mins(1), async { tokio::join!(running, restart) }).await.unwrap();
    assert!(ended.is_err());
    assert!(restarted);
    cluster.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pid_file_that_names_a_stranger_is_not_believed() {
    let home = Home::new();
    let cluster = home.open().await;
    let (layout, account) = (home.layout(), Account::choose(&home.layout().data).unwrap());
    // Of the server's own account, so that Postgres itself would take it for a server.
    let mut stranger = account.command(Path::new("/bin/sleep"), Path::new("/")).arg("600").spawn().unwrap();
    let files = [layout.data.join("postmaster.pid"), layout.socket_lock()];
    for named in [stranger.id().unwrap(), std::process::id()] {
        let before = files.clone().map(|path| fs::read_to_string(path).unwrap());
        home.kill_server().await;
        for (path, text) in files.iter().zip(before) {
            let (_, rest) = text.split_once('\n').unwrap();
            fs::write(path, format!("{named}\n{rest}")).unwrap();
        }
        assert_eq!(home.pid(), None);
        assert!(cluster.ensure_running().await.unwrap());
    }
    cluster.close().await.unwrap();
    assert_eq!(stranger.try_wait().unwrap(), None, "nobody signalled it");
    stranger.kill().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_first_start_leaves_nothing_half_made() {
    let home = Home::new();
    fs::create_dir_all(&home.config.data_dir).unwrap();
    let layout = home.layout();
    let begun = async {
        while makers(&layout).is_empty() {
            sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::select! {
        biased;
        () = begun => (),
        opened = Cluster::open(&home.config) => panic!("it was not interrupted: {opened:?}"),
    }
    assert!(!layout.data.exists());
    let left = layout.root.join("data.unfinished-of-a-killed-process");
    fs::create_dir_all(left.join("base")).unwrap();
    fs::write(left.join("PG_VERSION"), "18").unwrap();

    let (one, other) = tokio::join!(home.open(), home.open());
    assert_eq!(ask(&one, "select system_identifier::text from pg_control_system()").await, {
        ask(&other, "select system_identifier::text from pg_control_system()").await
    });
    assert!(!left.exists());
    one.close().await.unwrap();
    assert!(home.pid().is_some());
    other.close().await.unwrap();
    let mut names: Vec<_> = fs::read_dir(&layout.root).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["control.lock", "data", "log", "password", "socket", "users.lock"]);
}

/// The processes at work in a data directory that is being made.
fn makers(layout: &Layout) -> Vec<u32> {
    let place = |pid: u32| fs::read_link(format!("/proc/{pid}/cwd")).ok();
    let unfinished = layout.root.join("data.unfinished-");
    let unfinished = unfinished.to_str().unwrap();
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let pids = processes.filter_map(|process| process.file_name().to_str()?.parse().ok());
    pids.filter(|pid| place(*pid).is_some_and(|place| place.to_str().unwrap().starts_with(unfinished))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_goes_on_for_a_first_start_that_was_given_up() {
    let home = Home::new();
    fs::create_dir_all(&home.config.data_dir).unwrap();
    let layout = home.layout();
    let halted = async {
        loop {
            // Halted, it cannot end by itself.
            if let Some(maker) = makers(&layout).first() {
                signal("-STOP", *maker);
                return *maker;
            }
            sleep(Duration::from_millis(1)).await;
        }
    };
    let halted = tokio::select! {
        opened = Cluster::open(&home.config) => panic!("it was not halted: {opened:?}"),
        halted = halted => halted,
    };
    let gone = async {
        while makers(&layout).contains(&halted) {
            sleep(Duration::from_millis(5)).await;
        }
    };
    let ended = timeout(Duration::from_secs(10), gone).await;
    signal("-KILL", halted);
    assert!(ended.is_ok(), "a server that initdb had started outlived it");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_interrupted_first_start_left_goes_with_any_later_start() {
    let home = Home::new();
    home.open().await.close().await.unwrap();
    let left = home.layout().root.join("data.unfinished-of-a-killed-process");
    fs::create_dir_all(left.join("base")).unwrap();
    home.open().await.close().await.unwrap();
    assert!(!left.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_data_directory_gets_a_short_socket() {
    let home = Home::below(&format!("it's, \"long\"/{}", "deep/".repeat(20)));
    let cluster = home.open().await;
    let layout = home.layout();
    assert!(layout.socket.starts_with("/tmp"));
    assert_eq!(fs::metadata(&layout.socket).unwrap().mode() & 0o777, 0o700);
    assert_eq!(ask(&cluster, "select current_database()::text").await, "doc_server");
    PgConnection::connect(&cluster.url()).await.unwrap().close().await.unwrap();
    let psql =
        Command::new(home.config.postgres_dir.join("bin/psql")).args(["-Atc", "select 1", &cluster.url()]).output();
    assert_eq!(psql.unwrap().stdout, b"1\n");
    cluster.close().await.unwrap();

    // Somebody else's directory in its place is not used.
    fs::remove_dir_all(&layout.socket).unwrap();
    std::os::unix::fs::symlink("/tmp", &layout.socket).unwrap();
    assert!(matches!(refusal(&home.config).await, Error::Foreign { .. }));
    fs::remove_file(&layout.socket).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_work_is_refused_with_the_way_out() {
    let home = Home::new();
    let mut config = home.config.clone();
    config.postgres_dir = home.config.data_dir.with_file_name("nowhere");
    let message = refusal(&config).await.to_string();
    for part in ["nowhere/bin/postgres", "scripts/setup run", "DOC_SERVER_DATABASE_URL"] {
        assert!(message.contains(part), "{message}");
    }

    fs::create_dir_all(&config.postgres_dir).unwrap();
    std::os::unix::fs::symlink(home.config.postgres_dir.join("bin"), config.postgres_dir.join("bin")).unwrap();
    let message = refusal(&config).await.to_string();
    assert!(message.contains("pgvector"), "{message}");

    let layout = home.layout();
    let account = Account::choose(&layout.data).unwrap();
    account.private_directory(&layout.data).unwrap();
    fs::write(layout.data.join("PG_VERSION"), "15\n").unwrap();
    let message = refusal(&home.config).await.to_string();
    for part in ["Postgres 15", "Postgres 18", "pg_upgrade", "DOC_SERVER_POSTGRES_DIR"] {
        assert!(message.contains(part), "{message}");
    }

    // A server that cannot start says why, in its own words.
    fs::write(layout.data.join("PG_VERSION"), "18\n").unwrap();
    let message = refusal(&home.config).await.to_string();
    assert!(message.contains("postgresql.conf") && message.contains("No such file"), "{message}");

    fs::remove_file(&layout.password).unwrap();
    let message = refusal(&home.config).await.to_string();
    assert!(message.contains("password is missing"), "{message}");
    assert!(create::password(&layout).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn root_is_told_where_its_account_cannot_go() {
    if invoker() != 0 {
        return;
    }
    let home = Home::below("private");
    let private = home.config.data_dir.parent().unwrap();
    fs::create_dir(private).unwrap();
    fs::set_permissions(private, fs::Permissions::from_mode(0o700)).unwrap();
    let message = refusal(&home.config).await.to_string();
    for part in [private.to_str().unwrap(), "DOC_SERVER_DATA_DIR", "uid"] {
        assert!(message.contains(part), "{message}");
    }
}
