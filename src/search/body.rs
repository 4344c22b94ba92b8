//! The bytes of an answer, and the same bytes compressed once somebody took them so.
//!
//! Shared by the cache and by every caller: a hit neither writes nor compresses anything. Bounded: compressed forms that would
//! take more memory than the answer was weighed with are handed out but not kept.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;

/// How bytes can be compressed for a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// RFC 8878.
    Zstd,
    /// RFC 7932.
    Brotli,
    /// RFC 1952.
    Gzip,
}

/// An answer as JSON. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Body {
    plain: Bytes,
    coded: Arc<[OnceLock<Bytes>; 3]>,
}

impl Body {
    /// The uncompressed bytes.
    #[must_use]
    pub fn plain(&self) -> Bytes {
        self.plain.clone()
    }

    /// The bytes in `coding`: made by `compress` for the first who asks, kept for the others. None when `compress` makes none.
    pub fn in_coding(&self, coding: Coding, compress: impl FnOnce(&[u8]) -> Option<Bytes>) -> Option<Bytes> {
        let slot = &self.coded[coding as usize];
        if let Some(coded) = slot.get() {
            return Some(coded.clone());
        }
        let coded = compress(&self.plain)?;
        let kept: usize = self.coded.iter().filter_map(OnceLock::get).map(Bytes::len).sum();
        if kept + coded.len() <= self.plain.len() / 2 {
            // Two who ask at the same time both compress; one form stays.
            let _ = slot.set(coded.clone());
        }
        Some(coded)
    }

    /// The most memory it may take, compressed forms included.
    #[must_use]
    pub fn weight(&self) -> usize {
        self.plain.len() + self.plain.len() / 2
    }
}

impl From<Bytes> for Body {
    fn from(plain: Bytes) -> Self {
        Self { plain, coded: Arc::default() }
    }
}
