//! `/api/pages`: a whole page, or as much of it as a reader has room for.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{RawQuery, State as Shared},
    http::Response,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::{
    State,
    extract::{Fields, Segment},
    identity::Identity,
    respond::{self, Problem},
    shed::Place,
};
use crate::{
    error::Error,
    index::{Selection, passages::Page},
};

/// A page, or a part of it.
#[derive(Serialize, ToSchema)]
struct PageBody {
    /// Its id.
    page_id: i64,
    /// The source it belongs to.
    source_id: String,
    /// The version of that source.
    version: String,
    /// Where a reader finds it.
    url: String,
    /// Its path in what was imported.
    path: String,
    /// Its title.
    title: String,
    /// `text/markdown`, `text/html` or `text/plain`.
    content_type: String,
    /// The text as imported, from `offset` on.
    content: String,
    /// Where the text begins, in characters.
    offset: usize,
    /// Characters of the whole page.
    total_characters: usize,
    /// The `offset` that goes on from here; null at the end.
    next_offset: Option<usize>,
    /// Words in the whole page.
    words: i32,
    /// Front matter.
    metadata: Value,
}

/// A part of a page's text.
#[derive(Clone, Copy)]
struct Part {
    offset: usize,
    max_tokens: Option<usize>,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes the parameters in openapi.json")]
struct FindParameters {
    /// The page's address, as search results give it.
    url: String,
    /// Only in this source.
    source: Option<String>,
    /// Only in this version.
    version: Option<String>,
    /// Room for the text, in tokens of about four characters; absent means all.
    #[param(minimum = 1, maximum = 1_000_000)]
    max_tokens: Option<usize>,
    /// Where to begin, in characters.
    #[param(minimum = 0, maximum = 100_000_000)]
    offset: Option<usize>,
}

/// Read a page by its address.
#[utoipa::path(
    get, path = "/api/pages", tag = "documents", params(FindParameters),
    responses(
        (status = 200, description = "The page", body = PageBody),
        (status = 400, description = "An unknown parameter", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such page", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A value that is not allowed; names the field", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "Over a rate limit; Retry-After says for how long", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Too much is asked at once, or the database is away; Retry-After", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn find_page(
    Shared(state): Shared<Arc<State>>,
    identity: Identity,
    _place: Place,
    RawQuery(query): RawQuery,
) -> Result<Response<Body>, Problem> {
    let mut fields = Fields::from_query(query.as_deref())?;
    let missing = !fields.has("url");
    let url = fields.text("url", 1..=4_096);
    if missing {
        fields.refuse::<()>("url", "is required");
    }
    let sources = fields.texts("source", 1).unwrap_or_default();
    let selection = Selection { sources, version: fields.text("version", 1..=128) };
    let part = part_from(&mut fields);
    fields.finish()?;
    let url = url.unwrap_or_default();
    let resolved = state.search.catalog().await?.resolve(&selection, &identity.view()).map_err(Error::from)?;
    let page = state.index.page_at(&url, &resolved).await?;
    let page = page.ok_or_else(|| Problem::not_found(format!("no published page has the address {url:?}")))?;
    respond::json(&PageBody::new(page, part))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes the parameters in openapi.json")]
struct PartParameters {
    /// Room for the text, in tokens of about four characters; absent means all.
    #[param(minimum = 1, maximum = 1_000_000)]
    max_tokens: Option<usize>,
    /// Where to begin, in characters.
    #[param(minimum = 0, maximum = 100_000_000)]
    offset: Option<usize>,
}

/// Read a page by its id.
#[utoipa::path(
    get, path = "/api/pages/{page_id}", tag = "documents", params(("page_id" = i64, Path), PartParameters),
    responses(
        (status = 200, description = "The page", body = PageBody),
        (status = 400, description = "An unknown parameter", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such page", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A value that is not allowed; names the field", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "Over a rate limit; Retry-After says for how long", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Too much is asked at once, or the database is away; Retry-After", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn get_page(
    Shared(state): Shared<Arc<State>>,
    identity: Identity,
    _place: Place,
    Segment(page_id): Segment,
    RawQuery(query): RawQuery,
) -> Result<Response<Body>, Problem> {
    let mut fields = Fields::from_query(query.as_deref())?;
    let part = part_from(&mut fields);
    fields.finish()?;
    let page = match page_id.parse() {
        Ok(id) => state.search.page(id, &identity.view()).await?,
        Err(_) => return Err(Problem::invalid("page_id", "must be a whole number")),
    };
    let page = page.ok_or_else(|| Problem::not_found(format!("no published page has the id {page_id}")))?;
    respond::json(&PageBody::new(page, part))
}

fn part_from(fields: &mut Fields) -> Part {
    Part {
        max_tokens: fields.integer("max_tokens", 1..=1_000_000),
        offset: fields.integer("offset", 0..=100_000_000).unwrap_or(0),
    }
}

impl PageBody {
    fn new(page: Page, part: Part) -> Self {
        /// English prose and code both have about four characters a token in the usual tokenizers.
        const CHARACTERS_PER_TOKEN: usize = 4;
        let total_characters = page.content.chars().count();
        let room = part.max_tokens.map_or(usize::MAX, |tokens| tokens * CHARACTERS_PER_TOKEN);
        let content: String = page.content.chars().skip(part.offset).take(room).collect();
        let end = part.offset + content.chars().count();
        Self {
            page_id: page.page_id,
            source_id: page.source_id,
            version: page.version,
            url: page.url,
            path: page.path,
            title: page.title,
            content_type: page.content_type,
            content,
            offset: part.offset,
            total_characters,
            next_offset: (end < total_characters).then_some(end),
            words: page.words,
            metadata: page.metadata,
        }
    }
}
