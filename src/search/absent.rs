//! Documents that are not there: remembered for a second, so that a caller who asks for one wrong id again and again costs the
//! database one statement a second. Bounded by memory, like every cache.

use std::time::Duration;

use bytes::Bytes;

use super::Search;
use crate::{
    cache::{Key, Lifetime, Local, Value},
    error::Error,
    index::passages::{Page, Passage},
};

/// What is made now is seen within a second.
const REMEMBERED: Lifetime = Lifetime { ttl: Duration::from_secs(1), stale: Duration::ZERO };

/// About ten thousand ids.
const BYTES: u64 = 4 * 1024 * 1024;

/// That there is nothing.
#[derive(Clone, Copy, Debug)]
struct Nothing;

impl Value for Nothing {
    fn bytes(&self) -> usize {
        0
    }

    fn encode(&self) -> Bytes {
        Bytes::new()
    }
}

/// What was asked for and is not there.
#[derive(Clone, Debug)]
pub(super) struct Absent(Local<Nothing>);

impl Default for Absent {
    fn default() -> Self {
        Self(Local::new(BYTES))
    }
}

impl Absent {
    /// What `read` finds, unless nothing was found within the last second.
    async fn or_read<T>(
        &self,
        key: Key,
        read: impl Future<Output = Result<Option<T>, Error>>,
    ) -> Result<Option<T>, Error> {
        if self.0.get(&key).is_some() {
            return Ok(None);
        }
        let found = read.await?;
        if found.is_none() {
            self.0.keep(key, Nothing, REMEMBERED);
        }
        Ok(found)
    }
}

impl Search {
    /// A published page.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn page(&self, id: i64) -> Result<Option<Page>, Error> {
        let read = async { Ok(self.path.stages.index.page(id).await?) };
        self.path.absent.or_read(Key::parts().text("page").number(id).key(), read).await
    }

    /// A published passage with up to `before` and `after` of its neighbours, each with its source and version.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn chunk(
        &self,
        id: i64,
        before: u16,
        after: u16,
    ) -> Result<Option<Vec<(Passage, String, String)>>, Error> {
        let read = async {
            let passages = self.path.stages.index.chunk_with_neighbours(id, before, after).await?;
            Ok(Some(passages).filter(|passages| !passages.is_empty()))
        };
        self.path.absent.or_read(Key::parts().text("chunk").number(id).key(), read).await
    }
}
