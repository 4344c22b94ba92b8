//! Text to the words that the keyword leg finds and scores.
//!
//! Words are stemmed; an identifier counts in its parts and as a whole, so that `write boolean`, `writeBoolean` and
//! `write_boolean` find each other. Two words that stand side by side in a query and in a text count as a pair, which is
//! what tells "connection pool" from a page that speaks of connections and of pools. Pure functions; linear in the text.
//!
//! The constants were chosen together on three labelled sets (aerodynamics abstracts, questions on Python code, course
//! FAQs); `doc-server eval` measures them.

mod matcher;
mod stop_words;
mod words;

use std::collections::{BTreeMap, HashMap};

pub use matcher::Matcher;
use stop_words::is_stop_word;
use words::{Word, words};

/// Places of the sparse vectors: the most that pgvector allows, so that two words hardly ever share one.
pub const DIMENSIONS: i32 = 1_000_000_000;

/// How fast repeating a word stops to matter (BM25's k1).
const K1: f32 = 1.2;

/// How much a longer text lowers a word's weight (BM25's b).
const B: f32 = 0.75;

/// The length that counts as average, in words and wholes. A constant, since chunks are of one size by design, so that a
/// chunk's weights never depend on its neighbours.
const AVERAGE_LENGTH: f32 = 80.0;

/// A word of the title or of a heading counts as often as this many in the text.
const CONTEXT_WEIGHT: f32 = 2.0;

/// A whole identifier counts this much in a query beside its parts, which count 1 each.
const WHOLE_WEIGHT: f32 = 0.5;

/// Words of a chunk, and pairs: a row of both must fit a database page of 8 kB, at 12 bytes a word and 8 a pair. No text of 256
/// tokens comes near, unless a tokenizer takes what it does not know for one token.
const MAX_WORDS: usize = 380;

/// A word's place in the sparse vectors.
type Id = i32;

/// A chunk's words with their saturated frequencies.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Terms {
    weights: BTreeMap<Id, f32>,
    words: Vec<Id>,
}

impl Terms {
    /// Words and pairs with what each adds to the score of a query that has it.
    pub fn weights(&self) -> impl Iterator<Item = (&i32, &f32)> {
        self.weights.iter()
    }

    /// The words alone, by which chunks are found; ascending.
    #[must_use]
    pub fn words(&self) -> &[i32] {
        &self.words
    }
}

/// A word of a query.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QueryTerm {
    /// Its place in the sparse vectors.
    pub id: i32,
    /// How much it counts, before how much it tells.
    pub weight: f32,
}

/// Two words side by side in a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueryPair {
    /// The pair's place in the sparse vectors.
    pub id: i32,
    /// One word's place.
    pub first: i32,
    /// The other's.
    pub second: i32,
}

/// A query's words and pairs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct QueryTerms {
    /// Each word once.
    pub terms: Vec<QueryTerm>,
    /// Each pair once.
    pub pairs: Vec<QueryPair>,
}

/// The words of a chunk: `context` is its title and headings, `body` its text.
#[must_use]
pub fn of_chunk(context: &str, body: &str) -> Terms {
    let mut counts: BTreeMap<Id, f32> = BTreeMap::new();
    let mut pairs: BTreeMap<Id, f32> = BTreeMap::new();
    for (text, weight) in [(context, CONTEXT_WEIGHT), (body, 1.0)] {
        let found: Vec<Word> = words(text).collect();
        for word in &found {
            *counts.entry(id_of(&word.stem)).or_default() += weight;
        }
        // A pair counts once, however often it stands there.
        pairs.extend(pairs_of(&found).into_iter().map(|pair| (pair.id, 1.0)));
    }
    let length: f32 = counts.values().sum();
    let words: Vec<Id> = counts.keys().copied().take(MAX_WORDS).collect();
    let mut weights: BTreeMap<Id, f32> = pairs.into_iter().take(MAX_WORDS).collect();
    for (id, count) in counts.into_iter().take(MAX_WORDS) {
        weights.insert(id, saturate(count, length));
    }
    Terms { weights, words }
}

