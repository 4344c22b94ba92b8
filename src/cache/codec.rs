//! The bytes of a shared value: a small header, then the body, compressed where it pays.
//!
//! Whatever does not read exactly as it was written is `None`, a miss that the next write replaces: truncated, changed,
//! of another schema or kind, under another name, or inflating beyond [`MAX_BODY_BYTES`]. The name is part of the
//! checksum, so an answer that a confused connection or a copied key gives under the wrong name is never believed.

use bytes::{BufMut, Bytes};
use xxhash_rust::xxh3::Xxh3;

/// Raised with every change of the header or of what bodies mean; values of another schema are misses.
pub const SCHEMA: u8 = 2;

/// A body above this is not shared: an answer of a hundred passages has about 300 kB.
const MAX_BODY_BYTES: usize = 4 * 1024 * 1024;

/// Below this, compressing saves less than a network packet.
const COMPRESS_FROM_BYTES: usize = 1_024;

/// Schema, kind, coding, time, length of the body.
const FIELDS_BYTES: usize = 1 + 1 + 1 + 8 + 4;

/// The fields and an XXH3 hash over name, fields and content: against accidents, at a tenth of the time of one against forgers, who
/// could write a right one.
const HEADER_BYTES: usize = FIELDS_BYTES + 8;

const RAW: u8 = 0;
const LZ4: u8 = 1;

/// What a value is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Answers to searches.
    Results,
    /// Vectors of query texts.
    Vectors,
}

impl Kind {
    /// As it stands in names and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Results => "results",
            Self::Vectors => "vectors",
        }
    }

    fn code(self) -> u8 {
        match self {
            Self::Results => 1,
            Self::Vectors => 2,
        }
    }
}

/// A value as callers see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// What was cached, as it was given.
    pub body: Bytes,
    /// When the body was made, in milliseconds since 1970.
    pub made_at_ms: u64,
}

/// The bytes to store under `name`; none when the body is too large to share.
pub(super) fn encode(kind: Kind, name: &str, stored: &Stored) -> Option<Vec<u8>> {
    let length = u32::try_from(stored.body.len()).ok().filter(|_| stored.body.len() <= MAX_BODY_BYTES)?;
    let compressed = compress(&stored.body);
    let (coding, content) = compressed.as_deref().map_or((RAW, &stored.body[..]), |smaller| (LZ4, smaller));
    let mut bytes = Vec::with_capacity(HEADER_BYTES + content.len());
    bytes.put_slice(&[SCHEMA, kind.code(), coding]);
    bytes.put_u64_le(stored.made_at_ms);
    bytes.put_u32_le(length);
    let checksum = checksum(name, &bytes, content);
    bytes.put_slice(&checksum);
    bytes.put_slice(content);
    Some(bytes)
}

/// What [`encode`] was given for `name`; none for anything else.
pub(super) fn decode(kind: Kind, name: &str, bytes: &Bytes) -> Option<Stored> {
    let (fields, rest) = bytes.split_at_checked(FIELDS_BYTES)?;
    let (expected, content) = rest.split_at_checked(HEADER_BYTES - FIELDS_BYTES)?;
    let coding = match fields {
        [SCHEMA, code, coding, ..] if *code == kind.code() => *coding,
        _ => return None,
    };
    let made_at_ms = u64::from_le_bytes(fields[3..11].try_into().ok()?);
    let length = usize::try_from(u32::from_le_bytes(fields[11..].try_into().ok()?)).ok()?;
    if length > MAX_BODY_BYTES || checksum(name, fields, content) != expected {
        return None;
    }
    let body = match coding {
        RAW => bytes.slice(HEADER_BYTES..),
        LZ4 => inflate(content, length)?,
        _ => return None,
    };
    (body.len() == length).then_some(Stored { body, made_at_ms })
}

fn checksum(name: &str, fields: &[u8], content: &[u8]) -> [u8; 8] {
    let mut hasher = Xxh3::new();
    // The fields have one length, so nothing can move from the name to the content.
    hasher.update(fields);
    hasher.update(&(name.len() as u64).to_le_bytes());
    hasher.update(name.as_bytes());
    hasher.update(content);
    hasher.digest().to_le_bytes()
}

/// The compressed body, where that saves at least an eighth: less is not worth the time of every reader. LZ4, since whoever reads it waits:
/// a usual answer of 6.5 kB takes 2.9 kB and is back in 2 µs; zstd at its fastest level takes 2.1 kB and 10 µs.
fn compress(body: &[u8]) -> Option<Vec<u8>> {
    if body.len() < COMPRESS_FROM_BYTES {
        return None;
    }
    let compressed = lz4_flex::block::compress(body);
    (compressed.len() <= body.len() / 8 * 7).then_some(compressed)
}

