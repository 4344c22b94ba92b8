//! `/api/sources`: what is searched. Read from the catalog in memory; changes go through to the database.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{RawQuery, Request, State as Shared},
    http::{HeaderValue, Response, StatusCode},
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
    Catalog, Selection, View,
    catalog::{self},
    sources::{SourceChange, default_version, is_address},
};

/// The list of sources.
#[derive(Serialize, ToSchema)]
struct SourceList {
    /// In the order of their names.
    sources: Vec<SourceBody>,
    /// How many this answer holds.
    count: usize,
    /// Goes on after the last one; null at the end.
    next_cursor: Option<String>,
}

/// A documentation set.
#[derive(Serialize, ToSchema)]
pub struct SourceBody {
    /// Its name.
    source_id: String,
    /// For people.
    title: String,
    /// What it is about.
    summary: String,
    /// Where it comes from.
    url: String,
    /// Free labels.
    tags: Vec<String>,
    /// Its versions, oldest first.
    versions: Vec<VersionBody>,
    /// What a search without `version` reads; null before the first publish.
    default_version: Option<String>,
    /// Words in the default version.
    total_words: i64,
    /// Pages in the default version.
    page_count: i64,
    /// Chunks in the default version.
    chunk_count: i64,
    /// Code examples in the default version.
    code_example_count: i64,
    /// The model its vectors come from.
    embedding_model: Option<String>,
    /// Chunks that only words can find.
    chunks_without_embedding: i64,
    /// Whether it should be imported again: some chunk has no vector.
    stale: bool,
    /// When it was first imported.
    created_at: DateTime<Utc>,
    /// When it last changed.
    updated_at: DateTime<Utc>,
}

/// One version of a source.
#[derive(Serialize, ToSchema)]
struct VersionBody {
    /// Its name.
    version: String,
    /// What search reads; null while the first import runs.
    generation: Option<i64>,
    /// `published`, or `building` while the first import runs.
    status: &'static str,
    /// Pages in it.
    pages: i64,
    /// Chunks in it.
    chunks: i64,
    /// When it was published.
    indexed_at: Option<DateTime<Utc>>,
}

impl From<&catalog::Source> for SourceBody {
    fn from(source: &catalog::Source) -> Self {
        let default = default_version(source);
        let generation = source
            .versions
            .iter()
            .find(|version| Some(&version.version) == default.as_ref())
            .and_then(|version| version.published.as_ref());
        let count = |of: fn(&catalog::Generation) -> i64| generation.map_or(0, of);
        Self {
            source_id: source.source_id.to_string(),
            title: source.title.clone(),
            summary: source.summary.clone(),
            url: source.url.clone(),
            tags: source.tags.clone(),
            versions: source.versions.iter().map(VersionBody::from).collect(),
            default_version: default.map(|version| version.to_string()),
            total_words: count(|generation| generation.words),
            page_count: count(|generation| generation.pages),
            chunk_count: count(|generation| generation.chunks),
            code_example_count: count(|generation| generation.code_examples),
            embedding_model: generation.map(|generation| generation.model.clone()),
            chunks_without_embedding: count(|generation| generation.chunks_without_embedding),
            stale: count(|generation| generation.chunks_without_embedding) > 0,
            created_at: source.created_at,
            updated_at: source.updated_at,
        }
    }
}

impl From<&catalog::Version> for VersionBody {
    fn from(version: &catalog::Version) -> Self {
        let published = version.published.as_ref();
        Self {
            version: version.version.to_string(),
            generation: published.map(|generation| generation.id),
            status: if published.is_some() { "published" } else { "building" },
            pages: published.map_or(0, |generation| generation.pages),
            chunks: published.map_or(0, |generation| generation.chunks),
            indexed_at: published.map(|generation| generation.indexed_at),
        }
    }
}

/// The parameters of the list, as the description shows them.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes the parameters in openapi.json")]
struct ListParameters {
    /// Only sources whose name, title or summary holds this text.
    q: Option<String>,
    /// Only sources with this label.
    tag: Option<String>,
    /// How many.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<u32>,
    /// `next_cursor` of the answer before.
    cursor: Option<String>,
}

