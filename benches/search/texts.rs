//! Real texts and queries: from a labelled set, or from this repository's own comments and Markdown.

use std::path::Path;

use walkdir::WalkDir;

use crate::Failure;

/// Passages that are embedded for real; the others are made from these. More take longer and change nothing.
const PASSAGES: usize = 1_500;

/// Words of a passage: about 200 tokens, a usual chunk.
const PASSAGE_WORDS: usize = 140;

/// Texts and queries, each different.
pub struct Texts {
    /// Documents as a model reads them.
    pub passages: Vec<String>,
    /// What may be asked.
    pub queries: Vec<String>,
}

impl Texts {
    /// `count` queries that are the same in every run; `nth` tells disjoint lots apart.
    pub fn queries(&self, nth: usize, count: usize) -> Vec<String> {
        let mut random = fastrand::Rng::with_seed(nth as u64);
        let asked = self.queries.iter().skip(nth * count).take(count).cloned();
        let mut queries: Vec<String> = asked.collect();
        while queries.len() < count {
            let passage = &self.passages[random.usize(..self.passages.len())];
            let words: Vec<&str> = passage.split_whitespace().collect();
            let length = random.usize(4..9).min(words.len());
            let start = random.usize(..=words.len() - length);
            queries.push(words[start..start + length].join(" "));
        }
        queries
    }
}

/// From `folder` (`corpus.jsonl` and `queries.jsonl`), or from the repository.
pub fn read(folder: Option<&Path>) -> Result<Texts, Failure> {
    let mut texts = Texts { passages: Vec::new(), queries: Vec::new() };
    if let Some(folder) = folder {
        for (name, target) in [("corpus.jsonl", &mut texts.passages), ("queries.jsonl", &mut texts.queries)] {
            let path = folder.join(name);
            let lines = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
            for line in lines.lines() {
                let value: serde_json::Value = serde_json::from_str(line)?;
                let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
                target.push(format!("{} {}", text("title"), text("text")).trim().to_owned());
            }
        }
    } else {
        let words: Vec<String> = own_words();
        texts.passages = words.chunks(PASSAGE_WORDS / 3).map(|chunk| chunk.join(" ")).collect();
        texts.passages = texts.passages.windows(3).map(|three| three.join(" ")).collect();
    }
    texts.passages.retain(|text| text.split_whitespace().count() > 8);
    for text in &mut texts.passages {
        *text = text.split(' ').take(PASSAGE_WORDS).collect::<Vec<_>>().join(" ");
    }
    fastrand::Rng::with_seed(1).shuffle(&mut texts.passages);
    texts.passages.truncate(PASSAGES);
    if texts.passages.len() < 100 {
        return Err("too few texts: name a folder with a larger corpus.jsonl by --texts".into());
    }
    Ok(texts)
}

/// The words of all comments and Markdown in this repository, in order.
fn own_words() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let wanted = |name: &str| !name.starts_with('.') && name != "target";
    let entries = WalkDir::new(root).sort_by_file_name().into_iter();
    let entries = entries.filter_entry(|entry| entry.depth() == 0 || entry.file_name().to_str().is_some_and(wanted));
    let mut words = Vec::new();
    for entry in entries.filter_map(Result::ok) {
        let markdown = entry.path().extension().is_some_and(|suffix| suffix == "md");
        let rust = entry.path().extension().is_some_and(|suffix| suffix == "rs");
        let text = if markdown || rust { std::fs::read_to_string(entry.path()).unwrap_or_default() } else { continue };
        for line in text.lines().map(str::trim) {
            let told = if markdown {
                Some(line)
            } else {
                ["//! ", "/// ", "// "].iter().find_map(|mark| line.strip_prefix(mark))
            };
            words.extend(told.unwrap_or_default().split_whitespace().map(ToOwned::to_owned));
        }
    }
    words
}
