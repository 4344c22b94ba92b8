//! Finding the documentation files under a path, and reading one.
//!
//! Hidden folders and `node_modules` are passed over, symbolic links are not followed, and files that are no documentation by
//! their name are ignored. A documentation file that cannot be used is never fatal: it comes back as skipped, with why.

use std::path::{Path, PathBuf};

use walkdir::{DirEntry, WalkDir};

use super::parse::Format;
use crate::error::Error;

/// A documentation file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Where it is.
    pub path: PathBuf,
    /// Its path below what is imported, with slashes.
    pub name: String,
    /// How it is read.
    pub format: Format,
}

/// A file left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// Its path below what is imported.
    pub name: String,
    /// Why.
    pub reason: String,
}

/// What there is to import.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// In the order of their names.
    pub files: Vec<File>,
    /// Those that cannot be used.
    pub skipped: Vec<Skipped>,
}

/// The documentation files under `path`, which is a folder or one file.
///
/// # Errors
/// When the path cannot be read, or holds no documentation at all.
pub fn find(path: &Path, max_bytes: u64) -> Result<Found, Error> {
    let invalid = |message: String| Error::Invalid { field: "path", message };
    let kind = std::fs::metadata(path).map_err(|error| invalid(format!("cannot read {}: {error}", path.display())))?;
    let mut found = Found::default();
    if kind.is_file() {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let format = Format::of_path(path).unwrap_or(Format::Plain);
        found.add(File { path: path.to_owned(), name, format }, kind.len(), max_bytes);
    } else {
        for entry in WalkDir::new(path).sort_by_file_name().into_iter().filter_entry(is_wanted) {
            match entry {
                Ok(entry) => found.add_entry(path, &entry, max_bytes),
                Err(error) if error.depth() == 0 => {
                    return Err(invalid(format!("cannot read {}: {error}", path.display())));
                }
                // What cannot be entered is a folder: the slash stands for all that is in it.
                Err(error) => found.skipped.push(Skipped {
                    name: error.path().map_or_else(String::new, |at| format!("{}/", name_below(path, at))),
                    reason: error.to_string(),
                }),
            }
        }
    }
    if found.files.is_empty() && found.skipped.is_empty() {
        let message =
            format!("{} holds no documentation; Markdown, MDX, HTML and plain text files are read", path.display());
        return Err(invalid(message));
    }
    Ok(found)
}

impl Found {
    fn add_entry(&mut self, root: &Path, entry: &DirEntry, max_bytes: u64) {
        let Some(format) = Format::of_path(entry.path()).filter(|_| entry.file_type().is_file()) else { return };
        let bytes = entry.metadata().map_or(0, |metadata| metadata.len());
        self.add(
            File { path: entry.path().to_owned(), name: name_below(root, entry.path()), format },
            bytes,
            max_bytes,
        );
    }

    fn add(&mut self, file: File, bytes: u64, max_bytes: u64) {
        if bytes > max_bytes {
            self.skipped.push(Skipped { name: file.name, reason: too_large(bytes, max_bytes) });
        } else {
            self.files.push(file);
        }
    }
}

fn is_wanted(entry: &DirEntry) -> bool {
    let name = entry.file_name().to_string_lossy();
    entry.depth() == 0 || !(name.starts_with('.') || name == "node_modules")
}

fn name_below(root: &Path, path: &Path) -> String {
    let below = path.strip_prefix(root).unwrap_or(path);
    below.components().map(|part| part.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/")
}

fn too_large(bytes: u64, max_bytes: u64) -> String {
    format!("{bytes} bytes, more than max_file_bytes = {max_bytes}")
}

/// The text of `file`, or why it is left out.
///
/// # Errors
/// Unreadable, grown past `max_bytes` since it was found, binary, or not UTF-8.
pub async fn read(file: &File, max_bytes: u64) -> Result<String, Skipped> {
    let skipped = |reason: String| Skipped { name: file.name.clone(), reason };
    let bytes = tokio::fs::read(&file.path).await.map_err(|error| skipped(error.to_string()))?;
    if bytes.len() as u64 > max_bytes {
        return Err(skipped(too_large(bytes.len() as u64, max_bytes)));
    }
    if bytes.contains(&0) {
        return Err(skipped("binary: it holds NUL bytes".to_owned()));
    }
    String::from_utf8(bytes).map_err(|error| skipped(format!("not UTF-8 at byte {}", error.utf8_error().valid_up_to())))
}
