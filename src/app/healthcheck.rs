//! `doc-server healthcheck`: for containers, which have no curl.

use std::time::Duration;

use super::Error;
use crate::config::Settings;

/// A server that does not answer from memory within this is not healthy.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Asks the server at `bind` how it is and prints the answer. One that speaks TLS is asked on its private door: its certificate
/// names the address that callers use, not this one.
///
/// # Errors
/// When it does not answer, or cannot answer searches.
pub async fn run(settings: &Settings) -> Result<(), Error> {
    let (address, path) = match settings.tls_files() {
        Some(_) => (settings.admin_bind, "/readyz"),
        None => (settings.bind, "/api/health"),
    };
    let failed = |error: reqwest::Error| Error::Failed(format!("no healthy server at {address}: {error}"));
    let client = reqwest::Client::builder().timeout(TIMEOUT).no_proxy().build().map_err(failed)?;
    let response = client.get(format!("http://{address}{path}")).send().await.map_err(failed)?;
    let healthy = response.status().is_success();
    println!("{}", response.text().await.map_err(failed)?);
    if healthy { Ok(()) } else { Err(Error::Failed("the server cannot answer searches".to_owned())) }
}
