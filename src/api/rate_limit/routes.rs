//! One table: which rate limit counts each route.
//!
//! A route that is not listed is never counted: `/openapi.json`, `/docs`, the page.

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
    /// Who may ask.
    Keys,
    /// How the server is.
    Health,
}

impl Group {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Search, Self::Sources, Self::Documents, Self::Keys, Self::Health];

    /// As the policy is called in `RateLimit` headers.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Search => "search",
            Self::Sources => "sources",
            Self::Documents => "documents",
            Self::Keys => "keys",
            Self::Health => "health",
        }
    }
}

/// What is known of a route before its handler runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Route {
    /// As it was matched.
    pub path: &'static str,
    /// Its rate limit.
    pub group: Group,
}

/// Every route of the API; those that are asked most come first.
pub(super) const ROUTES: [Route; 9] = [
    Route { path: "/api/search", group: Group::Search },
    Route { path: "/api/sources", group: Group::Sources },
    Route { path: "/api/sources/{source_id}", group: Group::Sources },
    Route { path: "/api/pages", group: Group::Documents },
    Route { path: "/api/pages/{page_id}", group: Group::Documents },
    Route { path: "/api/chunks/{chunk_id}", group: Group::Documents },
    Route { path: "/api/keys", group: Group::Keys },
    Route { path: "/api/keys/{key_id}", group: Group::Keys },
    Route { path: "/api/health", group: Group::Health },
];

/// What is known of the request's route.
pub(super) fn of(request: &Request) -> Option<&'static Route> {
    let matched = request.extensions().get::<MatchedPath>()?;
    ROUTES.iter().find(|known| known.path == matched.as_str())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_described_route_is_in_the_table_and_no_other() {
        let described: BTreeSet<String> = crate::api::openapi().paths.paths.into_keys().collect();
        let listed: BTreeSet<String> = ROUTES.iter().map(|known| known.path.to_owned()).collect();
        assert_eq!(listed, described);
    }
}
