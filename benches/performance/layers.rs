//! What stands around a cached search: ids, metrics, keys, rate limits, log and traces (both off, as where nobody reads them), against the
//! same search at the same listener without any of them. And the same again through the router, as a search that is traced goes.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use axum::{
    Router,
    http::{HeaderName, HeaderValue, Response},
};
use doc_server::{
    api::{
        self,
        identity::{Access, Open},
        rate_limit::{self, Group, Limits},
    },
    config::{EmbedProvider, Settings},
    health::Health,
    index::{
        View,
        keys::{NewKey, Scopes},
    },
    query::Query,
    runtime::listen::{self, Early, Front, Head},
    search::{Manner, Search},
};

use super::{Ground, SMALL, Served, blocking, tools};
use crate::{
    Failure,
    data::{self, Size},
    figures::{median, print_ratio},
    http::search_path,
};

/// The sides take turns so many times, and the middle one counts.
const ROUNDS: usize = 5;

/// One measurement.
const TIME: Duration = Duration::from_secs(4);

/// Asked before the measurement.
const QUESTION: &str = "how do I wait for a task to end";

/// What a cached search says beside its bytes.
const OWN_HEADERS: [(&str, &str); 6] = [
    ("content-type", "application/json"),
    ("vary", "accept-encoding"),
    ("x-cache", "hit-l1"),
    ("age", "10"),
    ("etag", "W/\"00000000000000000000000000000000\""),
    ("server-timing", "total;dur=0.004"),
];

/// More requests a minute than any machine answers: all are counted, none is refused.
const NO_LIMIT: NonZeroU32 = NonZeroU32::MAX;

pub async fn run(ground: &Ground<'_>) -> Result<(), Failure> {
    let Some(wrk) = tools::find("wrk", "layers") else { return Ok(()) };
    // A database of its own: with a key in it, nobody gets in without one.
    let settings =
        Settings { embed_provider: EmbedProvider::Fake, ..ground.place.database("_performance_keys").await? };
    data::prepare(&settings, &ground.texts, Size { chunks: SMALL, words: true }).await?;
    let served = Served::start(&settings, settings.search()).await?;
    let measured = measure(&served, wrk).await;
    served.stop().await;
    measured
}

async fn measure(served: &Served, wrk: std::path::PathBuf) -> Result<(), Failure> {
    let new = NewKey {
        name: "layers".to_owned(),
        scopes: Scopes::parse(["search"])?,
        view: View::everything(),
        requests_per_minute: None,
        expires_at: None,
    };
    let (_, secret) = served.app.index.create_key(&new).await?;
    let key = format!("authorization: Bearer {}", secret.reveal());
    served.app.index.refresh_catalog().await?;
    let question = Query { text: QUESTION.to_owned(), ..Query::default() };
    served.search.run(question, Manner::default(), |_| false).await?;
    let whole = api::front(state(served));
    let doors = [
        listen_to(served, whole.clone()).await?,
        listen_to(served, bare(served.search.clone())).await?,
        listen_to(served, whole.router().clone().into()).await?,
    ];
    blocking(move || {
        let paths = [search_path(QUESTION, "")];
        let mut rates = [(); 3].map(|()| Vec::new());
        for _ in 0..ROUNDS {
            for (door, rates) in doors.iter().zip(&mut rates) {
                rates.push(tools::wrk_with(&wrk, *door, (&paths, Some(&key)), TIME)?.rate);
            }
        }
        println!("layers: rounds {:.0?} | {:.0?} | through the router {:.0?}", rates[0], rates[1], rates[2]);
        let [whole, bare, routed] = rates.map(median);
        print_ratio("cached search behind all layers", (whole, "/s"), (bare, "without any"), "must 0.75");
        print_ratio("the same through the router", (routed, "/s"), (bare, "without any"), "no bound");
        Ok(())
    })
    .await
}

/// The search: its parameters, the look for its answer, the bytes, nothing else.
fn bare(search: Search) -> Front {
    let answer = move |head: &Head<'_>| {
        let ready = search.ready(&api::read_search(head.uri.query()?).ok()?)?;
        let outcome = search.take(ready, |_| false, std::time::Instant::now());
        let mut response = Response::new(outcome.body.plain());
        // As many as the answer itself has: they are no layer.
        for (name, value) in OWN_HEADERS {
            response.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        Some(Early::Ready(response))
    };
    Front::new(Router::new()).with_early(Arc::new(answer))
}

fn state(served: &Served) -> api::State {
    let mut limits = rate_limit::Config { address: Some(NO_LIMIT), ..rate_limit::Config::default() };
    limits.groups[Group::Search as usize] = Some(NO_LIMIT);
    let (search, index) = (served.search.clone(), served.app.index.clone());
    api::State {
        access: Access::new(search.clone(), Open::Never, Scopes::NONE),
        search,
        index,
        health: Arc::new(Health::new(served.app.embedder.clone(), None)),
        max_body_bytes: 1 << 20,
        cors_origins: String::new(),
        deadline: Duration::from_secs(30),
        limits: Limits::new(limits, None),
        leaving: served.lifecycle.leaving(),
    }
}

async fn listen_to(served: &Served, front: Front) -> Result<std::net::SocketAddr, Failure> {
    let listener = listen::bind("bind", "127.0.0.1:0".parse()?).await?;
    let address = listener.local_addr()?;
    let serving = listen::serve_task(listener, front, listen::Config::default(), served.lifecycle.clone());
    served.lifecycle.spawn("layers", serving);
    Ok(address)
}
