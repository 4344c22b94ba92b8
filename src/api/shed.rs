//! Who gives way to whom, and the gate before what works in the database.
//!
//! Searches take their place where they are computed, so that a kept answer needs none. Reads of documents are short and take one here, from
//! the same gate: while searches fill it, the database has no room for them either. Everything else is answered from memory and
//! is never turned away.

use std::{future::ready, sync::Arc};

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, HeaderName, request::Parts},
};

use super::{State, respond::Problem};
use crate::runtime::shed::{Class, Permit};

/// RFC 9218: `u=` is the urgency.
const PRIORITY: HeaderName = HeaderName::from_static("priority");

/// RFC 9218's own default is 3 and its background 7; what is less urgent than a browser's images (4) can wait.
const BATCH_FROM: u8 = 5;

/// The class that the `Priority` header asks for. Anybody may step back behind others; nobody gets before them.
pub(super) fn class_of(headers: &HeaderMap) -> Class {
    let mut members =
        headers.get_all(PRIORITY).iter().filter_map(|value| value.to_str().ok()).flat_map(|all| all.split(','));
    // Of a member that comes twice the last counts, as in every dictionary of structured fields.
    let urgency = members.by_ref().filter_map(|member| member.trim().strip_prefix("u=")).next_back();
    let urgency = urgency.and_then(|value| value.split(';').next()?.trim().parse::<u8>().ok());
    match urgency {
        Some(BATCH_FROM..=7) => Class::Batch,
        _ => Class::Interactive,
    }
}

/// A place for a read of documents, as long as its handler runs. Without one the caller is told at once to come back.
pub(super) struct Place(#[expect(dead_code, reason = "held, not looked at")] Permit);

impl FromRequestParts<Arc<State>> for Place {
    type Rejection = Problem;

    fn from_request_parts(parts: &mut Parts, state: &Arc<State>) -> impl Future<Output = Result<Self, Problem>> {
        let place = state.search.gate().enter_uncounted(class_of(&parts.headers));
        ready(place.map(Self).map_err(|refused| {
            tracing::debug!(%refused, "read refused");
            Problem::overloaded()
        }))
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn what_says_that_it_can_wait_is_batch() {
        for (values, class) in [
            (&[][..], Class::Interactive),
            (&["u=0"], Class::Interactive),
            (&["u=4, i"], Class::Interactive),
            (&["u=5"], Class::Batch),
            (&["i, u=7"], Class::Batch),
            (&["u=6;why=bulk"], Class::Batch),
            (&["u=1, u=7"], Class::Batch),
            (&["u=7", "u=2"], Class::Interactive),
            (&["u=8"], Class::Interactive),
            (&["u=-1"], Class::Interactive),
            (&["urgent"], Class::Interactive),
            (&["xu=7"], Class::Interactive),
        ] {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(PRIORITY, HeaderValue::from_static(value));
            }
            assert_eq!(class_of(&headers), class, "{values:?}");
        }
    }
}