/// Never takes more memory than `length`.
fn inflate(content: &[u8], length: usize) -> Option<Bytes> {
    let body = lz4_flex::block::decompress(content, length).ok()?;
    Some(body.into())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use proptest::prelude::*;

    use super::*;

    fn stored(body: impl Into<Vec<u8>>) -> Stored {
        Stored { body: Bytes::from(body.into()), made_at_ms: 1_795_000_000_123 }
    }

    /// Any bytes, or a text that compresses.
    fn bodies() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            prop::collection::vec(any::<u8>(), 0..3_000),
            ("[a-z]{1,8}", 200..600_usize).prop_map(|(word, times)| word.repeat(times).into_bytes()),
        ]
    }

    proptest! {
        #[test]
        fn gives_back_what_was_stored(body in bodies(), made_at_ms: u64) {
            let value = Stored { body: body.into(), made_at_ms };
            let bytes = Bytes::from(encode(Kind::Vectors, "name", &value).unwrap());
            prop_assert_eq!(decode(Kind::Vectors, "name", &bytes), Some(value));
        }

        #[test]
        fn any_truncation_is_a_miss(body in bodies(), keep: prop::sample::Index) {
            let bytes = Bytes::from(encode(Kind::Results, "name", &stored(body)).unwrap());
            prop_assert_eq!(decode(Kind::Results, "name", &bytes.slice(..keep.index(bytes.len()))), None);
        }

        #[test]
        fn any_changed_byte_is_a_miss(body in bodies(), at: prop::sample::Index, change in 1..=255_u8) {
            let mut bytes = encode(Kind::Results, "name", &stored(body)).unwrap();
            let at = at.index(bytes.len());
            bytes[at] ^= change;
            prop_assert_eq!(decode(Kind::Results, "name", &bytes.into()), None);
        }

        #[test]
        fn bytes_of_another_origin_are_a_miss(bytes in prop::collection::vec(any::<u8>(), 0..3_000)) {
            prop_assert_eq!(decode(Kind::Results, "name", &bytes.into()), None);
        }
    }

    #[test]
    fn compresses_where_it_pays() {
        let text = stored("the connection pool ".repeat(200));
        let bytes = encode(Kind::Results, "name", &text).unwrap();
        assert!(bytes.len() < text.body.len() / 4, "{} bytes", bytes.len());
        for body in ["short".repeat(100).into_bytes(), random(4_096)] {
            let bytes = encode(Kind::Results, "name", &stored(body.clone())).unwrap();
            assert_eq!(bytes.len(), HEADER_BYTES + body.len(), "kept as it is");
        }
    }

    fn random(length: usize) -> Vec<u8> {
        let mut source = fastrand::Rng::with_seed(7);
        (0..length).map(|_| source.u8(..)).collect()
    }

    #[test]
    fn a_value_is_believed_under_its_own_name_kind_and_schema_only() {
        let bytes = encode(Kind::Results, "name", &stored("body")).unwrap();
        assert_eq!(decode(Kind::Results, "name", &bytes.clone().into()), Some(stored("body")));
        assert_eq!(decode(Kind::Results, "another", &bytes.clone().into()), None);
        assert_eq!(decode(Kind::Vectors, "name", &bytes.into()), None);
        assert_eq!(decode(Kind::Results, "name", &forged(SCHEMA + 1, RAW, 4, b"body")), None);
        assert_eq!(decode(Kind::Results, "name", &forged(SCHEMA, 7, 4, b"body")), None, "an unknown coding");
        assert!(decode(Kind::Results, "name", &forged(SCHEMA, RAW, 4, b"body")).is_some(), "the forger can forge");
    }

    /// A value with a right checksum and whatever fields.
    fn forged(schema: u8, coding: u8, length: u32, content: &[u8]) -> Bytes {
        let mut bytes = vec![schema, Kind::Results.code(), coding];
        bytes.put_u64_le(1);
        bytes.put_u32_le(length);
        let checksum = checksum("name", &bytes, content);
        bytes.put_slice(&checksum);
        bytes.put_slice(content);
        bytes.into()
    }

    #[test]
    fn nothing_inflates_beyond_what_the_header_says_or_the_bound_allows() {
        let bomb = lz4_flex::block::compress(&vec![0; 64 * 1024 * 1024]);
        let bound = u32::try_from(MAX_BODY_BYTES).unwrap();
        for length in [1_000, bound, bound + 1, u32::MAX] {
            assert_eq!(decode(Kind::Results, "name", &forged(SCHEMA, LZ4, length, &bomb)), None, "{length}");
        }
        let fewer = lz4_flex::block::compress(b"four");
        assert_eq!(decode(Kind::Results, "name", &forged(SCHEMA, LZ4, 1_000, &fewer)), None);
        assert_eq!(encode(Kind::Results, "name", &stored(vec![0; MAX_BODY_BYTES + 1])), None);
    }
}
