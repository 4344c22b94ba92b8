//! Vectors of query texts: kept, and made once for everybody who asks at the same time.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::{
    cache::{self, Key, Tiers},
    coalesce::Flights,
    embed::{self, Embedder, QueryVector},
    error::Error,
    query::Caching,
    search::key,
};

/// Of a vector's numbers, each.
const NUMBER_BYTES: usize = 4;

impl cache::Value for QueryVector {
    fn bytes(&self) -> usize {
        self.vector.len() * NUMBER_BYTES + size_of::<QueryVector>()
    }

    fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(1 + self.vector.len() * NUMBER_BYTES);
        bytes.put_u8(u8::from(self.truncated));
        self.vector.iter().for_each(|number| bytes.put_f32_le(*number));
        bytes.freeze()
    }
}

/// Reads what [`cache::Value::encode`] wrote. Its checksum was right, so only another release could have written something else.
fn decode(mut body: Bytes) -> Option<QueryVector> {
    let truncated = match body.try_get_u8().ok()? {
        0 => false,
        1 => true,
        _ => return None,
    };
    if body.is_empty() || !body.len().is_multiple_of(NUMBER_BYTES) {
        return None;
    }
    let vector = std::iter::from_fn(|| body.try_get_f32_le().ok()).collect();
    Some(QueryVector { vector, truncated })
}

/// The way to the embedder.
#[derive(Clone)]
pub(super) struct QueryVectors {
    embedder: Embedder,
    pub kept: Tiers<QueryVector>,
    flights: Flights<Key, Result<QueryVector, embed::Error>>,
}

impl QueryVectors {
    pub fn new(
        embedder: Embedder,
        kept: Tiers<QueryVector>,
        flights: Flights<Key, Result<QueryVector, embed::Error>>,
    ) -> Self {
        Self { embedder, kept, flights }
    }

    /// The vector of `text`.
    ///
    /// # Cancel safety
    /// Dropping the future gives the caller's place up; the embedding goes on while others wait for it.
    pub async fn of(&self, text: &str, (caching, shared_answers): (Caching, bool)) -> Result<QueryVector, Error> {
        let model = self.embedder.identity().await?.to_string();
        match caching {
            Caching::Use => self.known_or_made(key::of_vector(&model, text), text, shared_answers).await,
            Caching::Refresh => {
                let made = self.embedder.embed_query(text).await?;
                Ok(self.kept.keep(key::of_vector(&model, text), made).value.clone())
            }
            Caching::Bypass => {
                self.kept.record_bypass();
                Ok(self.embedder.embed_query(text).await?)
            }
        }
    }

    async fn known_or_made(&self, key: Key, text: &str, shared_answers: bool) -> Result<QueryVector, Error> {
        let known = self.kept.look(&key);
        if let Some(held) = known.as_ref().filter(|held| held.is_fresh()) {
            return Ok(held.value.clone());
        }
        let (embedder, kept, text) = (self.embedder.clone(), self.kept.clone(), text.to_owned());
        let (_, made) = self
            .flights
            .join(key, || async move {
                if let Some(held) = kept.look_again(&key) {
                    return Ok(held.value.clone());
                }
                if shared_answers && let Ok(Some(held)) = kept.fetch(&key, decode).await {
                    return Ok(held.value.clone());
                }
                let made = embedder.embed_query(&text).await?;
                Ok(kept.keep(key, made).value.clone())
            })
            .await;
        match (made.map_err(Error::from).and_then(|made| made.map_err(Error::from)), known) {
            // The vector of a text under one model never changes.
            (Err(error), Some(held)) if error.is_transient() => Ok(held.value.clone()),
            (made, _) => made,
        }
    }
}

#[cfg(test)]
mod tests {
    use cache::Value;

    use super::*;

    #[test]
    fn a_vector_is_read_as_it_was_written_and_nothing_else_is() {
        let vector = QueryVector { vector: vec![0.6, -0.8, f32::MIN_POSITIVE].into(), truncated: true };
        let bytes = vector.encode();
        let read = decode(bytes.clone()).expect("what was written");
        assert_eq!((&read.vector[..], read.truncated), (&vector.vector[..], true));
        assert!(decode(bytes.slice(..bytes.len() - 1)).is_none());
        assert!(decode(bytes.slice(1..)).is_none());
        assert!(decode(Bytes::new()).is_none());
    }
}
