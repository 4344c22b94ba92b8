//! What is asked: a search's words and options, and the cursor that goes on from an answer.
//!
//! Values are in range here: the front door and the command line refuse others with the field's name.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use crate::rank::{Fusion, Options as Ranking};

use crate::index::{Selection, View};

/// How deep a cursor reaches, and so how deep the legs are searched for pages beyond the first candidates.
pub const MAX_DEPTH: usize = 1_000;

/// The longest query: the model reads about a thousand characters, words are searched in all of it.
pub const MAX_QUERY_CHARS: usize = 2_000;

/// The most results of one answer.
pub const MAX_MATCHES: i64 = 100;

/// Results of one answer when none is asked for: what a person reads and a program puts before a model.
const DEFAULT_MATCHES: usize = 5;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Query {
    /// 1 to 2,000 characters, trimmed.
    pub text: String,
    /// Results of one answer, 1 to 100.
    pub match_count: usize,
    /// Which sources and versions.
    pub selection: Selection,
    /// Where candidates come from.
    pub mode: Mode,
    /// What decides the order.
    pub rank: Ranking,
    /// Compare with every vector instead of walking the index.
    pub exact: bool,
    /// Candidates the index scan keeps; none takes the setting.
    pub ef_search: Option<u16>,
    /// How much of a passage is returned.
    pub content: Content,
    /// Mark matching words.
    pub highlight: bool,
    /// Tell each leg's score.
    pub explain: bool,
    /// Goes on from an earlier answer.
    pub cursor: Option<Cursor>,
    /// What the caller may see: decides the documents, so nothing else has to know it.
    #[serde(default)]
    pub view: View,
}

impl Default for Query {
    fn default() -> Self {
        Self {
            text: String::new(),
            match_count: DEFAULT_MATCHES,
            selection: Selection::default(),
            mode: Mode::default(),
            rank: Ranking::default(),
            exact: false,
            ef_search: None,
            content: Content::default(),
            highlight: false,
            explain: false,
            cursor: None,
            view: View::everything(),
        }
    }
}

impl Query {
    /// Of everything that decides the order of results, so that a cursor is used only with the query that made it.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let order = (&self.text, &self.selection, self.mode, self.rank, self.exact, self.ef_search);
        blake3::hash(format!("{order:?}").as_bytes()).to_hex()[..16].to_owned()
    }
}

/// Where candidates come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Meaning and words, fused.
    #[default]
    Hybrid,
    /// Meaning alone.
    Vector,
    /// Words alone.
    Keyword,
}

/// Whether an answer that is kept will do. No part of the question: the answer is the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Caching {
    /// It will do.
    #[default]
    Use,
    /// Make it anew and keep it.
    Refresh,
    /// Make it anew and keep nothing.
    Bypass,
}

/// How much of a passage's text is returned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Content {
    /// All of it.
    #[default]
    Full,
    /// Only the part around the matching words.
    Snippet,
    /// None: titles and places only.
    None,
}

/// Where a next page of results begins, in which documents, for which query.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// The generations of the first answer.
    #[serde(rename = "g")]
    pub generations: Vec<i64>,
    /// Results before it.
    #[serde(rename = "o")]
    pub offset: usize,
    /// Of the query and everything that decides its order: a cursor goes with the query that made it.
    #[serde(rename = "q")]
    pub fingerprint: String,
}

impl Cursor {
    /// The opaque text of the API.
    #[must_use]
    pub fn encode(&self) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).unwrap_or_default())
    }

    /// Reads [`Cursor::encode`]; none for anything else.
    #[must_use]
    pub fn decode(text: &str) -> Option<Self> {
        let cursor: Self = serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
        // Ours never reach further: what does was made by somebody else.
        (cursor.offset <= MAX_DEPTH).then_some(cursor)
    }
}
