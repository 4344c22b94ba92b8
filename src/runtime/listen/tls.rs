//! The certificate and its key, read from files and read again when they change.
//!
//! A change takes effect for connections made after it. Files that cannot be used are told in the log and the last good ones stay, so
//! a renewal that goes wrong takes nothing away before the certificate runs out.

use std::{
    convert::Infallible,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::Error;
use crate::runtime::metrics;

/// How often the files are looked at. Looking costs microseconds, and who replaces a certificate wants to see it.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// What tells one state of a file from another: a Kubernetes secret changes by a link, so times alone are not enough.
type Stamp = [Option<(SystemTime, u64, u64)>; 2];

/// The certificate that new connections get.
#[derive(Debug)]
pub struct Certificates {
    certificate: PathBuf,
    key: PathBuf,
    http2: bool,
    current: ArcSwap<ServerConfig>,
    seen: Mutex<Stamp>,
}

impl Certificates {
    /// Reads both files: PEM, the certificate with the chain below it. `http2` offers it in the handshake.
    ///
    /// # Errors
    /// Names the setting, the file and what is wrong with it.
    pub async fn open(certificate: &Path, key: &Path, http2: bool) -> Result<Arc<Self>, Error> {
        let seen = stamp(certificate, key).await;
        let current = read(certificate, key, http2).await?;
        Ok(Arc::new(Self {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            http2,
            current: ArcSwap::from_pointee(current),
            seen: Mutex::new(seen),
        }))
    }

    /// Reads both files again, for connections made from now on.
    ///
    /// # Errors
    /// As [`Certificates::open`]; the last good ones stay in use.
    pub async fn reload(&self) -> Result<(), Error> {
        let seen = stamp(&self.certificate, &self.key).await;
        // Noted also when they cannot be used: that is told once, and the next change is tried.
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = seen;
        let result = read(&self.certificate, &self.key, self.http2).await;
        metrics::record_tls_reload(result.is_ok());
        self.current.store(Arc::new(result?));
        Ok(())
    }

    /// Reads the files again whenever they change, until `stopping`.
    ///
    /// # Errors
    /// Never; the signature is that of a background task.
    pub async fn watch_task(self: Arc<Self>, stopping: CancellationToken) -> Result<(), Infallible> {
        while stopping.run_until_cancelled(tokio::time::sleep(LOOK_EVERY)).await.is_some() {
            let now = stamp(&self.certificate, &self.key).await;
            if now == *self.seen.lock().unwrap_or_else(PoisonError::into_inner) {
                continue;
            }
            match self.reload().await {
                Ok(()) => tracing::info!(file = %self.certificate.display(), "took the changed certificate"),
                Err(error) => tracing::error!(%error, "the changed certificate cannot be used; the last one stays"),
            }
        }
        Ok(())
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.current.load_full())
    }
}

async fn stamp(certificate: &Path, key: &Path) -> Stamp {
    let of = async |path: &Path| {
        let file = tokio::fs::metadata(path).await.ok()?;
        Some((file.modified().ok()?, file.len(), std::os::unix::fs::MetadataExt::ino(&file)))
    };
    [of(certificate).await, of(key).await]
}

async fn read(certificate: &Path, key: &Path, http2: bool) -> Result<ServerConfig, Error> {
    let bad =
        |setting: &'static str, path: &Path, reason: String| Error::Tls { setting, path: path.to_owned(), reason };
    let bad_certificate = |reason: String| bad("tls_certificate", certificate, reason);
    let bad_key = |reason: String| bad("tls_key", key, reason);
    let bytes = tokio::fs::read(certificate).await.map_err(|error| bad_certificate(error.to_string()))?;
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&bytes)
        .collect::<Result<_, _>>()
        .map_err(|error| bad_certificate(error.to_string()))?;
    if chain.is_empty() {
        return Err(bad_certificate("it holds no certificate in PEM".to_owned()));
    }
    let bytes = tokio::fs::read(key).await.map_err(|error| bad_key(error.to_string()))?;
    let private = PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| bad_key(error.to_string()))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| bad_key(error.to_string()))?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(|error| bad_key(error.to_string()))?;
    config.alpn_protocols = if http2 { vec![b"h2".to_vec(), b"http/1.1".to_vec()] } else { vec![b"http/1.1".to_vec()] };
    Ok(config)
}
