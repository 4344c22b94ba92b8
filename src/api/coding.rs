//! Content codings: which one a caller takes, and an answer's bytes in it.
//!
//! Answers that are kept are kept in the codings that were asked for too, so a hit compresses nothing. Everything else goes
//! through the compression layer. Nothing here fails: a caller whose header says nothing sensible gets the plain bytes.

use std::io::Write;

use axum::http::{HeaderMap, HeaderValue, header};
use bytes::Bytes;

use crate::search::{Body, Coding};

/// Shorter answers fit into one packet either way.
const MIN_BYTES: usize = 1_024;

/// Each about where its curve bends for JSON of a few kilobytes: 20-100 µs, a third of the size.
const ZSTD_LEVEL: i32 = 3;
const GZIP_LEVEL: u32 = 5;
const BROTLI_QUALITY: i32 = 4;

/// The coding's token in headers.
fn token(coding: Coding) -> &'static str {
    match coding {
        Coding::Zstd => "zstd",
        Coding::Brotli => "br",
        Coding::Gzip => "gzip",
    }
}

/// The coding of `Accept-Encoding` with the greatest weight; between equals zstd, then brotli, then gzip. None for plain bytes.
pub fn accepted(headers: &HeaderMap) -> Option<Coding> {
    let weight = |coding| {
        let lists = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
        let items = lists.flat_map(|list| list.split(','));
        items.map(weighed).find(|(name, _)| name.eq_ignore_ascii_case(token(coding))).map_or(0, |(_, weight)| weight)
    };
    if !headers.contains_key(header::ACCEPT_ENCODING) {
        return None;
    }
    // The last of equals wins.
    [Coding::Gzip, Coding::Brotli, Coding::Zstd]
        .map(|coding| (weight(coding), coding))
        .into_iter()
        .filter(|(weight, _)| *weight > 0)
        .max_by_key(|(weight, _)| *weight)
        .map(|(_, coding)| coding)
}

/// A name and its weight in thousandths; 0 for one that is refused or that does not parse.
fn weighed(item: &str) -> (&str, u32) {
    let (name, parameter) = item.split_once(';').map_or((item, None), |(name, rest)| (name, Some(rest)));
    let weight = parameter.map_or(1.0, |parameter| {
        let value = parameter.trim().strip_prefix("q=").or_else(|| parameter.trim().strip_prefix("Q="));
        value.and_then(|value| value.trim().parse::<f32>().ok()).filter(|q| (0.0..=1.0).contains(q)).unwrap_or(0.0)
    });
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 1000")]
    let thousandths = (weight * 1_000.0) as u32;
    (name.trim(), thousandths)
}

/// The bytes of `body` in a coding that the caller takes, and that coding's header.
pub fn coded(body: &Body, coding: Option<Coding>) -> (Bytes, Option<HeaderValue>) {
    match coding {
        Some(coding) if body.plain().len() >= MIN_BYTES => {
            let coded = body.in_coding(coding, |plain| compress(plain, coding));
            coded.map_or_else(|| (body.plain(), None), |coded| (coded, Some(HeaderValue::from_static(token(coding)))))
        }
        _ => (body.plain(), None),
    }
}

/// None when the compressor fails, which none of them does on memory.
fn compress(plain: &[u8], coding: Coding) -> Option<Bytes> {
    let bytes = match coding {
        Coding::Zstd => zstd::bulk::compress(plain, ZSTD_LEVEL).ok()?,
        Coding::Gzip => {
            let mut to = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(GZIP_LEVEL));
            to.write_all(plain).ok()?;
            to.finish().ok()?
        }
        Coding::Brotli => {
            let mut to = Vec::new();
            let settings = brotli::enc::BrotliEncoderParams { quality: BROTLI_QUALITY, ..Default::default() };
            brotli::BrotliCompress(&mut &*plain, &mut to, &settings).ok()?;
            to
        }
    };
    Some(bytes.into())
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn takes(value: &'static str) -> Option<Coding> {
        accepted(&HeaderMap::from_iter([(header::ACCEPT_ENCODING, HeaderValue::from_static(value))]))
    }

    #[test]
    fn the_greatest_weight_wins_and_refused_ones_never() {
        assert_eq!(takes("gzip, deflate, br, zstd"), Some(Coding::Zstd));
        assert_eq!(takes("gzip, deflate, br"), Some(Coding::Brotli));
        assert_eq!(takes("zstd;q=0.1, GZIP;q=0.9"), Some(Coding::Gzip));
        assert_eq!(takes("zstd;q=0, br;q=0.0"), None);
        assert_eq!(takes("identity, *;q=0"), None);
        assert_eq!(takes("gzip;q=nonsense, br ; q=0.5"), Some(Coding::Brotli));
        assert_eq!(accepted(&HeaderMap::new()), None);
    }

    #[test]
    fn what_is_compressed_is_the_same_again() {
        let plain = "the same words again and again. ".repeat(200).into_bytes();
        let gzip = compress(&plain, Coding::Gzip).expect("gzip");
        let mut read = Vec::new();
        flate2::read::GzDecoder::new(&gzip[..]).read_to_end(&mut read).expect("gzip");
        assert_eq!(read, plain);
        let zstd = compress(&plain, Coding::Zstd).expect("zstd");
        assert_eq!(zstd::decode_all(&zstd[..]).expect("zstd"), plain);
        let coded = compress(&plain, Coding::Brotli).expect("brotli");
        let mut read = Vec::new();
        brotli::Decompressor::new(&coded[..], 4_096).read_to_end(&mut read).expect("brotli");
        assert_eq!(read, plain);
    }
}
