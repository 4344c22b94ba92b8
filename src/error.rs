//! What went wrong, in our words, without HTTP: the front door and the command line each say it in their way.

use crate::{coalesce, embed, index};

/// Any failure of the library.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// A value that cannot be used; names the field and what is allowed.
    #[error("{field}: {message}")]
    Invalid {
        /// The parameter or setting.
        field: &'static str,
        /// What is wrong with it and what is allowed.
        message: String,
    },
    /// The vector leg is all that was asked for, and the text could not be embedded.
    #[error(transparent)]
    Embed(embed::Error),
    /// The query was not embedded in time.
    #[error("the query was not embedded in time")]
    EmbedTimeout,
    /// The vectors in the index come from another model.
    #[error(
        "the documents were embedded by another model than the one in use ({in_use}); \
         import them again, or start with the model they were made with"
    )]
    OtherModel {
        /// The model in use.
        in_use: String,
    },
    /// The database refused or is away, or what was asked for is not there.
    #[error(transparent)]
    Index(#[from] index::Error),
    /// Too much is being answered at once, or the process is ending.
    #[error("{0}")]
    Overloaded(String),
    /// A bug.
    #[error("internal error: {0}")]
    Internal(String),
}

impl Error {
    /// Whether trying again later may help.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Index(error) => error.is_transient(),
            Self::Embed(_) | Self::EmbedTimeout | Self::Overloaded(_) => true,
            Self::Invalid { .. } | Self::OtherModel { .. } | Self::Internal(_) => false,
        }
    }
}

impl From<coalesce::Error> for Error {
    fn from(error: coalesce::Error) -> Self {
        match error {
            coalesce::Error::Panicked => Self::Internal(error.to_string()),
            coalesce::Error::Full { .. } | coalesce::Error::Stopped => Self::Overloaded(error.to_string()),
        }
    }
}

impl From<embed::Error> for Error {
    fn from(error: embed::Error) -> Self {
        match error {
            embed::Error::Empty => {
                Self::Invalid { field: "query", message: "must hold at least one visible character".to_owned() }
            }
            other => Self::Embed(other),
        }
    }
}
