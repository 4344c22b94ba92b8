//! Where the benchmarks' databases are: beside the configured one, or in the embedded server, and kept for the next run.

use doc_server::{
    config::Settings,
    index::{cluster::Cluster, database},
};

use crate::Failure;

/// A server of databases, and what keeps it running.
pub struct Place {
    settings: Settings,
    cluster: Option<Cluster>,
}

impl Place {
    /// The server of `settings`, or the embedded one.
    pub async fn open(mut settings: Settings) -> Result<Self, Failure> {
        let mut cluster = None;
        if settings.database_url.is_empty() {
            let opened = Cluster::open(&settings.cluster()).await?;
            settings.database_url = opened.url();
            cluster = Some(opened);
        }
        Ok(Self { settings, cluster })
    }

    /// The settings with the database of this suffix, which is made when missing.
    pub async fn database(&self, suffix: &str) -> Result<Settings, Failure> {
        let mut settings = self.settings.clone();
        database::beside(&settings.database_url.parse()?, suffix).await?;
        let (address, options) = settings.database_url.split_once('?').unwrap_or((&settings.database_url, ""));
        format!("{address}{suffix}?{options}").trim_end_matches('?').clone_into(&mut settings.database_url);
        Ok(settings)
    }

    /// Stops the embedded server, if that is where.
    pub async fn close(self) -> Result<(), Failure> {
        if let Some(cluster) = self.cluster {
            cluster.close().await?;
        }
        Ok(())
    }
}
