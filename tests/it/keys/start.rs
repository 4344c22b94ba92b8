//! The binary: keys from the command line, and a server that others reach never opens by accident.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    process::Command,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::harness::{
    PATIENCE,
    database::Database,
    process::{Ended, Running, doc_server, free_addresses, run},
};

/// The binary on this database, with the model that needs no files.
fn on(database: &Database, arguments: &[&str]) -> Command {
    let mut command = doc_server(arguments);
    command.env("DOC_SERVER_DATABASE_URL", database.url()).env("DOC_SERVER_EMBED_PROVIDER", "fake");
    command
}

fn well(ended: Ended) -> Ended {
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    ended
}

/// `serve` on every address of this machine.
fn serve(database: &Database, flags: &[&str]) -> (Command, SocketAddr) {
    let (public, private) = free_addresses();
    let (bind, admin) = (format!("0.0.0.0:{}", public.port()), private.to_string());
    let mut command = on(database, &["serve", "--bind", &bind, "--admin-bind", &admin]);
    command.args(flags);
    (command, public)
}

/// The status of `GET /api/sources`; none while nobody listens.
fn ask(address: SocketAddr, key: Option<&str>) -> Option<u16> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let key = key.map_or_else(String::new, |key| format!("authorization: Bearer {key}\r\n"));
    write!(stream, "GET /api/sources HTTP/1.1\r\nhost: x\r\n{key}connection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.split(' ').nth(1)?.parse().ok()
}

/// Starts it, and returns what a caller with and without a key gets once it listens.
fn started(database: &Database, flags: &[&str], environment: (&str, &str), key: &str) -> (u16, u16) {
    let (mut command, address) = serve(database, flags);
    let running = Running::start(command.env(environment.0, environment.1));
    let began = Instant::now();
    let status = loop {
        if let Some(status) = ask(address, None) {
            break status;
        }
        assert!(began.elapsed() < PATIENCE, "not listening after {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(20));
    };
    let with_key = ask(address, Some(key)).unwrap();
    running.signal("TERM");
    assert_eq!(running.wait(PATIENCE * 2), Some(0));
    (status, with_key)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_others_reach_needs_a_key_or_a_word_that_it_is_meant() {
    let database = Database::migrated().await;
    let refused = |flags: &[&str]| {
        let (mut command, address) = serve(&database, flags);
        let ended = run(&mut command);
        assert_eq!(ended.code, Some(64), "{}", ended.stderr);
        let said = format!("error: bind: 0.0.0.0:{} can be reached from other machines", address.port());
        assert!(ended.stderr.contains(&said), "{}", ended.stderr);
        for way_out in ["doc-server keys create", "anonymous_scopes", "--insecure-open"] {
            assert!(ended.stderr.contains(way_out), "{way_out}: {}", ended.stderr);
        }
    };
    refused(&[]);
    let open = started(&database, &["--insecure-open"], ("LANG", "C"), super::UNKNOWN);
    assert_eq!(open, (200, 401));
    let search = started(&database, &[], ("DOC_SERVER_ANONYMOUS_SCOPES", "search"), super::UNKNOWN);
    assert_eq!(search, (200, 401));

    let made = well(run(&mut on(&database, &["keys", "create", "--name", "ci", "--scope", "search"])));
    let key = made.stdout.trim().to_owned();
    assert!(key.starts_with("dsk_") && !made.stderr.contains(&key), "{}", made.stderr);
    assert_eq!(started(&database, &[], ("LANG", "C"), &key), (401, 200));
    well(run(&mut on(&database, &["keys", "revoke", "1"])));
    refused(&[]);
    database.drop_now().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_made_listed_and_revoked_on_the_command_line() {
    let database = Database::migrated().await;
    let keys = |arguments: &[&str]| run(on(&database, &["keys"]).args(arguments));
    assert!(well(keys(&["list"])).stdout.contains("there are no keys"));
    let create = ["create", "--name", "the docs team", "--scope", "search", "--scope", "sources:write"];
    let more = ["--source", "docs-*", "--expires-in-days", "90", "--requests-per-minute", "600"];
    let made = well(keys(&[&create[..], &more[..]].concat()));
    let secret = made.stdout.trim();
    let listed = well(keys(&["list", "--json"])).stdout;
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed[0]["name"], "the docs team");
    assert_eq!(listed[0]["scopes"], serde_json::json!(["search", "sources:write"]));
    assert_eq!((&listed[0]["sources"][0], &listed[0]["requests_per_minute"]), (&"docs-*".into(), &600.into()));
    assert!(secret.starts_with(listed[0]["hint"].as_str().unwrap().trim_end_matches('…')));
    let table = well(keys(&["list"])).stdout;
    for part in ["the docs team", "search,sources:write", "docs-*", "600", &secret[..12]] {
        assert!(table.contains(part), "{part}: {table}");
    }
    assert!(!table.contains(secret));
    let id = listed[0]["key_id"].to_string();
    assert!(well(keys(&["revoke", &id])).stdout.contains("is revoked"));
    let again = keys(&["revoke", &id]);
    assert_eq!(again.code, Some(1));
    assert!(again.stderr.contains("no key that is not revoked"), "{}", again.stderr);
    assert!(well(keys(&["list"])).stdout.contains("revoked 2"));
    for (arguments, code, said) in [
        (vec!["create", "--name", "x", "--scope", "read"], 2, "sources:write"),
        (vec!["create", "--name", "x"], 2, "--scope"),
        (vec!["create", "--name", "x", "--scope", "admin", "--source", "a"], 1, "sources: admin"),
        (vec!["create", "--name", "x", "--scope", "search", "--source", "a b"], 1, "sources: must be"),
    ] {
        let ended = keys(&arguments);
        assert_eq!(ended.code, Some(code), "{arguments:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(said), "{arguments:?}: {}", ended.stderr);
    }
    database.drop_now().await;
}

#[test]
fn scopes_of_callers_without_a_key_are_checked_at_start() {
    for (scopes, said) in
        [("read", "anonymous_scopes: \"read\" is no scope"), ("search,admin", "anonymous_scopes: admin")]
    {
        let ended = run(doc_server(["migrate"]).env("DOC_SERVER_ANONYMOUS_SCOPES", scopes));
        assert_eq!(ended.code, Some(64), "{}", ended.stderr);
        assert!(ended.stderr.contains(said), "{}", ended.stderr);
    }
}
