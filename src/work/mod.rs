//! Off the request path: what turns documentation files into passages that can be searched.

pub mod chunk;
pub mod parse;
