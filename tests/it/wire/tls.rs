//! TLS from files: served, negotiated, read again when they change, and never worse for a bad change.

use std::{path::PathBuf, sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use doc_server::runtime::listen::{Config, Error, tls::Certificates};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName},
};
use tempfile::TempDir;
use tokio::{io::AsyncWriteExt, net::TcpStream};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::door::{Door, SHORT, ask, patient, until_closed};
use crate::harness::{install_tls, within};

/// A certificate and its key, DER.
struct Pair {
    certificate: &'static [u8],
    key: &'static [u8],
}

const FIRST: Pair = Pair {
    certificate: include_bytes!("certificates/first.certificate.der"),
    key: include_bytes!("certificates/first.key.der"),
};
const SECOND: Pair = Pair {
    certificate: include_bytes!("certificates/second.certificate.der"),
    key: include_bytes!("certificates/second.key.der"),
};

/// The two files, PEM.
struct Files {
    folder: TempDir,
}

impl Files {
    fn with(pair: &Pair) -> Self {
        let files = Self { folder: tempfile::tempdir().unwrap() };
        files.put(pair);
        files
    }

    fn put(&self, pair: &Pair) {
        std::fs::write(self.certificate(), pem("CERTIFICATE", pair.certificate)).unwrap();
        std::fs::write(self.key(), pem("PRIVATE KEY", pair.key)).unwrap();
    }

    fn certificate(&self) -> PathBuf {
        self.folder.path().join("certificate.pem")
    }

    fn key(&self) -> PathBuf {
        self.folder.path().join("key.pem")
    }

    async fn open(&self) -> Result<Arc<Certificates>, Error> {
        install_tls();
        Certificates::open(&self.certificate(), &self.key(), true).await
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
}

/// A connection of a caller who trusts `pair` alone.
async fn connect(door: &Door, pair: &Pair, protocols: &[&str]) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(pair.certificate)).unwrap();
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, door.connect().await).await
}

async fn open(files: &Files, config: Config) -> (Door, Arc<Certificates>) {
    let certificates = files.open().await.unwrap();
    (Door::open(Config { tls: Some(Arc::clone(&certificates)), ..config }).await, certificates)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_answered_over_tls_in_the_protocol_agreed_on() {
    let (door, _) = open(&Files::with(&FIRST), patient()).await;
    for (offered, agreed) in [
        (&[][..], None),
        (&["http/1.1"][..], Some("http/1.1")),
        (&["http/1.1", "h2"], Some("h2")),
        (&["h2"], Some("h2")),
    ] {
        let mut stream = connect(&door, &FIRST, offered).await.unwrap();
        let protocol = stream.get_ref().1.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned());
        assert_eq!(protocol.as_deref(), agreed, "{offered:?}");
        if agreed == Some("h2") {
            let mut client = super::http2::Client::new(stream).await;
            assert_eq!(client.get("/").await.unwrap(), (200, "here".to_owned()));
        } else {
            assert!(ask(&mut stream, "/").await.ends_with("here"), "{offered:?}");
            assert!(ask(&mut stream, "/").await.ends_with("here"), "{offered:?}");
        }
    }
    door.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http2_is_not_agreed_on_when_it_is_off() {
    let files = Files::with(&FIRST);
    install_tls();
    let certificates = Certificates::open(&files.certificate(), &files.key(), false).await.unwrap();
    let door = Door::open(Config { tls: Some(certificates), ..patient() }).await;
    let stream = connect(&door, &FIRST, &["h2", "http/1.1"]).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    drop(stream);
    door.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_certificate_is_taken_and_open_connections_go_on() {
    let files = Files::with(&FIRST);
    let (door, certificates) = open(&files, patient()).await;
    door.lifecycle.spawn("certificate", certificates.watch_task(door.lifecycle.stopping()));
    let mut old = connect(&door, &FIRST, &[]).await.unwrap();
    assert!(connect(&door, &SECOND, &[]).await.is_err(), "the check of the certificate works");
    files.put(&SECOND);
    within(Duration::from_secs(20), "new connections get the second certificate", async || {
        connect(&door, &SECOND, &[]).await.is_ok()
    })
    .await;
    assert!(connect(&door, &FIRST, &[]).await.is_err());
    assert!(ask(&mut old, "/").await.ends_with("here"), "a connection made before goes on");
    drop(old);
    door.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_change_leaves_the_last_good_certificate() {
    let files = Files::with(&FIRST);
    let (door, certificates) = open(&files, patient()).await;
    // Half way through a renewal: the new certificate with the old key.
    std::fs::write(files.certificate(), pem("CERTIFICATE", SECOND.certificate)).unwrap();
    let error = certificates.reload().await.unwrap_err().to_string();
    assert!(error.starts_with("tls_key: ") && error.contains("key.pem"), "{error}");
    assert!(connect(&door, &FIRST, &[]).await.is_ok());
    files.put(&SECOND);
    certificates.reload().await.unwrap();
    assert!(connect(&door, &SECOND, &[]).await.is_ok());
    door.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_cannot_be_used_are_named_with_their_setting() {
    let good = pem("CERTIFICATE", FIRST.certificate);
    for (certificate, key, setting) in [
        ("", pem("PRIVATE KEY", FIRST.key), "tls_certificate: "),
        ("no PEM at all", pem("PRIVATE KEY", FIRST.key), "tls_certificate: "),
        (&good, String::new(), "tls_key: "),
        (&good, pem("PRIVATE KEY", SECOND.key), "tls_key: "),
        (&good, pem("PRIVATE KEY", b"no key"), "tls_key: "),
    ] {
        let files = Files::with(&FIRST);
        std::fs::write(files.certificate(), certificate).unwrap();
        std::fs::write(files.key(), key).unwrap();
        let error = files.open().await.unwrap_err().to_string();
        assert!(error.starts_with(setting), "{error}");
    }
    let files = Files::with(&FIRST);
    std::fs::remove_file(files.key()).unwrap();
    let error = files.open().await.unwrap_err().to_string();
    assert!(error.starts_with("tls_key: ") && error.contains("No such file"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_and_half_a_handshake_are_not_waited_for() {
    let files = Files::with(&FIRST);
    for (config, sent) in [
        (Config { first_byte_timeout: SHORT, ..patient() }, &b""[..]),
        // The beginning of a client's greeting: a handshake record of 512 bytes.
        (Config { handshake_timeout: SHORT, ..patient() }, b"\x16\x03\x01\x02\x00\x01"),
        (patient(), b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"),
    ] {
        let (door, _) = open(&files, config).await;
        let mut stream = door.connect().await;
        stream.write_all(sent).await.unwrap();
        let said = until_closed(&mut stream).await;
        assert!(!said.contains("HTTP"), "{said}");
        door.close().await;
    }
    let (door, _) = open(&files, Config { header_timeout: SHORT, ..patient() }).await;
    let mut stream = connect(&door, &FIRST, &[]).await.unwrap();
    stream.write_all(b"GET / HT").await.unwrap();
    assert_eq!(until_closed(&mut stream).await, "", "half a head after the handshake");
    door.close().await;
}
