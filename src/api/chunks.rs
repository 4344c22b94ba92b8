//! `/api/chunks/{id}`: a passage with its neighbours.

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
use crate::index::passages::Passage;

/// A passage and those around it.
#[derive(Serialize, ToSchema)]
struct ChunkBody {
    /// Its id.
    chunk_id: i64,
    /// The page it belongs to.
    page_id: i64,
    /// The source it belongs to.
    source_id: String,
    /// The version of that source.
    version: String,
    /// Where a reader finds the page.
    url: String,
    /// The page's title.
    title: String,
    /// The page's front matter.
    metadata: Value,
    /// The passage and its neighbours, in page order.
    chunks: Vec<NeighbourBody>,
}

/// One passage.
#[derive(Serialize, ToSchema)]
struct NeighbourBody {
    /// Its id.
    chunk_id: i64,
    /// Position in the page, from 0.
    chunk_number: i32,
    /// Headings from the title down to it.
    section_path: Vec<String>,
    /// The text as Markdown.
    content: String,
    /// The programming language, where it is mostly code.
    language: Option<String>,
    /// Its length in tokens of the embedding model.
    tokens: i32,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes the parameters in openapi.json")]
struct NeighbourParameters {
    /// How many passages before it.
    #[param(minimum = 0, maximum = 20, default = 0)]
    before: Option<u16>,
    /// How many passages after it.
    #[param(minimum = 0, maximum = 20, default = 0)]
    after: Option<u16>,
}

/// Read a passage and its neighbours.
#[utoipa::path(
    get, path = "/api/chunks/{chunk_id}", tag = "documents", params(("chunk_id" = i64, Path), NeighbourParameters),
    responses(
        (status = 200, description = "The passage", body = ChunkBody),
        (status = 400, description = "An unknown parameter", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such passage", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A value that is not allowed; names the field", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "Over a rate limit; Retry-After says for how long", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Too much is asked at once, or the database is away; Retry-After", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn get_chunk(
    Shared(state): Shared<Arc<State>>,
    identity: Identity,
    _place: Place,
    Segment(chunk_id): Segment,
    RawQuery(query): RawQuery,
) -> Result<Response<Body>, Problem> {
    let mut fields = Fields::from_query(query.as_deref())?;
    let before = fields.integer("before", 0..=20).unwrap_or(0);
    let after = fields.integer("after", 0..=20).unwrap_or(0);
    fields.finish()?;
    let id: i64 = chunk_id.parse().map_err(|_| Problem::invalid("chunk_id", "must be a whole number"))?;
    let passages = state.search.chunk(id, (before, after), &identity.view()).await?.unwrap_or_default();
    let Some((first, source_id, version)) = passages.first().cloned() else {
        return Err(Problem::not_found(format!("no published passage has the id {id}; search again")));
    };
    respond::json(&ChunkBody {
        chunk_id: id,
        page_id: first.page_id,
        source_id,
        version,
        url: first.url,
        title: first.title,
        metadata: first.metadata,
        chunks: passages.into_iter().map(|(passage, _, _)| NeighbourBody::from(passage)).collect(),
    })
}

impl From<Passage> for NeighbourBody {
    fn from(passage: Passage) -> Self {
        Self {
            chunk_id: passage.chunk_id,
            chunk_number: passage.number,
            section_path: passage.section,
            content: passage.content,
            language: passage.language,
            tokens: passage.tokens,
        }
    }
}
