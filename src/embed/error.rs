//! Why there is no vector. Errors are cloned to every caller that waited for the same text or load.

/// Why there is no vector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Nothing to embed.
    #[error("a text without any visible character has no vector")]
    Empty,
    /// More tokens than the model reads: the rest would be lost silently.
    #[error("the text has {tokens} tokens, the model reads at most {max}")]
    TooLong {
        /// What the text has, special tokens included.
        tokens: usize,
        /// What the model reads.
        max: usize,
    },
    /// So long that its tokens were not even counted.
    #[error("the text has {bytes} bytes, at most {max} are looked at")]
    TooLarge {
        /// What the text has.
        bytes: usize,
        /// What is looked at.
        max: usize,
    },
    /// Too many queries wait already.
    #[error("{waiting} queries wait for the embedding model already")]
    Overloaded {
        /// How many.
        waiting: usize,
    },
    /// The process is ending.
    #[error("the process is stopping")]
    Stopped,
    /// A setting that cannot work, or that names something missing.
    #[error("{setting}: {reason}")]
    Setting {
        /// The key, as it stands in the settings file.
        setting: &'static str,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// The model's files are there but do not make a model.
    #[error("cannot load the embedding model: {0}")]
    Load(String),
    /// The model was loaded and failed on a text.
    #[error("the embedding model failed: {0}")]
    Model(String),
    /// A file of the model did not arrive, or not as expected.
    #[error("cannot download the embedding model: {0}")]
    Download(String),
    /// The remote provider refused, failed or answered nonsense.
    #[error("the embedding provider failed: {reason}")]
    Provider {
        /// Its HTTP status, where it answered at all.
        status: Option<u16>,
        /// What it said, shortened.
        reason: String,
    },
}

impl Error {
    /// Whether the text is at fault, so that others can be embedded, rather than the model or the way to it.
    pub fn is_of_the_text(&self) -> bool {
        matches!(self, Self::Empty | Self::TooLong { .. } | Self::TooLarge { .. } | Self::Model(_))
    }

    /// A setting that cannot work.
    pub(super) fn setting(setting: &'static str, reason: impl Into<String>) -> Self {
        Self::Setting { setting, reason: reason.into() }
    }

    /// A provider that could not be understood.
    pub(super) fn provider(reason: impl Into<String>) -> Self {
        Self::Provider { status: None, reason: reason.into() }
    }
}
