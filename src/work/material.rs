//! What an import is made of: the documentation files below a path, or documents that are handed over.
//!
//! Files are read one by one when their turn comes; documents are in memory already, so whoever hands them over bounds them.

use std::path::PathBuf;

use super::{
    files::{self, File, Skipped},
    parse::Format,
};
use crate::error::Error;

/// Where an import's pages come from.
#[derive(Clone, Debug)]
pub enum Material {
    /// A folder or a file.
    Path {
        /// Where it is.
        path: PathBuf,
        /// Larger files are skipped.
        max_file_bytes: u64,
    },
    /// Documents that are handed over.
    Documents(Vec<Document>),
}

/// The text of a page before it is parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Its name in the source: unique, with slashes.
    pub path: String,
    /// Its title, where that is known beside the text; an empty one says that it has none. None looks for it in the text.
    pub title: Option<String>,
    /// How the text is read.
    pub format: Format,
    /// The text.
    pub content: String,
}

/// One page to come.
#[derive(Clone, Copy, Debug)]
pub enum Item<'a> {
    /// To be read, when it is at most this large.
    File(&'a File, u64),
    /// At hand.
    Document(&'a Document),
}

impl Material {
    /// The files below the path; none for documents.
    ///
    /// # Errors
    /// When the path cannot be read, or holds no documentation at all.
    pub fn files(&self) -> Result<files::Found, Error> {
        match self {
            Self::Path { path, max_file_bytes } => files::find(path, *max_file_bytes),
            Self::Documents(_) => Ok(files::Found::default()),
        }
    }

    /// Everything to import: `found` are the material's files.
    pub fn items<'a>(&'a self, found: &'a files::Found) -> Vec<Item<'a>> {
        match self {
            Self::Path { max_file_bytes, .. } => {
                found.files.iter().map(|file| Item::File(file, *max_file_bytes)).collect()
            }
            Self::Documents(documents) => documents.iter().map(Item::Document).collect(),
        }
    }
}

impl<'a> Item<'a> {
    /// Its name in the source.
    pub fn name(self) -> &'a str {
        match self {
            Self::File(file, _) => &file.name,
            Self::Document(document) => &document.path,
        }
    }

    /// Its text, or why it is left out.
    ///
    /// # Errors
    /// For a file that cannot be read as text.
    pub async fn read(self) -> Result<Document, Skipped> {
        match self {
            Self::File(file, max_bytes) => {
                let content = files::read(file, max_bytes).await?;
                Ok(Document { path: file.name.clone(), title: None, format: file.format, content })
            }
            Self::Document(document) => Ok(document.clone()),
        }
    }
}
