//! `GET` and `POST /api/search`: parameters to a [`Query`], the answer's bytes with timings in a header.

use std::{
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    body::Body,
    extract::{RawQuery, Request, State as Shared},
    http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header},
};
use bytes::Bytes;
use serde::Deserialize;
use tracing::Instrument;
use utoipa::{IntoParams, ToSchema};

use super::{
    State, coding,
    door::{contain, within},
    extract::{Fields, refuse_parameters},
    identity::Identity,
    observe::{Began, Observed},
    policy,
    rate_limit::Counted,
    respond::{self, Problem},
    shed,
};
use crate::{
    answer::Answer,
    index::{Selection, View},
    query::{Caching, Content, Cursor, Fusion, MAX_MATCHES, MAX_QUERY_CHARS, Mode, Query, Ranking},
    runtime::{
        listen::{Early, Head},
        shed::Class,
        telemetry,
    },
    search::{Coding, Key, Manner, Outcome, Served, Timings},
};

const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// Ten minutes: nobody waits longer for a search, so more is a mistake of the unit.
const MAX_TIMEOUT_MS: i64 = 600_000;

/// More patterns are no search but a list.
const MAX_SOURCES: usize = 100;

/// The parameters of a search, as the description shows them; [`query_from`] reads them.
#[derive(Deserialize, IntoParams, ToSchema)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes the parameters in openapi.json; a test keeps it true")]
struct SearchParameters {
    /// What to look for: words, a question, an identifier, an error message.
    #[param(min_length = 1, max_length = 2000)]
    #[schema(min_length = 1, max_length = 2000)]
    query: String,
    /// How many results.
    #[param(minimum = 1, maximum = 100, default = 5)]
    #[schema(minimum = 1, maximum = 100, default = 5)]
    match_count: Option<u32>,
    /// Names of sources, `*` for any characters; absent means all.
    source: Option<Vec<String>>,
    /// `latest`, a range such as `5.x`, or an exact version; absent means each source's default.
    version: Option<String>,
    /// Where candidates come from.
    #[param(inline)]
    mode: Option<Mode>,
    /// Weight of vectors against words; 0.7 when absent.
    #[param(minimum = 0, maximum = 1)]
    #[schema(minimum = 0, maximum = 1)]
    alpha: Option<f32>,
    /// How the two legs are made one list.
    #[param(inline)]
    fusion: Option<Fusion>,
    /// A result stays when its cosine similarity is at least this.
    #[param(minimum = -1, maximum = 1)]
    #[schema(minimum = -1, maximum = 1)]
    min_similarity: Option<f32>,
    /// A result stays when its BM25 score is at least this.
    #[param(minimum = 0, maximum = 1000)]
    #[schema(minimum = 0, maximum = 1000)]
    min_keyword_score: Option<f32>,
    /// Compare with every vector instead of walking the index.
    exact: Option<bool>,
    /// Candidates the index scan keeps: more find more of the true neighbours and take longer.
    #[param(minimum = 1, maximum = 1000)]
    #[schema(minimum = 1, maximum = 1000)]
    ef_search: Option<u32>,
    /// How much of a passage is returned.
    #[param(inline)]
    content: Option<Content>,
    /// Mark matching words in the snippet.
    highlight: Option<bool>,
    /// Tell each leg's rank and score.
    explain: Option<bool>,
    /// `next_cursor` of an earlier answer to the same query.
    cursor: Option<String>,
    /// Whether an answer that was made before will do.
    #[param(inline)]
    cache: Option<Caching>,
    /// The longest to wait for the answer, in milliseconds; the server's own bound counts where that is less. Then 504.
    #[param(minimum = 1, maximum = 600_000)]
    #[schema(minimum = 1, maximum = 600_000)]
    timeout_ms: Option<u32>,
}

/// What a search asks for.
pub(super) struct Asked {
    /// The question.
    pub query: Query,
    /// Whether an answer that was made before will do.
    pub caching: Caching,
    /// How long the caller waits, when it says so.
    pub timeout: Option<Duration>,
}

