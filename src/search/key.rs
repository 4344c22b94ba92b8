//! What an answer is kept under: everything that its body depends on, and nothing else.

use crate::{
    cache::{Key, Parts},
    index::Resolved,
    query::{Content, Fusion, Mode, Query},
};

/// Grows with every change of what an answer holds or how results are ordered, so that processes of two releases that share a
/// Redis never take each other's answers.
const ANSWER_VERSION: u8 = 1;

/// What decides answers beside the query and the documents: the same for all searches of a process.
#[derive(Clone, Debug, Default)]
pub(super) struct Profile {
    /// The embedding model, its precision and revision.
    pub model: String,
    /// Candidates an index scan keeps when the query does not say.
    pub ef_search: u16,
    /// Lists an `IVFFlat` scan reads.
    pub ivfflat_probes: u16,
}

/// The key of the answer to `query` from `resolved`. The caller's view is in `resolved`: sources it may not see are not.
pub(super) fn of_answer(profile: &Profile, query: &Query, resolved: &Resolved) -> Key {
    parts_of_answer(Key::parts(), profile, query, resolved.fingerprint()).key()
}

/// The key of the vector of `text`.
pub(super) fn of_vector(model: &str, text: &str) -> Key {
    Key::parts().text("vector").text(model).text(text).key()
}

fn parts_of_answer(parts: Parts, profile: &Profile, query: &Query, documents: &[u8; 32]) -> Parts {
    let parts = parts
        .text("answer")
        .flag(ANSWER_VERSION)
        .text(env!("CARGO_PKG_VERSION"))
        .number(profile.ef_search)
        .number(profile.ivfflat_probes)
        .bytes(documents);
    // Words alone are the same under every model.
    let parts = match query.mode {
        Mode::Keyword => parts.flag(0),
        Mode::Vector => parts.flag(1).text(&profile.model),
        Mode::Hybrid => parts.flag(2).text(&profile.model),
    };
    let Query {
        text,
        match_count,
        selection,
        mode: _,
        rank,
        exact,
        ef_search,
        content,
        highlight,
        explain,
        cursor,
        // Whoever may see other documents has another fingerprint of them.
        view: _,
    } = query;
    let threshold = |parts: Parts, number: f32| parts.number(number.to_bits());
    let parts = parts
        .text(text)
        .number(i64::try_from(*match_count).unwrap_or(i64::MAX))
        .list(selection.sources.iter(), |parts, source| parts.text(source))
        .maybe(selection.version.as_deref(), Parts::text)
        .maybe(rank.alpha, threshold)
        .flag(match rank.fusion {
            Fusion::Weighted => 0,
            Fusion::Rrf => 1,
        })
        .maybe(rank.min_similarity, threshold)
        .maybe(rank.min_keyword_score, threshold)
        .flag(u8::from(*exact))
        .maybe(*ef_search, Parts::number);
    parts
        .flag(match content {
            Content::Full => 0,
            Content::Snippet => 1,
            Content::None => 2,
        })
        .flag(u8::from(*highlight))
        .flag(u8::from(*explain))
        // Its generations are those of `documents`, its fingerprint that of the other parts.
        .maybe(cursor.as_ref(), |parts, cursor| parts.number(i64::try_from(cursor.offset).unwrap_or(i64::MAX)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{index::Selection, query::Ranking};

    /// Texts made of few characters, among them those that separate and pad, so that near misses are common.
    fn text() -> impl Strategy<Value = String> {
        proptest::collection::vec(
            prop::sample::select(vec!["a", "b", ",", "\0", "\u{1}", " ", "é", "e\u{301}", "*"]),
            0..5,
        )
        .prop_map(|parts| parts.concat())
    }

    prop_compose! {
        fn query()(
            text in text(),
            match_count in 1_usize..4,
            sources in proptest::collection::vec(text(), 0..3),
            version in proptest::option::of(text()),
            mode in prop::sample::select(vec![Mode::Hybrid, Mode::Vector, Mode::Keyword]),
            alpha in proptest::option::of(prop::sample::select(vec![0.0_f32, 0.5, 1.0])),
            min_similarity in proptest::option::of(prop::sample::select(vec![0.0_f32, 0.5])),
            exact in any::<bool>(),
            ef_search in proptest::option::of(1_u16..3),
            highlight in any::<bool>(),
        ) -> Query {
            Query {
                text, match_count, selection: Selection { sources, version }, mode,
                rank: Ranking { alpha, min_similarity, ..Ranking::default() },
                exact, ef_search, highlight, ..Query::default()
            }
        }
    }

    fn bytes(profile: &Profile, query: &Query, documents: [u8; 32]) -> Vec<u8> {
        parts_of_answer(Parts::default(), profile, query, &documents).into_inner()
    }

    fn injective(one: &(Query, String, [u8; 32]), other: &(Query, String, [u8; 32])) -> Result<(), TestCaseError> {
        let written = |(query, model, documents): &(Query, String, [u8; 32])| {
            let profile = Profile { model: model.clone(), ..Profile::default() };
            bytes(&profile, query, *documents)
        };
        let words_alone = |asked: &(Query, String, [u8; 32])| asked.0.mode == Mode::Keyword;
        let same = one.0 == other.0 && one.2 == other.2 && (one.1 == other.1 || words_alone(one));
        prop_assert_eq!(same, written(one) == written(other));
        Ok(())
    }

    fn asked() -> impl Strategy<Value = (Query, String, [u8; 32])> {
        (query(), text(), prop::sample::select(vec![[0_u8; 32], [1_u8; 32]]))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]
        #[test]
        fn different_questions_are_written_differently(one in asked(), other in asked()) {
            injective(&one, &other)?;
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000_000))]
        #[test]
        #[ignore = "long: a million pairs"]
        fn different_questions_are_written_differently_a_million_times(one in asked(), other in asked()) {
            injective(&one, &other)?;
        }
    }
}
