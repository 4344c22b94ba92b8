//! The body of an answer: what the API returns for a search.
//!
//! A pure function of the query and the generations it was resolved to: nothing here knows the time or the caller.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::{
    index::{self, Resolved, ResolvedGeneration, terms},
    query::{Content, Mode, Query},
    rank::Ranked,
};

/// The answer to a search.
#[expect(clippy::struct_excessive_bools, reason = "each is a field of the API")]
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Answer {
    /// The query as searched.
    pub query: String,
    /// The sources asked for; null for all.
    pub source_filter: Option<Vec<String>>,
    /// Where candidates come from.
    pub search_mode: Mode,
    /// Whether a model re-read the results; not offered yet.
    pub reranking_applied: bool,
    /// Best first.
    pub results: Vec<Passage>,
    /// How many results this answer holds.
    pub count: usize,
    /// Whether there are more.
    pub has_more: bool,
    /// Goes on after the last result, in the same documents; null at the end.
    pub next_cursor: Option<String>,
    /// Whether a part of the search failed: the results are real but may miss some.
    pub degraded: bool,
    /// Why, when degraded.
    pub degraded_reason: Option<String>,
    /// What was searched.
    pub index: Searched,
    /// Whether the query or the answer was cut.
    pub truncated: bool,
}

/// What an answer was searched in.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Searched {
    /// The published generations.
    pub generations: Vec<i64>,
    /// When the newest of them was published.
    pub indexed_at: Option<DateTime<Utc>>,
}

/// One result.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Passage {
    /// `GET /api/chunks/{chunk_id}` reads it with its neighbours.
    pub chunk_id: i64,
    /// `GET /api/pages/{page_id}` reads the whole page.
    pub page_id: i64,
    /// Where a reader finds the page.
    pub url: String,
    /// The page's title.
    pub title: String,
    /// Headings from the title down to the passage.
    pub section_path: Vec<String>,
    /// The source it belongs to.
    pub source_id: String,
    /// The version of that source.
    pub version: String,
    /// The generation of that version.
    pub generation: i64,
    /// Position in the page, from 0.
    pub chunk_number: i32,
    /// The passage as Markdown; null unless `content=full`.
    pub content: Option<String>,
    /// The part around the matching words; null when `content=none`.
    pub snippet: Option<String>,
    /// Matching words in `snippet`; null unless `highlight=true`.
    pub highlights: Option<Vec<Highlight>>,
    /// Its length in tokens of the embedding model.
    pub tokens: i32,
    /// The programming language, where it is mostly code.
    pub language: Option<String>,
    /// The page's front matter.
    pub metadata: Value,
    /// What the order is by: 0 to 1 when fused, else the leg's own score. Comparable within one answer only.
    pub score: f32,
    /// Cosine similarity to the query; null when it is not known.
    pub similarity: Option<f32>,
    /// The score of each leg; only with `explain=true`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub explain: Option<Explain>,
}

/// A matching word in a snippet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Highlight {
    /// Its first character, counted in Unicode characters from 0.
    pub start: usize,
    /// The character after its last.
    pub end: usize,
}

/// How a result came to its score.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct Explain {
    /// Place in the vector leg, from 1; null when only words found it.
    pub vector_rank: Option<usize>,
    /// Cosine similarity.
    pub vector_similarity: Option<f32>,
    /// Place in the keyword leg, from 1; null when only vectors found it.
    pub keyword_rank: Option<usize>,
    /// BM25 score.
    pub keyword_score: Option<f32>,
    /// The fused score.
    pub fused: f32,
}

impl Answer {
    /// Puts the results of one page together, in their order. A passage whose generation is not in `resolved` is left out.
    #[must_use]
    pub fn new(query: &Query, resolved: &Resolved, page: &[Ranked], passages: Vec<index::passages::Passage>) -> Self {
        let mut passages: HashMap<i64, _> = passages.into_iter().map(|passage| (passage.chunk_id, passage)).collect();
        let generations: HashMap<i64, _> =
            resolved.generations.iter().map(|generation| (generation.version_id, generation)).collect();
        let matcher = terms::Matcher::new(&query.text);
        let results: Vec<Passage> = page
            .iter()
            .filter_map(|ranked| {
                let passage = passages.remove(&ranked.chunk_id)?;
                let generation = generations.get(&passage.version_id)?;
                Some(Passage::new(query, &matcher, generation, ranked, passage))
            })
            .collect();
        let sources = &query.selection.sources;
        Self {
            query: query.text.clone(),
            source_filter: (!sources.is_empty()).then(|| sources.clone()),
            search_mode: query.mode,
            reranking_applied: false,
            count: results.len(),
            results,
            has_more: false,
            next_cursor: None,
            degraded: false,
            degraded_reason: None,
            index: Searched {
                generations: resolved.ids(),
                indexed_at: resolved.generations.iter().map(|generation| generation.indexed_at).max(),
            },
            truncated: false,
        }
    }
}

impl Passage {
    fn new(
        query: &Query,
        matcher: &terms::Matcher,
        generation: &ResolvedGeneration,
        ranked: &Ranked,
        passage: index::passages::Passage,
    ) -> Self {
        let (snippet, highlights) = match query.content {
            Content::None => (None, None),
            Content::Full | Content::Snippet => {
                let (snippet, marks) = matcher.snippet(&passage.content);
                let marks = marks.into_iter().map(|(start, end)| Highlight { start, end }).collect();
                (Some(snippet), query.highlight.then_some(marks))
            }
        };
        Self {
            chunk_id: passage.chunk_id,
            page_id: passage.page_id,
            url: passage.url,
            title: passage.title,
            section_path: passage.section,
            source_id: generation.source_id.to_string(),
            version: generation.version.to_string(),
            generation: generation.id,
            chunk_number: passage.number,
            content: (query.content == Content::Full).then_some(passage.content),
            snippet,
            highlights,
            tokens: passage.tokens,
            language: passage.language,
            metadata: passage.metadata,
            score: ranked.score,
            similarity: ranked.similarity,
            explain: query.explain.then_some(Explain {
                vector_rank: ranked.vector_rank,
                vector_similarity: ranked.similarity,
                keyword_rank: ranked.keyword_rank,
                keyword_score: ranked.keyword_score,
                fused: ranked.score,
            }),
        }
    }
}