/// Search for passages.
#[utoipa::path(
    get, path = "/api/search", tag = "search", params(SearchParameters),
    responses(
        (status = 200, description = "The best passages, best first", body = Answer, headers(
            ("ETag", description = "Names this answer: the same for the same question of the same documents"),
            ("X-Cache", description = "hit-l1, hit-l2, stale, coalesced, miss or bypass"),
            ("Age", description = "Seconds since the answer was made"),
            ("Server-Timing", description = "Milliseconds of each stage that ran for this request"),
        )),
        (status = 304, description = "If-None-Match names the answer: the caller's copy is right"),
        (status = 400, description = "An unknown parameter, or text that is not UTF-8", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such source or version", body = Problem, content_type = "application/problem+json"),
        (status = 410, description = "The cursor's documents were removed", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A value that is not allowed; names the field", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "Over a rate limit; Retry-After says for how long", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Too much is asked at once, or the database or the model is away; Retry-After", body = Problem, content_type = "application/problem+json"),
        (status = 504, description = "Not finished in time", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn search_documents(
    Shared(state): Shared<Arc<State>>,
    identity: Identity,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response<Body>, Problem> {
    let has = |key: &Key| respond::has_tag(&headers, key);
    let caller = Caller { identity: &identity, class: shed::class_of(&headers), coding: coding::accepted(&headers) };
    answer(&state, Fields::from_query(query.as_deref())?, caller, has).await
}

/// Search for passages, with the parameters as a JSON object.
#[utoipa::path(
    post, path = "/api/search", tag = "search", request_body = SearchParameters,
    responses(
        (status = 200, description = "The best passages, best first", body = Answer),
        (status = 400, description = "An unknown parameter, or malformed JSON", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such source or version", body = Problem, content_type = "application/problem+json"),
        (status = 410, description = "The cursor's documents were removed", body = Problem, content_type = "application/problem+json"),
        (status = 408, description = "The body did not arrive in time", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The body is not JSON", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A value that is not allowed; names the field", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "Over a rate limit; Retry-After says for how long", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Too much is asked at once, or the database or the model is away; Retry-After", body = Problem, content_type = "application/problem+json"),
        (status = 504, description = "Not finished in time", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn search_documents_post(
    Shared(state): Shared<Arc<State>>,
    identity: Identity,
    request: Request,
) -> Result<Response<Body>, Problem> {
    refuse_parameters(request.uri().query())?;
    let (class, coding) = (shed::class_of(request.headers()), coding::accepted(request.headers()));
    let fields = Fields::from_body(request, state.max_body_bytes).await?;
    // Conditions are for GET.
    answer(&state, fields, Caller { identity: &identity, class, coding }, |_| false).await
}

/// Who asks, and how the answer is to be made and sent.
struct Caller<'a> {
    identity: &'a Identity,
    class: Class,
    coding: Option<Coding>,
}

async fn answer(
    state: &State,
    fields: Fields,
    caller: Caller<'_>,
    has: impl Fn(&Key) -> bool,
) -> Result<Response<Body>, Problem> {
    let asked = query_from(fields, caller.identity.view())?;
    let outcome = find(state, asked, caller.class, has).await?;
    Ok(response_of(&outcome, caller.coding).map(Body::from))
}

async fn find(state: &State, asked: Asked, class: Class, has: impl Fn(&Key) -> bool) -> Result<Outcome, Problem> {
    let Asked { query, caching, timeout } = asked;
    let searching = pin!(state.search.run(query, Manner { caching, class }, has));
    Ok(match timeout {
        // Without one the server's bound on every request holds. Given up, the search leaves nothing running.
        None => searching.await?,
        Some(timeout) => within(timeout, searching).await??,
    })
}

/// The route that [`early`] answers.
const ROUTE: &str = "/api/search";

/// A search that may be asked as it is, by a caller of whom that is known: answered as the layers and [`search_documents`] would. What
/// is refused, or has to be read or traced first, is theirs.
pub(super) fn early(state: &Arc<State>, head: &Head<'_>) -> Option<Early> {
    // Requests that are traced show each layer and stage.
    if head.method != Method::GET || head.uri.path() != ROUTE || telemetry::is_exporting() {
        return None;
    }
    let began = Began { at: Instant::now(), version: head.version };
    let identity = state.access.at_once(policy::of(head.method, ROUTE)?, head.headers)?.ok()?;
    let fields = Fields::from_query(head.uri.query()).ok()?;
    let asked = query_from(fields, identity.view()).ok()?;
    let ready = if asked.caching == Caching::Use { state.search.ready(&asked.query) } else { None };
    let counted = state.limits.count_at_once(ROUTE, &identity, head)?;
    let observed = Observed::new(ROUTE, head.method, head.headers, began);
    let refused = counted.refusal();
    let asking = Asking { identity, counted, observed, coding: coding::accepted(head.headers) };
    if let Some(refusal) = refused {
        return Some(Early::Ready(asking.end(Err(refusal), state)));
    }
    if let Some(ready) = ready {
        let outcome = state.search.take(ready, |key| respond::has_tag(head.headers, key), began.at);
        return Some(Early::Ready(asking.end(Ok(outcome), state)));
    }
    let (class, conditions) = (shed::class_of(head.headers), respond::conditions(head.headers));
    let (state, span) = (Arc::clone(state), asking.observed.span());
    let coming = async move {
        let found = {
            // Pinned here, since what is moved into one future after the other is copied, and has room in each.
            let finding = pin!(find(&state, asked, class, |key| respond::has_tag(&conditions, key)));
            contain(async { within(state.deadline, finding).await? }).await
        };
        asking.end(found, &state)
    };
    Some(Early::Coming(Box::pin(coming.instrument(span))))
}

/// A search on its shortest way: what the layers would know of it.
struct Asking {
    identity: Identity,
    counted: Counted,
    observed: Observed<'static>,
    coding: Option<Coding>,
}

impl Asking {
    fn end(self, found: Result<Outcome, Problem>, state: &State) -> Response<Bytes> {
        let mut response = match found {
            Ok(outcome) => {
                let mut response = response_of(&outcome, self.coding);
                self.identity.keep_private(&mut response);
                response
            }
            Err(problem) => self.observed.write(problem),
        };
        self.counted.show(&mut response);
        self.observed.finish(&mut response, &state.leaving);
        response
    }
}

fn response_of(outcome: &Outcome, accepted: Option<Coding>) -> Response<Bytes> {
    let (body, coding) = coding::coded(&outcome.body, accepted);
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    // Those below, and those of the layers.
    headers.reserve(12);
    if outcome.unchanged {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    } else {
        headers.insert(header::CONTENT_TYPE, respond::JSON);
    }
    let headers = response.headers_mut();
    headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    if let Some(coding) = coding {
        headers.insert(header::CONTENT_ENCODING, coding);
    }
    headers.insert(respond::X_CACHE, HeaderValue::from_static(x_cache(outcome.served)));
    if let Some(age) = outcome.age {
        headers.insert(header::AGE, age.as_secs().into());
    }
    if let Some(tag) = outcome.key.as_ref().and_then(tag) {
        headers.insert(header::ETAG, tag);
    }
    headers.insert(SERVER_TIMING, server_timing(outcome.timings.as_ref(), outcome.total));
    response
}

/// A weak entity tag: answers of one key are worth the same, but an approximate search may be made again a little
/// differently once the index has grown by other sources.
fn tag(key: &Key) -> Option<HeaderValue> {
    let mut tag = *b"W/\"00000000000000000000000000000000\"";
    tag[3..35].copy_from_slice(&key.name());
    HeaderValue::from_bytes(&tag).ok()
}

/// The values that the API promises.
fn x_cache(served: Served) -> &'static str {
    match served {
        Served::Local => "hit-l1",
        Served::Shared => "hit-l2",
        Served::Stale => "stale",
        Served::Coalesced => "coalesced",
        Served::Miss => "miss",
        Served::Bypass => "bypass",
    }
}

/// The search that the query string of a `GET /api/search` asks for, of all sources.
///
/// # Errors
/// As that: 400 for an unknown name, 422 for values that are not allowed.
pub fn read_search(query: &str) -> Result<Query, Problem> {
    Ok(query_from(Fields::from_query(Some(query))?, View::everything())?.query)
}

/// Reads and checks the parameters of a caller who may see `view`.
///
/// # Errors
/// 400 for an unknown name, 422 with every value that is not allowed.
pub(super) fn query_from(mut fields: Fields, view: View) -> Result<Asked, Problem> {
    let required = !fields.has("query");
    let text = fields.text("query", 1..=MAX_QUERY_CHARS);
    if required {
        fields.refuse::<()>("query", "is required");
    }
    let query = Query {
        text: text.unwrap_or_default(),
        match_count: fields.integer("match_count", 1..=MAX_MATCHES).unwrap_or(Query::default().match_count),
        selection: Selection {
            sources: fields.texts("source", MAX_SOURCES).unwrap_or_default(),
            version: fields.text("version", 1..=128),
        },
        mode: fields.choice("mode").unwrap_or_default(),
        rank: Ranking {
            alpha: fields.number("alpha", 0.0..=1.0),
            fusion: fields.choice("fusion").unwrap_or_default(),
            min_similarity: fields.number("min_similarity", -1.0..=1.0),
            min_keyword_score: fields.number("min_keyword_score", 0.0..=1_000.0),
        },
        exact: fields.boolean("exact").unwrap_or_default(),
        ef_search: fields.integer("ef_search", 1..=1_000),
        content: fields.choice("content").unwrap_or_default(),
        highlight: fields.boolean("highlight").unwrap_or_default(),
        explain: fields.boolean("explain").unwrap_or_default(),
        cursor: None,
        view,
    };
    let unused = match query.mode {
        Mode::Keyword => query.rank.min_similarity.is_some().then_some("min_similarity"),
        Mode::Vector => query.rank.min_keyword_score.is_some().then_some("min_keyword_score"),
        Mode::Hybrid => None,
    };
    if let Some(threshold) = unused {
        fields.refuse::<()>(threshold, "needs a mode that computes it: hybrid, or the mode of that leg");
    }
    let cursor = fields.text("cursor", 1..=32_768).and_then(|text| {
        let cursor = Cursor::decode(&text).filter(|cursor| cursor.fingerprint == query.fingerprint());
        match cursor {
            None => {
                fields.refuse("cursor", "does not belong to this query; pass next_cursor of its last answer unchanged")
            }
            cursor => cursor,
        }
    });
    let caching = fields.choice("cache").unwrap_or_default();
    let timeout = fields.integer("timeout_ms", 1..=MAX_TIMEOUT_MS).map(Duration::from_millis);
    fields.finish()?;
    Ok(Asked { query: Query { cursor, ..query }, caching, timeout })
}

/// Stage times in milliseconds, as browsers and k6 read them: those of the stages that ran, and the whole.
fn server_timing(timings: Option<&Timings>, total: Duration) -> HeaderValue {
    let timings = timings.copied();
    let stages = [
        ("embed", timings.and_then(|stages| stages.embed)),
        ("vector", timings.and_then(|stages| stages.vector)),
        ("keyword", timings.and_then(|stages| stages.keyword)),
        ("rank", timings.map(|stages| stages.rank)),
        ("fetch", timings.map(|stages| stages.fetch)),
        ("total", Some(total)),
    ];
    let mut text = Vec::with_capacity(if timings.is_some() { 128 } else { 24 });
    let mut digits = itoa::Buffer::new();
    for (stage, took) in stages.into_iter().filter_map(|(stage, took)| Some((stage, took?))) {
        if !text.is_empty() {
            text.extend_from_slice(b", ");
        }
        text.extend_from_slice(stage.as_bytes());
        text.extend_from_slice(b";dur=");
        let micros = took.as_micros();
        text.extend_from_slice(digits.format(micros / 1_000).as_bytes());
        text.push(b'.');
        // Three places: those after the thousand.
        text.extend_from_slice(&digits.format(1_000 + micros % 1_000).as_bytes()[1..]);
    }
    HeaderValue::from_maybe_shared(Bytes::from(text)).unwrap_or_else(|_| HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use utoipa::PartialSchema;

    use super::*;

    #[test]
    fn the_description_names_just_the_parameters_that_are_read() {
        let Err(problem) =
            query_from(Fields::from_query(Some("nothing_like_it=1")).expect("UTF-8"), View::everything())
        else {
            panic!("an unknown parameter was taken")
        };
        let allowed = problem.detail.split("allowed are ").nth(1).expect("the allowed names");
        let read: BTreeSet<String> = allowed.split(", ").map(str::to_owned).collect();
        let schema = serde_json::to_value(SearchParameters::schema()).expect("JSON");
        let described: BTreeSet<String> =
            schema["properties"].as_object().expect("an object").keys().cloned().collect();
        assert_eq!(read, described);
    }
}
