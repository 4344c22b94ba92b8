//! `doc-server`: search documentation by meaning and by words, fused inside Postgres.
//!
//! The folder listing is the path of one search; read [`mod@search`] first:
//!
//! ```text
//! api (parse) -> search -> embed (text to vector) -> index (candidates) -> rank (results) -> api
//! ```
//!
//! `admin` is the private door, `runtime` lies under everything, `work` runs off the request path.
//! `tests/it/layering.rs` holds the rules of who may import whom.

pub mod admin;
pub mod answer;
pub mod api;
pub mod app;
pub mod cache;
pub mod config;
pub mod embed;
pub mod error;
pub mod health;
pub mod index;
pub mod query;
pub mod rank;
pub mod runtime;
pub mod search;
pub mod work;
