//! Keys of callers: made, listed and revoked here; looked up in memory, as a part of the catalog.
//!
//! Only hashes are stored. Making and revoking are changes of the catalog: announced with their transaction, and acknowledged once
//! every replica that listens answers by them. One that is cut off believes a revoked key for five seconds at most.

mod known;
mod scopes;
mod secret;

use chrono::{DateTime, Utc};
use sqlx::Row;

pub use self::{
    known::{Key, KnownKeys},
    scopes::{Scope, Scopes},
    secret::KeySecret,
};

use super::{Error, Index, View, catalog::CHANNEL, epoch, parked::Reader};

/// Every replica reads all of them twice in five seconds: so many take about ten milliseconds.
const MOST_VALID: i64 = 10_000;

/// As long as a source's name.
const MAX_PATTERN: usize = 128;

/// A longer list is no allow-list but an account of everything.
pub const MAX_SOURCES: usize = 100;

/// The longest name of a key, in characters: a line of a list.
pub const MAX_NAME: usize = 128;

/// The highest limit of its own: above what one process can answer.
pub const MAX_REQUESTS_PER_MINUTE: u32 = 10_000_000;

/// What a new key shall be.
#[derive(Clone, Debug)]
pub struct NewKey {
    /// For people.
    pub name: String,
    /// What its bearer may do.
    pub scopes: Scopes,
    /// Which sources its bearer may see.
    pub view: View,
    /// A limit of its own.
    pub requests_per_minute: Option<u32>,
    /// From then on it is worth nothing.
    pub expires_at: Option<DateTime<Utc>>,
}

/// A key as the list tells it.
#[derive(Clone, Debug)]
pub struct ListedKey {
    /// The key.
    pub key: Key,
    /// The first characters of its secret.
    pub hint: String,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it was revoked.
    pub revoked_at: Option<DateTime<Utc>>,
}

impl NewKey {
    /// Checks what cannot be.
    ///
    /// # Errors
    /// The field, and what is allowed.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        let refuse = |field, message: String| Err((field, message));
        let length = self.name.trim().chars().count();
        if !(1..=MAX_NAME).contains(&length) || self.name.chars().any(char::is_control) {
            return refuse("name", format!("must have 1 to {MAX_NAME} characters, none of them a control character"));
        }
        if self.scopes.is_empty() {
            return refuse("scopes", format!("name at least one of {}", Scope::ALL.map(Scope::name).join(", ")));
        }
        if let Some(patterns) = self.view.patterns() {
            if self.scopes.allow(Scope::Admin) {
                return refuse("sources", "admin may make any key, so it sees every source; leave one out".to_owned());
            }
            let plain = |c: char| c.is_ascii_alphanumeric() || "._@/-*".contains(c);
            let fits = |text: &String| (1..=MAX_PATTERN).contains(&text.len()) && text.chars().all(plain);
            if !(1..=MAX_SOURCES).contains(&patterns.len()) || !patterns.iter().all(fits) {
                let message = format!(
                    "must be 1 to {MAX_SOURCES} names of sources, with * for any characters; leave it out for all sources"
                );
                return refuse("sources", message);
            }
        }
        if self.requests_per_minute.is_some_and(|limit| !(1..=MAX_REQUESTS_PER_MINUTE).contains(&limit)) {
            return refuse("requests_per_minute", format!("set 1 to {MAX_REQUESTS_PER_MINUTE}"));
        }
        if self.expires_at.is_some_and(|end| end <= Utc::now()) {
            return refuse("expires_at", "must be in the future".to_owned());
        }
        Ok(())
    }
}

