//! How heavy a text is: its tokens, or its bytes where a tokenizer makes few tokens of many.
//!
//! Weights add up: the text of two paragraphs is no heavier than both. Real tokenizers come close to that, and the
//! final count of each chunk catches what they do not.

/// No language has more bytes per token than this on average (English 4 to 5, code 3 to 4, CJK 3). A longer run is a
/// blob that the tokenizer gave up on, and a chunk is bounded in bytes too.
const BYTES_PER_TOKEN: usize = 10;

/// A tokenizer and the limit it measures against.
pub struct Scale<'a> {
    count: &'a dyn Fn(&str) -> usize,
    /// What the tokenizer adds to every text.
    special: usize,
    /// Tokens of a whole chunk.
    max_tokens: usize,
}

impl<'a> Scale<'a> {
    pub fn new(count: &'a dyn Fn(&str) -> usize, max_tokens: usize) -> Self {
        Self { count, special: count(""), max_tokens }
    }

    /// Tokens of a finished text, special ones included.
    pub fn tokens(&self, text: &str) -> usize {
        (self.count)(text)
    }

    /// Whether a finished text is within the limit.
    pub fn fits(&self, tokens: usize) -> bool {
        tokens <= self.max_tokens
    }

    /// What a chunk's context and content may weigh together.
    pub fn room(&self) -> usize {
        self.max_tokens.saturating_sub(self.special).max(1)
    }

    /// The weight of `text`. One that is over the limit by its bytes alone is not counted.
    pub fn weigh(&self, text: &str) -> usize {
        let bytes = text.len().div_ceil(BYTES_PER_TOKEN);
        if bytes > self.max_tokens {
            return bytes;
        }
        (self.count)(text).saturating_sub(self.special).max(bytes)
    }
}
