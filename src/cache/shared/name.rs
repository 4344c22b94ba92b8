//! Names of shared values: `doc-server:{schema}:{kind}:{hash}`.

use crate::cache::codec::{Kind, SCHEMA};

/// What all names of this schema begin with.
pub(super) const PREFIX: &str = "doc-server:2:";

const _: () = assert!(SCHEMA == 2, "PREFIX says the schema");

/// Where a value lies in Redis.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Name {
    kind: Kind,
    text: String,
}

impl Name {
    /// The name of what `hash` stands for: a digest of everything that the value depends on.
    #[must_use]
    pub fn new(kind: Kind, hash: &[u8; 32]) -> Self {
        let hash = blake3::Hash::from_bytes(*hash).to_hex();
        Self { kind, text: [PREFIX, kind.as_str(), ":", hash.as_str()].concat() }
    }

    /// What the value is for.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The key in Redis.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The key of the lease on it. A cluster places keys by what stands in braces, so both lie on one node.
    pub(super) fn lease(&self) -> String {
        format!("{PREFIX}lease:{{{}}}", self.text)
    }
}
