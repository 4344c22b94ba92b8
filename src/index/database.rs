//! A second database beside the configured one, for documents that must not meet the user's.

use sqlx::{AssertSqlSafe, Connection, PgConnection, postgres::PgConnectOptions};

use super::Error;

/// The options of the database whose name is that of `options` and `suffix`; it is made when missing.
///
/// # Errors
/// [`Error::Connect`] when the server cannot be used, or does not let this user make databases.
pub async fn beside(options: &PgConnectOptions, suffix: &str) -> Result<PgConnectOptions, Error> {
    let mut connection = PgConnection::connect_with(options).await.map_err(Error::connect)?;
    let name: String =
        sqlx::query_scalar("select current_database() || $1").bind(suffix).fetch_one(&mut connection).await?;
    let exists: bool = sqlx::query_scalar("select exists (select from pg_database where datname = $1)")
        .bind(&name)
        .fetch_one(&mut connection)
        .await?;
    if !exists {
        // Safe: the name is quoted, and quotes in it are doubled.
        let statement = format!("create database \"{}\"", name.replace('"', "\"\""));
        match sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut connection).await {
            Ok(_) => {}
            Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("42P04") => {}
            Err(error) => {
                let reason = format!(
                    "cannot make the database {name:?} ({}); make it as a user who may, with: create database \"{name}\"",
                    error.as_database_error().map_or_else(|| error.to_string(), |error| error.message().to_owned())
                );
                return Err(Error::Connect { reason });
            }
        }
    }
    connection.close().await?;
    Ok(options.clone().database(&name))
}
