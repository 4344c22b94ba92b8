//! The binary as a person uses it: help, results, and what it says when something is wrong.

use std::{net::TcpListener, process::Command};

use insta::assert_snapshot;
use serde_json::Value;

use crate::harness::{
    TestApp,
    database::Database,
    fixtures::GUIDE,
    folder_of,
    process::{Ended, doc_server, free_address, run},
};

const ROLES: [&str; 12] = [
    "serve",
    "migrate",
    "ingest",
    "search",
    "explain",
    "index",
    "sources",
    "keys",
    "eval",
    "openapi",
    "healthcheck",
    "completions",
];

/// The binary on this database, with the model that needs no files.
fn on(database: &Database, arguments: &[&str]) -> Command {
    let mut command = doc_server(arguments);
    command.env("DOC_SERVER_DATABASE_URL", database.url()).env("DOC_SERVER_EMBED_PROVIDER", "fake");
    command
}

fn expect_well(ended: &Ended) {
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
}

#[test]
fn help_says_what_each_role_does() {
    let help = |arguments: &[&str]| {
        let ended = run(&mut doc_server(arguments));
        expect_well(&ended);
        format!("$ doc-server {}\n{}", arguments.join(" "), ended.stdout)
    };
    let all = std::iter::once(help(&["--help"])).chain(ROLES.iter().map(|role| help(&[role, "--help"])));
    let all: Vec<String> = all.chain([help(&["keys", "create", "--help"])]).collect();
    assert_snapshot!("help", all.join("\n"));
}

#[test]
fn a_bad_setting_is_refused_by_name() {
    let settings = folder_of(&[
        ("unknown.toml", "colour = \"red\"\n"),
        ("malformed.toml", "bind = \n"),
        ("wrong_type.toml", "ef_search = \"many\"\n"),
    ]);
    let file = |name: &str| settings.path().join(name).to_str().unwrap().to_owned();
    for (arguments, variable, said) in [
        (vec![], ("DOC_SERVER_FOO", "1"), "foo"),
        (vec![], ("DOC_SERVER_EF_SEARCH", "0"), "ef_search: set 1 to 1000"),
        (vec![], ("DOC_SERVER_EF_SEARCH", "many"), "ef_search"),
        (vec![], ("DOC_SERVER_BIND", "nowhere"), "bind"),
        (vec![], ("DOC_SERVER_MODEL_PRECISION", "f8"), "model_precision"),
        (vec![], ("DOC_SERVER_DATABASE_READ_CONNECTIONS", "1"), "database_read_connections"),
        (vec![], ("DOC_SERVER_EMBED_PROVIDER", "remote"), "embed_url"),
        (vec![], ("DOC_SERVER_DATABASE_URL", "mysql://x"), "database_url"),
        (vec![], ("DOC_SERVER_LOG_LEVEL", "info,=="), "log_level"),
        (vec!["--config".to_owned(), file("unknown.toml")], ("LANG", "C"), "colour"),
        (vec!["--config".to_owned(), file("malformed.toml")], ("LANG", "C"), "malformed.toml"),
        (vec!["--config".to_owned(), file("wrong_type.toml")], ("LANG", "C"), "ef_search"),
        (vec!["--config".to_owned(), file("missing.toml")], ("LANG", "C"), "missing.toml"),
    ] {
        let ended = run(doc_server(["migrate"]).args(&arguments).env(variable.0, variable.1));
        assert!(ended.code.is_some_and(|code| code != 0), "{variable:?} {arguments:?}: {:?}", ended.code);
        assert!(
            ended.stderr.starts_with("error: ") && ended.stderr.contains(said),
            "{variable:?} {arguments:?}: {}",
            ended.stderr
        );
        assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
    }
}

