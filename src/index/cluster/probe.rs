//! What the server says when one asks to come in: the only proof that it is ready.
//!
//! One question takes at most [`PATIENCE`]; a question to a server that is away costs a system call.

use std::{path::Path, time::Duration};

use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};

use super::error::Error;

/// A local server answers in milliseconds, and one that is busy recovering says so at once.
const PATIENCE: Duration = Duration::from_secs(5);

/// The answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It lets us in.
    Ready,
    /// It would, but our database does not exist.
    NoDatabase,
    /// It is starting, recovering or stopping, in its words.
    NotYet(String),
    /// Nobody is there.
    Silent,
}

/// Asks once.
///
/// # Errors
/// [`Error::Refused`] when it will not have us and waiting will not change that, such as with a wrong password.
pub(super) async fn ask(options: &PgConnectOptions) -> Result<Answer, Error> {
    let Ok(outcome) = tokio::time::timeout(PATIENCE, PgConnection::connect_with(options)).await else {
        return Ok(Answer::NotYet(String::from("it does not answer")));
    };
    match outcome {
        Ok(connection) => {
            // Let in is let in; how the farewell goes does not matter.
            let _ = connection.close().await;
            Ok(Answer::Ready)
        }
        Err(sqlx::Error::Io(_)) => Ok(Answer::Silent),
        Err(sqlx::Error::Database(error)) => match error.code().as_deref() {
            // Cannot connect now; shut down by an administrator; by a crash.
            Some("57P03" | "57P01" | "57P02") => Ok(Answer::NotYet(error.message().to_owned())),
            Some("3D000") => Ok(Answer::NoDatabase),
            // All connections are taken: by clients whom it serves.
            Some("53300") => Ok(Answer::Ready),
            _ => Err(Error::Refused(sqlx::Error::Database(error))),
        },
        Err(sqlx::Error::Protocol(said)) => Ok(Answer::NotYet(said)),
        Err(error) => Err(Error::Refused(error)),
    }
}

/// Whether anybody listens at `socket`.
pub(super) async fn listens(socket: &Path) -> bool {
    tokio::net::UnixStream::connect(socket).await.is_ok()
}
