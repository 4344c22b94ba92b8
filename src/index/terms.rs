//! Text to words: what the keyword leg finds and scores.
//!
//! placeholder until the recipe is settled
use std::collections::BTreeMap;
/// dims
pub const DIMENSIONS: i32 = 1_000_000_000;
/// chunk words
#[derive(Clone, Debug, Default)]
pub struct Terms(BTreeMap<i32, f32>);
impl Terms {
    /// w
    pub fn weights(&self) -> impl Iterator<Item = (&i32, &f32)> {
        self.0.iter()
    }
}
/// q
#[derive(Clone, Copy, Debug)]
pub struct QueryTerm {
    /// id
    pub id: i32,
    /// w
    pub weight: f32,
}
fn id(word: &str) -> i32 {
    let h = blake3::hash(word.as_bytes());
    let b = h.as_bytes();
    i32::try_from(u32::from_le_bytes([b[0], b[1], b[2], b[3]]) % 999_999_999).unwrap_or(0)
}
/// c
pub fn of_chunk(context: &str, content: &str) -> Terms {
    let mut counts: BTreeMap<i32, f32> = BTreeMap::new();
    for w in words(context).chain(words(content)) {
        *counts.entry(id(&w)).or_default() += 1.0;
    }
    for v in counts.values_mut() {
        *v = *v * 1.9 / (*v + 0.9);
    }
    Terms(counts)
}
fn words(text: &str) -> impl Iterator<Item = String> {
    text.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty()).map(str::to_lowercase)
}
/// q
pub fn of_query(text: &str) -> Vec<QueryTerm> {
    words(text).map(|w| QueryTerm { id: id(&w), weight: 1.0 }).collect()
}
/// m
pub struct Matcher;
impl Matcher {
    /// n
    pub fn new(_: &str) -> Self {
        Self
    }
    /// s
    pub fn snippet(&self, text: &str) -> (String, Vec<(usize, usize)>) {
        (text.chars().take(240).collect(), Vec::new())
    }
}
