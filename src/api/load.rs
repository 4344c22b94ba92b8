//! One table: what each route costs and which rate limit counts it.
//!
//! A route that is not listed is answered from memory, never turned away and never counted: `/openapi.json`, `/docs`, the page.

use axum::extract::{MatchedPath, Request};

/// A rate limit of its own: routes that share one are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Group {
    /// Searches, whichever way they are asked.
    Search,
    /// What is known of sources, and changes to it.
    Sources,
    /// Pages and passages.
    Documents,
    /// How the server is.
    Health,
}

impl Group {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Search, Self::Sources, Self::Documents, Self::Health];

    /// As the policy is called in `RateLimit` headers.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Search => "search",
            Self::Sources => "sources",
            Self::Documents => "documents",
            Self::Health => "health",
        }
    }
}

/// What is known of a route before its handler runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Load {
    /// As it was matched.
    pub route: &'static str,
    /// Its rate limit.
    pub group: Group,
    /// Whether it takes a place at the gate: it reads from the database each time.
    pub guarded: bool,
}

/// Every route of the API.
pub(super) const ROUTES: [Load; 7] = [
    // Takes its place where it is computed.
    Load { route: "/api/search", group: Group::Search, guarded: false },
    // From the catalog in memory; a change is rare, and waits for its own pool.
    Load { route: "/api/sources", group: Group::Sources, guarded: false },
    Load { route: "/api/sources/{source_id}", group: Group::Sources, guarded: false },
    Load { route: "/api/pages", group: Group::Documents, guarded: true },
    Load { route: "/api/pages/{page_id}", group: Group::Documents, guarded: true },
    Load { route: "/api/chunks/{chunk_id}", group: Group::Documents, guarded: true },
    Load { route: "/api/health", group: Group::Health, guarded: false },
];

/// What is known of the request's route.
pub(super) fn of(request: &Request) -> Option<&'static Load> {
    let matched = request.extensions().get::<MatchedPath>()?;
    ROUTES.iter().find(|load| load.route == matched.as_str())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_described_route_is_in_the_table_and_no_other() {
        let described: BTreeSet<String> = super::super::openapi().paths.paths.into_keys().collect();
        let listed: BTreeSet<String> = ROUTES.iter().map(|load| load.route.to_owned()).collect();
        assert_eq!(listed, described);
    }
}