/// The words of a query: without those that every text has, unless there are no others.
#[must_use]
pub fn of_query(text: &str) -> QueryTerms {
    let all: Vec<Word> = words(text).collect();
    let told: Vec<Word> = all.iter().filter(|word| !is_stop_word(&word.lower)).cloned().collect();
    let used = if told.is_empty() { all } else { told };
    let mut weights: HashMap<Id, f32> = HashMap::new();
    for word in &used {
        *weights.entry(id_of(&word.stem)).or_default() += if word.whole { WHOLE_WEIGHT } else { 1.0 };
    }
    let mut terms: Vec<QueryTerm> = weights.into_iter().map(|(id, weight)| QueryTerm { id, weight }).collect();
    terms.sort_by_key(|term| term.id);
    QueryTerms { terms, pairs: pairs_of(&used) }
}

/// BM25's term frequency part: `tf (k1 + 1) / (tf + k1 (1 - b + b length / average))`.
fn saturate(count: f32, length: f32) -> f32 {
    count * (K1 + 1.0) / (count + K1 * (1.0 - B + B * length / AVERAGE_LENGTH))
}

/// Neighbouring words, whatever their order, with stop words passed over; each pair once.
fn pairs_of(words: &[Word]) -> Vec<QueryPair> {
    let told: Vec<Id> =
        words.iter().filter(|word| !word.whole && !is_stop_word(&word.lower)).map(|word| id_of(&word.stem)).collect();
    let mut pairs: Vec<QueryPair> = told
        .windows(2)
        .filter(|pair| pair[0] != pair[1])
        .map(|pair| {
            let (first, second) = (pair[0].min(pair[1]), pair[0].max(pair[1]));
            QueryPair { id: id_of(&format!("{first} {second}")), first, second }
        })
        .collect();
    pairs.sort_by_key(|pair| pair.id);
    pairs.dedup();
    pairs
}

/// A word's place: the beginning of its hash. No stem holds a space, so a pair is never taken for a word by its text.
fn id_of(text: &str) -> Id {
    let hash = blake3::hash(text.as_bytes());
    let [a, b, c, d, ..] = *hash.as_bytes();
    i32::try_from(u32::from_le_bytes([a, b, c, d]) % DIMENSIONS.unsigned_abs()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stop_words_go_from_a_query_unless_there_is_nothing_else() {
        assert_eq!(of_query("How do I sort a list in Python?"), of_query("sort list python"));
        assert_eq!(of_query("what is it").terms.len(), 3);
        assert!(of_query("?!").terms.is_empty());
    }

    #[test]
    fn a_whole_identifier_counts_half_beside_its_parts() {
        let spawn = of_query("tokio::spawn");
        let mut weights: Vec<f32> = spawn.terms.iter().map(|term| term.weight).collect();
        weights.sort_by(f32::total_cmp);
        assert_eq!(weights, [0.5, 1.0, 1.0]);
    }

    #[test]
    fn a_pair_is_found_in_either_order_and_across_stop_words() {
        let query = of_query("pool of connections");
        let chunk = of_chunk("", "the connection pool");
        assert_eq!(query.pairs.len(), 1);
        assert!(chunk.weights().any(|(id, weight)| *id == query.pairs[0].id && *weight > 0.0));
        assert!(!chunk.words().contains(&query.pairs[0].id), "pairs score, only words find");
    }

    #[test]
    fn a_title_counts_twice() {
        let (title, text) = (of_chunk("pool", "connection"), of_chunk("", "pool pool connection"));
        assert_eq!(title.words(), text.words());
        let pool = id_of("pool");
        let weight = |terms: &Terms| terms.weights().find(|(id, _)| **id == pool).map(|(_, weight)| *weight);
        assert_eq!(weight(&title), weight(&text));
    }
}
