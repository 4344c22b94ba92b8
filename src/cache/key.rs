//! What an answer is kept under: a hash over everything that decides it.
//!
//! Injective before it is hashed: every part is written with its length or in a fixed number of bytes, so that no two
//! lists of parts give the same bytes. The hash is blake3 with 256 bits: nobody finds two lists with the same one.

use std::fmt;

/// The name of an answer. Shown, it is 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key([u8; 32]);

/// Writes the parts of a key, one after the other, always in the same order.
#[derive(Debug, Default)]
pub struct Parts(Vec<u8>);

impl Parts {
    /// A text of any length and content.
    #[must_use]
    pub fn text(self, text: &str) -> Self {
        self.bytes(text.as_bytes())
    }

    /// Bytes of any number and content.
    #[must_use]
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        self.0.extend_from_slice(bytes);
        self
    }

    /// A number, or how many parts of a list follow.
    #[must_use]
    pub fn number(mut self, number: impl Into<i64>) -> Self {
        self.0.extend_from_slice(&number.into().to_le_bytes());
        self
    }

    /// A choice or a switch.
    #[must_use]
    pub fn flag(mut self, flag: u8) -> Self {
        self.0.push(flag);
        self
    }

    /// A part that may be absent, which is different from any value.
    #[must_use]
    pub fn maybe<T>(self, part: Option<T>, write: impl FnOnce(Self, T) -> Self) -> Self {
        match part {
            None => self.flag(0),
            Some(part) => write(self.flag(1), part),
        }
    }

    /// Parts of one kind, as many as there are.
    #[must_use]
    pub fn list<T>(self, parts: impl ExactSizeIterator<Item = T>, write: impl Fn(Self, T) -> Self) -> Self {
        let counted = self.number(i64::try_from(parts.len()).unwrap_or(i64::MAX));
        parts.fold(counted, write)
    }

    /// The hash of all parts.
    #[must_use]
    pub fn key(self) -> Key {
        Key(*blake3::hash(&self.0).as_bytes())
    }

    /// What is hashed.
    #[cfg(test)]
    pub fn into_inner(self) -> Vec<u8> {
        self.0
    }
}

impl Key {
    /// A key of no parts yet.
    #[must_use]
    pub fn parts() -> Parts {
        // Those of most questions. Hashed piece by piece they would take twice as long.
        Parts(Vec::with_capacity(256))
    }

    /// All of it.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl Key {
    /// The first 16 bytes in hexadecimal: enough to name an answer to callers.
    #[must_use]
    pub fn name(&self) -> [u8; 32] {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        std::array::from_fn(|at| {
            let byte = self.0[at / 2];
            DIGITS[usize::from(if at % 2 == 0 { byte >> 4 } else { byte & 15 })]
        })
    }
}

impl fmt::Display for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(std::str::from_utf8(&self.name()).unwrap_or_default())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(texts: &[&str]) -> Vec<u8> {
        Parts::default().list(texts.iter(), |parts, text| parts.text(text)).into_inner()
    }

    #[test]
    fn texts_that_join_to_the_same_are_different_parts() {
        let lists: [&[&str]; 6] = [&["ab", "c"], &["a", "bc"], &["abc"], &["abc", ""], &["", "abc"], &[]];
        for (nth, one) in lists.iter().enumerate() {
            for other in &lists[nth + 1..] {
                assert_ne!(plain(one), plain(other), "{one:?} and {other:?}");
            }
        }
    }

    #[test]
    fn an_absent_part_is_not_an_empty_one() {
        let key = |part: Option<&str>| Key::parts().maybe(part, Parts::text).key();
        assert_ne!(key(None), key(Some("")));
    }
}
