//! Off the request path: what turns documentation files into a published generation.

pub mod chunk;
pub mod files;
pub mod import;
pub mod material;
pub mod parse;
