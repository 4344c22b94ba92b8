//! `doc-server keys`: makes, lists and revokes keys, also before the server may start.

use std::io::Write;

use chrono::{TimeDelta, Utc};

use super::{
    App, Error,
    arguments::{CreateKeyFlags, KeysCommand},
    terminal::{print, table, time},
};
use crate::{
    config::Settings,
    index::{
        Index, View,
        keys::{ListedKey, NewKey},
    },
};

/// Does what the command says.
///
/// # Errors
/// For a key that cannot be, and when the database cannot be used.
pub async fn run(settings: Settings, command: KeysCommand) -> Result<(), Error> {
    if let KeysCommand::Create(flags) = &command {
        // Before a database is opened for nothing.
        new_key(flags)?;
    }
    let app = App::open(&settings).await?;
    app.run(async |app| match &command {
        KeysCommand::Create(flags) => create(&app.index, &new_key(flags)?).await,
        KeysCommand::List { json } => list(&app.index, *json).await,
        KeysCommand::Revoke { key_id } => revoke(&app.index, *key_id).await,
    })
    .await
}

fn new_key(flags: &CreateKeyFlags) -> Result<NewKey, Error> {
    let new = NewKey {
        name: flags.name.clone(),
        scopes: flags.scope.iter().copied().collect(),
        view: if flags.source.is_empty() { View::everything() } else { View::only(flags.source.clone()) },
        requests_per_minute: flags.requests_per_minute,
        expires_at: flags.expires_in_days.map(|days| Utc::now() + TimeDelta::days(days.into())),
    };
    new.check().map_err(|(field, message)| Error::Failed(format!("{field}: {message}")))?;
    Ok(new)
}

/// The id of a database's first key.
const FIRST: i64 = 1;

/// The secret alone goes to the output, so that a script can take it.
async fn create(index: &Index, new: &NewKey) -> Result<(), Error> {
    let (listed, secret) = index.create_key(new).await?;
    let written = writeln!(std::io::stdout(), "{}", secret.reveal());
    eprintln!("key {} is made; its secret is shown this once", listed.key.id);
    if listed.key.id == FIRST {
        eprintln!(
            "it is the first: from now on callers without a key are refused, unless anonymous_scopes or insecure_open lets them in"
        );
    }
    written.map_err(|error| Error::Failed(format!("the secret could not be written ({error}); revoke the key")))
}

async fn list(index: &Index, json: bool) -> Result<(), Error> {
    /// As the API's list at its longest.
    const PAGE: i64 = 1_000;
    let mut keys: Vec<ListedKey> = Vec::new();
    loop {
        let page = index.keys(keys.last().map_or(0, |last| last.key.id), PAGE).await?;
        let last = i64::try_from(page.len()).unwrap_or(PAGE) < PAGE;
        keys.extend(page);
        if last {
            break;
        }
    }
    let text = if json { as_json(keys)? } else { as_table(&keys) };
    print(&text)
}

fn as_json(keys: Vec<ListedKey>) -> Result<String, Error> {
    let bodies: Vec<_> = keys.into_iter().map(crate::api::KeyBody::from).collect();
    serde_json::to_string_pretty(&bodies).map_err(|error| Error::Failed(error.to_string()))
}

fn as_table(keys: &[ListedKey]) -> String {
    if keys.is_empty() {
        return "there are no keys; make one with doc-server keys create".to_owned();
    }
    let heads = ["id", "name", "secret", "scopes", "sources", "per minute", "made", "ends"];
    table(heads, keys.iter().map(row))
}

fn row(listed: &ListedKey) -> [String; 8] {
    let ListedKey { key, hint, created_at, revoked_at } = listed;
    let end = match (revoked_at, key.expires_at) {
        (Some(at), _) => format!("revoked {}", time(*at)),
        (None, Some(at)) => time(at),
        (None, None) => "never".to_owned(),
    };
    [
        key.id.to_string(),
        key.name.clone(),
        hint.clone(),
        key.scopes.names().join(","),
        key.view.patterns().map_or_else(|| "all".to_owned(), |patterns| patterns.join(",")),
        key.requests_per_minute.map_or_else(|| "-".to_owned(), |limit| limit.to_string()),
        time(*created_at),
        end,
    ]
}

async fn revoke(index: &Index, key_id: i64) -> Result<(), Error> {
    if index.revoke_key(key_id).await? {
        println!("key {key_id} is revoked on every replica");
        return Ok(());
    }
    Err(Error::Failed(format!("no key that is not revoked has the id {key_id}; doc-server keys list shows them")))
}
