//! Reading labelled search sets: the BEIR layout, with an optional partition.
//!
//! ```text
//! corpus.jsonl      {"_id", "title", "text"}        one document a line
//! queries.jsonl     {"_id", "text"}
//! qrels/test.tsv    query-id  corpus-id  score      after one line of headings
//! partition.json    {"doc": {id: part}, "query": {id: part}}    optional: a query is asked in its part only
//! ```
//!
//! What cannot be read is an error that names the file and the line. A set is read into memory whole.

use std::{collections::HashMap, path::Path};

use serde::{Deserialize, de::DeserializeOwned};

use super::metrics::Judgements;
use crate::app::Error;

/// Names under which a partition is found; the second is that of a published set.
const PARTITIONS: [&str; 2] = ["partition.json", "course.json"];

/// A document of the corpus.
#[derive(Clone, Debug, Deserialize)]
pub struct Document {
    /// Its name in the judgements.
    #[serde(rename = "_id")]
    pub id: String,
    /// Empty when it has none.
    #[serde(default)]
    pub title: String,
    /// Its text.
    pub text: String,
}

/// A query with what is relevant to it.
#[derive(Clone, Debug)]
pub struct Judged {
    /// What is asked.
    pub text: String,
    /// The source it is asked in.
    pub source: String,
    /// What is relevant.
    pub judgements: Judgements,
}

/// A labelled search set.
#[derive(Debug)]
pub struct Set {
    /// The folder's name.
    pub name: String,
    /// Documents by the source they belong to.
    pub sources: Vec<(String, Vec<Document>)>,
    /// The queries that have judgements.
    pub queries: Vec<Judged>,
}

/// A line of `queries.jsonl`.
#[derive(Deserialize)]
struct Query {
    #[serde(rename = "_id")]
    id: String,
    text: String,
}

/// Which part each document and query belongs to.
#[derive(Deserialize)]
struct Partition {
    doc: HashMap<String, String>,
    query: HashMap<String, String>,
}

impl Set {
    /// Reads the set in `folder`.
    ///
    /// # Errors
    /// Names the file, and the line where there is one.
    pub fn read(folder: &Path) -> Result<Self, Error> {
        let folder = folder.canonicalize().map_err(|error| unreadable(folder, &error))?;
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let partition = Partition::find(&folder)?;
        let documents: Vec<Document> = read_lines(&folder.join("corpus.jsonl"))?;
        let mut sources: Vec<(String, Vec<Document>)> = Vec::new();
        for document in documents {
            let source = source(&name, partition.as_ref().map(|partition| &partition.doc), &document.id)?;
            match sources.iter_mut().find(|(known, _)| *known == source) {
                Some((_, documents)) => documents.push(document),
                None => sources.push((source, vec![document])),
            }
        }
        let mut judgements = read_judgements(&folder.join("qrels/test.tsv"))?;
        let mut queries = Vec::new();
        for query in read_lines::<Query>(&folder.join("queries.jsonl"))? {
            let Some(judgements) = judgements.remove(&query.id) else { continue };
            let source = source(&name, partition.as_ref().map(|partition| &partition.query), &query.id)?;
            queries.push(Judged { text: query.text.trim().to_owned(), source, judgements });
        }
        if let Some(id) = judgements.keys().next() {
            return Err(Error::Failed(format!(
                "{name}: qrels/test.tsv judges the query {id:?}, which queries.jsonl lacks"
            )));
        }
        if queries.is_empty() {
            return Err(Error::Failed(format!("{name}: qrels/test.tsv judges no query of queries.jsonl")));
        }
        Ok(Self { name, sources, queries })
    }
}

impl Partition {
    fn find(folder: &Path) -> Result<Option<Self>, Error> {
        let Some(path) = PARTITIONS.iter().map(|name| folder.join(name)).find(|path| path.exists()) else {
            return Ok(None);
        };
        let text = std::fs::read_to_string(&path).map_err(|error| unreadable(&path, &error))?;
        let partition = serde_json::from_str(&text).map_err(|error| malformed(&path, error.line(), &error))?;
        Ok(Some(partition))
    }
}

