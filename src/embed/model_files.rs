//! The folder of a model: which files it must hold, what they say about it, and its revision.
//!
//! Any folder with an ONNX graph, `tokenizer.json` and `config.json` will do. What is missing is named by path, with
//! the setting to change and the command that makes it.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::{Error, Identity, Precision};

/// Hexadecimal digits of the hash that make a revision: 48 bits tell apart all builds anybody will ever store.
const REVISION_DIGITS: usize = 12;

/// One model's folder at one precision.
#[derive(Clone, Debug)]
pub(super) struct ModelFiles {
    folder: PathBuf,
    precision: Precision,
}

/// What `config.json` says, as far as it matters here.
#[derive(Deserialize)]
struct Facts {
    hidden_size: usize,
    max_position_embeddings: usize,
}

impl ModelFiles {
    /// The files of `folder`; nothing is looked at yet.
    pub fn new(folder: &Path, precision: Precision) -> Self {
        Self { folder: folder.to_owned(), precision }
    }

    /// The graph.
    pub fn graph(&self) -> PathBuf {
        self.folder.join(self.precision.file())
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> PathBuf {
        self.folder.join("tokenizer.json")
    }

    fn config(&self) -> PathBuf {
        self.folder.join("config.json")
    }

    /// # Errors
    /// Names the first file that is missing, and what to do about it.
    pub fn check(&self) -> Result<(), Error> {
        for path in [self.graph(), self.tokenizer(), self.config()] {
            if !path.is_file() {
                return Err(Error::setting(
                    "model_dir",
                    format!(
                        "{} is missing; run `scripts/setup run`, which makes it, or name a folder that holds {}, \
                         tokenizer.json and config.json",
                        path.display(),
                        self.precision.file()
                    ),
                ));
            }
        }
        Ok(())
    }

    /// Hashes the graph and the tokenizer (about 10 ms for an int8 model) and reads the dimensions.
    ///
    /// # Errors
    /// When a file is missing, unreadable, or allows fewer than `max_tokens` tokens.
    pub fn identity(&self, max_tokens: usize) -> Result<Identity, Error> {
        self.check()?;
        let failed = |path: &Path, error: &dyn std::fmt::Display| Error::Load(format!("{}: {error}", path.display()));
        let config = self.config();
        let text = std::fs::read_to_string(&config).map_err(|error| failed(&config, &error))?;
        let facts: Facts = serde_json::from_str(&text).map_err(|error| failed(&config, &error))?;
        if facts.max_position_embeddings < max_tokens {
            let most = facts.max_position_embeddings;
            return Err(Error::setting(
                "embed_max_tokens",
                format!("{max_tokens}, but the model reads at most {most}"),
            ));
        }
        let mut hasher = blake3::Hasher::new();
        for path in [self.graph(), self.tokenizer()] {
            hash(&path, &mut hasher).map_err(|error| failed(&path, &error))?;
        }
        let mut revision = hasher.finalize().to_hex().to_string();
        revision.truncate(REVISION_DIGITS);
        Ok(Identity { name: self.name(), precision: self.precision.name(), dimensions: facts.hidden_size, revision })
    }

    /// The folder's own name.
    fn name(&self) -> String {
        let folder = self.folder.canonicalize().unwrap_or_else(|_| self.folder.clone());
        folder.file_name().map_or_else(|| "model".to_owned(), |name| name.to_string_lossy().into_owned())
    }
}

/// The length goes in too, so that moving bytes from one file to the next changes the hash.
fn hash(path: &Path, hasher: &mut blake3::Hasher) -> io::Result<()> {
    let file = File::open(path)?;
    hasher.update(&file.metadata()?.len().to_le_bytes());
    hasher.update_reader(file)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use std::fs::write;

    use super::*;

    fn folder() -> (tempfile::TempDir, ModelFiles) {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("tiny");
        std::fs::create_dir(&folder).unwrap();
        write(folder.join("model_int8.onnx"), "graph").unwrap();
        write(folder.join("tokenizer.json"), "{}").unwrap();
        write(folder.join("config.json"), r#"{"hidden_size": 4, "max_position_embeddings": 512, "other": 1}"#).unwrap();
        let files = ModelFiles::new(&folder, Precision::Int8);
        (parent, files)
    }

    #[test]
    fn the_identity_changes_with_the_graph_and_with_the_tokenizer() {
        let (_parent, files) = folder();
        let first = files.identity(256).unwrap();
        assert_eq!((first.name.as_str(), first.precision, first.dimensions), ("tiny", "int8", 4));
        assert_eq!(first, files.identity(256).unwrap());
        write(files.tokenizer(), "{ }").unwrap();
        let second = files.identity(256).unwrap();
        write(files.graph(), "graph!").unwrap();
        assert!(first != second && second != files.identity(256).unwrap());
    }

    #[test]
    fn a_missing_file_is_named_with_what_to_do() {
        let (_parent, files) = folder();
        std::fs::remove_file(files.graph()).unwrap();
        let told = files.identity(256).unwrap_err().to_string();
        assert!(told.starts_with("model_dir: /"), "{told}");
        assert!(told.contains("model_int8.onnx is missing; run `scripts/setup run`"), "{told}");
    }

    #[test]
    fn a_model_that_reads_less_than_asked_is_refused() {
        let (_parent, files) = folder();
        let told = files.identity(1024).unwrap_err().to_string();
        assert_eq!(told, "embed_max_tokens: 1024, but the model reads at most 512");
    }

    #[test]
    fn a_broken_config_names_its_file() {
        let (_parent, files) = folder();
        write(files.config(), "{}").unwrap();
        let told = files.identity(256).unwrap_err().to_string();
        assert!(told.contains("config.json: missing field `hidden_size`"), "{told}");
    }
}