impl Index {
    /// Makes a key. The secret is not stored: who loses it makes another key.
    ///
    /// # Errors
    /// [`Error::TooManyKeys`]; when the database does not answer.
    pub async fn create_key(&self, new: &NewKey) -> Result<(ListedKey, KeySecret), Error> {
        let (secret, name) = (KeySecret::make()?, new.name.trim());
        let hash = secret::hash(secret.reveal().as_bytes()).map(|hash| hash.as_bytes().to_vec());
        let limit = new.requests_per_minute.and_then(|limit| i32::try_from(limit).ok());
        let mut write = self.pools.write_now("create key").await?;
        let row = sqlx::query(
            "with made as (
                insert into api_keys (name, hash, hint, scopes, sources, requests_per_minute, expires_at)
                select $1, $2, $3, $4, $5, $6, $7
                where (select count(*) from api_keys
                       where revoked_at is null and (expires_at is null or expires_at > now())) < $8
                returning id, name, hint, scopes, sources, requests_per_minute, created_at, expires_at, revoked_at
             )
             select *, pg_notify($9, 'keys') from made",
        )
        .bind(name)
        .bind(hash)
        .bind(secret.hint())
        .bind(new.scopes.names())
        .bind(new.view.patterns())
        .bind(limit)
        .bind(new.expires_at)
        .bind(MOST_VALID)
        .bind(CHANNEL)
        .fetch_optional(&mut *write)
        .await?;
        let listed = row.as_ref().map(listed).transpose()?.ok_or(Error::TooManyKeys { most: MOST_VALID })?;
        let epoch = epoch::advance(&mut write).await?;
        write.commit().await?;
        self.catch_up().await;
        self.until_seen(epoch).await;
        Ok((listed, secret))
    }

    /// At most `limit` keys after the id `after`, in the order of their ids: also those that are revoked or expired.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn keys(&self, after: i64, limit: i64) -> Result<Vec<ListedKey>, Error> {
        let read = |mut connection: Reader| async move {
            let query = sqlx::query(
                "select id, name, hint, scopes, sources, requests_per_minute, created_at, expires_at, revoked_at
                 from api_keys where id > $1 order by id limit $2",
            );
            let query = query.bind(after).bind(limit);
            let rows = self.rows("keys.list", query, &mut connection).await?;
            connection.done().await?;
            Ok(rows)
        };
        let rows = self.pools.read("keys", read).await?;
        Ok(rows.iter().map(listed).collect::<Result<_, _>>()?)
    }

    /// Makes a key worth nothing. Returns whether there was one that was not revoked.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn revoke_key(&self, id: i64) -> Result<bool, Error> {
        let mut write = self.pools.write_now("revoke key").await?;
        let revoked = sqlx::query(
            "with revoked as (
                update api_keys set revoked_at = now() where id = $1 and revoked_at is null returning id
             )
             select pg_notify($2, 'keys') from revoked",
        )
        .bind(id)
        .bind(CHANNEL)
        .fetch_optional(&mut *write)
        .await?
        .is_some();
        if !revoked {
            return Ok(false);
        }
        let epoch = epoch::advance(&mut write).await?;
        write.commit().await?;
        self.catch_up().await;
        self.until_seen(epoch).await;
        Ok(true)
    }
}

fn listed(row: &sqlx::postgres::PgRow) -> Result<ListedKey, sqlx::Error> {
    Ok(ListedKey {
        key: known::key_of(row)?,
        hint: row.try_get("hint")?,
        created_at: row.try_get("created_at")?,
        revoked_at: row.try_get("revoked_at")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new() -> NewKey {
        let scopes = [Scope::Search].into_iter().collect();
        NewKey { name: "ci".to_owned(), scopes, view: View::everything(), requests_per_minute: None, expires_at: None }
    }

    #[test]
    fn a_key_that_cannot_be_is_refused_by_field() {
        assert_eq!(new().check(), Ok(()));
        let only = |patterns: &[&str]| View::only(patterns.iter().map(|&pattern| pattern.to_owned()).collect());
        for (field, wrong) in [
            ("name", NewKey { name: "  ".to_owned(), ..new() }),
            ("name", NewKey { name: "a\nb".to_owned(), ..new() }),
            ("scopes", NewKey { scopes: Scopes::NONE, ..new() }),
            ("sources", NewKey { view: only(&[]), ..new() }),
            ("sources", NewKey { view: only(&["a b"]), ..new() }),
            ("sources", NewKey { view: only(&["guide"]), scopes: Scopes::ALL, ..new() }),
            ("requests_per_minute", NewKey { requests_per_minute: Some(0), ..new() }),
            ("expires_at", NewKey { expires_at: Some(Utc::now()), ..new() }),
        ] {
            assert_eq!(wrong.check().map_err(|(field, _)| field), Err(field), "{wrong:?}");
        }
        assert_eq!(NewKey { view: only(&["team-*", "guide"]), ..new() }.check(), Ok(()));
    }
}