#[test]
fn a_wrong_command_line_is_refused_with_usage() {
    for (arguments, said) in [
        (vec!["frobnicate"], "frobnicate"),
        (vec!["ingest", "docs"], "--source"),
        (vec!["ingest", "docs", "--source", "has space"], "letters, digits"),
        (vec!["ingest", "docs", "--source", "x", "--version", "latest"], "latest"),
        (vec!["search", "x", "--mode", "semantic"], "hybrid"),
        (vec!["search", "x", "-n", "101"], "101"),
        (vec!["index"], "--kind"),
    ] {
        let ended = run(&mut doc_server(&arguments));
        assert_eq!(ended.code, Some(2), "{arguments:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(said), "{arguments:?}: {}", ended.stderr);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_taken_port_names_its_holder() {
    let database = Database::migrated().await;
    let holder = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = holder.local_addr().unwrap().to_string();
    for (taken, free) in [("--bind", "--admin-bind"), ("--admin-bind", "--bind")] {
        let ended = run(&mut on(&database, &["serve", taken, &address, free, "127.0.0.1:0"]));
        assert_eq!(ended.code, Some(1));
        let setting = taken.trim_start_matches('-').replace('-', "_");
        let expected = format!("error: {setting}: {address} is taken by ");
        assert!(ended.stderr.contains(&expected), "{}", ended.stderr);
        assert!(ended.stderr.contains(&format!("(process {})", std::process::id())), "{}", ended.stderr);
    }
    database.drop_now().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_cannot_be_used_is_told_with_the_way_out() {
    let database = Database::empty().await;
    let url = database.url();
    let closed = free_address();
    for (url, said) in [
        (url.replace(&database.name, "no_such_database"), "create it, or name another in database_url"),
        (url.replace("postgres@", "no_such_user@"), "check the user and password in database_url"),
        (format!("postgres://postgres@{closed}/postgres"), "is Postgres running at the address in database_url?"),
        ("postgres://postgres@no-such-host.invalid/postgres".to_owned(), "database"),
    ] {
        for role in [vec!["migrate"], vec!["serve", "--bind", "127.0.0.1:0", "--admin-bind", "127.0.0.1:0"]] {
            let ended = run(doc_server(&role).env("DOC_SERVER_DATABASE_URL", &url));
            assert_eq!(ended.code, Some(1), "{url} {role:?}: {}", ended.stderr);
            assert!(ended.stderr.contains(said), "{url} {role:?}: {}", ended.stderr);
        }
    }
    database.drop_now().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_model_or_library_is_told_by_its_setting() {
    let database = Database::migrated().await;
    let folder = folder_of(&GUIDE[..1]);
    let path = folder.path().to_str().unwrap();
    for (variable, setting) in [("DOC_SERVER_MODEL_DIR", "model_dir"), ("DOC_SERVER_ONNXRUNTIME", "onnxruntime")] {
        for role in [
            vec!["ingest", path, "--source", "guide"],
            vec!["serve", "--bind", "127.0.0.1:0", "--admin-bind", "127.0.0.1:0"],
        ] {
            let mut command = doc_server(&role);
            let ended = run(command.env("DOC_SERVER_DATABASE_URL", database.url()).env(variable, "/nowhere/at/all"));
            assert!(ended.code.is_some_and(|code| code != 0), "{role:?}: {}", ended.stderr);
            assert!(ended.stderr.contains("/nowhere/at/all"), "{role:?}: {}", ended.stderr);
            assert!(ended.stderr.contains(&format!("error: {setting}: ")), "{role:?}: {}", ended.stderr);
        }
    }
    database.drop_now().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn migrate_ingest_search_and_index_work_on_a_database_of_ones_own() {
    let database = Database::empty().await;
    let folder = folder_of(&GUIDE);
    std::fs::write(folder.path().join("binary.md"), b"\0").unwrap();
    let path = folder.path().to_str().unwrap();

    let migrated = run(&mut on(&database, &["migrate"]));
    expect_well(&migrated);
    assert!(migrated.stdout.starts_with("applied "), "{}", migrated.stdout);
    assert_eq!(run(&mut on(&database, &["migrate"])).stdout, "the schema is up to date\n");

    let ingest = ["ingest", path, "--source", "guide", "--version", "1.0.0", "--title", "The guide"];
    let ingested = run(&mut on(&database, &ingest));
    expect_well(&ingested);
    assert!(ingested.stderr.contains("skipped binary.md: binary"), "{}", ingested.stderr);
    assert!(ingested.stdout.contains("7 pages written, 0 unchanged, 0 removed, 1 file skipped"), "{}", ingested.stdout);
    assert!(ingested.stdout.contains("published guide 1.0.0: 7 pages"), "{}", ingested.stdout);
    let again = run(&mut on(&database, &ingest));
    assert!(again.stdout.contains("nothing has changed; guide 1.0.0 stays as it is"), "{}", again.stdout);

    let found = run(&mut on(&database, &["search", "exponential backoff", "-n", "1", "--explain"]));
    expect_well(&found);
    assert!(found.stdout.contains("Retries") && found.stdout.contains("retry.md"), "{}", found.stdout);
    assert!(!found.stdout.contains('\u{1b}'), "no colours where nobody looks: {}", found.stdout);

    for kind in ["ivfflat", "hnsw"] {
        let built = run(&mut on(&database, &["index", "--kind", kind]));
        expect_well(&built);
        assert!(built.stdout.contains("built and swapped in for hashed-words/fake"), "{}", built.stdout);
    }
    database.drop_now().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn search_prints_the_json_of_the_api() {
    let app = TestApp::start().await;
    app.ingest(&GUIDE, "guide", "1.0.0").await;
    let arguments = ["search", "connection pool timeout", "-n", "2", "--json", "--explain", "--source", "guide"];
    let printed = run(&mut on(&app.database, &arguments));
    expect_well(&printed);
    let printed: Value = serde_json::from_str(&printed.stdout).unwrap();
    let served = app.search("query=connection+pool+timeout&match_count=2&explain=true&source=guide").await;
    assert_eq!(printed, served);
    for (arguments, said) in [
        (["search", "pool", "--source", "nobody"], "no source is called \"nobody\"; there are: guide"),
        (["search", "pool", "--version", "9.9"], "no source has the version \"9.9\""),
        (["search", "  ", "--mode", "keyword"], "query: must have 1 to 2000 characters"),
        (["search", "pool", "--alpha", "1.5"], "--alpha: must be a number from 0 to 1"),
        (["ingest", "/nowhere/at/all", "--source", "x"], "path: cannot read /nowhere/at/all"),
    ] {
        let ended = run(&mut on(&app.database, &arguments));
        assert_eq!(ended.code, Some(1), "{arguments:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(said), "{arguments:?}: {}", ended.stderr);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn explain_shows_each_statement_with_its_plan() {
    let app = TestApp::start().await;
    app.ingest(&GUIDE, "guide", "1.0.0").await;
    let told = run(&mut on(&app.database, &["explain", "connection pool timeout", "-n", "2"]));
    expect_well(&told);
    for part in ["vector.exact: ", "keyword.weigh: ", "keyword.score: ", "fetch.passages: ", "indexes: ", "-> ", "$1"] {
        assert!(told.stdout.contains(part), "{part}: {}", told.stdout);
    }
    assert!(told.stdout.contains("2 results from 1 generations by "), "{}", told.stdout);
    let printed = run(&mut on(&app.database, &["explain", "pool", "--mode", "keyword", "--json"]));
    expect_well(&printed);
    let printed: Value = serde_json::from_str(&printed.stdout).unwrap();
    assert_eq!(printed["statements"].as_array().unwrap().len(), 3, "{printed:#}");
    let unknown = run(&mut on(&app.database, &["explain", "pool", "--source", "nobody"]));
    assert_eq!(unknown.code, Some(1));
    assert!(unknown.stderr.contains("no source is called \"nobody\""), "{}", unknown.stderr);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sources_are_listed_and_deleted() {
    let app = TestApp::builder().closed(&[]).with_background_tasks().start().await;
    let none = run(&mut on(&app.database, &["sources", "list"]));
    expect_well(&none);
    assert!(none.stdout.contains("doc-server ingest FOLDER"), "{}", none.stdout);
    app.ingest(&GUIDE, "guide", "1.0.0").await;
    app.ingest(&GUIDE, "guide", "2.0.0").await;
    let listed = run(&mut on(&app.database, &["sources", "list"]));
    expect_well(&listed);
    let line: Vec<&str> = listed.stdout.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(line[..4], ["guide", "2.0.0", "2", "7"], "{}", listed.stdout);
    let json = run(&mut on(&app.database, &["sources", "list", "--json"]));
    let (_, key) = app.make_key(&["search"], &[]).await;
    let served = app.get_as(&key, "/api/sources").await.json();
    assert_eq!(serde_json::from_str::<Value>(&json.stdout).unwrap(), served["sources"]);
    app.execute("insert into versions (source, version) select id, '3.0.0' from sources").await;
    let unfinished = run(&mut on(&app.database, &["sources", "list"]));
    assert!(unfinished.stdout.contains("2, 1 not imported to its end  7 "), "{}", unfinished.stdout);
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let lost: Ended = on(&app.database, &["sources", "list"]).stdout(full).output().unwrap().into();
    assert!(lost.code == Some(1) && lost.stderr.contains("could not be written"), "{}", lost.stderr);

    let deleted = run(&mut on(&app.database, &["sources", "delete", "guide"]));
    expect_well(&deleted);
    assert_eq!(app.get_as(&key, "/api/sources").await.json()["count"], 0, "the server knows before it is told");
    let again = run(&mut on(&app.database, &["sources", "delete", "guide"]));
    assert_eq!(again.code, Some(1));
    assert!(again.stderr.contains("no source is called \"guide\""), "{}", again.stderr);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn healthcheck_asks_a_running_server() {
    let app = TestApp::start().await;
    let address = app.listen().await.to_string();
    let check = |address: &str| run(doc_server(["healthcheck"]).env("DOC_SERVER_BIND", address));
    let well = check(&address);
    expect_well(&well);
    assert!(well.stdout.contains("\"status\":\"healthy\""), "{}", well.stdout);
    let nobody = check("127.0.0.1:1");
    assert_eq!(nobody.code, Some(1));
    assert!(nobody.stderr.contains("no healthy server at 127.0.0.1:1"), "{}", nobody.stderr);
}

#[test]
fn openapi_and_completions_need_neither_database_nor_settings() {
    let printed = run(doc_server(["openapi"]).env("DOC_SERVER_EF_SEARCH", "nonsense"));
    expect_well(&printed);
    assert!(serde_json::from_str::<Value>(&printed.stdout).unwrap()["paths"]["/api/search"].is_object());
    for shell in ["bash", "zsh", "fish"] {
        let ended = run(&mut doc_server(["completions", shell]));
        expect_well(&ended);
        assert!(ended.stdout.contains("ingest"), "{shell}");
    }
}
