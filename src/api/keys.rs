//! `/api/keys`: who may ask. A key's secret is in one answer, the one that made it, and nowhere else.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{RawQuery, Request, State as Shared},
    http::{HeaderValue, Response, StatusCode, header},
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    State,
    extract::{Fields, Segment, refuse_parameters},
    identity::Identity,
    respond::{self, Problem},
};
use crate::index::{
    View,
    keys::{ListedKey, MAX_NAME, MAX_REQUESTS_PER_MINUTE, MAX_SOURCES, NewKey, Scope, Scopes},
};

/// A key, without its secret.
#[derive(Serialize, ToSchema)]
pub struct KeyBody {
    /// Its id.
    key_id: i64,
    /// For people.
    name: String,
    /// The first characters of the secret.
    hint: String,
    /// What its bearer may do.
    scopes: Vec<&'static str>,
    /// Names and patterns of the sources its bearer may see; null means all.
    sources: Option<Vec<String>>,
    /// A limit of its own; null means that of each route.
    requests_per_minute: Option<u32>,
    /// `valid`, `expired` or `revoked`.
    status: &'static str,
    /// When it was made.
    created_at: DateTime<Utc>,
    /// From then on it is worth nothing; null means never.
    expires_at: Option<DateTime<Utc>>,
    /// When it was revoked.
    revoked_at: Option<DateTime<Utc>>,
}

impl From<ListedKey> for KeyBody {
    fn from(listed: ListedKey) -> Self {
        let ListedKey { key, hint, created_at, revoked_at } = listed;
        Self {
            key_id: key.id,
            name: key.name,
            hint,
            scopes: key.scopes.names(),
            sources: key.view.patterns().map(<[String]>::to_vec),
            requests_per_minute: key.requests_per_minute,
            status: match (revoked_at, key.expires_at) {
                (Some(_), _) => "revoked",
                (None, Some(end)) if end <= Utc::now() => "expired",
                (None, _) => "valid",
            },
            created_at,
            expires_at: key.expires_at,
            revoked_at,
        }
    }
}

/// A new key with its secret.
#[derive(Serialize, ToSchema)]
struct NewKeyBody {
    /// The secret: shown now and never again.
    secret: String,
    /// The key.
    #[serde(flatten)]
    key: KeyBody,
}

/// The list of keys.
#[derive(Serialize, ToSchema)]
struct KeyList {
    /// In the order of their ids, also those that are revoked or expired.
    keys: Vec<KeyBody>,
    /// How many this answer holds.
    count: usize,
    /// Goes on after the last one; null at the end.
    next_cursor: Option<String>,
}

/// What a new key shall be, as the description shows it.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "describes the body in openapi.json")]
struct CreateBody {
    /// For people.
    #[schema(min_length = 1, max_length = 128)]
    name: String,
    /// What its bearer may do: `search`, `sources:write`, `jobs:write`, `config:write`, or `admin` for everything.
    #[schema(min_items = 1)]
    scopes: Vec<String>,
    /// Names of sources, `*` for any characters; absent means all.
    #[schema(min_items = 1, max_items = 100)]
    sources: Option<Vec<String>>,
    /// A limit of its own; absent means that of each route.
    #[schema(minimum = 1, maximum = 10_000_000)]
    requests_per_minute: Option<u32>,
    /// From then on it is worth nothing; absent means never.
    expires_at: Option<DateTime<Utc>>,
}

