//! `doc-server`: search documentation by meaning and by words, fused inside Postgres.
//!
//! The folder listing is the path of one search; read [`search`] first:
//!
//! ```text
//! api -> search -> cache -> coalesce -> embed -> index -> rank -> search -> api
//! ```
//!
//! `admin` is the private door, `runtime` lies under everything, `work` runs off the request path.
//! `tests/it/layering.rs` holds the rules of who may import whom.

pub mod embed;
pub mod runtime;