/// List the sources.
#[utoipa::path(
    get, path = "/api/sources", tag = "sources", params(ListParameters),
    responses(
        (status = 200, description = "Sources in the order of their names", body = SourceList),
        (status = 400, description = "An unknown parameter", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A value that is not allowed; names the field", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "Over a rate limit; Retry-After says for how long", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The database is away", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn list_sources(
    Shared(state): Shared<Arc<State>>,
    identity: Identity,
    RawQuery(query): RawQuery,
) -> Result<Response<Body>, Problem> {
    /// All sources of most installations in one answer, a few hundred kilobytes at the most.
    const DEFAULT_LIMIT: usize = 100;
    let mut fields = Fields::from_query(query.as_deref())?;
    let text = fields.text("q", 1..=256).map(|text| text.to_lowercase());
    let tag = fields.text("tag", 1..=256);
    let limit = fields.integer("limit", 1..=1_000).unwrap_or(DEFAULT_LIMIT);
    let cursor = fields.text("cursor", 1..=256);
    fields.finish()?;
    let (catalog, confirmed) = state.search.catalog_or_last().await?;
    let matches = |source: &&catalog::Source| {
        let holds = |text: &String| {
            [&*source.source_id, &source.title, &source.summary].iter().any(|field| field.to_lowercase().contains(text))
        };
        text.as_ref().is_none_or(holds)
            && tag.as_ref().is_none_or(|tag| source.tags.contains(tag))
            && cursor.as_ref().is_none_or(|after| *source.source_id > **after)
    };
    let view = identity.view();
    let mut sources: Vec<SourceBody> =
        catalog.sources(&view).filter(matches).take(limit + 1).map(SourceBody::from).collect();
    let more = sources.len() > limit;
    sources.truncate(limit);
    let next_cursor = more.then(|| sources.last().map(|last| last.source_id.clone())).flatten();
    let list = SourceList { count: sources.len(), sources, next_cursor };
    respond::json(&list).map(|response| marked(response, confirmed))
}

/// Show one source.
#[utoipa::path(
    get, path = "/api/sources/{source_id}", tag = "sources", params(("source_id" = String, Path)),
    responses(
        (status = 200, description = "The source", body = SourceBody),
        (status = 400, description = "An unknown parameter", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such source", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "Over a rate limit; Retry-After says for how long", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The database is away", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn get_source(
    Shared(state): Shared<Arc<State>>,
    identity: Identity,
    Segment(source_id): Segment,
    RawQuery(query): RawQuery,
) -> Result<Response<Body>, Problem> {
    refuse_parameters(query.as_deref())?;
    let (catalog, confirmed) = state.search.catalog_or_last().await?;
    let source = find(&catalog, &source_id, &identity.view())?;
    respond::json(&SourceBody::from(source)).map(|response| marked(response, confirmed))
}

/// Says so where the database could not confirm what is told.
fn marked(mut response: Response<Body>, confirmed: bool) -> Response<Body> {
    if !confirmed {
        response.headers_mut().insert(respond::X_CACHE, HeaderValue::from_static("stale"));
    }
    response
}

/// What can be changed of a source, as the description shows it.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "describes the body in openapi.json")]
struct ChangeBody {
    /// For people.
    title: Option<String>,
    /// What it is about.
    summary: Option<String>,
    /// Where it comes from.
    url: Option<String>,
    /// Free labels.
    tags: Option<Vec<String>>,
    /// What a search without `version` reads: a version, a range such as `5.x`, or `latest`.
    default_version: Option<String>,
}

/// Change a source's description.
#[utoipa::path(
    patch, path = "/api/sources/{source_id}", tag = "sources", params(("source_id" = String, Path)), request_body = ChangeBody,
    responses(
        (status = 200, description = "The source as it is now", body = SourceBody),
        (status = 400, description = "An unknown field or malformed JSON", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such source", body = Problem, content_type = "application/problem+json"),
        (status = 408, description = "The body did not arrive in time", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The body is not JSON", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A value that is not allowed; names the field", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "Over a rate limit; Retry-After says for how long", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The database is away", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn change_source(
    Shared(state): Shared<Arc<State>>,
    identity: Identity,
    Segment(source_id): Segment,
    request: Request,
) -> Result<Response<Body>, Problem> {
    refuse_parameters(request.uri().query())?;
    let mut fields = Fields::from_body(request, state.max_body_bytes).await?;
    let change = SourceChange {
        title: fields.text("title", 0..=200),
        summary: fields.text("summary", 0..=2_000),
        url: fields.text("url", 0..=2_000),
        tags: fields.texts("tags", 50),
        default_version: fields.text("default_version", 1..=128),
    };
    fields.finish()?;
    if change.url.as_ref().is_some_and(|url| !url.is_empty() && !is_address(url)) {
        return Err(Problem::invalid(
            "url",
            "is no address; use one such as https://docs.example.org, or \"\"".to_owned(),
        ));
    }
    let view = identity.view();
    if !view.allows(&source_id) {
        return Err(unknown(&source_id));
    }
    if let Some(version) = &change.default_version {
        let selection = Selection { sources: vec![source_id.clone()], version: Some(version.clone()) };
        let catalog = state.search.catalog().await?;
        find(&catalog, &source_id, &view)?;
        catalog.resolve(&selection, &view).map_err(|error| Problem::invalid("default_version", error.to_string()))?;
    }
    state.index.change_source(&source_id, &change).await?;
    tracing::info!(source = source_id, by = identity.key().map(|key| key.id), "a source was changed");
    let catalog = state.search.catalog().await?;
    let source = find(&catalog, &source_id, &view)?;
    respond::json(&SourceBody::from(source))
}

/// Delete a source with all its versions: gone from search at once.
#[utoipa::path(
    delete, path = "/api/sources/{source_id}", tag = "sources", params(("source_id" = String, Path)),
    responses(
        (status = 204, description = "Deleted"),
        (status = 400, description = "An unknown parameter", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such source", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "Over a rate limit; Retry-After says for how long", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The database is away", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn delete_source(
    Shared(state): Shared<Arc<State>>,
    identity: Identity,
    Segment(source_id): Segment,
    RawQuery(query): RawQuery,
) -> Result<StatusCode, Problem> {
    refuse_parameters(query.as_deref())?;
    let view = identity.view();
    if !view.allows(&source_id) {
        return Err(unknown(&source_id));
    }
    if state.index.delete_source(&source_id).await? {
        tracing::info!(source = source_id, by = identity.key().map(|key| key.id), "a source was deleted");
        return Ok(StatusCode::NO_CONTENT);
    }
    let catalog = state.search.catalog().await?;
    find(&catalog, &source_id, &view).map(|_| StatusCode::NO_CONTENT)
}

fn find<'a>(catalog: &'a Catalog, source_id: &str, view: &View) -> Result<&'a catalog::Source, Problem> {
    catalog.source(source_id, view).ok_or_else(|| unknown(source_id))
}

/// The same for one that the caller may not see.
fn unknown(source_id: &str) -> Problem {
    Problem::not_found(format!("no source is called {source_id:?}; GET /api/sources lists them"))
}
