//! The keys that are valid, in memory: a part of the catalog, read with it and believed as long.

use std::{collections::HashMap, sync::Arc};

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, Row, postgres::PgRow};

use super::{
    super::{Error, View},
    scopes::Scopes,
    secret,
};

/// A caller's key, without its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Its row.
    pub id: i64,
    /// For people.
    pub name: String,
    /// What its bearer may do.
    pub scopes: Scopes,
    /// Which sources its bearer may see.
    pub view: View,
    /// A limit of its own; none means that of each route.
    pub requests_per_minute: Option<u32>,
    /// From then on it is worth nothing.
    pub expires_at: Option<DateTime<Utc>>,
}

/// The valid keys, by the hashes of their secrets. Hashes are compared in constant time, and nobody can choose one.
#[derive(Debug, Default)]
pub struct KnownKeys {
    by_hash: HashMap<blake3::Hash, Arc<Key>>,
    /// Whether there has ever been a key, valid or not.
    any_was_made: bool,
}

impl KnownKeys {
    /// The key with this secret.
    #[must_use]
    pub fn find(&self, secret: &[u8]) -> Option<&Arc<Key>> {
        let key = self.by_hash.get(&secret::hash(secret)?)?;
        key.expires_at.is_none_or(|end| Utc::now() < end).then_some(key)
    }

    /// Whether there has ever been a key: from then on callers must show one, also when the last is gone.
    #[must_use]
    pub fn any_was_made(&self) -> bool {
        self.any_was_made
    }

    /// Whether somebody could show a key now.
    #[must_use]
    pub fn any_is_valid(&self) -> bool {
        self.by_hash.values().any(|key| key.expires_at.is_none_or(|end| Utc::now() < end))
    }

    /// No valid key.
    pub(in super::super) fn none(any_was_made: bool) -> Self {
        Self { by_hash: HashMap::new(), any_was_made }
    }

    /// Reads them all; bounded, since a new one is refused when there are too many. A key that did not change stays the same
    /// value, so that what is remembered of it is found again.
    pub(in super::super) async fn read(connection: &mut PgConnection, before: Option<&Self>) -> Result<Self, Error> {
        let rows = sqlx::query(
            "select id, name, hash, scopes, sources, requests_per_minute, expires_at from api_keys
             where revoked_at is null and (expires_at is null or expires_at > now())",
        )
        .fetch_all(connection)
        .await?;
        let mut by_hash = HashMap::with_capacity(rows.len());
        for row in &rows {
            let (hash, key) = (hash_of(row)?, key_of(row)?);
            let same = before.and_then(|known| known.by_hash.get(&hash)).filter(|known| ***known == key);
            by_hash.insert(hash, same.map_or_else(|| Arc::new(key), Arc::clone));
        }
        Ok(Self { by_hash, any_was_made: true })
    }
}

fn hash_of(row: &PgRow) -> Result<blake3::Hash, Error> {
    let hash: Vec<u8> = row.try_get("hash")?;
    blake3::Hash::from_slice(&hash).map_err(|error| Error::Unavailable(format!("a key's hash is broken: {error}")))
}

pub(super) fn key_of(row: &PgRow) -> Result<Key, sqlx::Error> {
    let scopes: Vec<String> = row.try_get("scopes")?;
    let sources: Option<Vec<String>> = row.try_get("sources")?;
    let limit: Option<i32> = row.try_get("requests_per_minute")?;
    Ok(Key {
        id: row.try_get("id")?,
        name: row.try_get("name")?,
        scopes: Scopes::known(scopes.iter().map(String::as_str)),
        view: sources.map_or_else(View::everything, View::only),
        requests_per_minute: limit.and_then(|limit| u32::try_from(limit).ok()),
        expires_at: row.try_get("expires_at")?,
    })
}