/// Make a key. Its secret is in this answer and nowhere else.
#[utoipa::path(
    post, path = "/api/keys", tag = "keys", request_body = CreateBody,
    responses(
        (status = 201, description = "The key with its secret", body = NewKeyBody),
        (status = 400, description = "An unknown field or malformed JSON", body = Problem, content_type = "application/problem+json"),
        (status = 408, description = "The body did not arrive in time", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "There are too many valid keys", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The body is not JSON", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A value that is not allowed; names the field", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "Over a rate limit; Retry-After says for how long", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The database is away", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn create_key(
    Shared(state): Shared<Arc<State>>,
    identity: Identity,
    request: Request,
) -> Result<Response<Body>, Problem> {
    refuse_parameters(request.uri().query())?;
    let new = new_key_from(Fields::from_body(request, state.max_body_bytes).await?)?;
    let (listed, secret) = state.index.create_key(&new).await?;
    let by = identity.key().map(|key| key.id);
    tracing::info!(key = listed.key.id, name = listed.key.name, scopes = ?listed.key.scopes, by, "a key was made");
    let mut response = respond::json(&NewKeyBody { secret: secret.reveal().to_owned(), key: KeyBody::from(listed) })?;
    *response.status_mut() = StatusCode::CREATED;
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

fn new_key_from(mut fields: Fields) -> Result<NewKey, Problem> {
    for required in ["name", "scopes"] {
        if !fields.has(required) {
            fields.refuse::<()>(required, "is required");
        }
    }
    let name = fields.text("name", 1..=MAX_NAME);
    let names = fields.texts("scopes", Scope::ALL.len()).unwrap_or_default();
    let scopes = Scopes::parse(names.iter().map(String::as_str));
    let scopes = scopes.map_err(|message| fields.refuse::<()>("scopes", message)).unwrap_or(Scopes::ALL);
    let view = fields.texts("sources", MAX_SOURCES).map_or_else(View::everything, View::only);
    let requests_per_minute = fields.integer("requests_per_minute", 1..=i64::from(MAX_REQUESTS_PER_MINUTE));
    let expires_at = fields.text("expires_at", 1..=64).and_then(|text| match DateTime::parse_from_rfc3339(&text) {
        Ok(time) => Some(time.to_utc()),
        Err(_) => fields.refuse("expires_at", "must be a time such as 2030-01-31T00:00:00Z"),
    });
    fields.finish()?;
    let new = NewKey { name: name.unwrap_or_default(), scopes, view, requests_per_minute, expires_at };
    new.check().map_err(|(field, message)| Problem::invalid(field, message))?;
    Ok(new)
}

/// The parameters of the list, as the description shows them.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes the parameters in openapi.json")]
struct ListParameters {
    /// How many.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<u32>,
    /// `next_cursor` of the answer before.
    cursor: Option<String>,
}

/// List the keys, without their secrets.
#[utoipa::path(
    get, path = "/api/keys", tag = "keys", params(ListParameters),
    responses(
        (status = 200, description = "Keys in the order of their ids", body = KeyList),
        (status = 400, description = "An unknown parameter", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A value that is not allowed; names the field", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "Over a rate limit; Retry-After says for how long", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The database is away", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn list_keys(
    Shared(state): Shared<Arc<State>>,
    RawQuery(query): RawQuery,
) -> Result<Response<Body>, Problem> {
    /// A screen full of keys is enough for a first look.
    const DEFAULT_LIMIT: usize = 100;
    let mut fields = Fields::from_query(query.as_deref())?;
    let limit = fields.integer("limit", 1..=1_000).unwrap_or(DEFAULT_LIMIT);
    let after = fields.text("cursor", 1..=20).and_then(|text| match text.parse::<i64>() {
        Ok(id) => Some(id),
        Err(_) => fields.refuse("cursor", "pass next_cursor of the answer before unchanged"),
    });
    fields.finish()?;
    // One more tells whether there are more.
    let most = i64::try_from(limit + 1).unwrap_or(i64::MAX);
    let mut keys: Vec<KeyBody> =
        state.index.keys(after.unwrap_or(0), most).await?.into_iter().map(KeyBody::from).collect();
    let more = keys.len() > limit;
    keys.truncate(limit);
    let next_cursor = keys.last().filter(|_| more).map(|last| last.key_id.to_string());
    respond::json(&KeyList { count: keys.len(), keys, next_cursor })
}

/// Revoke a key: no replica takes it any more.
#[utoipa::path(
    delete, path = "/api/keys/{key_id}", tag = "keys", params(("key_id" = i64, Path)),
    responses(
        (status = 204, description = "Revoked"),
        (status = 400, description = "An unknown parameter", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such key that is not revoked", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A value that is not allowed; names the field", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "Over a rate limit; Retry-After says for how long", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The database is away", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn revoke_key(
    Shared(state): Shared<Arc<State>>,
    identity: Identity,
    Segment(key_id): Segment,
    RawQuery(query): RawQuery,
) -> Result<StatusCode, Problem> {
    refuse_parameters(query.as_deref())?;
    let id: i64 = key_id.parse().map_err(|_| Problem::invalid("key_id", "must be a whole number"))?;
    if !state.index.revoke_key(id).await? {
        return Err(Problem::not_found(format!(
            "no key that is not revoked has the id {id}; GET /api/keys lists them"
        )));
    }
    tracing::info!(key = id, by = identity.key().map(|key| key.id), "a key was revoked");
    Ok(StatusCode::NO_CONTENT)
}
