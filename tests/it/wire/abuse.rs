//! Hostile HTTP/2 connections, written by Python's h2 and hyperframe: each is ended soon, and costs others nothing.

use std::{path::Path, process::Command, time::Duration};

use serde_json::Value;

use super::process::{Server, Traffic};

/// Memory that one abuse may cost, MB.
const MEMORY: f64 = 50.0;

/// An abuse must be ended within a second. These tests share two cores with others, so a test that fails means more than that.
const PATIENCE: f64 = 5.0;

fn script() -> Command {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let packages = root.join(".tools/wire");
    assert!(packages.join("h2").exists(), "no h2 in {}: run `make setup`", packages.display());
    let python = std::fs::read_to_string(packages.join("interpreter")).unwrap();
    let mut command = Command::new(python.trim());
    command.arg(root.join("tests/wire/h2_abuse.py")).env("PYTHONPATH", packages).env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_abuse_of_http2_is_ended_and_harms_nobody_else() {
    let server = Server::start(&[("DOC_SERVER_LISTEN_HTTP2_CLEARTEXT", "true")]).await;
    let traffic = Traffic::start(server.public);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (before, memory) = (traffic.take(), server.memory());
    let (host, port) = (server.public.ip().to_string(), server.public.port().to_string());
    let output = tokio::task::spawn_blocking(move || script().args([host, port]).output().unwrap()).await.unwrap();
    let during = traffic.stop().await;
    let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{complaints}");
    let mut abuses = 0;
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        println!("{line}");
        let told: Value = serde_json::from_str(line).unwrap();
        assert!(told["ended"] == "goaway" || told["ended"] == "closed", "{line}");
        assert!(told["seconds"].as_f64().unwrap() < PATIENCE, "{line}");
        abuses += 1;
    }
    assert_eq!(abuses, 10);
    let grown = server.memory() - memory;
    println!(
        "memory {memory:.0} MB and {grown:.1} more; others: p99 {:?} before, {:?} during, {} answered",
        before.quantile(0.99),
        during.quantile(0.99),
        during.answered
    );
    assert!(grown < MEMORY, "{grown:.1} MB more");
    assert!(during.failed.is_empty() && during.answered > 0, "{:?}", during.failed);
}
