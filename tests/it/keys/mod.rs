//! Keys: who may use which route, what a key may see, how long it is believed, and that nobody learns its secret.

mod access;
mod lifetime;
mod matrix;
mod secrets;
mod start;
mod tenants;

use doc_server::index::keys::{NewKey, Scopes};
use serde_json::Value;

use crate::harness::TestApp;

/// A secret of the right shape that nobody was given.
const UNKNOWN: &str = "dsk_0000000000000000000000000000000000000000000000000000000000000000";

/// More than an installation has.
const NINE_THOUSAND_KEYS: &str = "insert into api_keys (name, hash, hint, scopes, sources)
    select 'many', sha256(convert_to('many' || nth, 'UTF8')), 'dsk_…', '{search,sources:write}',
           array['team-' || nth || '-*', 'guide'] from generate_series(1, 9000) nth";

/// A key whose time is over.
async fn expired_key(app: &TestApp) -> String {
    let new = NewKey {
        name: "expired".to_owned(),
        scopes: Scopes::ALL,
        view: doc_server::index::View::everything(),
        requests_per_minute: None,
        expires_at: Some(chrono::Utc::now() - chrono::TimeDelta::seconds(1)),
    };
    app.index.create_key(&new).await.unwrap().1.reveal().to_owned()
}

/// A key that was revoked.
async fn revoked_key(app: &TestApp) -> String {
    let (id, secret) = app.make_key(&["admin"], &[]).await;
    assert!(app.index.revoke_key(id).await.unwrap());
    secret
}

/// The sources of an answer's results, each once.
fn sources(answer: &Value) -> Vec<String> {
    let mut sources: Vec<String> = crate::harness::client::texts(answer, "source_id");
    sources.sort();
    sources.dedup();
    sources
}
