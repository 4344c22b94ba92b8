//! The schema's versions: embedded in the binary, applied under an advisory lock, checked on start.

use std::collections::HashSet;

use sqlx::{
    Connection, PgConnection, Row,
    migrate::{MigrateError, Migrator},
};

use super::{Error, Index};

static MIGRATOR: Migrator = sqlx::migrate!("./migrations");

impl Index {
    /// Applies every pending migration; replicas that start together wait for the first. Returns how many were applied.
    ///
    /// # Errors
    /// When one fails (pgvector missing is the usual reason) or the database is newer than this binary.
    pub async fn migrate(&self) -> Result<usize, Error> {
        let pending = self.pending_migrations().await?;
        if pending > 0 {
            let mut connection = self.session().await?;
            MIGRATOR.run(&mut connection).await.map_err(explain)?;
            connection.close().await?;
        }
        Ok(pending)
    }

    /// How many of this binary's migrations the database lacks.
    ///
    /// # Errors
    /// [`Error::SchemaNewer`] when the database has one that this binary does not know.
    pub async fn pending_migrations(&self) -> Result<usize, Error> {
        let mut connection = self.session().await?;
        let known: bool =
            sqlx::query("select to_regclass('_sqlx_migrations') is not null").fetch_one(&mut connection).await?.get(0);
        let applied: HashSet<i64> = if known {
            sqlx::query_scalar("select version from _sqlx_migrations where success")
                .fetch_all(&mut connection)
                .await?
                .into_iter()
                .collect()
        } else {
            HashSet::new()
        };
        connection.close().await?;
        let ours: HashSet<i64> = MIGRATOR.iter().map(|migration| migration.version).collect();
        if let Some(&version) = applied.difference(&ours).max() {
            return Err(Error::SchemaNewer { version });
        }
        Ok(ours.difference(&applied).count())
    }

    /// A connection past any pooler: the lock that migrations hold is the session's.
    async fn session(&self) -> Result<PgConnection, Error> {
        PgConnection::connect_with(&self.direct).await.map_err(Error::connect)
    }

    /// Refuses a database that lacks migrations.
    ///
    /// # Errors
    /// [`Error::MigrationsPending`] with their number.
    pub async fn require_migrated(&self) -> Result<(), Error> {
        match self.pending_migrations().await? {
            0 => Ok(()),
            pending => Err(Error::MigrationsPending { pending }),
        }
    }
}

fn explain(error: MigrateError) -> Error {
    let text = error.to_string();
    if text.contains("extension \"vector\"") || text.contains("vector.control") {
        return Error::Migration(
            "the database has no pgvector; install the extension `vector` on the server, or unset database_url to use the embedded one".to_owned(),
        );
    }
    match error {
        MigrateError::Execute(source) => Error::from(source),
        other => Error::Migration(other.to_string()),
    }
}
