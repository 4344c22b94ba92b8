//! Counting tokens, and turning a text into the ids that a model reads.
//!
//! Nothing is ever cut silently: the count is of the whole text, whatever part of it the model gets to read.

use std::path::Path;

use tokenizers::{PostProcessor, Tokenizer, TruncationDirection};

use super::Error;

/// Where the provider's tokenizer is unknown: characters per token, low enough for code (prose has 4 to 5, source code
/// about 3), so that a text within the estimate is within the limit.
const ESTIMATED_CHARACTERS: usize = 3;

/// Counts tokens as the model does.
#[derive(Debug)]
pub struct TokenCounter(Kind);

#[derive(Debug)]
enum Kind {
    Model(Box<Tokenizer>),
    Estimate,
}

/// One text as the model reads it.
pub(super) struct Encoded {
    /// At most the asked number of ids, special ones included.
    pub ids: Vec<i64>,
    /// What the whole text has.
    pub tokens: usize,
}

impl TokenCounter {
    /// A model's own tokenizer, without any truncation or padding that its file asks for.
    ///
    /// # Errors
    /// When the file is missing or is no tokenizer.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let failed = |error: &dyn std::fmt::Display| Error::Load(format!("{}: {error}", path.display()));
        let mut tokenizer = Tokenizer::from_file(path).map_err(|error| failed(&error))?;
        tokenizer.with_padding(None).with_truncation(None).map_err(|error| failed(&error))?;
        Ok(Self(Kind::Model(Box::new(tokenizer))))
    }

    /// For a provider whose tokenizer is unknown.
    pub(super) fn estimate() -> Self {
        Self(Kind::Estimate)
    }

    /// The tokens of `text`, special ones included. Where the tokenizer is unknown: an estimate on the safe side.
    pub fn count(&self, text: &str) -> usize {
        match &self.0 {
            // A text that cannot be tokenised has at most as many tokens as bytes.
            Kind::Model(tokenizer) => tokenizer.encode_fast(text, true).map_or(text.len(), |encoding| encoding.len()),
            Kind::Estimate => text.chars().count().div_ceil(ESTIMATED_CHARACTERS),
        }
    }

    /// Refuses a text of more than `max` tokens.
    ///
    /// # Errors
    /// [`Error::TooLong`].
    pub(super) fn admit(&self, text: &str, max: usize) -> Result<(), Error> {
        let tokens = self.count(text);
        if tokens > max { Err(Error::TooLong { tokens, max }) } else { Ok(()) }
    }

    /// The first `max` ids of `text`, special ones included.
    ///
    /// # Errors
    /// When the tokenizer refuses the text.
    pub(super) fn encode(&self, text: &str, max: usize) -> Result<Encoded, Error> {
        let failed = |error| Error::Model(format!("its tokenizer refuses the text: {error}"));
        let Kind::Model(tokenizer) = &self.0 else {
            return Err(Error::Model("it has no tokenizer".to_owned()));
        };
        let special = tokenizer.get_post_processor().map_or(0, |processor| processor.added_tokens(false));
        let mut encoding = tokenizer.encode_fast(text, false).map_err(failed)?;
        let tokens = encoding.len() + special;
        if tokens > max {
            encoding.truncate(max.saturating_sub(special), 0, TruncationDirection::Right);
        }
        let encoding = tokenizer.post_process(encoding, None, true).map_err(failed)?;
        Ok(Encoded { ids: encoding.get_ids().iter().map(|id| i64::from(*id)).collect(), tokens })
    }
}