/// The set's own, or that of the part which `id` belongs to.
fn source(set: &str, parts: Option<&HashMap<String, String>>, id: &str) -> Result<String, Error> {
    let Some(parts) = parts else { return Ok(set.to_owned()) };
    match parts.get(id) {
        Some(part) => Ok(format!("{set}/{part}")),
        None => Err(Error::Failed(format!("{set}: the partition does not say where {id:?} belongs"))),
    }
}

fn read_lines<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>, Error> {
    let text = std::fs::read_to_string(path).map_err(|error| unreadable(path, &error))?;
    let lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
    lines.map(|(number, line)| serde_json::from_str(line).map_err(|error| malformed(path, number, &error))).collect()
}

fn read_judgements(path: &Path) -> Result<HashMap<String, Judgements>, Error> {
    let text = std::fs::read_to_string(path).map_err(|error| unreadable(path, &error))?;
    let mut judgements: HashMap<String, Judgements> = HashMap::new();
    for (number, line) in (1..).zip(text.lines()).skip(1).filter(|(_, line)| !line.trim().is_empty()) {
        let mut fields = line.split('\t');
        let (Some(query), Some(document), Some(Ok(score))) =
            (fields.next(), fields.next(), fields.next().map(|score| score.trim().parse::<f64>()))
        else {
            return Err(malformed(path, number, &"expected query-id, corpus-id and a number, with tabs between"));
        };
        judgements.entry(query.to_owned()).or_default().insert(document.to_owned(), score);
    }
    Ok(judgements)
}

fn unreadable(path: &Path, error: &std::io::Error) -> Error {
    Error::Failed(format!("cannot read {}: {error}", path.display()))
}

fn malformed(path: &Path, line: usize, reason: &dyn std::fmt::Display) -> Error {
    Error::Failed(format!("{} line {line}: {reason}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(files: &[(&str, &str)]) -> Result<Set, String> {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("qrels")).expect("a folder");
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).expect("a file");
        }
        Set::read(folder.path()).map_err(|error| error.to_string())
    }

    const CORPUS: (&str, &str) = ("corpus.jsonl", "{\"_id\": \"d\", \"title\": \"T\", \"text\": \"x\"}\n\n");
    const QUERIES: (&str, &str) =
        ("queries.jsonl", "{\"_id\": \"q\", \"text\": \" what? \"}\n{\"_id\": \"r\", \"text\": \"y\"}\n");
    const QRELS: (&str, &str) = ("qrels/test.tsv", "query-id\tcorpus-id\tscore\nq\td\t2\n");

    #[test]
    fn queries_without_judgements_are_left_out() {
        let set = set(&[CORPUS, QUERIES, QRELS]).expect("a set");
        assert_eq!(set.queries.len(), 1);
        assert_eq!((set.queries[0].text.as_str(), set.queries[0].judgements["d"]), ("what?", 2.0));
        assert_eq!((set.sources.len(), &set.sources[0].0), (1, &set.name));
    }

    #[test]
    fn a_partition_makes_sources() {
        let partition = ("partition.json", "{\"doc\": {\"d\": \"a\"}, \"query\": {\"q\": \"a\"}}");
        let parted = set(&[CORPUS, QUERIES, QRELS, partition]).expect("a set");
        assert_eq!(parted.sources[0].0, format!("{}/a", parted.name));
        assert_eq!(parted.queries[0].source, parted.sources[0].0);
        let unknown = set(&[CORPUS, QUERIES, QRELS, ("course.json", "{\"doc\": {}, \"query\": {}}")]);
        assert!(unknown.is_err_and(|error| error.contains("\"d\"")));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_file_and_line() {
        let error = |files: &[(&str, &str)]| set(files).expect_err("an error");
        assert!(error(&[QUERIES, QRELS]).contains("corpus.jsonl"));
        assert!(error(&[CORPUS, ("queries.jsonl", "\n{\"_id\": 1}"), QRELS]).contains("queries.jsonl line 2"));
        assert!(error(&[CORPUS, QUERIES, ("qrels/test.tsv", "h\nq\td\tx\n")]).contains("test.tsv line 2"));
        assert!(error(&[CORPUS, QUERIES, ("qrels/test.tsv", "h\nzz\td\t1\n")]).contains("\"zz\""));
    }
}
