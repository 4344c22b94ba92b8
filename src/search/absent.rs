//! Documents that are not there: remembered for a second, so that a caller who asks for one wrong id again and again costs the
//! database one statement a second. Bounded by memory, like every cache.

use std::time::Duration;

use bytes::Bytes;

use super::Search;
use crate::{
    cache::{Key, Lifetime, Local, Parts, Value},
    error::Error,
    index::{
        View,
        passages::{Page, Passage},
    },
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

/// What is not there for one caller may be for another.
fn key(kind: &str, id: i64, view: &View) -> Key {
    let allowed = |parts: Parts, patterns: &[String]| {
        parts.list(patterns.iter(), |parts: Parts, pattern: &String| parts.text(pattern))
    };
    Key::parts().text(kind).number(id).maybe(view.patterns(), allowed).key()
}

impl Search {
    /// A published page of a source in `view`.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn page(&self, id: i64, view: &View) -> Result<Option<Page>, Error> {
        let read = async { Ok(self.path.stages.index.page(id, view).await?) };
        self.path.absent.or_read(key("page", id, view), read).await
    }

    /// A published passage of a source in `view` with up to `around` (before, after) of its neighbours, each with its source
    /// and version.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn chunk(
        &self,
        id: i64,
        around: (u16, u16),
        view: &View,
    ) -> Result<Option<Vec<(Passage, String, String)>>, Error> {
        let read = async {
            let passages = self.path.stages.index.chunk_with_neighbours(id, around, view).await?;
            Ok(Some(passages).filter(|passages| !passages.is_empty()))
        };
        self.path.absent.or_read(key("chunk", id, view), read).await
    }
}
